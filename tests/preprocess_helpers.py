"""Clean shards made of invented documents, as the extraction writes them."""

import io
import json
import random
from hashlib import sha256
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.common import storage
from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest, Shard
from components.common.shards import write_shard
from components.preprocess.article_work import TEXT_SCHEMA, with_sketches
from components.preprocess.corpus import assemble_corpus
from components.preprocess.decontamination.decontaminate import SUFFIX, write_matches
from components.preprocess.deduplication.duplicates import find_duplicates
from components.preprocess.settings import DeduplicateSettings, TokenizeSettings
from components.preprocess.tokenization.tokenize import tokenize_shard

TOKENIZER = Path(__file__).parents[1] / "components" / "download" / "sample" / "tokenizer"
SYLLABLES = (
    "car",
    "dio",
    "gen",
    "e",
    "pa",
    "tho",
    "neu",
    "ro",
    "my",
    "el",
    "in",
    "fla",
    "mma",
    "tion",
    "the",
    "ra",
    "py",
)


def prose(seed: int, words: int = 400) -> str:
    """Words at random, the same for the same seed."""
    draw = random.Random(seed)
    return " ".join("".join(draw.choices(SYLLABLES, k=draw.randint(1, 4))) for _ in range(words))


def with_block_replaced(text: str, share: float, seed: int) -> str:
    """Replace that share of the words by others, in one block."""
    words = text.split()
    size, start = round(share * len(words)), len(words) // 3
    return " ".join(words[:start] + prose(seed, size).split() + words[start + size :])


def document(article_id: str, text: str, **columns: Any) -> dict[str, Any]:
    row = dict.fromkeys(TEXT_SCHEMA.names, "") | {
        "article_id": article_id,
        "title": f"Title of {article_id}",
        "text": text,
        "language": "en",
        "article_type": "research-article",
        "licence": "CC BY 4.0",
        "sha256": sha256(text.encode()).hexdigest(),
        "year": 2020,
        "sections": 1,
        "characters": len(text),
        "words": len(text.split()),
        "is_manuscript": None,
    }
    return row | columns


def clean_shard(
    root: Path | str,
    name: str,
    documents: list[dict[str, Any]],
    rejected: tuple[dict[str, str], ...] = (),
    filtered: tuple[dict[str, str], ...] = (),
    matches: list[dict[str, Any]] | None = None,
) -> Shard:
    table = with_sketches(pa.Table.from_pylist(documents, TEXT_SCHEMA))
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=7)
    dropped: dict[str, int] = {}
    for item in filtered:
        dropped[item["reason"]] = dropped.get(item["reason"], 0) + 1
    stats = {
        "listed": len(documents) + len(rejected) + len(filtered),
        "kept": len(documents),
        "dropped": dropped,
        "rejected": list(rejected),
        "filtered": list(filtered),
        "overlaps": len(matches or []),
    }
    files = {".parquet": buffer.getvalue(), SUFFIX: write_matches(matches or [])}
    return write_shard(storage.join(storage.to_uri(root), "clean"), name, files, len(documents), stats)


def save_questions(folder: Path, files: dict[str, list[dict[str, Any]]]) -> Manifest:
    """Write files of questions such as `medqa-test`, as the download does; what a question lacks is filled in."""
    shards = []
    for name, rows in files.items():
        rows = [{"options": {"A": "yes", "B": "no"}, "answer": "A", **row} for row in rows]
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
        shards.append(
            write_shard(storage.join(storage.to_uri(folder), "benchmarks"), name, {".jsonl": data}, len(rows))
        )
    mark = fingerprint([shard.sha256 for shard in shards])
    return Manifest(kind="benchmarks", fingerprint=mark, inputs={}, settings={}, shards=shards, totals={})


def deduplicate(root: Path | str, shards: list[Shard], limit: float = 0.05, **settings: Any) -> Manifest:
    return find_duplicates(shards, DeduplicateSettings(**settings), storage.to_uri(root), limit)


def tokens_of(root: Path | str, unique: Manifest, tokenizer: Path = TOKENIZER, **settings: Any) -> list[Manifest]:
    return [
        Manifest(
            kind="tokens",
            fingerprint=shard.name,
            inputs={"deduplicated": unique.fingerprint},
            settings={},
            shards=tokenize_shard(unique, shard.name, tokenizer, TokenizeSettings(**settings), storage.to_uri(root)),
            totals={},
        )
        for shard in unique.shards
    ]


def corpus_of(root: Path | str, unique: Manifest, **settings: Any) -> Manifest:
    parts = tokens_of(root, unique, **settings)
    return assemble_corpus(unique, parts, TokenizeSettings(**settings), storage.to_uri(root))
