"""The data card: what is in a corpus, what is not and why, on one page that loads nothing."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.common.manifest import Manifest
from components.preprocess import accounting, plots
from components.preprocess.deduplication.duplicates import DUPLICATE_ID, EXACT, NEAR
from components.preprocess.dropped_samples import lowest
from components.preprocess.filtering.reasons import MEANINGS, UNREADABLE
from components.preprocess.tokenization.tokenize import BINS_PER_DOUBLING

UNKNOWN = "unknown"

_DUPLICATES = (DUPLICATE_ID, EXACT, NEAR)
_ROWS = 12  # of a chart; the rest is summed up beneath it
_REJECTED_SHOWN = 50
_FILTERED_SHOWN = 3  # of each reason
_YEARS_SHOWN = 60
_SUMMED_UP = re.compile(r"([\d,]+) others")  # what `assemble_corpus` has summed up already
_ACKNOWLEDGEMENTS = {
    "pmc": "Courtesy of the U.S. National Library of Medicine. PMC Open Access Subset [Internet]. Bethesda (MD): "
    "National Library of Medicine. 2003 - [inventory of {inventory}]. Available from "
    "https://pmc.ncbi.nlm.nih.gov/tools/openftlist/. Each article has a licence of its own.",
    "s2orc": "S2ORC: The Semantic Scholar Open Research Corpus (Lo et al., ACL 2020), release {release}, under "
    "ODC-By 1.0.",
    "sample": "Synthetic articles, bundled with this pipeline.",
    "files": "Articles that were given as files.",
}


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
    environment.filters["compact"] = plots.compact
    environment.filters["paragraphs"] = _paragraphs
    listed = int(corpus.totals["listed"])
    return environment.get_template("data_card.html.j2").render(
        corpus=corpus,
        totals=corpus.totals,
        percent_kept=_percent(int(corpus.totals["kept"]), listed),
        origins=[_acknowledgement(origin) for origin in corpus.extra.get("origins", [])],
        splits=corpus.extra["splits"],
        funnel=_funnel(corpus),
        dropped=_dropped(corpus),
        charts=_charts(corpus),
        duplicates=_duplicates(corpus, int(deduplicated.totals["clean"])),
        contamination=corpus.extra.get("contamination"),
        samples=corpus.extra["samples"],
        examples=deduplicated.extra["examples"],
        filtered=_filtered(deduplicated),
        rejected=corpus.rejected[:_REJECTED_SHOWN],
    )


def _acknowledgement(origin: Mapping[str, str]) -> str:
    """Name the source as its terms ask for it."""
    return _ACKNOWLEDGEMENTS.get(origin["source"], origin["source"]).format_map(origin)


def _paragraphs(text: str, title: str = "") -> str:
    """Close the lines up, and leave out the title where it stands above already."""
    return text.removeprefix(title).lstrip().replace("\n\n", "\n")


def _funnel(corpus: Manifest) -> str:
    losses = [(row["reason"], row["count"]) for row in _dropped(corpus)]
    return plots.waterfall(
        ("listed", int(corpus.totals["listed"])),
        losses,
        ("kept: the corpus", int(corpus.totals["kept"])),
        "From the articles listed to those kept, with what was left out for each reason",
    )


def _dropped(corpus: Manifest) -> list[dict[str, Any]]:
    """What was left out, in the order in which it happened: not readable, filtered, then the copies."""
    listed = int(corpus.totals["listed"])
    lost = {UNREADABLE: len(corpus.rejected), **corpus.dropped}
    order = [UNREADABLE, *sorted(corpus.dropped, key=lambda reason: (reason in _DUPLICATES, -lost[reason], reason))]
    return [
        {
            "reason": reason,
            "meaning": MEANINGS.get(reason, ""),
            "count": lost[reason],
            "percent": _percent(lost[reason], listed),
        }
        for reason in order
        if lost[reason]
    ]


def _charts(corpus: Manifest) -> list[dict[str, str]]:
    """The charts of what was kept, each with a line beneath it; those without numbers are left out."""
    counts = corpus.extra["counts"]
    undated = counts["year"].get(UNKNOWN, 0)
    charts = [
        {
            "title": "Length in tokens",
            "svg": plots.histogram(_lengths(corpus.extra["lengths"]), "Articles by length in tokens"),
            "note": "Each bar spans a factor of 1.4 and is labelled by its lower end.",
        },
        {
            "title": "Year of publication",
            "svg": plots.histogram(_years(counts["year"]), "Articles by year of publication"),
            "note": f"{undated:,} without a year." if undated else "",
        },
        _ranking("Licence", counts["licence"]),
        _ranking("Language", counts["language"]),
        _ranking("Journal", counts.get("journal", {})),
        _ranking("Article type", counts["article_type"]),
    ]
    return [chart for chart in charts if chart["svg"] or chart["note"]]


def _ranking(title: str, counts: Mapping[str, int]) -> dict[str, str]:
    """Chart the largest counts; the rest would dwarf them and stands beneath."""
    summed_up = {label: match for label in counts if (match := _SUMMED_UP.fullmatch(label))}
    ordered = sorted(
        ((label, count) for label, count in counts.items() if label not in summed_up),
        key=lambda item: (-item[1], item[0]),
    )
    whole = sum(counts.values())
    rest = whole - sum(count for _, count in ordered[:_ROWS])
    others = len(ordered[_ROWS:]) + sum(int(match[1].replace(",", "")) for match in summed_up.values())
    return {
        "title": title,
        "svg": plots.bars(ordered[:_ROWS], f"Articles by {title.lower()}", whole),
        "note": f"And {others:,} others with {rest:,} articles." if others else "",
    }


def _duplicates(corpus: Manifest, clean: int) -> list[dict[str, Any]]:
    return [
        {
            "reason": reason,
            "meaning": MEANINGS[reason],
            "count": corpus.dropped.get(reason, 0),
            "percent": _percent(corpus.dropped.get(reason, 0), clean),
        }
        for reason in _DUPLICATES
    ]


def _years(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """One bar a year without gaps; what lies further back is one bar."""
    known = {int(year): count for year, count in counts.items() if year != UNKNOWN}
    if not known:
        return []
    last = max(known)
    first = max(min(known), last - _YEARS_SHOWN + 1)
    older = sum(count for year, count in known.items() if year < first)
    bars = [(f"before {first}", older)] if older else []
    return bars + [(str(year), known.get(year, 0)) for year in range(first, last + 1)]


def _lengths(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    """One bar per bin of the document lengths, without gaps; labelled by the bin's lower edge in tokens."""
    known = {int(number): count for number, count in counts.items()}
    if not known:
        return []
    edges = range(min(known), max(known) + 1)
    return [(f"{round(2 ** (number / BINS_PER_DOUBLING)):,}", known.get(number, 0)) for number in edges]


def _filtered(deduplicated: Manifest) -> list[dict[str, Any]]:
    """A few articles of each reason for which some were dropped; with their text where the shards kept some of it."""
    samples = lowest(one for shard in deduplicated.shards for one in shard.stats.get("dropped_samples", []))
    details = {item.id: item.detail for item in accounting.filtered(deduplicated.shards)}
    shown: dict[str, list[dict[str, str]]] = {}
    for one in samples:
        shown.setdefault(one["reason"], []).append({**one, "detail": details.get(one["id"], "")})
    for item in accounting.filtered(deduplicated.shards):
        members = shown.setdefault(item.reason, [])
        if len(members) < _FILTERED_SHOWN and item.id not in {member["id"] for member in members}:
            members.append({"title": "", "text": "", **item.model_dump()})
    return [
        {"reason": reason, "meaning": MEANINGS.get(reason, ""), "articles": shown[reason]} for reason in sorted(shown)
    ]


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 1) if whole else 0.0
