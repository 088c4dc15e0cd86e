"""Perplexity is what its definition says; results are kept, resumed and refused as they should be."""

import json
import math
import random

import pytest
import torch
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from components.common import storage
from components.common.errors import InputError, PipelineError
from components.common.manifest import Manifest
from components.evaluate import evaluate as module
from components.evaluate.evaluate import evaluate
from components.evaluate.perplexity import held_out_loss
from components.evaluate.settings import EvaluateSettings
from tests.evaluate_helpers import questions, save_benchmarks, save_corpus, save_model

SETTINGS = EvaluateSettings(context_length=32, batch_size=3)
LENGTHS = [1, 2, 31, 32, 33, 65, 100]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Manifest:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def network(model):
    return AutoModelForCausalLM.from_pretrained(model.extra["model_uri"].removeprefix("file://")).eval()


def documents() -> dict[str, list[int]]:
    rng = random.Random(0)
    return {f"PMC{length}": [rng.randrange(3, 320) for _ in range(length)] for length in LENGTHS}


@pytest.fixture
def corpus(tmp_path) -> Manifest:
    return save_corpus(tmp_path / "corpus", documents())


@pytest.fixture
def benchmarks(tmp_path) -> Manifest:
    files = {f"{name}-test": questions(name, 12) for name in ("pubmedqa", "medmcqa", "medqa")}
    return save_benchmarks(tmp_path / "benchmarks", files)


def test_the_loss_of_an_article_is_the_sum_over_its_windows_without_their_first_tokens(network, corpus):
    loss = held_out_loss(network, corpus, context_length=32, batch_size=4)
    assert [article.id for article in loss.articles] == [f"PMC{length}" for length in LENGTHS[1:]]
    assert [article.tokens for article in loss.articles] == [1, 30, 31, 31, 62, 96]
    assert loss.skipped == 1
    for article in loss.articles:
        tokens = documents()[article.id]
        expected = 0.0
        for start in range(0, len(tokens), 32):
            window = torch.tensor([tokens[start : start + 32]])
            if window.shape[1] > 1:
                expected += network(input_ids=window, labels=window).loss.item() * (window.shape[1] - 1)
        assert article.nll == pytest.approx(expected, rel=1e-5)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(network, corpus):
    blank = type(network)(network.config)
    blank.load_state_dict(network.state_dict())
    torch.nn.init.zeros_(blank.lm_head.weight)
    loss = held_out_loss(blank.eval(), corpus, context_length=32, batch_size=4)
    total = sum(article.nll for article in loss.articles) / sum(article.tokens for article in loss.articles)
    assert math.exp(total) == pytest.approx(320, rel=1e-4)


def test_the_hash_of_the_content_changes_with_a_token_and_with_the_window(network, corpus, tmp_path):
    changed = documents()
    changed["PMC33"][5] ^= 1
    other = save_corpus(tmp_path / "other", changed)
    hashes = {
        held_out_loss(network, corpus, 32, 4).content_hash,
        held_out_loss(network, other, 32, 4).content_hash,
        held_out_loss(network, corpus, 16, 4).content_hash,
        held_out_loss(network, corpus, 32, 4, max_articles=5).content_hash,
    }
    assert len(hashes) == 4
    assert held_out_loss(network, corpus, 32, 1).content_hash in hashes


def test_an_empty_validation_split_is_refused_with_what_to_do(network, tmp_path):
    with pytest.raises(InputError, match=r"no validation articles.*raise the validation fraction"):
        held_out_loss(network, save_corpus(tmp_path, {}), 32, 4)


def test_a_single_validation_article_is_refused(network, tmp_path):
    with pytest.raises(InputError, match="1 usable articles"):
        held_out_loss(network, save_corpus(tmp_path, {"PMC1": [5, 6, 7], "PMC2": [9]}), 32, 4)


def test_a_corpus_of_another_tokenizer_is_refused_by_the_article(network, tmp_path):
    corpus = save_corpus(tmp_path, {"PMC1": [5, 6, 7], "PMC2": [9, 320, 8]})
    with pytest.raises(InputError, match=r"Article PMC2 .* has token 320 but the model has only 320"):
        held_out_loss(network, corpus, 32, 4)


def test_a_window_longer_than_the_models_positions_is_refused(network, corpus):
    with pytest.raises(InputError, match="context_length is 1024 but the model has 512 positions"):
        held_out_loss(network, corpus, 1024, 4)


def test_an_altered_token_shard_is_refused(network, corpus, tmp_path):
    path = tmp_path / "corpus" / "validation-00000.bin"
    path.write_bytes(path.read_bytes()[:-2] + b"\x07\x00")
    with pytest.raises(InputError, match=r"validation-00000\.bin is not the file that its manifest names"):
        held_out_loss(network, corpus, 32, 4)


def test_broken_weights_are_named_by_the_article_they_fail_on(network, corpus):
    broken = type(network)(network.config)
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))
    with pytest.raises(PipelineError, match="loss on article PMC2 is nan"):
        held_out_loss(broken.eval(), corpus, 32, 4)


def test_an_evaluation_keeps_every_question_and_its_totals_follow_from_them(model, benchmarks, corpus, tmp_path):
    manifest = evaluate("candidate", model, benchmarks, corpus, SETTINGS, f"file://{tmp_path}/out")
    assert manifest.kind == "evaluation"
    assert manifest.extra["name"] == "candidate"
    for name in SETTINGS.benchmarks:
        rows = [json.loads(line) for line in storage.read(manifest.extra["results"][name]).splitlines()]
        assert [row["id"] for row in rows] == [f"{name}-{i}" for i in range(12)]
        assert manifest.totals[f"{name}_accuracy"] == sum(row["correct"] for row in rows) / 12
        low, high = (manifest.totals[f"{name}_accuracy_{end}"] for end in ("low", "high"))
        assert 0 <= low <= manifest.totals[f"{name}_accuracy"] <= high <= 1
        for row in rows:
            assert row["prediction"] == max(row["loglikelihoods"], key=row["loglikelihoods"].get)
            assert row["correct"] == (row["prediction"] == row["answer"])
    losses = [json.loads(line) for line in storage.read(manifest.extra["perplexity_uri"]).splitlines()]
    mean = sum(row["nll"] for row in losses) / sum(row["tokens"] for row in losses)
    assert manifest.totals["perplexity"] == pytest.approx(math.exp(mean))
    assert manifest.totals["perplexity_low"] < manifest.totals["perplexity"] < manifest.totals["perplexity_high"]
    assert Manifest.load_uri(manifest.extra["manifest_uri"]) == manifest


def test_finished_results_are_taken_without_loading_the_model(model, benchmarks, corpus, tmp_path, monkeypatch):
    root = f"file://{tmp_path}/out"
    first = evaluate("base", model, benchmarks, corpus, SETTINGS, root)

    def refuse(*_):
        raise AssertionError("the model was loaded")

    monkeypatch.setattr(module, "loaded_model", refuse)
    again = evaluate("base", model, benchmarks, corpus, SETTINGS.model_copy(update={"batch_size": 1}), root)
    assert (again.totals, again.shards, again.fingerprint) == (first.totals, first.shards, first.fingerprint)


def test_an_interrupted_evaluation_goes_on_with_the_missing_benchmark_only(
    model, benchmarks, corpus, tmp_path, monkeypatch
):
    root = f"file://{tmp_path}/out"
    first = evaluate("base", model, benchmarks, corpus, SETTINGS, root)
    storage.local_path(first.extra["results"]["medqa"]).with_suffix(".json").unlink()
    asked = []
    original = module.answer_questions
    monkeypatch.setattr(module, "answer_questions", lambda *a: asked.append(a[1]) or original(*a))
    assert evaluate("base", model, benchmarks, corpus, SETTINGS, root).shards == first.shards
    assert asked == ["medqa"]


@pytest.mark.parametrize(
    "change", [{"limit": 5}, {"context_length": 16}, {"benchmarks": ["medqa"]}, {"perplexity_articles": 4}]
)
def test_settings_that_change_results_give_another_fingerprint(model, benchmarks, corpus, tmp_path, change):
    root = f"file://{tmp_path}/out"
    one = evaluate("base", model, benchmarks, corpus, SETTINGS.model_copy(update={"benchmarks": ["medqa"]}), root)
    other = evaluate(
        "base", model, benchmarks, corpus, SETTINGS.model_copy(update={"benchmarks": ["medqa"]} | change), root
    )
    assert (one.fingerprint != other.fingerprint) == (change != {"benchmarks": ["medqa"]})


def test_two_models_answer_differently_on_the_same_hashes(model, benchmarks, corpus, tmp_path):
    other = save_model(tmp_path, seed=1)
    base, candidate = (
        evaluate(name, manifest, benchmarks, corpus, SETTINGS, f"file://{tmp_path}/out")
        for name, manifest in (("base", model), ("candidate", other))
    )
    for key in ("question_hashes", "prompt_hashes", "validation_hash"):
        assert base.extra[key] == candidate.extra[key]
    assert base.totals["perplexity"] != candidate.totals["perplexity"]


def test_a_manifest_in_the_wrong_place_is_refused(model, benchmarks, corpus, tmp_path):
    with pytest.raises(InputError, match="kind corpus, not benchmarks"):
        evaluate("base", model, benchmarks, benchmarks, SETTINGS, f"file://{tmp_path}/out")


def test_a_folder_that_is_no_model_is_named(model, benchmarks, corpus, tmp_path):
    (tmp_path / "empty").mkdir()
    bad = model.model_copy(update={"extra": {"model_uri": f"file://{tmp_path}/empty"}})
    with pytest.raises(InputError, match="empty is no model that can be loaded"):
        evaluate("base", bad, benchmarks, corpus, SETTINGS, f"file://{tmp_path}/out")


@pytest.mark.parametrize(
    "wrong",
    [
        {"limit": 0},
        {"benchmarks": []},
        {"benchmarks": ["medqa", "medqa"]},
        {"benchmarks": ["x"]},
        {"device": "tpu"},
        {"z": 1},
    ],
)
def test_settings_out_of_bounds_are_refused(wrong):
    with pytest.raises(ValidationError):
        EvaluateSettings(**wrong)


def test_settings_come_back_from_kfp_where_none_is_a_word():
    assert EvaluateSettings(limit="none", perplexity_articles="none").perplexity_articles is None
