"""Measure the extraction of real articles: what is kept, how fast, and what debris is left in the text.

    python benchmarks/extract_quality.py articles.tar.gz [--show 3]

Reads the .xml and .nxml files of a tar archive. Speed is documents per CPU second of one process, extraction alone and
with filters; the parse alone is lxml's, as the limit.
"""

import argparse
import random
import re
import sys
import tarfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from lxml import etree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.preprocess import filters, jats
from components.preprocess.settings import ExtractSettings, FilterSettings

DEBRIS = {
    "tags": r"</?(?:p|xref|italic|bold|sup|sub|sec|mml:\w+|ext-link|title|fig|td|tr|span|div)\b[^<>]{0,80}>",
    "TeX preambles": r"\\(?:documentclass|usepackage|begin\{document\}|setlength)",
    "TeX commands": r"\\[a-zA-Z]{2,}",
    "entities": r"&(?:[a-zA-Z]{2,8};|#\d+)",
    "bracketed numbers (citations or intervals)": r"(?<![\w.])\[\d{1,3}(?:\s?[,;–-]\s?\d{1,3})*\]",
    "empty brackets": r"(?<!\w)[(\[]\s*[,;]?\s*[)\]]",
    "doubled or stray punctuation": r" [,;](?=\s)|,\s*,|;\s*;|\(\s*[,;]",
    "sentences cut before a citation": r"\b(?:described|reported|shown|found|reviewed) (?:in|by|from|see)\.(?=\s)",
    "glued sentences": r"[a-z]{3}\.[A-Z][a-z]{2}",
    "invisible characters": "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b-\u200f\u2028-\u202e\ufeff\ue000-\uf8ff]",
    "e-mail addresses": r"[\w.+-]+@[\w-]+\.[\w.]+",
}

_T = TypeVar("_T")


def main() -> None:
    """Print the report for the archive named on the command line."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("archive", type=Path, help="a tar archive of JATS files")
    arguments.add_argument("--show", type=int, default=0, help="examples of each kind of debris to print")
    options = arguments.parse_args()
    names, files = _read(options.archive)
    if not files:
        raise SystemExit(f"{options.archive} holds no .xml or .nxml file.")
    articles, rejected = _report_speed(names, files)
    _report_outcome(articles, rejected)
    _report_debris(articles, options.show)


def _read(archive: Path) -> tuple[list[str], list[bytes]]:
    names, files = [], []
    with tarfile.open(archive) as tar:
        for member in tar:
            handle = tar.extractfile(member) if member.name.endswith(("xml", "nxml")) else None
            if handle is not None:
                names.append(Path(member.name).name)
                files.append(handle.read())
    return names, files


def _report_speed(names: list[str], files: list[bytes]) -> tuple[dict[str, jats.Article], dict[str, str]]:
    articles: dict[str, jats.Article] = {}
    rejected: dict[str, str] = {}

    def extract_all() -> None:
        for name, xml in zip(names, files, strict=True):
            try:
                articles[name] = jats.extract(xml, ExtractSettings())
            except jats.ArticleError as error:
                rejected[name] = error.reason

    def parse_all() -> None:
        for xml in files:
            etree.fromstring(xml, etree.XMLParser(recover=True, resolve_entities=False, no_network=True))

    def judge_all() -> None:
        for article in articles.values():
            filters.judge(article, FilterSettings())

    for label, action in (("parse alone", parse_all), ("extraction", extract_all), ("filters", judge_all)):
        action()  # once to warm up: the language model is read, patterns are compiled
        seconds = min(_cpu_seconds(action) for _ in range(3))
        print(f"{label:12} {len(files) / seconds:8.0f} documents per CPU second")
    return articles, rejected


def _cpu_seconds(action: Callable[[], None]) -> float:
    started = time.process_time()
    action()
    return time.process_time() - started


def _report_outcome(articles: dict[str, jats.Article], rejected: dict[str, str]) -> None:
    reasons = {name: filters.judge(article, FilterSettings()) for name, article in articles.items()}
    dropped = Counter(reason for reason in reasons.values() if reason)
    kept = len(articles) - dropped.total()
    print(f"\n{len(articles) + len(rejected)} listed, {kept} kept, {dropped.total()} dropped, {len(rejected)} rejected")
    print("dropped: ", dict(dropped.most_common()))
    print("rejected:", dict(Counter(rejected.values()).most_common()))
    print("repaired:", dict(Counter(repair for article in articles.values() for repair in article.repairs)))
    print("mean characters:", sum(len(article.text) for article in articles.values()) // max(len(articles), 1))


def _report_debris(articles: dict[str, jats.Article], show: int) -> None:
    print("\ndebris, over all extracted texts: occurrences, articles")
    picker = random.Random(0)
    for label, pattern in DEBRIS.items():
        found = [
            (name, article.text[max(match.start() - 40, 0) : match.end() + 30].replace("\n", "/"))
            for name, article in articles.items()
            for match in re.finditer(pattern, article.text)
        ]
        print(f"{label:45} {len(found):5} {len({name for name, _ in found}):4}")
        for name, excerpt in picker.sample(found, min(show, len(found))):
            print(f"    {name}: {excerpt}")


if __name__ == "__main__":
    main()
