"""The fine-tuning stage: from a model and questions of benchmarks, or instructions, to a model in the store."""

import logging
import tempfile
from pathlib import Path
from typing import Any

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest, Shard
from components.train.finetuning.examples import text_versions, write_examples
from components.train.finetuning.selection import INSTRUCTIONS
from components.train.finished import finished_run
from components.train.launching.job import TokenShard, TokenSource, TrainJob, TrainResult
from components.train.launching.launch import launch
from components.train.settings import FinetuneSettings
from components.train.tokenizer import load_tokenizer

log = logging.getLogger(__name__)

FORMAT_VERSION = 1  # raise it when the same inputs and settings give another model


def finetune(base: Manifest, benchmarks: Manifest, settings: FinetuneSettings, output_root: str) -> Manifest:
    """Fine-tune a model on questions of benchmarks or on instructions; return at once if that is done already.

    Args:
        base: Manifest of kind `model`, with `model_uri` in its extra part: the base model or a trained candidate.
        benchmarks: Manifest of kind `benchmarks`; for the objective `instruct` with an instruction set.
        settings: The recipe's finetune section.
        output_root: The model goes to `<output_root>/models/finetuned/<fingerprint>/`, the examples, which models with
            one tokenizer share, to `<output_root>/examples/<fingerprint>/`.

    Returns:
        Manifest of kind `model`: the files of the Hugging Face folder, of the adapter, or of both, and the run's
        totals. In its extra part are `model_uri` (a whole model: fully trained or merged), `adapter_uri` (LoRA), and
        the base that the adapter belongs to (`base_model_uri`, `base_model_fingerprint`).

    Raises:
        InputError: Model or benchmarks cannot be used, or do not fit the settings.
        TrainingError: The workers failed.
        StorageError: The store cannot be read or written.
    """
    _check_inputs(base, benchmarks)
    versions = [FORMAT_VERSION, *text_versions(benchmarks, settings)]
    name = fingerprint(base.fingerprint, benchmarks.fingerprint, settings.fingerprint_part(), versions)
    output_uri = storage.join(output_root, "models", "finetuned", name)
    manifest_uri = storage.join(output_uri, "manifest.json")
    if finished := finished_run(manifest_uri):
        log.info("Fine-tuning is done already: %s", output_uri)
        return finished
    examples = write_examples(benchmarks, base.extra["model_uri"], settings, output_root)
    with tempfile.TemporaryDirectory(prefix="finetune-scratch-") as scratch:
        launch(_job(name, examples, base, settings, output_uri, Path(scratch)))
    result = TrainResult.model_validate_json(storage.read(storage.join(output_uri, "result.json")))
    manifest = _manifest(name, base, benchmarks, settings, examples, output_uri, result)
    manifest.save_uri(manifest_uri)
    return manifest


def _check_inputs(base: Manifest, benchmarks: Manifest) -> None:
    if benchmarks.kind != "benchmarks":
        raise InputError(
            f"Fine-tuning needs a benchmarks manifest, but manifest {benchmarks.fingerprint} is of kind "
            f"{benchmarks.kind}."
        )
    if base.kind != "model":
        raise InputError(f"Fine-tuning needs a model manifest, but manifest {base.fingerprint} is of kind {base.kind}.")
    if "model_uri" not in base.extra:
        raise InputError(
            f"Model {base.fingerprint} is an adapter without a model; set finetune.merge_adapter where it is made."
        )


def _job(
    name: str, examples: Shard, base: Manifest, settings: FinetuneSettings, output_uri: str, scratch: Path
) -> TrainJob:
    shard = TokenShard(
        name=examples.name,
        uri=examples.uri,
        documents=2 * examples.rows,  # a prompt and an answer each
        tokens=examples.stats["tokens"],
        sha256=examples.sha256,
        index_sha256=examples.stats["index_sha256"],
    )
    end = load_tokenizer(base.extra["model_uri"]).end
    return TrainJob(
        fingerprint=name,
        base_model_uri=base.extra["model_uri"],
        sources=[TokenSource(name="examples", shards=[shard])],
        token_dtype=examples.stats["dtype"],
        vocabulary_size=examples.stats["vocabulary_size"],
        end_token_id=end,
        padding_token_id=end if settings.padding_token_id is None else settings.padding_token_id,
        output_uri=output_uri,
        scratch_folder=scratch,
        settings=settings,
    )


def _manifest(
    name: str,
    base: Manifest,
    benchmarks: Manifest,
    settings: FinetuneSettings,
    examples: Shard,
    output_uri: str,
    result: TrainResult,
) -> Manifest:
    extra: dict[str, Any] = {
        **_folders(result.files),
        "losses_uri": storage.join(output_uri, "losses.jsonl"),
        "examples_uri": examples.uri,
        "base_model_uri": base.extra["model_uri"],
        "base_model_fingerprint": base.fingerprint,
        "benchmarks_fingerprint": benchmarks.fingerprint,
    }
    totals = {key: value for key, value in result.totals.items() if key != "documents"}
    counts = {
        name if name == INSTRUCTIONS else f"questions_{name}": count for name, count in examples.stats["counts"].items()
    }
    return Manifest(
        kind="model",
        fingerprint=name,
        inputs={"base_model": base.fingerprint, "benchmarks": benchmarks.fingerprint},
        settings=settings.model_dump(mode="json"),
        shards=[Shard(rows=1, stats={}, **file) for file in result.files],
        totals=totals | counts | {"examples": examples.rows, "shortened_examples": examples.stats["shortened"]},
        dropped=examples.stats["dropped"],
        extra=extra,
    )


def _folders(files: list[dict[str, Any]]) -> dict[str, str]:
    """Where the whole model and the adapter lie: each folder is known by its configuration."""
    by_name = {"config.json": "model_uri", "adapter_config.json": "adapter_uri"}
    places = [file["uri"].rpartition("/") for file in files]
    return {by_name[name]: folder for folder, _, name in places if name in by_name}
