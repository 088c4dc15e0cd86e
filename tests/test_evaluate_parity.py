"""Every prediction equals that of lm-eval's ``hf`` backend, every log-likelihood within 1e-4: for families of models,
zero-shot and few-shot, truncated prompts too, on the published files where they are at hand and on the bundled ones."""

import functools
import random
from collections.abc import Sequence
from pathlib import Path

import pytest
from lm_eval.models.huggingface import HFLM
from transformers import AutoTokenizer

from components.common import storage
from components.common.questions import Question
from components.download.benchmark_files import splits_of_files
from components.download.sample import BENCHMARKS_DIR, TOKENIZER_DIR
from components.evaluate.harness import answer_questions
from components.evaluate.scorer import Scorer
from components.evaluate.tasks import Shots
from tests.evaluate_helpers import FAMILIES, tiny_model, tiny_tokenizer

REAL = Path(__file__).parents[2] / "shared" / "data" / "benchmarks"
PLACES = [
    pytest.param(BENCHMARKS_DIR, id="bundled"),
    pytest.param(REAL, id="published", marks=pytest.mark.skipif(not REAL.is_dir(), reason="not on this machine")),
]
BENCHMARKS = ["pubmedqa", "medmcqa", "medqa"]


@functools.cache
def read(place: Path) -> dict[str, list[Question]]:
    splits = splits_of_files(storage.to_uri(place))
    return {split.name: [Question.model_validate(question) for question in split.questions] for split in splits}


@functools.cache
def bundled_tokenizer():
    return AutoTokenizer.from_pretrained(TOKENIZER_DIR)


@functools.cache
def model(family: str, positions: int = 2048):
    return tiny_model(family, len(bundled_tokenizer()), positions)


ZERO = Shots()


def assert_equal(network, tokenizer, benchmark: str, asked: Sequence[Question], examples=(), shots=ZERO, **ours):
    theirs = answer_questions(
        HFLM(pretrained=network, tokenizer=tokenizer, batch_size=4), benchmark, asked, examples, shots
    )
    scorer = Scorer(network, tokenizer, **ours)
    answers = answer_questions(scorer, benchmark, asked, examples, shots)
    for mine, other in zip(answers, theirs, strict=True):
        assert mine.loglikelihoods == pytest.approx(other.loglikelihoods, abs=1e-4)
        assert (mine.prediction, mine.correct) == (other.prediction, other.correct)
        assert mine.prompt_hash == other.prompt_hash
    assert len({tuple(answer.loglikelihoods.values()) for answer in answers}) == len(answers), "answers are all alike"
    return scorer


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("family", "benchmark"),
    [*zip(FAMILIES, (BENCHMARKS * 2)[: len(FAMILIES)], strict=True), ("llama", "medmcqa"), ("llama", "medqa")],
)
def test_zero_shot_answers_are_those_of_lm_evals_backend(family, benchmark, place):
    asked = read(place)[f"{benchmark}-test"][:5]
    assert_equal(model(family), bundled_tokenizer(), benchmark, asked, batch_tokens=900)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("family", "common"), [*((family, True) for family in FAMILIES), ("llama", False), ("gpt2", False)]
)
def test_few_shot_answers_are_those_of_lm_evals_backend(family, common, place):
    asked, examples = read(place)["medmcqa-test"][:3], read(place)["medmcqa-train"]
    assert_equal(model(family), bundled_tokenizer(), "medmcqa", asked, examples, Shots(5, common))


@pytest.mark.parametrize("common", [False, True], ids=["drawn", "common"])
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_prompts_that_are_too_long_lose_their_start_as_in_lm_eval(family, common):
    asked, examples = read(BENCHMARKS_DIR)["pubmedqa-test"][:4], read(BENCHMARKS_DIR)["pubmedqa-train"]
    scorer = assert_equal(
        model(family, 512), bundled_tokenizer(), "pubmedqa", asked, examples, Shots(5, common), batch_tokens=2000
    )
    assert scorer.truncated


@pytest.mark.parametrize(
    ("family", "attention"), [*((family, "sdpa") for family in FAMILIES), ("llama", "eager"), ("gpt2", "eager")]
)
def test_options_of_several_tokens_share_their_prompt(family, attention):
    tokenizer = tiny_tokenizer()  # knows no word, so that an option is as many tokens as it has letters
    network = tiny_model(family, len(tokenizer), positions=2048, attn_implementation=attention)
    assert network.config._attn_implementation == attention
    asked, examples = read(BENCHMARKS_DIR)["medmcqa-test"][:2], read(BENCHMARKS_DIR)["medmcqa-train"]
    asked, examples = [_worded(question) for question in asked], [_worded(question) for question in examples]
    assert len(tokenizer(" maybe").input_ids) > 1
    assert_equal(network, tokenizer, "pubmedqa", asked, examples, Shots(1, common=True))


def _worded(question: Question) -> Question:
    """A short question of another benchmark with PubMedQA's answers."""
    return question.model_copy(
        update={"options": {word: word for word in ("yes", "no", "maybe")}, "answer": "yes", "context": "Well."}
    )


def test_a_sliding_window_is_kept_within_its_width():
    network = tiny_model("mistral", len(bundled_tokenizer()), positions=2048, sliding_window=64)
    asked, examples = read(BENCHMARKS_DIR)["medmcqa-test"][:5], read(BENCHMARKS_DIR)["medmcqa-train"]
    for shots in (Shots(), Shots(3, common=True)):
        assert_equal(network, bundled_tokenizer(), "medmcqa", asked, examples, shots)
    short = [_worded(question) for question in asked]
    assert_equal(network, tiny_tokenizer(), "pubmedqa", short)


def test_common_examples_are_computed_once_however_many_batches_there_are(monkeypatch):
    seen: list[int] = []
    network = model("llama")
    forward = type(network.base_model).forward
    monkeypatch.setattr(
        type(network.base_model),
        "forward",
        lambda self, input_ids, **more: seen.append(input_ids.numel()) or forward(self, input_ids=input_ids, **more),
    )
    asked, examples = read(BENCHMARKS_DIR)["medqa-test"][:8], read(BENCHMARKS_DIR)["medqa-train"]
    shots = Shots(5, common=True)
    answer_questions(Scorer(network, bundled_tokenizer(), batch_tokens=1), "medqa", asked, examples, shots)
    prefix, batches = seen[0], seen[1:]
    assert len(batches) == len(asked)
    assert prefix > sum(batches) / 2, "the examples are long"
    assert max(batches) < prefix


def awkward_requests() -> list[tuple[tuple[str, str], list[int], list[int]]]:
    """Prompts that share much, little or all but the last token, with options of one token and of several."""
    rng = random.Random(0)

    def tokens(count: int) -> list[int]:
        return [rng.randrange(3, 300) for _ in range(count)]

    beginning = tokens(60)
    contexts = [[*beginning, n] for n in (7, 8)]  # nothing but the scored place is left after what they share
    contexts += [[*beginning, *tokens(length)] for length in (2, 30, 31)]
    contexts += [tokens(length) for length in (1, 2, 40, 90)]
    options = [tokens(1), tokens(1), tokens(4), tokens(7)]
    options.append(options[3][:5])  # one begins as another does
    return [
        ((f"{c}", f"{o}"), context, option) for c, context in enumerate(contexts) for o, option in enumerate(options)
    ]


@pytest.mark.parametrize("positions", [512, 50], ids=["whole", "cut"])
@pytest.mark.parametrize("family", FAMILIES)
def test_awkward_requests_get_the_scores_of_lm_evals_backend(family, positions):
    network = tiny_model(family, 320, positions)
    theirs = HFLM(pretrained=network, tokenizer=tiny_tokenizer(), batch_size=4)
    ours = Scorer(network, tiny_tokenizer(), batch_tokens=300)
    requests = awkward_requests()
    expected = theirs._loglikelihood_tokens(requests, disable_tqdm=True)
    found = ours._loglikelihood_tokens(requests)
    assert [score for score, _ in found] == pytest.approx([score for score, _ in expected], abs=1e-4)
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]
    assert bool(ours.truncated) == (positions == 50)
