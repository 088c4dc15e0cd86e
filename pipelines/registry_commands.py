"""The registry on the command line: promote a version, roll a champion back, look where a model comes from."""

import json
from pathlib import Path
from typing import Annotated

import typer

from components.common.errors import InputError

Model = Annotated[str, typer.Argument(help="The registered model's name; also name/3 or name@alias.")]
Home = Annotated[
    Path, typer.Option("--home", envvar="PMC_HOME", help="Folder for the store, tracking, caches and logs.")
]
Reason = Annotated[str, typer.Option("--reason", help="Why; kept with the version.")]


def add_to(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    for command in (promote, rollback, lineage):
        app.command()(command)


def promote(
    model: Model,
    version: Annotated[int | None, typer.Option("--version", min=1, help="Its number.")] = None,
    alias: Annotated[str, typer.Option("--alias", help="Its alias.", show_default="candidate")] = "",
    force: Annotated[bool, typer.Option("--force", help="Although the gate's verdict does not allow it.")] = False,
    reason: Reason = "",
    home: Home = Path(".pmc"),
) -> None:
    """Make a version champion: the candidate, unless --version or --alias names another.

    A version that did not pass the gate, or was judged against another champion than the present one, is refused
    without --force and --reason. The champion before it becomes `previous`.
    """
    from components.register.registry.promotion import promote as logic

    tracking_uri, store_uri = _places(home)
    typer.echo(logic(tracking_uri, store_uri, _wanted(model, version, alias), force, reason))


def rollback(model: Model, reason: Reason = "", home: Home = Path(".pmc")) -> None:
    """Make the previous champion champion again; the present one becomes `previous`.

    No run of the pipeline promotes the version that was rolled back again; a person may.
    """
    from components.register.registry.promotion import roll_back

    tracking_uri, store_uri = _places(home)
    typer.echo(roll_back(tracking_uri, store_uri, model, reason))


def lineage(
    model: Annotated[
        str, typer.Argument(help="name (its champion or, without one, its newest version), name@alias or name/3.")
    ],
    json_: Annotated[bool, typer.Option("--json", help="As JSON, for programs.")] = False,
    home: Home = Path(".pmc"),
) -> None:
    """Show where a registered model comes from: run, corpus and licences, base model, results, verdict, code."""
    from rich.console import Console

    from components.register.registry.lineage import lineage as logic
    from components.register.registry.lineage import lineage_tree

    found = logic(_places(home)[0], model)
    if json_:
        typer.echo(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        Console(soft_wrap=True).print(lineage_tree(found))


def _places(home: Path) -> tuple[str, str]:
    """Return the addresses of MLflow and of the store, as a run with this home has them."""
    from components.common import logs
    from components.common.settings import get_settings
    from pipelines.local import set_places

    logs.configure()
    set_places(home.resolve())
    settings = get_settings()
    return settings.tracking_uri, settings.store_uri


def _wanted(model: str, version: int | None, alias: str) -> str:
    if version is not None and alias:
        raise InputError("Give --version or --alias, not both.")
    if (version is not None or alias) and ("/" in model.removeprefix("models:/") or "@" in model):
        raise InputError(f"{model} names a version already; leave out --version and --alias.")
    return f"{model}/{version}" if version is not None else f"{model}@{alias}" if alias else model
