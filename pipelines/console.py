"""What a person sees of a local run: the steps' own lines while it runs, one table when it is over."""

import io
import re
import sys
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from components.common.logs import without_credentials
from pipelines.ledger import StepResult

# The steps' lines start with a time of day; KFP's have milliseconds, a level or no time at all.
STEP_LINE = re.compile(r"^\s*(\d\d:\d\d:\d\d) (?!- )(?P<text>\S.*)$")


class LineFilter(io.TextIOBase):
    """A standard output that keeps every line in a file, shows the steps' own lines only, and collects their errors."""

    def __init__(self, log: TextIO, shown: TextIO) -> None:
        """Bind the file that gets everything and the stream that a person watches."""
        self.log, self.shown = log, shown
        self.causes: list[str] = []
        self._rest = ""

    def write(self, text: str) -> int:
        """Take text as it comes and pass on whole lines."""
        self.log.write(text)
        *lines, self._rest = (self._rest + text).split("\n")
        for line in lines:
            match = STEP_LINE.match(line)
            if match is None:
                continue
            if match["text"].startswith("ERROR: "):
                self.causes.append(match["text"].removeprefix("ERROR: "))
            self.shown.write(line.strip() + "\n")
            self.shown.flush()
        return len(text)

    def flush(self) -> None:
        """Flush the file."""
        self.log.flush()


def show_results(results: list[StepResult], seconds: float, tracking_uri: str, log: Path) -> None:
    """Print what ran, what was cached, how long it took, what came out and where it is."""
    console = Console(file=sys.stdout)
    lines = [f"{len(results)} tasks, {sum(r.cached for r in results)} from the cache, {seconds:.1f} s in all."]
    console.print()
    console.print(_steps_table(results))
    registered = [r.metadata for r in results if "reason" in r.metadata]
    answering = [each for each in registered if "taught_from" in each]
    registration = next((each for each in registered if each not in answering), None)
    if registration is not None:
        console.print(_outcome(registration))
        lines += _where(registration)
        lines += [_answering(each) for each in answering]
    if tracking_uri.startswith("sqlite:"):
        lines.append(f"MLflow:   make ui   (mlflow ui --backend-store-uri '{tracking_uri}')")
    elif tracking_uri:
        lines.append(f"MLflow:   {without_credentials(tracking_uri)}")
    for line in [*lines, f"Log:      {log}"]:
        console.print(Text(line), soft_wrap=True)


def show_failure(causes: list[str], log: Path) -> None:
    """Print why a run failed and what to do."""
    console = Console(file=sys.stderr)
    for cause in causes:
        console.print(Text(cause, style="bold red"), soft_wrap=True)
    console.print(Text(f"What is done is kept: run the same command again to go on. Full log: {log}"), soft_wrap=True)


def _steps_table(results: list[StepResult]) -> Table:
    table = Table(title="What ran", title_justify="left")
    for column in ("Step", "Outcome"):
        table.add_column(column)
    table.add_column("Seconds", justify="right")
    table.add_column("Result", overflow="fold")
    for name in dict.fromkeys(r.name for r in results):
        group = [r for r in results if r.name == name]
        cached = sum(r.cached for r in group)
        outcome = "cached" if cached == len(group) else "ran" if not cached else f"{cached} of {len(group)} cached"
        label = name if len(group) == 1 else f"{name} x {len(group)}"
        took = "" if cached == len(group) else f"{sum(r.seconds for r in group):.1f}"
        table.add_row(label, outcome, took, _result(group))
    return table


def _result(group: list[StepResult]) -> str:
    """Sum the counts of a step's tasks; the last one speaks for what cannot be summed."""
    totals: dict[str, float] = {}
    for result in group:
        for key, value in result.numbers.items():
            summed = key not in _NOT_SUMMED and len(group) > 1
            totals[key] = totals.get(key, 0) + value if summed else value
    shown = [(key, totals[key]) for key in _SHOWN if key in totals and (totals[key] or key not in _SHOWN_IF_ANY)]
    return ", ".join(f"{_SHOWN[key]} {_format(value)}" for key, value in shown)


def _outcome(registration: dict[str, Any]) -> Table:
    table = Table(title="Base and candidate", title_justify="left")
    table.add_column("Measure")
    table.add_column("Base", justify="right")
    table.add_column("Candidate", justify="right")
    for measure, label in _MEASURES.items():
        values = [registration.get(f"{measure}_{role}") for role in ("base", "candidate")]
        table.add_row(label, *("" if value is None else _measure(measure, value) for value in values))
    return table


def _measure(measure: str, value: float) -> str:
    return f"{value:,.2f}" if measure == "perplexity" else f"{value:.1%}"


def _where(registration: dict[str, Any]) -> list[str]:
    return [
        f"Verdict:  {registration['reason']}",
        f"Model:    {registration['model']} version {registration['version']} ({', '.join(registration['aliases'])})",
        f"Weights:  {registration['model_uri']}",
        f"Report:   {registration['report_uri']}",
    ]


def _answering(registration: dict[str, Any]) -> str:
    name, aliases = registration["model"], ", ".join(registration["aliases"])
    return f"Answers:  {name} version {registration['version']} ({aliases}): make chat MODEL={name}"


_MEASURES = {"perplexity": "Held-out perplexity", "pubmedqa": "PubMedQA", "medmcqa": "MedMCQA", "medqa": "MedQA-USMLE"}
_SHOWN_IF_ANY = {"rejected", "not_sampled", "new", "changed", "unchanged", "removed_since"}
_NOT_SUMMED = {"perplexity", "mean_tokens_per_second"}
_SHOWN = {
    "listed": "listed",
    "articles": "articles",
    "kept": "kept",
    "documents": "documents",
    "tokens": "tokens",
    "dropped": "dropped",
    "rejected": "rejected",
    "new": "new",
    "changed": "changed",
    "unchanged": "as before",
    "removed_since": "removed since",
    "not_sampled": "not sampled",
    "train_tokens": "training tokens",
    "validation_tokens": "held-out tokens",
    "questions_pubmedqa_test": "PubMedQA",
    "questions_medmcqa_test": "MedMCQA",
    "questions_medqa_test": "MedQA",
    "weight_bytes": "weight bytes",
    "steps": "steps",
    "final_loss": "final loss",
    "mean_tokens_per_second": "tokens/s",
    "perplexity": "perplexity",
    "pubmedqa_accuracy": "PubMedQA",
    "medmcqa_accuracy": "MedMCQA",
    "medqa_accuracy": "MedQA",
}


def _format(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:,.3f}"
