"""Loads a model of the store for evaluation."""

import contextlib
from collections.abc import Iterator

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Manifest


@contextlib.contextmanager
def loaded_model(manifest: Manifest, device: str) -> Iterator[tuple[PreTrainedModel, PreTrainedTokenizerBase]]:
    """Give the model, ready to answer, and its tokenizer; nothing is fetched from anywhere but the store.

    Args:
        manifest: Of kind ``model``; its ``model_uri`` names a Hugging Face folder with safetensors weights.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:1``.

    Raises:
        InputError: The manifest names no usable model, or there is no such device.
        StorageError: The folder cannot be read.
    """
    place = _device(device)
    # bfloat16 is what the models are trained in; on a CPU it is slower than float32 and less exact.
    dtype = torch.bfloat16 if place.type == "cuda" else torch.float32
    uri = model_uri(manifest)
    with storage.local_copy(uri) as folder:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            model = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False, use_safetensors=True, dtype=dtype
            )
        except (OSError, ValueError) as error:
            raise InputError(f"{uri} is no model that can be loaded: {str(error).splitlines()[0]}") from error
        yield model.to(place).eval(), tokenizer


def model_uri(manifest: Manifest) -> str:
    """Return the URI of a model manifest's Hugging Face folder.

    Raises:
        InputError: The manifest is not one of a model.
    """
    uri = manifest.extra.get("model_uri")
    if not isinstance(uri, str):
        raise InputError(f"The {manifest.kind} manifest {manifest.fingerprint} names no model folder (model_uri).")
    return uri


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise InputError(f"device is {name} but this machine has no usable GPU; set device to auto or cpu.")
    return torch.device(name)
