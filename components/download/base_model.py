"""The base model: the bundled tiny one, a folder, an S3 prefix or a Hugging Face id; safetensors only."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint, sha256_file
from components.common.manifest import Manifest, Shard
from components.download.settings import DownloadSettings

FORMAT_VERSION = 1
REQUIRED = ("config.json", "tokenizer.json")
KEPT_SUFFIXES = (".json", ".safetensors", ".model", ".txt", ".jinja")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")


def download_base_model(settings: DownloadSettings, output_root: str) -> Manifest:
    """Put the base model's files into the store, named by their hashes.

    Args:
        settings: The recipe's download section.
        output_root: The store's root URI.

    Returns:
        Manifest of kind ``model``; ``extra["model_uri"]`` is the folder with the files.

    Raises:
        InputError: The model is not there, has no safetensors weights, or lacks its configuration or tokenizer.
    """
    with _folder(settings) as folder:
        files = _kept_files(folder, settings.base_model)
        hashes = {path.name: sha256_file(path) for path in files}
        name = fingerprint("base-model", FORMAT_VERSION, hashes)
        model_uri = storage.join(output_root, "models", "base", name, "model")
        shards = [_store(path, model_uri, hashes[path.name]) for path in files]
    return Manifest(
        kind="model",
        fingerprint=name,
        inputs=hashes,
        settings=settings.model_dump(include={"base_model", "base_model_revision", "base_model_seed"}),
        shards=shards,
        totals={"files": len(shards), "weight_bytes": sum(s.bytes for s in shards if s.uri.endswith(".safetensors"))},
        extra={"model_uri": model_uri, "name": settings.base_model},
    )


def _store(path: Path, model_uri: str, digest: str) -> Shard:
    uri = storage.join(model_uri, path.name)
    if not storage.exists(uri):
        storage.upload(path, uri)
    return Shard(name=path.name, uri=uri, rows=1, bytes=path.stat().st_size, sha256=digest)


@contextlib.contextmanager
def _folder(settings: DownloadSettings) -> Iterator[Path]:
    place = settings.base_model
    if place == "sample":
        from components.download.sample.tiny_llama import write_tiny_llama

        with tempfile.TemporaryDirectory(prefix="pmc-") as scratch:
            write_tiny_llama(Path(scratch), seed=settings.base_model_seed)
            yield Path(scratch)
    elif place.startswith(storage.S3_SCHEME) or Path(place.removeprefix(storage.FILE_SCHEME)).is_dir():
        with storage.local_copy(storage.to_uri(place)) as folder:
            yield folder
    else:
        yield _from_hub(place, settings.base_model_revision)


def _from_hub(model_id: str, revision: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        patterns = [f"*{suffix}" for suffix in KEPT_SUFFIXES]
        return Path(snapshot_download(model_id, revision=revision, allow_patterns=patterns))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            f"The base model {model_id!r} (revision {revision}) is no folder here and cannot be fetched from the "
            f"Hugging Face hub ({str(error).splitlines()[0]}); check download.base_model or give a folder."
        ) from error


def _kept_files(folder: Path, place: str) -> list[Path]:
    names = sorted(path for path in folder.iterdir() if path.is_file())
    weights = [path for path in names if path.suffix == ".safetensors"]
    if not weights:
        pickles = [path.name for path in names if path.suffix in PICKLE_SUFFIXES]
        found = f"{pickles[0]} is a pickle, which can run code" if pickles else "it has no weights at all"
        raise InputError(f"The base model {place} has no .safetensors weights: {found}; convert it to safetensors.")
    for required in REQUIRED:
        if not (folder / required).is_file():
            raise InputError(f"The base model {place} has no {required}; a complete Hugging Face folder is due.")
    return [path for path in names if path.suffix in KEPT_SUFFIXES]
