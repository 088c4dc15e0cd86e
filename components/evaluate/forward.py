"""One forward pass: a batch of rows, and the output layer at the places that are scored."""

from collections.abc import Iterator, Sequence

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from components.evaluate.last_layer import can_narrow, only_at
from components.evaluate.on_cpu import quick_on_cpu
from components.evaluate.rows import Row

# Families whose logits are exactly the output embedding applied to the last hidden state (no scaling, no capping).
_PLAIN_HEADS = frozenset({"llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox"})
# Logits of so many places exist at once: 128 MiB at a vocabulary of 32,000.
_PLACES_AT_ONCE = 1024

Score = tuple[float, bool]


def has_plain_head(model: PreTrainedModel) -> bool:
    """Whether logits can be computed from hidden states at some positions alone."""
    return model.config.model_type in _PLAIN_HEADS


def score_rows(model: PreTrainedModel, rows: Sequence[Row], prefix: Cache | None) -> Iterator[tuple[int, Score]]:
    """Yield, for every option of some rows, its request and (log-likelihood in nats, is the greedy choice).

    Args:
        model: A model with a plain head.
        rows: The batch.
        prefix: The beginning that comes before each row.
    """
    options = [(index, option) for index, row in enumerate(rows) for option in row.options]
    # Options of one token are all predicted at the same place, whose logits are computed once.
    scored = [sorted({place for option in row.options for place in option.places}) for row in rows]
    places = [(index, place) for index, each in enumerate(scored) for place in each]
    numbered = {place: number for number, place in enumerate(places)}
    numbers = torch.tensor([numbered[index, place] for index, option in options for place in option.places])
    targets = torch.tensor([token for _, option in options for token in option.tokens])
    with torch.inference_mode(), quick_on_cpu(model):
        hidden = _hidden_states(model, rows, scored, prefix)
        chosen, greedy = _log_likelihoods(model, hidden, numbers, targets)
    offset = 0
    for _, option in options:
        span = slice(offset, offset + len(option.tokens))
        offset = span.stop
        yield option.request, (float(chosen[span].sum()), bool(greedy[span].all()))


def window_losses(model: PreTrainedModel, windows: Sequence[Sequence[int]]) -> list[float]:
    """Return for each window the sum of its tokens' negative log-likelihoods (nats), the first token given.

    Args:
        model: Any causal language model.
        windows: Token ids, at least two each.
    """
    inputs = _padded(windows).to(model.device)
    rows = torch.tensor([row for row, window in enumerate(windows) for _ in window[1:]])
    columns = torch.tensor([column for window in windows for column in range(len(window) - 1)])
    targets = torch.tensor([token for window in windows for token in window[1:]])
    numbers = torch.arange(len(targets))
    with torch.inference_mode(), quick_on_cpu(model):
        if has_plain_head(model):
            states = model.base_model(input_ids=inputs, use_cache=False).last_hidden_state[rows, columns]
            chosen, _ = _log_likelihoods(model, states, numbers, targets)
        else:
            logits = model(input_ids=inputs, use_cache=False).logits[rows, columns]
            chosen = _chosen(logits, numbers.to(logits.device), targets.to(logits.device))[0].cpu()
    # Summed in float64 on the host, so that the order of windows does not show in the result.
    return [-float(part.double().sum()) for part in chosen.split([len(window) - 1 for window in windows])]


def _hidden_states(
    model: PreTrainedModel, rows: Sequence[Row], scored: Sequence[list[int]], prefix: Cache | None
) -> torch.Tensor:
    """The last hidden state at each scored place of each row, one after another."""
    # Padded on the right: no token sees what comes after it.
    inputs = {"input_ids": _padded([row.tokens for row in rows]).to(model.device)}
    if not all(row.is_plain for row in rows):
        before = prefix.get_seq_length() if prefix is not None else 0
        inputs["position_ids"] = (_padded([row.positions for row in rows]) + before).to(model.device)
        inputs["attention_mask"] = _mask(model, rows, before)
    places = _padded(scored).to(model.device)
    rest = {**inputs, "past_key_values": prefix, "use_cache": prefix is not None}
    if can_narrow(model):
        with only_at(model, places, prefix):
            states = model.base_model(**rest).last_hidden_state
    else:
        states = model.base_model(**rest).last_hidden_state.gather(
            1, places[:, :, None].expand(-1, -1, model.config.hidden_size)
        )
    kept = torch.arange(places.shape[1]) < torch.tensor([len(each) for each in scored])[:, None]
    picked: torch.Tensor = states[kept.to(model.device)]
    return picked


def _mask(model: PreTrainedModel, rows: Sequence[Row], before: int) -> torch.Tensor:
    """What each token of a row attends to: the beginning, its prompt and its own branch, up to itself."""
    longest = max(len(row.tokens) for row in rows)
    causal = torch.ones(longest, longest, dtype=torch.bool).tril()
    masks = torch.stack([causal] * len(rows))
    for mask, row in zip(masks, rows, strict=True):
        start = row.stem
        for branch in row.branches:
            mask[start : start + branch, row.stem : start] = False
            start += branch
    masks = torch.cat([torch.ones(len(rows), longest, before, dtype=torch.bool), masks], dim=2)[:, None]
    masks = masks.to(model.device)
    if model.config._attn_implementation == "sdpa":
        return masks
    return torch.zeros_like(masks, dtype=model.dtype).masked_fill_(~masks, torch.finfo(model.dtype).min)


def _log_likelihoods(
    model: PreTrainedModel, hidden: torch.Tensor, numbers: torch.Tensor, targets: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each target at the hidden state of its number, and whether it is the likeliest; on the host.

    The softmax is in float32: in bfloat16 the log-likelihoods of two options are often equal, and the answer would be
    whichever option comes first.
    """
    head = model.get_output_embeddings()
    chosen, greedy = torch.empty(len(targets)), torch.empty(len(targets), dtype=torch.bool)
    for start in range(0, len(hidden), _PLACES_AT_ONCE):
        here = (numbers >= start) & (numbers < start + _PLACES_AT_ONCE)
        logits = head(hidden[start : start + _PLACES_AT_ONCE])
        found = _chosen(logits, (numbers[here] - start).to(logits.device), targets[here].to(logits.device))
        chosen[here], greedy[here] = found[0].cpu(), found[1].cpu()
    return chosen, greedy


def _chosen(logits: torch.Tensor, numbers: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    logarithms = torch.log_softmax(logits, dim=-1, dtype=torch.float32)
    return logarithms[numbers, targets], logits.argmax(dim=-1)[numbers] == targets


def _padded(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    longest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])
