"""The bundled tiny model and the bundled benchmarks, for the tests of fine-tuning."""

import json
from pathlib import Path
from typing import Any

from components.common import storage
from components.common.manifest import Manifest
from components.common.shards import write_shard
from components.download.benchmarks import download_benchmarks
from components.download.sample.tiny_llama import write_tiny_llama
from components.download.settings import DownloadSettings
from components.train.settings import FinetuneSettings


def tiny_finetune(**changes: Any) -> FinetuneSettings:
    """Windows of 256 tokens in fp32 on one thread: all of the sample's examples fit."""
    values: dict[str, Any] = {
        "context_length": 256,
        "global_batch_size": 8,
        "micro_batch_size": 4,
        "learning_rate": 3e-3,
        "precision": "fp32",
        "device": "cpu",
        "threads_per_process": 1,
        "log_every_steps": 1,
        "peak_tflops": 0.1,
    }
    return FinetuneSettings(**(values | changes))


def sample_model(folder: Path) -> Manifest:
    """The bundled tiny LLaMA."""
    write_tiny_llama(folder)
    extra = {"model_uri": storage.to_uri(folder)}
    return Manifest(kind="model", fingerprint="tiny", inputs={}, settings={}, shards=[], totals={}, extra=extra)


def sample_benchmarks(root: Path, place: str = "sample") -> Manifest:
    """The bundled benchmarks, or those of a folder, as the download leaves them."""
    return download_benchmarks(DownloadSettings(benchmarks=place), storage.to_uri(root))


def benchmarks_of(root: Path, **splits: list[dict[str, Any]]) -> Manifest:
    """Benchmarks of the given questions; `medqa_train` is the split `medqa-train`."""
    shards = [
        write_shard(
            storage.to_uri(root),
            name.replace("_", "-"),
            {".jsonl": "".join(f"{json.dumps(question)}\n" for question in questions).encode()},
            len(questions),
        )
        for name, questions in splits.items()
    ]
    return Manifest(kind="benchmarks", fingerprint="q0", inputs={}, settings={}, shards=shards, totals={}, extra={})


def choice(identifier: str, wording: str = "", **changes: Any) -> dict[str, Any]:
    """A question with two options."""
    values = {"id": identifier, "question": wording or f"Which one is {identifier}?", "answer": "B"}
    return values | {"context": "", "options": {"A": "this", "B": "that"}, "subject": ""} | changes
