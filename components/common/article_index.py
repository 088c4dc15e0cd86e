"""The index beside every raw shard, ``<shard>.articles.parquet``: each article that was listed, and what became of it.

The download writes it and builds on it at the next refresh; the retraction watch reads from it which state of which
article a model was trained on.
"""

import pyarrow as pa

SUFFIX = ".articles.parquet"
FETCHED = "fetched"
SCHEMA = pa.schema(
    [
        ("article_id", pa.string()),
        ("version", pa.int32()),
        ("etag", pa.string()),
        ("outcome", pa.string()),
        ("metadata", pa.string()),
    ]
)
"""``outcome`` is ``fetched`` or the reason why not; ``metadata`` is what the source said of the article (JSON) and
``etag`` the mark of that state, both empty where none was read."""
DATA_SUFFIX = ".parquet"


def index_uri(raw_shard_uri: str) -> str:
    """Return the URI of a raw shard's index."""
    return raw_shard_uri.removesuffix(DATA_SUFFIX) + SUFFIX
