"""Evaluate: held-out perplexity and the medical benchmarks, question by question."""
