"""Download: sources of articles, benchmarks and the base model, packed into shards."""
