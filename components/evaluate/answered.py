"""Answers on their way: what a model has answered is kept in the store, so that an interrupted run asks only the rest.

lm-eval tells its cache about every answer (``CacheHook``); here that cache is a folder of small files, each written
whole. The folder lies below the evaluation's fingerprint, so it only ever holds answers of the same model to the same
settings, and it is deleted when the finished results are stored.
"""

import json
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import sha256_bytes

log = logging.getLogger(__name__)

Score = tuple[float, bool]
Result = Score | str
"""What a model answers: an option's log-likelihood in nats and whether it is the greedy choice, or a text."""

Request = Sequence[Any]
"""A prompt and an option, or a prompt and how to go on from it, as lm-eval passes them."""


class _Stored(BaseModel):
    """A line of a part: the answer to one request, which is known by the hash of its strings."""

    model_config = ConfigDict(frozen=True)

    request: str
    loglikelihood: float | None = None
    greedy: bool = False
    text: str | None = None
    truncated: bool

    @model_validator(mode="after")
    def _has_one_result(self) -> "_Stored":
        if (self.loglikelihood is None) == (self.text is None):
            raise ValueError("an answer has either a log-likelihood or a text")
        return self

    @property
    def result(self) -> Result:
        if self.loglikelihood is None:
            return str(self.text)
        return self.loglikelihood, self.greedy


class Answered:
    """The answers of one benchmark so far, in memory and in the store."""

    def __init__(self, folder_uri: str, save_seconds: float) -> None:
        """Read what an earlier run left.

        Args:
            folder_uri: Where the parts lie.
            save_seconds: New answers go to the store this often.

        Raises:
            InputError: A part is not what this class writes.
            StorageError: The store refuses.
        """
        self._folder, self._seconds = folder_uri, save_seconds
        self._answers = {line.request: line for entry in storage.list_files(folder_uri) for line in _read(entry.uri)}
        self._new: list[_Stored] = []
        self._saved = time.monotonic()

    def __len__(self) -> int:
        """Return how many answers there are."""
        return len(self._answers)

    @property
    def truncated(self) -> int:
        """How many of the requests lost the start of their prompt."""
        return sum(answer.truncated for answer in self._answers.values())

    def get(self, request: Request) -> Result | None:
        """Return the answer to a request, if there is one."""
        answer = self._answers.get(_key(request))
        return None if answer is None else answer.result

    def add(self, request: Request, result: Result, truncated: bool) -> None:
        """Keep an answer, and write the new ones to the store when it is time."""
        fields = {"text": result} if isinstance(result, str) else {"loglikelihood": result[0], "greedy": result[1]}
        answer = _Stored.model_validate({"request": _key(request), "truncated": truncated} | fields)
        self._answers[answer.request] = answer
        self._new.append(answer)
        if time.monotonic() - self._saved >= self._seconds:
            self.save()

    def save(self) -> None:
        """Write the answers that are not in the store yet, as one file."""
        if self._new:
            lines = "".join(answer.model_dump_json() + "\n" for answer in self._new)
            # Named by its first answer: two runs never write different parts under one name.
            storage.write(storage.join(self._folder, f"{self._new[0].request}.jsonl"), lines.encode())
        self._new, self._saved = [], time.monotonic()

    def delete(self) -> None:
        """Delete the parts; the finished results are stored."""
        storage.delete_prefix(self._folder)


class Resuming:
    """A model for lm-eval that asks another one only what is not answered yet."""

    def __init__(self, lm: LM, answered: Answered) -> None:
        """Put what is answered before a model whose ``truncated`` names the requests that lost their start."""
        self._lm, self._answered = lm, answered

    def __getattr__(self, name: str) -> Any:
        """Be the other model in everything else."""
        return getattr(self._lm, name)

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = False) -> list[Score]:
        """Score the requests that have no answer yet, and return the scores of all."""
        return self._all(requests, self._lm.loglikelihood, disable_tqdm)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Write the answers that are not there yet, and return all."""
        return self._all(requests, self._lm.generate_until, disable_tqdm)

    def _all(self, requests: list[Instance], ask: Callable[..., list[Any]], disable_tqdm: bool) -> list[Any]:
        missing = [request for request in requests if self._answered.get(request.args) is None]
        if len(missing) < len(requests):
            log.info("%d of %d requests are answered already", len(requests) - len(missing), len(requests))
        self._lm.set_cache_hook(self)
        try:
            fresh = ask(missing, disable_tqdm=disable_tqdm) if missing else []
        finally:
            self._lm.set_cache_hook(_Nothing())
            self._answered.save()
        new = {_key(request.args): result for request, result in zip(missing, fresh, strict=True)}
        return [new.get(_key(request.args)) or self._answered.get(request.args) for request in requests]

    def add_partial(self, _: str, request: Request, result: Result) -> None:
        """Take an answer: what lm-eval's models call as soon as they have one."""
        strings = tuple(part for part in request if isinstance(part, str))  # how to go on is a dict
        self._answered.add(request, result, strings in self._lm.truncated)


class _Nothing:
    """A cache that keeps nothing."""

    def add_partial(self, *_: Any) -> None:
        """Do nothing."""


def _key(request: Request) -> str:
    return sha256_bytes(json.dumps(list(request)).encode())


def _read(uri: str) -> list[_Stored]:
    try:
        return [_Stored.model_validate_json(line) for line in storage.read(uri).splitlines()]
    except ValidationError as error:
        raise InputError(f"{uri} holds no answers of an interrupted evaluation; delete it.") from error
