"""Test questions of the benchmarks: kept out of the corpus, and accounted for."""
