"""A small server that answers ``/v1/models`` and ``/v1/completions`` as vLLM's does, by a model in this process."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from transformers import PreTrainedModel

from tests.evaluate_helpers import tiny_tokenizer


class CompletionsServer(ThreadingHTTPServer):
    """Serves one model.

    Attributes:
        url: Up to ``/v1``.
        seen: What was asked of ``/v1/completions``.
        failures: So many requests are answered with 500 before one is answered well.
        broken: Every request is answered with 500.
        status: Of the list of models.
    """

    daemon_threads = False  # a thread that is in torch when Python ends would abort it; closing waits for all

    def __init__(self, model: PreTrainedModel, name: str, length: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.model, self.name, self.length = model, name, length
        self.url = f"http://127.0.0.1:{self.server_port}/v1"
        self.seen: list[dict[str, Any]] = []
        self.keys: set[str] = set()
        self.failures, self.broken, self.status = 0, False, 200
        self.lock = threading.Lock()

    def complete(self, asked: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        with self.lock:
            self.seen.append(asked)
            if self.broken or self.failures > 0:
                self.failures -= 1
                return 500, {"message": "the worker died"}
            if asked["model"] != self.name:
                return 404, {"message": f"The model `{asked['model']}` does not exist."}
            prompts = asked["prompt"] if isinstance(asked["prompt"][0], list) else [asked["prompt"]]
            if any(len(prompt) + asked["max_tokens"] > self.length for prompt in prompts):
                return 400, {"message": f"This model's maximum context length is {self.length} tokens."}
            answer = self._choice if asked.get("echo") else partial(self._written, asked)
            return 200, {"choices": [answer(i, prompt) for i, prompt in enumerate(prompts)]}

    def _written(self, asked: dict[str, Any], index: int, prompt: list[int]) -> dict[str, Any]:
        assert asked["temperature"] == 0
        ids = torch.tensor([prompt])
        with torch.inference_mode():
            made = self.model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=asked["max_tokens"], do_sample=False
            )
        text = tiny_tokenizer().decode(made[0, len(prompt) :], skip_special_tokens=True)
        return {
            "index": index,
            "text": text[: min((i for s in asked["stop"] if (i := text.find(s)) >= 0), default=None)],
        }

    def _choice(self, index: int, prompt: list[int]) -> dict[str, Any]:
        with torch.inference_mode():
            logits = self.model(torch.tensor([prompt])).logits[0]
        logarithms = torch.log_softmax(logits.float(), dim=-1)
        best, tokens = logarithms.max(dim=-1)
        chosen = [None, *logarithms[:-1].gather(1, torch.tensor(prompt[1:])[:, None])[:, 0].tolist(), float(best[-1])]
        top = [None, *({str(token): value} for token, value in zip(tokens.tolist(), best.tolist(), strict=True))]
        for given, likely, token in zip(chosen[1:-1], top[1:-1], prompt[1:], strict=True):
            likely[f"t{token}"] = given  # vLLM lists the given token beside the likeliest
        return {"index": index, "text": "", "logprobs": {"token_logprobs": chosen, "top_logprobs": top}}


class _Handler(BaseHTTPRequestHandler):
    server: CompletionsServer
    protocol_version = "HTTP/1.1"
    timeout = 5  # of an idle connection, in seconds

    def do_GET(self) -> None:
        models = [{"id": self.server.name, "object": "model", "max_model_len": self.server.length}]
        self._send(self.server.status, {"object": "list", "data": models})

    def do_POST(self) -> None:
        self.server.keys.add(self.headers.get("Authorization", ""))
        self._send(*self.server.complete(json.loads(self.rfile.read(int(self.headers["Content-Length"])))))

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def running_completions(model: PreTrainedModel, name: str, length: int) -> Iterator[CompletionsServer]:
    with CompletionsServer(model, name, length) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
