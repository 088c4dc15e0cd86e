"""The benchmarks of training: they run, all contenders train on the same windows, and their losses are equal."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("accelerate")

from benchmarks import train_gpu, training
from components.train.planning.shape import find_shape


def test_every_trainer_of_the_cpu_benchmark_has_the_same_loss_curve(tmp_path: Path) -> None:
    size = training.Size(context=32, batch=4, steps=3, warm_up=1, vocabulary=2048, learning_rate=1e-3)
    training.prepare("tiny", size, threads=1, folder=tmp_path)
    assert np.load(tmp_path / "windows.npy").shape == (2 * 3 * 4, 32)
    curves = {name: training.measure(name, tmp_path, threads=1) for name in training.CONTENDERS}
    ours = curves[training.OURS]["losses"]
    assert len(ours) == len(curves[training.OURS]["seconds"]) == 6
    assert len(set(ours)) == 6
    for name, found in curves.items():
        assert found["losses"] == pytest.approx(ours, abs=1e-4), name
        assert min(found["seconds"]) > 0, name


@pytest.mark.parametrize("name", [train_gpu.OURS, train_gpu.CHECKPOINTED])
def test_the_gpu_benchmark_measures_on_a_cpu_too(name: str) -> None:
    run = train_gpu.Run(layers=2, context=16, steps=2, warm_up=1, tiny=True)
    found = train_gpu._measure(name, run, train_gpu.Device("CPU", 0.0, 1))
    assert found is not None
    assert len(found["seconds"]) == 2
    assert (found["micro_batch"], found["passes"]) == ((16, 1) if name == train_gpu.OURS else (4, 4))


def test_the_table_says_what_was_measured_and_that_layers_are_missing(capsys: pytest.CaptureFixture[str]) -> None:
    whole = find_shape("huggyllama/llama-7b")
    some = {"seconds": [1.0, 1.0], "memory": 60 * 2**30, "micro_batch": 16, "passes": 1}
    found = {train_gpu.OURS: [some], train_gpu.AUTHORS: [{**some, "seconds": [2.0, 2.0], "micro_batch": 4}]}
    device = train_gpu.Device("NVIDIA A100-SXM4-80GB", 79.2, 1)
    fewer = train_gpu.replace(whole, layers=16)
    train_gpu._show(found, device, whole, fewer, 512, 312e12)
    text = " ".join(capsys.readouterr().out.split())
    assert "NVIDIA A100-SXM4-80GB" in text
    assert "16 of 32 layers: memory is short for all" in text
    assert "8,192" in text
    assert "2.00x" in text


@pytest.mark.parametrize(("memory", "gpus", "layers"), [(79.2, 8, range(32, 33)), (79.2, 1, range(12, 24))])
def test_as_many_layers_are_measured_as_fit(memory: float, gpus: int, layers: range) -> None:
    device = train_gpu.Device("GPU", memory, gpus)
    assert train_gpu.layers_that_fit(find_shape("huggyllama/llama-7b"), device) in layers
