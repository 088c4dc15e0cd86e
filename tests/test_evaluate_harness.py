"""Prompts, scores and answers equal those of lm-evaluation-harness's own tasks and backend."""

import json
import random
import socket
from pathlib import Path

import datasets
import lm_eval.tasks
import numpy as np
import pytest
import torch
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate as run_harness
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.common.errors import InputError, PipelineError
from components.common.manifest import Manifest
from components.common.questions import Question, majority_baseline, read_questions
from components.evaluate.harness import answer_questions
from components.evaluate.scorer import Scorer
from components.evaluate.tasks import Shots, build_task
from tests.evaluate_helpers import questions, save_benchmarks, save_model

BENCHMARKS = ["pubmedqa", "medmcqa", "medqa"]
REAL = Path(__file__).parents[2] / "shared" / "data" / "benchmarks"


@pytest.fixture(scope="module")
def model_manifest(tmp_path_factory) -> Manifest:
    return save_model(tmp_path_factory.mktemp("model"), positions=256)


@pytest.fixture(scope="module")
def network(model_manifest):
    folder = model_manifest.extra["model_uri"].removeprefix("file://")
    return AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)


@pytest.fixture(scope="module")
def scorer(network) -> Scorer:
    return Scorer(*network, batch_size=4)


def parsed(benchmark: str, count: int) -> list[Question]:
    return [Question.model_validate(row) for row in questions(benchmark, count)]


def own_task(benchmark: str, documents: list[dict]) -> ConfigurableTask:
    """lm-eval's task, unchanged but for where its documents come from."""
    config = load_yaml(Path(lm_eval.tasks.__file__).parent / benchmark / f"{benchmark}.yaml")
    local = {config["test_split"]: datasets.Dataset.from_list(documents)}
    config |= {"training_split": None, "validation_split": None, "custom_dataset": lambda **_: local}
    return ConfigurableTask(config=config)


def run_own(benchmark: str, documents: list[dict], network) -> list[dict]:
    """Answer with lm-eval's task and lm-eval's backend; samples in the order of the documents."""
    model, tokenizer = network
    task = own_task(benchmark, documents)
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=3)
    results = run_harness(lm, {"tasks": {"x": task}, "groups": {}, "group_map": {}}, bootstrap_iters=0)
    return sorted(results["samples"]["x"], key=lambda sample: sample["doc_id"])


EXPECTED_PROMPTS = {
    "pubmedqa": "Abstract: Patient 1 had fever.\nThe heart was well.\n"
    "Question: What helps patient 1 with fever and pain at night?\nAnswer:",
    "medmcqa": "Question: What helps patient 1 with fever and pain at night?\nChoices:\nA. aspirin\nB. β-blocker\n"
    "C. none of the above\nD. rest & fluids\nAnswer:",
    "medqa": "Question: What helps patient 1 with fever and pain at night?\nA. aspirin\nB. β-blocker\n"
    "C. none of the above\nD. rest & fluids\nAnswer:",
}


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_prompts_are_word_for_word_those_that_the_field_quotes(benchmark):
    task = build_task(benchmark, parsed(benchmark, 2))
    task.build_all_requests()
    requests = [instance.args for instance in task.instances if instance.doc_id == 1]
    options = [" yes", " no", " maybe"] if benchmark == "pubmedqa" else [" A", " B", " C", " D"]
    assert requests == [(EXPECTED_PROMPTS[benchmark], option) for option in options]


@pytest.mark.parametrize(
    ("benchmark", "document"),
    [
        (
            "pubmedqa",
            {
                "QUESTION": "What helps patient 1 with fever and pain at night?",
                "CONTEXTS": ["Patient 1 had fever.", "The heart was well."],
                "final_decision": "no",
            },
        ),
        (
            "medmcqa",
            {
                "question": "What helps patient 1 with fever and pain at night?",
                "opa": "aspirin",
                "opb": "β-blocker",
                "opc": "none of the above",
                "opd": "rest & fluids",
                "cop": 1,
            },
        ),
        (
            "medqa",
            {
                "sent1": "What helps patient 1 with fever and pain at night?",
                "ending0": "aspirin",
                "ending1": "β-blocker",
                "ending2": "none of the above",
                "ending3": "rest & fluids",
                "label": 1,
            },
        ),
    ],
)
def test_requests_equal_those_of_lm_evals_task_on_the_published_form_of_the_question(benchmark, document):
    ours, theirs = build_task(benchmark, parsed(benchmark, 2)), own_task(benchmark, [document, document])
    ours.build_all_requests()
    theirs.build_all_requests()
    by_document = [[i.args for i in task.instances if i.doc_id == 1] for task in (ours, theirs)]
    assert by_document[0] == by_document[1]
    assert ours.doc_to_choice(ours.dataset["test"][1]) == theirs.doc_to_choice(document)
    assert list(ours.aggregation()) == list(theirs.aggregation())
    target = ours.doc_to_target(ours.dataset["test"][1])
    assert target == theirs.doc_to_target(document)


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_scores_equal_lm_evals_own_backend_on_every_option(benchmark, network, scorer):
    asked = parsed(benchmark, 25)
    ours = answer_questions(scorer, benchmark, asked)
    theirs = run_own(benchmark, list(build_task(benchmark, asked).dataset["test"]), network)
    for mine, other in zip(ours, theirs, strict=True):
        expected = [response[0] for response in other["filtered_resps"]]
        assert list(mine.loglikelihoods.values()) == pytest.approx(expected, abs=2e-4)
        assert mine.correct == (other["acc"] == 1.0)
    assert len({tuple(answer.loglikelihoods.values()) for answer in ours}) > 20, "the model answers each alike"
    assert 0 < sum(answer.correct for answer in ours) < len(ours)


def test_long_prompts_lose_their_start_exactly_as_in_lm_eval_and_are_counted(network):
    asked = [q.model_copy(update={"context": "fever " * 400 + q.context}) for q in parsed("pubmedqa", 6)]
    scorer = Scorer(*network, batch_size=2)
    ours = answer_questions(scorer, "pubmedqa", asked)
    theirs = run_own("pubmedqa", list(build_task("pubmedqa", asked).dataset["test"]), network)
    for mine, other in zip(ours, theirs, strict=True):
        expected = [response[0] for response in other["filtered_resps"]]
        assert list(mine.loglikelihoods.values()) == pytest.approx(expected, abs=2e-4)
    assert len(scorer.truncated) == 18


def test_a_model_whose_head_scales_logits_goes_through_lm_evals_backend(network, monkeypatch):
    asked = parsed("medqa", 5)
    plain = answer_questions(Scorer(*network, batch_size=4), "medqa", asked)
    calls = []
    original = HFLM._model_call
    monkeypatch.setattr(HFLM, "_model_call", lambda *a, **k: calls.append(a) or original(*a, **k))
    answer_questions(Scorer(*network, batch_size=4), "medqa", asked)
    assert not calls
    monkeypatch.setattr(network[0].config, "model_type", "cohere")
    fallback = answer_questions(Scorer(*network, batch_size=4), "medqa", asked)
    assert calls
    for mine, other in zip(plain, fallback, strict=True):
        assert mine.loglikelihoods == pytest.approx(other.loglikelihoods, abs=2e-4)


def test_the_order_of_questions_and_the_batch_size_change_no_answer(network, scorer):
    asked = parsed("medmcqa", 15)
    straight = {a.id: a for a in answer_questions(scorer, "medmcqa", asked)}
    shuffled = random.Random(3).sample(asked, k=len(asked))
    for answer in answer_questions(Scorer(*network, batch_size=1), "medmcqa", shuffled):
        assert answer.loglikelihoods == pytest.approx(straight[answer.id].loglikelihoods, abs=2e-4)
        assert answer.prompt_hash == straight[answer.id].prompt_hash


def test_few_shot_prompts_show_solved_training_questions_and_repeat_with_the_seed():
    asked, examples = parsed("medqa", 3), parsed("medqa", 9)
    solved = [q.model_copy(update={"question": f"Example {i}?"}) for i, q in enumerate(examples)]

    def prompts(seed: int) -> list[str]:
        task = build_task("medqa", asked, solved, Shots(2, seed=seed))
        task.build_all_requests()
        return [instance.args[0] for instance in task.instances]

    first = prompts(1)[0]
    assert first.count("Example") == 2
    assert first.count("Answer: ") == 2
    assert first.endswith(
        asked[0].question + "\nA. aspirin\nB. β-blocker\nC. none of the above\nD. rest & fluids\nAnswer:"
    )
    assert prompts(1) == prompts(1) != prompts(2)


def test_common_examples_are_the_same_before_every_question_and_repeat_with_the_seed():
    asked = parsed("medqa", 4)
    solved = [q.model_copy(update={"question": f"Example {i}?"}) for i, q in enumerate(parsed("medqa", 9))]

    def shown(shots: Shots) -> list[str]:
        task = build_task("medqa", asked, solved, shots)
        task.build_all_requests()
        return [i.args[0].rpartition("Question: ")[0] for i in task.instances]

    assert len(set(shown(Shots(3, common=True)))) == 1
    assert len(set(shown(Shots(3)))) > 1
    assert shown(Shots(3, common=True)) == shown(Shots(3, common=True)) != shown(Shots(3, common=True, seed=1))


def test_mmlu_is_asked_as_lm_eval_asks_it_with_the_examples_of_its_dev_set_in_their_order():
    asked = parsed("medqa", 2)
    solved = [q.model_copy(update={"question": f"Example {i}?"}) for i, q in enumerate(parsed("medqa", 5))]
    for shots in (Shots(5), Shots(5, common=True, seed=3)):
        task = build_task("mmlu_anatomy", asked, solved, shots)
        task.build_all_requests()
        assert {instance.args[0].partition("Example")[0] for instance in task.instances} == {
            "The following are multiple choice questions (with answers) about anatomy.\n\n"
        }
        for instance in task.instances:
            assert [text[:1] for text in instance.args[0].split("Example ")[1:]] == ["0", "1", "2", "3", "4"]
            assert instance.args[0].endswith("D. rest & fluids\nAnswer:")
    assert [instance.args[1] for instance in task.instances[:4]] == [" A", " B", " C", " D"]


def test_markup_in_a_question_is_asked_word_for_word_and_changes_nothing_else(scorer):
    text = 'Is <script>alert("1")</script> **bold** &amp; {{question}} {% raw %} safe?\u2028Yes'
    asked = [q.model_copy(update={"question": text}) for q in parsed("medqa", 1)]
    for benchmark in ("medqa", "mmlu_anatomy"):
        task = build_task(benchmark, asked)
        task.build_all_requests()
        assert text in task.instances[0].args[0]
        (answer,) = answer_questions(scorer, benchmark, asked)
        assert type(answer).model_validate_json(answer.model_dump_json()) == answer


def test_more_examples_than_training_questions_are_refused():
    with pytest.raises(InputError, match="num_fewshot is 3 but medqa has 2"):
        build_task("medqa", parsed("medqa", 3), parsed("medqa", 2), Shots(3))


def test_nothing_is_fetched_from_the_network(scorer, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert len(answer_questions(scorer, "pubmedqa", parsed("pubmedqa", 3))) == 3


def test_broken_weights_are_named_by_the_question_they_fail_on(network):
    model, tokenizer = network
    broken = type(model)(model.config)
    broken.load_state_dict(model.state_dict())
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))
    with pytest.raises(PipelineError, match="question medqa-0 of medqa"):
        answer_questions(Scorer(broken.eval(), tokenizer, 2), "medqa", parsed("medqa", 2))


def test_a_question_with_other_options_is_refused_by_its_id():
    odd = parsed("medqa", 2)[1].model_copy(update={"options": {"A": "a", "B": "b", "C": "c"}})
    with pytest.raises(InputError, match="Question medqa-1 of medqa has the options A, B, C"):
        build_task("medqa", [odd])


def test_the_majority_baseline_is_the_share_of_the_most_frequent_answer():
    assert majority_baseline(parsed("pubmedqa", 7)) == pytest.approx(3 / 7)


def test_questions_are_read_in_order_and_up_to_the_limit(tmp_path):
    manifest = save_benchmarks(tmp_path, {"medqa-test": questions("medqa", 5)})
    assert [q.id for q in read_questions(manifest, "medqa", "test", limit=3)] == ["medqa-0", "medqa-1", "medqa-2"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "E"}, "Line 2 of .*medqa-test.jsonl is no question .*'E' is none of the options"),
        ({"options": None}, "Line 2 of .*options"),
        ({"id": "medqa-0"}, "holds question medqa-0 more than once"),
    ],
)
def test_a_bad_line_is_named(tmp_path, change, message):
    rows = questions("medqa", 3)
    rows[1] |= change
    with pytest.raises(InputError, match=message):
        read_questions(save_benchmarks(tmp_path, {"medqa-test": rows}), "medqa", "test")


def test_an_empty_file_an_altered_file_and_a_missing_benchmark_are_refused(tmp_path):
    with pytest.raises(InputError, match="holds no questions"):
        read_questions(save_benchmarks(tmp_path, {"medqa-test": []}), "medqa", "test")
    manifest = save_benchmarks(tmp_path, {"medqa-test": questions("medqa", 3)})
    with pytest.raises(InputError, match="no shard 'pubmedqa-test'"):
        read_questions(manifest, "pubmedqa", "test")
    (tmp_path / "medqa-test.jsonl").write_text(json.dumps(questions("medqa", 1)[0]))
    with pytest.raises(InputError, match="not the file that its manifest names"):
        read_questions(manifest, "medqa", "test")


def real_questions(benchmark: str) -> tuple[list[Question], list[dict]]:
    """Twelve real questions in our form and in the form that lm-eval's data set has."""
    if benchmark == "pubmedqa":
        labels = json.loads((REAL / "pubmedqa/test_ground_truth.json").read_text())
        articles = json.loads((REAL / "pubmedqa/ori_pqal.json").read_text())
        theirs = [articles[i] | {"final_decision": label} for i, label in list(labels.items())[:12]]
        ours = [
            {
                "id": i,
                "question": articles[i]["QUESTION"],
                "context": "\n".join(articles[i]["CONTEXTS"]),
                "options": {key: key for key in ("yes", "no", "maybe")},
                "answer": label,
            }
            for i, label in list(labels.items())[:12]
        ]
    elif benchmark == "medmcqa":
        rows = [json.loads(line) for line in (REAL / "medmcqa/dev.json").read_text().splitlines()[:12]]
        theirs = [row | {"cop": row["cop"] - 1} for row in rows]  # the hub's copy counts from 0
        ours = [
            {
                "id": row["id"],
                "question": row["question"],
                "options": dict(zip("ABCD", (row[f"op{c}"] for c in "abcd"), strict=True)),
                "answer": "ABCD"[row["cop"] - 1],
            }
            for row in rows
        ]
    else:
        rows = [json.loads(li) for li in (REAL / "medqa/phrases_no_exclude_test.jsonl").read_text().splitlines()[:12]]
        theirs = [
            {"sent1": row["question"], "label": "ABCD".index(row["answer_idx"])}
            | {f"ending{n}": row["options"][letter] for n, letter in enumerate("ABCD")}
            for row in rows
        ]
        ours = [row | {"id": str(n), "answer": row["answer_idx"]} for n, row in enumerate(rows)]
    return [Question.model_validate(row) for row in ours], theirs


@pytest.mark.skipif(not REAL.is_dir(), reason="the published benchmark files are not on this machine")
@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_answers_to_real_questions_equal_those_of_lm_evals_task_and_backend(benchmark, network, scorer):
    ours, theirs = real_questions(benchmark)
    answers = answer_questions(scorer, benchmark, ours)
    samples = run_own(benchmark, theirs, network)
    for answer, sample in zip(answers, samples, strict=True):
        scores = [response[0] for response in sample["filtered_resps"]]
        assert answer.prediction == list(answer.loglikelihoods)[int(np.argmax(scores))]
        assert answer.correct == (sample["acc"] == 1.0)
        assert list(answer.loglikelihoods.values()) == pytest.approx(scores, abs=5e-4)
