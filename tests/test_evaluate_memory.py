"""A batch that does not fit into memory goes on in halves; what never fits is said."""

import pytest
import torch

from components.common.errors import PipelineError
from components.common.questions import Question
from components.evaluate import scorer as scorer_module
from components.evaluate.harness import answer_questions
from components.evaluate.memory import halving, tokens_at_once
from components.evaluate.scorer import Scorer
from tests.evaluate_helpers import questions, tiny_model, tiny_tokenizer


def fits(most: int, error: BaseException):
    def run(batch):
        if len(batch) > most:
            raise error
        return [item * 10 for item in batch]

    return run


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_a_batch_is_halved_until_it_fits_and_gives_all_results_in_order(error):
    halved = []
    assert halving([1, 2, 3, 4, 5], fits(2, error), lambda: halved.append(1), "prompt") == [10, 20, 30, 40, 50]
    assert len(halved) == 2


def test_what_does_not_fit_alone_is_said_in_a_sentence():
    with pytest.raises(PipelineError, match=r"not enough memory for a single prompt \(no room\)"):
        halving([1, 2], fits(0, torch.OutOfMemoryError("no room")), lambda: None, "prompt")


def test_another_failure_is_no_lack_of_memory():
    with pytest.raises(RuntimeError, match="shapes"):
        halving([1, 2], fits(0, RuntimeError("shapes do not match")), lambda: None, "prompt")


def test_answers_are_the_same_after_batches_were_halved(monkeypatch):
    tokenizer = tiny_tokenizer()
    network = tiny_model("llama", len(tokenizer))
    asked = [Question.model_validate(row) for row in questions("pubmedqa", 9)]
    plain = answer_questions(Scorer(network, tokenizer, batch_tokens=10_000), "pubmedqa", asked)
    original = scorer_module.score_rows

    def narrow(model, rows, prefix):
        if len(rows) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(model, rows, prefix)

    monkeypatch.setattr(scorer_module, "score_rows", narrow)
    scorer = Scorer(network, tokenizer, batch_tokens=10_000)
    halves = answer_questions(scorer, "pubmedqa", asked)
    assert scorer.halved == 2  # nine rows: five and four, the five: three and two
    for one, other in zip(plain, halves, strict=True):
        assert one.loglikelihoods == pytest.approx(other.loglikelihoods, abs=1e-4)


def test_a_cpu_gets_as_many_tokens_as_its_caches_are_good_for():
    assert 512 <= tokens_at_once(tiny_model("llama", 320)) <= 8192
