"""A tiny model and a tiny corpus, for the tests of training."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import WordLevel

from components.common import storage
from components.common.fingerprint import sha256_bytes
from components.common.manifest import Manifest, Shard
from components.common.shards import write_shard
from components.train.launching.job import TokenShard, TokenSource, TrainJob
from components.train.settings import TrainSettings

if TYPE_CHECKING:
    from components.train.data.corpus import Corpus
    from components.train.distributed import Layout
    from components.train.launching.process import StopSignal

VOCABULARY = 64
END = 2
TOKENIZER = Tokenizer(WordLevel({str(token): token for token in range(VOCABULARY)})).to_str()
CONTEXT = 16


def tiny_settings(**changes: Any) -> TrainSettings:
    """Few windows, few steps, fp32 on one thread: the same bits on every machine run."""
    values: dict[str, Any] = {
        "context_length": CONTEXT,
        "global_batch_size": 8,
        "micro_batch_size": 4,
        "epochs": 2,
        "learning_rate": 1e-2,
        "precision": "fp32",
        "device": "cpu",
        "threads_per_process": 1,
        "checkpoint_every_steps": 2,
        "checkpoint_minutes": None,
        "peak_tflops": 0.1,
        "log_every_steps": 1,
    }
    return TrainSettings(**(values | changes))


def documents(count: int, seed: int = 0, shortest: int = 5, longest: int = 60) -> list[np.ndarray]:
    """Random documents in which each token follows from the one before, so that there is something to learn."""
    random = np.random.default_rng(seed)
    lengths = random.integers(shortest, longest, count)
    return [(random.integers(3, 40) + np.arange(length)) % (VOCABULARY - 3) + 3 for length in lengths]


def write_corpus(uri: str, shards: list[list[np.ndarray]]) -> Manifest:
    """Store token shards as preprocessing does."""
    stored = []
    for number, texts in enumerate(shards):
        tokens = np.concatenate(texts).astype("<u2").tobytes()
        offsets = np.cumsum([0, *(len(text) for text in texts)]).astype("<i8").tobytes()
        stats = {"split": "train", "documents": len(texts), "tokens": len(tokens) // 2}
        files: dict[str, Any] = {".bin": tokens, ".idx": offsets}
        stored.append(write_shard(uri, f"train-{number:05d}", files, len(texts), stats))
    return Manifest(
        kind="corpus",
        fingerprint="c0",
        inputs={},
        settings={},
        shards=stored,
        totals={},
        extra={
            "dtype": "uint16",
            "vocab_size": VOCABULARY,
            "tokenizer_sha256": sha256_bytes(TOKENIZER.encode()),
            "eos_id": None,
        },
    )


def open_corpus(manifest: Manifest) -> "Corpus":
    """The documents of stored shards."""
    from components.train.data.corpus import Corpus

    return Corpus([storage.local_path(shard.uri) for shard in manifest.shards], manifest.extra["dtype"])


def write_model(folder: Path, **changes: Any) -> Manifest:
    """Store a random LLaMA of two layers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    values: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    LlamaForCausalLM(LlamaConfig(**(values | changes))).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(TOKENIZER)
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": str(END)}))
    extra = {"model_uri": f"file://{folder}"}
    return Manifest(kind="model", fingerprint="b0", inputs={}, settings={}, shards=[], totals={}, extra=extra)


def make_job(corpus: Manifest, base: Manifest, settings: TrainSettings, output: Path) -> TrainJob:
    """The job that the stage would make of these."""
    return TrainJob(
        fingerprint="f0",
        base_model_uri=base.extra["model_uri"],
        sources=[TokenSource(name="corpus", shards=[token_shard(shard) for shard in corpus.shards])],
        token_dtype="uint16",
        vocabulary_size=VOCABULARY,
        end_token_id=END if settings.end_token_id is None else settings.end_token_id,
        padding_token_id=END if settings.padding_token_id is None else settings.padding_token_id,
        output_uri=f"file://{output}",
        scratch_folder=output / "scratch",
        settings=settings,
    )


def token_shard(shard: Shard) -> TokenShard:
    """What a job says of a shard of the manifest."""
    return TokenShard(
        name=shard.name,
        uri=shard.uri,
        documents=shard.stats["documents"],
        tokens=shard.stats["tokens"],
        sha256=shard.sha256,
        index_sha256=shard.stats.get("index_sha256", ""),
    )


def losses(output: Path) -> list[dict[str, Any]]:
    """What a run measured, without the clock."""
    records = [json.loads(line) for line in (output / "losses.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


@contextlib.contextmanager
def alone() -> "Iterator[Layout]":
    """This process as the only one of a run: saves the start of another."""
    import torch
    import torch.distributed as dist

    from components.train.distributed import start_processes

    threads = torch.get_num_threads()
    try:
        yield start_processes(tiny_settings())
    finally:
        dist.destroy_process_group()
        torch.set_num_threads(threads)


def train_here(job: TrainJob, layout: "Layout", stop_at_step: int | None = None) -> None:
    """Train in this process; SIGTERM seems to come while a given step runs."""
    from components.train.trainer import train

    train(job, layout, _stop(stop_at_step))


def _stop(at_step: int | None) -> "StopSignal":
    from components.train.launching.process import StopSignal

    class Stop(StopSignal):
        def __init__(self) -> None:
            self.asked = 0

        @property
        def received(self) -> bool:  # type: ignore[override]
            self.asked += 1  # the loop asks once per step
            return self.asked == at_step

    return Stop()
