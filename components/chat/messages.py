"""What is asked of the endpoint and how: OpenAI's request, as far as one model on one machine can honour it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

MOST_TOKENS = 4096


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="ignore")

    role: Literal["system", "developer", "user", "assistant"]
    content: str

    @field_validator("content", mode="before")
    @classmethod
    def _joined(cls, content: object) -> object:
        """OpenAI's clients may send the text in parts."""
        if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            return "".join(str(part.get("text", "")) for part in content)
        return content


class Sampling(BaseModel):
    """How an answer is drawn; fields that are not here are ignored, as OpenAI's own server does with unknown ones.

    Attributes:
        temperature: 0 always takes the likeliest token.
        seed: Of the draw; the same gives the same answer.
        stop: Texts at which the answer ends, without them.
    """

    model_config = ConfigDict(extra="ignore")

    temperature: float = Field(0.7, ge=0, le=2)
    top_p: float = Field(0.9, gt=0, le=1)
    max_tokens: int = Field(256, ge=1, le=MOST_TOKENS)
    repetition_penalty: float = Field(1.1, gt=0, le=2)
    seed: int | None = Field(None, ge=0, lt=2**63)
    stop: list[str] = Field(default_factory=list, max_length=8)

    @model_validator(mode="before")
    @classmethod
    def _in_todays_words(cls, values: object) -> object:
        """OpenAI's newer name of a field, null for a default, one text in place of a list."""
        if not isinstance(values, dict):
            return values
        found = {name: value for name, value in values.items() if value is not None}
        if "max_completion_tokens" in found:
            found.setdefault("max_tokens", found["max_completion_tokens"])
        if isinstance(found.get("stop"), str):
            found["stop"] = [found["stop"]]
        return found

    @field_validator("stop")
    @classmethod
    def _not_empty(cls, texts: list[str]) -> list[str]:
        if not all(texts):
            raise ValueError("an empty text would stop every answer at its start")
        return texts


class _Request(Sampling):
    model: str = ""
    stream: bool = False
    n: Literal[1] = 1


class ChatRequest(_Request):
    """``POST /v1/chat/completions``."""

    messages: list[Message] = Field(min_length=1)

    @field_validator("messages")
    @classmethod
    def _ends_with_a_question(cls, messages: list[Message]) -> list[Message]:
        if messages[-1].role != "user":
            raise ValueError(f"the last message must be the user's, not of role {messages[-1].role}")
        return messages


class CompletionRequest(_Request):
    """``POST /v1/completions``: the text as it is, without the instruction template."""

    prompt: str
