"""Makes a Hugging Face folder of the store an MLflow model, in place: only small files are added, no weights copied.

What is written is what ``mlflow.transformers.save_model`` writes, except that the weights stay where they are
(``model_binary`` is the folder itself) and that the model and tokenizer classes are transformers' Auto classes, for
which MLflow never trusts code that lies beside the weights.
"""

import json
import platform
from typing import Any

import mlflow
import yaml
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from components.common import storage
from components.common.errors import InputError

_MAX_NEW_TOKENS = 128
_EXAMPLE = "Question: Which vitamin deficiency causes scurvy?\nAnswer:"
_TOKENIZER_FILES = frozenset(
    {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "added_tokens.json"}
)


def add_mlflow_files(model_uri: str, fingerprint: str) -> None:
    """Write ``MLmodel`` and what belongs to it beside the weights; the same files each time.

    Args:
        model_uri: The Hugging Face folder (config.json, safetensors, tokenizer files).
        fingerprint: Of the model; becomes MLflow's ``model_uuid``.

    Raises:
        InputError: The folder holds no model with safetensors weights and a tokenizer.
        StorageError: The store refuses.
    """
    entries = {storage.relative(entry.uri, model_uri): entry for entry in storage.list_files(model_uri)}
    weights = [entry for name, entry in entries.items() if name.endswith(".safetensors")]
    for needed, there in (("config.json", "config.json" in entries), ("safetensors weights", bool(weights))):
        if not there:
            raise InputError(f"{model_uri} holds no {needed}, so it cannot be registered; rerun the training.")
    if "tokenizer.json" not in entries and "tokenizer.model" not in entries:
        raise InputError(f"{model_uri} holds no tokenizer, so it cannot be registered; rerun the training.")
    for name in sorted(_TOKENIZER_FILES & entries.keys()):
        # MLflow looks for the tokenizer in a folder of its own.
        storage.write(storage.join(model_uri, "components/tokenizer", name), storage.read(entries[name].uri))
    config = json.loads(storage.read(storage.join(model_uri, "config.json")))
    for name, text in _environment(config).items():
        storage.write(storage.join(model_uri, name), text.encode())
    model = _description(config, fingerprint, sum(entry.size for entry in weights))
    # Last, because it is what makes the folder an MLflow model.
    storage.write(storage.join(model_uri, "MLmodel"), model.to_yaml().encode())


def _description(config: dict[str, Any], fingerprint: str, weight_bytes: int) -> Model:
    model = Model(
        model_uuid=fingerprint,
        signature=ModelSignature(
            inputs=Schema([ColSpec(DataType.string)]),
            outputs=Schema([ColSpec(DataType.string)]),
            params=ParamSchema([ParamSpec("max_new_tokens", DataType.long, _MAX_NEW_TOKENS)]),
        ),
        saved_input_example_info={
            "artifact_path": "input_example.json",
            "serving_input_path": "serving_input_example.json",
            "type": "json_object",
        },
        model_size_bytes=weight_bytes,
        metadata={"architecture": (config.get("architectures") or ["unknown"])[0]},
    )
    model.add_flavor(
        "transformers",
        code=None,
        components=["tokenizer"],
        instance_type="TextGenerationPipeline",
        model_binary=".",
        pipeline_model_type="AutoModelForCausalLM",
        source_model_name="",
        task="text-generation",
        tokenizer_type="AutoTokenizer",
        torch_dtype=f"torch.{config.get('dtype') or config.get('torch_dtype') or 'float32'}",
        transformers_version=_transformers_version(config),
    )
    model.add_flavor(
        "python_function",
        env={"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
        loader_module="mlflow.transformers",
        python_version=platform.python_version(),
    )
    return model


def _environment(config: dict[str, Any]) -> dict[str, str]:
    """The files that MLflow builds a serving environment from, and the input example."""
    requirements = [f"mlflow=={mlflow.__version__}", f"transformers=={_transformers_version(config)}", "torch"]
    python = platform.python_version()
    conda = {
        "name": "mlflow-env",
        "channels": ["conda-forge"],
        "dependencies": [f"python={python}", "pip", {"pip": requirements}],
    }
    virtual = {
        "python": python,
        "build_dependencies": ["pip", "setuptools", "wheel"],
        "dependencies": ["-r requirements.txt"],
    }
    return {
        "requirements.txt": "\n".join(requirements) + "\n",
        "conda.yaml": yaml.safe_dump(conda, sort_keys=False),
        "python_env.yaml": yaml.safe_dump(virtual, sort_keys=False),
        "input_example.json": json.dumps(_EXAMPLE),
        "serving_input_example.json": json.dumps({"inputs": _EXAMPLE}),
    }


def _transformers_version(config: dict[str, Any]) -> str:
    """The version that saved the weights; it is not installed where models are registered."""
    version = config.get("transformers_version")
    if not version:
        raise InputError("The model's config.json does not say which transformers_version saved it; save it again.")
    return str(version)
