"""What a run leaves behind: a line per step, the exported model, and its totals."""

import math
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from components.common import storage
from components.train.checkpoints.history import RECORDED, History, to_json_lines
from components.train.data.batches import StepBatch
from components.train.distributed import Layout
from components.train.launching.job import TrainJob, TrainResult
from components.train.measuring.meter import Meter
from components.train.modelling.export import export_model


def step_record(step: int, metrics: dict[str, float], batch: StepBatch, accepted: bool) -> dict[str, Any]:
    """A step's line in `losses.jsonl`; a number that is none is null."""
    kept = {name: _number(metrics[name]) for name in RECORDED if name in metrics}
    record = {"step": step, **kept, "tokens": batch.tokens, "padding": batch.padding}
    return record if accepted else record | {"skipped": True}


def finish(job: TrainJob, layout: Layout, model: PreTrainedModel, base: Path, history: History, meter: Meter) -> None:
    """Export the model and write the result, which marks the run as finished; every process must call this."""
    model_uri = storage.join(job.output_uri, "model")
    base_name = None if job.base_model_uri.startswith(storage.FILE_SCHEME) else job.base_model_uri
    files = export_model(model, base, model_uri, job.scratch_folder, job.settings, layout, base_name)
    if not layout.is_first:
        return
    storage.write(storage.join(job.output_uri, "losses.jsonl"), to_json_lines(history).encode())
    result = TrainResult(model_uri=model_uri, files=files, totals=_totals(job, layout, model, history, meter))
    storage.write(storage.join(job.output_uri, "result.json"), result.model_dump_json(indent=1).encode())


def _totals(
    job: TrainJob, layout: Layout, model: PreTrainedModel, history: History, meter: Meter
) -> dict[str, int | float]:
    tokens = sum(record["tokens"] for record in history)
    tokens_per_second = tokens / sum(record["seconds"] for record in history)
    taken = [record for record in history if not record.get("skipped")]
    held_out = [record["validation_loss"] for record in history if record.get("validation_loss") is not None]
    totals: dict[str, int | float] = {
        "steps": len(history),
        "skipped_steps": len(history) - len(taken),
        "epochs": job.settings.epochs,
        "documents": sum(shard.documents for shard in job.shards),
        "tokens": tokens,
        "padding_tokens": sum(record["padding"] for record in history),
        "parameters": model.num_parameters(),
        "trained_parameters": model.num_parameters(only_trainable=True),
        "mean_tokens_per_second": tokens_per_second,
        "processes": layout.world,
    }
    if (mfu := meter.mfu(tokens_per_second)) is not None:
        totals["mean_mfu"] = mfu
    if taken:
        totals["final_loss"] = taken[-1]["loss"]
    if held_out:
        totals["final_validation_loss"] = held_out[-1]
    return totals


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
