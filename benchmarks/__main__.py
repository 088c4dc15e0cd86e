"""Measure the data path on JATS articles: ``python -m benchmarks [--articles archive] [--tokenizer folder]``.

Every measure runs several times, in turn with the others, in one process and one thread; the table shows medians per
CPU second, and the range. Without arguments it uses the bundled sample.
"""

import os

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from lxml import etree
from rich.console import Console
from rich.table import Table

from components.download.sample import TOKENIZER_DIR
from components.download.settings import DownloadSettings
from components.download.sources import Article, open_source
from components.preprocess.deduplication.signatures import signatures
from components.preprocess.extraction import jats
from components.preprocess.filtering import filters
from components.preprocess.settings import ExtractSettings, FilterSettings
from components.preprocess.tokenization.encoders import choose_encoder

REPETITIONS = 5

Measure = tuple[str, str, Callable[[], float]]


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", default="", help="folder or archive of JATS files (default: the bundled sample)")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER_DIR, help="folder with a tokenizer.json")
    options = parser.parse_args()
    files = _read(options.articles)
    texts = _texts(files)
    measures = [*_text_measures(files, texts), *_token_measures(texts, options.tokenizer)]
    samples: dict[str, list[float]] = {name: [] for name, _, _ in measures}
    for _ in range(REPETITIONS):
        for name, _, measure in measures:
            started = time.process_time()
            done = measure()
            samples[name].append(done / (time.process_time() - started))
    _show(measures, samples, len(files), len(texts))


def _read(place: str) -> list[bytes]:
    settings = DownloadSettings(source="files", articles=place) if place else DownloadSettings()
    source = open_source(settings)
    outcomes = [outcome for part in source.plan().parts for outcome in source.fetch(part.table, None)]
    return [outcome.xml for outcome in outcomes if isinstance(outcome, Article)]


def _texts(files: list[bytes]) -> list[str]:
    return [article.text for article in map(_extract, files) if article is not None]


def _extract(xml: bytes) -> jats.Article | None:
    try:
        return jats.extract(xml, ExtractSettings())
    except jats.ArticleError:
        return None


def _text_measures(files: list[bytes], texts: list[str]) -> list[Measure]:
    def parse() -> float:
        parser = etree.XMLParser(resolve_entities=False, no_network=True, recover=True)
        for xml in files:
            etree.fromstring(xml, parser)
        return len(files)

    def extract() -> float:
        for xml in files:
            _extract(xml)
        return len(files)

    def extract_and_filter() -> float:
        for xml in files:
            article = _extract(xml)
            if article is not None:
                filters.judge(article, FilterSettings())
        return len(files)

    def sketch() -> float:
        return len(signatures(texts))

    return [
        ("lxml parse alone (the limit)", "articles", parse),
        ("extract text", "articles", extract),
        ("extract and filter", "articles", extract_and_filter),
        ("shingles and MinHash", "texts", sketch),
    ]


def _token_measures(texts: list[str], tokenizer: Path) -> list[Measure]:
    encoders = dict(choose_encoder(tokenizer, texts[:16], fastest) for fastest in (True, False))

    def encode(name: str) -> Callable[[], float]:
        return lambda: len(encoders[name](texts)[0])

    return [(f"encode with {name}", "tokens", encode(name)) for name in encoders]


def _show(measures: list[Measure], samples: dict[str, list[float]], files: int, texts: int) -> None:
    table = Table(title=f"{files} articles, {texts} texts, {REPETITIONS} repetitions, per CPU second")
    for column in ("What", "Unit"):
        table.add_column(column)
    for column in ("Median", "Lowest", "Highest"):
        table.add_column(column, justify="right")
    for name, unit, _ in measures:
        values = samples[name]
        table.add_row(name, unit, *(f"{value:,.0f}" for value in (statistics.median(values), min(values), max(values))))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
