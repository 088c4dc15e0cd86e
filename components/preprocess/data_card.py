"""The data card: what is in a corpus, what is not and why, on one page that loads nothing."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.common.manifest import Manifest
from components.preprocess import accounting
from components.preprocess.duplicates import DUPLICATE_ID, EXACT, NEAR
from components.preprocess.tokenize import BINS_PER_DOUBLING

UNKNOWN = "unknown"

_ROWS = 20  # of a table of counts; the rest is summed up in one row
_REJECTED_SHOWN = 50
_FILTERED_SHOWN = 3  # of each reason
_YEARS_SHOWN = 60
_REASONS = {
    DUPLICATE_ID: "the article comes twice",
    EXACT: "same text as another article",
    NEAR: "nearly the same text as another article",
    "article-type": "not an article to learn from (correction, retraction, ...)",
    "language": "not in a wanted language",
    "too-short": "too few words",
    "too-long": "too many words",
    "low-alphabetic": "too many words without a letter",
    "repetitive": "too much of it is repeated",
    "retracted": "retracted; the ids stay in the manifest",
    "not-open-access": "in PubMed Central, but not open access",
    "licence": "a licence that the policy does not allow",
    "manuscript": "an author manuscript",
    "historical-ocr": "read from scanned pages",
    "publication-date": "published outside the dates of the policy",
    "undated": "no day of publication is known",
    "no-xml": "no XML is offered",
    "no-pmc-id": "a record that is not in PubMed Central",
    "no-text": "a record without text",
    "no-body": "a record of which only the front matter is known",
    "not-sampled": "outside the sample",
}
_ACKNOWLEDGEMENTS = {
    "pmc": "Courtesy of the U.S. National Library of Medicine. PMC Open Access Subset [Internet]. Bethesda (MD): "
    "National Library of Medicine. 2003 - [inventory of {inventory}]. Available from "
    "https://pmc.ncbi.nlm.nih.gov/tools/openftlist/. Each article has a licence of its own.",
    "s2orc": "S2ORC: The Semantic Scholar Open Research Corpus (Lo et al., ACL 2020), release {release}, under "
    "ODC-By 1.0.",
    "sample": "Synthetic articles, bundled with this pipeline.",
    "files": "Articles that were given as files.",
}


@dataclass(frozen=True)
class Bar:
    """A bar of a chart: a label, a count, and the share of the largest bar in percent."""

    label: str
    count: int
    percent: float


def render_data_card(corpus: Manifest, deduplicated: Manifest) -> str:
    """Describe a corpus as one self-contained HTML page.

    Args:
        corpus: What `assemble_corpus` returned.
        deduplicated: What it was assembled from; gives the examples of what was left out.

    Returns:
        The page; all that comes from articles is escaped, and nothing is loaded or run.
    """
    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["paragraphs"] = lambda text: text.replace("\n\n", "\n")
    counts = corpus.extra["counts"]
    return environment.get_template("data_card.html.j2").render(
        corpus=corpus,
        totals=corpus.totals,
        origins=[_acknowledgement(origin) for origin in corpus.extra.get("origins", [])],
        splits=corpus.extra["splits"],
        funnel=_funnel(corpus, deduplicated),
        dropped=_dropped(corpus),
        rejected=corpus.rejected[:_REJECTED_SHOWN],
        licences=_largest(counts["licence"]),
        languages=_largest(counts["language"]),
        article_types=_largest(counts["article_type"]),
        years=_years(counts["year"]),
        year_unknown=counts["year"].get(UNKNOWN, 0),
        lengths=_lengths(corpus.extra["lengths"]),
        examples=deduplicated.extra["examples"],
        filtered=_filtered(deduplicated),
        samples=corpus.extra["samples"],
    )


def _acknowledgement(origin: Mapping[str, str]) -> str:
    """Name the source as its terms ask for it."""
    return _ACKNOWLEDGEMENTS.get(origin["source"], origin["source"]).format_map(origin)


def _funnel(corpus: Manifest, deduplicated: Manifest) -> list[Bar]:
    listed = int(corpus.totals["listed"])
    steps = {
        "listed": listed,
        "readable": listed - len(corpus.rejected),
        "passed the filters": int(deduplicated.totals["clean"]),
        "unique: the corpus": int(corpus.totals["kept"]),
    }
    return [Bar(label, count, _percent(count, listed)) for label, count in steps.items()]


def _dropped(corpus: Manifest) -> list[dict[str, Any]]:
    listed = int(corpus.totals["listed"])
    lost = {**corpus.dropped, "could not be read": len(corpus.rejected)}
    ordered = sorted(((reason, count) for reason, count in lost.items() if count), key=lambda item: (-item[1], item[0]))
    return [
        {"reason": reason, "meaning": _REASONS.get(reason, ""), "count": count, "percent": _percent(count, listed)}
        for reason, count in ordered
    ]


def _largest(counts: Mapping[str, int]) -> list[Bar]:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    rest = ordered[_ROWS:]
    shown = ordered[:_ROWS] + ([(f"{len(rest)} others", sum(count for _, count in rest))] if rest else [])
    return _bars(shown)


def _years(counts: Mapping[str, int]) -> list[Bar]:
    """One bar a year without gaps; what lies further back is one bar."""
    known = {int(year): count for year, count in counts.items() if year != UNKNOWN}
    if not known:
        return []
    last = max(known)
    first = max(min(known), last - _YEARS_SHOWN + 1)
    older = sum(count for year, count in known.items() if year < first)
    bars = [(f"before {first}", older)] if older else []
    return _bars(bars + [(str(year), known.get(year, 0)) for year in range(first, last + 1)])


def _lengths(counts: Mapping[str, int]) -> list[Bar]:
    """One bar per bin of the document lengths, without gaps; labelled by the bin's lower edge in tokens."""
    known = {int(number): count for number, count in counts.items()}
    if not known:
        return []
    edges = range(min(known), max(known) + 1)
    return _bars([(f"{round(2 ** (number / BINS_PER_DOUBLING)):,}", known.get(number, 0)) for number in edges])


def _filtered(deduplicated: Manifest) -> list[dict[str, str]]:
    """A few articles of each reason for which the filters dropped some."""
    shown: dict[str, list[dict[str, str]]] = {}
    for item in accounting.filtered(deduplicated.shards):
        shown.setdefault(item.reason, []).append(item.model_dump())
    return [item for reason in sorted(shown) for item in shown[reason][:_FILTERED_SHOWN]]


def _bars(counts: list[tuple[str, int]]) -> list[Bar]:
    largest = max((count for _, count in counts), default=0)
    return [Bar(label, count, _percent(count, largest)) for label, count in counts]


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0
