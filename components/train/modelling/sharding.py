"""The model spread over all processes: FSDP2 per decoder layer, bf16 compute over fp32 weights, fp32 reduction."""

import torch
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from transformers import PreTrainedModel

from components.train.distributed import Layout
from components.train.modelling.loss import register_loss
from components.train.settings import TrainingSettings

COMPUTE_DTYPE = {"bf16": torch.bfloat16, "fp32": torch.float32}
_CHECKPOINT_EVERY = {None: 0, "selective": 2, "full": 1}


def shard(model: PreTrainedModel, settings: TrainingSettings, layout: Layout) -> None:
    """Checkpoint, compile and shard each decoder layer, then shard what is left: embeddings, last norm, head.

    A process that is alone and computes in fp32 keeps the plain model.

    Args:
        model: May be on the meta device: nothing is read or moved.
        settings: `precision`, `activation_checkpointing`, `compile`.
        layout: The processes.
    """
    _checkpoint_activations(model, _CHECKPOINT_EVERY[settings.activation_checkpointing])
    if settings.compile:
        for layer in model.get_decoder().layers:
            layer.compile(fullgraph=True)
    dtype = COMPUTE_DTYPE[settings.precision]
    # There is nothing to share out and nothing to convert for fp32 alone: FSDP would only copy weights and gradients.
    if layout.world > 1 or dtype != torch.float32:
        _spread(model, dtype, layout)
    register_loss(model)


def synchronise_gradients(model: torch.nn.Module, enabled: bool) -> None:
    """Decide whether the next backward pass adds up its gradients over all processes.

    Switched off for all but the last micro-batch of a step, a step costs one reduction. Until then every process
    holds a whole fp32 gradient of the trained weights: 4 bytes a parameter, which sharding does not divide.
    """
    if isinstance(model, FSDPModule):
        model.set_requires_gradient_sync(enabled)
        if next(model.parameters()).device.type == "cpu":
            model.set_reshard_after_backward(enabled)


def _spread(model: PreTrainedModel, dtype: torch.dtype, layout: Layout) -> None:
    # Reduction stays fp32: bf16 sums over many processes lose the small gradients.
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
    # On a CPU, memory is not what is short: gathered weights are kept from the forward to the backward pass.
    reshard = layout.device.type != "cpu"
    for layer in model.get_decoder().layers:
        fully_shard(layer, mesh=layout.mesh, mp_policy=policy, reshard_after_forward=reshard)
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, output_dtype=torch.float32)
    fully_shard(model, mesh=layout.mesh, mp_policy=policy, reshard_after_forward=False)


def _checkpoint_activations(model: PreTrainedModel, every: int) -> None:
    """Recompute every so many-th layer in the backward pass; 0: none."""
    if every == 0:
        return
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    for number, layer in enumerate(model.get_decoder().layers):
        layer.gradient_checkpointing = number % every == 0
