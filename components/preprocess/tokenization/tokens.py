"""One clean shard and the base model's tokenizer to a manifest of token shards."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest
from components.preprocess.settings import TokenizeSettings
from components.preprocess.tokenization.tokenize import tokenize_shard

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def tokenize_with_model(
    deduplicated: Manifest, shard_name: str, base_model: Manifest, settings: TokenizeSettings, output_root: str
) -> Manifest:
    """Encode the unique documents of a clean shard with a model's tokenizer.

    Args:
        deduplicated: What the search for duplicates returned.
        shard_name: One of its shards.
        base_model: Manifest of kind ``model``; only its tokenizer's files are read.
        settings: Split and encoder.
        output_root: The store's root URI.

    Returns:
        Manifest of kind ``tokens``: the train and the validation shard.

    Raises:
        InputError: The model has no tokenizer, or the shard cannot be read.
        StorageError: The store cannot be read or written.
    """
    with _tokenizer(base_model) as folder:
        shards = tokenize_shard(deduplicated, shard_name, folder, settings, output_root)
    return Manifest(
        kind="tokens",
        fingerprint=fingerprint("tokens", [shard.sha256 for shard in shards], [shard.name for shard in shards]),
        inputs={"deduplicated": deduplicated.fingerprint, "base_model": base_model.fingerprint},
        settings=settings.model_dump(mode="json"),
        shards=shards,
        totals={
            "documents": sum(shard.rows for shard in shards),
            "tokens": sum(int(shard.stats["tokens"]) for shard in shards),
        },
    )


@contextlib.contextmanager
def _tokenizer(base_model: Manifest) -> Iterator[Path]:
    """Fetch the tokenizer's files alone: the weights beside them may be many gigabytes."""
    found = [shard for shard in base_model.shards if shard.name in TOKENIZER_FILES]
    if TOKENIZER_FILES[0] not in [shard.name for shard in found]:
        raise InputError(
            f"The base model {base_model.fingerprint} has no {TOKENIZER_FILES[0]}; give a complete folder."
        )
    with tempfile.TemporaryDirectory(prefix="pmc-") as scratch:
        for shard in found:
            storage.download(shard.uri, Path(scratch) / shard.name)
        yield Path(scratch)
