"""Makes a Hugging Face folder of the store an MLflow model, in place: only small files are added, no weights copied.

What is written is what ``mlflow.transformers.save_model`` writes, except that the weights stay where they are
(``model_binary`` is the folder itself) and that the model and tokenizer classes are transformers' Auto classes, for
which MLflow never trusts code that lies beside the weights.
"""

import json
import platform
from typing import Any
from urllib.parse import unquote

import mlflow
import yaml
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from components.common import storage
from components.common.errors import InputError

MLMODEL = "MLmodel"
_CONFIG = "config.json"
_WEIGHTS = ".safetensors"
_INDEX = "model.safetensors.index.json"
_MAX_NEW_TOKENS = 128
_EXAMPLE = "Question: Which vitamin deficiency causes scurvy?\nAnswer:"
_TOKENIZER_FILES = frozenset(
    {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model", "added_tokens.json"}
)


def add_mlflow_files(model_uri: str, fingerprint: str, example: str = _EXAMPLE) -> None:
    """Write ``MLmodel`` and what belongs to it beside the weights; the same files each time.

    Args:
        model_uri: The Hugging Face folder (config.json, safetensors, tokenizer files).
        fingerprint: Of the model; becomes MLflow's ``model_uuid``.
        example: An input as the model knows it, for MLflow's pages.

    Raises:
        InputError: The folder holds no model with safetensors weights and a tokenizer.
        StorageError: The store refuses.
    """
    entries = {storage.relative(entry.uri, model_uri): entry for entry in storage.list_files(model_uri)}
    weights = [entry for name, entry in entries.items() if name.endswith(_WEIGHTS)]
    for needed, there in ((_CONFIG, _CONFIG in entries), ("safetensors weights", bool(weights))):
        if not there:
            raise InputError(f"{model_uri} holds no {needed}, so it cannot be registered; rerun the training.")
    if "tokenizer.json" not in entries and "tokenizer.model" not in entries:
        raise InputError(f"{model_uri} holds no tokenizer, so it cannot be registered; rerun the training.")
    lost = sorted(set(_in_shards(entries[_INDEX].uri)) - entries.keys()) if _INDEX in entries else []
    if lost:
        raise InputError(f"{model_uri} holds no {lost[0]}, so it cannot be registered; rerun the training.")
    for name in sorted(_TOKENIZER_FILES & entries.keys()):
        # MLflow looks for the tokenizer in a folder of its own.
        storage.write(storage.join(model_uri, "components/tokenizer", name), storage.read(entries[name].uri))
    config = json.loads(storage.read(entries[_CONFIG].uri))
    for name, text in _environment(config, example).items():
        storage.write(storage.join(model_uri, name), text.encode())
    model = _description(config, fingerprint, sum(entry.size for entry in weights))
    if MLMODEL in entries and (earlier := _written_before(entries[MLMODEL].uri, fingerprint)):
        model.utc_time_created = earlier
    # Last, because it is what makes the folder an MLflow model.
    storage.write(storage.join(model_uri, MLMODEL), model.to_yaml().encode())


def missing_files(source: str) -> list[str]:
    """Return which of the files that a registered model needs are not there; an empty list when it can be loaded.

    Args:
        source: Of the model version.

    Raises:
        StorageError: The store cannot be read.
    """
    folder = from_source(source)
    there = {storage.relative(entry.uri, folder): entry.uri for entry in storage.list_files(folder)}
    needed = {MLMODEL, _CONFIG}
    if _INDEX in there:
        needed |= set(_in_shards(there[_INDEX]))
    elif not any(name.endswith(_WEIGHTS) for name in there):
        needed.add("model.safetensors")
    return sorted(needed - there.keys())


def weights_exist(source: str) -> bool:
    """Tell whether a registered model can still be loaded; raises as :func:`missing_files` does."""
    return not missing_files(source)


def to_source(model_uri: str) -> str:
    """Return a version's source for a folder of the store: MLflow decodes ``%20`` and the like, our store does not."""
    return storage.local_path(model_uri).as_uri() if model_uri.startswith(storage.FILE_SCHEME) else model_uri


def from_source(source: str) -> str:
    """Return the folder of the store that a version's source means."""
    if source.startswith(storage.FILE_SCHEME):
        return storage.FILE_SCHEME + unquote(source.removeprefix(storage.FILE_SCHEME))
    return source


def _in_shards(index_uri: str) -> list[str]:
    """Return the files that hold the weights, as the index of a model in several files names them."""
    try:
        return [str(name) for name in json.loads(storage.read(index_uri))["weight_map"].values()]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{index_uri} is no index of weights; run the training again.") from error


def _written_before(uri: str, fingerprint: str) -> str:
    """Return when the same model was described first, so that its description stays the same."""
    found = yaml.safe_load(storage.read(uri))
    same = isinstance(found, dict) and found.get("model_uuid") == fingerprint
    return str(found.get("utc_time_created", "")) if same else ""


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


def _environment(config: dict[str, Any], example: str) -> dict[str, str]:
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
        "input_example.json": json.dumps(example),
        "serving_input_example.json": json.dumps({"inputs": example}),
    }


def _transformers_version(config: dict[str, Any]) -> str:
    """The version that saved the weights; it is not installed where models are registered."""
    version = config.get("transformers_version")
    if not version:
        raise InputError("The model's config.json does not say which transformers_version saved it; save it again.")
    return str(version)
