"""The training questions of benchmarks as token examples."""
