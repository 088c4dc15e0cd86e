"""Builds the synthetic sample that the `tiny` recipe runs on; see tools/make_sample.py."""
