"""What the extraction says of the articles that did not become text, read from the stats of its clean shards."""

from collections import Counter
from collections.abc import Iterable
from typing import Any

from components.common.errors import InputError
from components.common.manifest import Rejected, Shard

_CULPRITS_NAMED = 3
_SHOWN_OF_A_REASON = 3


def listed(shards: Iterable[Shard]) -> int:
    """Count the articles that the extraction was given."""
    return sum(int(_stat(shard, "listed")) for shard in shards)


def dropped(shards: Iterable[Shard]) -> Counter[str]:
    """Count the articles that a filter left out, by reason."""
    counts: Counter[str] = Counter()
    for shard in shards:
        counts.update(_stat(shard, "dropped"))
    return counts


def rejected(shards: Iterable[Shard]) -> list[Rejected]:
    """List the articles that could not be read."""
    return [Rejected.model_validate(item) for shard in shards for item in _stat(shard, "rejected")]


def filtered(shards: Iterable[Shard]) -> list[Rejected]:
    """List the articles that a filter left out, with its reason."""
    return [Rejected.model_validate(item) for shard in shards for item in _stat(shard, "filtered")]


def slimmed(shards: Iterable[Shard]) -> list[Shard]:
    """Leave of the articles that a filter left out those that a page shows: all stand in each shard's sidecar.

    A manifest that named every one of them would be large, and is read by every step that follows.
    """
    return [shard.model_copy(update={"stats": {**shard.stats, "filtered": _shown(shard)}}) for shard in shards]


def _shown(shard: Shard) -> list[dict[str, str]]:
    sampled = {sample["id"] for sample in shard.stats.get("dropped_samples", [])}
    seen: Counter[str] = Counter()
    shown = []
    for item in _stat(shard, "filtered"):
        seen[item["reason"]] += 1
        if seen[item["reason"]] <= _SHOWN_OF_A_REASON or item["id"] in sampled:
            shown.append(item)
    return shown


def check_rejected(shards: list[Shard], limit: float) -> None:
    """Stop a run whose input is mostly unreadable, before anything is built on the rest.

    Args:
        shards: Clean shards.
        limit: Largest acceptable share of the listed articles.

    Raises:
        InputError: More were rejected; names the first culprits and the setting to raise.
    """
    bad, total = rejected(shards), listed(shards)
    if len(bad) <= limit * total:
        return
    culprits = "; ".join(f"{item.id}: {item.reason}{_in_brackets(item.detail)}" for item in bad[:_CULPRITS_NAMED])
    raise InputError(
        f"{len(bad):,} of {total:,} articles could not be read ({len(bad) / total:.1%}, the limit is {limit:.1%}), "
        f"the first of them {culprits}; mend the source, or raise preprocess.max_rejected_fraction."
    )


def check_not_empty(shards: list[Shard]) -> None:
    """Stop a run that has no text left.

    Raises:
        InputError: No clean shard holds an article; says how the listed ones were lost.
    """
    if any(shard.rows for shard in shards):
        return
    lost = dropped(shards)
    lost.update(item.reason for item in rejected(shards))
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in lost.most_common()) or "none was listed"
    raise InputError(
        f"None of the {listed(shards):,} listed articles became text ({reasons}); "
        "check the source, or relax preprocess.filters."
    )


def _stat(shard: Shard, name: str) -> Any:
    if name not in shard.stats:
        raise InputError(f"The clean shard {shard.uri} does not say what was {name}; delete it and rerun its step.")
    return shard.stats[name]


def _in_brackets(detail: str) -> str:
    return f" ({detail[:200]})" if detail else ""
