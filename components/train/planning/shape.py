"""The sizes of a LLaMA-like model, from its config.json alone."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from components.common.errors import InputError

_SHAPED_LIKE_LLAMA = ("llama", "mistral", "qwen2", "qwen3")


@dataclass(frozen=True)
class ModelShape:
    """Sizes of a decoder of equal layers: attention, then a gated feed-forward block, each behind an RMS norm.

    Attributes:
        name: What a plan calls the model.
        hidden: Width of the residual stream.
        intermediate: Width within the feed-forward block.
        layers: Decoder layers.
        heads: Query heads of a layer.
        key_value_heads: Key and value heads of a layer.
        head: Width of a head.
        vocabulary: Token embeddings.
        positions: Longest context.
        tied: Whether the embedding table is the output projection too.
        query_biases: Whether queries, keys and values have biases.
        output_bias: Whether the attention's output has a bias.
        feed_forward_biases: Whether the feed-forward block's layers have biases.
        normed_heads: Whether queries and keys pass an RMS norm of their own.
    """

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    key_value_heads: int
    head: int
    vocabulary: int
    positions: int
    tied: bool = False
    query_biases: bool = False
    output_bias: bool = False
    feed_forward_biases: bool = False
    normed_heads: bool = False

    @property
    def query_width(self) -> int:
        """Width of all query heads."""
        return self.heads * self.head

    @property
    def key_value_width(self) -> int:
        """Width of all key heads, and of all value heads."""
        return self.key_value_heads * self.head

    @property
    def embedding_parameters(self) -> int:
        """Of the table that tokens are looked up in."""
        return self.vocabulary * self.hidden

    @property
    def layer_parameters(self) -> int:
        """Of one decoder layer."""
        heads = self.query_width + 2 * self.key_value_width
        attention = heads * self.hidden + self.query_width * self.hidden
        biases = heads * self.query_biases + self.hidden * self.output_bias
        biases += (2 * self.intermediate + self.hidden) * self.feed_forward_biases
        norms = 2 * self.hidden + 2 * self.head * self.normed_heads
        return attention + 3 * self.hidden * self.intermediate + biases + norms

    @property
    def outer_parameters(self) -> int:
        """Outside of the layers: embeddings, last norm, output projection."""
        return self.embedding_parameters * (1 if self.tied else 2) + self.hidden

    @property
    def parameters(self) -> int:
        """Of the whole model."""
        return self.layers * self.layer_parameters + self.outer_parameters

    @property
    def multiplied_parameters(self) -> int:
        """All but the embedding table's lookup, which multiplies nothing; a tied table is multiplied with as output."""
        return self.parameters - (0 if self.tied else self.embedding_parameters)


def find_shape(model: str) -> ModelShape:
    """The shape of a model: a local Hugging Face folder, or one whose sizes are known here by its name.

    Raises:
        InputError: It is neither, or its config.json is not that of a LLaMA-like model.
    """
    if (Path(model) / "config.json").is_file():
        return read_shape(model, _read_config(Path(model) / "config.json"))
    known = _known()
    if model not in known:
        raise InputError(
            f"{model!r} is no folder with a config.json, and its sizes are not known here; give a folder with --model, "
            f"or one of {', '.join(sorted(known))}."
        )
    return read_shape(model, known[model])


def read_shape(name: str, config: Mapping[str, Any]) -> ModelShape:
    """The shape that a config.json describes.

    Raises:
        InputError: It describes no LLaMA-like model, or a size is missing or no number.
    """
    kind = config.get("model_type")
    if kind not in _SHAPED_LIKE_LLAMA:
        raise InputError(f"{name} is of the type {kind!r}, which is not built like {', '.join(_SHAPED_LIKE_LLAMA)}.")
    sizes = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")
    for key in sizes:
        if not isinstance(config.get(key), int) or config[key] <= 0:
            raise InputError(f"{name} has no usable {key} in its config.json: {config.get(key)!r}.")
    heads = config["num_attention_heads"]
    biased = bool(config.get("attention_bias"))
    return ModelShape(
        name=name,
        hidden=config["hidden_size"],
        intermediate=config["intermediate_size"],
        layers=config["num_hidden_layers"],
        heads=heads,
        key_value_heads=config.get("num_key_value_heads") or heads,
        head=config.get("head_dim") or config["hidden_size"] // heads,
        vocabulary=config["vocab_size"],
        positions=config.get("max_position_embeddings") or 2**31,
        tied=bool(config.get("tie_word_embeddings")),
        query_biases=biased or kind == "qwen2",
        output_bias=biased and kind != "qwen2",
        feed_forward_biases=bool(config.get("mlp_bias")),
        normed_heads=kind == "qwen3",
    )


def _known() -> dict[str, dict[str, Any]]:
    file = resources.files("components.train.planning") / "known_models.json"
    known: dict[str, dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))
    return known


def _read_config(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}).") from error
    if not isinstance(config, dict):
        raise InputError(f"{path} is not the description of a model.")
    return config
