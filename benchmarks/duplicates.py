"""Measure the search for copies: ``python -m benchmarks.duplicates [--documents 5000000] [--pairs 4000]``.

The first part makes clean shards of so many documents: signatures at random, and among them planted pairs of short
texts whose true similarity is counted, thousands of copies of one text and of one that differs in a word. The whole
step runs over them in a process of its own; the table shows its time, its peak memory (VmHWM) and what it found. Five
million documents take 5 GB below ``--store``, which may be a bucket.

The second part plants edited copies of texts as long as articles (of real ones with ``--articles``), counts the true
Jaccard similarity of each pair over sets of tuples of words, and shows which pairs are found with which bands.
"""

import argparse
import itertools
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from rich.console import Console
from rich.table import Table

from components.common import storage
from components.common.manifest import Manifest, Shard
from components.common.shards import write_shard
from components.download.settings import DownloadSettings
from components.download.sources import Article, open_source
from components.preprocess.deduplication import duplicates
from components.preprocess.deduplication.signatures import SIGNATURE_TYPE, signatures, sketches, to_arrow
from components.preprocess.extract import CLEAN_SCHEMA
from components.preprocess.extraction import jats
from components.preprocess.settings import DeduplicateSettings, ExtractSettings

WORDS = 4096  # so that five words make 60 bits, and a set of 5-grams a set of numbers
SHORT_WORDS = 300
ROW_GROUP = 1024
SHORTEST = 400
BINS = (0.0, 0.5, 0.7, 0.8, 0.85, 0.9, 1.0)
BANDS = ((14, 8), (16, 7))
STEPS = ("read_index", "candidate_pairs", "read_candidates", "linked", "write_removals", "examples", "_split_anchors")


def main() -> None:
    """Run both parts and print their tables."""
    options = _options()
    if options.child:
        _run(options.child, options.store)
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.documents:
            _scale(options, storage.to_uri(options.store or folder))
        if options.pairs:
            _quality(options, storage.to_uri(folder))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=5_000_000, help="documents of the first part; 0 leaves it out")
    parser.add_argument("--shards", type=int, default=1024)
    parser.add_argument("--copies", type=float, default=0.01, help="share of the documents that is planted pairs")
    parser.add_argument("--family", type=int, default=10_000, help="size of the large families")
    parser.add_argument("--store", default="", help="URI for the shards (default: a temporary folder)")
    parser.add_argument("--folder", type=Path, help="where the temporary folder is made")
    parser.add_argument("--pairs", type=int, default=4000, help="pairs of the second part; 0 leaves it out")
    parser.add_argument("--articles", default="", help="folder or archive of JATS files for the second part")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


# The first part: one step over millions of documents.


def _scale(options: argparse.Namespace, store: str) -> None:
    plants = _plant(options.documents, options.copies, options.family)
    started = time.monotonic()
    shards = list(_write_shards(plants, options.documents, options.shards, storage.join(store, "clean")))
    size = sum(shard.bytes for shard in shards)
    print(
        f"{options.documents:,} documents in {len(shards)} shards, {size / 1e9:.2f} GB, {_since(started)}", flush=True
    )
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        listed = Path(folder) / "shards.json"
        listed.write_text(json.dumps([shard.model_dump() for shard in shards]))
        command = [sys.executable, "-m", "benchmarks.duplicates", "--child", str(listed), "--store", store]
        found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    _show_scale(found, plants, store)


def _run(listed: Path, store: str) -> None:
    """Run the step as the pipeline does, and say on standard output what it took."""
    shards = [Shard.model_validate(each) for each in json.loads(listed.read_text())]
    seconds: dict[str, float] = {}
    for name in STEPS:
        setattr(duplicates, name, _timed(name, getattr(duplicates, name), seconds))
    before = _status("VmRSS")
    started = time.monotonic()
    manifest = duplicates.find_duplicates(shards, DeduplicateSettings(), store, 1.0)
    spent = resource.getrusage(resource.RUSAGE_SELF)
    print(
        json.dumps(
            {
                "seconds": {**seconds, "the whole step": time.monotonic() - started},
                "cpu": spent.ru_utime + spent.ru_stime,
                "peak": _status("VmHWM"),
                "before": before,
                "manifest": storage.join(manifest.extra["removed_prefix"], "manifest.json"),
            }
        )
    )


def _timed(name: str, function: Callable[..., Any], seconds: dict[str, float]) -> Callable[..., Any]:
    def timed(*arguments: Any) -> Any:
        started = time.monotonic()
        result = function(*arguments)
        seconds[name.strip("_")] = time.monotonic() - started
        return result

    return timed


def _status(name: str) -> float:
    """Read a line of /proc/self/status, in GB."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return int(lines[name].split()[0]) * 1024 / 1e9


class _Plants:
    """Planted texts, by document number, and what is known of them."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self.pairs: list[tuple[int, int, float]] = []
        self.same: list[int] = []
        self.alike: list[int] = []


def _plant(documents: int, share: float, family: int) -> _Plants:
    draw = np.random.default_rng(1)
    words = np.array([f"{random.Random(number).choice('bcdfglmnprst')}ord{number:x}" for number in range(WORDS)])
    plants = _Plants()
    family = min(family, documents // 10)
    count = int(documents * share) // 2 * 2
    places = draw.choice(documents, size=count + 2 * family, replace=False)
    for first, second in places[:count].reshape(-1, 2).tolist():
        one = draw.integers(0, WORDS, SHORT_WORDS)
        other = _edited(one, draw)
        plants.texts[first], plants.texts[second] = " ".join(words[one]), " ".join(words[other])
        plants.pairs.append((first, second, _exact_jaccard(one, other)))
    notice = draw.integers(0, WORDS, SHORT_WORDS)
    plants.same, plants.alike = places[count : count + family].tolist(), places[count + family :].tolist()
    for place in plants.same:
        plants.texts[place] = " ".join(words[notice])
    form = draw.integers(0, WORDS, SHORT_WORDS)
    for number, place in enumerate(plants.alike):
        form[SHORT_WORDS // 2] = number % WORDS
        plants.texts[place] = f"{' '.join(words[form])} {number}"
    return plants


def _edited(words: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Replace a block of words, cut off the end, or change words here and there."""
    edited, share = words.copy(), draw.uniform(0, 0.35)
    kind = draw.integers(3)
    if kind == 0:
        start = draw.integers(0, int(len(words) * (1 - share)))
        block = edited[start : start + int(len(words) * share)]
        block[:] = draw.integers(0, WORDS, len(block))
    elif kind == 1:
        edited = edited[: int(len(words) * (1 - share))]
    else:
        changed = draw.choice(len(words), size=int(len(words) * share / 6), replace=False)
        edited[changed] = draw.integers(0, WORDS, len(changed))
    return edited


def _exact_jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Count over sets of 5-grams, each written as one number."""
    sets = []
    for ids in (one, other):
        windows = np.lib.stride_tricks.sliding_window_view(ids.astype(np.uint64), 5)
        sets.append(set((windows << np.arange(0, 60, 12, dtype=np.uint64)).sum(axis=1).tolist()))
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def _write_shards(plants: _Plants, documents: int, count: int, prefix: str) -> Iterator[Shard]:
    bounds = np.linspace(0, documents, count + 1).astype(int)
    for number, (start, end) in enumerate(zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True)):
        table = _table(plants, start, end)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=ROW_GROUP)
        stats = {"listed": end - start, "kept": end - start, "dropped": {}, "rejected": [], "filtered": []}
        content = sink.getvalue().to_pybytes()
        yield write_shard(prefix, f"shard-{number:05d}", {".parquet": content}, end - start, stats)


def _table(plants: _Plants, start: int, end: int) -> pa.Table:
    draw = np.random.default_rng(start)
    texts = [plants.texts.get(number, f"Document {number}.") for number in range(start, end)]
    rows = draw.integers(0, 1 << 32, (end - start, SIGNATURE_TYPE.list_size), dtype=np.uint32)
    digests = draw.integers(0, 1 << 8, (end - start, 16), dtype=np.uint8)
    planted = [number - start for number in range(start, end) if number in plants.texts]
    rows[planted], digests[planted] = sketches([texts[row] for row in planted])
    years = draw.integers(1990, 2027, end - start)
    known = {
        "article_id": pa.array([f"PMC{number}" for number in range(start, end)]),
        "title": pa.array([f"Title {number}" for number in range(start, end)]),
        "text": pa.array(texts),
        "article_type": pa.array(["research-article"] * (end - start)),
        "journal": pa.array([f"Journal {year}" for year in years]),
        "year": pa.array(years, pa.int32()),
        "characters": pa.array([len(text) for text in texts], pa.int32()),
        "sha256": pa.array([xxhash.xxh3_128_hexdigest(text.encode()) * 2 for text in texts]),
        "words_digest": pa.array([row.tobytes() for row in digests], pa.binary(16)),
        "signature": to_arrow(rows),
    }
    rest = {field.name: pa.nulls(end - start, field.type) for field in CLEAN_SCHEMA if field.name not in known}
    return pa.table(known | rest)


def _show_scale(found: dict[str, Any], plants: _Plants, store: str) -> None:
    manifest = Manifest.load_uri(found["manifest"])
    gone = set(_removed(manifest))
    table = Table(title=f"{manifest.totals['clean']:,} documents, {len(manifest.shards)} shards, {store}")
    for column in ("What", ""):
        table.add_column(column, justify="right" if column == "" else "left")
    for name, value in found["seconds"].items():
        table.add_row(name.replace("_", " "), f"{value:,.1f} s")
    table.add_row("CPU time", f"{found['cpu']:,.1f} s")
    table.add_row("peak memory", f"{found['peak']:.2f} GB")
    table.add_row("of it before the step began", f"{found['before']:.2f} GB")
    similar = [pair for pair in plants.pairs if pair[2] >= 0.8]
    hits = sum(one in gone or other in gone for one, other, _ in similar)
    wrong = sum(one in gone or other in gone for one, other, truth in plants.pairs if truth < 0.8)
    table.add_row(
        "planted pairs of Jaccard >= 0.8 found", f"{hits:,} of {len(similar):,} ({hits / max(len(similar), 1):.2%})"
    )
    table.add_row("planted pairs below 0.8 merged", f"{wrong:,} of {len(plants.pairs) - len(similar):,}")
    planted = sum(len(pair) - 1 for pair in plants.pairs)
    table.add_row("others merged", f"{len(gone - set(plants.texts)):,} of {manifest.totals['clean'] - planted:,}")
    for name, family in (("equal texts", plants.same), ("texts that differ in a word", plants.alike)):
        table.add_row(f"{name}, left of {len(family):,}", f"{len(set(family) - gone):,}")
    Console(width=110).print(table)


def _removed(manifest: Manifest) -> Iterator[int]:
    start = 0
    for shard in manifest.shards:
        for row in duplicates.removed_rows(manifest, shard.name).tolist():
            yield start + row
        start += shard.rows


# The second part: which edited copies of long texts are found.


def _quality(options: argparse.Namespace, store: str) -> None:
    draw = random.Random(2)
    originals = _texts(options.articles, options.pairs)
    copies = [_edited_text(text, draw) for text in originals]
    truths = [_true_jaccard(one, other) for one, other in zip(originals, copies, strict=True)]
    rate = _rate(originals)
    shard = _long_shard([*originals, *copies], store)
    table = Table(
        title=f"{len(originals):,} pairs of {np.mean([len(text.split()) for text in originals]):,.0f} words in the "
        f"mean; signatures of {rate:,.0f} texts per CPU second"
    )
    for column in ("True Jaccard", "Pairs", *(f"merged, {bands} x {rows}" for bands, rows in BANDS)):
        table.add_column(column, justify="right")
    merged = [_merged(shard, store, bands, rows, len(originals)) for bands, rows in BANDS]
    for low, high in itertools.pairwise(BINS):
        inside = np.array([low <= truth < high or truth == high == BINS[-1] for truth in truths])
        shown = [f"{hits[inside].sum():,} ({hits[inside].mean():.2%})" if inside.any() else "" for hits in merged]
        table.add_row(f"{low} to {high}", f"{inside.sum():,}", *shown)
    inside = np.array(truths) >= 0.8
    shown = [f"{hits[inside].sum():,} ({hits[inside].mean():.2%})" for hits in merged]
    table.add_row("0.8 and more", f"{inside.sum():,}", *shown)
    Console(width=110).print(table)


def _texts(place: str, count: int) -> list[str]:
    """Take articles' texts, or make texts of their lengths with the frequencies of words of a language."""
    if place:
        # Of a notice of three sentences every rearrangement would be a copy of another pair's.
        texts = [text for text in map(_extracted, _articles(place)) if len(text.split()) >= SHORTEST]
        order = random.Random(4)
        # There may be more pairs than articles: a text whose sentences are shuffled and thinned is another text.
        return [_rearranged(texts[number % len(texts)], order) for number in range(count)]
    draw = np.random.default_rng(3)
    words = np.array([f"w{number:x}" for number in range(50_000)])
    lengths = np.clip(draw.lognormal(8.2, 0.6, count), 300, 20_000).astype(int)
    return [" ".join(words[np.minimum(draw.zipf(1.15, length), 50_000) - 1]) for length in lengths]


def _articles(place: str) -> Iterator[bytes]:
    source = open_source(DownloadSettings(source="files", articles=place))
    for part in source.plan().parts:
        yield from (bytes(outcome.xml) for outcome in source.fetch(part.table, None) if isinstance(outcome, Article))


def _extracted(xml: bytes) -> str:
    try:
        return jats.extract(xml, ExtractSettings()).text
    except jats.ArticleError:
        return ""


def _rearranged(text: str, draw: random.Random) -> str:
    sentences = [each for each in re.split(r"(?<=[.\n]) ", text) if draw.random() < 0.7]
    draw.shuffle(sentences)
    return " ".join(sentences) or text


def _edited_text(text: str, draw: random.Random) -> str:
    """Do what revisions do: other words here and there, another section, a missing end, another layout."""
    words, kind, share = text.split(" "), draw.randrange(4), draw.uniform(0, 0.35)
    if kind == 0:
        start = draw.randrange(len(words))
        words[start : start + int(share * len(words))] = (f"new{draw.random()}" for _ in range(int(share * len(words))))
    elif kind == 1:
        words = words[: int(len(words) * (1 - share))] or words
    elif kind == 2:
        for place in draw.sample(range(len(words)), int(share / 6 * len(words))):
            words[place] = f"changed{draw.random()}"
    return " ".join(words) if kind < 3 else " ".join(words).upper().replace(" ", "\n")


def _true_jaccard(one: str, other: str) -> float:
    sets = []
    for text in (one, other):
        words = re.findall(r"[^\W_]+", text.lower())
        sets.append(set(zip(*(words[start:] for start in range(5)), strict=False)))
    return len(sets[0] & sets[1]) / max(len(sets[0] | sets[1]), 1)


def _rate(texts: list[str]) -> float:
    signatures(texts[:10])
    started = time.process_time()
    signatures(texts)
    return len(texts) / (time.process_time() - started)


def _long_shard(texts: list[str], store: str) -> Shard:
    rows, digests = sketches(texts)
    known = {
        "article_id": pa.array([f"PMC{number}" for number in range(len(texts))]),
        "text": pa.array(texts, pa.string()),
        "characters": pa.array([len(text) for text in texts], pa.int32()),
        "sha256": pa.array([xxhash.xxh3_128_hexdigest(text.encode(errors="surrogatepass")) * 2 for text in texts]),
        "words_digest": pa.array([row.tobytes() for row in digests], pa.binary(16)),
        "signature": to_arrow(rows),
    }
    rest = {field.name: pa.nulls(len(texts), field.type) for field in CLEAN_SCHEMA if field.name not in known}
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(known | rest), sink, compression="zstd", row_group_size=ROW_GROUP)
    stats = {"listed": len(texts), "kept": len(texts), "dropped": {}, "rejected": [], "filtered": []}
    prefix = storage.join(store, "long")
    return write_shard(prefix, "shard-00000", {".parquet": sink.getvalue().to_pybytes()}, len(texts), stats)


def _merged(shard: Shard, store: str, bands: int, rows: int, pairs: int) -> np.ndarray:
    """Tell for each pair whether the same document stays in the stead of both."""
    settings = DeduplicateSettings(bands=bands, rows_per_band=rows)
    manifest = duplicates.find_duplicates([shard], settings, store, 1.0)
    list_uri = storage.join(manifest.extra["removed_prefix"], "shard-00000.parquet")
    gone = pq.read_table(pa.BufferReader(storage.read(list_uri)), columns=["row", "kept_id"]).to_pydict()
    stays = np.arange(2 * pairs)
    stays[gone["row"]] = [int(kept.removeprefix("PMC")) for kept in gone["kept_id"]]
    return stays[:pairs] == stays[pairs:]


def _since(started: float) -> str:
    return f"{time.monotonic() - started:,.0f} s"


if __name__ == "__main__":
    os.environ.setdefault("RAYON_NUM_THREADS", "1")
    main()
