"""Runs that Kubeflow repeats: the monthly refresh of the corpus and the model, the daily watch for retractions."""

import re
from dataclasses import dataclass
from typing import Any

import kfp_server_api

from components.common.errors import InputError
from pipelines.kubeflow import Kubeflow
from pipelines.recipe import Recipe
from pipelines.submit import Order, created_once, description, plugins
from pipelines.upload import Version, equals, experiment_id, upload_version

CRONS = {"pmc-llama": "0 0 4 1 * *", "retractions": "0 0 6 * * *"}
_FIELD = r"[0-9A-Za-z*/,?-]+"
_CRON = re.compile(rf"({_FIELD} ){{5}}{_FIELD}|@(yearly|annually|monthly|weekly|daily|midnight|hourly)")
_PAGE = 100


@dataclass(frozen=True)
class Scheduled:
    """A schedule on the server.

    Attributes:
        name: As the pages show it.
        cron: When: second, minute, hour, day of the month, month, day of the week; in UTC.
        is_on: Whether it starts runs.
        change: What was done: new, replaced or unchanged; empty where it is only shown.
        address: Of its page.
    """

    name: str
    cron: str
    is_on: bool
    change: str
    address: str


def schedule(server: Kubeflow, recipe: Recipe, order: Order, cron: str = "", is_on: bool = True) -> Scheduled:
    """Have a pipeline run again and again; a schedule of the same name is replaced.

    One run at a time; what was missed while the server was away is not caught up on.

    Args:
        server: Where to.
        recipe: What to run.
        order: The pipeline, the experiment, and the schedule's name as `run_name`.
        cron: When, in UTC; five fields (minute first) or six (second first); empty: the pipeline's own.
        is_on: Whether it starts at once.

    Raises:
        InputError: The times cannot be read, or the recipe is bound to one state of its source.
        ClusterError: The server refuses.
    """
    cron = checked_cron(cron or CRONS[order.pipeline])
    if order.pipeline == "pmc-llama":
        _require_moving(recipe)
    version = upload_version(server, recipe, order.pipeline)
    experiment = experiment_id(server, order.experiment or order.pipeline)
    name = order.run_name or f"{order.pipeline}-{recipe.recipe}"
    body = _recurring_run(recipe, version, experiment, name, cron, is_on)
    before = _called(server, name)
    same = next((each for each in before if _is_same(each, body)), None)
    kept = same or _create(server, body)
    # Only now: if the new one is refused, the old one goes on.
    for each in before:
        if each.recurring_run_id != kept.recurring_run_id:
            _delete(server, each)
    change = "unchanged" if same else "replaced" if before else "new"
    return _scheduled(server, kept, change)


def list_schedules(server: Kubeflow) -> list[Scheduled]:
    """All schedules in the namespace, by name."""
    found = [_scheduled(server, each, "") for each in _all(server)]
    return sorted(found, key=lambda each: each.name)


def delete_schedule(server: Kubeflow, name: str) -> int:
    """Delete the schedules of a name; their runs stay. Returns how many there were.

    Raises:
        InputError: There is none.
    """
    found = _named(server, name)
    for each in found:
        _delete(server, each)
    return len(found)


def switch_schedule(server: Kubeflow, name: str, is_on: bool) -> None:
    """Let a schedule start runs, or no longer.

    Raises:
        InputError: There is none of that name.
    """
    api = server.recurring
    switch = (
        api.recurring_run_service_enable_recurring_run if is_on else api.recurring_run_service_disable_recurring_run
    )
    for each in _named(server, name):
        server.ask("switch a schedule", switch, each.recurring_run_id)


def checked_cron(cron: str) -> str:
    """The times as KFP takes them: six fields, the second first.

    Raises:
        InputError: They are none.
    """
    text = " ".join(cron.split())
    if len(text.split()) == 5:
        text = f"0 {text}"
    if not _CRON.fullmatch(text):
        raise InputError(
            f"The times {cron!r} are no cron expression: give five fields (minute, hour, day, month, day of the week), "
            'such as "0 4 1 * *" for the first of each month at four, or six with the second first.'
        )
    return text


def _require_moving(recipe: Recipe) -> None:
    """Refuse what would do the same each time: a refresh must see the newest state of its source."""
    download = recipe.download
    pins = {"download.version": download.version}
    if download.source == "pmc":
        pins["download.pmc.inventory"] = "" if download.pmc.inventory == "latest" else download.pmc.inventory
    if download.source == "s2orc":
        pins["download.s2orc.release"] = "" if download.s2orc.release == "latest" else download.s2orc.release
    for key, value in pins.items():
        if value:
            raise InputError(f"{key} is {value}, so each run would see the same articles: leave it out of a schedule.")


def _recurring_run(
    recipe: Recipe, version: Version, experiment: str, name: str, cron: str, is_on: bool
) -> kfp_server_api.V2beta1RecurringRun:
    modes = kfp_server_api.RecurringRunMode
    return kfp_server_api.V2beta1RecurringRun(
        experiment_id=experiment,
        display_name=name,
        description=description(recipe, version),
        pipeline_version_reference=version.reference,
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=version.arguments),
        service_account=recipe.steps.service_account,
        max_concurrency="1",
        no_catchup=True,
        mode=modes.ENABLE if is_on else modes.DISABLE,
        trigger=kfp_server_api.V2beta1Trigger(cron_schedule=kfp_server_api.V2beta1CronSchedule(cron=cron)),
        plugins_input=plugins(),
    )


def _create(server: Kubeflow, body: kfp_server_api.V2beta1RecurringRun) -> Any:
    def find() -> Any:
        found = _called(server, body.display_name)
        return next((each for each in found if each.description == body.description), None)

    def create() -> Any:
        return server.ask(
            "create a schedule",
            server.recurring.recurring_run_service_create_recurring_run,
            recurring_run=body,
            once=True,
        )

    return created_once(server, create, find)


def _is_same(found: Any, body: kfp_server_api.V2beta1RecurringRun) -> bool:
    reference, trigger = found.pipeline_version_reference, found.trigger
    parameters = (found.runtime_config.parameters if found.runtime_config else None) or {}
    return (
        reference is not None
        and reference.pipeline_version_id == body.pipeline_version_reference.pipeline_version_id
        and trigger is not None
        and trigger.cron_schedule is not None
        and trigger.cron_schedule.cron == body.trigger.cron_schedule.cron
        and parameters == body.runtime_config.parameters
        and found.experiment_id == body.experiment_id
        and body.service_account in (None, found.service_account)  # a server names its own where none is given
        and _is_on(found) == (body.mode == kfp_server_api.RecurringRunMode.ENABLE)
    )


def _delete(server: Kubeflow, recurring_run: Any) -> None:
    server.ask(
        "delete a schedule",
        server.recurring.recurring_run_service_delete_recurring_run,
        recurring_run.recurring_run_id,
    )


def _named(server: Kubeflow, name: str) -> list[Any]:
    found = _called(server, name)
    if not found:
        known = ", ".join(each.name for each in list_schedules(server)) or "none at all"
        raise InputError(f"There is no schedule {name!r}; there are {known}.")
    return found


def _called(server: Kubeflow, name: str) -> list[Any]:
    return _all(server, filter=equals("display_name", name))


def _all(server: Kubeflow, **options: Any) -> list[Any]:
    found: list[Any] = []
    token = ""
    while True:
        answer = server.ask(
            "list the schedules",
            server.recurring.recurring_run_service_list_recurring_runs,
            namespace=server.namespace or None,
            page_size=_PAGE,
            page_token=token,
            **options,
        )
        found += answer.recurring_runs or []
        token = answer.next_page_token or ""
        if not token:
            return found


def _is_on(found: Any) -> bool:
    return str(found.status or found.mode) in ("ENABLED", "ENABLE")


def _scheduled(server: Kubeflow, found: Any, change: str) -> Scheduled:
    cron = found.trigger.cron_schedule.cron if found.trigger and found.trigger.cron_schedule else "at an interval"
    address = server.page("recurringrun", "details", found.recurring_run_id)
    return Scheduled(found.display_name, cron, _is_on(found), change, address)
