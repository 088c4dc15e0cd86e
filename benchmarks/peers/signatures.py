"""MinHash signatures against other tools: ``python -m benchmarks.peers.signatures [--articles archive]``.

Texts of real length and all different: those of the articles with three words in ten replaced. Word 5-grams and 112
permutations everywhere, shingling included; documents per CPU second. The slower tools get fewer texts.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

from benchmarks.peers import articles, runner

NAME = "benchmarks.peers.signatures"
PERMUTATIONS, NGRAM = 112, 5
_CHUNK = 200

Sketch = Callable[[Sequence[str]], None]


def arguments() -> argparse.ArgumentParser:
    """Return the options of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", default="", help="folder or archive of JATS files (default: the bundled sample)")
    parser.add_argument("--texts", type=int, default=20_000, help="how many texts this project's signatures get")
    parser.add_argument("--repetitions", type=int, default=3)
    return parser


def run(options: argparse.Namespace, folder: Path) -> None:
    """Measure every tool in turn."""
    texts = articles.texts(list(articles.read(options.articles).values()))
    (folder / "texts.json").write_text(json.dumps({"texts": texts, "count": options.texts}))
    results = runner.alternate(NAME, [*CONTENDERS], folder, options.repetitions)
    notes = {name: f"{found[0]['documents']:,} texts" for name, found in results.items()}
    mean = sum(len(text.split()) for text in texts) // len(texts)
    runner.compare(f"Signatures of texts of {mean:,} words in the mean", results, "documents", notes=notes)


def _tool(prepare: Callable[[], Sketch], share: float) -> runner.Contender:
    """Make a contender that gets a share of the texts; making up the texts is not measured."""

    def contender(folder: Path) -> Callable[[], runner.Found]:
        given = json.loads((folder / "texts.json").read_text())
        count = max(round(share * given["count"]), 1)
        sketch = prepare()
        sketch(given["texts"][:1])

        def work() -> runner.Found:
            used = 0.0
            for chunk in _chunks(articles.varied_texts(given["texts"], count)):
                started = runner.cpu_seconds()
                sketch(chunk)
                used += runner.cpu_seconds() - started
            return {"documents": count, "cpu": used}

        return work

    return contender


def _chunks(texts: Iterator[str]) -> Iterator[list[str]]:
    while chunk := list(islice(texts, _CHUNK)):
        yield chunk


# The tools: each imports what it needs and returns what sketches texts.


def ours() -> Sketch:
    """Return this project's signatures."""
    from components.preprocess.deduplication.signatures import signatures

    def sketch(texts: Sequence[str]) -> None:
        if signatures(texts).shape != (len(texts), PERMUTATIONS):
            raise SystemExit("There are not as many signatures as texts.")

    return sketch


def with_datasketch(fast_hash: bool) -> Sketch:
    """Return datasketch's signatures, one `update_batch` a text; with xxHash in place of its SHA-1 where asked."""
    import xxhash
    from datasketch import MinHash

    def sketch(texts: Sequence[str]) -> None:
        for text in texts:
            words = text.lower().split()
            grams = {" ".join(words[i : i + NGRAM]) for i in range(max(len(words) - NGRAM + 1, 1))}
            minhash = MinHash(PERMUTATIONS, hashfunc=xxhash.xxh32_intdigest if fast_hash else None)
            minhash.update_batch([gram.encode() for gram in grams])

    return sketch


def with_datatrove(spacy_words: bool) -> Sketch:
    """Return the signatures of datatrove's MinHash step, not written down; words by spaCy, or parted by spaces."""
    from datatrove.pipeline.dedup import MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig

    from benchmarks.peers.words import SpaceWords

    with tempfile.TemporaryDirectory() as nothing:
        config = MinhashConfig(n_grams=NGRAM, num_buckets=14, hashes_per_bucket=8)
        step = MinhashDedupSignature(nothing, config, language="eng" if spacy_words else SpaceWords())

    def sketch(texts: Sequence[str]) -> None:
        for text in texts:
            step.get_signature(step.get_shingles(text))

    return sketch


CONTENDERS: dict[str, runner.Contender] = {
    "ours": _tool(ours, 1),
    "datasketch": _tool(lambda: with_datasketch(fast_hash=False), 0.04),
    "datasketch, xxHash": _tool(lambda: with_datasketch(fast_hash=True), 0.04),
    "datatrove, words by spaces": _tool(lambda: with_datatrove(spacy_words=False), 0.04),
    "datatrove as it comes, spaCy's words": _tool(lambda: with_datatrove(spacy_words=True), 0.005),
}


if __name__ == "__main__":
    runner.main(CONTENDERS, arguments, run)
