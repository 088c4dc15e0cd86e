"""The training loop in this process, against a plain one, and its checkpoints."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from train_helpers import (
    CONTEXT,
    END,
    documents,
    losses,
    make_job,
    tiny_settings,
    token_shard,
    train_here,
    write_corpus,
    write_model,
)
from transformers import AutoModelForCausalLM

from components.common import storage, tracking
from components.common.errors import InputError, TrainingError
from components.common.fingerprint import sha256_file
from components.common.manifest import Manifest
from components.common.tracking import Run
from components.train.checkpoints.places import complete_steps
from components.train.data.corpus import Corpus
from components.train.data.schedule import Plan
from components.train.data.windows import WindowSampler
from components.train.distributed import Layout, check_batch_splits
from components.train.measuring.flops import model_flops_per_token
from components.train.settings import TrainSettings


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """A base model."""
    return write_model(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """45 documents in two shards: 6 steps an epoch, the last one of 5 windows."""
    texts = documents(45)
    return write_corpus(f"file://{tmp_path_factory.mktemp('corpus')}", [texts[:20], texts[20:]])


def run(
    output: Path, corpus: Manifest, base: Manifest, layout: Layout, settings: TrainSettings, stop: int | None = None
) -> None:
    """Train in this process."""
    train_here(make_job(corpus, base, settings, output), layout, stop)


def plain_training(corpus: Manifest, base: Manifest, settings: TrainSettings) -> tuple[list[float], torch.nn.Module]:
    """The same run as a dozen lines of torch: no sharding, no micro-batches, one batch per step."""
    model = AutoModelForCausalLM.from_pretrained(storage.local_path(base.extra["model_uri"])).train()
    optimiser = torch.optim.AdamW(model.parameters(), lr=0, weight_decay=settings.weight_decay)
    tokens = Corpus([storage.local_path(shard.uri) for shard in corpus.shards], "uint16")
    sampler = WindowSampler(tokens, CONTEXT, END, settings.mask_padding, settings.seed)
    plan, found = Plan(len(tokens), settings), []
    for step in range(plan.steps):
        epoch, first, last = plan.batch(step)
        windows = sampler.draw(epoch, np.arange(first, last), CONTEXT)
        labels = torch.from_numpy(windows.tokens.copy())
        lengths = np.minimum(tokens.lengths[sampler.documents(epoch, np.arange(first, last))], CONTEXT)
        if settings.mask_padding:
            labels[torch.arange(CONTEXT) >= torch.from_numpy(lengths)[:, None]] = -100
        loss = model(input_ids=torch.from_numpy(windows.tokens), labels=labels).loss
        loss.backward()
        if settings.max_gradient_norm:
            torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_gradient_norm)
        optimiser.param_groups[0]["lr"] = plan.learning_rate(step)
        optimiser.step()
        optimiser.zero_grad()
        found.append(loss.item())
    return found, model


@pytest.mark.parametrize("changes", [{}, {"mask_padding": True, "max_gradient_norm": 0.5, "weight_decay": 0.1}])
def test_losses_and_model_are_those_of_a_plain_loop(
    tmp_path: Path, corpus: Manifest, base: Manifest, layout: Layout, changes: dict[str, object]
) -> None:
    settings = tiny_settings(**changes)
    run(tmp_path, corpus, base, layout, settings)
    expected, model = plain_training(corpus, base, settings)
    assert [record["loss"] for record in losses(tmp_path)] == pytest.approx(expected, abs=2e-5)
    assert expected[-1] < expected[0] - 1  # it learns
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    probe = torch.arange(3, 3 + CONTEXT)[None]
    with torch.no_grad():
        assert torch.allclose(exported(probe).logits, model.eval()(probe).logits, atol=1e-3)


def test_two_runs_give_the_same_bits(tmp_path: Path, corpus: Manifest, base: Manifest, layout: Layout) -> None:
    for name in "ab":
        run(tmp_path / name, corpus, base, layout, tiny_settings())
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    first, second = (sha256_file(tmp_path / name / "model" / "model.safetensors") for name in "ab")
    assert first == second


def test_the_micro_batch_size_does_not_change_the_losses(
    tmp_path: Path, corpus: Manifest, base: Manifest, layout: Layout
) -> None:
    for micro in (8, 1):
        run(tmp_path / str(micro), corpus, base, layout, tiny_settings(micro_batch_size=micro, mask_padding=True))
    one, other = ([record["loss"] for record in losses(tmp_path / str(micro))] for micro in (8, 1))
    assert one == pytest.approx(other, abs=2e-5)


def test_sigterm_saves_the_step_and_exits_143_and_the_next_run_goes_on_to_the_same_bits(
    tmp_path: Path, corpus: Manifest, base: Manifest, layout: Layout
) -> None:
    settings = tiny_settings(checkpoint_every_steps=4)
    with pytest.raises(SystemExit) as exit_info:
        run(tmp_path / "stopped", corpus, base, layout, settings, stop=7)
    assert exit_info.value.code == 143
    assert complete_steps(f"file://{tmp_path}/stopped/checkpoints") == [4, 7]
    assert not (tmp_path / "stopped" / "result.json").exists()
    run(tmp_path / "stopped", corpus, base, layout, settings)
    run(tmp_path / "whole", corpus, base, layout, settings)
    assert losses(tmp_path / "stopped") == losses(tmp_path / "whole")
    assert [record["step"] for record in losses(tmp_path / "stopped")] == list(range(1, 13))
    weights = [sha256_file(tmp_path / name / "model" / "model.safetensors") for name in ("stopped", "whole")]
    assert weights[0] == weights[1]


def test_metrics_of_a_run_that_goes_on_under_another_name_are_whole_and_every_checkpoint_has_its_cost(
    tmp_path: Path, corpus: Manifest, base: Manifest, layout: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    points: list[tuple[int, Mapping[str, float]]] = []

    class Recording(Run):
        def log_metric_points(self, given: list[tuple[int, Mapping[str, float]]]) -> None:
            points.extend(given)

    monkeypatch.setattr(tracking, "worker_run", lambda: contextlib.nullcontext(Recording(None, "")))
    settings = tiny_settings(checkpoint_every_steps=None)
    for stop, committed in ((7, [7]), (None, [12])):
        points.clear()
        with contextlib.suppress(SystemExit):
            run(tmp_path, corpus, base, layout, settings, stop=stop)
        assert [step for step, metrics in points if "loss" in metrics] == list(range(1, (stop or 12) + 1))
        assert [step for step, metrics in points if "checkpoint_commit_seconds" in metrics] == committed


def test_the_result_counts_the_run_and_names_every_file(
    tmp_path: Path, corpus: Manifest, base: Manifest, layout: Layout
) -> None:
    run(tmp_path, corpus, base, layout, tiny_settings(peak_tflops=0.01))
    result = json.loads((tmp_path / "result.json").read_text())
    totals = result["totals"]
    lengths = np.array([len(text) for text in documents(45)])
    assert (totals["steps"], totals["epochs"], totals["documents"]) == (12, 2, 45)
    assert totals["tokens"] == 2 * 45 * CONTEXT
    assert totals["padding_tokens"] == 2 * np.maximum(CONTEXT - lengths, 0).sum()
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert totals["parameters"] == model.num_parameters()
    flops = totals["mean_tokens_per_second"] * model_flops_per_token(model, CONTEXT)
    assert totals["mean_mfu"] == pytest.approx(flops / 1e10)
    assert totals["final_loss"] == losses(tmp_path)[-1]["loss"]
    names = {file["name"] for file in result["files"]}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= names
    for file in result["files"]:
        assert sha256_file(storage.local_path(file["uri"])) == file["sha256"]
    assert json.loads((tmp_path / "model" / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]


def test_bf16_trains_over_fp32_weights_and_exports_bf16(
    tmp_path: Path, corpus: Manifest, base: Manifest, layout: Layout
) -> None:
    run(tmp_path / "bf16", corpus, base, layout, tiny_settings(precision="bf16"))
    run(tmp_path / "fp32", corpus, base, layout, tiny_settings())
    one, other = ([record["loss"] for record in losses(tmp_path / name)] for name in ("bf16", "fp32"))
    assert one != other
    assert one == pytest.approx(other, abs=0.05)
    exported = AutoModelForCausalLM.from_pretrained(tmp_path / "bf16" / "model")
    assert exported.dtype == torch.bfloat16


def test_fewer_documents_than_a_batch_train(tmp_path: Path, base: Manifest, layout: Layout) -> None:
    corpus = write_corpus(f"file://{tmp_path}/corpus", [documents(3)])
    run(tmp_path, corpus, base, layout, tiny_settings(epochs=4))
    assert [record["tokens"] for record in losses(tmp_path)] == [3 * CONTEXT] * 4


@pytest.fixture
def broken_base(tmp_path: Path) -> Manifest:
    """A base model with a weight that is no number in the embedding of token 20, which few windows hold."""
    base = write_model(tmp_path / "broken")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "broken")
    with torch.no_grad():
        model.model.embed_tokens.weight[20, 0] = float("nan")
    model.save_pretrained(tmp_path / "broken")
    return base


def texts_with_one_bad() -> list[np.ndarray]:
    """45 documents of which one alone holds token 20."""
    texts = [np.where(text == 20, 21, text) for text in documents(45)]
    texts[17] = np.full(CONTEXT, 20)
    return texts


def test_a_loss_that_is_no_number_ends_the_run_and_names_the_windows(
    tmp_path: Path, broken_base: Manifest, layout: Layout
) -> None:
    corpus = write_corpus(f"file://{tmp_path}/corpus", [texts_with_one_bad()])
    message = r"The loss is nan at step \d of 12 \(windows \d+ to \d+ of epoch 1\); lower learning_rate"
    with pytest.raises(TrainingError, match=message):
        run(tmp_path, corpus, broken_base, layout, tiny_settings())


def test_a_bad_step_is_skipped_and_counted_where_the_recipe_says_so(
    tmp_path: Path, broken_base: Manifest, layout: Layout
) -> None:
    corpus = write_corpus(f"file://{tmp_path}/corpus", [texts_with_one_bad()])
    run(tmp_path, corpus, broken_base, layout, tiny_settings(on_bad_loss="skip"))
    records = losses(tmp_path)
    assert [record.get("skipped", False) for record in records].count(True) == 2  # once in each epoch
    assert all((record["loss"] is None) == record.get("skipped", False) for record in records)
    assert json.loads((tmp_path / "result.json").read_text())["totals"]["skipped_steps"] == 2


def test_held_out_loss_is_measured_at_intervals_on_the_same_windows(
    tmp_path: Path, corpus: Manifest, base: Manifest, layout: Layout
) -> None:
    held_out = write_corpus(f"file://{tmp_path}/held-out", [documents(10, seed=9)])
    settings = tiny_settings(validate_every_steps=5, learning_rate=1e-12, mask_padding=True)
    job = make_job(corpus, base, settings, tmp_path / "out")
    job = job.model_copy(update={"validation": [token_shard(shard) for shard in held_out.shards]})
    train_here(job, layout)
    found = {record["step"]: record.get("validation_loss") for record in losses(tmp_path / "out")}
    assert [step for step, loss in found.items() if loss is not None] == [5, 10, 12]
    assert found[5] == pytest.approx(found[12], abs=1e-6)  # a rate of next to nothing: the same model, the same windows
    assert found[5] == pytest.approx(np.log(64), abs=0.2)  # a random model over 64 tokens


def test_a_micro_batch_size_is_found_that_divides_the_batch(
    tmp_path: Path, corpus: Manifest, base: Manifest, layout: Layout
) -> None:
    run(tmp_path / "auto", corpus, base, layout, tiny_settings(micro_batch_size="auto"))
    run(tmp_path / "given", corpus, base, layout, tiny_settings())
    auto, given = ([record["loss"] for record in losses(tmp_path / name)] for name in ("auto", "given"))
    assert auto == pytest.approx(given, abs=2e-5)


def test_a_batch_that_does_not_split_over_the_processes_is_refused() -> None:
    with pytest.raises(InputError, match="8 is not a multiple of micro_batch_size 4 x 3 processes = 12"):
        check_batch_splits(tiny_settings(), 3)
