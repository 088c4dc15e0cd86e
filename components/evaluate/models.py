"""Loads a model of the store for evaluation: a whole one, or a base model with an adapter."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Manifest

_ADAPTER_WEIGHTS, _ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"


@contextlib.contextmanager
def loaded_model(manifest: Manifest, device: str) -> Iterator[tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
    """Give the model, ready to answer, and its tokenizer; nothing is fetched from anywhere but the store.

    Args:
        manifest: Of kind ``model``: ``model_uri`` names a Hugging Face folder with safetensors weights, or
            ``adapter_uri`` an adapter and ``base_model_uri`` the model that it belongs to.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        InputError: The manifest names no usable model, or there is no such device.
        StorageError: A folder cannot be read.
    """
    place = _device(device)
    # bfloat16 is what the models are trained in; on a CPU it is slower than float32 and less exact.
    dtype = torch.bfloat16 if place.type == "cuda" else torch.float32
    uri = model_uri(manifest)
    with storage.local_copy(uri) as folder:
        _config(folder, uri)  # first, so that a folder that is no model at all is called so
        tokenizer = _tokenizer(folder, uri)
        try:
            model = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype
            )
        except (OSError, ValueError) as error:
            raise InputError(f"{uri} is no model that can be loaded: {str(error).splitlines()[0]}") from error
        _check_vocabulary(tokenizer, model, uri)
        if adapter := adapter_uri(manifest):
            model = _with_adapter(model, adapter)
        yield model.to(place).eval(), tokenizer


@contextlib.contextmanager
def loaded_tokenizer(manifest: Manifest) -> Iterator[tuple[PreTrainedTokenizerBase, PretrainedConfig, Path]]:
    """Give a model's tokenizer and configuration, and the folder they lie in, without its weights.

    Raises:
        InputError: The manifest names no usable model.
        StorageError: The folder cannot be read.
    """
    uri = model_uri(manifest)
    with storage.local_copy(uri) as folder:
        config = _config(folder, uri)
        yield _tokenizer(folder, uri), config, folder


def model_uri(manifest: Manifest) -> str:
    """Return the URI of a model manifest's Hugging Face folder: the base model's where there is only an adapter.

    Raises:
        InputError: The manifest is not one of a model.
    """
    uri = manifest.extra.get("base_model_uri" if adapter_uri(manifest) else "model_uri")
    if not isinstance(uri, str):
        raise InputError(f"The {manifest.kind} manifest {manifest.fingerprint} names no model folder (model_uri).")
    return uri


def adapter_uri(manifest: Manifest) -> str | None:
    """Return the URI of a model manifest's adapter, if it has to be added: a merged one is in the model already."""
    uri = manifest.extra.get("adapter_uri")
    return uri if isinstance(uri, str) and "model_uri" not in manifest.extra else None


def _with_adapter(model: PreTrainedModel, uri: str) -> PreTrainedModel:
    """Add an adapter to a model's weights, so that it answers as fast as any other."""
    # Imported here: whole models need no peft.
    from peft import PeftModel

    for name in (_ADAPTER_CONFIG, _ADAPTER_WEIGHTS):
        # Checked first: without safetensors peft would read a pickle.
        if not storage.exists(storage.join(uri, name)):
            raise InputError(f"{uri} is no adapter that can be loaded: it has no {name}; rerun the fine-tuning.")
    with storage.local_copy(uri) as folder:
        try:
            adapted = PeftModel.from_pretrained(model, str(folder), torch_device="cpu")
            merged: PreTrainedModel = adapted.merge_and_unload(safe_merge=True)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise InputError(
                f"The adapter {uri} cannot be added to its base model: {str(error).splitlines()[0]}"
            ) from error
    return merged


def _config(folder: Path, uri: str) -> PretrainedConfig:
    try:
        return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{uri} is no model that can be loaded: {str(error).splitlines()[0]}") from error


def _tokenizer(folder: Path, uri: str) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InputError(f"{uri} has no tokenizer that can be loaded: {str(error).splitlines()[0]}") from error


def _check_vocabulary(tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, uri: str) -> None:
    """Refuse the tokenizer of a larger model; marks that were added to it and are never used may lie beyond."""
    marks = set(tokenizer.all_special_tokens)
    highest = max((number for token, number in tokenizer.get_vocab().items() if token not in marks), default=0)
    size = model.get_input_embeddings().num_embeddings
    if highest >= size:
        raise InputError(
            f"The tokenizer in {uri} has token {highest} but the model has only {size}: it is not this model's; put "
            "the right tokenizer beside the weights."
        )


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device is {name} but this machine has no usable GPU; set device to auto or cpu.")
    return torch.device(name)
