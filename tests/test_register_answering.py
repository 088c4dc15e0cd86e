"""A model that was taught to answer is registered beside its parent, and promoted when its own gate lets it."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Manifest
from components.common.settings import get_settings
from components.common.shards import write_shard
from components.register.answering import AnsweringResult, register_answering
from components.register.gate.answering_gate import TaughtFrom
from components.register.registry.lineage import lineage
from components.register.registry.promotion import roll_back
from components.register.registry.registry import Registry
from components.register.settings import RegisterSettings
from tests.evaluate_helpers import save_model
from tests.register_helpers import write_corpus, write_evaluation, write_questions

NAME = "pmc-llama-test-talk"
SETTINGS = RegisterSettings(model_name="pmc-llama-test", benchmarks=["medqa"])
PARENT = Manifest(kind="model", fingerprint="parent", inputs={}, settings={}, shards=[], totals={}, extra={})
TAUGHT_FROM = TaughtFrom(model="pmc-llama-test", version="7", model_fingerprint="parent", passed=True)


def run(
    tmp_path: Path,
    model: Manifest,
    correct: int = 60,
    unreadable: int = 0,
    settings: RegisterSettings = SETTINGS,
    taught_from: TaughtFrom = TAUGHT_FROM,
    **more: Any,
) -> AnsweringResult:
    """Register a model that answers so many of 100 questions rightly, and some so that they name no option."""
    arguments = {
        "evaluation": written(tmp_path, model.fingerprint, correct, unreadable),
        "parent": PARENT,
        "parent_eval": write_evaluation(tmp_path, "parent", 2.5, {"medqa": 40}),
        "corpus": write_corpus(tmp_path),
        "benchmarks": questions(tmp_path),
        "lineage": {"recipe": "tiny", "git_revision": "abc123", "image": ""},
    } | more
    return register_answering("talk", model, settings=settings, taught_from=taught_from, **arguments)


def taught(tmp_path: Path, seed: int = 0) -> Manifest:
    """A model with weights on disk, and a manifest as the fine-tuning writes it."""
    made = save_model(tmp_path, seed=seed)
    return made.model_copy(
        update={
            "inputs": {"base_model": "parent", "benchmarks": questions(tmp_path).fingerprint},
            "settings": {"objective": "instruct", "tasks": ["medqa"], "method": "full", "epochs": 3},
            "totals": {"instructions": 2, "examples": 4, "tokens": 3600, "mean_tokens_per_second": 1.0, "processes": 1},
        }
    )


def questions(tmp_path: Path) -> Manifest:
    """The benchmark files with an instruction set of three lines."""
    lines = [{"id": str(i), "instruction": f"Say {i}.", "input": "", "output": f"{i}"} for i in range(3)]
    data = "".join(json.dumps(line) + "\n" for line in lines).encode()
    found = write_questions(tmp_path)
    shard = write_shard(f"file://{tmp_path}/instructions", "instructions-train", {".jsonl": data}, len(lines))
    return found.model_copy(update={"shards": [*found.shards, shard], "settings": {"instructions": "a|b <i>set</i>"}})


def written(tmp_path: Path, model: str, correct: int, unreadable: int = 0) -> Manifest:
    """The evaluation of answers that were written: no log-likelihoods, and the last ones name no option."""
    manifest = write_evaluation(tmp_path, model, 2.7, {"medqa": correct})
    rows = [json.loads(line) for line in storage.read(manifest.shard("medqa").uri).splitlines()]
    for number, row in enumerate(rows):
        row["loglikelihoods"] = {}
        row["prediction"] = "" if number >= len(rows) - unreadable else row["prediction"]
    return _with_answers(manifest, rows)


def _with_answers(manifest: Manifest, rows: list[Mapping[str, Any]]) -> Manifest:
    prefix = manifest.extra["manifest_uri"].rpartition("/")[0] + "-written"
    data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    shards = [write_shard(prefix, "medqa", {".jsonl": data}, len(rows)), manifest.shard("perplexity")]
    extra = manifest.extra | {"manifest_uri": f"{prefix}/manifest.json", "results": {"medqa": shards[0].uri}}
    changed = manifest.model_copy(update={"shards": shards, "extra": extra})
    changed.save_uri(extra["manifest_uri"])
    return changed


def _of_corpus(fingerprint: str) -> Manifest:
    return PARENT.model_copy(update={"inputs": {"corpus": fingerprint}})


def aliases(registry_client: MlflowClient) -> dict[str, str]:
    return {alias: str(version) for alias, version in registry_client.get_registered_model(NAME).aliases.items()}


def test_a_model_whose_answers_can_be_read_becomes_champion_of_its_own_name(registry_client, tmp_path):
    model = taught(tmp_path)
    result = run(tmp_path, model, unreadable=3)
    assert (result.name, result.version, result.aliases) == (NAME, "1", ["candidate", "champion"])
    assert result.verdict.reason == (
        "Promoted: 3 of 100 answers to medqa name no option; its answers can be read, and there is no champion to fall "
        "behind."
    )
    version = registry_client.get_model_version_by_alias(NAME, "champion")
    assert version.source == model.extra["model_uri"]
    tags = version.tags
    assert tags["taught_from"] == "pmc-llama-test/7"
    assert (tags["model_fingerprint"], tags["base_fingerprint"]) == (model.fingerprint, "parent")
    assert tags["instructions"] == "a|b <i>set</i>"
    assert tags["instructions_fingerprint"] == questions(tmp_path).shard("instructions-train").sha256
    assert (tags["instructions_learned"], tags["recipe"], tags["git_revision"]) == ("2", "tiny", "abc123")
    assert (tags["verdict"], tags["judged_against"]) == ("passed", "none")
    assert json.loads(tags["licences"]) == {"CC BY": 7, "CC0": 2}
    assert tags["evaluation_uri"] == written(tmp_path, model.fingerprint, 60, 3).extra["manifest_uri"]
    assert tags["corpus_fingerprint"] == write_corpus(tmp_path).fingerprint
    assert "| MedQA-USMLE | 60.0% (50.2% to 69.1%) | 3 of 100 | 31.0% |" in version.description
    assert (result.summary["medqa_unreadable"], result.summary["taught_from"]) == (3, "pmc-llama-test/7")
    told = lineage(get_settings().tracking_uri, NAME)
    assert told["instructions"]["taught_from"] == "pmc-llama-test/7"
    assert "### Response:" in storage.read(f"{model.extra['model_uri']}/input_example.json").decode()


def test_its_card_says_what_it_is_what_it_learned_and_what_is_not_known(registry_client, tmp_path):
    result = run(tmp_path, taught(tmp_path), unreadable=3)
    front, text = result.card.split("\n---\n", 1)
    assert storage.read(registry_client.get_model_version(NAME, "1").tags["card_uri"]).decode() == result.card
    assert yaml.safe_load(front.removeprefix("---\n"))["model-index"][0]["name"] == NAME
    assert text.lstrip().startswith(f"# {NAME}\n")
    for part in (
        "**Not a medical device.**",
        "taught to answer\ninstructions",
        "| Taught from | pmc-llama-test/7 of the same registry |",
        "from 2 of the 3 instructions of\n`a|b <i>set</i>`",
        "**The licence of these instructions is not known to the\npipeline**",
        "The training questions of medqa were among its examples.",
        "| CC BY | 7 |",
        "| MedQA-USMLE | 60.0% (50.2% to 69.1%) | 3 of 100 | 31.0% |",
        "| examples | 4 |",
        "Training steps: 1 device hours",
        "Held-out perplexity of articles: ",
        f"'models:/{NAME}@champion'",
        "answer the medical questions based on the patient's description.\\n\\n### Input:\\n",
    ):
        assert part in text, part
    assert "pre-training was continued" not in text


@pytest.mark.parametrize(
    ("more", "settings", "sentence"),
    [
        (
            {"unreadable": 11},
            {},
            "Not promoted: 11 of 100 answers to medqa name no option, more than the 10.0% allowed.",
        ),
        ({"unreadable": 1}, {"max_unreadable": 0.0}, "Not promoted: 1 of 100 answers to medqa name no option, more"),
        ({}, {"benchmarks": ["medqa", "pubmedqa"]}, "Not promoted: it has no answers to pubmedqa."),
        (
            {"taught_from": TAUGHT_FROM.model_copy(update={"passed": False})},
            {},
            "Not promoted: version 7 of pmc-llama-test, which it was taught from, did not pass its own gate.",
        ),
        (
            {},
            {"licences": "commercial"},
            "Not promoted: the policy 'commercial' does not allow the licences of 2 of 9 articles (2 CC BY-NC).",
        ),
    ],
)
def test_what_its_gate_refuses_is_candidate_only_and_says_why(registry_client, tmp_path, more, settings, sentence):
    corpus = write_corpus(tmp_path, licences={"CC BY 4.0": 7, "CC BY-NC 4.0": 2})
    policy = SETTINGS.model_copy(update=settings)
    result = run(tmp_path, taught(tmp_path), settings=policy, corpus=corpus, **more)
    assert result.verdict.reason.startswith(sentence)
    assert (result.aliases, aliases(registry_client)) == (["candidate"], {"candidate": "1"})
    assert registry_client.get_model_version(NAME, "1").tags["verdict"] == "failed"


def test_scored_options_are_no_written_answers(registry_client, tmp_path):
    model = taught(tmp_path)
    result = run(tmp_path, model, evaluation=write_evaluation(tmp_path, model.fingerprint, 2.7, {"medqa": 60}))
    assert result.verdict.reason == "Not promoted: its answers to medqa were not written: options were scored."


def test_a_later_one_may_not_answer_worse_than_the_champion_beyond_the_margin(registry_client, tmp_path):
    run(tmp_path, taught(tmp_path, seed=0), 60)
    worse = run(tmp_path, taught(tmp_path, seed=1), 50)
    assert worse.verdict.reason == (
        "Not promoted: medqa fell from 60.0% to 50.0% against the champion (-10.0 points, -16.0 to -3.8), more than "
        "the 2.0 points that it may lose."
    )
    assert aliases(registry_client) == {"candidate": "2", "champion": "1"}
    assert registry_client.get_model_version(NAME, "2").tags["judged_against"] == "1"
    alike = run(tmp_path, taught(tmp_path, seed=2), 59)
    assert alike.verdict.reason == "Promoted: its answers can be read, and no benchmark lost more than it may."
    assert aliases(registry_client) == {"candidate": "3", "champion": "3", "previous": "1"}


def test_questions_that_its_training_questions_hold_do_not_count_against_the_champion(registry_client, tmp_path):
    corpus = write_corpus(tmp_path, in_training=[f"medqa-{i}" for i in range(50, 60)])
    run(tmp_path, taught(tmp_path, seed=0), 60, corpus=corpus)
    learned = taught(tmp_path, seed=1)
    free = learned.model_copy(update={"settings": learned.settings | {"tasks": []}})
    assert not run(tmp_path, free, 50, corpus=corpus).verdict.passed  # it has not seen the training questions
    result = run(tmp_path, learned, 50, corpus=corpus)
    assert result.verdict.passed, result.verdict.reason


def test_other_questions_or_a_champion_that_is_gone_are_a_refusal(registry_client, tmp_path):
    first, second = taught(tmp_path, seed=0), taught(tmp_path, seed=1)
    run(tmp_path, first, 60)
    other = written(tmp_path, second.fingerprint, 90)
    rows = [json.loads(line) for line in storage.read(other.shard("medqa").uri).splitlines()]
    rows[3]["prompt_hash"] = "another template"
    changed = run(tmp_path, second, evaluation=_with_answers(other, rows))
    assert "1 medqa prompts differ from those of the champion, that of medqa-3 among them" in changed.verdict.reason
    storage.delete(storage.join(first.extra["model_uri"], "model.safetensors"))
    lost = run(tmp_path, second, 90)
    assert "the weights of the champion, version 1, are gone (model.safetensors missing" in lost.verdict.reason
    assert aliases(registry_client) == {"candidate": "2", "champion": "1"}
    registry_client.set_model_version_tag(NAME, "1", "evaluation_uri", f"file://{tmp_path}/gone.json")
    alone = run(tmp_path, second, 90, settings=SETTINGS.model_copy(update={"compare_with_champion": False}))
    assert alone.aliases == ["candidate", "champion"]


def test_a_rerun_makes_no_second_version(registry_client, tmp_path):
    model = taught(tmp_path)
    first = run(tmp_path, model)
    again = run(tmp_path, model)
    assert (again.version, again.aliases) == (first.version, first.aliases)
    assert len(registry_client.search_model_versions(f"name = '{NAME}'")) == 1


def test_one_that_a_person_rolled_back_stays_out(registry_client, tmp_path):
    run(tmp_path, taught(tmp_path, seed=0), 60)
    better = taught(tmp_path, seed=1)
    run(tmp_path, better, 80)
    place = get_settings()
    roll_back(place.tracking_uri, place.store_uri, NAME, "it made things up")
    again = run(tmp_path, better, 80)
    assert "(it made things up); promote it by hand" in again.verdict.reason
    assert aliases(registry_client) == {"candidate": "2", "champion": "1", "previous": "2"}


def test_an_adapter_alone_is_refused_before_anything_is_registered(registry_client, tmp_path):
    adapter = taught(tmp_path).model_copy(update={"extra": {"adapter_uri": "file:///adapter"}})
    with pytest.raises(InputError, match=r"is an adapter, .* set finetune\.merge_adapter where it is made"):
        run(tmp_path, adapter)
    assert Registry(get_settings().tracking_uri, NAME).aliases() == {}


def test_what_does_not_belong_together_is_refused(registry_client, tmp_path):
    model = taught(tmp_path)
    other = TAUGHT_FROM.model_copy(update={"model_fingerprint": "another"})
    for more, message in (
        ({"taught_from": other}, "The registration is of model another, not of parent"),
        ({"corpus": write_corpus(tmp_path), "parent": _of_corpus("c")}, "Model parent learned from the corpus c"),
        ({"evaluation": write_evaluation(tmp_path, "x", 2.0, {"medqa": 1})}, "evaluation is of model x, not of "),
        ({"parent": PARENT.model_copy(update={"fingerprint": "p"})}, "taught from is of model parent, not of p"),
        ({"benchmarks": write_questions(tmp_path).model_copy(update={"fingerprint": "b"})}, "from the benchmarks "),
        ({"benchmarks": write_questions(tmp_path)}, "come without an instruction set: set download.instructions"),
    ):
        with pytest.raises(InputError, match=message):
            run(tmp_path, model, **more)
    tuned = model.model_copy(update={"settings": {"objective": "finetune"}})
    with pytest.raises(InputError, match="was given as one that follows instructions, and was not taught to"):
        run(tmp_path, tuned)


@pytest.mark.parametrize("text", ["", "[]", '{"model": "m", "version": "1", "model_fingerprint": "f"}'])
def test_a_registration_that_says_too_little_is_refused(text):
    with pytest.raises(InputError, match=r"The registration is none \(.*\); register the model again"):
        TaughtFrom.read(text)
