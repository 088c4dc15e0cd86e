"""Metrics: what a step's numbers become, and their way to MLflow, replayed steps included."""

import dataclasses
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from train_helpers import tiny_settings

from components.common import tracking
from components.common.settings import get_settings
from components.common.tracking import Run
from components.train.data.schedule import Plan
from components.train.distributed import Layout
from components.train.measuring.buffer import MetricBuffer
from components.train.measuring.flops import flops_per_token, model_flops_per_token
from components.train.measuring.hardware import peak_flops
from components.train.measuring.meter import Meter, describe, held_out, perplexity
from tests.ports import free_ports


def a_meter(layout: Layout, **changes: Any) -> Meter:
    """A meter of a run of 6 steps, whose device does 1e9 FLOP/s and whose tokens take 1e4."""
    return Meter(Plan(24, tiny_settings(**changes)), layout, flops_per_token=1e4, peak_flops=1e9)


def measure(meter: Meter, step: int, waited: float = 0.0) -> dict[str, float]:
    """A step of 128 tokens."""
    return meter.measure(step, math.log(5), 2.0, 1e-3, 128, waited)


def test_a_step_has_its_numbers_and_its_throughput(layout: Layout) -> None:
    meter = a_meter(layout)
    time.sleep(0.02)
    metrics = measure(meter, 3)
    assert metrics["perplexity"] == pytest.approx(5)
    assert metrics["epoch"] == 1.0
    assert metrics["seconds"] >= 0.02
    assert metrics["tokens_per_second"] == pytest.approx(128 / metrics["seconds"])
    assert metrics["mfu"] == pytest.approx(metrics["tokens_per_second_per_device"] * 1e4 / 1e9)


def test_throughput_per_device_is_that_of_all_over_their_number(layout: Layout) -> None:
    four = dataclasses.replace(layout, world=4)
    metrics = measure(a_meter(four, log_every_steps=100), 2)
    assert metrics["tokens_per_second_per_device"] == pytest.approx(metrics["tokens_per_second"] / 4)
    assert metrics["mfu"] == pytest.approx(metrics["tokens_per_second"] * 1e4 / 4e9)


def test_a_device_of_unknown_peak_has_no_mfu(layout: Layout) -> None:
    assert "mfu" not in measure(Meter(Plan(24, tiny_settings()), layout, 1e4, None), 1)


def test_what_happens_between_steps_is_part_of_no_step(layout: Layout) -> None:
    meter, metrics = a_meter(layout), {}
    measure(meter, 1)
    with meter.aside("checkpoint_stall_seconds", metrics):
        time.sleep(0.5)
    assert metrics["checkpoint_stall_seconds"] >= 0.5
    assert measure(meter, 2)["seconds"] < 0.5


def test_percentiles_waits_and_memory_come_every_so_many_steps(layout: Layout) -> None:
    meter = a_meter(layout, log_every_steps=2)
    steps = []
    for step in range(1, 7):
        time.sleep(0.06 if step == 4 else 0.01)
        steps.append(measure(meter, step, waited=0.005))
    assert ["memory_peak_gib" in metrics for metrics in steps] == [True, True, False, True, False, True]
    last = steps[-1]
    assert 0.01 <= last["step_seconds_p50"] < last["step_seconds_p95"] < last["step_seconds_max"]
    assert last["step_seconds_max"] == max(each["seconds"] for each in steps) >= 0.06
    assert last["data_wait_share"] == pytest.approx(6 * 0.005 / sum(each["seconds"] for each in steps))
    assert 0.05 < last["memory_peak_gib"] < 64


def test_time_left_and_cost_come_from_the_steps_after_the_first(layout: Layout) -> None:
    meter = a_meter(layout, gpu_hour_price=36.0, log_every_steps=1)  # 0.01 a second
    meter.seconds_before = 100.0
    time.sleep(0.2)  # the first step compiles
    first = measure(meter, 1)
    assert first["seconds_left"] == pytest.approx(5 * first["seconds"], rel=0.05)
    seconds = []
    for step in (2, 3):
        time.sleep(0.02)
        metrics = measure(meter, step)
        seconds.append(metrics["seconds"])
    assert metrics["seconds_left"] == pytest.approx(3 * sum(seconds) / 2, rel=0.01)
    assert metrics["cost_so_far"] == pytest.approx(0.01 * (100 + first["seconds"] + sum(seconds)), rel=1e-3)
    assert metrics["cost_to_come"] == pytest.approx(0.01 * metrics["seconds_left"])
    assert f"cost {metrics['cost_so_far']:.2f} so far" in describe(3, 6, 3, metrics)


def test_without_a_price_there_is_no_cost(layout: Layout) -> None:
    assert not [name for name in measure(a_meter(layout), 1) if name.startswith("cost")]


def test_perplexity_is_a_number_a_database_can_keep() -> None:
    assert held_out(math.log(7)) == {"validation_loss": math.log(7), "validation_perplexity": pytest.approx(7)}
    assert math.isfinite(perplexity(1e9))
    assert math.isnan(perplexity(math.nan))


_TWO_PROCESSES = """
import json
import sys
import time
import torch.distributed as dist
from train_helpers import tiny_settings
from components.train.data.schedule import Plan
from components.train.distributed import start_processes
from components.train.launching.process import end_with
from components.train.measuring.meter import Meter

def main():
    layout = start_processes(tiny_settings())
    meter = Meter(Plan(24, tiny_settings(log_every_steps=6)), layout, 1e4, 1e9)
    held = b"x" * (300 * 2**20 * layout.rank)
    for step in range(1, 7):
        if layout.rank == 1 and step == 4:
            time.sleep(0.5)
        metrics = meter.measure(step, 1.0, 1.0, 1e-3, 128, waited=0.001 * layout.rank)
    with open(f"{sys.argv[1]}/{layout.rank}.json", "w") as file:
        json.dump(metrics, file)
    dist.destroy_process_group()

end_with(main)
"""


def test_the_slowest_process_and_the_fullest_memory_are_known_to_the_first(tmp_path: Path) -> None:
    script = tmp_path / "two.py"
    script.write_text(_TWO_PROCESSES)
    folders = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[1])])
    (port,) = free_ports(1)
    environment = {**os.environ, "PYTHONPATH": folders, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    # As torchrun starts them, whose own start takes as long as theirs.
    processes = [
        subprocess.Popen(
            [sys.executable, str(script), str(tmp_path)],
            env={**environment, "WORLD_SIZE": "2", "RANK": str(rank), "LOCAL_RANK": str(rank), "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [process.wait(120) for process in processes] == [0, 0]
    first, second = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))
    shared = [name for name in first if name.endswith("slowest_process")] + ["memory_peak_gib", "data_wait_share"]
    assert {name: first[name] for name in shared} == {name: second[name] for name in shared}
    assert first["step_seconds_max_slowest_process"] >= max(0.5, first["step_seconds_max"])
    assert second["step_seconds_max"] >= 0.5
    assert first["data_wait_share"] == pytest.approx(first["data_wait_share_slowest_process"] / 2)
    assert first["memory_peak_gib"] > 0.4


# FLOPs and peaks


def test_flops_per_token_are_palms_without_the_lookup() -> None:
    embedding, attention = 32_000 * 4096, 12 * 32 * 4096 * 512
    flops = flops_per_token(6_738_415_616 - embedding, 0, 32, 4096, 512)
    assert flops == 6 * (6_738_415_616 - embedding) + attention
    # The authors' own figures: 2,370 tokens/s per A100 is 30.7%, counted as 6 times all parameters.
    assert 2370 * flops / 312e12 == pytest.approx(0.307, abs=0.001)


def test_frozen_parameters_take_two_thirds() -> None:
    assert flops_per_token(10, 1000, 0, 0, 512) == 60 + 4000


@pytest.mark.parametrize("tied", [False, True])
def test_a_models_embedding_counts_only_where_it_is_multiplied_with(tied: bool) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(**shape, vocab_size=64, tie_word_embeddings=tied))
    per_layer = 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32
    assert model_flops_per_token(model, 16) == 6 * (2 * per_layer + 32 + 64 * 32) + 12 * 2 * 32 * 16
    model.model.layers.requires_grad_(False)
    assert model_flops_per_token(model, 16) == 4 * 2 * per_layer + 6 * (32 + 64 * 32) + 12 * 2 * 32 * 16


@pytest.mark.parametrize(
    ("name", "tflops"),
    [
        ("NVIDIA A100-SXM4-40GB", 312),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H100 NVL", 835),
        ("NVIDIA H200", 989),
        ("NVIDIA L40S", 362),
    ],
)
def test_the_peak_is_known_by_the_gpus_name(name: str, tflops: float) -> None:
    assert peak_flops(None, name) == tflops * 1e12
    assert peak_flops(50.0, name) == 50e12


def test_an_unknown_gpu_is_named_once_and_has_no_peak(caplog: pytest.LogCaptureFixture) -> None:
    assert peak_flops(None, "Radeon RX 7900") is None
    assert "The peak of Radeon RX 7900 is not known" in caplog.text
    assert peak_flops(None, None) is None


# The way to MLflow


class RecordingRun(Run):
    """Takes points as an MLflow run does; fails at the first call if told to."""

    def __init__(self, failures: int = 0, known: int = -1) -> None:
        super().__init__(None, "")
        self.points: list[tuple[int, Any]] = []
        self.calls = 0
        self._failures, self._known = failures, known

    def log_metric_points(self, points: list[tuple[int, Any]]) -> None:
        """Record, or fail."""
        self.calls += 1
        if self.calls <= self._failures:
            raise ConnectionError("tracking server is away")
        self.points += points

    def last_step(self, name: str) -> int:
        """The last step that is there already."""
        return self._known


def test_metrics_go_out_in_order_and_in_few_requests() -> None:
    run = RecordingRun()
    buffer = MetricBuffer(run)
    for step in range(500):
        buffer.add(step, {"loss": 1.0 * step})
    buffer.close()
    assert [step for step, _ in run.points] == list(range(500))
    assert run.calls <= 2


def test_a_tracking_server_that_fails_does_not_end_the_run(caplog: pytest.LogCaptureFixture) -> None:
    run = RecordingRun(failures=1)
    buffer = MetricBuffer(run)
    buffer.add(3, {"loss": 1.0})
    buffer.close()
    assert "MLflow did not take the metrics of steps 3 to 3: tracking server is away" in caplog.text


def test_steps_that_are_there_already_are_left_out() -> None:
    run = RecordingRun(known=4)
    buffer = MetricBuffer(run)
    for step in range(3, 8):
        buffer.add(step, {"loss": 1.0})
    buffer.close()
    assert [step for step, _ in run.points] == [5, 6, 7]


def test_a_new_run_gets_the_curve_of_the_steps_before_and_one_that_goes_on_does_not() -> None:
    history = [{"step": step, "loss": 1.0, "learning_rate": 1e-3, "tokens": 9} for step in range(1, 8)]
    history[3] |= {"loss": None, "skipped": True}
    for known, first in ((-1, 1), (7, 8)):
        run = RecordingRun(known=known)
        buffer = MetricBuffer(run)
        buffer.replay(history)
        buffer.add(8, {"loss": 0.5})
        buffer.close()
        assert [step for step, _ in run.points] == list(range(first, 9))
    new = RecordingRun()
    buffer = MetricBuffer(new)
    buffer.replay(history)
    buffer.close()
    assert new.points[2:4] == [(3, {"loss": 1.0, "learning_rate": 1e-3}), (4, {"learning_rate": 1e-3})]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file for MLflow's database, which takes seconds to make."""
    return tmp_path_factory.mktemp("mlflow") / "mlflow.db"


@pytest.fixture
def tracked(database: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Run]:
    """A run of its own in a real MLflow database."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    get_settings.cache_clear()
    with tracking.step(request.node.name) as run:
        yield run
    get_settings.cache_clear()


def test_a_run_that_goes_on_after_a_kill_has_every_step_once(tracked: Run) -> None:
    buffer = MetricBuffer(tracked)
    for step in range(1, 101):
        buffer.add(step, {"loss": 1.0 / step, "seconds": 0.1, "epoch": step / 10})
    buffer.close()
    # System metrics count their samples, not the steps.
    tracked.log_metrics({"system/cpu": 1.0}, step=5000)

    again = MetricBuffer(tracked)  # the last checkpoint was at step 60
    for step in range(61, 131):
        again.add(step, {"loss": 1.0 / step, "seconds": 0.2, "epoch": step / 10})
    again.close()
    assert tracked.client is not None
    for name in ("loss", "seconds"):
        history = tracked.client.get_metric_history(tracked.run_id, name)
        assert sorted(metric.step for metric in history) == list(range(1, 131))


def test_the_metrics_of_a_step_travel_in_one_request(tracked: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[list[int]] = []
    monkeypatch.setattr(
        tracked.client, "log_batch", lambda _, metrics: sent.append([metric.step for metric in metrics])
    )
    tracked.log_metric_points([(step, {f"m{number}": 1.0 for number in range(40)}) for step in range(100)])
    assert [step for batch in sent for step in sorted(set(batch))] == list(range(100))
    assert max(map(len, sent)) <= 1000


def test_a_run_without_metrics_has_no_last_step(tracked: Run) -> None:
    assert tracked.last_step("loss") == -1
    assert Run(None, "").last_step("loss") == -1
