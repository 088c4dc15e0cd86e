"""Settings, the plan of a run, and the inputs that are refused before anything is trained."""

from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError
from train_helpers import VOCABULARY, documents, tiny_settings, write_corpus, write_model

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Manifest
from components.train.corpus import fetch_shards
from components.train.job import TokenShard
from components.train.schedule import Plan
from components.train.settings import TrainSettings
from components.train.train import train


def test_the_defaults_are_the_papers_recipe() -> None:
    settings = TrainSettings(processes_per_node=8)
    assert (settings.context_length, settings.global_batch_size, settings.epochs) == (512, 128, 5)
    assert (settings.learning_rate, settings.weight_decay, settings.warmup_fraction) == (2e-5, 0.0, 0.03)
    assert settings.max_gradient_norm is None
    assert not settings.mask_padding


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"learning_rate": 0}, {"warmup_fraction": 1}, {"typo": 1}, {"precision": "fp16"}],
)
def test_settings_out_of_bounds_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TrainSettings(**wrong)


def test_a_batch_that_does_not_split_is_refused_with_its_numbers() -> None:
    with pytest.raises(ValidationError, match=r"global_batch_size 128 .* 16 x processes_per_node 3 = 48"):
        TrainSettings(processes_per_node=3)


def test_settings_that_do_not_change_the_model_keep_the_fingerprint() -> None:
    same = tiny_settings(micro_batch_size=2, log_every_steps=7, keep_checkpoints=5)
    assert tiny_settings().fingerprint_part() == same.fingerprint_part()
    for change in ({"seed": 1}, {"learning_rate": 1e-3}, {"mask_padding": True}, {"precision": "bf16"}):
        assert tiny_settings(**change).fingerprint_part() != same.fingerprint_part()


def test_the_last_batch_of_an_epoch_holds_what_is_left() -> None:
    plan = Plan(documents=21, settings=tiny_settings())
    assert (plan.steps_per_epoch, plan.steps) == (3, 6)
    assert [plan.batch(step) for step in (0, 2, 3)] == [(0, 0, 8), (0, 16, 21), (1, 0, 8)]


def test_fewer_documents_than_a_batch_make_one_step_per_epoch() -> None:
    plan = Plan(documents=3, settings=tiny_settings())
    assert [plan.batch(step) for step in range(plan.steps)] == [(0, 0, 3), (1, 0, 3)]


@pytest.mark.parametrize("warmup", [0.0, 0.03, 0.3])
def test_the_learning_rate_is_that_of_transformers_cosine_schedule(warmup: float) -> None:
    import torch
    from transformers import get_cosine_schedule_with_warmup

    plan = Plan(documents=400, settings=tiny_settings(warmup_fraction=warmup, learning_rate=2e-5))
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2e-5)
    theirs = get_cosine_schedule_with_warmup(optimiser, -int(-(plan.steps * warmup) // 1), plan.steps)
    for step in range(plan.steps):
        assert plan.learning_rate(step) == pytest.approx(theirs.get_last_lr()[0], rel=1e-9, abs=1e-20)
        optimiser.step()
        theirs.step()


def test_a_constant_schedule_stays_at_the_peak_after_the_warm_up() -> None:
    plan = Plan(documents=80, settings=tiny_settings(schedule="constant", warmup_fraction=0.1))
    assert [plan.learning_rate(step) for step in (0, 1, 2, 19)] == [0, 0.005, 0.01, 0.01]


def corpus_shard(folder: Path) -> tuple[TokenShard, Path]:
    """One good token shard on disk."""
    stored = write_corpus(f"file://{folder}", [documents(5)]).shards[0]
    return TokenShard(name=stored.name, uri=stored.uri, documents=5, sha256=stored.sha256), storage.local_path(
        stored.uri
    )


def test_a_good_shard_is_taken(tmp_path: Path) -> None:
    shard, file = corpus_shard(tmp_path)
    assert fetch_shards([shard], "uint16", VOCABULARY, tmp_path) == [file]


def test_a_corrupt_shard_is_named_and_refused(tmp_path: Path) -> None:
    shard, file = corpus_shard(tmp_path)
    data = bytearray(file.read_bytes())
    data[10] ^= 1
    file.write_bytes(data)
    with pytest.raises(InputError, match=r"train-00000 is corrupt.*SHA-256"):
        fetch_shards([shard], "uint16", VOCABULARY, tmp_path)


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_missing_shard_is_named(tmp_path: Path, suffix: str) -> None:
    shard, file = corpus_shard(tmp_path)
    file.with_suffix(suffix).unlink()
    with pytest.raises(InputError, match=f"train-00000 is missing.*{suffix}"):
        fetch_shards([shard], "uint16", VOCABULARY, tmp_path)


def test_ids_beyond_the_vocabulary_are_refused(tmp_path: Path) -> None:
    shard, _ = corpus_shard(tmp_path)
    with pytest.raises(InputError, match=r"train-00000 holds token id \d+, but the vocabulary ends at 29"):
        fetch_shards([shard], "uint16", 30, tmp_path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda offsets: offsets[:-1], "lists 4 documents, the manifest 5"),
        (lambda offsets: np.append(offsets[:-1], offsets[-1] + 1), "spans tokens 0 to"),
        (lambda offsets: np.insert(np.delete(offsets, 2), 2, offsets[1]), "document 1 has no tokens"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(tmp_path: Path, change, fault: str) -> None:  # type: ignore[no-untyped-def]
    shard, file = corpus_shard(tmp_path)
    index = file.with_suffix(".idx")
    change(np.fromfile(index, dtype="<i8")).astype("<i8").tofile(index)
    with pytest.raises(InputError, match=fault):
        fetch_shards([shard], "uint16", VOCABULARY, tmp_path)


def test_manifests_of_the_wrong_kind_are_refused(tmp_path: Path) -> None:
    corpus = write_corpus(f"file://{tmp_path}", [documents(5)])
    with pytest.raises(InputError, match="needs a corpus manifest, but manifest b0 is of kind model"):
        train(_model_manifest(), _model_manifest(), tiny_settings(), f"file://{tmp_path}")
    with pytest.raises(InputError, match="needs a model manifest, but manifest c0 is of kind corpus"):
        train(corpus, corpus, tiny_settings(), f"file://{tmp_path}")


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    empty = write_corpus(f"file://{tmp_path}", [documents(5)]).model_copy(update={"shards": []})
    with pytest.raises(InputError, match="no training documents"):
        train(empty, _model_manifest(), tiny_settings(), f"file://{tmp_path}")


def test_a_base_model_that_does_not_fit_the_corpus_is_refused(tmp_path: Path) -> None:
    from components.train.model import check_fits

    write_model(tmp_path)
    check_fits(tmp_path, 64, VOCABULARY, 2)
    with pytest.raises(InputError, match=r"has 64 token embeddings, but .* vocabulary of 65"):
        check_fits(tmp_path, 64, VOCABULARY + 1, 2)
    with pytest.raises(InputError, match="context_length 65 exceeds the base model's 64 positions"):
        check_fits(tmp_path, 65, VOCABULARY, 2)
    (tmp_path / "model.safetensors").rename(tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="no safetensors weights"):
        check_fits(tmp_path, 64, VOCABULARY, 2)


def test_the_launching_side_never_imports_torch() -> None:
    import subprocess
    import sys

    code = "import sys, components.train.train, components.train.settings; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _model_manifest() -> Manifest:
    extra = {"model_uri": "file:///nowhere"}
    return Manifest(kind="model", fingerprint="b0", inputs={}, settings={}, shards=[], totals={}, extra=extra)
