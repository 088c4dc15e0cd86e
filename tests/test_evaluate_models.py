"""Models are loaded from safetensors alone, whole or as an adapter on its base; what does not fit is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from components.common.errors import InputError
from components.common.manifest import Manifest
from components.common.questions import Question
from components.evaluate.engine import Builtin
from components.evaluate.harness import answer_questions
from components.evaluate.models import loaded_model
from components.evaluate.scorer import Scorer
from tests.evaluate_helpers import questions, save_model, tiny_model, tiny_tokenizer


@pytest.fixture
def model(tmp_path) -> Manifest:
    return save_model(tmp_path)


def folder_of(manifest: Manifest) -> Path:
    return Path(manifest.extra["model_uri"].removeprefix("file://"))


def save_adapter(base: Manifest, folder: Path) -> tuple[Manifest, torch.nn.Module]:
    """Save a random adapter; return its manifest as fine-tuning writes it, and the model with it, not merged."""
    torch.manual_seed(1)
    network = AutoModelForCausalLM.from_pretrained(folder_of(base))
    adapted = get_peft_model(network, LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"]))
    for name, weight in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(weight, std=0.2)
    adapted.save_pretrained(folder)
    extra = {"adapter_uri": f"file://{folder}", "base_model_uri": base.extra["model_uri"]}
    return base.model_copy(update={"extra": extra, "fingerprint": "adapter"}), adapted.eval()


def test_an_adapter_alone_is_added_to_its_base(model, tmp_path):
    manifest, adapted = save_adapter(model, tmp_path / "adapter")
    inputs = torch.arange(3, 40)[None]
    with loaded_model(manifest, "cpu") as (network, tokenizer), loaded_model(model, "cpu") as (base, _):
        with torch.inference_mode():
            found, expected, without = (each(inputs).logits for each in (network, adapted, base))
        assert torch.allclose(found, expected, atol=1e-4)
        assert not torch.allclose(found, without, atol=1e-2)
        answers = answer_questions(
            Scorer(network, tokenizer), "medqa", [Question.model_validate(row) for row in questions("medqa", 3)]
        )
        assert len(answers) == 3


def test_an_adapter_of_pickled_weights_is_never_opened(model, tmp_path):
    manifest, _ = save_adapter(model, tmp_path / "adapter")
    (tmp_path / "adapter/adapter_model.safetensors").unlink()
    torch.save({}, tmp_path / "adapter/adapter_model.bin")
    with (
        pytest.raises(InputError, match=r"adapter is no adapter .* no adapter_model.safetensors"),
        loaded_model(manifest, "cpu"),
    ):
        pass


def test_an_adapter_of_another_base_is_refused(model, tmp_path):
    manifest, _ = save_adapter(model, tmp_path / "adapter")
    path = tmp_path / "adapter/adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"target_modules": ["c_attn"]}))
    with pytest.raises(InputError, match="adapter cannot be added to its base model"), loaded_model(manifest, "cpu"):
        pass


def test_pickled_weights_are_never_opened(model):
    folder = folder_of(model)
    torch.save(tiny_model("llama", 320).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"is no model that can be loaded: .*safetensors"), loaded_model(model, "cpu"):
        pass


def test_the_tokenizer_of_a_larger_model_is_refused(model):
    tiny_model("llama", 200).save_pretrained(folder_of(model))
    with pytest.raises(InputError, match="has token 319 but the model has only 200"), loaded_model(model, "cpu"):
        pass


def test_marks_that_were_added_to_a_tokenizer_and_are_never_used_do_no_harm(model):
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder_of(model))
    with loaded_model(model, "cpu") as (network, loaded):
        assert len(loaded) == 321 > network.get_input_embeddings().num_embeddings


def test_a_token_beyond_the_model_is_named_with_the_prompt_it_came_from():
    scorer = Builtin(tiny_model("llama", 200), tiny_tokenizer()).lm
    with pytest.raises(InputError, match=r"token \d+ for the prompt that ends in '.*Answer:' but .* only 200"):
        answer_questions(scorer, "medqa", [Question.model_validate(row) for row in questions("medqa", 2)])


def test_a_model_without_a_tokenizer_is_named(model):
    for path in folder_of(model).glob("tokenizer*"):
        path.unlink()
    with pytest.raises(InputError, match="has no tokenizer that can be loaded"), loaded_model(model, "cpu"):
        pass


def test_a_device_that_is_not_there_is_named(model, tmp_path):
    shutil.rmtree(tmp_path / "nothing", ignore_errors=True)
    if not torch.cuda.is_available():
        with (
            pytest.raises(InputError, match="device is cuda:3 but this machine has no usable GPU"),
            loaded_model(model, "cuda:3"),
        ):
            pass
