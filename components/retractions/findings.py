"""What the watch finds, article by article, and its sum."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

RETRACTED = "retracted"
WITHDRAWN = "withdrawn"
UNKNOWN = "unknown"
RELICENSED = "relicensed"
KNOWN = "known-before"
UPDATED = "updated"
UNCHANGED = "unchanged"

KINDS = (RETRACTED, WITHDRAWN, UNKNOWN, RELICENSED, KNOWN, UPDATED, UNCHANGED)
"""In the order of a report:

- ``retracted``: retracted since the training.
- ``withdrawn``: PubMed Central listed it then, and lists it no more.
- ``unknown``: its state could not be found out; ``reason`` and ``detail`` say why.
- ``relicensed``: its licence is another one now, or not an open one.
- ``known-before``: retracted already when it was downloaded, and used by the recipe's choice.
- ``updated``: another version or other metadata, and none of the above.
- ``unchanged``: as it was.
"""

_COUNTED_ONLY = {UPDATED, UNCHANGED}


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one article since the training; a version of 0 and an empty text mean that nobody knows."""

    id: str
    kind: str
    title: str = ""
    doi: str = ""
    old_version: int = 0
    new_version: int = 0
    old_licence: str = ""
    new_licence: str = ""
    reason: str = ""
    detail: str = ""


@dataclass
class Report:
    """The state of a model's articles by one inventory.

    Attributes:
        model: The registered model's name.
        version: Its version.
        corpus: Fingerprint of what it was trained on.
        inventory: Date of the inventory.
        trained: How many articles it was trained on.
        foreign: How many of these have no id of PubMed Central, so that nothing can be said of them.
        looked_up: How many articles' metadata had to be read: the inventory shows a change, or has nothing to compare.
        counts: How many articles are of each kind.
        findings: All but the updated and the unchanged ones, the worst kind first, then by id.
    """

    model: str
    version: str
    corpus: str
    inventory: str
    trained: int
    foreign: int = 0
    looked_up: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    findings: list[Finding] = field(default_factory=list)

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it where it says something."""
        self.counts[finding.kind] += 1
        if finding.kind not in _COUNTED_ONLY:
            self.findings.append(finding)

    def sort(self) -> None:
        """Order the findings for a reader."""
        self.findings.sort(key=lambda each: (KINDS.index(each.kind), int(each.id.removeprefix("PMC"))))

    @property
    def affected(self) -> int:
        """How many articles have been retracted or withdrawn since."""
        return self.counts[RETRACTED] + self.counts[WITHDRAWN]

    def of_kind(self, kind: str) -> list[Finding]:
        """Return the findings of a kind."""
        return [each for each in self.findings if each.kind == kind]

    def numbers(self) -> dict[str, int]:
        """Return every count by a name that metrics and tables can carry."""
        kinds = {f"{kind.replace('-', '_')}_articles": self.counts[kind] for kind in KINDS}
        return {
            "trained_articles": self.trained,
            "articles_without_pmcid": self.foreign,
            "looked_up_articles": self.looked_up,
            **kinds,
        }

    def to_dict(self) -> dict[str, Any]:
        """Return everything as plain data, the same for the same findings."""
        return {
            "model": self.model,
            "version": self.version,
            "corpus_fingerprint": self.corpus,
            "inventory": self.inventory,
            "trained": self.trained,
            "without_pmcid": self.foreign,
            "checked": self.trained - self.foreign - self.counts[UNKNOWN],
            "looked_up": self.looked_up,
            "complete": not self.counts[UNKNOWN],
            "counts": {kind: self.counts[kind] for kind in KINDS},
            "articles": [asdict(each) for each in self.findings],
        }
