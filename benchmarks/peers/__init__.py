"""The preprocess stage against other tools: ``python -m benchmarks.peers``, or one of its modules alone."""
