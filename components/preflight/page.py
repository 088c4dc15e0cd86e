"""The findings as a page for the Kubeflow UI; every text is escaped."""

from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.preflight.findings import Finding, counted

_ORDER = ("failed", "warning", "unknown", "ok")


def to_html(recipe: str, findings: Sequence[Finding]) -> str:
    """Return a self-contained page, what failed first.

    Args:
        recipe: The recipe's name.
        findings: In any order.
    """
    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    ordered = sorted(findings, key=lambda each: _ORDER.index(each.state))
    return environment.get_template("preflight.html.j2").render(
        recipe=recipe, findings=ordered, counts=counted(findings)
    )
