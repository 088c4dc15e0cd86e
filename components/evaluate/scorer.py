"""A faster model class behind lm-evaluation-harness, equal to its ``hf`` backend question by question.

lm-eval's backend computes logits and a log-softmax for every position of a prompt, although only the few tokens of an
option are scored, and every prompt anew. Here the output layer runs at those positions only, what prompts have in
common is computed once, and batches are cut by tokens. Tasks, prompts and metrics stay lm-eval's.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.utils import has_bos_prefix
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from components.common.errors import InputError
from components.common.progress import track
from components.evaluate.forward import Score, has_plain_head, score_rows
from components.evaluate.generation import Draft, tokens_cached, write_answers
from components.evaluate.generation import make_batches as make_draft_batches
from components.evaluate.memory import halving, tokens_at_once
from components.evaluate.rows import Group, Request, Row, make_batches, make_groups
from components.evaluate.shared_prefix import compute_prefix

_ENCODED_AT_ONCE = 1024
# Of the hidden size h: a token takes 2 FLOP for each of a layer's about 12 h^2 weights, and 4 h for each it attends to.
_TOKEN_COST = 6


class Scorer(HFLM):  # type: ignore[misc]
    """lm-eval's Hugging Face model that computes only what it needs.

    Attributes:
        truncated: Requests (prompt, option), or (prompt,) where an answer is written, that did not fit the model's
            context: their prompts lost the start.
        halved: How many batches did not fit into memory and went on in halves.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        batch_tokens: int | None = None,
        batch_size: int | None = None,
    ) -> None:
        """Wrap a loaded model.

        Args:
            model: On its device, ready to answer.
            tokenizer: The model's.
            batch_tokens: Tokens that go through the model at once; None finds a number for the device.
            batch_size: At most so many rows at once; None sets no limit.

        Raises:
            InputError: The tokenizer has more tokens than the model.
        """
        # lm-eval's own batch size counts where its own code runs: for families without a plain head.
        super().__init__(pretrained=model, tokenizer=tokenizer, batch_size=batch_size or 8, softmax_dtype="float32")
        self.truncated: set[tuple[str, ...]] = set()
        self.halved = 0
        self._rows_at_once = batch_size
        self._tokens_at_once = batch_tokens or tokens_at_once(model)
        self._encoded: dict[str, list[int]] = {}

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Score]:
        """Score requests; every string is encoded once and many at a time, each to what lm-eval makes of it."""
        pairs: list[Request] = []
        rest = iter(requests)
        while chunk := list(islice(rest, _ENCODED_AT_ONCE)):
            arguments = [request.args for request in chunk]
            if not all(context for context, _ in arguments):
                raise InputError("A question has an empty prompt; look at the benchmark's task.")
            self._encode([text for context, option in arguments for text in (context.rstrip(), context + option)])
            pairs += [(pair, *self._encode_pair(*pair)) for pair in arguments]
        self._encoded = {}
        return self._loglikelihood_tokens(pairs, disable_tqdm)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:  # noqa: ARG002
        """Write an answer to each request: the likeliest token next, up to its end, a stop or its longest length.

        Raises:
            InputError: A request wants answers to be drawn at random, or the tokenizer is not the model's.
        """
        drafts: list[Draft] = []
        rest = iter(enumerate(requests))
        while chunk := list(islice(rest, _ENCODED_AT_ONCE)):
            self._encode([request.args[0] for _, request in chunk])
            drafts += [self._draft(number, *request.args) for number, request in chunk]
        self._encoded = {}
        texts = [""] * len(requests)
        batches = make_draft_batches(drafts, self._tokens_at_once, tokens_cached(self.model), self._rows_at_once)
        for batch in track(batches, total=len(batches), label="Writing answers", unit="batches"):
            answers = halving(batch, partial(write_answers, self.model), self._halve, "prompt")
            for draft, tokens in zip(batch, answers, strict=True):
                prompt, how = requests[draft.request].args
                texts[draft.request] = self._text(tokens, how)
                self.cache_hook.add_partial("generate_until", (prompt, how), texts[draft.request])
        return texts

    def _draft(self, number: int, prompt: str, how: dict[str, Any]) -> Draft:
        if how.get("do_sample") or how.get("temperature"):
            raise InputError(f"Answers are drawn at random nowhere here, but the task wants {how}; set temperature: 0.")
        ids, wanted = self.tok_encode(prompt), int(how["max_gen_toks"])
        # Of a prompt that is too long the end counts; a quarter of the context is enough for an answer.
        room = self.max_length - min(wanted, self.max_length // 4)
        if len(ids) > room:
            self.truncated.add((prompt,))
        ids = ids[-room:]
        _check_ids([((prompt, ""), ids, [0])], self.model)
        limit = min(wanted, self.max_length - len(ids))
        return Draft(number, ids, limit, partial(self._ended, stops=tuple(how.get("until", ()))))

    def _ended(self, tokens: Sequence[int], stops: tuple[str, ...]) -> bool:
        if tokens[-1:] and tokens[-1] == self.eot_token_id:
            return True
        # A token of a stop has at least a character of it.
        tail = list(tokens[-max(map(len, stops), default=0) :])
        return bool(stops) and any(stop in self.tokenizer.decode(tail, skip_special_tokens=True) for stop in stops)

    def _text(self, tokens: list[int], how: dict[str, Any]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True)
        return text[: min((place for stop in how.get("until", ()) if (place := text.find(stop)) >= 0), default=None)]

    def tok_encode(self, string: str, *args: object, **kwargs: object) -> list[int]:
        """Encode a string, or take what was made of it a moment ago."""
        if not args and not kwargs and string in self._encoded:
            return self._encoded[string]
        encoded: list[int] = super().tok_encode(string, *args, **kwargs)
        return encoded

    def _encode(self, strings: list[str]) -> None:
        """Encode strings in one go, under the same rule for special tokens as lm-eval's ``tok_encode``."""
        begins = self.tokenizer.decode(self.prefix_token_id)
        self._encoded = {}
        for marked in (False, True):
            alike = list(dict.fromkeys(text for text in strings if bool(has_bos_prefix(text, begins)) == marked))
            special = False if marked else self.add_bos_token
            options = {} if special is None else {"add_special_tokens": special}
            if alike:
                ids = self.tokenizer(alike, return_attention_mask=False, verbose=False, **options).input_ids
                self._encoded |= dict(zip(alike, ids, strict=True))

    def _loglikelihood_tokens(
        self, requests: list[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[Score]:
        _check_ids(requests, self.model)
        self.truncated |= {
            pair for pair, context, option in requests if len(context) + len(option) > self.max_length + 1
        }
        if not has_plain_head(self.model):
            results: list[Score] = super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
            return results
        scores: list[Score] = [(0.0, False)] * len(requests)
        config = self.model.config
        window, cost = getattr(config, "sliding_window", None), _TOKEN_COST * config.hidden_size
        groups = make_groups(requests, self.max_length, window, cost)
        total = sum(len(group.rows) for group in groups)
        for done in track(self._score(groups), total=total, label="Scoring", unit="prompts"):
            for index, score in done:
                scores[index] = score
                self.cache_hook.add_partial("loglikelihood", requests[index][0], score)
        return scores

    def _score(self, groups: Sequence[Group]) -> Iterator[list[tuple[int, Score]]]:
        """Yield the scores of each row's options."""
        for group in groups:
            prefix = compute_prefix(self.model, group.prefix) if group.prefix else None
            run = partial(self._run, prefix=prefix)
            for batch in make_batches(group, self._tokens_at_once, self._rows_at_once):
                scores = halving(batch, run, self._halve, "prompt")
                yield from _by_row(batch, scores)

    def _run(self, rows: Sequence[Row], prefix: object) -> list[tuple[int, Score]]:
        return list(score_rows(self.model, rows, prefix))

    def _halve(self) -> None:
        self.halved += 1


def _by_row(rows: Sequence[Row], scores: Sequence[tuple[int, Score]]) -> Iterator[list[tuple[int, Score]]]:
    rest = iter(scores)
    for row in rows:
        yield list(islice(rest, len(row.options)))


def _check_ids(requests: Sequence[Request], model: PreTrainedModel) -> None:
    size = model.get_input_embeddings().num_embeddings
    for (context, _), tokens, option in requests:
        if max(max(tokens), max(option)) >= size:
            raise InputError(
                f"The tokenizer gives token {max(max(tokens), max(option))} for the prompt that ends in "
                f"{context[-40:]!r} but the model has only {size}: it is not this model's tokenizer."
            )
