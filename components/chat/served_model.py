"""A registered model, loaded to talk to, and what its registry says of it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from mlflow.entities.model_registry import ModelVersion
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from components.common import storage
from components.common.errors import InputError
from components.common.model_registry import find_version, from_source

_LONGEST = 131_072  # of a tokenizer that knows no limit, transformers says 1e30


@dataclass(frozen=True)
class ServedModel:
    """A model in memory.

    Attributes:
        name: Of the registered model, with its version, such as ``pmc-llama-7b/3``.
        aliases: Of the version, such as ``champion``.
        card: Its model card, in Markdown.
        network: Ready to answer.
        tokenizer: Its own.
        context_length: Tokens of a conversation and its answer together.
    """

    name: str
    aliases: tuple[str, ...]
    card: str
    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    context_length: int


@contextlib.contextmanager
def served_model(tracking_uri: str, wanted: str, device: str = "auto") -> Iterator[ServedModel]:
    """Load a registered model from the store; nothing is fetched from anywhere else.

    Args:
        tracking_uri: Address of MLflow.
        wanted: As :func:`find_version` takes it: ``name`` means its champion.
        device: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        InputError: There is no such version, its weights are gone or no safetensors, or there is no such device.
        PipelineError: MLflow does not answer.
        StorageError: The store cannot be read.
    """
    version = find_version(tracking_uri, wanted)
    place = _device(device)
    with _folder(version) as folder:
        network, tokenizer = _load(version, folder, place)
        limit = getattr(network.config, "max_position_embeddings", None) or _LONGEST
        yield ServedModel(
            name=f"{version.name}/{version.version}",
            aliases=tuple(sorted(version.aliases or ())),
            card=_card(folder) or version.description or "This version has no model card.",
            network=network,
            tokenizer=tokenizer,
            context_length=min(limit, tokenizer.model_max_length, _LONGEST),
        )


@contextlib.contextmanager
def _folder(version: ModelVersion) -> Iterator[Path]:
    with storage.local_copy(from_source(str(version.source))) as folder:
        yield folder


def _load(version: ModelVersion, folder: Path, place: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    dtype = torch.bfloat16 if place.type == "cuda" else torch.float32
    where = _weights(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=True, trust_remote_code=False)
        network = AutoModelForCausalLM.from_pretrained(
            where, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"Version {version.version} of {version.name} cannot be loaded from {version.source}: "
            f"{str(error).splitlines()[0]}"
        ) from error
    return network.to(place).eval(), tokenizer


def _weights(folder: Path) -> Path:
    """The folder with the weights: MLflow's own layout may have them one below."""
    found = [folder, *sorted(path for path in folder.iterdir() if path.is_dir())]
    return next((path for path in found if (path / "config.json").is_file()), folder)


def _card(folder: Path) -> str:
    path = folder / "README.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    # The front matter is for the hub's machines.
    return text.split("\n---\n", 1)[-1].strip() if text.startswith("---\n") else text


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device is {name} but this machine has no usable GPU; set device to auto or cpu.")
    return torch.device(name)
