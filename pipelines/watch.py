"""The retraction watch on the command line: the table a person reads, the file a program reads, the exit status."""

import os
import sys
from pathlib import Path

from rich.console import Console
from rich.text import Text

from components.common.errors import InputError
from components.retractions.findings import UNKNOWN, Report
from components.retractions.report import sentence, table, to_json
from components.retractions.watch import watch_model
from pipelines.recipe import Recipe

NONE, SOME, UNCERTAIN = 0, 3, 4


def watch(model: str, recipe: Recipe, json_file: Path | None, rows: int) -> int:
    """Watch a model, print what was found, and return the exit status.

    Args:
        model: The model version; see :func:`model_registry.find_version`.
        recipe: Its ``download.pmc`` and ``download.transport`` say where and how to read.
        json_file: Also gets the whole report, if given.
        rows: At most so many articles in the table.

    Returns:
        0 when no article is retracted or withdrawn, 3 when some are, 4 when none is known to be but some could not be
        checked.

    Raises:
        PipelineError: The watch could not be done.
    """
    if json_file is not None:
        _require_writable(json_file)
    report = watch_model(model, recipe.download.pmc, recipe.download.transport)
    if json_file is not None:
        json_file.write_text(to_json(report), encoding="utf-8")
    _show(report, rows)
    if report.affected:
        return SOME
    return UNCERTAIN if report.counts[UNKNOWN] else NONE


def _require_writable(file: Path) -> None:
    """Refuse at once what would only fail after the work."""
    folder = file.resolve().parent
    if file.is_dir() or not folder.is_dir() or not os.access(file if file.exists() else folder, os.W_OK):
        raise InputError(f"Cannot write {file}; give --json a file in a folder that is there and writable.")


def _show(report: Report, rows: int) -> None:
    console = Console(file=sys.stdout)
    if report.findings and rows:
        console.print(table(report, rows))
    counts = ", ".join(f"{kind} {count:,}" for kind, count in report.to_dict()["counts"].items() if count)
    for line in (sentence(report), f"In numbers: {counts}."):
        console.print(Text(line), soft_wrap=True)
