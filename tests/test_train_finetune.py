"""The fine-tuning stage: its settings, what it refuses, and real runs of the tiny model."""

import json
from pathlib import Path
from typing import Any

import pytest
from finetune_helpers import sample_benchmarks, sample_model, tiny_finetune
from kfp import dsl
from pydantic import ValidationError
from train_helpers import train_here

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Manifest
from components.common.section import without_nulls
from components.common.settings import get_settings
from components.train import finetune as finetune_stage
from components.train.component import finetune_model
from components.train.finetune import finetune
from components.train.settings import FinetuneSettings

REAL = Path(__file__).parents[2] / "shared" / "data" / "benchmarks"


def losses(manifest: Manifest) -> list[float]:
    lines = storage.read(manifest.extra["losses_uri"]).splitlines()
    return [json.loads(line)["loss"] for line in lines]


def test_the_defaults_are_those_of_the_authors_scripts() -> None:
    settings = FinetuneSettings(processes_per_node=4)
    assert (settings.epochs, settings.global_batch_size, settings.context_length) == (3, 128, 2048)
    # 4 GPUs x 4 windows x 8 accumulation steps.
    assert settings.global_batch_size == 4 * settings.micro_batch_size * 8  # type: ignore[operator]
    assert (settings.learning_rate, settings.weight_decay, settings.warmup_fraction) == (2e-5, 0.0, 0.03)
    assert (settings.schedule, settings.precision, settings.max_gradient_norm) == ("cosine", "bf16", None)
    assert (settings.lora_rank, settings.lora_alpha, settings.lora_dropout) == (8, 32, 0.1)
    assert (settings.packed, settings.loss_on, settings.fraction) == (True, "all", 1.0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"merge_adapter": True}, "merge_adapter needs method: lora, but method is full"),
        ({"tasks": ["medqa", "pubmedqa", "medqa"]}, "tasks names medqa more than once"),
        ({"method": "lora", "lora_targets": ["q_proj", "q_proj"]}, "lora_targets names q_proj more than once"),
        ({"tasks": []}, "at least 1 item"),
        ({"tasks": ["mmlu"]}, "'pubmedqa', 'medmcqa' or 'medqa'"),
        ({"fraction": 0}, "greater than 0"),
        ({"fraction": 1.1}, "less than or equal to 1"),
        ({"validation_windows": 8}, "less than or equal to 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        FinetuneSettings(**wrong)


def test_the_fingerprint_ignores_what_changes_no_model() -> None:
    part = FinetuneSettings(tasks=["pubmedqa", "medmcqa"]).fingerprint_part()
    assert part == FinetuneSettings(tasks=["medmcqa", "pubmedqa"], lora_rank=16, micro_batch_size=8).fingerprint_part()
    lora = FinetuneSettings(method="lora").fingerprint_part()
    assert lora != FinetuneSettings(method="lora", lora_rank=16).fingerprint_part()
    assert part != FinetuneSettings(tasks=["medmcqa", "pubmedqa"], loss_on="answer").fingerprint_part()


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return sample_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def benchmarks(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return sample_benchmarks(tmp_path_factory.mktemp("store"))


def test_manifests_of_other_kinds_are_refused(base: Manifest, benchmarks: Manifest) -> None:
    with pytest.raises(InputError, match="needs a benchmarks manifest, but manifest tiny is of kind model"):
        finetune(base, base, tiny_finetune(), "file:///nowhere")
    with pytest.raises(InputError, match=f"needs a model manifest, but manifest {benchmarks.fingerprint} is of kind"):
        finetune(benchmarks, benchmarks, tiny_finetune(), "file:///nowhere")
    adapter = base.model_copy(update={"extra": {"adapter_uri": "file:///adapter"}})
    with pytest.raises(InputError, match="adapter without a model"):
        finetune(adapter, benchmarks, tiny_finetune(), "file:///nowhere")


def through_kfp(
    base: Manifest, benchmarks: Manifest, settings: FinetuneSettings, root: str, folder: Path, monkeypatch: Any
) -> Manifest:
    """What the component leaves as its artifact, given those of the steps before."""
    base.save(folder / "base")
    benchmarks.save(folder / "benchmarks")
    monkeypatch.setenv("PMC_STORE_URI", root)
    get_settings.cache_clear()
    model = dsl.Model(name="model", uri=str(folder / "model"))
    finetune_model.python_func(
        role="base",
        finetune={"name": "on-medqa", **without_nulls(settings.model_dump(mode="json"))},
        base_model=dsl.Model(name="base_model", uri=str(folder / "base")),
        benchmarks=dsl.Dataset(name="benchmarks", uri=str(folder / "benchmarks")),
        model=model,
        metrics=dsl.Metrics(name="metrics", uri=str(folder / "metrics")),
    )
    manifest = Manifest.load(folder / "model")
    assert model.metadata == manifest.metadata()
    assert json.loads((folder / "metrics").read_text()) == manifest.totals
    return manifest


def test_full_fine_tuning_lowers_the_loss_and_is_not_repeated(
    base: Manifest, benchmarks: Manifest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any
) -> None:
    root, settings = storage.to_uri(tmp_path), tiny_finetune(tasks=["medqa", "medmcqa"])
    manifest = finetune(base, benchmarks, settings, root)
    seen = losses(manifest)
    assert len(seen) == manifest.totals["steps"]
    assert seen[-1] < seen[0] - 1
    assert manifest.totals["examples"] == 48
    assert manifest.totals["questions_medqa"] == manifest.totals["questions_medmcqa"] == 24
    assert manifest.dropped == {"test_question": 0, "too_long": 0}
    assert manifest.extra["base_model_fingerprint"] == base.fingerprint
    assert "adapter_uri" not in manifest.extra
    names = {shard.uri for shard in manifest.shards}
    assert storage.join(manifest.extra["model_uri"], "model.safetensors") in names
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert finetune(base, benchmarks, settings, root) == manifest
    assert through_kfp(base, benchmarks, settings, root, tmp_path_factory.mktemp("kfp"), monkeypatch) == manifest
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()} == written


@pytest.fixture
def in_this_process(layout: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train without the start of another process, which the test above has."""
    monkeypatch.setattr(finetune_stage, "launch", lambda job: train_here(job, layout))


@pytest.mark.usefixtures("in_this_process")
def test_lora_leaves_an_adapter_that_plain_peft_loads_and_a_merged_model_equal_to_it(
    base: Manifest, benchmarks: Manifest, tmp_path: Path
) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    settings = tiny_finetune(method="lora", merge_adapter=True, learning_rate=2e-2)
    manifest = finetune(base, benchmarks, settings, storage.to_uri(tmp_path))
    assert losses(manifest)[-1] < losses(manifest)[0]
    assert manifest.totals["trained_parameters"] == 2 * 2 * 2 * 8 * 96  # layers, projections, A and B

    def load(uri: str) -> Any:
        return AutoModelForCausalLM.from_pretrained(storage.local_path(uri), local_files_only=True).eval()

    tokens = torch.arange(3, 40)[None]
    adapted = PeftModel.from_pretrained(
        load(base.extra["model_uri"]), storage.local_path(manifest.extra["adapter_uri"])
    ).eval()
    with torch.no_grad():
        expected = adapted(tokens).logits
        assert torch.allclose(load(manifest.extra["model_uri"])(tokens).logits, expected, atol=1e-5)
        assert not torch.allclose(load(base.extra["model_uri"])(tokens).logits, expected, atol=1e-3)


@pytest.mark.usefixtures("in_this_process")
def test_an_unmerged_adapter_on_padded_answers_of_few_questions_has_no_model_and_names_its_base(
    base: Manifest, benchmarks: Manifest, tmp_path: Path
) -> None:
    changes: dict[str, Any] = {"lora_targets": ["q_proj", "v_proj", "down_proj"], "learning_rate": 2e-2}
    settings = tiny_finetune(method="lora", fraction=0.5, packed=False, loss_on="answer", **changes)
    manifest = finetune(base, benchmarks, settings, storage.to_uri(tmp_path))
    assert 0 < manifest.totals["examples"] < 24
    assert losses(manifest)[-1] < losses(manifest)[0]
    assert "model_uri" not in manifest.extra
    assert manifest.extra["base_model_uri"] == base.extra["model_uri"]
    names = {shard.uri.removeprefix(manifest.extra["adapter_uri"]) for shard in manifest.shards}
    assert names == {"/adapter_config.json", "/adapter_model.safetensors"}


@pytest.mark.skipif(not REAL.is_dir(), reason="the benchmarks' real files are not here")
def test_the_real_files_give_examples_of_every_task(base: Manifest, tmp_path: Path) -> None:
    from components.train.finetuning.examples import write_examples

    real = sample_benchmarks(tmp_path, str(REAL))
    settings = FinetuneSettings(tasks=["pubmedqa", "medmcqa", "medqa"])
    shard = write_examples(real, base.extra["model_uri"], settings, storage.to_uri(tmp_path))
    assert shard.stats["counts"]["pubmedqa"] == 500
    assert shard.rows == sum(shard.stats["counts"].values()) - shard.stats["dropped"]["too_long"]
    assert shard.stats["dropped"]["test_question"] + shard.rows + shard.stats["dropped"]["too_long"] == 2277


@pytest.mark.skipif(not REAL.is_dir(), reason="the benchmarks' real files are not here")
@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.usefixtures("in_this_process")
def test_the_loss_falls_on_the_real_questions(base: Manifest, tmp_path: Path, method: str) -> None:
    tasks = ["pubmedqa", "medmcqa", "medqa"]
    settings = tiny_finetune(tasks=tasks, fraction=0.05, method=method, learning_rate=1e-2, context_length=256)
    manifest = finetune(base, sample_benchmarks(tmp_path, str(REAL)), settings, storage.to_uri(tmp_path))
    assert manifest.totals["examples"] > 50
    found = losses(manifest)
    assert sum(found[-3:]) < sum(found[:3])
