"""A model behind an OpenAI-compatible server gives the results of the same model in this process."""

import json

import pytest
from pydantic import ValidationError
from transformers import AutoModelForCausalLM

from components.common import storage
from components.common.errors import InputError, PipelineError
from components.common.manifest import Manifest
from components.evaluate import server as module
from components.evaluate.evaluate import evaluate
from components.evaluate.settings import EngineSettings, EvaluateSettings
from tests.completions_server import CompletionsServer, running_completions
from tests.evaluate_helpers import questions, save_benchmarks, save_corpus, save_model
from tests.ports import free_ports

NAME = "candidate fine-tuned mcq"


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Manifest:
    return save_model(tmp_path_factory.mktemp("model"), positions=256)


@pytest.fixture
def server(model):
    folder = model.extra["model_uri"].removeprefix("file://")
    with running_completions(
        AutoModelForCausalLM.from_pretrained(folder).eval(), "tiny-candidate-fine-tuned-mcq", 256
    ) as running:
        yield running


def settings(server: CompletionsServer | None, **more) -> EvaluateSettings:
    engine = {"kind": "server", "url": server.url, "model": "tiny-{role}"} if server else {}
    return EvaluateSettings(benchmarks=["pubmedqa", "medqa"], context_length=32, engine=engine, **more)


@pytest.fixture
def inputs(tmp_path):
    files = {f"{name}-{split}": questions(name, 5) for name in ("pubmedqa", "medqa") for split in ("test", "train")}
    documents = {"PMC1": list(range(3, 90)), "PMC2": [5, 6, 7, 5], "PMC3": list(range(200, 300))}
    return save_benchmarks(tmp_path / "benchmarks", files), save_corpus(tmp_path / "corpus", documents)


def rows(manifest: Manifest, name: str) -> list[dict]:
    return [json.loads(line) for line in storage.read(manifest.shard(name).uri).splitlines()]


@pytest.mark.parametrize("shots", [0, 1])
def test_answers_and_perplexity_are_those_of_the_builtin_engine(model, server, inputs, tmp_path, shots, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-of-the-test")
    theirs = evaluate(NAME, model, *inputs, settings(server, num_fewshot=shots), f"file://{tmp_path}/out")
    ours = evaluate(NAME, model, *inputs, settings(None, num_fewshot=shots), f"file://{tmp_path}/out")
    for name in ("pubmedqa", "medqa"):
        for one, other in zip(rows(ours, name), rows(theirs, name), strict=True):
            assert one.pop("loglikelihoods") == pytest.approx(other.pop("loglikelihoods"), abs=1e-4)
            assert one == other
    for one, other in zip(rows(ours, "perplexity"), rows(theirs, "perplexity"), strict=True):
        assert one.pop("nll") == pytest.approx(other.pop("nll"), rel=1e-5)
        assert one == other
    assert ours.fingerprint != theirs.fingerprint
    assert (ours.extra["engine"], theirs.extra["engine"]) == ("builtin", "server")
    assert server.keys == {"Bearer secret-of-the-test"}
    assert "secret-of-the-test" not in theirs.to_json()


def test_a_prompt_that_is_too_long_for_the_server_is_cut_and_counted(model, server, inputs, tmp_path):
    long = [row | {"context": "fever " * 400} for row in questions("pubmedqa", 2)]
    files = save_benchmarks(tmp_path / "long", {"pubmedqa-test": long, "medqa-test": questions("medqa", 2)})
    manifest = evaluate(NAME, model, files, inputs[1], settings(server), f"file://{tmp_path}/out")
    assert manifest.totals["pubmedqa_truncated"] == 6
    assert manifest.totals["medqa_truncated"] == 0
    assert max(len(asked["prompt"][0]) for asked in server.seen) == 255


def test_a_server_that_fails_for_a_moment_is_asked_again(model, server, inputs, tmp_path):
    server.failures = 1
    manifest = evaluate(NAME, model, *inputs, settings(server), f"file://{tmp_path}/out")
    assert manifest.totals["pubmedqa_questions"] == 5


def test_a_server_that_keeps_failing_is_named_and_the_next_run_goes_on(model, server, inputs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_ATTEMPTS", 1)
    root = f"file://{tmp_path}/out"
    original = server.complete

    def dies(asked):
        server.broken = len(server.seen) > 8
        return original(asked)

    monkeypatch.setattr(server, "complete", dies)
    one_by_one = {"kind": "server", "url": server.url, "model": "tiny-{role}", "parallel_requests": 1}
    some = EvaluateSettings(benchmarks=["pubmedqa"], context_length=32, engine=one_by_one, perplexity_articles=2)
    with pytest.raises(PipelineError, match=rf"server at {server.url}/completions .*\(500 "):
        evaluate(NAME, model, *inputs, some, root)
    monkeypatch.undo()
    server.broken = False
    evaluate(NAME, model, *inputs, some, root)
    asked_in_all = 15 + sum(-(-n // 32) for n in (87, 4))
    assert len(server.seen) == asked_in_all + 1  # the one that failed


def test_a_server_of_another_model_or_none_at_all_is_refused_by_its_address(model, server, inputs, tmp_path):
    with pytest.raises(InputError, match=r"/v1/models serves tiny-candidate-fine-tuned-mcq and not tiny-base"):
        evaluate("base", model, *inputs, settings(server), f"file://{tmp_path}/out")
    server.status = 401
    with pytest.raises(InputError, match=r"/v1/models answers 401; check evaluate.engine.url and OPENAI_API_KEY"):
        evaluate(NAME, model, *inputs, settings(server), f"file://{tmp_path}/out")


def test_an_address_where_nobody_answers_is_named(model, inputs, tmp_path):
    engine = {"kind": "server", "url": f"http://127.0.0.1:{free_ports(1)[0]}/v1", "model": "m"}
    with pytest.raises(InputError, match=r"There is no model server at http://127.0.0.1:\d+/v1/models"):
        evaluate(
            "base", model, *inputs, EvaluateSettings(engine=engine, benchmarks=["medqa"]), f"file://{tmp_path}/out"
        )


def test_a_window_that_does_not_fit_beside_the_generated_token_is_refused(model, server, inputs, tmp_path):
    wide = settings(server).model_copy(update={"context_length": 256})
    with pytest.raises(InputError, match="context_length is 256 but the model has 255 positions"):
        evaluate(NAME, model, *inputs, wide, f"file://{tmp_path}/out")


@pytest.mark.parametrize("wrong", [{"url": "http://x/v1"}, {"model": "m"}, {"url": "ftp://x", "model": "m"}])
def test_a_server_needs_an_address_and_a_model(wrong):
    with pytest.raises(ValidationError, match="needs its url"):
        EngineSettings(kind="server", **wrong)
