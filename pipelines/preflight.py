"""The preflight on the command line: everything that a run needs, in a table, before anything is done."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.common.logs import without_credentials
from components.preflight.findings import Finding, counted
from components.preflight.preflight import examine
from pipelines.recipe import Recipe

_STYLES = {"ok": "green", "warning": "yellow", "failed": "bold red", "unknown": "dim"}


def preflight(recipe: Recipe, submitting: bool = False) -> list[Finding]:
    """Look at everything that a run of a recipe needs.

    Args:
        recipe: What is to run.
        submitting: Whether its steps will run in a cluster while this machine is outside: what only they can see is
            `unknown` then, and not `failed`.

    Returns:
        A finding for each thing; the run cannot succeed while one is `failed`.
    """
    values = recipe.arguments()
    return examine(values["download"], values["train"], recipe.steps.model_dump(mode="json"), submitting)


def show_preflight(findings: Sequence[Finding]) -> bool:
    """Print the findings.

    Returns:
        Whether none has failed.
    """
    console = Console(file=sys.stdout)
    table = Table(title="Preflight", title_justify="left", show_lines=True)
    table.add_column("State", no_wrap=True)
    table.add_column("What", overflow="fold")
    table.add_column("Found", overflow="fold", ratio=2)
    table.add_column("What to do", overflow="fold", ratio=2)
    for each in findings:
        texts = (Text(without_credentials(text)) for text in (each.subject, each.found, each.remedy))
        table.add_row(Text(each.state, style=_STYLES[each.state]), *texts)
    console.print(table)
    counts = counted(findings)
    console.print(", ".join(f"{count} {state}" for state, count in counts.items() if count) + ".")
    return counts["failed"] == 0
