"""Licences of the articles that a model learned from, against what the recipe requires."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping

from components.common.manifest import Manifest
from components.common.pmc.licences import COMMERCIAL, NONCOMMERCIAL

UNKNOWN = "unknown"
# What the gate's policies allow; a work in the public domain may be used for anything.
ALLOWED = {
    "all-open": frozenset({*NONCOMMERCIAL, "Public domain"}),
    "commercial": frozenset({*COMMERCIAL, "Public domain"}),
}
_VERSION = re.compile(r"\s+\d.*$")


def count_licences(corpora: Iterable[Manifest]) -> dict[str, int]:
    """Return how many articles of the corpora have which licence, without its version, the commonest first.

    Articles that no licence is recorded for count as ``unknown``.
    """
    counts: Counter[str] = Counter()
    for corpus in corpora:
        named: dict[str, int] = corpus.extra.get("counts", {}).get("licence", {})
        for licence, articles in named.items():
            counts[_VERSION.sub("", licence.strip()) or UNKNOWN] += articles
        counts[UNKNOWN] += max(int(corpus.totals.get("documents", 0)) - sum(named.values()), 0)
    return {name: count for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if count}


def not_allowed(licences: Mapping[str, int], policy: str) -> dict[str, int]:
    """Return the licences, with their articles, that a policy does not allow; ``any`` allows all."""
    return {} if policy == "any" else {name: n for name, n in licences.items() if name not in ALLOWED[policy]}
