"""The OpenAI-compatible endpoint, over HTTP."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from chat_helpers import running, tiny_model

from components.chat.api import create_api
from components.chat.generation import Generator

ASK = {"messages": [{"role": "user", "content": "What causes scurvy?"}], "max_tokens": 6, "temperature": 0}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    model = tiny_model(tmp_path_factory.mktemp("model"))
    with running(create_api(model, Generator(model))) as address, httpx.Client(base_url=address, timeout=60) as client:
        yield client


def test_it_names_its_model(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ok", "model": "pmc-llama-tiny/3"}
    (entry,) = client.get("/v1/models").json()["data"]
    assert (entry["id"], entry["aliases"], entry["context_length"]) == ("pmc-llama-tiny/3", ["champion"], 1024)
    assert "not a medical device" in entry["notice"]


def test_an_answer_has_openais_form_and_the_stream_says_the_same(client: httpx.Client) -> None:
    whole = client.post("/v1/chat/completions", json=ASK).json()
    (choice,) = whole["choices"]
    assert (whole["object"], choice["message"]["role"], choice["finish_reason"]) == (
        "chat.completion",
        "assistant",
        "length",
    )
    assert whole["usage"]["completion_tokens"] == 6
    with client.stream("POST", "/v1/chat/completions", json=ASK | {"stream": True}) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        events = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert events[-1] == "[DONE]"
    deltas = [json.loads(event)["choices"][0] for event in events[:-1]]
    assert "".join(each["delta"].get("content", "") for each in deltas) == choice["message"]["content"]
    assert [each["finish_reason"] for each in deltas if each["finish_reason"]] == ["length"]


def test_a_plain_completion_goes_on_from_the_text_itself(client: httpx.Client) -> None:
    ask = {"prompt": "The patient has", "max_tokens": 4, "temperature": 0, "model": "pmc-llama-tiny"}
    found = client.post("/v1/completions", json=ask).json()
    assert found["usage"]["prompt_tokens"] < 10
    assert found["choices"][0]["text"]
    text = found["choices"][0]["text"]
    stopped = client.post("/v1/completions", json=ask | {"stop": text[2:]}).json()
    assert stopped["choices"][0]["text"] == text[:2]
    assert stopped["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(
    ("change", "status", "code", "message"),
    [
        ({"messages": []}, 400, "invalid_value", "messages: List should have at least 1 item"),
        (
            {"messages": [{"role": "assistant", "content": "x"}]},
            400,
            "invalid_value",
            "must be the user's",
        ),
        ({"temperature": 3}, 400, "invalid_value", "temperature: Input should be less than or equal to 2"),
        ({"n": 2}, 400, "invalid_value", "n: Input should be 1"),
        ({"stop": ["a", ""]}, 400, "invalid_value", "an empty text would stop every answer"),
        ({"model": "gpt-4"}, 404, "model_not_found", "'gpt-4' is not served here; this is pmc-llama-tiny/3"),
        ({"max_tokens": 1024}, 400, "context_length_exceeded", "context has only 1024 tokens"),
        ({"messages": [{"role": "user", "content": "w " * 2000}]}, 400, "context_length_exceeded", "shorten it"),
    ],
)
def test_a_wrong_request_is_explained(
    client: httpx.Client, change: dict[str, Any], status: int, code: str, message: str
) -> None:
    response = client.post("/v1/chat/completions", json=ASK | change)
    assert response.status_code == status
    error = response.json()["error"]
    assert error["code"] == code
    assert message in error["message"]


def test_text_in_parts_and_todays_names_are_understood(client: httpx.Client) -> None:
    parts = [{"type": "text", "text": "What causes "}, {"type": "text", "text": "scurvy?"}]
    ask = {"messages": [{"role": "user", "content": parts}], "max_completion_tokens": 6, "temperature": 0, "seed": None}
    assert (
        client.post("/v1/chat/completions", json=ask).json()["choices"]
        == (client.post("/v1/chat/completions", json=ASK).json()["choices"])
    )
