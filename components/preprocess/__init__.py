"""Preprocess: JATS articles to clean text, deduplicated and tokenised into token shards."""
