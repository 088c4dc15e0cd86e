"""Base models of every kind, read slice by slice into their shards, and those that are refused."""

import json
import resource
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from modelling_helpers import in_two_processes, lora_settings, whole, windows, write_causal_model
from safetensors.torch import load_file, save_file
from train_helpers import VOCABULARY, tiny_settings
from transformers import AutoConfig, AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from components.common.errors import InputError
from components.train.modelling import weights
from components.train.modelling.load import check_fits, load_model

if TYPE_CHECKING:
    from components.train.distributed import Layout

WEIGHTS = "model.safetensors"


def reference(folder: Path) -> torch.nn.Module:
    """The model as transformers loads it."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa")


def change_weights(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Replace, add or (None) remove tensors of the only file; a double underscore stands for a dot."""
    kept = load_file(folder / WEIGHTS) | {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_file({name: tensor for name, tensor in kept.items() if tensor is not None}, folder / WEIGHTS)


def change_config(folder: Path, **values: Any) -> None:
    """Change keys of config.json."""
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("llama", {}),
        ("llama", {"dtype": "float16", "tie_word_embeddings": True}),
        ("llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0,
                                       "high_freq_factor": 4.0, "original_max_position_embeddings": 32}}),
        ("mistral", {"dtype": "bfloat16"}),
        ("mistral", {"sliding_window": 4}),
        ("qwen2", {}),
        ("qwen3", {"tie_word_embeddings": True}),
    ],
)  # fmt: skip
def test_every_llama_like_model_is_the_one_that_transformers_loads(
    tmp_path: Path, kind: str, changes: dict[str, Any], layout: "Layout"
) -> None:
    folder = write_causal_model(tmp_path, kind, **changes)
    expected = reference(folder).eval()
    tokens, _ = windows()
    model = load_model(folder, tiny_settings(), layout)
    assert model.training
    assert not model.config.use_cache
    assert {weight.dtype for weight in model.parameters()} == {torch.float32}
    loaded = dict(model.named_parameters())
    assert loaded.keys() == dict(expected.named_parameters()).keys()
    for name, weight in expected.named_parameters():
        assert torch.equal(whole(loaded[name]), weight), name
    for name, buffer in expected.named_buffers():
        assert torch.equal(model.get_buffer(name), buffer), name
    with torch.no_grad():
        logits = model(input_ids=tokens, attention_mask=None).logits
        assert torch.allclose(logits, expected(input_ids=tokens).logits, atol=1e-5)


def loaded_in_one_of_two(layout: "Layout", folder: Path) -> tuple[dict[str, torch.Tensor], int, int]:
    """The whole weights, and how many numbers this process read and keeps."""
    read: list[int] = []
    original = weights.StoredTensor.read

    def counted(self: weights.StoredTensor, rows: slice = slice(None)) -> torch.Tensor:
        tensor = original(self, rows)
        read.append(tensor.numel())
        return tensor

    weights.StoredTensor.read = counted  # type: ignore[method-assign]
    model = load_model(folder, tiny_settings(), layout)
    kept = sum(weight.to_local().numel() for weight in model.parameters())
    return {name: whole(weight) for name, weight in model.named_parameters()}, sum(read), kept


def test_two_processes_each_read_their_own_half_of_every_file(tmp_path: Path) -> None:
    # 65 and 33 rows: the halves are not equal.
    folder = write_causal_model(tmp_path, vocab_size=65, intermediate_size=33, max_shard_size="20KB")
    assert len(list(folder.glob("*.safetensors"))) > 2
    expected = dict(reference(folder).named_parameters())
    (first, *first_counts), (second, *second_counts) = in_two_processes(loaded_in_one_of_two, folder)
    for name, weight in expected.items():
        assert torch.equal(first[name], weight)
        assert torch.equal(second[name], weight)
    total = sum(weight.numel() for weight in expected.values())
    assert first_counts[0] == first_counts[1]  # not a number is read that is not kept
    assert second_counts[0] == second_counts[1]
    assert first_counts[0] + second_counts[0] == total
    assert first_counts[0] < 0.53 * total


def memory_of_loading(layout: "Layout", folder: Path) -> int:
    """Bytes by which the peak of this process's memory grows."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = load_model(folder, tiny_settings(), layout)
    assert model.num_parameters() > 20e6
    return 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)


def test_no_process_ever_holds_the_whole_model(tmp_path: Path) -> None:
    config = LlamaConfig(vocab_size=4000, hidden_size=512, intermediate_size=1376, num_hidden_layers=6)
    model = LlamaForCausalLM(config)
    model.save_pretrained(tmp_path)
    whole_bytes = 4 * model.num_parameters()
    for peak in in_two_processes(memory_of_loading, tmp_path):
        assert whole_bytes / 2 < peak < 0.8 * whole_bytes


def test_a_model_whose_file_holds_only_the_tied_twin_is_read(tmp_path: Path, layout: "Layout") -> None:
    folder = write_causal_model(tmp_path, tie_word_embeddings=True)
    embeddings = load_file(folder / WEIGHTS)["model.embed_tokens.weight"]
    change_weights(folder, model__embed_tokens__weight=None, lm_head__weight=embeddings)
    model = load_model(folder, tiny_settings(), layout)
    assert torch.equal(whole(model.get_input_embeddings().weight), embeddings)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_rotary_frequencies_in_an_old_file_are_passed_over(tmp_path: Path, layout: "Layout") -> None:
    folder = write_causal_model(tmp_path)
    change_weights(folder, model__layers__0__self_attn__rotary_emb__inv_freq=torch.ones(4))
    load_model(folder, tiny_settings(), layout)


def test_a_missing_tensor_is_named(tmp_path: Path, layout: "Layout") -> None:
    folder = write_causal_model(tmp_path)
    change_weights(folder, model__norm__weight=None)
    with pytest.raises(InputError, match=r"has no tensor model\.norm\.weight"):
        load_model(folder, tiny_settings(), layout)


def test_an_unexpected_tensor_is_named(tmp_path: Path, layout: "Layout") -> None:
    folder = write_causal_model(tmp_path)
    change_weights(folder, score__weight=torch.ones(2, 32))
    with pytest.raises(InputError, match=r"has a tensor score\.weight that its config\.json knows nothing of"):
        load_model(folder, tiny_settings(), layout)


def test_a_tensor_of_another_shape_is_named(tmp_path: Path, layout: "Layout") -> None:
    folder = write_causal_model(tmp_path)
    change_config(folder, intermediate_size=48)
    with pytest.raises(
        InputError, match=r"layers\.0\.mlp\.gate_proj\.weight .* shape \(64, 32\), .* asks for \(48, 32"
    ):
        load_model(folder, tiny_settings(), layout)


def test_tied_tensors_that_differ_are_named(tmp_path: Path, layout: "Layout") -> None:
    folder = write_causal_model(tmp_path)
    change_config(folder, tie_word_embeddings=True)
    with pytest.raises(InputError, match=r"model\.embed_tokens\.weight and lm_head\.weight differ"):
        load_model(folder, tiny_settings(), layout)


def test_a_damaged_file_is_named(tmp_path: Path, layout: "Layout") -> None:
    folder = write_causal_model(tmp_path)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])
    with pytest.raises(InputError, match=r"model\.safetensors cannot be read"):
        load_model(folder, tiny_settings(), layout)


def test_a_file_that_the_index_names_and_that_is_not_there_is_named(tmp_path: Path, layout: "Layout") -> None:
    folder = write_causal_model(tmp_path, max_shard_size="20KB")
    next(iter(sorted(folder.glob("*.safetensors")))).unlink()
    with pytest.raises(InputError, match="has no file model-00001-of-"):
        load_model(folder, tiny_settings(), layout)


@pytest.mark.parametrize("index", ["[]", "{", '{"weight_map": {"a": "../other/model.safetensors"}}'])
def test_an_index_that_is_none_or_leads_out_of_the_folder_is_refused(
    tmp_path: Path, index: str, layout: "Layout"
) -> None:
    folder = write_causal_model(tmp_path)
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(InputError, match=r"is no index|has no file \.\./other"):
        load_model(folder, tiny_settings(), layout)


def test_weights_of_whole_numbers_are_refused(tmp_path: Path, layout: "Layout") -> None:
    folder = write_causal_model(tmp_path)
    change_weights(folder, model__norm__weight=torch.ones(32, dtype=torch.int8))
    with pytest.raises(
        InputError, match=r"model\.norm\.weight in .* is of type I8: quantised weights cannot be trained"
    ):
        load_model(folder, tiny_settings(), layout)


def test_pickled_weights_are_refused(tmp_path: Path, layout: "Layout") -> None:
    folder = write_causal_model(tmp_path)
    torch.save(load_file(folder / WEIGHTS), folder / "pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(InputError, match="only read from safetensors, never from pickles"):
        load_model(folder, tiny_settings(), layout)
    with pytest.raises(InputError, match="only read from safetensors, never from pickles"):
        check_fits(folder, 16, VOCABULARY, 2)


@pytest.mark.parametrize("kind", ["bert", "mixtral", "qwen3_moe", "gpt2", "gemma2"])
def test_other_architectures_are_refused(tmp_path: Path, kind: str, layout: "Layout") -> None:
    AutoConfig.for_model(kind).save_pretrained(tmp_path)
    message = rf"of the type '{kind}'; only .*: llama, mistral, qwen2, qwen3"
    with pytest.raises(InputError, match=message):
        load_model(tmp_path, tiny_settings(), layout)
    with pytest.raises(InputError, match=message):
        check_fits(tmp_path, 16, VOCABULARY, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quantization_config": {"quant_method": "gptq"}}, "is quantised"),
        ({"vocab_size": "many"}, "says no vocab_size"),
        ({"num_attention_heads": 5}, "No model can be built"),
        ({"hidden_act": "none-such"}, "No model can be built"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(
    tmp_path: Path, values: dict[str, Any], message: str, layout: "Layout"
) -> None:
    folder = write_causal_model(tmp_path)
    change_config(folder, **values)
    with pytest.raises(InputError, match=message):
        load_model(folder, tiny_settings(), layout)


def test_no_configuration_at_all_is_refused(tmp_path: Path, layout: "Layout") -> None:
    folder = write_causal_model(tmp_path / "model")
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"no readable config\.json"):
        load_model(folder, tiny_settings(), layout)
    shutil.rmtree(folder)
    with pytest.raises(InputError, match=r"no readable config\.json"):
        load_model(folder, tiny_settings(), layout)


def test_a_corpus_that_does_not_belong_to_the_model_is_refused(tmp_path: Path) -> None:
    folder = write_causal_model(tmp_path)
    check_fits(folder, context=64, vocabulary_size=VOCABULARY, padding_id=VOCABULARY - 1)
    with pytest.raises(InputError, match=r"has 64 token embeddings, but .* vocabulary of 65"):
        check_fits(folder, context=64, vocabulary_size=65, padding_id=0)
    with pytest.raises(InputError, match="padded with id 64"):
        check_fits(folder, context=64, vocabulary_size=64, padding_id=64)
    with pytest.raises(InputError, match="context_length 65 exceeds the base model's 64 positions"):
        check_fits(folder, context=65, vocabulary_size=64, padding_id=0)


def test_frozen_weights_are_kept_in_the_precision_they_compute_in(tmp_path: Path, layout: "Layout") -> None:
    folder = write_causal_model(tmp_path, dtype="float16")
    model = load_model(folder, lora_settings(precision="bf16"), layout)
    stored = load_file(folder / WEIGHTS)
    for name, weight in model.named_parameters():
        if weight.requires_grad:
            assert weight.dtype == torch.float32
        else:
            assert torch.equal(whole(weight), stored[name.replace(".base_layer", "")].bfloat16())
