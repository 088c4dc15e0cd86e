"""Processes that do the work on articles, and may die of it."""
