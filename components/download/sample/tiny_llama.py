"""A LLaMA of half a million parameters with random weights, for runs without a network. Needs no torch."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from components.download.sample import TOKENIZER_DIR

LAYERS = 2
HIDDEN = 96
HEADS = 4
INTERMEDIATE = 256
VOCABULARY = 2048
POSITIONS = 1024
# Standard deviation of the weights, as in LLaMA's configuration (initializer_range).
SPREAD = 0.02


def write_tiny_llama(folder: Path, seed: int = 0) -> None:
    """Write a Hugging Face model folder with weights drawn from a normal distribution.

    The same seed gives the same bytes on every machine.

    Args:
        folder: Where to write; made if it isn't there.
        seed: Seed of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", _config())
    _write_json(folder / "generation_config.json", _generation_config())
    save_file(_weights(seed), folder / "model.safetensors", metadata={"format": "pt"})
    for path in sorted(TOKENIZER_DIR.iterdir()):
        shutil.copyfile(path, folder / path.name)


def _weights(seed: int) -> dict[str, np.ndarray]:
    """Return the tensors by the names that transformers gives them, linear layers as (out, in), float32."""
    random = np.random.Generator(np.random.PCG64(seed))

    def normal(*shape: int) -> np.ndarray:
        return (random.standard_normal(shape) * SPREAD).astype(np.float32)

    weights = {"model.embed_tokens.weight": normal(VOCABULARY, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            weights[f"{prefix}.self_attn.{name}.weight"] = normal(HIDDEN, HIDDEN)
        for name in ("gate_proj", "up_proj"):
            weights[f"{prefix}.mlp.{name}.weight"] = normal(INTERMEDIATE, HIDDEN)
        weights[f"{prefix}.mlp.down_proj.weight"] = normal(HIDDEN, INTERMEDIATE)
        for name in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}.{name}.weight"] = np.ones(HIDDEN, np.float32)
    weights["model.norm.weight"] = np.ones(HIDDEN, np.float32)
    weights["lm_head.weight"] = normal(VOCABULARY, HIDDEN)
    return weights


def _config() -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "head_dim": HIDDEN // HEADS,
        "hidden_act": "silu",
        "hidden_size": HIDDEN,
        "initializer_range": SPREAD,
        "intermediate_size": INTERMEDIATE,
        "max_position_embeddings": POSITIONS,
        "mlp_bias": False,
        "num_attention_heads": HEADS,
        "num_hidden_layers": LAYERS,
        "num_key_value_heads": HEADS,
        "rms_norm_eps": 1e-06,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "dtype": "float32",
        "use_cache": True,
        "vocab_size": VOCABULARY,
    }


def _generation_config() -> dict[str, Any]:
    return {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "do_sample": False}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
