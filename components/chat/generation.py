"""An answer, token by token."""

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any

import torch
from transformers import StoppingCriteria, TextStreamer, set_seed

from components.chat.messages import Sampling
from components.chat.served_model import ServedModel
from components.common.instructions import HEADINGS


@dataclass
class Answer:
    """An answer on its way: iterate over it for its text; what is known afterwards is filled in at the end.

    Attributes:
        pieces: Its text, as it comes.
        prompt_tokens: Given to the model.
        tokens: Made by it.
    """

    pieces: Iterator[str]
    prompt_tokens: int
    tokens: int = 0
    _ended: bool = False
    _stopped: threading.Event = field(default_factory=threading.Event)

    @property
    def finish_reason(self) -> str:
        """``stop`` when the answer ended by itself or at a stop, ``length`` when it was cut."""
        return "stop" if self._ended else "length"

    def end(self) -> None:
        """Stop the model: the answer is whole."""
        self._ended = True
        self._stopped.set()

    def __iter__(self) -> Iterator[str]:
        """Yield the text; whoever leaves early stops the model too."""
        try:
            yield from self.pieces
        finally:
            self._stopped.set()


class Generator:
    """Answers one request after the other: a second one waits for its turn."""

    def __init__(self, model: ServedModel) -> None:
        """Bind a loaded model."""
        self._model = model
        self._turn = threading.Lock()

    def answer(self, ids: Sequence[int], sampling: Sampling, templated: bool = True) -> Answer:
        """Begin an answer.

        Args:
            ids: The prompt.
            sampling: How it is drawn.
            templated: Whether the prompt is in the instruction template: then a heading of it ends the answer, and
                spaces before its first word are left out.
        """
        stops = [*sampling.stop, *(HEADINGS if templated else ())]
        answer = Answer(iter(()), prompt_tokens=len(ids))
        pieces = self._pieces(list(ids), sampling, answer)
        answer.pieces = until_stop(pieces, stops, answer.end, strip=templated)
        return answer

    def _pieces(self, ids: list[int], sampling: Sampling, answer: Answer) -> Iterator[str]:
        queue: SimpleQueue[str | BaseException | None] = SimpleQueue()
        with self._turn:
            worker = threading.Thread(target=self._generate, args=(ids, sampling, answer, queue), daemon=True)
            worker.start()
            try:
                while (piece := queue.get()) is not None:
                    if isinstance(piece, BaseException):
                        raise piece
                    yield piece
            finally:
                answer._stopped.set()
                worker.join()

    def _generate(
        self, ids: list[int], sampling: Sampling, answer: Answer, queue: "SimpleQueue[str | BaseException | None]"
    ) -> None:
        network, tokenizer = self._model.network, self._model.tokenizer
        given = torch.tensor([ids], device=network.device)
        # Without one, torch would draw the same numbers after each start.
        set_seed(secrets.randbits(32) if sampling.seed is None else sampling.seed % 2**32)
        drawn: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
        if sampling.temperature > 0:
            drawn = {"do_sample": True, "temperature": sampling.temperature, "top_p": sampling.top_p, "top_k": 0}
        try:
            with torch.inference_mode():
                made = network.generate(
                    given,
                    attention_mask=torch.ones_like(given),
                    max_new_tokens=sampling.max_tokens,
                    repetition_penalty=sampling.repetition_penalty,
                    pad_token_id=tokenizer.eos_token_id,
                    streamer=_Streamer(tokenizer, queue.put),
                    stopping_criteria=[_Stopped(answer._stopped)],
                    **drawn,
                )
            answer.tokens = made.shape[1] - len(ids)
            if int(made[0, -1]) == tokenizer.eos_token_id:
                answer.end()
            queue.put(None)
        except BaseException as error:  # noqa: BLE001 - told in the thread that waits for the answer
            queue.put(error)


def until_stop(
    pieces: Iterator[str], stops: Sequence[str], found: Callable[[], None], strip: bool = False
) -> Iterator[str]:
    """Yield a text up to the first of some stops; what may be the beginning of one is held back until it is clear.

    Args:
        pieces: The text in parts.
        stops: Texts that end it and are no part of it.
        found: Called when one was found.
        strip: Leave out the space before the first word, and after the last one.
    """
    held, begun = "", not strip
    for piece in pieces:
        held += piece
        if not begun:
            held = held.lstrip()
            begun = bool(held)
        ends = [place for stop in stops if (place := held.find(stop)) >= 0]
        if ends:
            found()
            held = held[: min(ends)]
            break
        safe = len(held) - _may_begin(held, stops, strip)
        if safe:
            yield held[:safe]
            held = held[safe:]
    rest = held.rstrip() if strip else held
    if rest:
        yield rest


def _may_begin(text: str, stops: Sequence[str], strip: bool) -> int:
    """How many characters of the end of a text may be the start of a stop, or space that is at the very end."""
    longest = max((len(stop) for stop in stops), default=0)
    for length in range(min(longest, len(text)), 0, -1):
        if any(stop.startswith(text[-length:]) for stop in stops):
            spaces = len(text[:-length]) - len(text[:-length].rstrip())
            return length + (spaces if strip else 0)
    return len(text) - len(text.rstrip()) if strip else 0


class _Streamer(TextStreamer):  # type: ignore[misc]
    """Hands over text as it becomes whole words."""

    def __init__(self, tokenizer: Any, put: Callable[[str], None]) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._put = put

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: ARG002
        if text:
            self._put(text)


class _Stopped(StoppingCriteria):  # type: ignore[misc]
    """Ends the generation when nobody listens any more."""

    def __init__(self, stopped: threading.Event) -> None:
        self._stopped = stopped

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:  # noqa: ARG002
        return torch.full((input_ids.shape[0],), self._stopped.is_set(), device=input_ids.device)
