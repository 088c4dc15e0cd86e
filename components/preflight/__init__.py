"""Preflight: whether everything that a run needs is there, before anything is done."""
