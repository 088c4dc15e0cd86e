"""One clean shard to token shards: the unique texts as ids in flat files, one set for each split."""

import heapq
import json
import logging
import math
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint, sha256_bytes, sha256_file
from components.common.manifest import Manifest, Shard
from components.common.progress import track
from components.common.shards import finished_shard, write_shard
from components.preprocess.clean_shards import open_clean
from components.preprocess.deduplication.duplicates import removed_rows
from components.preprocess.settings import TokenizeSettings
from components.preprocess.tokenization import split
from components.preprocess.tokenization.encoders import Encode, Ids, choose_encoder, load_reference

log = logging.getLogger(__name__)

FORMAT_VERSION = 3
SPLITS = (split.TRAIN, split.VALIDATION)
SAMPLES = 3
BINS_PER_DOUBLING = 2
"""The histogram of document lengths has bins of sqrt(2): bin b holds 2**(b/2) <= tokens < 2**((b+1)/2)."""

_BATCH = 128  # documents encoded at a time, about a million tokens
_COUNTED = ("licence", "language", "year", "article_type", "journal")
_COLUMNS = ["article_id", "title", "text", *_COUNTED]
_EXCERPT_CHARACTERS = 600
_LARGEST_UINT16_VOCABULARY = 1 << 16

_Documents = list[dict[str, Any]]


def tokenize_shard(
    deduplicated: Manifest, shard_name: str, tokenizer: Path, settings: TokenizeSettings, output_root: str
) -> list[Shard]:
    """Encode the unique documents of a clean shard, or return the token shards if they are finished.

    The ids follow each other without BOS or EOS (unless `settings.add_eos`), as in the authors' code. Each split's
    shard is `<name>.bin` (little-endian uint16; uint32 when the vocabulary needs it), `<name>.idx` (documents + 1
    offsets into it, counted in tokens, little-endian int64) and `<name>.ids.json` (article ids in that order). Both
    splits are always written, even without a document: a corpus leaves empty shards out.

    Args:
        deduplicated: What `find_duplicates` returned.
        shard_name: One of its shards.
        tokenizer: Folder with `tokenizer.json`.
        settings: Split and encoder.
        output_root: URI of the artifact store.

    Returns:
        The train shard and the validation shard, `train-<shard_name>` and `validation-<shard_name>`.

    Raises:
        InputError: There is no such shard, or it or the tokenizer cannot be used.
    """
    clean = deduplicated.shard(shard_name)
    reference = load_reference(tokenizer)
    vocabulary = _vocabulary(tokenizer, reference, settings.add_eos)
    # The choice of the encoder cannot change the ids, so it is no part of the name.
    chosen = settings.model_dump(exclude={"encoder", "probe_documents"})
    mark = fingerprint(deduplicated.fingerprint, vocabulary, chosen, FORMAT_VERSION)
    prefix = storage.join(output_root, "tokens", mark)
    done = [shard for name in SPLITS if (shard := finished_shard(prefix, f"{name}-{shard_name}"))]
    if len(done) == len(SPLITS):
        log.info("%s is tokenised already: %d documents.", shard_name, sum(shard.rows for shard in done))
        return done

    kept = np.setdiff1d(np.arange(clean.rows), removed_rows(deduplicated, shard_name))
    with ExitStack() as stack:
        parquet = stack.enter_context(open_clean(clean, _COLUMNS))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pmc-")))
        writers = {name: stack.enter_context(_SplitWriter(folder / name, vocabulary)) for name in SPLITS}
        probe = _probe(parquet, settings.probe_documents)
        encoder, encode = choose_encoder(tokenizer, probe, settings.encoder == "fastest", reference)
        _encode_all(parquet, kept, encode, writers, deduplicated.extra["split_anchors"], settings, shard_name)
        shards = []
        for name, writer in writers.items():
            stats = {"split": name, "shard": shard_name, "encoder": encoder, **vocabulary, **writer.stats()}
            shards.append(write_shard(prefix, f"{name}-{shard_name}", writer.files(), writer.documents, stats))
    log.info("%s: %d documents encoded with %s.", shard_name, len(kept), encoder)
    return shards


class _SplitWriter:
    """Collects the documents of one split: ids on disk, counts and a few samples in memory."""

    def __init__(self, path: Path, vocabulary: dict[str, Any]) -> None:
        self._path = path.with_suffix(".bin")
        self._dtype = np.dtype(vocabulary["dtype"]).newbyteorder("<")
        self._end = [vocabulary["eos_id"]] if vocabulary["eos_id"] is not None else []
        self._offsets = [0]
        self._ids: list[str] = []
        self._counts: dict[str, Counter[str]] = {name: Counter() for name in _COUNTED}
        self._lengths: Counter[int] = Counter()
        self._samples: list[tuple[float, dict[str, str]]] = []

    def __enter__(self) -> Self:
        self._file = self._path.open("wb")
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    @property
    def documents(self) -> int:
        return len(self._ids)

    def add(self, document: dict[str, Any], ids: np.ndarray) -> None:
        tokens = np.concatenate([ids, self._end]).astype(self._dtype)
        self._file.write(tokens.tobytes())
        self._offsets.append(self._offsets[-1] + len(tokens))
        self._ids.append(document["article_id"])
        for name, counter in self._counts.items():
            counter[str(document[name] or "unknown")] += 1
        self._lengths[math.floor(BINS_PER_DOUBLING * math.log2(max(len(tokens), 1)))] += 1
        self._keep_sample(document)

    def files(self) -> dict[str, bytes | Path]:
        self._file.close()
        names = json.dumps(self._ids, ensure_ascii=False)
        return {".bin": self._path, ".idx": self._index(), ".ids.json": names.encode(errors="surrogatepass")}

    def stats(self) -> dict[str, Any]:
        return {
            "documents": self.documents,
            "tokens": self._offsets[-1],
            "index_sha256": sha256_bytes(self._index()),
            "counts": {name: dict(sorted(counter.items())) for name, counter in self._counts.items()},
            "lengths": {str(number): count for number, count in sorted(self._lengths.items())},
            "samples": [sample for _, sample in self._samples],
        }

    def _index(self) -> bytes:
        return np.array(self._offsets, dtype="<i8").tobytes()

    def _keep_sample(self, document: dict[str, Any]) -> None:
        """Keep the documents at the lowest positions: the same ones in whatever order they come."""
        sample = {"id": document["article_id"], "title": document["title"]}
        sample["text"] = document["text"][:_EXCERPT_CHARACTERS]
        ranked = [*self._samples, (split.position(document["article_id"]), sample)]
        self._samples = heapq.nsmallest(SAMPLES, ranked, key=lambda pair: (pair[0], pair[1]["id"]))


def _encode_all(
    parquet: pq.ParquetFile,
    kept: np.ndarray,
    encode: Encode,
    writers: dict[str, _SplitWriter],
    anchors: dict[str, str],
    settings: TokenizeSettings,
    shard_name: str,
) -> None:
    total = math.ceil(parquet.metadata.num_rows / _BATCH)
    encoded = _encoded(_batches(parquet, kept), encode)
    for batch, (ids, offsets) in track(encoded, total, f"Encoding {shard_name}", "batches"):
        for number, document in enumerate(batch):
            name = split.split_of(document["article_id"], settings.validation_fraction, anchors)
            writers[name].add(document, ids[offsets[number] : offsets[number + 1]])


def _encoded(batches: Iterator[_Documents], encode: Encode) -> Iterator[tuple[_Documents, Ids]]:
    """Yield each batch with its ids; while one is encoded, the one before is written and the one after read."""
    with ThreadPoolExecutor(max_workers=1) as beside:
        before: tuple[_Documents, Future[Ids]] | None = None
        for batch in batches:
            coming = batch, beside.submit(encode, [document["text"] for document in batch])
            if before:
                yield before[0], before[1].result()
            before = coming
        if before:
            yield before[0], before[1].result()


def _batches(parquet: pq.ParquetFile, kept: np.ndarray) -> Iterator[_Documents]:
    """Yield the documents that stay, in the order of the shard."""
    stays = np.zeros(parquet.metadata.num_rows, dtype=np.bool_)
    stays[kept] = True
    start = 0
    for batch in parquet.iter_batches(_BATCH, columns=_COLUMNS):
        yield batch.filter(pa.array(stays[start : start + batch.num_rows])).to_pylist()
        start += batch.num_rows


def _probe(parquet: pq.ParquetFile, count: int) -> list[str]:
    """Take documents from all over the shard: the first ones of row groups, for which little is to be decompressed."""
    groups = np.unique(np.linspace(0, parquet.num_row_groups - 1, num=min(count, parquet.num_row_groups), dtype=int))
    share = math.ceil(count / max(len(groups), 1))
    texts: list[str] = []
    for group in groups.tolist():
        batch = next(parquet.iter_batches(share, row_groups=[group], columns=["text"]), None)
        texts += batch["text"].to_pylist() if batch else []
    return texts[:count]


def _vocabulary(tokenizer: Path, reference: Tokenizer, add_eos: bool) -> dict[str, Any]:
    """Return what names and shapes the ids: the tokenizer's hash, the vocabulary's size, the type of an id, the EOS."""
    size = max(reference.get_vocab(with_added_tokens=True).values()) + 1
    return {
        "tokenizer_sha256": sha256_file(tokenizer / "tokenizer.json"),
        "vocab_size": size,
        "dtype": "uint16" if size <= _LARGEST_UINT16_VOCABULARY else "uint32",
        "eos_id": _eos_id(tokenizer, reference.token_to_id) if add_eos else None,
    }


def _eos_id(tokenizer: Path, token_to_id: Any) -> int:
    path = tokenizer / "tokenizer_config.json"
    named = json.loads(path.read_bytes()).get("eos_token") if path.is_file() else None
    token = named["content"] if isinstance(named, dict) else named
    found = token_to_id(token) if token else None
    if found is None:
        raise InputError(
            f"The tokenizer in {tokenizer} names no end-of-sequence token of its vocabulary (eos_token is {token!r}); "
            "set preprocess.tokenize.add_eos to false, or give a model whose tokenizer_config.json names one."
        )
    return int(found)
