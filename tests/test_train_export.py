"""What is exported loads with plain transformers and peft, and computes what the trainer computes."""

import json
import resource
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peft
import pytest
import torch
from modelling_helpers import in_two_processes, lora_settings, windows, write_causal_model
from safetensors.torch import load_file
from train_helpers import tiny_settings
from transformers import AutoModelForCausalLM

from components.common import storage
from components.common.errors import StorageError
from components.common.fingerprint import sha256_file
from components.train.modelling import export
from components.train.modelling.export import export_model
from components.train.modelling.load import load_model
from components.train.modelling.loss import window_loss
from components.train.modelling.optimiser import build_optimiser

if TYPE_CHECKING:
    from components.train.distributed import Layout

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base model in half precision, with the files of a tokenizer."""
    folder = write_causal_model(tmp_path_factory.mktemp("base"), dtype="float16", vocab_size=65, max_shard_size="20KB")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "pytorch_model.bin").write_text("never copied")
    return folder


def train_and_export(
    layout: "Layout", base: Path, output: Path, settings: Any, base_name: str | None = None, largest: int = 10**9
) -> tuple[torch.Tensor, list[dict[str, Any]]]:
    """A step that changes every weight, then the trainer's logits, and the files it exports."""
    export.LARGEST_FILE_BYTES = largest
    model = load_model(base, settings, layout)
    optimiser = build_optimiser(model, settings)
    for _ in range(2):
        window_loss(model, *windows()).backward()
        optimiser.step()
        optimiser.zero_grad()
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=windows()[0]).logits
    uri = f"file://{output}/model"
    return logits, export_model(model, base, uri, output / "scratch", settings, layout, base_name)


def logits_of(model: torch.nn.Module) -> torch.Tensor:
    """Of the same windows."""
    with torch.no_grad():
        return model.eval()(input_ids=windows()[0]).logits.float()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_the_exported_model_computes_the_trainers_logits(
    tmp_path: Path, layout: "Layout", precision: str, kind: str
) -> None:
    base = write_causal_model(tmp_path / "base", kind, tie_word_embeddings=kind == "qwen3")
    settings = tiny_settings(precision=precision)
    logits, _ = train_and_export(layout, base, tmp_path, settings)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model", local_files_only=True)
    assert model.dtype == DTYPES[precision]
    assert torch.equal(logits_of(model), logits)
    assert not torch.equal(logits_of(AutoModelForCausalLM.from_pretrained(base, dtype=model.dtype)), logits)


def test_two_processes_export_what_one_does_in_several_files(tmp_path: Path, base: Path, layout: "Layout") -> None:
    one, one_files = train_and_export(layout, base, tmp_path / "one", tiny_settings())
    (two, files), (_, none) = in_two_processes(train_and_export, base, tmp_path / "two", tiny_settings(), None, 20_000)
    assert none == []
    names = [file["name"] for file in files]
    assert names[:2] == ["config.json", "generation_config.json"]
    assert names[-2:] == ["model.safetensors.index.json", "tokenizer.json"]
    assert names[2] == f"model-00001-of-{len(names) - 4:05d}.safetensors"
    assert "model.safetensors" in [file["name"] for file in one_files]
    for file in files:
        path = storage.local_path(file["uri"])
        assert path == tmp_path / "two" / "model" / file["name"]
        assert (file["bytes"], file["sha256"]) == (path.stat().st_size, sha256_file(path))
        assert file["bytes"] < 21_500
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "two" / "model")
    assert torch.allclose(logits_of(model), one, atol=1e-3)
    assert torch.allclose(logits_of(model), two, atol=1e-6)
    assert not (tmp_path / "two" / "scratch" / "model").exists()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_adapter_loads_with_plain_peft_and_merged_it_is_the_same_model(
    tmp_path: Path, base: Path, layout: "Layout", precision: str
) -> None:
    settings = lora_settings(precision=precision, lora_targets=["q_proj", "down_proj"], merge_adapter=True)
    logits, files = train_and_export(layout, base, tmp_path, settings, "s3://bucket/base")
    folder = tmp_path / "model" / "adapter"
    names = [file["name"] for file in files]
    assert names[:2] == ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
    assert {"config.json", "model.safetensors", "tokenizer.json"} < set(names)
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "s3://bucket/base"

    plain = AutoModelForCausalLM.from_pretrained(base, dtype=DTYPES[precision])
    without = logits_of(plain)
    tolerance = 1e-6 if precision == "fp32" else 0.02
    adapted = peft.PeftModel.from_pretrained(plain, str(folder), autocast_adapter_dtype=False)
    adapted = adapted.to(DTYPES[precision])
    assert torch.allclose(logits_of(adapted), logits, atol=tolerance)
    assert not torch.allclose(without, logits, atol=2 * tolerance)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert merged.dtype == DTYPES[precision]
    assert torch.allclose(logits_of(merged), logits, atol=tolerance)
    if precision == "fp32":
        for name, weight in adapted.merge_and_unload().named_parameters():
            assert torch.allclose(merged.get_parameter(name), weight, atol=1e-6), name


def test_without_a_merge_only_the_adapter_is_stored_from_two_processes_too(
    tmp_path: Path, base: Path, layout: "Layout"
) -> None:
    settings = lora_settings(lora_dropout=0.0)
    _, files = train_and_export(layout, base, tmp_path / "one", settings)
    (_, two_files), _ = in_two_processes(train_and_export, base, tmp_path / "two", settings)
    expected = ["adapter/adapter_config.json", "adapter/adapter_model.safetensors"]
    assert [file["name"] for file in files] == [file["name"] for file in two_files] == expected
    assert files[0]["sha256"] == two_files[0]["sha256"]
    text = (tmp_path / "one/model/adapter/adapter_config.json").read_text()
    assert json.loads(text)["base_model_name_or_path"] is None
    assert str(base) not in text
    one, two = (load_file(tmp_path / run / "model/adapter/adapter_model.safetensors") for run in ("one", "two"))
    assert one.keys() == two.keys()
    assert {tensor.dtype for tensor in one.values()} == {torch.float32}


@pytest.mark.parametrize("stops_at", range(1, 5))
def test_an_export_that_is_cut_short_leaves_nothing_that_loads(
    tmp_path: Path, base: Path, layout: "Layout", monkeypatch: pytest.MonkeyPatch, stops_at: int
) -> None:
    train_and_export(layout, base, tmp_path, tiny_settings())  # an older one, complete
    uploads: list[str] = []
    upload = storage.upload

    def failing(path: Path, uri: str) -> None:
        uploads.append(uri)
        if len(uploads) == stops_at:
            raise StorageError("The store is gone.")
        upload(path, uri)

    monkeypatch.setattr(storage, "upload", failing)
    with pytest.raises(StorageError, match="gone"):
        train_and_export(layout, base, tmp_path, tiny_settings())
    assert not (tmp_path / "model" / "config.json").exists()
    with pytest.raises((OSError, ValueError)):
        AutoModelForCausalLM.from_pretrained(tmp_path / "model", local_files_only=True)


def test_a_disk_without_room_for_the_export_is_named(tmp_path: Path, base: Path, layout: "Layout") -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))  # what no file may exceed, as on a full disk
    try:
        with pytest.raises(StorageError, match=r"model\.safetensors of .* GB cannot be written .*set TMPDIR"):
            train_and_export(layout, base, tmp_path, tiny_settings())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_the_same_training_exports_the_same_bytes(tmp_path: Path, base: Path, layout: "Layout") -> None:
    settings = lora_settings(merge_adapter=True, lora_dropout=0.0, lora_targets=["v_proj", "q_proj", "o_proj"])
    runs = [train_and_export(layout, base, tmp_path / name, settings)[1] for name in ("one", "two")]
    assert [file["sha256"] for file in runs[0]] == [file["sha256"] for file in runs[1]]
