"""Measure the extraction of real articles: what reaches the text, what debris is left in it, what is missing and why.

    python benchmarks/extract_quality.py articles.tar.gz [--show 3] [--json report.json]

Reads the .xml and .nxml files of a tar archive or folder. For every piece of text in the body of an article it is known
what it is (paragraph, title, caption, table, citation, ...); pieces of 24 letters and digits are then looked up in the
extracted text. So the report says how much of which kind reaches the text, article by article, and names the worst.
"""

import argparse
import json
import random
import re
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lxml import etree
from rich.console import Console
from rich.table import Table

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.preprocess.extraction import back_matter, jats
from components.preprocess.extraction.safe_xml import all_text, local_name, parse
from components.preprocess.settings import ExtractSettings

DEBRIS = {
    "tags": r"</?(?:p|xref|italic|bold|sup|sub|sec|mml:\w+|ext-link|title|fig|td|tr|span|div)\b[^<>]{0,80}>",
    "TeX preambles": r"\\(?:documentclass|usepackage|begin\{document\}|setlength)",
    "TeX commands": r"\\[a-zA-Z]{2,}",
    "entities": r"&(?:[a-zA-Z]{2,8};|#\d+)",
    "invisible characters": "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\ufeff\ue000-\uf8ff]",
    "numbers in brackets (citations or intervals)": r"(?<![\w.])\[\d{1,3}(?:\s?[,;–-]\s?\d{1,3})*\]",
    "author and year in brackets": r"\([^()]{0,80}\b(?:et al\.?|[A-Z]\w+),? (?:19|20)\d\d[a-z]?(?:[;,][^()]{0,200})?\)",
    "et al. before a bracket or comma": r"\bet al\.?,? ?[)\]]|\bet al\.?, ?(?:[,;.]|and )",
    "empty or orphaned brackets": r"(?<!\w)[(\[]\s*[,;:–-]*\s*[)\]]|[(\[]\s*[,;:]|[,;]\s*[)\]]",
    "brackets around a lone connective": r"[(\[](?:and|or|see|in|by|e\.g\.|cf\.|reviewed in|but see)[.,;]?[)\]]",
    "connective before punctuation": r"\b(?:and|or|see|cf|e\.g\.|i\.e\.|reviewed in|such as) ?[,.;](?=\s|$)(?!\.\.)",
    "doubled or stray punctuation": r" [,;](?=\s)|,\s*,|;\s*;|,\s*\.(?=\s|$)|\(\s*[,;]",
    "sentences cut before a citation": r"\b(?:described|reported|shown|found|reviewed) (?:in|by|from|see)[.,](?=\s)",
    "double spaces": r"(?<=\S)  +(?=\S)",
    "glued sentences": r"[a-z]{3}[.;][A-Z][a-z]{2}|[a-z]{3},[A-Z][a-z]{3}",
    "glued words": r"\b(?:and|the|in|of|by|from|with)(?:Fig|Table|[A-Z][a-z]+ et al)",
    "a superscript citation left": r"[a-z]{6}\d{1,2}(?:[,–-]\d{1,2})+\b",
    "e-mail addresses": r"[\w.+-]+@[\w-]+\.[\w.]+",
}
_PROBE, _SHORTEST_PROBE = 24, 10  # shorter ones stand in the text by chance
_KINDS = {
    "table": "table cells",
    "table-wrap-foot": "table notes",
    "fn": "footnotes",
    "fn-group": "footnotes",
    "caption": "captions",
    "title": "section titles",
    "list": "lists",
    "def-list": "lists",
    "disp-quote": "quotes and boxes",
    "boxed-text": "quotes and boxes",
    "supplementary-material": "supplementary material",
    "inline-formula": "formulas",
    "disp-formula": "formulas",
    "alternatives": "formulas",
    "tex-math": "formulas",
    "math": "formulas",
    "object-id": "ids and alternative texts",
    "alt-text": "ids and alternative texts",
    "long-desc": "ids and alternative texts",
    "permissions": "ids and alternative texts",
    "related-article": "ids and alternative texts",
    "label": "labels",
    "ref-list": "references",
    "sec-meta": "section metadata",
    "kwd-group": "section metadata",
}
_STRONG = {
    "table cells",
    "table notes",
    "footnotes",
    "supplementary material",
    "ids and alternative texts",
    "references",
    "section metadata",
    "dropped sections",
    "formulas",
}
_PROSE = ("paragraphs", "section titles", "lists", "quotes and boxes", "captions")


@dataclass
class Measured:
    """What was seen of one article."""

    name: str
    publisher: str
    characters: Counter[str] = field(default_factory=Counter)  # letters and digits of the body, by kind
    reached: dict[str, list[int]] = field(default_factory=dict)  # probes found, probes
    missing_titles: list[tuple[str, str]] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)  # prose that was not found
    text: str = ""
    error: str = ""

    def share(self, kinds: tuple[str, ...] = ()) -> float:
        """Return the share of the body's characters, of some kinds or of all, that reaches the text."""
        chosen = [kind for kind in self.characters if kind in kinds or not kinds]
        total = sum(self.characters[kind] for kind in chosen)
        found = sum(
            self.characters[kind] * hits / probes for kind in chosen for hits, probes in [self.reached[kind]] if probes
        )
        return found / total if total else 1.0


def main() -> None:
    """Print the report for the archive named on the command line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("archive", type=Path, help="a tar archive or a folder of JATS files")
    arguments.add_argument("--show", type=int, default=0, help="examples of each kind of debris to print")
    arguments.add_argument("--json", type=Path, help="write the report's data here")
    options = arguments.parse_args()
    files = dict(_read(options.archive))
    if not files:
        raise SystemExit(f"{options.archive} holds no .xml or .nxml file.")
    console = Console(width=150)
    articles, speed = _extract(files)
    measured = [_measure(name, xml, articles[name]) for name, xml in files.items()]
    report = {
        "articles": len(files),
        "documents_per_cpu_second": round(speed),
        "rejected": dict(Counter(item.error for item in measured if item.error).most_common()),
        "repaired": dict(Counter(repair for found in articles.values() if isinstance(found, jats.Article)
                                 for repair in found.repairs)),
        "kinds": _by_kind(measured),
        "share": _distribution(measured),
        "lowest": _lowest(measured),
        "missing_sections": _missing_sections(measured),
        "debris": _debris(measured, options.show),
    }  # fmt: skip
    _print(console, report)
    if options.json:
        options.json.write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _read(place: Path) -> Iterator[tuple[str, bytes]]:
    if place.is_dir():
        for path in sorted(place.rglob("*")):
            if path.suffix in (".xml", ".nxml"):
                yield path.name, path.read_bytes()
        return
    with tarfile.open(place) as tar:
        for member in tar:
            handle = tar.extractfile(member) if member.name.endswith((".xml", ".nxml")) else None
            if handle is not None:
                yield Path(member.name).name, handle.read()


def _extract(files: dict[str, bytes]) -> tuple[dict[str, jats.Article | str], float]:
    articles: dict[str, jats.Article | str] = {}
    started = time.process_time()
    for name, xml in files.items():
        try:
            articles[name] = jats.extract(xml, ExtractSettings())
        except jats.ArticleError as error:
            articles[name] = error.reason
    return articles, len(files) / (time.process_time() - started)


# ---- one article ----------------------------------------------------------------------------------------------------


def _measure(name: str, xml: bytes, article: jats.Article | str) -> Measured:
    """Compare the body of an article with its text."""
    if isinstance(article, str):
        return Measured(name, "", error=article)
    root, _ = parse(xml, 2**30)
    publisher = next((all_text(element) for element in root.iter("{*}publisher-name")), "")
    seen = Measured(name, " ".join(publisher.split()) or "unknown", text=article.text)
    search = _Search(article.text)
    body = next(root.iter("{*}body"))
    for kind, text in _pieces(body):
        probes = _probes(text)
        seen.characters[kind] += len(_letters(text))
        found = [search(probe) for probe in probes]
        tally = seen.reached.setdefault(kind, [0, 0])
        tally[0] += sum(found)
        tally[1] += len(found)
        if kind in _PROSE:
            seen.missing += [probe for probe, hit in zip(probes, found, strict=True) if not hit]
    seen.missing_titles = list(_missing_titles(body, search))
    return seen


def _pieces(body: etree._Element) -> Iterator[tuple[str, str]]:
    """Yield the texts of a body with what they are; neighbours of one kind come as one."""
    kind, texts = "", [""]
    for now, text in _texts(body, "paragraphs"):
        if now != kind or text == "\n\n":
            if texts:
                yield kind or "paragraphs", "".join(texts)
            kind, texts = now, []
        texts.append(text)
    yield kind or "paragraphs", "".join(texts)


def _texts(element: etree._Element, kind: str) -> Iterator[tuple[str, str]]:
    inner = _kind(element, kind)
    if element.text:
        yield inner, element.text
    for child in element:
        yield from _texts(child, inner)
        if child.tail:
            yield inner, child.tail
    if local_name(element) in ("p", "title", "td", "th", "list-item"):
        yield inner, "\n\n"


def _kind(element: etree._Element, around: str) -> str:
    name = local_name(element)
    if around in _STRONG:
        return around
    if name in ("xref", "sup") and (name == "sup" or (element.get("ref-type") in ("bibr", "ref"))):
        return "citations and superscripts"
    if name in ("sec", "notes", "ack") and back_matter.is_dropped(element, _title(element), ExtractSettings()):
        return "dropped sections"
    return _KINDS.get(name, around)


def _title(element: etree._Element) -> str:
    title = element.find("{*}title")
    return "" if title is None else " ".join(all_text(title).split())


def _missing_titles(body: etree._Element, search: "_Search") -> Iterator[tuple[str, str]]:
    """Yield the titles of sections that are not in the text, with the reason."""
    for section in body.iter("{*}sec"):
        title = _title(section)
        if not title:
            continue
        pieces = _texts(section.findall("{*}title")[0], "section titles")
        if search(_letters("".join(text for kind, text in pieces if kind in _PROSE))):
            continue
        around = [section, *section.iterancestors("{*}sec")]
        if any(back_matter.is_dropped(one, _title(one), ExtractSettings()) for one in around):
            yield title, "dropped: about the paper"
        elif not _letters(
            "".join(text for kind, text in _pieces(section) if kind in _PROSE and kind != "section titles")
        ):
            yield title, "nothing under it becomes text"
        else:
            yield title, "lost"


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _probes(text: str) -> list[str]:
    letters = _letters(text)
    if len(letters) < _PROBE:
        return [letters] if len(letters) >= _SHORTEST_PROBE else []
    return [letters[start : start + _PROBE] for start in range(0, len(letters) - _PROBE + 1, _PROBE)]


class _Search:
    """Looks up texts by their letters and digits, near the last find first."""

    def __init__(self, text: str) -> None:
        self._letters = _letters(text)
        self._place = 0

    def __call__(self, probe: str) -> bool:
        near = self._letters.find(probe, self._place, self._place + 5000)
        place = near if near >= 0 else self._letters.find(probe)
        if place >= 0:
            self._place = place
        return place >= 0


# ---- all articles ---------------------------------------------------------------------------------------------------


def _by_kind(measured: list[Measured]) -> dict[str, dict[str, float]]:
    characters: Counter[str] = Counter()
    probes: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for item in measured:
        characters.update(item.characters)
        for kind, (hits, tried) in item.reached.items():
            probes[kind] += tried
            found[kind] += hits
    total = characters.total() or 1
    return {
        kind: {
            "characters": count,
            "share_of_body": round(count / total, 4),
            "reaches_the_text": round(found[kind] / probes[kind], 4) if probes[kind] else 0.0,
        }
        for kind, count in characters.most_common()
    }


def _distribution(measured: list[Measured]) -> dict[str, dict[str, float]]:
    read = [item for item in measured if not item.error]
    shares = {"all of the body": sorted(item.share() for item in read)}
    shares["prose"] = sorted(item.share(_PROSE) for item in read)
    return {
        label: {f"p{percent}": round(values[min(int(percent / 100 * len(values)), len(values) - 1)], 3)
                for percent in (0, 1, 5, 10, 25, 50, 75, 90, 100)}
        for label, values in shares.items()
    }  # fmt: skip


def _lowest(measured: list[Measured]) -> list[dict[str, Any]]:
    read = sorted((item for item in measured if not item.error), key=lambda item: item.share(_PROSE))
    return [
        {
            "article": item.name,
            "publisher": item.publisher,
            "prose": round(item.share(_PROSE), 3),
            "body": round(item.share(), 3),
            "mostly": ", ".join(f"{kind} {count}" for kind, count in item.characters.most_common(3)),
            "not_found": item.missing[:3],
        }
        for item in read[:15]
    ]


def _missing_sections(measured: list[Measured]) -> dict[str, list[tuple[str, int]]]:
    reasons: dict[str, Counter[str]] = {}
    for item in measured:
        for title, reason in item.missing_titles:
            label = f"{title} ({item.name})" if reason == "lost" else title.lower().strip(" .:")
            reasons.setdefault(reason, Counter())[label] += 1
    return {reason: counts.most_common(60) for reason, counts in sorted(reasons.items())}


def _debris(measured: list[Measured], show: int) -> dict[str, dict[str, Any]]:
    picker = random.Random(0)
    report = {}
    for label, pattern in DEBRIS.items():
        found = [
            (item.name, item.text[max(match.start() - 50, 0) : match.end() + 40].replace("\n", "/"))
            for item in measured
            for match in re.finditer(pattern, item.text)
        ]
        report[label] = {
            "found": len(found),
            "articles": len({name for name, _ in found}),
            "examples": picker.sample(found, min(show, len(found))),
        }
    return report


def _print(console: Console, report: dict[str, Any]) -> None:
    console.print(
        f"{report['articles']} articles, {report['documents_per_cpu_second']} per CPU second; "
        f"rejected: {report['rejected'] or 'none'}; repaired: {report['repaired'] or 'none'}\n"
    )
    _show(console, "What the bodies hold", ["kind", "characters", "of the bodies", "reaches the text"],
          [[kind, f"{row['characters']:,}", f"{row['share_of_body']:.1%}", f"{row['reaches_the_text']:.1%}"]
           for kind, row in report["kinds"].items()])  # fmt: skip
    percentiles = list(next(iter(report["share"].values())))
    _show(console, "Share of the letters and digits that reach the text, over articles", ["", *percentiles],
          [[label, *(f"{value:.1%}" for value in row.values())] for label, row in report["share"].items()])  # fmt: skip
    _show(console, "Lowest share of prose", ["article", "publisher", "prose", "body", "mostly", "not found"],
          [[row["article"], row["publisher"][:24], f"{row['prose']:.1%}", f"{row['body']:.1%}", row["mostly"],
            " / ".join(row["not_found"])] for row in report["lowest"]])  # fmt: skip
    for reason, titles in report["missing_sections"].items():
        console.print(f"[bold]Sections not in the text, {reason}[/bold]: {sum(count for _, count in titles)}")
        console.print("  " + "; ".join(f"{title} {count}" for title, count in titles[:25]) + "\n", markup=False)
    _show(console, "Debris in the text", ["", "found", "articles"],
          [[label, str(row["found"]), str(row["articles"])] for label, row in report["debris"].items()])  # fmt: skip
    for label, row in report["debris"].items():
        for name, excerpt in row["examples"]:
            console.print(f"{label}: {name}: {excerpt}", markup=False, highlight=False)


def _show(console: Console, title: str, columns: list[str], rows: list[list[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number and len(columns) < 6 else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    console.print()


if __name__ == "__main__":
    main()
