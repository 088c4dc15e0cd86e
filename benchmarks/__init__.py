"""Measurements; ``make bench`` prints them as a table for docs/benchmarks.md."""
