"""What runs in every worker process: `torchrun -m components.train.trainer --job job.json`."""

import argparse
import contextlib
import logging
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from transformers import PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from components.common import logs, storage, tracking
from components.common.errors import TrainingError
from components.train.batches import StepBatch, step_batch
from components.train.checkpoint import Checkpoints, History, to_json_lines
from components.train.corpus import Corpus, fetch_shards, local_files
from components.train.distributed import Layout, start_processes
from components.train.export import export_model
from components.train.job import TrainJob, TrainResult
from components.train.metrics import Meter, MetricBuffer, describe, flops_per_token, peak_flops
from components.train.model import check_fits, load_model, window_loss
from components.train.optimiser import build_optimiser, limit_gradient_norm, set_learning_rate
from components.train.process import STOPPED_EXIT_CODE, StopSignal, die_with_parent, failure_recorded
from components.train.schedule import Plan
from components.train.settings import TrainSettings
from components.train.windows import WindowSampler

log = logging.getLogger(__name__)


def train(job: TrainJob, layout: Layout, stop: StopSignal) -> None:
    """Train from the newest checkpoint, or from the start, to the exported model.

    Raises:
        InputError: The corpus or the base model cannot be used.
        TrainingError: The loss is no longer a number.
        SystemExit: SIGTERM came; the state is saved, the exit code is 143.
    """
    settings = job.settings
    base = fetch_base_model(job, layout)
    corpus = open_corpus(job, layout)
    model = load_model(base, settings, layout)
    optimiser = build_optimiser(model, settings)
    sampler = WindowSampler(corpus, settings.context_length, settings.padding_token_id, settings.seed)
    plan = Plan(len(corpus), settings)
    checkpoints = Checkpoints(storage.join(job.output_uri, "checkpoints"), job.scratch_folder, settings, layout)
    history = checkpoints.resume(model, optimiser)
    log.info("Training from step %d to %d on %d documents", len(history), plan.steps, len(corpus))

    with metric_buffer(layout) as buffer:
        meter = build_meter(model, settings, layout)
        for step in range(len(history), plan.steps):
            batch = step_batch(plan, sampler, step, layout.rank, layout.world)
            rate = plan.learning_rate(step)
            loss_sum, norm = train_step(model, optimiser, batch, rate, settings.max_gradient_norm, layout)
            loss, due, stopping = agree(loss_sum / batch.targets, checkpoints.due(step + 1), stop.received, layout)
            if not math.isfinite(loss):
                raise TrainingError(f"The loss is {loss} at step {step + 1}; lower learning_rate or clip gradients.")

            metrics = meter.measure(loss, norm, rate, batch.tokens)
            history.append(step_record(step + 1, metrics, batch))
            buffer.add(step + 1, {**metrics, "epoch": (step + 1) / plan.steps_per_epoch})
            if len(history) == 1 or len(history) % settings.log_every_steps == 0 or len(history) == plan.steps:
                log.info(describe(step + 1, plan.steps, plan.steps_per_epoch, metrics))

            if due or stopping or len(history) == plan.steps:
                checkpoints.save(model, optimiser, history)
            if stopping and len(history) < plan.steps:
                checkpoints.finish()
                log.warning("Stopped by SIGTERM after step %d; a new run goes on from there.", step + 1)
                raise SystemExit(STOPPED_EXIT_CODE)
        checkpoints.finish()
    finish(job, layout, model, base, history)


def train_step(
    model: PreTrainedModel,
    optimiser: torch.optim.Optimizer,
    batch: StepBatch,
    rate: float,
    gradient_limit: float | None,
    layout: Layout,
) -> tuple[torch.Tensor, float]:
    """One optimiser step.

    Returns:
        The sum of this process's losses (a tensor: reading it would wait for the device) and the gradient norm.
    """
    loss_sum = torch.zeros((), dtype=torch.float64, device=layout.device)
    for tokens, targets in batch.micro_batches:
        loss = window_loss(model, to_device(tokens, layout), to_device(targets, layout))
        # Sharded gradients are averaged over processes; times their number, they add up to the global batch's mean.
        (loss * layout.world / batch.targets).backward()
        loss_sum += loss.detach()
    norm = limit_gradient_norm(model, gradient_limit)
    set_learning_rate(optimiser, rate)
    optimiser.step()
    optimiser.zero_grad()
    return loss_sum, norm.item()


def agree(loss: torch.Tensor, due: bool, stopping: bool, layout: Layout) -> tuple[float, bool, bool]:
    """One exchange per step: the mean loss of all processes, and whether to checkpoint and to stop.

    The first process's clock decides on checkpoints; a signal to any process stops all after the same step.
    """
    own = [float(due and layout.is_first), float(stopping)]
    values = torch.cat([loss.reshape(1), torch.tensor(own, dtype=loss.dtype, device=loss.device)])
    dist.all_reduce(values)
    total, any_due, any_stopping = values.tolist()
    return total, any_due > 0, any_stopping > 0


def step_record(step: int, metrics: dict[str, float], batch: StepBatch) -> dict[str, Any]:
    """A step's line in `losses.jsonl`."""
    kept = {name: metrics[name] for name in ("loss", "gradient_norm", "learning_rate", "seconds")}
    return {"step": step, **kept, "tokens": batch.tokens, "padding": batch.padding}


def to_device(tensor: torch.Tensor, layout: Layout) -> torch.Tensor:
    """Copy to the GPU while it computes; on CPU the tensor itself."""
    if layout.device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(layout.device, non_blocking=True)


def fetch_base_model(job: TrainJob, layout: Layout) -> Path:
    """Local folder of the base model, fetched once per node."""
    if job.base_model_uri.startswith(storage.FILE_SCHEME):
        folder = storage.local_path(job.base_model_uri)
    else:
        folder = job.scratch_folder / "base"
        if layout.is_first_on_node:
            storage.download_folder(job.base_model_uri, folder)
        layout.wait_for_all()
    settings = job.settings
    check_fits(folder, settings.context_length, job.vocabulary_size, settings.padding_token_id)
    return folder


def open_corpus(job: TrainJob, layout: Layout) -> Corpus:
    """The training documents, fetched and checked once per node."""
    folder = job.scratch_folder / "corpus"
    if layout.is_first_on_node:
        fetch_shards(job.shards, job.token_dtype, job.vocabulary_size, folder)
    layout.wait_for_all()
    return Corpus(local_files(job.shards, folder), job.token_dtype)


@contextlib.contextmanager
def metric_buffer(layout: Layout) -> Iterator[MetricBuffer]:
    """The way to MLflow: the first process's run, nothing in the others."""
    with tracking.worker_run() if layout.is_first else contextlib.nullcontext(tracking.Run(None, "")) as run:
        buffer = MetricBuffer(run)
        try:
            yield buffer
        finally:
            buffer.close()


def build_meter(model: PreTrainedModel, settings: TrainSettings, layout: Layout) -> Meter:
    """The meter of throughput for this model on these devices."""
    flops = flops_per_token(model.config, model.num_parameters(), settings.context_length)
    return Meter(flops, peak_flops(settings, layout.device), layout.world, layout.device)


def finish(job: TrainJob, layout: Layout, model: PreTrainedModel, base: Path, history: History) -> None:
    """Export the model and write the result, which marks the run as finished."""
    model_uri = storage.join(job.output_uri, "model")
    files = export_model(model, base, model_uri, job.scratch_folder, job.settings, layout)
    if not layout.is_first:
        return
    storage.write(storage.join(job.output_uri, "losses.jsonl"), to_json_lines(history).encode())
    tokens = sum(record["tokens"] for record in history)
    totals = {
        "steps": len(history),
        "epochs": job.settings.epochs,
        "documents": sum(shard.documents for shard in job.shards),
        "tokens": tokens,
        "padding_tokens": sum(record["padding"] for record in history),
        "parameters": model.num_parameters(),
        "final_loss": history[-1]["loss"],
        "mean_tokens_per_second": tokens / sum(record["seconds"] for record in history),
        "processes": layout.world,
    }
    result = TrainResult(model_uri=model_uri, files=files, totals=totals)
    storage.write(storage.join(job.output_uri, "result.json"), result.model_dump_json(indent=1).encode())


def main() -> None:
    """Read the job, join the other processes, train."""
    parser = argparse.ArgumentParser(description="Train a model on a corpus: one process of torchrun.")
    parser.add_argument("--job", type=Path, required=True, help="JSON file of a TrainJob")
    rank = int(os.environ.get("RANK", "0"))
    logs.configure()
    disable_progress_bar()
    if rank > 0:
        logging.getLogger().setLevel(logging.WARNING)
    with failure_recorded(rank):
        stop = StopSignal()
        die_with_parent()
        job = TrainJob.model_validate_json(parser.parse_args().job.read_text())
        layout = start_processes(job.settings)
        train(job, layout, stop)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
