"""Submitting and scheduling on the command line: what is told, and the exit status."""

import sys

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pipelines.kubeflow import Kubeflow, connect
from pipelines.recipe import Recipe
from pipelines.schedule import Scheduled, delete_schedule, list_schedules, schedule, switch_schedule
from pipelines.submit import SUCCEEDED, Order, failure, follow, require_fit, submit


def run_on_kubeflow(recipe: Recipe, order: Order, force: bool, wait: bool) -> None:
    """Look whether all is there, submit, and follow the run if asked.

    Raises:
        InputError: The preflight found what keeps the run from succeeding, and it is not forced.
        ClusterError: Kubeflow refuses, or the run that was followed did not succeed.
    """
    _look(recipe, order, force)
    server = connect()
    submitted = submit(server, recipe, order)
    version = submitted.version
    typer.echo(f"Version  {version.name} ({'uploaded' if version.is_new else 'as before'})")
    typer.echo(f"Run      {submitted.name} ({'started' if submitted.is_new else 'is there already'})")
    typer.echo(f"Page     {submitted.address}")
    if wait:
        _follow(server, submitted.run_id, submitted.address)


def schedule_on_kubeflow(recipe: Recipe, order: Order, cron: str, is_on: bool, force: bool) -> None:
    """Look whether all is there, and have the pipeline repeated.

    Raises:
        InputError: The preflight found what keeps the runs from succeeding, and it is not forced.
        ClusterError: Kubeflow refuses.
    """
    _look(recipe, order, force)
    _show([schedule(connect(), recipe, order, cron, is_on)])


def show_schedules() -> None:
    """Print all schedules."""
    _show(list_schedules(connect()))


def end_schedule(name: str) -> None:
    """Delete a schedule."""
    count = delete_schedule(connect(), name)
    typer.echo(f"{count} schedule{'s' if count > 1 else ''} named {name} deleted; the runs stay.")


def turn_schedule(name: str, is_on: bool) -> None:
    """Switch a schedule on or off."""
    switch_schedule(connect(), name, is_on)
    typer.echo(f"The schedule {name} is {'on' if is_on else 'off'}.")


def _look(recipe: Recipe, order: Order, force: bool) -> None:
    """The preflight is of the whole pipeline: the watch needs a part of it only, and looks itself."""
    if order.pipeline != "pmc-llama":
        return
    from pipelines.preflight import preflight, show_preflight

    findings = preflight(recipe, submitting=True)
    show_preflight(findings)
    if not force:
        require_fit(findings)


def _follow(server: Kubeflow, run_id: str, address: str) -> None:
    try:
        state = follow(server, run_id, typer.echo)
    except KeyboardInterrupt:
        typer.echo(f"Not followed any longer; the run goes on: {address}")
        sys.exit(130)
    if state != SUCCEEDED:
        raise failure(server, run_id, state)


def _show(schedules: list[Scheduled]) -> None:
    if not schedules:
        typer.echo("There are no schedules.")
        return
    table = Table()
    for column in ("Schedule", "Times (UTC, second first)", "State", "Change", "Page"):
        table.add_column(column, overflow="fold")
    for each in schedules:
        state = "on" if each.is_on else "off"
        table.add_row(*(Text(text) for text in (each.name, each.cron, state, each.change, each.address)))
    Console(file=sys.stdout).print(table)
