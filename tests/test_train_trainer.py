"""The training loop in this process, against a plain one, and its checkpoints."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from train_helpers import (
    CONTEXT,
    alone,
    documents,
    losses,
    make_job,
    tiny_settings,
    train_here,
    write_corpus,
    write_model,
)
from transformers import AutoModelForCausalLM

from components.common import storage
from components.common.errors import InputError, TrainingError
from components.common.fingerprint import sha256_file
from components.common.manifest import Manifest
from components.train.checkpoint import complete_steps
from components.train.corpus import Corpus
from components.train.distributed import Layout, check_batch_splits
from components.train.metrics import MetricBuffer, flops_per_token
from components.train.schedule import Plan
from components.train.settings import TrainSettings
from components.train.windows import WindowSampler


@pytest.fixture(scope="module")
def layout() -> Iterator[Layout]:
    """This process as the only one of a run."""
    with alone() as layout:
        yield layout


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
    sampler = WindowSampler(tokens, CONTEXT, settings.padding_token_id, settings.seed)
    plan, found = Plan(len(tokens), settings), []
    for step in range(plan.steps):
        epoch, first, last = plan.batch(step)
        windows = sampler.windows(epoch, sampler.documents(epoch, first, last))
        labels = torch.from_numpy(windows.tokens.copy())
        if settings.mask_padding:
            labels[torch.arange(CONTEXT) >= torch.from_numpy(windows.lengths)[:, None]] = -100
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


def test_an_incomplete_checkpoint_is_ignored_and_removed(
    tmp_path: Path, corpus: Manifest, base: Manifest, layout: Layout
) -> None:
    checkpoints = tmp_path / "checkpoints"
    with contextlib.suppress(SystemExit):
        run(tmp_path, corpus, base, layout, tiny_settings(), stop=5)
    (checkpoints / "step-00000005" / "COMPLETE").unlink()
    run(tmp_path, corpus, base, layout, tiny_settings(keep_checkpoints=9))
    assert complete_steps(f"file://{checkpoints}") == [4, 6, 8, 10, 12]
    assert not (checkpoints / "step-00000005").exists()
    assert [record["step"] for record in losses(tmp_path)] == list(range(1, 13))


def test_only_the_last_checkpoints_are_kept(tmp_path: Path, corpus: Manifest, base: Manifest, layout: Layout) -> None:
    run(tmp_path, corpus, base, layout, tiny_settings(checkpoint_every_steps=1, keep_checkpoints=3))
    assert complete_steps(f"file://{tmp_path}/checkpoints") == [10, 11, 12]
    assert len(list((tmp_path / "checkpoints").iterdir())) == 3


def test_the_result_counts_the_run_and_names_every_file(
    tmp_path: Path, corpus: Manifest, base: Manifest, layout: Layout
) -> None:
    run(tmp_path, corpus, base, layout, tiny_settings())
    result = json.loads((tmp_path / "result.json").read_text())
    totals = result["totals"]
    lengths = np.array([len(text) for text in documents(45)])
    assert (totals["steps"], totals["epochs"], totals["documents"]) == (12, 2, 45)
    assert totals["tokens"] == 2 * 45 * CONTEXT
    assert totals["padding_tokens"] == 2 * np.maximum(CONTEXT - lengths, 0).sum()
    assert totals["parameters"] == AutoModelForCausalLM.from_pretrained(tmp_path / "model").num_parameters()
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


def test_a_loss_that_is_no_number_ends_the_run(tmp_path: Path, corpus: Manifest, layout: Layout) -> None:
    base = write_model(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    with torch.no_grad():
        model.lm_head.weight[0, 0] = float("nan")
    model.save_pretrained(tmp_path / "base")
    with pytest.raises(TrainingError, match="loss is nan at step 1; lower learning_rate"):
        run(tmp_path, corpus, base, layout, tiny_settings())


def test_a_batch_that_does_not_split_over_the_processes_is_refused() -> None:
    with pytest.raises(InputError, match="8 is not a multiple of micro_batch_size 4 x 3 processes = 12"):
        check_batch_splits(tiny_settings(), 3)


def test_flops_per_token_are_palms(base: Manifest) -> None:
    from transformers import LlamaConfig

    llama_7b = LlamaConfig()  # the defaults are LLaMA-7B's
    flops = flops_per_token(llama_7b, 6_738_415_616, 512)
    assert flops == 6 * 6_738_415_616 + 12 * 32 * 32 * 128 * 512
    # The authors' own figure: 2,370 tokens/s per A100 is 30.7% without the attention term.
    assert 2370 * (flops - 12 * 32 * 32 * 128 * 512) / 312e12 == pytest.approx(0.307, abs=0.001)


class RecordingRun:
    """Takes points as an MLflow run does; fails at the first call if told to."""

    def __init__(self, failures: int = 0) -> None:
        self.points: list[tuple[int, dict[str, float]]] = []
        self.calls = 0
        self._failures = failures

    def log_metric_points(self, points: list[tuple[int, dict[str, float]]]) -> None:
        """Record, or fail."""
        self.calls += 1
        if self.calls <= self._failures:
            raise ConnectionError("tracking server is away")
        self.points += points


def test_metrics_go_out_in_order_and_in_few_requests() -> None:
    run = RecordingRun()
    buffer = MetricBuffer(run)  # type: ignore[arg-type]
    for step in range(500):
        buffer.add(step, {"loss": 1.0 * step})
    buffer.close()
    assert [step for step, _ in run.points] == list(range(500))
    assert run.calls <= 2


def test_a_tracking_server_that_fails_does_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    run = RecordingRun(failures=1)
    buffer = MetricBuffer(run)  # type: ignore[arg-type]
    buffer.add(3, {"loss": 1.0})
    buffer.close()
    assert "MLflow did not take the metrics of steps 3 to 3: tracking server is away" in caplog.text
