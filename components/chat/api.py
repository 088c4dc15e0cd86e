"""The OpenAI-compatible endpoint: what clients of that interface need, and errors in its form."""

import json
import time
import uuid
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.exceptions import HTTPException

from components.chat.dialogue import Prompt, to_plain_prompt, to_prompt
from components.chat.generation import Answer, Generator
from components.chat.messages import ChatRequest, CompletionRequest, Sampling
from components.chat.served_model import ServedModel
from components.common.errors import InputError

NOTICE = "A research model: not a medical device, and no substitute for a doctor's advice."
_NAME_OF_ROUTE = {"chat.completion": "chatcmpl", "text_completion": "cmpl"}


def create_api(model: ServedModel, generator: Generator) -> FastAPI:
    """Make the application.

    Args:
        model: What answers.
        generator: Shared with the page: one answer at a time.
    """
    api = FastAPI(title=model.name, description=NOTICE, docs_url=None, redoc_url=None)
    api.add_exception_handler(RequestValidationError, _not_valid)
    api.add_exception_handler(InputError, _too_long)
    api.add_exception_handler(HTTPException, _refused)

    @api.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok", "model": model.name}

    @api.get("/v1/models")
    def models() -> dict[str, Any]:
        entry = {"id": model.name, "object": "model", "owned_by": "pmc-llama-pipeline", "notice": NOTICE}
        return {"object": "list", "data": [entry | {"aliases": model.aliases, "context_length": model.context_length}]}

    @api.post("/v1/chat/completions", response_model=None)
    def chat(request: ChatRequest) -> Any:
        _require_model(model, request.model)
        room = room_for_prompt(model, request)
        prompt = to_prompt(request.messages, model.tokenizer, room)
        answer = generator.answer(prompt.ids, request)
        return _respond(model, "chat.completion", prompt, answer, request.stream)

    @api.post("/v1/completions", response_model=None)
    def complete(request: CompletionRequest) -> Any:
        _require_model(model, request.model)
        prompt = to_plain_prompt(request.prompt, model.tokenizer, room_for_prompt(model, request))
        answer = generator.answer(prompt.ids, request, templated=False)
        return _respond(model, "text_completion", prompt, answer, request.stream)

    return api


def room_for_prompt(model: ServedModel, sampling: Sampling) -> int:
    """Tokens that a prompt may have beside an answer of the wanted length.

    Raises:
        InputError: The answer alone would fill the model's context.
    """
    room = model.context_length - sampling.max_tokens
    if room < 1:
        raise InputError(
            f"max_tokens is {sampling.max_tokens}, but the model's context has only {model.context_length} tokens, "
            "the question's among them: ask for fewer."
        )
    return room


def _require_model(model: ServedModel, wanted: str) -> None:
    name, _, _ = model.name.partition("/")
    if wanted and wanted not in (model.name, name, *(f"{name}@{alias}" for alias in model.aliases)):
        raise HTTPException(404, f"The model {wanted!r} is not served here; this is {model.name}.")


def _respond(model: ServedModel, kind: str, prompt: Prompt, answer: Answer, stream: bool) -> Any:
    head = {"id": f"{_NAME_OF_ROUTE[kind]}-{uuid.uuid4().hex}", "created": int(time.time()), "model": model.name}
    if stream:
        return StreamingResponse(_events(kind, head, answer), media_type="text/event-stream")
    text = "".join(answer)
    body = {"message": {"role": "assistant", "content": text}} if kind == "chat.completion" else {"text": text}
    choice = {"index": 0, "finish_reason": answer.finish_reason, "logprobs": None, **body}
    usage = {"prompt_tokens": answer.prompt_tokens, "completion_tokens": answer.tokens}
    usage["total_tokens"] = sum(usage.values())
    return {**head, "object": kind, "choices": [choice], "usage": usage, "forgotten_exchanges": prompt.forgotten}


def _events(kind: str, head: dict[str, Any], answer: Answer) -> Iterator[str]:
    """Server-sent events, as OpenAI's clients read them."""
    chat = kind == "chat.completion"

    def event(part: dict[str, Any], reason: str | None = None) -> str:
        choice = {"index": 0, "finish_reason": reason, **({"delta": part} if chat else part)}
        content = {**head, "object": f"{kind}.chunk" if chat else kind, "choices": [choice]}
        return f"data: {json.dumps(content)}\n\n"

    if chat:
        yield event({"role": "assistant", "content": ""})
    for piece in answer:
        yield event({"content": piece} if chat else {"text": piece})
    yield event({} if chat else {"text": ""}, answer.finish_reason)
    yield "data: [DONE]\n\n"


def _error(status: int, message: str, code: str, parameter: str | None = None) -> JSONResponse:
    kind = "invalid_request_error" if status < 500 else "server_error"
    return JSONResponse({"error": {"message": message, "type": kind, "param": parameter, "code": code}}, status)


def _not_valid(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - what it is registered for
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"] if part != "body")
    message = first["msg"].removeprefix("Value error, ")
    return _error(400, f"{where}: {message}" if where else message, "invalid_value", where or None)


def _too_long(_: Request, error: Exception) -> JSONResponse:
    return _error(400, str(error), "context_length_exceeded", "messages")


def _refused(_: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it is registered for
    code = "model_not_found" if "is not served here" in str(error.detail) else "not_found"
    return _error(error.status_code, str(error.detail), code)
