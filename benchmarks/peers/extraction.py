"""Extraction against other tools: ``python -m benchmarks.peers.extraction [--articles archive] [--count 300]``.

Documents that became text per CPU second of one process, the file read included; and what reaches the text, judged by
windows of eight words that are taken from known places of the XML and looked for in every tool's text.
"""

import argparse
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.table import Table

from benchmarks.peers import articles, runner
from benchmarks.peers.extraction_quality import DEBRIS, KINDS, Judge

NAME = "benchmarks.peers.extraction"
PASSES = 3
ToText = Callable[[Path], str]


def arguments() -> argparse.ArgumentParser:
    """Return the options of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", default="", help="folder or archive of JATS files (default: the bundled sample)")
    parser.add_argument("--count", type=int, default=300, help="how many of them")
    parser.add_argument("--repetitions", type=int, default=5)
    return parser


def run(options: argparse.Namespace, folder: Path) -> None:
    """Measure every tool in turn, then judge their texts."""
    given = articles.read(options.articles)
    chosen = dict(sorted(random.Random(0).sample(sorted(given.items()), min(options.count, len(given)))))
    paths = articles.write_files(chosen, folder / "xml")
    results = runner.alternate(NAME, [*CONTENDERS], folder, options.repetitions)
    failed = {name: len(paths) - found[0]["documents"] for name, found in results.items()}
    notes = {name: f"no text from {count}" if count else "" for name, count in failed.items()}
    runner.compare(f"Extraction of {len(paths)} articles, one process", results, "documents", notes=notes)
    judge = Judge(list(chosen.values()))
    table = Table(
        title=f"What reaches the text: % of {judge.windows:,} windows of words that are found",
        caption="Wanted are the first four, table cells only by setting; the last three are counted per text. "
        "Nobody is asked for declarations (funding, conflicts, ...) or for articles without a body.",
    )
    for number, column in enumerate(("Tool", *KINDS, *DEBRIS)):
        table.add_column(column, justify="right" if number else "left")
    for name in CONTENDERS:
        if name != _LIMIT:
            table.add_row(name, *judge.judge(json.loads((folder / f"{_slug(name)}.json").read_text())))
    runner.show(table)


def _tool(name: str, prepare: Callable[[], ToText]) -> runner.Contender:
    def contender(folder: Path) -> Callable[[], runner.Found]:
        to_text = prepare()
        paths = sorted((folder / "xml").glob("*.xml"))
        for path in paths[:5]:  # compiles patterns, fills caches
            _or_empty(to_text, path)

        def work() -> runner.Found:
            started = runner.cpu_seconds()
            for _ in range(PASSES):  # what a worker does: it goes on for thousands of articles
                texts = [_or_empty(to_text, path) for path in paths]
            used = (runner.cpu_seconds() - started) / PASSES
            (folder / f"{_slug(name)}.json").write_text(json.dumps(texts))
            return {"documents": sum(bool(text) for text in texts), "cpu": used}

        return work

    return contender


def _or_empty(to_text: ToText, path: Path) -> str:
    try:
        return to_text(path)
    except Exception:  # noqa: BLE001 - each tool fails in ways of its own; a failure is an article without text
        return ""


def _slug(name: str) -> str:
    return "".join(filter(str.isalnum, name))


# The tools: each imports what it needs and returns what turns a file into text.


def ours() -> ToText:
    """Return this project's extraction, its metadata and checks included."""
    from components.preprocess.extraction import jats
    from components.preprocess.settings import ExtractSettings

    settings = ExtractSettings()
    return lambda path: jats.extract(path.read_bytes(), settings).text


def with_jats() -> ToText:
    """Return the `jats` package's Markdown."""
    import jats

    return lambda path: jats.convert_to_markdown(jats.parse_jats_xml(path))


def with_pubmed_parser() -> ToText:
    """Return pubmed_parser's title, abstract and paragraphs, a section's name where it changes."""
    import pubmed_parser

    def to_text(path: Path) -> str:
        head = pubmed_parser.parse_pubmed_xml(str(path))
        blocks, section = [head["full_title"], head["abstract"]], ""
        for paragraph in pubmed_parser.parse_pubmed_paragraph(str(path), all_paragraph=True):
            blocks += [paragraph["section"]] if paragraph["section"] != section else []
            blocks.append(paragraph["text"])
            section = paragraph["section"]
        return "\n\n".join(filter(None, blocks))

    return to_text


def with_itertext() -> ToText:
    """Return every text node of the file, as lxml gives them."""
    from lxml import etree

    def to_text(path: Path) -> str:
        return "".join(str(text) for text in etree.parse(str(path)).getroot().itertext())

    return to_text


def with_bare_parse() -> ToText:
    """Return nothing of the tree that lxml makes: the limit of whatever uses it."""
    from lxml import etree

    def to_text(path: Path) -> Any:
        return etree.parse(str(path)).getroot().tag

    return to_text


_LIMIT = "lxml.etree.parse alone (the limit)"
CONTENDERS: dict[str, runner.Contender] = {
    name: _tool(name, prepare)
    for name, prepare in {
        "ours": ours,
        "jats": with_jats,
        "pubmed_parser": with_pubmed_parser,
        "lxml, itertext": with_itertext,
        _LIMIT: with_bare_parse,
    }.items()
}


if __name__ == "__main__":
    runner.main(CONTENDERS, arguments, run)
