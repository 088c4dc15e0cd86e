"""Held-out windows: the same each time, whatever the run's seed and its number of processes."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from train_helpers import CONTEXT, documents, make_job, open_corpus, tiny_settings, token_shard, write_corpus

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Manifest
from components.train.data.batches import StepBatch
from components.train.data.sampler import IGNORED
from components.train.data.validation import validation_batches
from components.train.distributed import Layout
from components.train.launching.job import TrainJob

BASE = Manifest(
    kind="model", fingerprint="b0", inputs={}, settings={}, shards=[], totals={}, extra={"model_uri": "file:///base"}
)
HELD_OUT = documents(30, seed=7)


@pytest.fixture
def held_out(tmp_path: Path) -> Manifest:
    return write_corpus(f"file://{tmp_path}/held-out", [HELD_OUT[:15], HELD_OUT[15:]])


def job(held_out: Manifest, tmp_path: Path, **changes: Any) -> TrainJob:
    corpus = write_corpus(f"file://{tmp_path}/corpus", [documents(20)])
    made = make_job(corpus, BASE, tiny_settings(**changes), tmp_path / "run")
    return made.model_copy(update={"validation": [token_shard(shard) for shard in held_out.shards]})


def windows(batches: list[StepBatch]) -> list[list[int]]:
    """Targets of all rows that hold a window, in no order."""
    pairs = [pair for batch in batches for pair in batch.micro_batches]
    return sorted(row for _, targets in pairs for row in targets.tolist() if set(row) != {IGNORED})


def test_they_are_the_same_each_time_and_for_every_seed(held_out: Manifest, tmp_path: Path, layout: Layout) -> None:
    batches = validation_batches(job(held_out, tmp_path, validation_windows=20), 4, layout)
    assert len(batches) == 3
    assert windows(list(batches)) == windows(list(batches))
    other = validation_batches(job(held_out, tmp_path, validation_windows=20, seed=5), 2, layout)
    assert windows(list(other)) == windows(list(batches))
    assert len(windows(list(batches))) == 20


def test_no_more_than_there_are(held_out: Manifest, tmp_path: Path, layout: Layout) -> None:
    batches = validation_batches(job(held_out, tmp_path), 4, layout)
    assert len(windows(list(batches))) == 30
    assert sum(batch.targets for batch in batches) == np.minimum(open_corpus(held_out).lengths - 1, CONTEXT - 1).sum()


def test_processes_share_them(held_out: Manifest, tmp_path: Path, layout: Layout) -> None:
    this = job(held_out, tmp_path, validation_windows=21)
    both = [list(validation_batches(this, 4, replace(layout, world=1, rank=0)))]
    parts = []
    for rank in range(2):
        batches = validation_batches(this, 4, layout)
        batches._layout = replace(layout, world=2, rank=rank)  # type: ignore[attr-defined]
        parts.append(list(batches))
    assert sorted(windows(parts[0]) + windows(parts[1])) == windows(both[0])
    assert [len(batch.micro_batches) for batch in parts[0]] == [len(batch.micro_batches) for batch in parts[1]]
    counted = sum(
        int((targets != IGNORED).sum()) for part in parts for batch in part for _, targets in batch.micro_batches
    )
    assert sum(batch.targets for batch in parts[0]) == counted


@pytest.mark.parametrize(
    "change",
    [
        {"sampling": "packed", "end_token_id": 1},
        {"sampling": "mixed", "mixture": {"corpus": 1, "file:///x": 1}},
    ],
)
def test_other_samplings_have_theirs_and_padding_never_counts(
    held_out: Manifest, tmp_path: Path, layout: Layout, change: dict[str, Any]
) -> None:
    batches = list(validation_batches(job(held_out, tmp_path, validation_windows=1000, **change), 4, layout))
    packed = change["sampling"] == "packed"
    expected = sum(len(text) + 1 for text in HELD_OUT) if packed else sum(min(len(t), CONTEXT) - 1 for t in HELD_OUT)
    assert sum(batch.targets for batch in batches) == expected


def test_there_are_none_without_held_out_documents_or_if_none_are_asked_for(
    held_out: Manifest, tmp_path: Path, layout: Layout
) -> None:
    assert not validation_batches(job(held_out, tmp_path, validation_windows=0), 4, layout)
    without = job(held_out, tmp_path).model_copy(update={"validation": []})
    assert not validation_batches(without, 4, layout)


def test_a_corrupt_held_out_shard_is_named(held_out: Manifest, tmp_path: Path, layout: Layout) -> None:
    file = storage.local_path(held_out.shards[1].uri)
    file.write_bytes(bytes(reversed(file.read_bytes())))
    batches = validation_batches(job(held_out, tmp_path), 4, layout)
    with pytest.raises(InputError, match="Token shard train-00001 is corrupt"):
        list(batches)
