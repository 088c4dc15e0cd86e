"""What training takes of a GPU's memory, from the shape of the model: bytes, by what they hold, at the fullest moment.

The counts are those of this trainer: fp32 weights, gradients and AdamW's moments, sharded over all GPUs (FSDP2, one
group per decoder layer and one for what is outside of them); gathered weights and activations in the precision of
computation. They are tested against what torch allocates. What a GPU cannot give to tensors (CUDA's context, NCCL's
buffers, gaps between blocks) is set aside by `usable_bytes`.
"""

from dataclasses import dataclass
from typing import Literal

from components.train.planning.shape import ModelShape

_FP32 = 4
_NOT_FOR_TENSORS = 1.5 * 2**30  # CUDA's context and NCCL's buffers
_GAPS = 0.06  # part of the memory that is lost between the allocator's blocks

Checkpointing = Literal["selective", "full"] | None


@dataclass(frozen=True)
class Training:
    """How a model is trained, as far as it takes memory.

    Attributes:
        gpus: Over which states are sharded.
        micro_batch: Windows in one forward and backward pass of one GPU.
        context: Tokens in a window.
        compiled: Whether decoder layers are compiled.
        checkpointing: Which layers recompute their activations: none, every second one, all.
        chunk: Tokens whose logits are there at a time; none: all of the micro-batch's.
        accumulates: Whether a step takes more than one micro-batch, between which gradients are not exchanged.
        number: Bytes of a number in computation: 2 for bf16, 4 for fp32.
    """

    gpus: int
    micro_batch: int
    context: int
    compiled: bool = True
    checkpointing: Checkpointing = None
    chunk: int | None = None
    accumulates: bool = False
    number: int = 2

    @property
    def tokens(self) -> int:
        """In a micro-batch."""
        return self.micro_batch * self.context


@dataclass(frozen=True)
class Memory:
    """Bytes on one GPU at the fullest moment of a step.

    Attributes:
        states: Sharded fp32 weights and AdamW's two moments.
        gathered: Weights of the layers at work, and of what is outside of layers, whole and in compute precision.
        activations: Kept from the forward for the backward pass, or computed again.
        logits: The loss's, with their gradients.
        gradients: Sharded fp32 ones that are there at that moment, and those of layers at work, whole.
        accumulated: Whole fp32 gradients, kept from micro-batch to micro-batch.
    """

    states: float
    gathered: float
    activations: float
    logits: float
    gradients: float
    accumulated: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.states + self.gathered + self.activations + self.logits + self.gradients + self.accumulated


def peak_memory(shape: ModelShape, training: Training) -> Memory:
    """What one GPU holds at the fullest moment of a step.

    That is where the loss's gradient is computed and everything is there, or in the backward pass of the last layer or
    of the one before, with gradients on their way, or at its end, with all gradients there and the outer ones whole.
    """
    states = 3 * _FP32 * shape.parameters / training.gpus
    outer, layer = training.number * shape.outer_parameters, training.number * shape.layer_parameters
    gathered = outer + 2 * layer  # one at work, the next one on its way
    saved = saved_activations(shape, training)
    each = saved / shape.layers
    again = recomputed_activations(shape, training)
    head = training.number * shape.embedding_parameters
    reducing = _FP32 * shape.layer_parameters  # cast for the exchange
    shards = _FP32 * shape.layer_parameters / training.gpus
    accumulated = _FP32 * shape.parameters * training.accumulates
    at_work = layer + _gradients_at_work(shape, training) + head
    twice = head * shape.tied  # a tied table has a gradient as output projection and one of its lookups
    moments = [
        Memory(states, gathered, saved, logits_bytes(shape, training), 0, accumulated),
        Memory(states, gathered, saved + again, 0, at_work, accumulated),
        Memory(states, gathered, saved - each + again, 0, at_work + reducing + shards, accumulated),
        Memory(states, gathered, each + again, 0, at_work + reducing + (shape.layers - 1) * shards, accumulated),
        Memory(states, 0, 0, 0, outer + twice + _FP32 * shape.outer_parameters + shape.layers * shards, accumulated),
    ]
    return max(moments, key=lambda moment: moment.total)


def sharded_states(shape: ModelShape, gpus: int) -> float:
    """Bytes of fp32 weights, gradients and both moments on one GPU: 16 a parameter."""
    return 4 * _FP32 * shape.parameters / gpus


def usable_bytes(memory_gib: float) -> float:
    """What tensors can have of a GPU's memory."""
    return memory_gib * 2**30 * (1 - _GAPS) - _NOT_FOR_TENSORS


def layer_activations(shape: ModelShape, number: int, compiled: bool) -> int:
    """Bytes a token and layer that the forward pass keeps for the backward pass.

    As transformers computes a layer, every norm keeps its input in fp32, its normalised input and its output; attention
    keeps queries, keys, values and its output; the feed-forward block the outputs of both projections, the activated
    one and their product. Compiled, norms keep input and output in the precision of computation, and the activated
    projection is computed again. Two fp32 numbers are the norms' own, and one a head is attention's.
    """
    attention = number * (2 * shape.query_width + 2 * shape.key_value_width)
    own = _FP32 * (2 + shape.heads)
    head_norms = (shape.query_width + shape.key_value_width) * shape.normed_heads
    head_scales = _FP32 * (shape.heads + shape.key_value_heads) * shape.normed_heads
    if compiled:
        norms = 4 * number * shape.hidden + number * head_norms
        return attention + norms + 3 * number * shape.intermediate + own + head_scales
    norms = 2 * (_FP32 + 2 * number) * shape.hidden + (_FP32 + number) * head_norms
    return attention + norms + 4 * number * shape.intermediate + own + head_scales


def saved_activations(shape: ModelShape, training: Training) -> float:
    """Bytes of activations at the end of the forward pass; of a checkpointed layer that is its input."""
    recomputed = {None: 0, "selective": (shape.layers + 1) // 2, "full": shape.layers}[training.checkpointing]
    whole = layer_activations(shape, training.number, training.compiled)
    layers = (shape.layers - recomputed) * whole + recomputed * training.number * shape.hidden
    last_norm = (_FP32 + 2 * training.number) * shape.hidden
    return training.tokens * float(layers + last_norm)


def recomputed_activations(shape: ModelShape, training: Training) -> float:
    """Bytes of the activations of the one checkpointed layer that is computed again."""
    if training.checkpointing is None:
        return 0.0
    return float(training.tokens * layer_activations(shape, training.number, training.compiled))


def logits_bytes(shape: ModelShape, training: Training) -> float:
    """Bytes that the loss takes: three times the logits in fp32, as log-probabilities, their gradient and its input.

    In chunks only those of a chunk are there, but then the head's gradient is summed up, in fp32, at that moment.
    """
    if training.chunk is None or training.chunk >= training.tokens:
        return 3.0 * _FP32 * shape.vocabulary * training.tokens
    head = (_FP32 + training.number) * shape.embedding_parameters
    hidden = training.number * shape.hidden * training.tokens
    return 3.0 * _FP32 * shape.vocabulary * training.chunk + head + hidden


def _gradients_at_work(shape: ModelShape, training: Training) -> float:
    """Bytes of the gradients of one layer's activations that are there at a time: four as wide as the feed-forward."""
    return 4.0 * training.number * shape.intermediate * training.tokens
