"""The base model's tokenizer, as training uses it."""

import json
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from components.common import storage
from components.common.errors import InputError, PipelineError
from components.common.fingerprint import sha256_bytes

_LARGEST_UINT16_VOCABULARY = 1 << 16


@dataclass(frozen=True)
class ModelTokenizer:
    """A tokenizer and what its folder says of it.

    Attributes:
        model: Encodes text; adds no control tokens, and takes those written out in a text for ordinary characters.
        sha256: Of `tokenizer.json`.
        vocabulary_size: No id reaches it.
        start: Id before every example; none where the model has no such token.
        end: Id after every example.
    """

    model: Tokenizer
    sha256: str
    vocabulary_size: int
    start: int | None
    end: int

    @property
    def dtype(self) -> str:
        """The smallest type that holds an id."""
        return "uint16" if self.vocabulary_size <= _LARGEST_UINT16_VOCABULARY else "uint32"

    @property
    def control_tokens(self) -> int:
        """How many tokens of an example are not its text's."""
        return 1 if self.start is None else 2


def tokenizer_sha256(model_uri: str) -> str:
    """Hash of `tokenizer.json`, by which a corpus names the tokenizer that made it.

    Raises:
        InputError: The model has none.
        StorageError: The store cannot be read.
    """
    return sha256_bytes(_read(model_uri, "tokenizer.json"))


def load_tokenizer(model_uri: str) -> ModelTokenizer:
    """Read `tokenizer.json` and `tokenizer_config.json` of a model's folder in the store; no weights travel.

    Raises:
        InputError: A file is missing or no tokenizer, or names no end token.
        StorageError: The store cannot be read.
    """
    data = _read(model_uri, "tokenizer.json")
    try:
        config = json.loads(_read(model_uri, "tokenizer_config.json"))
        model = Tokenizer.from_str(data.decode())
    except PipelineError:
        raise
    except Exception as error:  # the library raises a bare Exception
        raise InputError(f"{model_uri} holds no tokenizer that can be read ({error}); give another model.") from error
    model.encode_special_tokens = True
    model.no_truncation()
    model.no_padding()
    end = _id(model, config.get("eos_token"))
    if end is None:
        raise InputError(
            f"The tokenizer in {model_uri} names no end token of its vocabulary (eos_token is "
            f"{config.get('eos_token')!r}); give a model whose tokenizer_config.json names one."
        )
    return ModelTokenizer(
        model=model,
        sha256=sha256_bytes(data),
        vocabulary_size=max(model.get_vocab(with_added_tokens=True).values(), default=-1) + 1,
        start=_id(model, config.get("bos_token")),
        end=end,
    )


def _read(model_uri: str, name: str) -> bytes:
    uri = storage.join(model_uri, name)
    if not storage.exists(uri):
        raise InputError(f"The model in {model_uri} has no {name}; give a complete folder.")
    return storage.read(uri)


def _id(model: Tokenizer, named: Any) -> int | None:
    token = named["content"] if isinstance(named, dict) else named
    return model.token_to_id(token) if token else None
