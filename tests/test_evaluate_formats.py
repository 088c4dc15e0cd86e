"""The authors' form and the instruction form: what is asked, how it is answered, what is counted and kept."""

import json
import re
from collections.abc import Iterator

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.common import storage
from components.common.errors import InputError
from components.common.instructions import HEADINGS
from components.common.manifest import Manifest
from components.common.prompts import authors_example, instruct_example
from components.common.questions import Question
from components.evaluate import scorer as module
from components.evaluate.answered import Answered, Resuming
from components.evaluate.evaluate import evaluate
from components.evaluate.generation import Draft, make_batches
from components.evaluate.harness import answer_questions
from components.evaluate.scorer import Scorer
from components.evaluate.settings import EvaluateSettings
from components.evaluate.tasks import Shots, build_task
from tests.completions_server import CompletionsServer, running_completions
from tests.evaluate_helpers import (
    FAMILIES,
    questions,
    save_benchmarks,
    save_corpus,
    save_model,
    tiny_model,
    tiny_tokenizer,
)

BENCHMARKS = ["pubmedqa", "medmcqa", "medqa", "mmlu_anatomy"]
HOW = {"until": list(HEADINGS), "do_sample": False, "temperature": 0.0, "max_gen_toks": 12}


def asked(benchmark: str, count: int = 6) -> list[Question]:
    return [Question.model_validate(question) for question in questions(benchmark, count)]


def scorer(family: str = "llama", **more: object) -> Scorer:
    tokenizer = tiny_tokenizer()
    return Scorer(tiny_model(family, len(tokenizer), positions=1024), tokenizer, **more)  # type: ignore[arg-type]


def requests(prompts: list[str], **changes: object) -> list[Instance]:
    return [Instance("generate_until", {}, (prompt, HOW | changes), i) for i, prompt in enumerate(prompts)]


# ----------------------------------------------------------------------------------------------- the authors' form


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_authors_form_asks_what_the_fine_tuning_trains(benchmark: str) -> None:
    given = asked(benchmark)
    task = build_task(benchmark, given, prompt_format="authors")
    for question, document in zip(given, task.test_docs(), strict=True):
        example = authors_example(benchmark, question)
        built = task.construct_requests(document, task.fewshot_context(document, 0))
        options = ["yes", "no", "maybe"] if benchmark == "pubmedqa" else ["A", "B", "C", "D"]
        assert [request.args for request in built] == [(example.prompt, f" {option}") for option in options]
        assert (example.prompt, example.answer) in [request.args for request in built]


def test_the_authors_form_is_scored_by_what_follows_the_prompt() -> None:
    lm, given = scorer(), asked("medqa", 3)
    answers = answer_questions(lm, "medqa", given, prompt_format="authors")
    for question, answer in zip(given, answers, strict=True):
        prompt = authors_example("medqa", question).prompt
        for letter, score in answer.loglikelihoods.items():
            ids = lm.tok_encode(prompt + f" {letter}")
            start = len(lm.tok_encode(prompt))
            with torch.no_grad():
                logits = torch.log_softmax(lm.model(torch.tensor([ids])).logits[0].float(), -1)
            expected = sum(float(logits[i - 1, ids[i]]) for i in range(start, len(ids)))
            assert score == pytest.approx(expected, abs=1e-4)
        assert answer.prediction == max(answer.loglikelihoods, key=answer.loglikelihoods.__getitem__)
        assert answer.correct == (answer.prediction == question.answer)
        assert answer.generated is None


# ----------------------------------------------------------------------------------------- the instruction form


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_instruction_form_asks_the_template_and_stops_at_its_headings(benchmark: str) -> None:
    given = asked(benchmark)
    task = build_task(benchmark, given, prompt_format="instruct", answer_tokens=33)
    for question, document in zip(given, task.test_docs(), strict=True):
        prompt, how = task.construct_requests(document, task.fewshot_context(document, 0)).args
        assert prompt == instruct_example(benchmark, question).prompt
        assert (how["max_gen_toks"], how["do_sample"], how["temperature"]) == (33, False, 0.0)
        assert how["until"] == list(HEADINGS)


def test_solved_examples_in_the_instruction_form_end_with_their_answer() -> None:
    given = asked("medqa", 4)
    task = build_task("medqa", given[:1], given[1:], Shots(1, common=True), "instruct")
    (document,) = task.test_docs()
    context = task.fewshot_context(document, 1)
    assert re.search(r"### Response: ###Answer: OPTION [A-D] IS CORRECT\.\n\nBelow is an instruction", context)
    assert context.endswith("### Response:")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_written_is_what_lm_evals_own_model_writes(family: str) -> None:
    lm = scorer(family, batch_tokens=200)
    theirs = HFLM(pretrained=lm.model, tokenizer=lm.tokenizer, batch_size=1)
    prompts = [instruct_example("medqa", question).prompt[200:] for question in asked("medqa", 5)]
    prompts += ["the heart", "fever and pain are treated at home " * 4]
    ours = lm.generate_until(requests(prompts), disable_tqdm=True)
    assert ours == theirs.generate_until(requests(prompts), disable_tqdm=True)
    assert len(set(ours)) > 1
    # Stops from within them, so that rows leave the batch at different times.
    stops = [found[-1] for text in ours if (found := re.findall(r"[a-zA-Z]{2}", text))][:3]
    stopped = Scorer(lm.model, lm.tokenizer).generate_until(requests(prompts, until=stops, max_gen_toks=24))
    assert stopped == theirs.generate_until(requests(prompts, until=stops, max_gen_toks=24), disable_tqdm=True)
    assert any(len(text) < 12 for text in stopped)
    assert len({len(text) for text in stopped}) > 1


def test_an_answer_does_not_depend_on_what_is_written_beside_it() -> None:
    prompts = ["the heart", "fever and pain", "Question: is it so? Answer:", "blood to the lungs " * 9]
    alone = [scorer(batch_size=1).generate_until(requests([prompt]))[0] for prompt in prompts]
    assert scorer().generate_until(requests(prompts)) == alone
    assert scorer().generate_until(requests(prompts[::-1])) == alone[::-1]


class Says(Scorer):
    """A model that answers with given texts, token by token."""

    def __init__(self, texts: dict[str, str]) -> None:
        tokenizer = tiny_tokenizer()
        super().__init__(tiny_model("llama", len(tokenizer), positions=1024), tokenizer)
        self.steps: list[int] = []
        forward, size = self.model.forward, len(tokenizer)
        starts = {tuple(self.tok_encode(prompt)): [*tokenizer.encode(text), 2] for prompt, text in texts.items()}
        self._due: list[list[int]] = []

        def saying(input_ids: torch.Tensor, **more: object):
            if input_ids.shape[1] > 1:
                mask = more["attention_mask"]
                rows = [tuple(row[kept.bool()].tolist()) for row, kept in zip(input_ids, mask, strict=True)]
                self._due = [list(starts[row]) for row in rows]
            else:
                said = input_ids[:, 0].tolist()
                self._due = [due for due in self._due if due]
                assert len(said) == len(self._due)
            self.steps.append(input_ids.shape[0])
            output = forward(input_ids=input_ids, **more)
            output.logits = torch.nn.functional.one_hot(torch.tensor([[due.pop(0)] for due in self._due]), size).float()
            return output

        self.model.forward = saying


def test_a_row_that_has_ended_leaves_the_batch_and_stops_are_cut_off() -> None:
    texts = {"one": "B", "two two": "yes. ### Instruction: more", "three": "a heading: ###", "four": "no " * 10}
    lm = Says(texts)
    found = lm.generate_until(requests(list(texts), max_gen_toks=200))
    assert found == ["B", "yes. ", "a heading: ###", "no " * 10]
    assert lm.steps == sorted(lm.steps, reverse=True)
    assert lm.steps[0] == 4
    assert lm.steps[-1] == 1
    longest = max(len(lm.tokenizer.encode(text)) for text in texts.values())
    assert len(lm.steps) <= longest + 1


def test_a_prompt_that_is_too_long_loses_its_start_and_is_counted() -> None:
    tokenizer = tiny_tokenizer()
    lm = Scorer(tiny_model("gpt2", len(tokenizer), positions=64), tokenizer)
    prompts = ["fever and pain " * 60, "the heart"]
    (long, short) = lm.generate_until(requests(prompts, max_gen_toks=1000))
    assert lm.truncated == {(prompts[0],)}
    ids = lm.tok_encode(prompts[0])[-48:]
    assert len(tokenizer.encode(long)) <= 64
    again = lm.model.generate(torch.tensor([ids]), max_new_tokens=16, do_sample=False, pad_token_id=2)[0, 48:]
    assert long == tokenizer.decode(again, skip_special_tokens=True)
    assert short


def test_a_batch_that_does_not_fit_into_memory_is_halved(monkeypatch: pytest.MonkeyPatch) -> None:
    original = module.write_answers
    prompts = ["the heart", "fever and pain", "blood"]
    expected = scorer().generate_until(requests(prompts))

    def small(model, drafts):
        if len(drafts) > 1:
            raise torch.OutOfMemoryError("no room")
        return original(model, drafts)

    monkeypatch.setattr(module, "write_answers", small)
    lm = scorer()
    assert lm.generate_until(requests(prompts)) == expected
    assert lm.halved == 2


def test_answers_drawn_at_random_are_refused() -> None:
    with pytest.raises(InputError, match="set temperature: 0"):
        scorer().generate_until(requests(["the heart"], temperature=0.7))


def test_batches_hold_what_fits() -> None:
    drafts = [Draft(i, [1] * length, 10, ended=lambda _: False) for i, length in enumerate((5, 90, 20, 20, 20))]
    assert [[d.request for d in batch] for batch in make_batches(drafts, 60, 1000)] == [[1], [2, 3, 4], [0]]
    # 20 tokens and an answer of 10 are kept twice in 60.
    assert [[d.request for d in batch] for batch in make_batches(drafts, 60, 60)] == [[1], [2, 3], [4, 0]]
    assert [len(batch) for batch in make_batches(drafts, 1000, 1000, rows=2)] == [2, 2, 1]
    assert [len(batch) for batch in make_batches(drafts, 1, 1)] == [1] * 5


# ------------------------------------------------------------------------------------------------ a whole evaluation


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Manifest:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def inputs(tmp_path) -> tuple[Manifest, Manifest]:
    files = {f"{name}-test": questions(name, 5) for name in ("pubmedqa", "medqa")}
    documents = {f"PMC{i}": [3 + i, 4, 5, 6, 7, 8] for i in range(3)}
    return save_benchmarks(tmp_path / "benchmarks", files), save_corpus(tmp_path / "corpus", documents)


def settings(**changes: object) -> EvaluateSettings:
    values = {"benchmarks": ["pubmedqa", "medqa"], "context_length": 32, "format": "instruct", "max_answer_tokens": 8}
    return EvaluateSettings.model_validate(values | changes)


def lines(manifest: Manifest, name: str) -> list[dict]:
    return [json.loads(line) for line in storage.read(manifest.extra["results"][name]).splitlines()]


def test_unparsable_answers_are_wrong_counted_and_kept(model, inputs, tmp_path) -> None:
    manifest = evaluate("base", model, *inputs, settings(), f"file://{tmp_path}")
    rows = lines(manifest, "medqa")
    unparsable = [row for row in rows if not row["prediction"]]
    assert unparsable, "a random model names no option"
    assert not any(row["correct"] for row in unparsable)
    assert all(row["generated"] and row["loglikelihoods"] == {} for row in unparsable)
    assert manifest.totals["medqa_unparsable"] == len(unparsable)
    assert manifest.totals["medqa_accuracy"] == sum(row["correct"] for row in rows) / 5
    assert manifest.extra["format"] == "instruct"


def test_each_form_is_an_evaluation_of_its_own(model, inputs, tmp_path) -> None:
    found = [evaluate("base", model, *inputs, settings(format=f), f"file://{tmp_path}") for f in ("harness", "authors")]
    assert found[0].fingerprint != found[1].fingerprint
    assert found[0].extra["prompt_hashes"] != found[1].extra["prompt_hashes"]
    assert found[0].extra["question_hashes"] == found[1].extra["question_hashes"]
    assert "medqa_unparsable" not in found[1].totals
    longer = settings(format="authors", max_answer_tokens=9)
    assert evaluate("base", model, *inputs, longer, f"file://{tmp_path}").fingerprint == found[1].fingerprint


def test_what_a_model_learned_decides_how_it_is_asked(model, inputs, tmp_path) -> None:
    for objective, form in (("finetune", "authors"), ("instruct", "instruct"), ("pretrain", "harness")):
        assert settings(format="harness").after(objective).format == form
    instructed = model.model_copy(update={"settings": {"objective": "instruct"}})
    manifest = evaluate("candidate", instructed, *inputs, settings(format="harness"), f"file://{tmp_path}")
    assert manifest.extra["format"] == "instruct"
    assert "pubmedqa_unparsable" in manifest.totals


def test_an_interrupted_evaluation_writes_only_the_answers_that_are_missing(
    model, inputs, tmp_path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = evaluate("base", model, *inputs, settings(), f"file://{tmp_path}/whole")
    original, calls = module.write_answers, []

    def dying(network, drafts):
        calls.append(len(drafts))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(network, drafts)

    monkeypatch.setattr(module, "write_answers", dying)
    one_at_a_time = settings(batch_size=1, save_seconds=0, benchmarks=["medqa"])
    with pytest.raises(KeyboardInterrupt):
        evaluate("base", model, *inputs, one_at_a_time, f"file://{tmp_path}/cut")
    assert list(tmp_path.glob("cut/evaluations/*/answered/medqa/*.jsonl"))
    calls[:] = [0] * 10
    done = evaluate("base", model, *inputs, one_at_a_time, f"file://{tmp_path}/cut")
    assert calls[10:] == [1, 1, 1]
    assert lines(done, "medqa") == lines(whole, "medqa")
    assert not list(tmp_path.glob("cut/evaluations/*/answered/medqa/*.jsonl"))


def test_written_answers_come_back_from_the_store_the_empty_one_too(tmp_path) -> None:
    answered = Answered(f"file://{tmp_path}/parts", save_seconds=1000)
    answered.add(("one", HOW), "B", truncated=True)
    answered.add(("two", HOW), "", truncated=False)
    answered.save()
    again = Answered(f"file://{tmp_path}/parts", save_seconds=0)
    assert (again.get(("one", HOW)), again.get(("two", HOW)), again.get(("three", HOW))) == ("B", "", None)
    assert again.get(("one", HOW | {"max_gen_toks": 5})) is None
    assert again.truncated == 1
    lm = scorer()
    assert Resuming(lm, again).generate_until(requests(["one", "two"])) == ["B", ""]


@pytest.mark.parametrize(
    "wrong",
    [
        '{"request": "a", "truncated": false}',
        '{"request": "a", "truncated": false, "loglikelihood": -1, "greedy": true, "text": "B"}',
    ],
)
def test_a_stored_answer_is_a_score_or_a_text(tmp_path, wrong: str) -> None:
    (tmp_path / "part.jsonl").write_text(wrong + "\n")
    with pytest.raises(InputError, match=r"part.jsonl holds no answers of an interrupted evaluation"):
        Answered(f"file://{tmp_path}", save_seconds=0)


@pytest.mark.parametrize("tokens", [0, 8193])
def test_the_length_of_an_answer_has_bounds(tokens: int) -> None:
    with pytest.raises(ValidationError, match="max_answer_tokens"):
        settings(max_answer_tokens=tokens)


def test_the_model_of_the_store_loads_for_both(model) -> None:
    folder = model.extra["model_uri"].removeprefix("file://")
    lm = Scorer(AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder))
    assert [answer.id for answer in answer_questions(lm, "medqa", asked("medqa", 2), prompt_format="instruct")]


# ------------------------------------------------------------------------------------------------------- on a server


@pytest.fixture
def server(model) -> Iterator[CompletionsServer]:
    network = AutoModelForCausalLM.from_pretrained(model.extra["model_uri"].removeprefix("file://")).eval()
    with running_completions(network, "tiny-base", 512) as running:
        yield running


def on(server: CompletionsServer, **changes: object) -> EvaluateSettings:
    return settings(engine={"kind": "server", "url": server.url, "model": "tiny-base"}, **changes)


def test_a_server_writes_the_same_answers(model, inputs, tmp_path, server) -> None:
    long = [row | {"context": "fever " * 400} for row in questions("pubmedqa", 2)]
    files = {"pubmedqa-test": long, "medqa-test": questions("medqa", 3)}
    benchmarks = save_benchmarks(tmp_path / "long", files)
    ours = evaluate("base", model, benchmarks, inputs[1], settings(), f"file://{tmp_path}")
    theirs = evaluate("base", model, benchmarks, inputs[1], on(server), f"file://{tmp_path}")
    assert lines(theirs, "medqa") == lines(ours, "medqa")
    assert (theirs.totals["pubmedqa_truncated"], theirs.totals["medqa_truncated"]) == (2, 0)
    assert ours.totals["pubmedqa_truncated"] == 2


def test_answers_that_leave_no_room_on_a_server_are_refused(model, inputs, tmp_path, server) -> None:
    with pytest.raises(InputError, match=r"Answers of 500 tokens leave too little of the 51\d that tiny-base takes"):
        evaluate("base", model, *inputs, on(server, max_answer_tokens=500), f"file://{tmp_path}")
