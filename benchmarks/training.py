"""Measure a training step on CPU cores: this trainer, Hugging Face's Trainer and a plain accelerate loop, in turn.

``python -m benchmarks.training [--models tiny 60m] [--repetitions 3] [--threads 2]``: every contender trains the same
model on the same windows in the same order with the same optimiser, fp32, gradients clipped to norm 1, each time in a
process of its own, whose threads wait as this trainer's launcher has them wait (OMP_WAIT_POLICY). This trainer runs as
it is, from token shards through its own loop; nobody writes checkpoints or tracks while the clock runs.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from components.common.shards import write_shard
from components.download.sample.tiny_llama import write_tiny_llama
from components.train.launching.job import TokenShard, TokenSource, TrainJob
from components.train.launching.process import end_with
from components.train.settings import TrainSettings

OURS, TRAINER, LOOP = "this trainer", "Hugging Face Trainer", "accelerate loop"
_MEASURE = "--measure"
_TOKENIZER = '{"version": "1.0"}'
_DOCUMENT_TOKENS = 3  # times the context


@dataclass(frozen=True)
class Size:
    """A model and the run that measures it.

    Attributes:
        context: Tokens in a window.
        batch: Windows in a step.
        steps: In each of two epochs.
        warm_up: First steps that don't count.
        vocabulary: Of the model.
        learning_rate: At the peak.
    """

    context: int
    batch: int
    steps: int
    warm_up: int
    vocabulary: int
    learning_rate: float


SIZES = {
    "tiny": Size(context=128, batch=8, steps=60, warm_up=10, vocabulary=2048, learning_rate=1e-3),
    "60m": Size(context=128, batch=4, steps=8, warm_up=3, vocabulary=32_000, learning_rate=3e-4),
}


def main() -> None:
    """Measure and print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--repetitions", type=int, default=3, help="of every contender, in turn")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of every contender")
    parser.add_argument("--steps", type=int, default=None, help="in each of two epochs (default: by model)")
    options = parser.parse_args()
    for name in options.models:
        size = SIZES[name] if options.steps is None else Size(**{**asdict(SIZES[name]), "steps": options.steps})
        with tempfile.TemporaryDirectory() as folder:
            prepare(name, size, options.threads, Path(folder))
            found: dict[str, list[dict[str, list[float]]]] = {contender: [] for contender in CONTENDERS}
            for repetition in range(options.repetitions):
                for contender in CONTENDERS:
                    found[contender].append(measure(contender, Path(folder), options.threads))
                    middle = statistics.median(found[contender][-1]["seconds"][size.warm_up :])
                    note = f"{name} {repetition + 1}/{options.repetitions} {contender}: {middle * 1000:.1f} ms a step"
                    print(note, file=sys.stderr, flush=True)
        _show(name, size, options.threads, found)


def prepare(name: str, size: Size, threads: int, folder: Path) -> None:
    """Write the model, the corpus as token shards, the job, and the job's windows for those who read no shards."""
    _write_model(name, size, folder / "base")
    settings = TrainSettings(
        context_length=size.context,
        global_batch_size=size.batch,
        micro_batch_size=size.batch,
        epochs=2,
        learning_rate=size.learning_rate,
        max_gradient_norm=1.0,
        precision="fp32",
        device="cpu",
        threads_per_process=threads,
        checkpoint_minutes=None,
        validation_windows=0,
    )
    shard = _write_corpus(size, folder)
    job = TrainJob(
        fingerprint="benchmark",
        base_model_uri=f"file://{folder}/base",
        sources=[TokenSource(name="corpus", shards=[shard])],
        token_dtype="uint16",
        vocabulary_size=size.vocabulary,
        end_token_id=2,
        padding_token_id=2,
        output_uri=f"file://{folder}/run",
        scratch_folder=folder / "scratch",
        settings=settings,
    )
    (folder / "job.json").write_text(job.model_dump_json())
    subprocess.run(
        [sys.executable, "-m", __spec__.name, _MEASURE, "windows", str(folder)], check=True, capture_output=True
    )


def measure(contender: str, folder: Path, threads: int) -> dict[str, list[float]]:
    """Seconds and losses of a contender's steps, in a process of its own."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
        "PYTHONWARNINGS": "ignore",
    }
    for name in [name for name in environment if name.startswith(("MLFLOW_", "PMC_"))]:
        del environment[name]
    command = [sys.executable, "-m", __spec__.name, _MEASURE, contender, str(folder)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{contender} failed:\n{ended.stderr[-4000:]}")
    steps: dict[str, list[float]] = json.loads(ended.stdout.splitlines()[-1])
    return steps


def _this_trainer(job: TrainJob, _folder: Path) -> dict[str, list[float]]:
    import torch.distributed as dist

    from benchmarks.other_trainers import Steps
    from components.common import storage
    from components.train.distributed import start_processes
    from components.train.launching.process import StopSignal
    from components.train.measuring.meter import Meter
    from components.train.trainer import train

    shutil.rmtree(storage.local_path(job.output_uri), ignore_errors=True)
    steps, measure_step = Steps(), Meter.measure

    def measured(meter: Meter, step: int, loss: float, *others: Any, **more: Any) -> dict[str, float]:
        steps.end_step(loss)
        return measure_step(meter, step, loss, *others, **more)

    Meter.measure = measured  # type: ignore[assignment,method-assign]
    train(job, start_processes(job.settings), StopSignal())
    dist.destroy_process_group()
    return asdict(steps)


def _hf_trainer(job: TrainJob, folder: Path) -> dict[str, list[float]]:
    from benchmarks.other_trainers import run_hf_trainer, warmup_steps

    settings, tokens = job.settings, np.load(folder / "windows.npy")
    assert isinstance(settings, TrainSettings)
    steps = len(tokens) // settings.global_batch_size
    arguments = {
        "output_dir": str(folder / "hf"),
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "per_device_train_batch_size": settings.global_batch_size,
        "num_train_epochs": 1,
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": warmup_steps(settings, steps),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_gradient_norm,
        "optim": "adamw_torch_fused",
    }
    return asdict(run_hf_trainer(_whole_model(job), tokens, arguments))


def _accelerate_loop(job: TrainJob, folder: Path) -> dict[str, list[float]]:
    from benchmarks.other_trainers import run_accelerate_loop

    assert isinstance(job.settings, TrainSettings)
    return asdict(run_accelerate_loop(_whole_model(job), np.load(folder / "windows.npy"), job.settings))


def _windows(job: TrainJob, folder: Path) -> dict[str, list[float]]:
    """Save the windows that this trainer draws, step after step."""
    from components.train.data.batches import step_batch
    from components.train.data.open import open_sampler
    from components.train.data.schedule import Plan
    from components.train.distributed import start_processes

    sampler = open_sampler(job, start_processes(job.settings))
    plan, size = Plan(sampler.windows_per_epoch, job.settings), job.settings.global_batch_size
    batches = [step_batch(plan, sampler, step, size, 0, 1).micro_batches for step in range(plan.steps)]
    np.save(folder / "windows.npy", np.concatenate([tokens.numpy() for passes in batches for tokens, _ in passes]))
    return {}


CONTENDERS: dict[str, Callable[[TrainJob, Path], dict[str, list[float]]]] = {
    OURS: _this_trainer,
    TRAINER: _hf_trainer,
    LOOP: _accelerate_loop,
}


def _measure_here(name: str, folder: Path) -> None:
    import torch

    job = TrainJob.model_validate_json((folder / "job.json").read_text())
    torch.set_num_threads(job.settings.threads_per_process or 1)
    torch.manual_seed(0)
    print(json.dumps((CONTENDERS | {"windows": _windows})[name](job, folder)), flush=True)


def _whole_model(job: TrainJob):  # type: ignore[no-untyped-def]
    import torch
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(job.base_model_uri.removeprefix("file://"), dtype=torch.float32)


def _write_model(name: str, size: Size, folder: Path) -> None:
    if name == "tiny":
        write_tiny_llama(folder)
        return
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {"hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 8, "num_attention_heads": 8}
    LlamaForCausalLM(LlamaConfig(**shape, vocab_size=size.vocabulary)).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(_TOKENIZER)


def _write_corpus(size: Size, folder: Path) -> TokenShard:
    """Random walks over the vocabulary, so that there is something to learn; all longer than a window."""
    random, documents = np.random.default_rng(0), size.batch * size.steps
    jumps = random.integers(1, 4, (documents, _DOCUMENT_TOKENS * size.context))
    tokens = ((jumps.cumsum(axis=1) + random.integers(0, 500, (documents, 1))) % (size.vocabulary - 3) + 3).astype(
        "<u2"
    )
    offsets = np.arange(documents + 1, dtype="<i8") * tokens.shape[1]
    files = {".bin": tokens.tobytes(), ".idx": offsets.tobytes()}
    stats = {"split": "train", "documents": documents, "tokens": tokens.size}
    shard = write_shard(f"file://{folder}/corpus", "train-00000", files, documents, stats)
    return TokenShard(name=shard.name, uri=shard.uri, documents=documents, tokens=tokens.size, sha256=shard.sha256)


def _show(name: str, size: Size, threads: int, found: dict[str, list[dict[str, list[float]]]]) -> None:
    reference = np.array(found[OURS][0]["losses"])
    tokens = f"{size.batch} windows of {size.context} tokens a step, {2 * size.steps} steps, {threads} threads"
    table = Table(title=f"{name}: {tokens}, {len(found[OURS])} repetitions in turn")
    titles = (
        "What",
        "ms a step",
        "Lowest",
        "Highest",
        "Ours is",
        "CPU ms a step",
        "Ours is",
        "Losses differ by at most",
    )
    for number, title in enumerate(titles):
        table.add_column(title, justify="right" if number else "left")
    for who, runs in found.items():
        clock, cpu = (_medians(runs, what, size) for what in ("seconds", "cpu"))
        ours_clock, ours_cpu = (statistics.median(_medians(found[OURS], what, size)) for what in ("seconds", "cpu"))
        apart = max(float(np.abs(np.array(run["losses"]) - reference).max()) for run in runs)
        times = [f"{value * 1000:,.2f}" for value in (statistics.median(clock), min(clock), max(clock))]
        table.add_row(
            who,
            *times,
            f"{statistics.median(clock) / ours_clock:.2f}x",
            f"{statistics.median(cpu) * 1000:,.2f}",
            f"{statistics.median(cpu) / ours_cpu:.2f}x",
            f"{apart:.1e}",
        )
    Console(width=140).print(table)


def _medians(runs: list[dict[str, list[float]]], what: str, size: Size) -> list[float]:
    """The middle step of each repetition, after the warm-up."""
    return [statistics.median(run[what][size.warm_up :]) for run in runs]


if __name__ == "__main__":
    if sys.argv[1:2] == [_MEASURE]:
        end_with(partial(_measure_here, sys.argv[2], Path(sys.argv[3])))
    else:
        main()
