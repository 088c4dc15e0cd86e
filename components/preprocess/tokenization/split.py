"""Which articles are held out for validation: decided by a hash of the article id alone."""

import hashlib

TRAIN = "train"
VALIDATION = "validation"


def position(article_id: str) -> float:
    """Map an article id to a number in [0, 1), evenly spread and the same on every machine and in every run."""
    digest = hashlib.sha256(article_id.encode("utf-8", errors="surrogatepass")).digest()
    # 53 bits: more would round up to 1.0 as a float.
    return (int.from_bytes(digest[:8], "big") >> 11) / float(1 << 53)


def split_of(article_id: str, fraction: float, anchors: dict[str, str]) -> str:
    """Return the split of an article.

    The articles at positions below `fraction` are validation. So that neither split is ever empty, the corpus's first
    article by position is always validation and its last always train: the same rule, applied to the ends.

    Args:
        article_id: The article.
        fraction: Share of the articles held out.
        anchors: The ids at the two ends, as `anchors` gives them.
    """
    if article_id in (anchors[VALIDATION], anchors[TRAIN]):
        return VALIDATION if article_id == anchors[VALIDATION] else TRAIN
    return VALIDATION if position(article_id) < fraction else TRAIN


def anchors(article_ids: list[str]) -> dict[str, str]:
    """Return the ids at the two ends of the corpus, ordered by position: one for each split."""
    ordered = (min(article_ids, key=_order), max(article_ids, key=_order))
    return {VALIDATION: ordered[0], TRAIN: ordered[1]}


def _order(article_id: str) -> tuple[float, str]:
    return position(article_id), article_id
