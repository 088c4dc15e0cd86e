"""A few of the articles that the filters drop, for the data card: the same ones whatever the order of the work."""

from collections import defaultdict
from collections.abc import Iterable

from components.preprocess.tokenization.split import position

PER_REASON = 2
CHARACTERS = 300


def lowest(samples: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """Return of each reason the samples whose ids have the lowest hash positions, ordered by reason and position."""
    by_reason = defaultdict(list)
    for one in samples:
        by_reason[one["reason"]].append(one)
    return [one for reason in sorted(by_reason) for one in sorted(by_reason[reason], key=_order)[:PER_REASON]]


def sample(article_id: str, reason: str, title: str, text: str) -> dict[str, str]:
    """Return what is shown of a dropped article."""
    return {"id": article_id, "reason": reason, "title": title[:CHARACTERS], "text": text[:CHARACTERS]}


def _order(one: dict[str, str]) -> tuple[float, str]:
    return position(one["id"]), one["id"]
