"""Tokenisation against others: ``python -m benchmarks.peers.tokenisation [--articles archive] [--tokenizer folder]``.

Tokens per CPU second of one thread over the texts of all articles, each text once; the ids of all tools are compared.
`benchmarks.peers.llama_tokenizer` makes a folder of LLaMA's tokenizer; without one, the bundled tokenizer is used.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.peers import articles, runner
from components.download.sample import TOKENIZER_DIR

NAME = "benchmarks.peers.tokenisation"
_BATCH = 128

Encode = Callable[[Sequence[str]], tuple[np.ndarray, np.ndarray]]
"""Texts to all their ids, one text after the other, and how many each has."""


def arguments() -> argparse.ArgumentParser:
    """Return the options of this benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", default="", help="folder or archive of JATS files (default: the bundled sample)")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER_DIR, help="folder with a tokenizer.json")
    parser.add_argument("--repetitions", type=int, default=3)
    return parser


def run(options: argparse.Namespace, folder: Path) -> None:
    """Measure every tool in turn and compare the ids."""
    texts = articles.texts(list(articles.read(options.articles).values()))
    given = {"texts": texts, "tokenizer": str(options.tokenizer.resolve())}
    (folder / "texts.json").write_text(json.dumps(given))
    results = runner.alternate(NAME, [*CONTENDERS], folder, options.repetitions)
    notes = {name: str(found[0].get("library", "")) for name, found in results.items()}
    title = f"Encoding {len(texts)} texts, a vocabulary of {results['ours'][0]['vocabulary']:,}, one thread"
    runner.compare(title, results, "tokens", notes=notes)
    reference = results[_REFERENCE][0]["digests"]
    for name, found in results.items():
        same = sum(one == other for one, other in zip(found[0]["digests"], reference, strict=True))
        print(f"{name}: the ids of {same} of {len(texts)} texts are those of tokenizers.")


def _tool(prepare: Callable[[Path, Sequence[str]], tuple[str, Encode]]) -> runner.Contender:
    def contender(folder: Path) -> Callable[[], runner.Found]:
        given = json.loads((folder / "texts.json").read_text())
        texts = given["texts"]
        library, encode = prepare(Path(given["tokenizer"]), texts[:16])
        encode(texts[:2])

        def work() -> runner.Found:
            started = runner.cpu_seconds()
            parts = [encode(texts[first : first + _BATCH]) for first in range(0, len(texts), _BATCH)]
            used = runner.cpu_seconds() - started
            digests = [digest for ids, lengths in parts for digest in _digests(ids, lengths)]
            tokens = int(sum(len(ids) for ids, _ in parts))
            vocabulary = len(json.loads((Path(given["tokenizer"]) / "tokenizer.json").read_text())["model"]["vocab"])
            return {"tokens": tokens, "cpu": used, "digests": digests, "vocabulary": vocabulary, "library": library}

        return work

    return contender


def _digests(ids: np.ndarray, lengths: np.ndarray) -> list[str]:
    ends = np.cumsum(lengths)
    each = np.split(ids.astype("<u4"), ends[:-1])
    return [hashlib.sha256(one.tobytes()).hexdigest()[:16] for one in each]


# The tools: each loads the tokenizer and returns what encodes a batch.


def ours(tokenizer: Path, probe: Sequence[str]) -> tuple[str, Encode]:
    """Return the encoder that the stage takes."""
    from components.preprocess.tokenization.encoders import choose_encoder

    library, encode = choose_encoder(tokenizer, probe)

    def encode_batch(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        ids, offsets = encode(texts)
        return ids, np.diff(offsets)

    return library, encode_batch


def with_tokenizers(tokenizer: Path, _probe: Sequence[str], fast: bool) -> tuple[str, Encode]:
    """Return `tokenizers`' encode_batch, or its variant that leaves out the offsets."""
    from tokenizers import Tokenizer

    model = Tokenizer.from_file(str(tokenizer / "tokenizer.json"))
    model.encode_special_tokens = True
    call = model.encode_batch_fast if fast else model.encode_batch

    def encode_batch(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        return _flat([encoding.ids for encoding in call(list(texts), add_special_tokens=False)])

    return "", encode_batch


def with_transformers(tokenizer: Path, _probe: Sequence[str]) -> tuple[str, Encode]:
    """Return the call of transformers' fast tokenizer."""
    from transformers import PreTrainedTokenizerFast

    model = PreTrainedTokenizerFast(tokenizer_file=str(tokenizer / "tokenizer.json"), split_special_tokens=True)

    def encode_batch(texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        return _flat(model(list(texts), add_special_tokens=False, return_attention_mask=False)["input_ids"])

    return "", encode_batch


def _flat(ids: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    lengths = np.array([len(one) for one in ids])
    flat = np.fromiter((token for one in ids for token in one), dtype=np.uint32, count=int(lengths.sum()))
    return flat, lengths


_REFERENCE = "tokenizers, encode_batch"
CONTENDERS: dict[str, runner.Contender] = {
    "ours": _tool(ours),
    _REFERENCE: _tool(lambda folder, probe: with_tokenizers(folder, probe, fast=False)),
    "tokenizers, encode_batch_fast": _tool(lambda folder, probe: with_tokenizers(folder, probe, fast=True)),
    "transformers' fast tokenizer": _tool(with_transformers),
}


if __name__ == "__main__":
    runner.main(CONTENDERS, arguments, run)
