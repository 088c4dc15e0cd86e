"""Schedules on Kubeflow: one of each name, one run at a time, always the newest state of the source."""

import pytest
from typer.testing import CliRunner

from components.common.errors import ClusterError, InputError
from components.preflight.findings import Finding
from pipelines import preflight
from pipelines.cli import app
from pipelines.kubeflow import Kubeflow, connect
from pipelines.recipe import load_recipe
from pipelines.schedule import checked_cron, delete_schedule, list_schedules, schedule, switch_schedule
from pipelines.submit import Order
from tests.fake_kfp import FakeKfp
from tests.fake_kfp.helpers import server

__all__ = ["server"]

WATCH = Order("retractions")


def asked() -> Kubeflow:
    return connect(2)


def test_it_repeats_one_run_at_a_time_and_catches_up_on_none(server: FakeKfp) -> None:
    done = schedule(asked(), load_recipe("paper"), Order(experiment="refresh"))
    (made,) = server.recurring.values()
    assert (done.name, done.cron, done.is_on, done.change) == ("pmc-llama-paper", "0 0 4 1 * *", True, "new")
    assert (made["max_concurrency"], made["no_catchup"], made["mode"]) == ("1", True, "ENABLE")
    assert made["trigger"]["cron_schedule"]["cron"] == "0 0 4 1 * *"
    assert made["service_account"] == "pmc-llama-steps"
    assert made["runtime_config"]["parameters"]["download"]["version"] == ""
    assert server.experiments[made["experiment_id"]]["display_name"] == "refresh"


def test_a_schedule_of_the_same_name_is_replaced_and_an_unchanged_one_is_left_alone(server: FakeKfp) -> None:
    recipe = load_recipe("tiny")
    schedule(asked(), recipe, WATCH)
    (first,) = server.recurring
    assert schedule(asked(), recipe, WATCH).change == "unchanged"
    assert list(server.recurring) == [first]
    assert schedule(asked(), recipe, WATCH, cron="0 7 * * *").change == "replaced"
    (second,) = server.recurring.values()
    assert second["recurring_run_id"] != first
    assert second["trigger"]["cron_schedule"]["cron"] == "0 0 7 * * *"
    assert schedule(asked(), load_recipe("tiny", ["steps.retractions.retries=9"]), WATCH, "0 7 * * *").change == (
        "replaced"
    )


def test_when_the_new_one_is_refused_the_old_one_goes_on(server: FakeKfp) -> None:
    schedule(asked(), load_recipe("tiny"), WATCH)
    (first,) = server.recurring
    server.fault("POST", "/recurringruns$", 400)
    with pytest.raises(ClusterError, match="refuses to create a schedule"):
        schedule(asked(), load_recipe("tiny"), WATCH, cron="0 7 * * *")
    assert list(server.recurring) == [first]


@pytest.mark.parametrize("kind", ["lost", "gone"])
def test_a_network_that_fails_makes_one_schedule(server: FakeKfp, kind: str) -> None:
    server.fault("POST", "/recurringruns$", kind)
    schedule(asked(), load_recipe("tiny"), WATCH)
    assert len(server.recurring) == 1


def test_schedules_are_listed_over_pages_switched_and_deleted(server: FakeKfp, monkeypatch) -> None:
    monkeypatch.setattr("pipelines.schedule._PAGE", 2)
    for name in ("b", "a", "c"):
        schedule(asked(), load_recipe("tiny"), Order("retractions", run_name=name), is_on=name != "c")
    assert [(each.name, each.is_on) for each in list_schedules(asked())] == [("a", True), ("b", True), ("c", False)]
    switch_schedule(asked(), "a", is_on=False)
    switch_schedule(asked(), "c", is_on=True)
    assert [each.is_on for each in list_schedules(asked())] == [False, True, True]
    assert delete_schedule(asked(), "b") == 1
    with pytest.raises(InputError, match="no schedule 'b'; there are a, c"):
        delete_schedule(asked(), "b")


@pytest.mark.parametrize(
    ("given", "taken"),
    [("0 4 1 * *", "0 0 4 1 * *"), (" 30 0  4 1 */2 MON-FRI ", "30 0 4 1 */2 MON-FRI"), ("@monthly", "@monthly")],
)
def test_times_are_taken_with_and_without_seconds(given: str, taken: str) -> None:
    assert checked_cron(given) == taken


@pytest.mark.parametrize("given", ["monthly", "0 4 1 *", "0 4 1 * * * *", "0 4 1 * *; rm", "@often", ""])
def test_what_are_no_times_is_refused(given: str) -> None:
    with pytest.raises(InputError, match="no cron expression: give five fields"):
        checked_cron(given)


@pytest.mark.parametrize(
    "pin", ["download.version=2026-11-20", "download.pmc.inventory=2026-11-20", "download.s2orc.release=2026-11-20"]
)
def test_a_recipe_that_is_bound_to_one_state_of_its_source_is_refused(server: FakeKfp, pin: str) -> None:
    source = "s2orc" if "s2orc" in pin else "pmc"
    recipe = load_recipe("paper", [pin, f"download.source={source}"])
    with pytest.raises(InputError, match=rf"{pin.split('=')[0]} is 2026-11-20, so each run would see the same"):
        schedule(asked(), recipe, Order())
    assert not server.recurring


def test_the_command_schedules_lists_and_deletes(server: FakeKfp, monkeypatch) -> None:
    runner = CliRunner(env={"COLUMNS": "200"})
    made = runner.invoke(app, ["schedule", "--recipe", "tiny", "--pipeline", "retractions", "--name", "watch", "--off"])
    assert made.exit_code == 0, made.output
    for text in ("watch", "0 0 6 * * *", "off", "new", "/#/recurringrun/details/"):
        assert text in made.output
    assert "The schedule watch is on." in runner.invoke(app, ["schedule", "--enable", "watch"]).output
    assert runner.invoke(app, ["schedule", "--list"]).output.count("watch") == 1
    assert "1 schedule named watch deleted" in runner.invoke(app, ["schedule", "--delete", "watch"]).output
    assert "There are no schedules." in runner.invoke(app, ["schedule", "--list"]).output


def test_the_command_refuses_when_the_preflight_fails_unless_it_is_forced(server: FakeKfp, monkeypatch) -> None:
    ill = [Finding("Store", "failed", "It cannot be written.", "Give it a bucket.")]
    monkeypatch.setattr(preflight, "preflight", lambda recipe, submitting: ill)
    refused = CliRunner().invoke(app, ["schedule", "--recipe", "paper"])
    assert isinstance(refused.exception, InputError) and not server.recurring
    assert CliRunner().invoke(app, ["schedule", "--recipe", "paper", "--force"]).exit_code == 0
    assert len(server.recurring) == 1
