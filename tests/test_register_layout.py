"""A Hugging Face folder becomes an MLflow model in place, and what is missing of one is named."""

import json
from pathlib import Path

import mlflow
import pytest

from components.common.errors import InputError
from components.register.registry.layout import add_mlflow_files, from_source, missing_files, to_source, weights_exist

CONFIG = {"architectures": ["LlamaForCausalLM"], "dtype": "bfloat16", "transformers_version": "5.17.0"}


def folder(tmp_path: Path, name: str = "model", shards: tuple[str, ...] = ()) -> Path:
    made = tmp_path / name
    made.mkdir()
    (made / "config.json").write_text(json.dumps(CONFIG))
    (made / "tokenizer.json").write_text("{}")
    for each in shards or ("model.safetensors",):
        (made / each).write_bytes(b"12345678")
    if shards:
        index = {"weight_map": {f"layer{i}": each for i, each in enumerate(shards)}}
        (made / "model.safetensors.index.json").write_text(json.dumps(index))
    return made


def test_only_small_files_are_added_and_the_description_says_what_mlflow_needs(tmp_path):
    made = folder(tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in made.iterdir()}
    add_mlflow_files(f"file://{made}", "c0ffee")
    assert {name: (made / name).stat().st_mtime_ns for name in before} == before
    model = mlflow.models.Model.load(str(made))
    assert model.model_uuid == "c0ffee"
    assert model.model_size_bytes == 8
    assert model.flavors["transformers"]["torch_dtype"] == "torch.bfloat16"
    assert model.flavors["transformers"]["model_binary"] == "."
    assert [each.type.name for each in model.signature.inputs.inputs] == ["string"]
    assert "scurvy" in json.loads((made / "input_example.json").read_text())
    assert "transformers==5.17.0" in (made / "requirements.txt").read_text()


def test_the_same_model_gets_the_same_files_each_time(tmp_path):
    made = folder(tmp_path)
    add_mlflow_files(f"file://{made}", "c0ffee")
    first = {path: path.read_bytes() for path in made.rglob("*") if path.is_file()}
    add_mlflow_files(f"file://{made}", "c0ffee")
    assert {path: path.read_bytes() for path in made.rglob("*") if path.is_file()} == first


@pytest.mark.parametrize(
    ("missing", "named"),
    [("config.json", "config.json"), ("model.safetensors", "weights"), ("tokenizer.json", "tokenizer")],
)
def test_a_folder_that_is_no_whole_model_is_refused(tmp_path, missing, named):
    made = folder(tmp_path)
    (made / missing).unlink()
    with pytest.raises(InputError, match=f"holds no .*{named}"):
        add_mlflow_files(f"file://{made}", "c0ffee")
    assert not (made / "MLmodel").exists()


def test_a_part_of_the_weights_that_is_not_there_is_refused_and_named(tmp_path):
    made = folder(tmp_path, shards=("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"))
    (made / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(InputError, match=r"holds no model-00002-of-00002\.safetensors"):
        add_mlflow_files(f"file://{made}", "c0ffee")


def test_what_is_missing_of_a_registered_model_is_named(tmp_path):
    made = folder(tmp_path, "a folder with 100%", ("model-1.safetensors", "model-2.safetensors"))
    add_mlflow_files(f"file://{made}", "c0ffee")
    source = to_source(f"file://{made}")
    assert "%20" in source
    assert from_source(source) == f"file://{made}"
    assert (missing_files(source), weights_exist(source)) == ([], True)
    (made / "model-2.safetensors").unlink()
    (made / "MLmodel").unlink()
    assert missing_files(source) == ["MLmodel", "model-2.safetensors"]
    assert not weights_exist(source)
    assert missing_files(f"file://{tmp_path}/nothing") == ["MLmodel", "config.json", "model.safetensors"]


def test_an_index_that_is_none_is_refused(tmp_path):
    made = folder(tmp_path, shards=("model-1.safetensors",))
    (made / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(InputError, match="is no index of weights"):
        missing_files(f"file://{made}")


def test_a_configuration_that_does_not_say_who_saved_it_is_refused(tmp_path):
    made = folder(tmp_path)
    (made / "config.json").write_text("{}")
    with pytest.raises(InputError, match="does not say which transformers_version"):
        add_mlflow_files(f"file://{made}", "c0ffee")
