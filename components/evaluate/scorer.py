"""A faster model class behind lm-evaluation-harness, equal to its ``hf`` backend question by question.

lm-eval's backend computes logits and a log-softmax for every position of a prompt, although only the few tokens of an
option are scored. Here the output layer runs at those positions only, and options of one question share a forward
pass where one's input is the beginning of another's. Tasks, prompts and metrics stay lm-eval's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from lm_eval.models.huggingface import HFLM
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from components.common.progress import track

Request = tuple[tuple[str, str], list[int], list[int]]

# Families whose logits are exactly the output embedding applied to the last hidden state (no scaling, no capping).
_PLAIN_HEADS = frozenset({"llama", "mistral", "qwen2", "qwen3", "gpt2", "gpt_neox"})


class Scorer(HFLM):  # type: ignore[misc]
    """lm-eval's Hugging Face model that computes only the logits it needs.

    Attributes:
        truncated: How many scored options did not fit the model's context and lost the start of their prompt.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, batch_size: int) -> None:
        """Wrap a loaded model.

        The softmax is in float32: in bfloat16 the log-likelihoods of two options are often equal, and the answer would
        be whichever option comes first.
        """
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32")
        self.truncated = 0

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        self.truncated = sum(len(context) + len(option) > self.max_length + 1 for _, context, option in requests)
        if self.config.model_type not in _PLAIN_HEADS:
            results: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
            return results
        scores: list[tuple[float, bool]] = [(0.0, False)] * len(requests)
        rows = _shared_rows(requests, self.max_length)
        batches = [rows[start : start + self.batch_size] for start in range(0, len(rows), self.batch_size)]
        for batch in track(batches, total=len(batches), label="Scoring", unit="batches"):
            for index, score in self._score(batch):
                scores[index] = score
        return scores

    def _score(self, rows: Sequence["_Row"]) -> Iterator[tuple[int, tuple[float, bool]]]:
        """Yield (request, (log-likelihood, is the greedy choice)) for every option of some rows."""
        longest = max(len(row.tokens) for row in rows)
        # Padded on the right like lm-eval's: a causal model never sees what comes after a position.
        padded = torch.tensor([[*row.tokens, *[0] * (longest - len(row.tokens))] for row in rows], device=self.device)
        options = [(place, option) for place, row in enumerate(rows) for option in row.options]
        places = [place for place, option in options for _ in option.tokens]
        positions = [option.start + step for _, option in options for step in range(len(option.tokens))]
        targets = torch.tensor([token for _, option in options for token in option.tokens], device=self.device)
        with torch.inference_mode():
            hidden = self.model.base_model(input_ids=padded, use_cache=False).last_hidden_state
            logits = self.model.get_output_embeddings()(hidden[places, positions])
            log_probabilities = torch.log_softmax(logits, dim=-1, dtype=self.softmax_dtype)
            chosen = log_probabilities.gather(1, targets[:, None])[:, 0].cpu()
            greedy = (logits.argmax(dim=-1) == targets).cpu()
        offset = 0
        for _, option in options:
            span = slice(offset, offset + len(option.tokens))
            offset = span.stop
            yield option.request, (float(chosen[span].sum()), bool(greedy[span].all()))


@dataclass(frozen=True)
class _Option:
    """One request within a row: its tokens are predicted from position ``start`` on."""

    request: int
    start: int
    tokens: list[int]


@dataclass
class _Row:
    """One sequence of tokens that goes through the model, with the options it scores."""

    tokens: tuple[int, ...]
    options: list[_Option] = field(default_factory=list)


def _shared_rows(requests: Sequence[Request], max_length: int) -> list[_Row]:
    """Put options with a common input into one row; longest rows first, so that a batch is padded little."""
    inputs = [tuple((context + option)[-(max_length + 1) : -1]) for _, context, option in requests]
    rows: list[_Row] = []
    # In descending order every sequence comes right after those that begin with it.
    for index in sorted(range(len(requests)), key=lambda i: inputs[i], reverse=True):
        tokens, option = inputs[index], requests[index][2]
        if not rows or rows[-1].tokens[: len(tokens)] != tokens:
            rows.append(_Row(tokens))
        rows[-1].options.append(_Option(index, len(tokens) - len(option), option))
    return sorted(rows, key=lambda row: len(row.tokens), reverse=True)
