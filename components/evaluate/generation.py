"""Written answers: always the likeliest token next, many prompts at once, each until its own end.

Keys and values of what is there are kept, so that a step computes one token of each row; a row that has ended leaves
the batch, so that one long answer does not make the others wait for it in vain.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import DynamicCache

_CPU_CACHE_BYTES = 1 << 30
_SHARE_OF_FREE_MEMORY = 0.4


@dataclass
class Draft:
    """A prompt and the answer to it so far.

    Attributes:
        request: Whose it is.
        prompt: Token ids.
        limit: How many tokens the answer may have.
        ended: Whether an answer is at its end.
    """

    request: int
    prompt: list[int]
    limit: int
    ended: Callable[[Sequence[int]], bool]
    tokens: list[int] = field(default_factory=list)

    @property
    def extent(self) -> int:
        """The most tokens that there can be, of prompt and answer together."""
        return len(self.prompt) + self.limit

    @property
    def is_done(self) -> bool:
        """Whether nothing is added any more."""
        return len(self.tokens) >= self.limit or self.ended(self.tokens)


def write_answers(model: PreTrainedModel, drafts: Sequence[Draft]) -> list[list[int]]:
    """Return the tokens of each draft's answer, its end token included where there is one.

    Args:
        model: A causal language model.
        drafts: The batch; what an earlier pass over them left is written anew.
    """
    for draft in drafts:
        draft.tokens = []
    rows = list(drafts)
    longest = max(len(draft.prompt) for draft in rows)
    # Padded on the left, so that every row's next token comes at the same place; a mask hides the padding.
    padding = torch.tensor([longest - len(draft.prompt) for draft in rows])
    mask = (torch.arange(longest)[None] >= padding[:, None]).long().to(model.device)
    ids = torch.tensor([[0] * (longest - len(draft.prompt)) + draft.prompt for draft in rows], device=model.device)
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.inference_mode():
        while True:
            logits = model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            ).logits
            for draft, token in zip(rows, logits[:, -1].argmax(-1).tolist(), strict=True):
                draft.tokens.append(token)
            kept = [number for number, draft in enumerate(rows) if not draft.is_done]
            if not kept:
                return [draft.tokens for draft in drafts]
            if len(kept) < len(rows):
                index = torch.tensor(kept, device=model.device)
                cache.batch_select_indices(index)
                mask, positions = mask[index], positions[index]
                rows = [rows[number] for number in kept]
            ids = torch.tensor([draft.tokens[-1:] for draft in rows], device=model.device)
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            positions = positions[:, -1:] + 1


def make_batches(
    drafts: Sequence[Draft], prompt_tokens: int, cached: int, rows: int | None = None
) -> list[list[Draft]]:
    """Cut drafts into batches of prompts of like length, at least one each.

    Args:
        drafts: All of them.
        prompt_tokens: At most so many tokens of prompts at once.
        cached: At most so many tokens whose keys and values are kept.
        rows: At most so many at once as well.
    """
    batches: list[list[Draft]] = []
    longest_first = sorted(drafts, key=lambda draft: (-len(draft.prompt), draft.prompt))
    start = 0
    while start < len(longest_first):
        first = longest_first[start]
        largest = min(prompt_tokens // len(first.prompt), cached // first.extent, rows or len(drafts))
        batches.append(longest_first[start : start + max(1, largest)])
        start += max(1, largest)
    return batches


def tokens_cached(model: PreTrainedModel) -> int:
    """Return of how many tokens the keys and values may be kept on the model's device."""
    config = model.config.get_text_config()
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    each = 2 * config.num_hidden_layers * heads * width * model.dtype.itemsize
    if model.device.type != "cuda":
        return _CPU_CACHE_BYTES // each
    free, _ = torch.cuda.mem_get_info(model.device)
    return int(_SHARE_OF_FREE_MEMORY * free) // each
