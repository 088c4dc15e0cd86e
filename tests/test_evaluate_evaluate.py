"""Perplexity is what its definition says; results are kept, resumed and refused as they should be."""

import json
import math
import random

import pytest
import torch
from kfp import dsl
from pydantic import ValidationError
from transformers import AutoModelForCausalLM, AutoTokenizer

from components.common import storage
from components.common.absent import absent, is_absent
from components.common.errors import InputError, PipelineError
from components.common.manifest import Manifest
from components.common.settings import get_settings
from components.evaluate import evaluate as module
from components.evaluate.component import evaluate_model
from components.evaluate.engine import Builtin
from components.evaluate.evaluate import evaluate
from components.evaluate.perplexity import held_out_loss
from components.evaluate.settings import EvaluateSettings
from tests.evaluate_helpers import questions, save_benchmarks, save_corpus, save_model

SETTINGS = EvaluateSettings(context_length=32, batch_tokens=100)
LENGTHS = [1, 2, 31, 32, 33, 65, 100]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Manifest:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def network(model):
    return AutoModelForCausalLM.from_pretrained(model.extra["model_uri"].removeprefix("file://")).eval()


@pytest.fixture(scope="module")
def tokenizer(model):
    return AutoTokenizer.from_pretrained(model.extra["model_uri"].removeprefix("file://"))


@pytest.fixture(scope="module")
def engine(network, tokenizer) -> Builtin:
    return Builtin(network, tokenizer, batch_tokens=128)


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


def test_of_a_champion_that_is_not_there_nothing_is_measured_and_the_obstacle_is_handed_on(
    corpus, benchmarks, tmp_path, monkeypatch
):
    monkeypatch.setenv("PMC_STORE_URI", f"file://{tmp_path}/store")
    get_settings.cache_clear()
    for obstacle in ("", "its weights are gone"):
        given = {"model": absent("model", obstacle), "benchmarks": benchmarks, "corpus": corpus}
        for name, manifest in given.items():
            manifest.save(tmp_path / name / "manifest.json")
        evaluate_model.python_func(
            role="champion",
            evaluate={},
            **{name: dsl.Dataset(name=name, uri=str(tmp_path / name / "manifest.json")) for name in given},
            evaluation=dsl.Dataset(name="evaluation", uri=str(tmp_path / "found")),
            metrics=dsl.Metrics(name="metrics", uri=str(tmp_path / "metrics")),
        )
        found = Manifest.load(tmp_path / "found")
        assert is_absent(found)
        assert found.extra == {"of": "evaluation", "obstacle": obstacle}
    assert not (tmp_path / "store" / "evaluations").exists()


def test_a_model_fine_tuned_on_questions_is_asked_those_of_the_papers_table_without_examples():
    settings = EvaluateSettings(benchmarks=["medqa", "mmlu_anatomy", "pubmedqa"], num_fewshot={"mmlu_anatomy": 5})
    assert settings.after("pretrain") == settings == settings.after(None)
    tuned = settings.after("finetune")
    assert (tuned.benchmarks, tuned.num_fewshot, tuned.format) == (["medqa", "pubmedqa"], 0, "authors")
    assert EvaluateSettings(benchmarks=["mmlu_anatomy"]).after("finetune").benchmarks == ["mmlu_anatomy"]


def test_the_loss_of_an_article_is_the_sum_over_its_windows_without_their_first_tokens(network, engine, corpus):
    loss = held_out_loss(engine, corpus, context_length=32)
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


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(network, tokenizer, corpus):
    blank = type(network)(network.config)
    blank.load_state_dict(network.state_dict())
    torch.nn.init.zeros_(blank.lm_head.weight)
    loss = held_out_loss(Builtin(blank.eval(), tokenizer, 128), corpus, context_length=32)
    total = sum(article.nll for article in loss.articles) / sum(article.tokens for article in loss.articles)
    assert math.exp(total) == pytest.approx(320, rel=1e-4)


def test_the_hash_of_the_content_changes_with_a_token_and_with_the_window(engine, network, tokenizer, corpus, tmp_path):
    changed = documents()
    changed["PMC33"][5] ^= 1
    other = save_corpus(tmp_path / "other", changed)
    hashes = {
        held_out_loss(engine, corpus, 32).content_hash,
        held_out_loss(engine, other, 32).content_hash,
        held_out_loss(engine, corpus, 16).content_hash,
        held_out_loss(engine, corpus, 32, max_articles=5).content_hash,
    }
    assert len(hashes) == 4
    assert held_out_loss(Builtin(network, tokenizer, 1), corpus, 32).content_hash in hashes


def test_an_empty_validation_split_is_refused_with_what_to_do(engine, tmp_path):
    with pytest.raises(InputError, match=r"no validation articles.*raise the validation fraction"):
        held_out_loss(engine, save_corpus(tmp_path, {}), 32)


def test_a_single_validation_article_is_refused(engine, tmp_path):
    with pytest.raises(InputError, match="1 usable articles"):
        held_out_loss(engine, save_corpus(tmp_path, {"PMC1": [5, 6, 7], "PMC2": [9]}), 32)


def test_a_corpus_of_another_tokenizer_is_refused_by_the_article(engine, tmp_path):
    corpus = save_corpus(tmp_path, {"PMC1": [5, 6, 7], "PMC2": [9, 320, 8]})
    with pytest.raises(InputError, match=r"Article PMC2 .* has token 320 but the model has only 320"):
        held_out_loss(engine, corpus, 32)


def test_a_window_longer_than_the_models_positions_is_refused(engine, corpus):
    with pytest.raises(InputError, match="context_length is 1024 but the model has 512 positions"):
        held_out_loss(engine, corpus, 1024)


def test_an_altered_token_shard_is_refused(engine, corpus, tmp_path):
    path = tmp_path / "corpus" / "validation-00000.bin"
    path.write_bytes(path.read_bytes()[:-2] + b"\x07\x00")
    with pytest.raises(InputError, match=r"validation-00000\.bin is not the file that its manifest names"):
        held_out_loss(engine, corpus, 32)


def test_broken_weights_are_named_by_the_article_they_fail_on(network, tokenizer, corpus):
    broken = type(network)(network.config)
    torch.nn.init.constant_(broken.lm_head.weight, float("nan"))
    with pytest.raises(PipelineError, match="loss on article PMC2 is nan"):
        held_out_loss(Builtin(broken.eval(), tokenizer, 128), corpus, 32)


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

    monkeypatch.setattr(module, "open_engine", refuse)
    again = evaluate("base", model, benchmarks, corpus, SETTINGS.model_copy(update={"batch_tokens": 1}), root)
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
        {"num_fewshot": 33},
        {"num_fewshot": {"medqa": -1}},
        {"num_fewshot": {"mmlu_anatomy": 5}},
        {"format": "poem"},
        {"z": 1},
    ],
)
def test_settings_out_of_bounds_are_refused(wrong):
    with pytest.raises(ValidationError):
        EvaluateSettings(**wrong)


def test_settings_come_back_from_kfp_where_none_is_a_word():
    assert EvaluateSettings(limit="none", perplexity_articles="none").perplexity_articles is None


def test_the_loss_per_byte_counts_the_text_of_the_predicted_tokens(engine, tokenizer, tmp_path):
    texts = ["the heart pumps blood to the lungs, β-blockers help", "fever and pain\nare treated at home 🙂"]
    ids = {f"PMC{i}": tokenizer(text, add_special_tokens=False).input_ids for i, text in enumerate(texts)}
    loss = held_out_loss(engine, save_corpus(tmp_path, ids), context_length=512)
    for article, text in zip(loss.articles, texts, strict=True):
        first = len(tokenizer.decode(ids[article.id][0]).encode())
        assert article.bytes == len(text.encode()) - first
    windows = held_out_loss(engine, save_corpus(tmp_path / "windows", ids), context_length=4)
    assert sum(a.bytes for a in windows.articles) < sum(a.bytes for a in loss.articles)


def test_perplexity_per_byte_and_bits_per_byte_follow_from_the_articles(model, benchmarks, corpus, tmp_path):
    manifest = evaluate("base", model, benchmarks, corpus, SETTINGS, f"file://{tmp_path}/out")
    losses = [json.loads(line) for line in storage.read(manifest.extra["perplexity_uri"]).splitlines()]
    rate = sum(row["nll"] for row in losses) / sum(row["bytes"] for row in losses)
    totals = manifest.totals
    assert totals["perplexity_per_byte"] == pytest.approx(math.exp(rate))
    assert totals["bits_per_byte"] == pytest.approx(rate / math.log(2))
    assert totals["perplexity_per_byte_low"] < totals["perplexity_per_byte"] < totals["perplexity_per_byte_high"]
    assert totals["perplexity_bytes"] == sum(row["bytes"] for row in losses)


def test_windows_that_do_not_fit_into_memory_are_halved_and_counted(model, benchmarks, corpus, tmp_path, monkeypatch):
    from components.evaluate import engine as engine_module

    root = f"file://{tmp_path}"
    wide = SETTINGS.model_copy(update={"batch_tokens": 10_000})
    plain = evaluate("base", model, benchmarks, corpus, wide, f"{root}/plain")
    original = engine_module.window_losses

    def narrow(network, windows):
        if len(windows) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(network, windows)

    monkeypatch.setattr(engine_module, "window_losses", narrow)
    halved = evaluate("base", model, benchmarks, corpus, wide, f"{root}/halved")
    assert plain.totals["perplexity_halved_batches"] == 0 < halved.totals["perplexity_halved_batches"]
    assert halved.totals["perplexity"] == pytest.approx(plain.totals["perplexity"])


def test_each_benchmark_may_have_its_own_number_of_examples(model, corpus, tmp_path):
    files = {f"medqa-{split}": questions("medqa", 6) for split in ("test", "train")}
    manifest = save_benchmarks(tmp_path / "benchmarks", files | {"medmcqa-test": questions("medmcqa", 6)})
    root, both = f"file://{tmp_path}/out", ["medmcqa", "medqa"]
    settings = SETTINGS.model_copy(update={"benchmarks": both, "num_fewshot": {"medqa": 2}})
    few = evaluate("base", model, manifest, corpus, settings, root)
    zero = evaluate("base", model, manifest, corpus, SETTINGS.model_copy(update={"benchmarks": both}), root)
    assert few.extra["num_fewshot"] == {"medmcqa": 0, "medqa": 2}
    assert few.extra["prompt_hashes"]["medqa"] != zero.extra["prompt_hashes"]["medqa"]
    assert few.extra["prompt_hashes"]["medmcqa"] == zero.extra["prompt_hashes"]["medmcqa"]
    assert few.extra["question_hashes"] == zero.extra["question_hashes"]
    shared = evaluate("base", model, manifest, corpus, settings.model_copy(update={"common_examples": True}), root)
    assert shared.extra["prompt_hashes"]["medqa"] != few.extra["prompt_hashes"]["medqa"]


def test_a_suite_stands_for_its_benchmarks():
    settings = EvaluateSettings(benchmarks=["medqa", "multimedqa"], num_fewshot={"mmlu_anatomy": 5})
    assert settings.benchmarks[:3] == ["medqa", "pubmedqa", "medmcqa"]
    assert len(settings.benchmarks) == 9
    assert (settings.shots("mmlu_anatomy"), settings.shots("medqa")) == (5, 0)
    assert EvaluateSettings(**json.loads(settings.model_dump_json())) == settings


def test_every_form_of_the_settings_is_known():
    from typing import get_args

    from components.evaluate.formats import FORMATS
    from components.evaluate.settings import PromptFormat

    assert set(get_args(PromptFormat)) == FORMATS.keys()


def test_a_benchmark_that_nobody_knows_is_refused_with_those_that_are():
    with pytest.raises(ValidationError, match=r"no benchmark 'medmcq'; known are pubmedqa, medmcqa, .*multimedqa"):
        EvaluateSettings(benchmarks=["medmcq"])
