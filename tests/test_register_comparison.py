"""The comparison holds every number behind a verdict; what it is made from is read whole or refused."""

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow.entities.model_registry import ModelVersion
from pydantic import ValidationError

from components.common.absent import is_absent
from components.common.errors import InputError
from components.common.fingerprint import sha256_file
from components.common.manifest import Manifest
from components.register.comparison.calibration import calibration, confusion
from components.register.comparison.compare import compare
from components.register.comparison.comparison import Comparison
from components.register.comparison.published import published_table
from components.register.evidence.champion import Champion, champion_model, load_champion
from components.register.evidence.contamination import load_contamination
from components.register.evidence.evidence import Evidence, load_evidence
from components.register.evidence.licences import count_licences
from components.register.evidence.results import QuestionResult, load_evaluation
from components.register.gate.gate import decide
from components.register.settings import RegisterSettings
from tests.register_helpers import (
    answers,
    evaluation,
    evidence,
    examined,
    result,
    write_corpus,
    write_evaluation,
    write_questions,
)

POLICY = RegisterSettings(benchmarks=["medqa"], require_above_majority=False)


def model(fingerprint: str, **more) -> Manifest:
    fields = {"kind": "model", "inputs": {}, "settings": {}, "shards": [], "totals": {}}
    return Manifest(fingerprint=fingerprint, **fields | more)


def fine_tuned(fingerprint: str, of: str, tasks: list[str], method: str = "full", **settings) -> Manifest:
    chosen = {"objective": "finetune", "tasks": tasks, "method": method, "fraction": 1.0, "micro_batch_size": 4}
    return model(fingerprint, inputs={"base_model": of, "benchmarks": "b"}, settings=chosen | settings)


def compared(found: Evidence, policy: RegisterSettings = POLICY, benchmarks: Manifest | None = None) -> Comparison:
    return compare(found, decide(found, policy), policy, benchmarks)


@pytest.fixture
def stored(tmp_path: Path) -> Evidence:
    """Evidence from a store: base 40 and candidate 60 of 100 right, on the first of which the corpus holds some."""
    return load_evidence(
        model("m"),
        write_corpus(tmp_path, flagged=["medqa-0", "medqa-45", "medqa-46"]),
        write_evaluation(tmp_path, "base", 3.0, {"medqa": 40}),
        write_evaluation(tmp_path, "m", 2.5, {"medqa": 60}),
    )


def test_a_comparison_survives_its_way_through_json_and_the_store(stored, tmp_path):
    comparison = compared(stored, benchmarks=write_questions(tmp_path))
    path = tmp_path / "comparison.json"
    path.write_text(comparison.model_dump_json(), encoding="utf-8")
    assert Comparison.load(path.as_uri()) == comparison
    assert json.loads(path.read_text())["verdict"]["reason"].startswith("Promoted: perplexity fell from 22.2")


def test_a_file_that_is_no_comparison_is_refused(tmp_path):
    (tmp_path / "comparison.json").write_text('{"verdict": 1}')
    with pytest.raises(InputError, match=r"comparison\.json is no comparison"):
        Comparison.load((tmp_path / "comparison.json").as_uri())


def test_scores_are_given_with_and_without_the_questions_that_the_corpus_holds(stored):
    base, candidate = (one.benchmarks["medqa"] for one in compared(stored).models)
    assert (base.accuracy.value, candidate.accuracy.value) == (0.4, 0.6)
    assert (candidate.questions, candidate.flagged, candidate.clean_questions) == (100, 3, 97)
    assert base.clean_accuracy.value == pytest.approx(39 / 97)
    assert candidate.clean_accuracy.value == pytest.approx(57 / 97)
    assert candidate.overlap_free_accuracy == candidate.clean_accuracy
    assert candidate.majority == 0.31


def test_the_pair_has_both_intervals_and_the_numbers_of_the_test(stored):
    (pair,) = compared(stored).pairs
    medqa = pair.benchmarks["medqa"]
    assert (pair.reference, pair.setting, pair.decides, pair.obstacles) == ("base", "as is", True, [])
    assert (medqa.every.gained, medqa.every.lost, medqa.every.questions) == (20, 0, 100)
    assert (medqa.counted.gained, medqa.counted.questions, medqa.flagged) == (18, 97, 3)
    assert medqa.counted.p_value == medqa.counted.p_adjusted == pytest.approx(2 * 0.5**18)
    for interval in (medqa.counted.change, medqa.counted.bootstrap):
        assert interval.value == pytest.approx(18 / 97)
        assert 0.1 < interval.low < 0.14 < 0.24 < interval.high < 0.3
    assert pair.perplexity.value == pytest.approx(math.exp(-0.5) - 1)


def test_questions_won_and_lost_come_with_their_texts_as_they_are(stored, tmp_path):
    found = compared(stored, benchmarks=write_questions(tmp_path)).questions
    assert [question.id for question in found] == [f"medqa-{i}" for i in range(40, 60)]
    first = found[0]
    assert first.text == "Which <b>drug</b> helps patient 40?"
    assert first.options["D"] == "drug D40"
    assert (first.answer, first.predictions, first.outcome) == ("D", {"base": "A", "candidate": "D"}, {"base": "won"})
    assert first.hash == "hash of medqa-40"
    assert [question.id for question in found if question.flagged] == ["medqa-45", "medqa-46"]
    assert compared(stored).questions[0].text == ""


def test_a_lost_question_is_lost_against_each_reference_by_itself():
    base, candidate = evaluation("b", medqa=answers(50)), evaluation("c", 2.9, medqa=answers(50, first=10))
    champion = Champion("3", "x", evaluation("x", 2.95, medqa=answers(55, first=10)))
    outcomes = {q.id: q.outcome for q in compared(evidence(base, candidate, champion=champion)).questions}
    assert outcomes["q0"] == {"base": "lost"}
    assert outcomes["q55"] == {"base": "won"}
    assert outcomes["q62"] == {"champion": "lost"}
    assert len(outcomes) == 25


def test_what_cannot_be_compared_is_said_and_left_out():
    base = evaluation("b", medqa=answers(50), pubmedqa=answers(40))
    candidate = evaluation("c", math.nan, medqa=answers(60))
    comparison = compared(evidence(base, candidate))
    (pair,) = comparison.pairs
    assert pair.obstacles == ["the candidate has no result for pubmedqa"]
    assert list(pair.benchmarks) == ["medqa"]
    assert pair.perplexity is None
    assert comparison.models[1].perplexity is None
    json.loads(comparison.model_dump_json(), parse_constant=pytest.fail)  # no NaN, no Infinity


def test_benchmarks_that_do_not_decide_are_compared_but_not_corrected_for():
    base = evaluation("b", medqa=answers(50), mmlu_anatomy=answers(20, 90))
    candidate = evaluation("c", 2.9, medqa=answers(60), mmlu_anatomy=answers(26, 90))
    benchmarks = compared(evidence(base, candidate)).pairs[0].benchmarks
    assert [benchmarks[name].decides for name in ("medqa", "mmlu_anatomy")] == [True, False]
    assert benchmarks["medqa"].counted.p_adjusted == benchmarks["medqa"].counted.p_value
    assert benchmarks["mmlu_anatomy"].counted.p_adjusted is None


def test_a_champion_that_cannot_be_compared_with_is_named_with_its_obstacle():
    found = evidence(evaluation("b", medqa=answers(50)), evaluation("c", medqa=answers(60)))
    comparison = compared(replace(found, champion=Champion("4", "x", obstacle="its weights are gone")))
    assert (comparison.champion_version, comparison.champion_obstacle) == ("4", "its weights are gone")
    assert [one.role for one in comparison.models] == ["base", "candidate"]


def sure(probability: float, correct: bool, number: int = 0) -> QuestionResult:
    """An answer with this probability, on two options."""
    scores = {"yes": math.log(probability) - 7, "no": math.log(1 - probability) - 7}
    return QuestionResult(
        id=str(number),
        question_hash="",
        prompt_hash="",
        correct=correct,
        prediction="yes",
        answer="yes" if correct else "no",
        loglikelihoods=scores,
    )


def test_the_calibration_error_is_that_of_a_worked_example():
    # Ten answers at 0.95 of which nine are right, ten at 0.65 of which five are: (0.05 + 0.15) / 2.
    results = [sure(0.95, i < 9, i) for i in range(10)] + [sure(0.65, i < 5, 10 + i) for i in range(10)]
    found = calibration(results, 0.95)
    assert found.ece == pytest.approx(0.1)
    assert found.brier == pytest.approx((9 * 2 * 0.05**2 + 2 * 0.95**2 + 5 * 2 * 0.35**2 + 5 * 2 * 0.65**2) / 20)
    assert [(one.low, one.high, one.questions) for one in found.bins] == [(0.6, 0.7, 10), (0.9, 1.0, 10)]
    assert [one.confidence for one in found.bins] == pytest.approx([0.65, 0.95])
    assert found.bins[0].accuracy.low == pytest.approx(0.2366, abs=1e-4)  # Wilson, 5 of 10


def test_a_perfectly_sure_answer_falls_into_the_last_bin():
    certain = sure(0.5, True).model_copy(update={"loglikelihoods": {"yes": 0.0, "no": -math.inf}})
    found = calibration([certain], 0.95)
    assert (found.ece, found.brier, found.bins[0].high) == (0, 0, 1.0)


def test_answers_without_probabilities_have_no_calibration():
    assert calibration([], 0.95) is None
    assert calibration([sure(0.9, True), result("q", True).model_copy(update={"loglikelihoods": {}})], 0.95) is None
    assert (
        calibration([sure(0.9, True).model_copy(update={"loglikelihoods": {"yes": math.nan, "no": -1}})], 0.95) is None
    )


def test_the_confusion_matrix_counts_unparsable_answers_as_a_label_of_their_own():
    def one(answer: str, prediction: str) -> QuestionResult:
        return sure(0.9, answer == prediction).model_copy(update={"answer": answer, "prediction": prediction})

    pairs = [("yes", "yes"), ("yes", "no"), ("no", "no"), ("maybe", "yes"), ("maybe", "")]
    found = confusion([one(*pair) for pair in pairs])
    assert found.labels == ["yes", "no", "maybe", "unparsable"]
    assert found.counts == [[1, 1, 0, 0], [0, 1, 0, 0], [1, 0, 0, 1], [0, 0, 0, 0]]
    assert confusion([one("", "yes")]) is None


def test_generated_answers_that_could_not_be_read_are_counted():
    unread = answers(50).questions["q70"].model_copy(update={"prediction": ""})
    benchmark = replace(answers(50), questions={**answers(50).questions, "q70": unread})
    comparison = compared(evidence(evaluation("b", medqa=answers(50)), evaluation("c", 2.9, medqa=benchmark)))
    assert [one.benchmarks["medqa"].unparsable for one in comparison.models] == [0, 1]


def test_the_published_rows_are_marked_and_equal_the_authors_readme():
    rows = {(row.model, row.setting): row for row in published_table().rows}
    ours = rows["PMC-LLaMA-7B", "full fine-tuning"]
    assert [round(100 * cell.value, 2) for cell in ours.cells.values()] == [44.70, 40.61, 50.54, 69.53]
    assert rows["Human (pass)", ""].cells["medmcqa"] is None
    assert all(row.source == "published" and "2304.14454" in row.citation for row in rows.values())


def test_fine_tuned_results_stand_in_the_papers_columns(tmp_path):
    tuned = {
        "b-in": (fine_tuned("b-in", "base", ["medqa"]), {"medqa": 44}),
        "c-in": (fine_tuned("c-in", "m", ["medqa"], micro_batch_size=8), {"medqa": 60}),
        "b-out": (fine_tuned("b-out", "base", ["pubmedqa", "medmcqa"]), {"medqa": 41, "pubmedqa": 70, "medmcqa": 30}),
        "c-out": (fine_tuned("c-out", "m", ["medmcqa", "pubmedqa"]), {"medqa": 42, "pubmedqa": 71, "medmcqa": 39}),
    }
    found = load_evidence(
        model("m"),
        write_corpus(tmp_path, ["medqa", "pubmedqa", "medmcqa"]),
        write_evaluation(tmp_path, "base", 3.0, {"medqa": 40}),
        write_evaluation(tmp_path, "m", 2.5, {"medqa": 60}),
        fine_tuned_models=[one for one, _ in tuned.values()],
        fine_tuned_evals=[write_evaluation(tmp_path, name, 2.4, right) for name, (_, right) in tuned.items()],
    )
    comparison = compared(found, RegisterSettings(judged_on="fine_tuned", require_above_majority=False))
    rows = {(row.model, row.setting): row for row in comparison.table.rows if row.source == "measured"}
    cells = {who: [cell and cell.value for cell in row.cells.values()] for who, row in rows.items()}
    assert cells["base", "full fine-tuning"] == [0.41, 0.44, 0.30, 0.70]
    assert cells["candidate", "full fine-tuning"] == [0.42, 0.60, 0.39, 0.71]
    assert cells["base", "as is"] == [0.4, None, None, None]
    assert rows["candidate", "full fine-tuning"].trained_on["usmle_out"] == "medmcqa and pubmedqa"
    settings = {(pair.setting, pair.decides) for pair in comparison.pairs}
    assert settings == {
        ("as is", False),
        ("fine-tuned on medqa (full)", True),
        ("fine-tuned on medmcqa and pubmedqa (full)", True),
    }
    assert comparison.verdict.passed, comparison.verdict.reason


def test_an_evaluation_of_another_model_is_refused(tmp_path):
    base = write_evaluation(tmp_path, "base", 3.0, {"medqa": 40})
    with pytest.raises(InputError, match="evaluation is of model base, not of m"):
        load_evidence(model("m"), write_corpus(tmp_path), base, base)
    candidate = write_evaluation(tmp_path, "m", 3.0, {"medqa": 40})
    with pytest.raises(InputError, match="of none of the fine-tuned models"):
        load_evidence(model("m"), write_corpus(tmp_path), base, candidate, fine_tuned_evals=[base])
    with pytest.raises(InputError, match="was given as a fine-tuned one and is none"):
        load_evidence(model("m"), write_corpus(tmp_path), base, candidate, None, [model("base")], [base])


def test_altered_results_are_refused(tmp_path):
    manifest = write_evaluation(tmp_path, "m", 3.0, {"medqa": 40})
    path = Path(manifest.extra["results"]["medqa"].removeprefix("file://"))
    path.write_text(path.read_text().replace("false", "true"))
    with pytest.raises(InputError, match=r"medqa\.jsonl is not the file that its manifest names"):
        load_evaluation(manifest)


def test_a_question_that_was_answered_twice_is_refused(tmp_path):
    manifest = write_evaluation(tmp_path, "m", 3.0, {"medqa": 40})
    path = Path(manifest.extra["results"]["medqa"].removeprefix("file://"))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines, lines[5], lines[6]]))
    medqa = manifest.shards[0].model_copy(update={"sha256": sha256_file(path)})
    with pytest.raises(InputError, match=r"medqa\.jsonl holds 2 results twice"):
        load_evaluation(manifest.model_copy(update={"shards": [medqa, *manifest.shards[1:]]}))


def test_null_in_the_results_is_no_number_and_reaches_the_gate(tmp_path):
    manifest = write_evaluation(tmp_path, "m", math.nan, {"medqa": 40})
    text = Path(manifest.shard("perplexity").uri.removeprefix("file://")).read_text()
    assert "NaN" in text
    assert math.isnan(load_evaluation(manifest).perplexity)
    assert math.isnan(
        QuestionResult.model_validate_json(
            '{"id":"q","question_hash":"","prompt_hash":"","correct":true,"loglikelihoods":{"A":null}}'
        ).loglikelihoods["A"]
    )


def test_a_mixture_is_judged_by_all_its_corpora(tmp_path):
    other = write_corpus(tmp_path, flagged=["medqa-7"], licences={"CC BY-NC 4.0": 3, "": 1})
    (tmp_path / "other.json").write_text(other.to_json())
    uri = (tmp_path / "other.json").as_uri()
    own = write_corpus(tmp_path, flagged=["medqa-8"], licences={"CC BY": 5})
    evaluations = [write_evaluation(tmp_path, name, 3.0, {"medqa": 40}) for name in ("base", "m")]
    mixed = model(
        "m", inputs={"corpus": own.fingerprint, uri: other.fingerprint}, settings={"mixture": {"corpus": 1.0, uri: 2.0}}
    )
    found = load_evidence(mixed, own, *evaluations)
    assert found.contamination.flagged("medqa") == {"medqa-7", "medqa-8"}
    assert found.licences == {"CC BY": 5, "CC BY-NC": 3, "unknown": 1}
    stale = mixed.model_copy(update={"inputs": {"corpus": own.fingerprint, uri: "older"}})
    with pytest.raises(InputError, match="learned from the corpus older"):
        load_evidence(stale, own, *evaluations)


def test_a_mixture_with_a_corpus_that_was_never_searched_counts_as_unsearched(tmp_path):
    own, other = write_corpus(tmp_path), write_corpus(tmp_path, licences={"CC0": 1})
    assert load_contamination([own, other]) is not None
    assert load_contamination([own, other.model_copy(update={"extra": {}})]) is None


def test_articles_without_a_recorded_licence_count_as_unknown(tmp_path):
    corpus = write_corpus(tmp_path, licences={"CC BY 4.0": 4, "CC BY 3.0": 2, "CC0 1.0": 1})
    grown = corpus.model_copy(update={"totals": {"documents": 10}})
    assert count_licences([grown]) == {"CC BY": 6, "unknown": 3, "CC0": 1}


def test_a_corpus_without_an_account_of_contamination_is_told_from_a_clean_one(tmp_path):
    corpus = write_corpus(tmp_path)
    silent = corpus.model_copy(update={"extra": {"counts": corpus.extra["counts"]}})
    evaluations = [write_evaluation(tmp_path, name, 3.0, {"medqa": 40}) for name in ("base", "m")]
    assert load_evidence(model("m"), silent, *evaluations).contamination is None
    assert load_evidence(model("m"), corpus, *evaluations).contamination.flagged("medqa") == frozenset()


def holder(tmp_path: Path, **tags: str) -> ModelVersion:
    """A registered version with its weights in the store."""
    folder = tmp_path / "champion" / "model"
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("MLmodel", "config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    manifest = model("x", extra={"model_uri": folder.as_uri()})
    manifest.save(tmp_path / "champion" / "manifest.json")
    known = {"model_fingerprint": "x", "model_manifest_uri": (tmp_path / "champion" / "manifest.json").as_uri()}
    version = ModelVersion("pmc", "5", 0, source=folder.as_uri())
    version._tags = known | tags
    return version


def test_a_champion_is_known_by_its_own_evaluation_or_by_a_fresh_one(tmp_path):
    own = write_evaluation(tmp_path, "x", 2.8, {"medqa": 45})
    version = holder(tmp_path, evaluation_uri=own.extra["manifest_uri"])
    assert champion_model(version).fingerprint == "x"
    found = load_champion(version)
    assert (found.version, found.model, found.obstacle) == ("5", "x", "")
    assert found.evaluation.benchmarks["medqa"].accuracy == 0.45
    fresh = write_evaluation(tmp_path, "x", 2.8, {"medqa": 47}, validation="this run's")
    assert load_champion(version, fresh).evaluation.validation_hash == "this run's"
    of_another = write_evaluation(tmp_path, "y", 2.8, {"medqa": 90})
    assert load_champion(version, of_another).evaluation.benchmarks["medqa"].accuracy == 0.45


def test_without_a_champion_there_is_nothing_to_evaluate():
    nothing = champion_model(None)
    assert is_absent(nothing)
    assert nothing.extra["obstacle"] == ""
    assert load_champion(None, nothing) is None


def test_a_champion_that_is_this_runs_model_itself_is_as_good_as_none(tmp_path):
    version = holder(tmp_path)
    assert champion_model(version, "x").fingerprint == champion_model(None).fingerprint
    assert champion_model(version, "y").fingerprint == "x"


def test_a_champion_whose_weights_are_gone_is_an_obstacle(tmp_path):
    own = write_evaluation(tmp_path, "x", 2.8, {"medqa": 45})
    version = holder(tmp_path, evaluation_uri=own.extra["manifest_uri"])
    (tmp_path / "champion" / "model" / "model.safetensors").unlink()
    sentence = (
        "the weights of the champion, version 5, are gone (model.safetensors missing at "
        f"{version.source}); restore them, or give the alias to another version"
    )
    assert load_champion(version).obstacle == sentence
    assert champion_model(version).extra["obstacle"] == sentence
    assert is_absent(champion_model(version))
    found = evidence(evaluation("b", medqa=answers(50)), evaluation("c", 2.9, medqa=answers(60)))
    verdict = decide(replace(found, champion=load_champion(version)), POLICY)
    assert verdict.reason == f"Not promoted: {sentence}."


def test_a_champion_whose_evaluation_cannot_be_read_is_an_obstacle(tmp_path):
    version = holder(tmp_path)
    assert load_champion(version).obstacle == (
        "the champion, version 5, has no evaluation to compare with (tag evaluation_uri)"
    )
    gone = holder(tmp_path, evaluation_uri=f"file://{tmp_path}/gone.json")
    assert load_champion(gone).obstacle.startswith("the evaluation of the champion, version 5, cannot be read: ")
    (tmp_path / "champion" / "manifest.json").write_text("[]")
    assert "the manifest of the champion, version 5, cannot be read" in champion_model(gone).extra["obstacle"]
    del version._tags["model_manifest_uri"]
    assert champion_model(version).extra["obstacle"] == (
        "the champion, version 5, does not say where its manifest lies (tag model_manifest_uri)"
    )


def test_a_champions_fine_tuned_results_are_found_through_its_own_comparison(tmp_path):
    tuned = fine_tuned("c-in", "m", ["medqa"])
    found = load_evidence(
        model("m"),
        write_corpus(tmp_path),
        write_evaluation(tmp_path, "base", 3.0, {"medqa": 40}),
        own := write_evaluation(tmp_path, "m", 2.5, {"medqa": 60}),
        fine_tuned_models=[tuned],
        fine_tuned_evals=[write_evaluation(tmp_path, "c-in", 2.4, {"medqa": 66})],
    )
    path = tmp_path / "comparison.json"
    path.write_text(compared(found).model_dump_json())
    version = holder(
        tmp_path, evaluation_uri=own.extra["manifest_uri"], comparison_uri=path.as_uri(), model_fingerprint="m"
    )
    (evaluation_after,) = load_champion(version).fine_tuned.values()
    assert evaluation_after.benchmarks["medqa"].accuracy == 0.66
    assert load_champion(version).fine_tuned.keys() == found.candidate_fine_tuned.keys()


def test_the_shape_of_a_comparison_is_closed(stored):
    data = json.loads(compared(stored).model_dump_json())
    with pytest.raises(ValidationError):
        Comparison.model_validate(data | {"extra": 1})


def test_contamination_is_reported_by_both_measures():
    candidate = evaluation("c", 2.9, medqa=answers(60))
    known = examined(candidate, {"medqa": ["q1", "q2"]})
    found = compared(evidence(evaluation("b", medqa=answers(50)), candidate, contamination=known))
    medqa = found.contamination.benchmarks["medqa"]
    assert (medqa.questions, medqa.overlapping, medqa.flagged, medqa.flagged_by_training) == (500, 52, 2, 0)
    score = found.models[1].benchmarks["medqa"]
    assert (score.overlapping, score.overlap_free_questions, score.clean_questions) == (52, 448, 498)
