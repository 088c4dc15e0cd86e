"""Another engine: an OpenAI-compatible server such as vLLM's, asked through lm-eval's own client.

The server must echo the prompt with its log-probabilities (``echo`` and ``logprobs`` of ``/v1/completions``), as
vLLM's does. Prompts are sent as token ids, so the tokenizer is the model's own, as in the engine of this process.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
import urllib3
from lm_eval.api.instance import Instance
from lm_eval.models.openai_completions import LocalCompletionsAPI
from transformers import PretrainedConfig, PreTrainedTokenizerBase

from components.common.errors import InputError, PipelineError
from components.evaluate.rows import Request
from components.evaluate.settings import EngineSettings

Score = tuple[float, bool]
_ATTEMPTS = 5


class Server:
    """The engine behind an address."""

    halved = 0

    def __init__(
        self,
        role: str,
        tokenizer: PreTrainedTokenizerBase,
        config: PretrainedConfig,
        folder: Path,
        settings: EngineSettings,
    ) -> None:
        """Connect to the server.

        Args:
            role: Of the model, for the name it is served by.
            tokenizer: The model's.
            config: The model's.
            folder: Where the tokenizer lies.
            settings: Address and name.

        Raises:
            InputError: The server does not answer, or does not serve the model.
        """
        name = settings.model.replace("{role}", role.replace(" ", "-"))
        self.tokenizer = tokenizer
        self.vocabulary: int = config.get_text_config().vocab_size
        limit: int = _served_length(settings.url, name) or config.get_text_config().max_position_embeddings
        # One position is left for the token that the client lets the server generate.
        self.positions = limit - 1
        self.lm = _Client(settings, name, folder, limit)

    def window_losses(self, windows: Sequence[Sequence[int]]) -> list[float]:
        """Ask for the log-likelihood of each window after its first token."""
        asked = [(("", ""), [window[0]], list(window[1:])) for window in windows]
        return [-score for score, _ in self.lm._loglikelihood_tokens(asked)]


class _Client(LocalCompletionsAPI):  # type: ignore[misc]
    """lm-eval's client, which names the server when it fails and remembers which prompts were too long."""

    def __init__(self, settings: EngineSettings, name: str, folder: Path, limit: int) -> None:
        super().__init__(
            base_url=settings.url.rstrip("/") + "/completions",
            model=name,
            tokenizer=str(folder),
            tokenizer_backend="huggingface",
            num_concurrent=settings.parallel_requests,
            max_retries=_ATTEMPTS,
            timeout=settings.timeout_seconds,
            max_length=limit,
            add_bos_token=True,  # as the tokenizer does by itself: lm-eval's Hugging Face backend lets it
        )
        self.truncated: set[tuple[str, ...]] = set()

    def _loglikelihood_tokens(self, asked: list[Request], **kwargs: Any) -> list[Score]:
        self.truncated |= {pair for pair, context, option in asked if len(context) + len(option) > self.max_length}
        with self._explained():
            scores: list[Score] = list(super()._loglikelihood_tokens(asked, **kwargs))
        return scores

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        wanted = max(int(request.args[1]["max_gen_toks"]) for request in requests)
        room = self.max_length - wanted
        if room < self.max_length // 4:
            raise InputError(
                f"Answers of {wanted} tokens leave too little of the {self.max_length} that {self.model} takes at "
                f"{self.base_url}; lower evaluate.max_answer_tokens."
            )
        prompts = [request.args[0] for request in requests]
        encoded = self.tok_encode(prompts, add_special_tokens=self.add_bos_token)
        self.truncated |= {(text,) for text, ids in zip(prompts, encoded, strict=True) if len(ids) > room}
        with self._explained():
            answers: list[str] = list(super().generate_until(requests, disable_tqdm))
        return answers

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (aiohttp.ClientError, OSError, KeyError, TypeError) as error:
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise PipelineError(
                f"The model server at {self.base_url} did not answer the prompts of {self.model} ({reason}); look at "
                "its log, then run the evaluation again: it goes on where it stopped."
            ) from error


def _served_length(url: str, name: str) -> int | None:
    """Return the longest sequence that the server takes for a model, if it says so (vLLM does)."""
    place = url.rstrip("/") + "/models"
    headers = {"Authorization": f"Bearer {os.environ.get('OPENAI_API_KEY', '')}"}
    try:
        with urllib3.PoolManager(retries=urllib3.Retry(2, backoff_factor=0.5)) as pool:
            answer = pool.request("GET", place, headers=headers, timeout=30.0)
    except urllib3.exceptions.HTTPError as error:
        raise InputError(f"There is no model server at {place} ({error}); check evaluate.engine.url.") from error
    if answer.status != 200:
        raise InputError(f"{place} answers {answer.status}; check evaluate.engine.url and OPENAI_API_KEY.")
    try:
        served = {str(entry["id"]): entry for entry in json.loads(answer.data)["data"]}
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{place} is no list of models; check evaluate.engine.url.") from error
    if name not in served:
        raise InputError(
            f"{place} serves {', '.join(served) or 'nothing'} and not {name}; check evaluate.engine.model."
        )
    length = served[name].get("max_model_len")
    return None if length is None else int(length)
