"""The planner: its memory model against what torch allocates, its arithmetic against the paper's."""

import json
import weakref
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoConfig, AutoModelForCausalLM

from components.common.errors import InputError
from components.train.modelling.loss import window_loss
from components.train.modelling.sharding import shard, synchronise_gradients
from components.train.planning.fit import as_set, find_fit
from components.train.planning.memory import (
    Checkpointing,
    Training,
    layer_activations,
    logits_bytes,
    peak_memory,
    saved_activations,
    sharded_states,
    usable_bytes,
)
from components.train.planning.node import parse_node
from components.train.planning.published import PAPER
from components.train.planning.shape import ModelShape, find_shape, read_shape
from components.train.planning.work import work_of
from components.train.settings import TrainSettings

GIB = 2**30
WINDOWS, CONTEXT = 4, 64
LLAMA_7B = "huggyllama/llama-7b"


def config(**changes: Any) -> dict[str, Any]:
    """A small LLaMA's."""
    values = {
        "model_type": "llama",
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "vocab_size": 256,
        "max_position_embeddings": 64,
    }
    return values | changes


def build(values: dict[str, Any], dtype: torch.dtype) -> torch.nn.Module:
    """The model that transformers makes of a config."""
    sizes = {name: value for name, value in values.items() if name != "model_type"}
    built = AutoModelForCausalLM.from_config(AutoConfig.for_model(values["model_type"], **sizes), dtype=dtype)
    return built.train()


# Shapes


@pytest.mark.parametrize(
    "values",
    [
        config(),
        config(num_key_value_heads=2, tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
        config(model_type="mistral", num_key_value_heads=1, head_dim=16),
        config(model_type="qwen2", num_key_value_heads=2),
        config(model_type="qwen3", num_key_value_heads=2, head_dim=64),
    ],
    ids=lambda values: values["model_type"],
)
def test_a_shape_has_as_many_parameters_as_the_model(values: dict[str, Any]) -> None:
    model = build(values, torch.float32)
    shape = read_shape("model", values)
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert shape.multiplied_parameters == shape.parameters - (0 if shape.tied else shape.vocabulary * shape.hidden)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        (LLAMA_7B, 6_738_415_616),
        ("huggyllama/llama-13b", 13_015_864_320),
        ("meta-llama/Meta-Llama-3-8B", 8_030_261_248),
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("Qwen/Qwen2.5-7B", 7_615_616_512),
        ("Qwen/Qwen3-8B-Base", 8_190_735_360),
    ],
)
def test_known_models_have_the_parameters_their_makers_count(name: str, parameters: int) -> None:
    assert find_shape(name).parameters == parameters


def test_a_local_folder_is_a_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config()))
    assert find_shape(str(tmp_path)).hidden == 128


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "is not the description of a model"),
        (json.dumps(config(model_type="gpt2")), "is of the type 'gpt2'"),
        (json.dumps(config(hidden_size="big")), "has no usable hidden_size in its config.json: 'big'"),
        (json.dumps(config(vocab_size=0)), "has no usable vocab_size in its config.json: 0"),
    ],
)
def test_a_config_that_says_no_shape_is_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(InputError, match=message):
        find_shape(str(tmp_path))


def test_an_unknown_model_is_named_with_the_known_ones() -> None:
    with pytest.raises(InputError, match=r"'acme/llm' is no folder with a config.json.*huggyllama/llama-7b"):
        find_shape("acme/llm")


# Nodes


def test_a_node_is_a_number_of_known_gpus() -> None:
    node = parse_node("8xa100-80gb")
    assert (node.gpus, node.gpu, node.peak_tflops) == (8, "A100-80GB", 312)
    assert 79 < node.memory_gib < 80


def test_an_unknown_gpu_needs_its_peak_and_its_memory() -> None:
    with pytest.raises(InputError, match=r"'B200' is not known; known are A100-40GB, .*--peak-tflops.*--memory-gb"):
        parse_node("8xB200", peak_tflops=2250)
    node = parse_node("8xB200", memory_gb=178, peak_tflops=2250)
    assert (node.gpus, node.gpu, node.memory_gib, node.peak_tflops) == (8, "B200", 178, 2250)


@pytest.mark.parametrize("text", ["A100-80GB", "0xA100-80GB", "8 A100-80GB", "8x", "-1xL40S-48GB", ""])
def test_a_node_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="has not the form 8xA100-80GB"):
        parse_node(text)


# Activations: the bytes that autograd keeps, to the byte


def kept_bytes(values: dict[str, Any], dtype: torch.dtype, compiled: bool) -> int:
    """Bytes that the decoder keeps for the backward pass, without weights."""
    model = build(values, dtype)
    if compiled:
        for layer in model.model.layers:
            layer.compile(fullgraph=True, backend="aot_eager_decomp_partition")  # the default's graphs, no C++ compiler
    weights = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        address = tensor.untyped_storage().data_ptr()
        if address not in weights:
            kept[address] = tensor
        return tensor

    tokens = torch.randint(values["vocab_size"], (WINDOWS, CONTEXT))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(input_ids=tokens, attention_mask=None, use_cache=False)
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=["bf16", "fp32"])
@pytest.mark.parametrize(
    "changes",
    [{}, {"num_key_value_heads": 2}, {"hidden_size": 256, "intermediate_size": 512}],
    ids=["equal heads", "grouped heads", "narrow"],
)
def test_a_layer_keeps_the_bytes_that_the_formula_says(
    changes: dict[str, Any], dtype: torch.dtype, compiled: bool
) -> None:
    torch.compiler.reset()
    two, four = (kept_bytes(config(**changes, num_hidden_layers=layers), dtype, compiled) for layers in (2, 4))
    said = layer_activations(read_shape("model", config(**changes)), dtype.itemsize, compiled)
    assert (four - two) / 2 / (WINDOWS * CONTEXT) == said


def test_a_layer_that_norms_its_heads_keeps_more() -> None:
    values = config(model_type="qwen3", num_key_value_heads=2, head_dim=64)
    two, four = (kept_bytes(values | {"num_hidden_layers": layers}, torch.bfloat16, False) for layers in (2, 4))
    said = layer_activations(read_shape("model", values), 2, compiled=False)
    assert (four - two) / 2 / (WINDOWS * CONTEXT) == said


# The fullest moment: the trainer's own sharding and loss, as one of eight processes whose exchange is played


class Watch(TorchDispatchMode):
    """Adds up the bytes of all tensors that are alive, after every operation."""

    def __init__(self, tensors: Iterable[torch.Tensor]) -> None:
        super().__init__()
        self.peak = 0
        self._alive: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._meet(tensors)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and look at what it took and gave."""
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, result))
        self._meet(leaf for leaf in leaves if isinstance(leaf, torch.Tensor) and leaf.device.type == "cpu")
        storages = [reference() for reference in list(self._alive.values())]
        self.peak = max(self.peak, sum(storage.nbytes() for storage in storages if storage is not None))
        return result

    def _meet(self, tensors: Iterable[torch.Tensor]) -> None:
        for tensor in tensors:
            storage = getattr(tensor, "_local_tensor", tensor).untyped_storage()
            key = id(storage)
            if key not in self._alive:
                self._alive[key] = weakref.ref(storage, lambda _, key=key: self._alive.pop(key, None))


@pytest.fixture(scope="module")
def eight() -> Iterator[SimpleNamespace]:
    """The first of eight processes, as far as sharding looks: weights are let go after the forward pass, as on GPUs."""
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=8)
    yield SimpleNamespace(world=8, device=torch.device("cuda"), mesh=init_device_mesh("cpu", (8,)))
    dist.destroy_process_group()


def measured_peak(values: dict[str, Any], training: Training, layout: SimpleNamespace) -> int:
    """Most bytes during the second step of training."""
    means = {} if training.checkpointing is None else {"activation_checkpointing": training.checkpointing}
    model = build(values, torch.float32)
    shard(model, TrainSettings(precision="bf16", **means), layout)  # type: ignore[arg-type]
    optimiser = torch.optim.AdamW(model.parameters(), fused=True)
    tokens = torch.randint(values["vocab_size"], (training.micro_batch, training.context))

    def step() -> None:
        passes = 2 if training.accumulates else 1
        for number in range(passes):
            synchronise_gradients(model, number == passes - 1)
            window_loss(model, tokens, tokens, training.chunk).backward()  # type: ignore[arg-type]
        optimiser.step()
        optimiser.zero_grad()

    step()
    moments = [tensor for state in optimiser.state.values() for tensor in state.values()]
    watch = Watch([*model.parameters(), *moments])
    with watch:
        step()
    return watch.peak


@pytest.mark.parametrize(
    ("changes", "micro_batch", "means"),
    [
        ({}, 1, {}),
        ({}, 8, {}),
        ({"num_key_value_heads": 2}, 8, {}),
        ({"vocab_size": 256}, 8, {}),
        ({"vocab_size": 16_000}, 1, {}),
        ({"vocab_size": 16_000, "tie_word_embeddings": True}, 1, {}),
        ({"vocab_size": 32_000, "tie_word_embeddings": True}, 1, {}),
        ({"vocab_size": 16_000, "tie_word_embeddings": True}, 8, {}),
        ({"hidden_size": 128, "num_hidden_layers": 12}, 8, {}),
        ({}, 2, {"accumulates": True}),
        ({}, 8, {"accumulates": True}),
        ({"vocab_size": 8192}, 16, {"chunk": 64}),
        ({}, 16, {"checkpointing": "selective"}),
        ({}, 16, {"checkpointing": "full"}),
    ],
)
def test_the_fullest_moment_is_within_a_tenth_of_what_torch_allocates(
    changes: dict[str, Any], micro_batch: int, means: dict[str, Any], eight: SimpleNamespace
) -> None:
    sizes = {"hidden_size": 256, "intermediate_size": 704, "num_hidden_layers": 6, "vocab_size": 2048}
    values = config(**(sizes | changes))
    training = Training(gpus=8, micro_batch=micro_batch, context=CONTEXT, compiled=False, **means)
    said = peak_memory(read_shape("model", values), training).total
    assert said == pytest.approx(measured_peak(values, training, eight), rel=0.1)


# LLaMA-7B, whose figures are known


@pytest.fixture(scope="module")
def llama() -> ModelShape:
    """LLaMA-7B."""
    return find_shape(LLAMA_7B)


def test_llama_7b_takes_what_is_known_of_it(llama: ModelShape) -> None:
    training = Training(gpus=8, micro_batch=16, context=512)
    assert layer_activations(llama, 2, compiled=False) / 1024 == pytest.approx(183, rel=0.01)
    assert layer_activations(llama, 2, compiled=True) / 1024 == pytest.approx(129, rel=0.01)
    assert saved_activations(llama, training) / GIB == pytest.approx(32, rel=0.02)
    assert sharded_states(llama, 8) / GIB == pytest.approx(12.6, rel=0.01)
    assert logits_bytes(llama, training) / GIB == pytest.approx(3, rel=0.05)


@pytest.mark.parametrize(
    ("node", "compiled", "micro_batch", "checkpointing"),
    [
        ("8xA100-80GB", True, 16, None),
        ("8xA100-80GB", False, 16, None),
        ("8xH200-141GB", False, 16, None),
        # Whole gradients between micro-batches (25 GiB) don't fit beside the rest: all windows at once, recomputed.
        ("8xA100-40GB", True, 16, "selective"),
        ("8xA100-40GB", False, 16, "full"),
    ],
)
def test_the_micro_batch_that_fits(
    llama: ModelShape, node: str, compiled: bool, micro_batch: int, checkpointing: Checkpointing
) -> None:
    fit = find_fit(llama, TrainSettings(compile=compiled), parse_node(node))
    assert fit.fits
    assert (fit.training.micro_batch, fit.training.checkpointing) == (micro_batch, checkpointing)


def test_what_a_gpu_cannot_hold_by_any_means_is_said_to_not_fit(llama: ModelShape) -> None:
    fit = find_fit(llama, TrainSettings(), parse_node("1xA100-80GB"))
    assert not fit.fits
    assert fit.memory.total > 12 * llama.parameters


def test_a_micro_batch_that_is_set_is_taken_as_it_is(llama: ModelShape) -> None:
    four = as_set(llama, TrainSettings(micro_batch_size=4), parse_node("8xA100-80GB"))
    assert four is not None
    assert (four.passes, four.training.accumulates) == (4, True)
    assert four.memory.accumulated == 4 * llama.parameters
    assert as_set(llama, TrainSettings(micro_batch_size="auto"), parse_node("8xA100-80GB")) is None


def test_a_batch_that_does_not_split_is_refused(llama: ModelShape) -> None:
    with pytest.raises(InputError, match="global_batch_size 128 does not split over 3 GPUs"):
        find_fit(llama, TrainSettings(), parse_node("3xA100-80GB"))
    with pytest.raises(InputError, match="8 each, which is not a multiple of micro_batch_size 16"):
        as_set(llama, TrainSettings(micro_batch_size=16), parse_node("16xA100-80GB"))


def test_not_all_of_a_gpus_memory_can_be_used() -> None:
    assert 70 < usable_bytes(79.2) / GIB < 75


# The paper's run


def test_the_papers_run_is_within_a_tenth_of_its_arithmetic(llama: ModelShape) -> None:
    work = work_of(llama, TrainSettings(), PAPER.documents)
    assert work.tokens == pytest.approx(12.3e9, rel=0.01)
    assert work.plan.steps == PAPER.steps == 187_500
    assert work.flops == pytest.approx(5.0e20, rel=0.1)
    assert work.flops == pytest.approx(PAPER.flops, rel=0.01)
    seconds = work.seconds(8 * 312e12 * 0.307)
    assert seconds / 3600 / 5 == pytest.approx(36, rel=0.1)
    assert work.tokens / seconds / 8 == pytest.approx(2370, rel=0.1)


def test_the_papers_own_figures_follow_from_its_timing_table() -> None:
    assert PAPER.tokens_per_second == pytest.approx(2370, rel=0.001)
    assert PAPER.mfu == pytest.approx(0.307, abs=0.001)


def test_packed_sampling_takes_every_token_once_an_epoch(llama: ModelShape) -> None:
    work = work_of(llama, TrainSettings(sampling="packed", epochs=1), documents=10, tokens=51_190)
    assert work.plan.windows == 100  # an end token before each document
    usual = work_of(llama, TrainSettings(sampling="packed", epochs=1), PAPER.documents)
    assert usual.tokens == pytest.approx(75e9, rel=0.001)


def test_mixed_sampling_takes_the_other_corpora_beside_the_first(llama: ModelShape) -> None:
    weights = {"s3://bucket/other/manifest.json": 1.0, "corpus": 3.0}  # the run's own is the first, however they lie
    mixed = TrainSettings(sampling="mixed", mixture=weights)
    assert work_of(llama, mixed, documents=3000).plan.windows == 4000
