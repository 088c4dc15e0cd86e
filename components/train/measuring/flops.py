"""How many floating point operations a trained token takes; no torch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def flops_per_token(trained: int, frozen: int, layers: int, attention_width: int, context: int) -> float:
    """FLOPs of the forward and backward pass for one token: 6 N + 12 L H Q T, with 4 for every frozen parameter.

    A parameter is multiplied once in the forward pass and twice in the backward pass, by the gradient for the layer
    before and for its own gradient; frozen ones, under low-rank adapters, need no gradient of their own. Recomputed
    activations are not counted, nor is it deducted that attention is causal: that is how model FLOPs utilisation is
    defined in PaLM (arXiv 2204.02311, appendix B). The table that input embeddings are looked up in is no part of N,
    because a lookup multiplies nothing; a tied one counts once, as output projection. For LLaMA-7B at a context of 512
    that takes 2% off and the attention term adds 2%: the count is 6 times all parameters, as the paper's figures are.

    Args:
        trained: Parameters that get a gradient, without the embedding table.
        frozen: Parameters that get none, without the embedding table.
        layers: Decoder layers, L.
        attention_width: Heads times the dimension of a head, H Q.
        context: Tokens in a window, T.
    """
    return float(6 * trained + 4 * frozen + 12 * layers * attention_width * context)


def model_flops_per_token(model: "PreTrainedModel", context: int) -> float:
    """`flops_per_token` of a loaded model, sharded or not, with adapters or not."""
    config = model.config
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    looked_up = None if config.tie_word_embeddings else model.get_input_embeddings().weight
    parts = [parameter for parameter in model.parameters() if parameter is not looked_up]
    trained = sum(part.numel() for part in parts if part.requires_grad)
    frozen = sum(part.numel() for part in parts) - trained
    return flops_per_token(trained, frozen, config.num_hidden_layers, config.num_attention_heads * head, context)
