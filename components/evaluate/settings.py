"""Settings of the evaluation: that section of the recipe."""

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from components.common.section import Section
from components.evaluate.catalogue import BENCHMARKS, SUITES

PromptFormat = Literal["harness", "authors", "instruct"]
_MOST_EXAMPLES = 32
_LEARNT = {"pubmedqa", "medmcqa", "medqa"}  # of which there are training questions to fine-tune on


class EngineSettings(Section):
    """What computes the log-likelihoods."""

    kind: Literal["builtin", "server"] = Field(
        default="builtin", description="builtin loads the model itself; server asks an OpenAI-compatible one (vLLM)"
    )
    url: str = Field(
        default="",
        description="server: its address up to /v1, such as http://vllm.models:8000/v1; the key comes from the "
        "environment (OPENAI_API_KEY)",
    )
    model: str = Field(
        default="",
        description="server: the name it serves the model by; {role} in it becomes base, candidate, champion, or "
        "such as base-fine-tuned-NAME for the run finetune.NAME",
    )
    parallel_requests: int = Field(default=16, ge=1, le=1024, description="server: requests that wait at once")
    timeout_seconds: int = Field(default=300, ge=1, description="server: the longest wait for an answer")

    @model_validator(mode="after")
    def _a_server_has_an_address(self) -> "EngineSettings":
        if self.kind == "server" and not (self.url.startswith(("http://", "https://")) and self.model):
            raise ValueError("a server needs its url (http:// or https://) and the name of its model")
        return self


class EvaluateSettings(Section):
    """What is measured on every model, and how."""

    benchmarks: list[str] = Field(
        default=["pubmedqa", "medmcqa", "medqa"],
        min_length=1,
        description="Benchmarks to answer, each with the task of lm-evaluation-harness that the field quotes; "
        "mmlu_medical and multimedqa stand for several.",
    )
    num_fewshot: int | dict[str, int] = Field(
        default=0,
        description="Solved examples before each question; 0 is zero-shot. One number, or one for each benchmark.",
    )
    common_examples: bool = Field(
        default=False,
        description="Show all questions the same examples, which is several times faster; else lm-eval draws them anew "
        "for each question, as is usual (MMLU's are the same for all in any case).",
    )
    format: PromptFormat = Field(
        default="harness",
        description="The form of the questions. harness: lm-eval's own; authors: that of the authors' fine-tuning; "
        "instruct: the instruction template, where the model writes its answer (fine-tuned by instruct: always).",
    )
    max_answer_tokens: int = Field(
        default=1000, ge=1, le=8192, description="instruct: how long a written answer may be; 1000 is the authors'."
    )
    fine_tuned_format: PromptFormat = Field(
        default="authors", description="The same for models that were fine-tuned on the questions of benchmarks."
    )
    limit: int | None = Field(
        default=None, ge=1, description="Answer only the first questions of each benchmark; none answers all."
    )
    engine: EngineSettings = Field(default_factory=EngineSettings)
    batch_tokens: int | None = Field(
        default=None,
        ge=1,
        description="Tokens that go through the model at once; none finds a number for the device. A batch that does "
        "not fit into memory is halved.",
    )
    batch_size: int | None = Field(
        default=None, ge=1, le=1024, description="At most so many sequences at once as well; none sets no limit."
    )
    save_seconds: float = Field(
        default=30.0, ge=0, description="How often answers go to the store: an interrupted run repeats so much."
    )
    perplexity_articles: int | None = Field(
        default=2000, ge=2, description="Held-out articles for the perplexity; none takes the whole validation split."
    )
    context_length: int = Field(
        default=512, ge=2, le=131072, description="Tokens of a perplexity window: the context length of training."
    )
    seed: int = Field(default=0, ge=0, description="Draws the few-shot examples.")
    device: str = Field(
        default="auto",
        pattern=r"^(auto|cpu|cuda(:\d+)?)$",
        description="Where the model runs; auto takes a GPU if any.",
    )

    @field_validator("benchmarks")
    @classmethod
    def _suites_are_their_parts(cls, names: list[str]) -> list[str]:
        if len(set(names)) != len(names):
            raise ValueError(f"each benchmark may be named once, not {', '.join(names)}")
        parts = [part for name in names for part in SUITES.get(name, (name,))]
        if unknown := [name for name in parts if name not in BENCHMARKS]:
            known = ", ".join([*BENCHMARKS, *SUITES])
            raise ValueError(f"there is no benchmark {unknown[0]!r}; known are {known}")
        return list(dict.fromkeys(parts))

    @model_validator(mode="after")
    def _examples_in_bounds(self) -> "EvaluateSettings":
        counts = self.num_fewshot if isinstance(self.num_fewshot, dict) else {"num_fewshot": self.num_fewshot}
        for name, count in counts.items():
            if not 0 <= count <= _MOST_EXAMPLES:
                raise ValueError(f"num_fewshot of {name} is {count}, it must be 0 to {_MOST_EXAMPLES}")
            if isinstance(self.num_fewshot, dict) and name not in self.benchmarks:
                raise ValueError(f"num_fewshot names {name}, which is not among the benchmarks")
        return self

    def after(self, objective: str | None) -> "EvaluateSettings":
        """Return the settings for a model by what it was trained for last.

        One that was fine-tuned on questions is asked those of the paper's table, without examples; one that learned
        to follow instructions is given them.

        Args:
            objective: As the settings in its manifest say; None where they do not.
        """
        if objective == "instruct":
            return self.model_copy(update={"format": "instruct", "num_fewshot": 0})
        if objective != "finetune":
            return self
        benchmarks = [name for name in self.benchmarks if name in _LEARNT] or self.benchmarks
        changed = {"format": self.fine_tuned_format, "num_fewshot": 0, "benchmarks": benchmarks}
        return self.model_copy(update=changed)

    def shots(self, benchmark: str) -> int:
        """Return how many examples are shown before each question of a benchmark."""
        counts: Any = self.num_fewshot
        return int(counts.get(benchmark, 0) if isinstance(counts, dict) else counts)
