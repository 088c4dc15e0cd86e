"""The train stage: from a corpus and a base model to a trained model in the store."""

import logging
import tempfile
from pathlib import Path
from typing import Any

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest, Shard
from components.train.finished import finished_run
from components.train.launching.job import TokenSource, TrainJob, TrainResult
from components.train.launching.launch import launch
from components.train.settings import TrainSettings
from components.train.sources import corpora, token_shards, token_sources
from components.train.tokenizer import load_tokenizer, tokenizer_sha256

log = logging.getLogger(__name__)

FORMAT_VERSION = 2  # raise it when the same inputs and settings give another model


def train(corpus: Manifest, base_model: Manifest, settings: TrainSettings, output_root: str) -> Manifest:
    """Train the base model on the corpus's training split; return at once if that is done already.

    Args:
        corpus: Manifest of kind `corpus`.
        base_model: Manifest of kind `model`, with `model_uri` in its extra part.
        settings: The recipe's train section.
        output_root: Everything goes to `<output_root>/models/trained/<fingerprint>/`.

    Returns:
        Manifest of kind `model`: the files of the Hugging Face folder, and the run's totals.

    Raises:
        InputError: Corpus or base model do not fit together or cannot be used.
        TrainingError: The workers failed.
        StorageError: The store cannot be read or written.
    """
    _check_inputs(corpus, base_model, settings)
    by_name = corpora(corpus, settings)
    inputs = {name: manifest.fingerprint for name, manifest in by_name.items()} | {"corpus": corpus.fingerprint}
    name = fingerprint(inputs, base_model.fingerprint, settings.fingerprint_part(), FORMAT_VERSION)
    output_uri = storage.join(output_root, "models", "trained", name)
    manifest_uri = storage.join(output_uri, "manifest.json")
    if finished := finished_run(manifest_uri):
        log.info("Training is done already: %s", output_uri)
        return finished
    with tempfile.TemporaryDirectory(prefix="train-scratch-") as scratch:
        sources = token_sources(by_name, settings)
        launch(_job(name, corpus, sources, base_model, settings, output_uri, Path(scratch)))
    result = TrainResult.model_validate_json(storage.read(storage.join(output_uri, "result.json")))
    manifest = _manifest(name, inputs, base_model, settings, output_uri, result)
    manifest.save_uri(manifest_uri)
    return manifest


def _check_inputs(corpus: Manifest, base_model: Manifest, settings: TrainSettings) -> None:
    if corpus.kind != "corpus":
        raise InputError(
            f"Training needs a corpus manifest, but manifest {corpus.fingerprint} is of kind {corpus.kind}."
        )
    if base_model.kind != "model" or "model_uri" not in base_model.extra:
        raise InputError(
            f"Training needs a model manifest, but manifest {base_model.fingerprint} is of kind {base_model.kind}."
        )
    model_uri = base_model.extra["model_uri"]
    if tokenizer_sha256(model_uri) != corpus.extra["tokenizer_sha256"]:
        raise InputError(
            f"Corpus {corpus.fingerprint} was tokenised with another tokenizer.json than that of {model_uri}: train "
            "the model whose tokenizer made the corpus, or preprocess with this one."
        )
    if settings.sampling == "packed" and corpus.extra.get("eos_id") is not None:
        raise InputError(
            f"Every document of corpus {corpus.fingerprint} ends with an end token already, and packed sampling joins "
            "documents with one; set preprocess.tokenize.add_eos to false, or train.sampling to window."
        )


def _job(
    name: str,
    corpus: Manifest,
    sources: list[TokenSource],
    base_model: Manifest,
    settings: TrainSettings,
    output_uri: str,
    scratch: Path,
) -> TrainJob:
    end = settings.end_token_id
    if end is None:
        end = load_tokenizer(base_model.extra["model_uri"]).end
    return TrainJob(
        fingerprint=name,
        base_model_uri=base_model.extra["model_uri"],
        sources=sources,
        validation=token_shards(corpus, "validation"),
        token_dtype=corpus.extra["dtype"],
        vocabulary_size=corpus.extra["vocab_size"],
        end_token_id=end,
        padding_token_id=end if settings.padding_token_id is None else settings.padding_token_id,
        output_uri=output_uri,
        scratch_folder=scratch,
        settings=settings,
    )


def _manifest(
    name: str,
    inputs: dict[str, str],
    base_model: Manifest,
    settings: TrainSettings,
    output_uri: str,
    result: TrainResult,
) -> Manifest:
    extra: dict[str, Any] = {
        "model_uri": result.model_uri,
        "losses_uri": storage.join(output_uri, "losses.jsonl"),
        "base_model_uri": base_model.extra["model_uri"],
        "base_model_fingerprint": base_model.fingerprint,
        "corpus_fingerprint": inputs["corpus"],
    }
    return Manifest(
        kind="model",
        fingerprint=name,
        inputs=inputs | {"base_model": base_model.fingerprint},
        settings=settings.model_dump(mode="json"),
        shards=[Shard(rows=1, stats={}, **file) for file in result.files],
        totals=result.totals,
        extra=extra,
    )
