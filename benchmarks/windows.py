"""Windows of training data against other loaders: ``python -m benchmarks.windows``.

100 million uint16 tokens of 20,000 documents on disk, warm; batches of 128 windows of 512 tokens as int64; every
contender in turn in one process and one thread, per second of CPU time. This project's samplers also choose the windows
and lay out the targets; the others are handed the same documents and starts, and give the tokens alone. A second table
has the same samplers on 5 million documents in 1,024 shards.
"""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_DISABLE_PROGRESS_BARS"] = "1"

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import count, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table

from benchmarks.peers import runner
from components.train.data.corpus import Corpus
from components.train.data.mixed import MixedSampler
from components.train.data.packed import PackedSampler
from components.train.data.sampler import Sampler
from components.train.data.windows import WindowSampler, window_starts

TOKENS, DOCUMENTS, CONTEXT, BATCH = 100_000_000, 20_000, 512, 128
MANY_DOCUMENTS, MANY_SHARDS, MANY_LENGTH = 5_000_000, 1_024, 520
SEED, END = 0, 2
LEAST_RATE, LEAST_RATIO = 200_000, 8
DATASETS_NUMPY = "datasets, numpy format: rows of documents, then cut"

Read = Callable[[np.ndarray, np.ndarray], Any]
"""Numbers of long documents, and where their windows start, to a batch of tokens."""


def main() -> None:
    """Measure, print the tables, and fail if a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        results = _against_others(Path(folder), options)
        many = _many_shards(Path(folder), options)
    middle = {name: float(np.median(runner.rates(found, "windows"))) for name, found in results.items()}
    ours = middle["this project, window"]
    ratio = ours / middle[DATASETS_NUMPY]
    print(f"{ours:,.0f} windows/CPU s, at least {LEAST_RATE:,} wanted.")
    print(f"{ratio:.1f} times `datasets` with numpy format, at least {LEAST_RATIO} wanted.")
    if min(ours, *many) < LEAST_RATE or ratio < LEAST_RATIO:
        sys.exit("A bar is missed.")


def _against_others(folder: Path, options: argparse.Namespace) -> runner.Results:
    file, lengths = _write_tokens(folder)
    corpus = Corpus([file], "uint16")
    readers = _readers(folder, file, lengths)
    window = _samplers(corpus, corpus)["this project, window"]
    assert isinstance(window, WindowSampler)
    _check_same(window, readers)
    contenders: dict[str, Iterator[Any]] = {name: _batches(each) for name, each in _samplers(corpus, corpus).items()}
    contenders |= {name: _reads(window, read) for name, read in readers.items()}
    results = _alternate(contenders, options)
    title = f"Batches of {BATCH} windows of {CONTEXT} from {TOKENS:,} tokens of {DOCUMENTS:,} documents, one thread"
    runner.compare(title, results, "windows")
    return results


def _many_shards(folder: Path, options: argparse.Namespace) -> list[float]:
    """The same with more shards and documents; returns the rates."""
    files = _write_many_shards(folder)
    before = _own_memory()
    began = time.perf_counter()
    corpus = Corpus(files, "uint16")
    opened, memory = time.perf_counter() - began, _own_memory() - before
    table = Table(
        title=f"{MANY_DOCUMENTS:,} documents in {MANY_SHARDS:,} shards: opened in {opened:.1f} s, {memory} MB"
    )
    for column in ("What", "Windows/CPU s", "An epoch's order, CPU s", "Memory so far, MB"):
        table.add_column(column, justify="left" if column == "What" else "right")
    rates = []
    for name, sampler in _samplers(corpus, corpus, first_epoch_shards=64).items():
        began = runner.cpu_seconds()
        for epoch in range(2):
            sampler.draw(epoch, np.arange(BATCH), CONTEXT)
        ordered = (runner.cpu_seconds() - began) / 2
        found = _alternate({name: _batches(sampler)}, options)[name]
        rates.append(float(np.median(runner.rates(found, "windows"))))
        table.add_row(name, f"{rates[-1]:,.0f}", f"{ordered:.2f}", f"{_own_memory() - before:,}")
    runner.show(table)
    return rates


def _samplers(corpus: Corpus, other: Corpus, first_epoch_shards: int | None = None) -> dict[str, Sampler]:
    return {
        "this project, window": WindowSampler(corpus, CONTEXT, END, False, SEED, first_epoch_shards),
        "this project, packed": PackedSampler(corpus, CONTEXT, END, END, SEED, first_epoch_shards),
        "this project, mixed 3 : 1": MixedSampler(
            [corpus, other], [3, 1], CONTEXT, END, False, SEED, first_epoch_shards
        ),
    }


def _alternate(contenders: dict[str, Iterator[Any]], options: argparse.Namespace) -> runner.Results:
    """Take batches from each in turn, for so many seconds; the first round warms up."""
    results: runner.Results = {name: [] for name in contenders}
    for repetition in range(options.repetitions + 1):
        for name, batches in contenders.items():
            cpu, began, windows = runner.cpu_seconds(), time.perf_counter(), 0
            while (wall := time.perf_counter() - began) < options.seconds:
                next(batches)
                windows += BATCH
            if repetition:
                results[name].append({"windows": windows, "wall": wall, "cpu": runner.cpu_seconds() - cpu})
    return results


def _batches(sampler: Sampler) -> Iterator[Any]:
    """Batches as the trainer asks for them, epoch after epoch; each epoch's incomplete last one is left out."""
    for epoch in count():
        for first in range(0, sampler.windows_per_epoch - BATCH + 1, BATCH):
            extent = sampler.extent(epoch, first, first + BATCH)
            yield sampler.draw(epoch, np.arange(first, first + BATCH), extent.width)


def _reads(sampler: WindowSampler, read: Read) -> Iterator[Any]:
    """The same windows by another loader; which ones is worked out beforehand."""
    while True:
        for documents, starts in list(islice(_choices(sampler), DOCUMENTS // BATCH)):
            yield read(documents, starts)


def _choices(sampler: WindowSampler) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for epoch in count():
        for first in range(0, len(sampler.corpus) - BATCH + 1, BATCH):
            documents = sampler.documents(epoch, np.arange(first, first + BATCH))
            lengths = sampler.corpus.lengths[documents]
            yield documents, window_starts(SEED, epoch, documents, lengths, CONTEXT)


def _check_same(sampler: WindowSampler, readers: dict[str, Read]) -> None:
    documents, starts = next(_choices(sampler))
    expected = sampler.draw(0, np.arange(BATCH), CONTEXT).tokens
    for name, read in readers.items():
        if not np.array_equal(np.asarray(read(documents, starts)), expected):
            raise SystemExit(f"{name} gives other windows.")


# The other loaders: each gets ready and returns what reads a batch of windows as int64.


def _readers(folder: Path, file: Path, lengths: np.ndarray) -> dict[str, Read]:
    flat, by_document = _datasets(folder, file, lengths)
    begins = np.cumsum(lengths) - lengths
    mapped = np.memmap(file, dtype="<u2", mode="r")
    columns = np.arange(CONTEXT)

    def fancy(documents: np.ndarray, starts: np.ndarray) -> np.ndarray:
        return mapped[(begins[documents] + starts)[:, None] + columns].astype(np.int64)

    def slice_by_slice(documents: np.ndarray, starts: np.ndarray) -> np.ndarray:
        places = (begins[documents] + starts).tolist()
        return np.stack([mapped[place : place + CONTEXT] for place in places]).astype(np.int64)

    def cut_rows(rows: Any) -> Read:
        def read(documents: np.ndarray, starts: np.ndarray) -> np.ndarray:
            texts = rows[documents]["tokens"]
            pieces = [text[start : start + CONTEXT] for text, start in zip(texts, starts, strict=True)]
            return np.stack(pieces).astype(np.int64)

        return read

    def slice_rows(rows: Any) -> Read:
        def read(documents: np.ndarray, starts: np.ndarray) -> np.ndarray:
            places = (begins[documents] + starts).tolist()
            return np.stack([rows[place : place + CONTEXT]["token"] for place in places]).astype(np.int64)

        return read

    def cut_tensors(rows: Any) -> Read:
        def read(documents: np.ndarray, starts: np.ndarray) -> torch.Tensor:
            texts = rows[documents]["tokens"]
            return torch.stack([text[start : start + CONTEXT] for text, start in zip(texts, starts, strict=True)])

        return read

    return {
        "memory map, fancy indexing": fancy,
        "memory map, slice by slice": slice_by_slice,
        DATASETS_NUMPY: cut_rows(by_document.with_format("numpy")),
        "datasets, numpy format: rows of tokens, a slice each": slice_rows(flat.with_format("numpy")),
        "datasets, torch format: rows of documents, then cut": cut_tensors(by_document.with_format("torch")),
    }


def _datasets(folder: Path, file: Path, lengths: np.ndarray) -> tuple[Any, Any]:
    """The corpus as Arrow files on disk, memory-mapped by `datasets`: a token a row, and a document a row."""
    import pyarrow as pa
    from datasets import Dataset, load_from_disk

    tokens = pa.array(np.fromfile(file, dtype="<u2"))
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), type=pa.int32())
    tables = {
        "flat": pa.table({"token": tokens}),
        "by-document": pa.table({"tokens": pa.ListArray.from_arrays(offsets, tokens)}),
    }
    for name, table in tables.items():
        Dataset(table).save_to_disk(folder / name)
    flat, by_document = (load_from_disk(folder / name) for name in tables)
    return flat, by_document


def _write_tokens(folder: Path) -> tuple[Path, np.ndarray]:
    """Random documents, none shorter than a window: the other loaders have no padding."""
    random = np.random.default_rng(SEED)
    lengths = np.maximum(random.lognormal(np.log(4_200), 0.6, DOCUMENTS).astype(np.int64), CONTEXT)
    lengths = np.maximum(lengths * (TOKENS - 1) // lengths.sum(), CONTEXT)
    lengths[np.argmax(lengths)] += TOKENS - lengths.sum()
    file = folder / "tokens.bin"
    random.integers(3, 32_000, TOKENS, dtype=np.uint16).tofile(file)
    _write_index(file, lengths)
    return file, lengths


def _write_many_shards(folder: Path) -> list[Path]:
    """Shards of nothing but zeros, which take no room on the disk."""
    files = []
    for number, documents in enumerate(np.bincount(np.arange(MANY_DOCUMENTS) % MANY_SHARDS)):
        files.append(folder / f"many-{number:05d}.bin")
        with files[-1].open("wb") as stream:
            stream.truncate(int(documents) * MANY_LENGTH * 2)
        files[-1].read_bytes()  # warm
        _write_index(files[-1], np.full(documents, MANY_LENGTH))
    return files


def _write_index(file: Path, lengths: np.ndarray) -> None:
    np.concatenate([[0], np.cumsum(lengths)]).astype("<i8").tofile(file.with_suffix(".idx"))


def _own_memory() -> int:
    """MB of this process that are not files in the page cache."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) // 1024


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
