"""A conversation as the token ids that a model goes on from."""

from collections.abc import Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from components.chat.messages import Message
from components.common.errors import InputError
from components.common.instructions import DOCTOR, Instruction


@dataclass(frozen=True)
class Prompt:
    """What the model is given.

    Attributes:
        ids: Its tokens.
        forgotten: How many earlier exchanges did not fit and were left out, the oldest first.
    """

    ids: list[int]
    forgotten: int = 0


def to_prompt(messages: Sequence[Message], tokenizer: PreTrainedTokenizerBase, room: int) -> Prompt:
    """Put a conversation into the instruction template, exchange after exchange, as each was an example in training.

    The last system message is the instruction (the authors' for a consultation where there is none), what the user
    says is its input.

    Args:
        messages: The last one is the user's.
        tokenizer: The model's.
        room: Tokens that the prompt may have.

    Raises:
        InputError: Not even the last message fits.
    """
    system = [message.content for message in messages if message.role in ("system", "developer")]
    instruction = system[-1] if system else DOCTOR
    start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    *earlier, last = [
        start + _encode(tokenizer, Instruction(instruction, question).prompt, answer)
        for question, answer in _exchanges(messages)
    ]
    if len(last) > room:
        raise InputError(
            f"The message has {len(last)} tokens with its template, but the model has room for {room}: shorten it, or "
            "ask for a shorter answer (max_tokens)."
        )
    ids, kept = last, 0
    for exchange in reversed(earlier):
        if len(exchange) + len(ids) > room:
            break
        ids, kept = exchange + ids, kept + 1
    return Prompt(ids, forgotten=len(earlier) - kept)


def to_plain_prompt(text: str, tokenizer: PreTrainedTokenizerBase, room: int) -> Prompt:
    """Encode a text as it is.

    Raises:
        InputError: It does not fit.
    """
    ids = list(tokenizer(text)["input_ids"])
    if len(ids) > room:
        raise InputError(f"The prompt has {len(ids)} tokens, but the model has room for {room}: shorten it.")
    return Prompt(ids)


def _exchanges(messages: Sequence[Message]) -> list[tuple[str, str | None]]:
    """Questions with their answers; the last has none yet. Messages of one side in a row are one."""
    found: list[tuple[str, str | None]] = []
    for message in messages:
        if message.role == "user":
            if found and found[-1][1] is None:
                found[-1] = (f"{found[-1][0]}\n{message.content}", None)
            else:
                found.append((message.content, None))
        elif message.role == "assistant" and found:
            question, answer = found[-1]
            found[-1] = (question, message.content if answer is None else f"{answer}\n{message.content}")
    return found


def _encode(tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str | None) -> list[int]:
    text = prompt if answer is None else f"{prompt} {answer}"
    # Control tokens that a user writes out are ordinary characters.
    ids = list(tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])
    end = [] if answer is None or tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    return ids + end
