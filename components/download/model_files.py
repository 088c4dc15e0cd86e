"""Which files of a model's folder are taken, and whether they make a whole model."""

import json
import logging
from typing import Any

from components.common.errors import InputError
from components.download.remote_file import RemoteFile, fetch

log = logging.getLogger(__name__)

SAFETENSORS = ".safetensors"
REQUIRED = ("config.json", "tokenizer.json")
KEPT_SUFFIXES = (".json", SAFETENSORS, ".model", ".txt", ".jinja")
PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_MAX_INDEX_BYTES = 100_000_000


def chosen_files(files: list[RemoteFile], place: str) -> list[RemoteFile]:
    """Return the files that transformers will want of a model's folder, the small ones before the weights.

    Weights under other names than those that transformers looks for (another layout of the same weights, such as
    ``consolidated.safetensors``) stay where they are, and so do pickles beside safetensors.

    Args:
        files: What lies in the folder itself, nothing below it.
        place: How messages call the model.

    Raises:
        InputError: There are no safetensors weights, some are missing, or the configuration or tokenizer is.
    """
    by_name = {file.name: file for file in files}
    pickles = sorted(name for name in by_name if name.endswith(PICKLE_SUFFIXES))
    if not any(name.endswith(SAFETENSORS) for name in by_name):
        found = f"{pickles[0]} is a pickle, which can run code" if pickles else "it has no weights at all"
        raise InputError(f"The base model {place} has no .safetensors weights: {found}; convert it to safetensors.")
    for required in REQUIRED:
        if required not in by_name:
            raise InputError(f"The base model {place} has no {required}; a complete Hugging Face folder is due.")
    weights = _weights(by_name, place)
    if pickles:
        log.info("The base model %s: left out %s, which can run code.", place, ", ".join(pickles))
    small = [name for name in sorted(by_name) if name.endswith(KEPT_SUFFIXES) and not name.endswith(SAFETENSORS)]
    small = [name for name in small if not name.endswith(".bin.index.json")]
    return [by_name[name] for name in [*small, *weights]]


def _weights(files: dict[str, RemoteFile], place: str) -> list[str]:
    names = {WEIGHTS} & files.keys()
    if INDEX in files:
        named = _named_by_index(files[INDEX], place)
        missing = sorted(named - files.keys())
        if missing:
            raise InputError(
                f"The base model {place} lacks {missing[0]} ({len(missing)} of the {len(named)} weight files that "
                f"{INDEX} names); fetch or copy it again."
            )
        names |= named
    if not names:
        found = next(name for name in sorted(files) if name.endswith(SAFETENSORS))
        raise InputError(f"The base model {place} has {found} but neither {WEIGHTS} nor {INDEX}; name it as they are.")
    return sorted(names)


def _named_by_index(index: RemoteFile, place: str) -> set[str]:
    if (index.size or 0) > _MAX_INDEX_BYTES:
        raise InputError(f"The base model {place}: {INDEX} has {index.size:,} bytes; that is no index.")
    try:
        content: Any = json.loads(fetch(index)[0])
        names = set(content["weight_map"].values())
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"The base model {place}: {INDEX} cannot be read ({type(error).__name__}).") from error
    wrong = [name for name in names if not isinstance(name, str) or not name.endswith(SAFETENSORS) or "/" in name]
    if wrong or not names:
        raise InputError(f"The base model {place}: {INDEX} names {str(wrong[:1])[:80]}, no safetensors file beside it.")
    return names
