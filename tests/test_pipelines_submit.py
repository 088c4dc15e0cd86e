"""Submitting to Kubeflow: what the server gets, once and no more, and what is said when it refuses."""

import json
import socket
from pathlib import Path

import pytest
from typer.testing import CliRunner

from components.common.errors import ClusterError, InputError
from components.common.settings import get_settings
from components.preflight.findings import Finding
from pipelines import preflight, submit_command
from pipelines.cli import app
from pipelines.kubeflow import Kubeflow, Unanswered, connect
from pipelines.recipe import Recipe, load_recipe
from pipelines.submit import Order, follow, submit
from tests.fake_kfp import FakeKfp
from tests.fake_kfp.helpers import server

__all__ = ["server"]

# The small pipeline: what is sent and how is the same for both.
WATCH = Order("retractions", run_name="watch")
TOKEN = "sentinel-token"
WELL = [Finding("Store", "ok", "It can be written.")]
ILL = [*WELL, Finding("Secret pmc-llama-s3", "failed", "There is no such secret.", "Create it.")]


@pytest.fixture
def team(server: FakeKfp, monkeypatch: pytest.MonkeyPatch) -> FakeKfp:
    """The server has several users, and lets one in."""
    server.multi_user, server.token = True, TOKEN
    monkeypatch.setenv("KFP_NAMESPACE", "team")
    monkeypatch.setenv("KFP_TOKEN", TOKEN)
    return server


def asked(patience: float = 2) -> Kubeflow:
    return connect(patience)


def tiny(*settings: str) -> Recipe:
    return load_recipe("tiny", settings)


def called(server: FakeKfp, method: str, path: str) -> int:
    return sum(each == (method, f"/apis/v2beta1{path}") for each in server.requests)


def test_it_uploads_the_pipeline_and_starts_a_run_with_all_that_the_recipe_says(team: FakeKfp) -> None:
    recipe = tiny("train.epochs=3", "steps.service_account=steps", "steps.default.memory=3Gi")
    submitted = submit(asked(), recipe, Order(experiment="trials"))
    (run,), (version,), (experiment,) = team.runs.values(), team.versions.values(), team.experiments.values()
    assert run["display_name"] == submitted.name and submitted.name.startswith("tiny-2")
    assert run["pipeline_version_reference"]["pipeline_version_id"] == version["pipeline_version_id"]
    assert run["service_account"] == "steps"
    parameters = run["runtime_config"]["parameters"]
    assert parameters["train"]["epochs"] == 3
    assert parameters["default_memory"] == "3Gi"
    assert parameters["secret_pmc_llama_s3"] == "pmc-llama-s3"
    assert (experiment["display_name"], experiment["namespace"]) == ("trials", "team")
    assert next(iter(team.pipelines.values()))["display_name"] == "pmc-llama"
    assert version["display_name"].startswith("tiny-")
    assert submitted.address == f"{team.endpoint}/#/runs/details/{run['run_id']}"


def test_an_unchanged_pipeline_makes_no_second_version_whatever_the_revision(
    server: FakeKfp, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = submit(asked(), tiny(), Order("retractions"))
    monkeypatch.setenv("PMC_GIT_REVISION", "f" * 40)
    get_settings.cache_clear()
    second = submit(asked(), tiny(), Order("retractions"))
    assert len(server.versions) == len(server.pipelines) == len(server.experiments) == 1
    assert (first.version.is_new, second.version.is_new) == (True, False)
    assert first.run_id != second.run_id
    submit(asked(), tiny("steps.retractions.retries=7"), Order("retractions"))
    names = [version["display_name"] for version in server.versions.values()]
    assert len(names) == len(set(names)) == 2
    assert "-fffffff-" in names[1]


@pytest.mark.parametrize("kind", ["lost", "gone", 503])
def test_a_network_that_fails_while_the_run_is_made_makes_one_run(server: FakeKfp, kind: str | int) -> None:
    server.fault("POST", "/runs$", kind)
    submitted = submit(asked(), tiny(), Order("retractions"))
    assert list(server.runs) == [submitted.run_id]
    # What was made is found, and not asked for again.
    assert called(server, "POST", "/runs") == (1 if kind == "lost" else 2)


@pytest.mark.parametrize("path", ["/pipelines$", "/pipelines/upload_version$", "/experiments$"])
@pytest.mark.parametrize("kind", ["lost", "gone"])
def test_nor_is_anything_else_made_twice(server: FakeKfp, path: str, kind: str) -> None:
    server.fault("POST", path, kind)
    submit(asked(), tiny(), WATCH)
    assert [len(each) for each in (server.pipelines, server.versions, server.experiments, server.runs)] == [1, 1, 1, 1]


def test_a_server_that_stays_away_is_named_and_nothing_is_left_behind(server: FakeKfp) -> None:
    server.fault("POST", "/runs$", "gone", times=99)
    with pytest.raises(Unanswered, match=r"at http://127\.0\.0\.1:\d+ does not answer .*check KFP_ENDPOINT"):
        submit(asked(0.2), tiny(), WATCH)
    assert not server.runs


def test_a_command_that_is_repeated_with_its_run_name_takes_the_run_that_is_there(server: FakeKfp) -> None:
    first = submit(asked(), tiny(), WATCH)
    again = submit(asked(), tiny(), WATCH)
    assert (again.run_id, again.is_new, len(server.runs)) == (first.run_id, False, 1)


def test_a_run_that_failed_is_started_anew_under_its_name(server: FakeKfp) -> None:
    first = submit(asked(), tiny(), WATCH)
    server.runs[first.run_id]["state"] = "FAILED"
    assert submit(asked(), tiny(), WATCH).is_new


def test_another_run_that_goes_on_under_the_name_is_a_conflict(server: FakeKfp) -> None:
    submit(asked(), tiny(), WATCH)
    with pytest.raises(InputError, match="named watch is going on already, with another version"):
        submit(asked(), tiny("steps.retractions.retries=9"), WATCH)


def test_the_mlflow_plugin_hears_of_the_experiment_only_where_one_is_named(
    server: FakeKfp, monkeypatch: pytest.MonkeyPatch
) -> None:
    submit(asked(), tiny(), WATCH)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "papers")
    get_settings.cache_clear()
    submit(asked(), tiny(), Order("retractions"))
    assert [run.get("plugins_input") for run in server.runs.values()] == [
        None,
        {"mlflow": {"experiment_name": "papers"}},
    ]


def test_following_tells_each_change_once_and_ends_with_the_run(server: FakeKfp) -> None:
    submitted = submit(asked(), tiny(), WATCH)
    server.script = ["PENDING", "RUNNING", "RUNNING", "CANCELING", "CANCELED"]
    server.tasks = [("Extract text", "RUNNING"), ("Extract text", "SUCCEEDED"), ("Extract text-driver", "SUCCEEDED")]
    server.fault("GET", "/runs/", 503, times=2)
    told: list[str] = []
    assert follow(asked(), submitted.run_id, told.append, pause=0) == "CANCELED"
    assert told == [
        "Extract text: 1 running, 1 succeeded",
        *(f"Run: {state}" for state in ("PENDING", "RUNNING", "CANCELING", "CANCELED")),
    ]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("page", r"asks for a login \(200\): KFP_TOKEN or KFP_COOKIE is missing or has expired"),
        ("redirect", r"asks for a login \(302\)"),
        (401, r"asks for a login \(401\)"),
        (404, r"no Kubeflow Pipelines with the API v2beta1 \(2\.0 or newer\)"),
        (403, r"You may not say how it is"),
        (500, r"fails to say how it is \(500\): no healthy upstream"),
    ],
)
def test_each_refusal_is_a_sentence_with_what_to_do(server: FakeKfp, fault: str | int, message: str) -> None:
    server.fault("GET", "/healthz", fault, times=99)
    with pytest.raises(ClusterError, match=message):
        asked(0.2)


def test_a_wrong_token_and_a_wrong_namespace_are_told_apart(team: FakeKfp, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KFP_TOKEN", "old")
    with pytest.raises(ClusterError, match="asks for a login") as refused:
        asked()
    assert "old" not in str(refused.value).replace("older", "")
    monkeypatch.setenv("KFP_TOKEN", TOKEN)
    monkeypatch.setenv("KFP_NAMESPACE", "other")
    with pytest.raises(ClusterError, match=r"may not list the pipelines in namespace other: .*have its owner add you"):
        submit(asked(), tiny(), WATCH)
    monkeypatch.delenv("KFP_NAMESPACE")
    with pytest.raises(InputError, match="for several users: set KFP_NAMESPACE"):
        asked()


def test_a_token_in_a_file_is_read_anew_when_it_was_replaced(
    team: FakeKfp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    team.token = "first"
    monkeypatch.delenv("KFP_TOKEN")
    monkeypatch.setenv("KFP_TOKEN_FILE", str(file))
    kubeflow_server = asked()
    file.write_text("second\n")
    team.token = "second"
    submit(kubeflow_server, tiny(), WATCH)
    assert len(team.runs) == 1


def test_what_kfp_keeps_of_a_login_serves_too(team: FakeKfp, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KFP_NAMESPACE")
    (tmp_path / "context.json").write_text(json.dumps({"namespace": "team"}))
    assert asked().namespace == "team"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("KFP_ENDPOINT", "kubeflow.example.org", "is no address: it begins with https://"),
        ("KFP_CA_FILE", "/nowhere.pem", r"KFP_CA_FILE=/nowhere\.pem cannot be read: No such file"),
        ("KFP_TOKEN_FILE", "/nowhere", "KFP_TOKEN_FILE=/nowhere cannot be read"),
    ],
)
def test_a_wrong_variable_is_named(
    server: FakeKfp, monkeypatch: pytest.MonkeyPatch, name: str, value: str, message: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(InputError, match=message):
        asked()


def test_a_server_that_is_not_there_and_one_of_another_kind_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        monkeypatch.setenv("KFP_ENDPOINT", f"http://127.0.0.1:{taken.getsockname()[1]}")
        with pytest.raises(Unanswered, match=r"does not answer .*refused"):
            asked(0.2)


def test_without_any_address_it_says_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(InputError, match="set KFP_ENDPOINT to its address"):
        asked()


def test_a_version_that_the_server_hides_is_explained(server: FakeKfp, monkeypatch: pytest.MonkeyPatch) -> None:
    submit(asked(), tiny(), WATCH)
    monkeypatch.setattr("pipelines.upload._version", lambda *_: None)
    with pytest.raises(ClusterError, match=r"There is a version tiny-.* already, but the server does not list it"):
        submit(asked(), tiny(), WATCH)


def test_an_archived_experiment_is_named(server: FakeKfp) -> None:
    submit(asked(), tiny(), WATCH)
    next(iter(server.experiments.values()))["storage_state"] = "ARCHIVED"
    with pytest.raises(ClusterError, match="experiment retractions is archived: restore it"):
        submit(asked(), tiny(), WATCH)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command without its pauses."""
    monkeypatch.setattr(submit_command, "follow", lambda server, run, tell: follow(server, run, tell, pause=0))


def test_the_command_refuses_when_the_preflight_fails_unless_it_is_forced(
    server: FakeKfp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "preflight", lambda recipe, submitting: ILL)
    refused = CliRunner().invoke(app, ["submit", "--recipe", "tiny"])
    assert isinstance(refused.exception, InputError)
    assert "Secret pmc-llama-s3: There is no such secret. Create it." in str(refused.exception)
    assert not server.requests
    forced = CliRunner().invoke(app, ["submit", "--recipe", "tiny", "--force"])
    assert forced.exit_code == 0, forced.output
    (run,) = server.runs.values()
    assert f"{server.endpoint}/#/runs/details/{run['run_id']}" in forced.output


def test_the_command_waits_and_fails_when_the_run_does(server: FakeKfp, quick: None) -> None:
    command = ["submit", "--recipe", "tiny", "--pipeline", "retractions", "--wait"]
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, "Run: SUCCEEDED" in done.output) == (0, True)
    server.script, server.tasks = ["FAILED"], [("Look for retractions", "FAILED")]
    failed = CliRunner().invoke(app, command)
    assert isinstance(failed.exception, ClusterError)
    assert "The run ended as FAILED: Look for retractions; see http" in str(failed.exception)


def test_no_secret_is_printed_or_sent(team: FakeKfp, monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sentinel-key")
    monkeypatch.setenv("KFP_COOKIE", "session=sentinel-cookie")
    caplog.set_level("DEBUG")
    done = CliRunner().invoke(app, ["submit", "--recipe", "tiny", "--pipeline", "retractions"])
    sent = json.dumps([*team.runs.values(), *team.versions.values()]) + "".join(team.packages)
    assert "sentinel" not in done.output + caplog.text + sent
