"""The whole stage against other tools: ``python -m benchmarks.peers.stage [--articles archive] [--tokenizer folder]``.

From raw Parquet shards to token shards on two cores, by the clock: extract, filter, find near-duplicates, tokenise.
The articles are real ones with words replaced, so that none is a copy but those that are planted. This project runs
its steps one after the other, each with all cores; datatrove runs two tasks at a time, datasets maps in two processes.

The others come twice: as somebody without this project would put them together, and with this project's extraction and
filters given to them, so that what is compared is the rest of the work.
"""

import argparse
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.peers import articles, runner
from benchmarks.peers.planted import plant, planted
from components.download.sample import TOKENIZER_DIR

NAME = "benchmarks.peers.stage"
WORKERS = 2
PERMUTATIONS, BUCKETS, ROWS, NGRAM, JACCARD = 112, 14, 8, 5, 0.8


def arguments() -> argparse.ArgumentParser:
    """Return the options of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", default="", help="folder or archive of JATS files (default: the bundled sample)")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER_DIR, help="folder with a tokenizer.json")
    parser.add_argument("--planted", type=int, default=2_000, help="how many articles are made of them")
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--repetitions", type=int, default=1, help="of each other tool, this project before each")
    others = [name for name in CONTENDERS if name != _OURS]
    quick = [name for name in others if name != _SLOW]
    parser.add_argument("--contenders", nargs="+", choices=others, default=quick, help="the other tools")
    return parser


def run(options: argparse.Namespace, folder: Path) -> None:
    """Plant the articles and measure the others, some of which take minutes, and this project before each of them."""
    originals = list(articles.read(options.articles).values())
    plant(originals, folder, [options.planted // options.shards] * options.shards)
    shutil.copytree(options.tokenizer, folder / "tokenizer")
    results: runner.Results = {name: [] for name in (_OURS, *options.contenders)}
    for _ in range(options.repetitions):
        for name in options.contenders:
            for measured, found in runner.alternate(NAME, [_OURS, name], folder, 1).items():
                results[measured] += found
    notes = {name: _note(found) for name, found in results.items()}
    title = f"{options.planted:,} articles in {options.shards} shards to tokens, two cores, by the clock"
    runner.compare(title, results, "articles", per="wall", notes=notes)
    runner.compare(title, results, "tokens", per="wall", notes=notes)
    for name in results:
        print(f"{name}: {DOES[name]}.")


def _note(found: list[runner.Found]) -> str:
    cpu = sum(each["cpu"] for each in found) / len(found)
    return f"{len(found)} times, {found[0]['documents']:,} documents left, {cpu:.0f} CPU s"


def ours(folder: Path) -> Callable[[], runner.Found]:
    """Run this project's steps as the pipeline does; no benchmark's questions are kept out, for nobody else does it."""
    os.environ["RAYON_NUM_THREADS"] = str(WORKERS)
    from components.common import storage
    from components.common.manifest import Manifest
    from components.preprocess.clean import clean_shard
    from components.preprocess.deduplication.duplicates import find_duplicates
    from components.preprocess.settings import PreprocessSettings
    from components.preprocess.tokenization.tokenize import tokenize_shard

    raws, settings, store = planted(folder), PreprocessSettings(), _fresh(folder, "store")
    root = storage.to_uri(store)
    no_questions = Manifest(kind="benchmarks", fingerprint="none", inputs={}, settings={}, shards=[], totals={})

    def work() -> runner.Found:
        clean = [shard for raw in raws for shard in clean_shard(raw, settings, root, no_questions).shards]
        unique = find_duplicates(clean, settings.deduplicate, root, 1.0)
        tokens = [
            shard
            for one in clean
            for shard in tokenize_shard(unique, one.name, folder / "tokenizer", settings.tokenize, root)
        ]
        documents = sum(shard.rows for shard in tokens)
        return _found(raws, documents, sum(int(shard.stats["tokens"]) for shard in tokens))

    return work


def with_datatrove(folder: Path, given: bool, spacy_words: bool = False) -> Callable[[], runner.Found]:
    """Run datatrove's reader, filters, writer, four MinHash steps and tokenizer.

    Args:
        folder: Where the raw shards are.
        given: It gets this project's extraction and filters.
        spacy_words: MinHash takes words as it comes, by spaCy, and not what stands between spaces.
    """
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import (
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.dedup.minhash import MinhashConfig
    from datatrove.pipeline.readers import ParquetReader
    from datatrove.pipeline.tokens import DocumentTokenizer
    from datatrove.pipeline.writers import ParquetWriter

    from benchmarks.peers import steps
    from benchmarks.peers.words import SpaceWords

    raws, place = planted(folder), _fresh(folder, "datatrove")
    at = {name: str(place / name) for name in ("clean", "signatures", "buckets", "remove", "tokens", "logs")}
    config = MinhashConfig(n_grams=NGRAM, num_buckets=BUCKETS, hashes_per_bucket=ROWS)
    tokenizer = str(folder / "tokenizer" / "tokenizer.json")
    steps.get_ready(by_others=not given)
    to_text = [steps.to_text] if given else [steps.to_markdown, steps.english, *steps.quality_filters()]
    first = [
        ParquetReader(
            str(folder / "raw"),
            adapter=steps.raw_document,
            text_key="xml",
            id_key="article_id",
            read_metadata=False,
            batch_size=128,
            glob_pattern="*.parquet",
        ),
        *to_text,
        ParquetWriter(at["clean"]),
        MinhashDedupSignature(at["signatures"], config, language="eng" if spacy_words else SpaceWords()),
    ]
    buckets = [MinhashDedupBuckets(at["signatures"], at["buckets"], config=config)]
    cluster = [MinhashDedupCluster(at["buckets"], at["remove"], config=config)]
    last = [
        ParquetReader(at["clean"]),
        MinhashDedupFilter(at["remove"]),
        DocumentTokenizer(at["tokens"], tokenizer, shuffle_documents=False, batch_size=128),
    ]

    def work() -> runner.Found:
        jobs = [(first, len(raws)), (buckets, BUCKETS), (cluster, 1), (last, len(raws))]
        for number, (pipeline, tasks) in enumerate(jobs):
            # Forked, which spares its processes the seconds of importing everything anew.
            LocalPipelineExecutor(
                pipeline,
                tasks=tasks,
                workers=min(WORKERS, tasks),
                logging_dir=f"{at['logs']}/{number}",
                start_method="fork",
            ).run()
        files = [*Path(at["tokens"]).glob("*.ds")]
        documents = sum(path.with_name(path.name + ".index").stat().st_size // 8 for path in files)
        return _found(raws, documents, sum(path.stat().st_size // 2 for path in files))

    return work


def with_datasets(folder: Path, given: bool) -> Callable[[], runner.Found]:
    """Map with datasets in two processes; near-duplicates by datasketch, tokens by `tokenizers` into one file.

    Args:
        folder: Where the raw shards are.
        given: It gets this project's extraction and filters.
    """
    place = _fresh(folder, "datasets")
    os.environ["HF_DATASETS_CACHE"] = str(place)
    import datasets
    from datasketch import MinHash, MinHashLSH

    from benchmarks.peers import steps

    steps.get_ready(by_others=not given)
    raws = planted(folder)
    files = [str(path) for path in sorted((folder / "raw").glob("*.parquet"))]

    def distinct(data: Any) -> Iterator[int]:
        index = MinHashLSH(JACCARD, PERMUTATIONS, params=(BUCKETS, ROWS))
        for row, values in enumerate(data.with_format("numpy")["signature"]):
            minhash = MinHash(hashvalues=values, scheme=steps.SCHEME)
            if not index.query(minhash):
                index.insert(row, minhash)
                yield row

    def work() -> runner.Found:
        data = datasets.load_dataset("parquet", data_files=files, split="train", columns=["article_id", "xml"])
        data = data.map(
            steps.sketched_texts,
            batched=True,
            batch_size=128,
            num_proc=WORKERS,
            remove_columns=["xml"],
            fn_kwargs={"by_others": not given},
        )
        data = data.select(list(distinct(data)))
        data = data.map(
            steps.tokens,
            batched=True,
            batch_size=128,
            num_proc=WORKERS,
            remove_columns=["text", "signature"],
            fn_kwargs={"tokenizer": str(folder / "tokenizer" / "tokenizer.json")},
        )
        with (place / "tokens.bin").open("wb") as shard:
            for batch in data.with_format("arrow").iter(128):
                ids = batch["input_ids"].combine_chunks().flatten().to_numpy()
                shard.write(ids.astype("<u2").tobytes())
        return _found(raws, len(data), (place / "tokens.bin").stat().st_size // 2)

    return work


def _fresh(folder: Path, name: str) -> Path:
    place = folder / name
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    return place


def _found(raws: list[Any], documents: int, tokens: int) -> runner.Found:
    return {"articles": sum(raw.shards[0].rows for raw in raws), "documents": int(documents), "tokens": int(tokens)}


_OURS = "ours"
_DATATROVE, _DATASETS = "datatrove", "datasets.map"
_GIVEN_DATATROVE, _GIVEN_DATASETS = "datatrove, given our texts", "datasets.map, given our texts"
_SLOW = "datatrove, given our texts, spaCy's words"
CONTENDERS: dict[str, runner.Contender] = {
    _OURS: ours,
    _DATATROVE: lambda folder: with_datatrove(folder, given=False),
    _DATASETS: lambda folder: with_datasets(folder, given=False),
    _GIVEN_DATATROVE: lambda folder: with_datatrove(folder, given=True),
    _GIVEN_DATASETS: lambda folder: with_datasets(folder, given=True),
    _SLOW: lambda folder: with_datatrove(folder, given=True, spacy_words=True),
}
_OTHERS_TEXTS = "the jats package's Markdown, py3langid on its beginning, datatrove's Gopher and FineWeb filters"
_OUR_TEXTS = "this project's extraction and filters"
DOES = {
    _OURS: "extraction, filters, statistics, verified near-duplicates, a validation split, hashes of everything",
    _DATATROVE: f"{_OTHERS_TEXTS}; its reader, MinHash on words by spaces, and tokenizer",
    _DATASETS: f"{_OTHERS_TEXTS}; datasketch with xxHash; tokenizers' encode_batch_fast",
    _GIVEN_DATATROVE: f"{_OUR_TEXTS}; its reader, MinHash on words by spaces, and tokenizer",
    _GIVEN_DATASETS: f"{_OUR_TEXTS}; datasketch with xxHash; tokenizers' encode_batch_fast",
    _SLOW: f"{_OUR_TEXTS}; its reader, MinHash as it comes, and tokenizer",
}
"""What each of them does."""


if __name__ == "__main__":
    runner.main(CONTENDERS, arguments, run)
