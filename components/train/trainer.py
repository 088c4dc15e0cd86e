"""What runs in every worker process: `torchrun -m components.train.trainer --job job.json`."""

import argparse
import logging
import os

import torch.distributed as dist
from transformers.utils.logging import disable_progress_bar

from components.common import logs, storage
from components.train.base_model import fetch_base_model
from components.train.checkpoints.checkpoints import Checkpoints
from components.train.checkpoints.randomness import seed_step
from components.train.data.open import open_sampler
from components.train.data.prefetch import Prefetcher
from components.train.data.schedule import Plan
from components.train.data.validation import validation_batches
from components.train.distributed import Layout, start_processes
from components.train.launching.job import TrainJob
from components.train.launching.process import (
    STOPPED_EXIT_CODE,
    StopSignal,
    die_with_parent,
    end_with,
    failure_recorded,
)
from components.train.loss_guard import LossGuard
from components.train.measuring.buffer import metric_buffer
from components.train.measuring.meter import build_meter, describe, held_out
from components.train.modelling.load import load_model
from components.train.modelling.micro_batch import find_micro_batch
from components.train.modelling.optimiser import build_optimiser
from components.train.result import finish, step_record
from components.train.step import agree, compute_gradients, held_out_loss, update

log = logging.getLogger(__name__)


def train(job: TrainJob, layout: Layout, stop: StopSignal) -> None:
    """Train from the newest checkpoint, or from the start, to the exported model.

    Raises:
        InputError: The corpus or the base model cannot be used.
        TrainingError: The loss is no longer a number, or jumps, and the recipe says stop.
        StorageError: The store cannot be read, or checkpoints cannot be written for long.
        SystemExit: SIGTERM came; the state is saved, the exit code is 143.
    """
    settings = job.settings
    base = fetch_base_model(job, layout)
    sampler = open_sampler(job, layout)
    plan = Plan(sampler.windows_per_epoch, settings)
    model = load_model(base, settings, layout)
    optimiser = build_optimiser(model, settings)
    size = find_micro_batch(model, optimiser, settings, settings.context_length, layout)
    held_out_batches = validation_batches(job, size, layout)

    with (
        Checkpoints(storage.join(job.output_uri, "checkpoints"), settings, layout) as checkpoints,
        metric_buffer(layout) as buffer,
    ):
        history = checkpoints.resume(model, optimiser)
        buffer.replay(history)
        log.info("Training from step %d to %d on %d windows an epoch", len(history), plan.steps, plan.windows)
        guard = LossGuard(settings, history)
        meter = build_meter(model, settings, layout, plan, history)
        with Prefetcher(
            plan, sampler, len(history), size, layout.rank, layout.world, layout.device.type == "cuda"
        ) as batches:
            for step, batch in enumerate(batches, start=len(history)):
                if batch.waits:
                    layout.wait_for_all()
                seed_step(settings.seed, step, layout.rank)
                loss_sum, norm = compute_gradients(model, batch, settings, layout)
                due = checkpoints.due(step + 1)
                seen = agree(loss_sum / batch.targets, norm, due, stop.received, layout)
                accepted = guard.accepts(seen.loss, seen.gradient_norm, plan.describe(step))
                update(optimiser, plan.learning_rate(step), accepted)

                last, ends_epoch = step + 1 == plan.steps, plan.ends_epoch(step)
                metrics = meter.measure(
                    step + 1,
                    seen.loss,
                    seen.gradient_norm,
                    plan.learning_rate(step),
                    batch.tokens,
                    batches.waited_seconds,
                    guard.skipped,
                )
                if held_out_batches and plan.validates(step):
                    with meter.aside("validation_seconds", metrics):
                        metrics |= held_out(held_out_loss(model, held_out_batches, settings, layout))
                history.append(step_record(step + 1, metrics, batch, accepted))
                if seen.due or seen.stopping or last or (ends_epoch and settings.keep_epoch_checkpoints):
                    with meter.aside("checkpoint_stall_seconds", metrics):
                        checkpoints.save(model, optimiser, history, epoch_end=ends_epoch)
                buffer.add(step + 1, metrics)
                buffer.add_commits(checkpoints.commits())
                if step == 0 or (step + 1) % settings.log_every_steps == 0 or last:
                    log.info(describe(step + 1, plan.steps, plan.steps_per_epoch, metrics))

                if seen.stopping and not last:
                    checkpoints.finish()
                    buffer.add_commits(checkpoints.commits())
                    log.warning("Stopped by SIGTERM after step %d; a new run goes on from there.", step + 1)
                    raise SystemExit(STOPPED_EXIT_CODE)
        checkpoints.finish()
        buffer.add_commits(checkpoints.commits())
    finish(job, layout, model, base, history, meter)


def main() -> None:
    """Read the job, join the other processes, train."""
    parser = argparse.ArgumentParser(description="Train a model on a corpus: one process of torchrun.")
    parser.add_argument("--job", required=True, help="path or address of a TrainJob's JSON file")
    rank = int(os.environ.get("RANK", "0"))
    logs.configure()
    disable_progress_bar()
    if rank > 0:
        logging.getLogger().setLevel(logging.WARNING)
    with failure_recorded(rank):
        stop = StopSignal()
        die_with_parent()
        job = TrainJob.model_validate_json(storage.read(storage.to_uri(parser.parse_args().job)))
        layout = start_processes(job.settings)
        train(job, layout, stop)
    dist.destroy_process_group()


if __name__ == "__main__":
    end_with(main)
