"""Copies of articles: found, compared, listed."""
