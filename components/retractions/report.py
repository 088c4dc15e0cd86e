"""The watch's report: a sentence, a table for the terminal, a page, and a file with everything."""

import json
from collections import Counter
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from rich.table import Table
from rich.text import Text

from components.retractions.findings import KINDS, KNOWN, RELICENSED, RETRACTED, UNKNOWN, WITHDRAWN, Finding, Report

_PAGE_ROWS = 500
_STYLES = {RETRACTED: "bold red", WITHDRAWN: "red", UNKNOWN: "yellow"}


def sentence(report: Report) -> str:
    """Say in one or two sentences how it stands; never that there is nothing while some could not be looked at."""
    whole = f"{report.trained - report.foreign:,} articles that {report.model} version {report.version} learned from"
    found = [f"{_are(report.counts[kind])} {kind}" for kind in (RETRACTED, WITHDRAWN) if report.counts[kind]]
    unknown = report.counts[UNKNOWN]
    if found:
        text = f"Of the {whole}, {' and '.join(found)} since (inventory {report.inventory})."
    elif unknown:
        text = f"Of the {whole}, none is known to be retracted or withdrawn since (inventory {report.inventory})."
    else:
        text = f"None of the {whole} is retracted or withdrawn since (inventory {report.inventory})."
    if unknown:
        reasons = Counter(each.reason for each in report.of_kind(UNKNOWN)).most_common()
        text += f" {unknown:,} could not be checked ({', '.join(f'{why} {count:,}' for why, count in reasons)})."
    if report.foreign:
        text += f" {report.foreign:,} others have no PMCID and cannot be looked up."
    return text


def to_json(report: Report) -> str:
    """Return everything as JSON, the same text for the same findings."""
    return json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n"


def table(report: Report, most: int) -> Table:
    """Return the first findings as a table for a terminal.

    Args:
        report: What was found.
        most: How many rows to show; the last line says how many more there are.
    """
    shown = Table(title=f"{report.model} version {report.version}", title_justify="left", show_lines=False)
    for column in ("Article", "What", "Version", "Title", "DOI"):
        shown.add_column(column, overflow="fold", no_wrap=column in ("Article", "Version"))
    for each in report.findings[:most]:
        cells = (each.id, what(each), versions(each), each.title, each.doi)
        shown.add_row(*(Text(_printable(cell), style=_STYLES.get(each.kind, "")) for cell in cells))
    if len(report.findings) > most:
        shown.add_row("", f"and {len(report.findings) - most:,} more")
    return shown


def render(report: Report) -> str:
    """Return the report as a self-contained page; every text in it is escaped and it loads nothing."""
    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("report.html.j2").render(
        report=report,
        sentence=sentence(report),
        counts=[(kind, report.counts[kind]) for kind in KINDS],
        rows=[(each, what(each), versions(each)) for each in report.findings[:_PAGE_ROWS]],
        more=max(len(report.findings) - _PAGE_ROWS, 0),
        state="bad" if report.affected else "open" if report.counts[UNKNOWN] else "good",
    )


def what(finding: Finding) -> str:
    """Say what became of an article, in a few words."""
    if finding.kind == UNKNOWN:
        return f"unknown ({finding.reason})"
    if finding.kind == RELICENSED:
        return f"relicensed: {finding.old_licence or 'not recorded'} to {finding.new_licence}"
    return "retracted before the training" if finding.kind == KNOWN else finding.kind


def versions(finding: Finding) -> str:
    """Say which version was used and which is listed now."""
    old, new = (str(version) if version else "" for version in (finding.old_version, finding.new_version))
    return old or new if old == new or not (old and new) else f"{old} to {new}"


def _are(count: int) -> str:
    return f"{count:,} {'is' if count == 1 else 'are'}"


def _printable(text: str) -> str:
    """A title is another's word: no control character of it reaches the terminal."""
    return "".join(char if char.isprintable() else " " for char in text)
