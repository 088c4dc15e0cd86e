"""A raw manifest to a clean manifest: where a shard's text goes, and the account of its articles."""

from collections import Counter
from typing import Any

from components.common import storage
from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest, Rejected, Shard
from components.preprocess import signatures
from components.preprocess.extract import FORMAT_VERSION, extract_shard
from components.preprocess.settings import PreprocessSettings


def clean_shard(raw: Manifest, settings: PreprocessSettings, output_root: str) -> Manifest:
    """Turn the raw shard of a manifest into clean text.

    Args:
        raw: Manifest of kind ``raw`` with one shard, as the download makes it.
        settings: The recipe's preprocess section; ``extract`` and ``filters`` matter here.
        output_root: The store's root URI.

    Returns:
        Manifest of kind ``clean``; listed = kept + all dropped + rejected, those included that the download left out or
        rejected.

    Raises:
        InputError: The raw shard is damaged.
        StorageError: The store cannot be read or written.
    """
    shaping = settings.model_dump(mode="json", include={"extract", "filters"})
    name = fingerprint("clean", FORMAT_VERSION, raw.fingerprint, shaping)
    prefix = storage.join(output_root, "clean", name)
    shards = [
        _after_download(extract_shard(shard, prefix, settings.extract, settings.filters, signatures.signatures), raw)
        for shard in raw.shards
    ]
    return Manifest(
        kind="clean",
        fingerprint=name,
        inputs={"raw": raw.fingerprint},
        settings=shaping,
        shards=shards,
        totals={"listed": _sum(shards, "listed"), "kept": _sum(shards, "kept"), "words": _sum(shards, "words")},
        dropped=_dropped(shards),
        rejected=[Rejected.model_validate(item) for shard in shards for item in shard.stats["rejected"]],
    )


def _after_download(shard: Shard, raw: Manifest) -> Shard:
    """Count the articles that never reached the raw shard among those of the clean one, and name the raw shard."""
    rejected = [item.model_dump() for item in raw.rejected]
    dropped = Counter(raw.dropped) + Counter(shard.stats["dropped"])
    stats = {
        **shard.stats,
        "listed": shard.stats["listed"] + len(rejected) + sum(raw.dropped.values()),
        "dropped": dict(sorted(dropped.items())),
        "rejected": [*rejected, *shard.stats["rejected"]],
        "raw_uri": raw.shards[0].uri,
        "retracted": raw.extra.get("retracted", []),
        "origin": raw.extra.get("origin", {}),
    }
    return shard.model_copy(update={"stats": stats})


def _sum(shards: list[Shard], key: str) -> int:
    return sum(int(shard.stats[key]) for shard in shards)


def _dropped(shards: list[Shard]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for shard in shards:
        reasons: dict[str, Any] = shard.stats["dropped"]
        for reason, count in reasons.items():
            counts[reason] = counts.get(reason, 0) + count
    return counts
