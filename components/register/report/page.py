"""The report of a registration: one self-contained page for the Kubeflow UI's frame, MLflow, a phone."""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from components.common.charts import BAR, FAINT, LOST, compact
from components.common.manifest import Manifest
from components.register.comparison.comparison import Comparison, Confusion, Score
from components.register.report import plots, words
from components.register.report.questions import Shown, question_groups, references
from components.register.report.tables import (
    BenchmarkRow,
    SettingTable,
    benchmark_forest,
    counted,
    perplexity_forest,
    setting_tables,
)
from components.register.report.training import Curves, cost, curves
from components.register.settings import RegisterSettings

_MOST_BYTES_OF_QUESTIONS = 2_500_000  # the page stays below 3 MB with all the rest
_COLOURS = {"base": FAINT, "candidate": BAR, "champion": LOST}
_TOLD_ELSEWHERE = frozenset({"evaluation", "licences", "articles", "verdict", "verdict_reason"})
_DROPPED_SHOWN = 8


def render(
    comparison: Comparison,
    model: Manifest,
    corpus: Manifest,
    settings: RegisterSettings,
    version: str,
    aliases: Sequence[str],
    tags: Mapping[str, str],
) -> str:
    """Return the report as HTML.

    Every text in it is escaped; it loads nothing, and runs nothing but its own few lines for the search box, whose hash
    its Content-Security-Policy names. All but that box works where scripts are forbidden.

    Args:
        comparison: What was measured, and the verdict.
        model: The candidate, for its training.
        corpus: What it was trained on.
        settings: The policy, the registered model's name, and what the card says of power and prices.
        version: Of the registered model.
        aliases: That the version has now.
        tags: Of the version: its lineage.
    """
    environment = _environment()
    question = environment.get_template("report_question.html.j2")

    def to_html(shown: Shown) -> Markup:
        return Markup(question.render(q=shown).strip())  # noqa: S704 - the template escapes

    script = environment.get_template("report_search.js.j2").render().strip()
    tables = setting_tables(comparison)
    page = environment.get_template(
        "report.html.j2"
    ).render(
        comparison=comparison,
        verdict=comparison.verdict,
        name=settings.model_name,
        version=version,
        aliases=aliases,
        script=Markup(script),  # noqa: S704 - our own file
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        level=f"{comparison.confidence:.0%}",
        tables=tables,
        tiles=_tiles(tables),
        forests=_forests(comparison),
        training=_training(curves(model)),
        cost=cost(model, settings.card),
        calibration=_calibration(tables),
        confusions=_confusions(tables),
        groups=question_groups(comparison.questions, _MOST_BYTES_OF_QUESTIONS, to_html),
        references=references(comparison.questions),
        corpus=corpus,
        dropped=sorted(corpus.dropped.items(), key=lambda item: (-item[1], item[0]))[:_DROPPED_SHOWN],
        model=model,
        comparison_uri=tags.get("comparison_uri", ""),
        lineage=[(key, _opened(value)) for key, value in sorted(tags.items()) if value and key not in _TOLD_ELSEWHERE],
    )
    return page.encode("utf-8", "replace").decode()  # half a surrogate pair, which no file can hold


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "title_of": words.title,
        "percent": words.percent,
        "points": words.points,
        "points_with_interval": words.points_with_interval,
        "relative_with_interval": words.relative_with_interval,
        "number": words.number,
        "p_value": words.p_value,
        "count": lambda number: f"{number:,}",
        "compact": compact,
        "counted": counted,
        "capital": lambda text: text[:1].upper() + text[1:],
    }
    return environment


def _tiles(tables: Sequence[SettingTable]) -> list[dict[str, str]]:
    """The numbers that most people look for: the candidate's, and how far they are from the base's."""
    tiles = []
    for table in tables[:1]:
        candidate, pair = table.models.get("candidate"), table.pairs.get("base")
        if candidate and candidate.perplexity:
            change = words.relative(pair.perplexity.value) if pair and pair.perplexity else ""
            tiles.append({"value": words.number(candidate.perplexity.value), "of": "perplexity", "change": change})
        tiles += [_tile(row) for row in table.benchmarks if "candidate" in row.scores]
    return tiles


def _tile(row: BenchmarkRow) -> dict[str, str]:
    difference = row.differences.get("base")
    change = f"{words.points(difference.every.change.value)} points" if difference else ""
    return {"value": words.percent(row.scores["candidate"].accuracy.value), "of": row.title, "change": change}


def _forests(comparison: Comparison) -> list[dict[str, Any]]:
    """The charts of differences; those that the verdict does not rest on come last."""
    pairs = sorted(comparison.pairs, key=lambda pair: not pair.decides)
    return [
        {
            "title": "Benchmarks",
            "note": "More is better. The points are the changes on the questions that count, in percentage points; the "
            "dashed marks are the margins that may be lost, where the verdict rests on the benchmark.",
            "svg": plots.forest(
                benchmark_forest(comparison, pairs), "Changes of accuracy with their intervals", "points"
            ),
        },
        {
            "title": "Perplexity",
            "note": "Less is better. Change relative to the reference, paired by held-out article.",
            "svg": plots.forest(perplexity_forest(pairs), "Changes of perplexity with their intervals", "%"),
        },
    ]


def _training(found: Curves) -> dict[str, Any]:
    tokens = "over the tokens learned from"
    return {
        "obstacle": found.obstacle,
        "steps": found.steps,
        "skipped": found.skipped,
        "charts": [
            ("Loss", plots.curve(found.loss, f"Training loss {tokens}")),
            ("Held-out perplexity", plots.curve(found.perplexity, f"Held-out perplexity {tokens}", logarithmic=True)),
            ("Learning rate", plots.curve(found.learning_rate, f"Learning rate {tokens}")),
        ],
    }


def _calibration(tables: Sequence[SettingTable]) -> list[dict[str, Any]]:
    """A chart for each benchmark whose answers came with probabilities, of the models as they are."""
    found = []
    for row in (row for table in tables[:1] for row in table.benchmarks):
        series = [
            (role, _COLOURS[role], score.calibration.bins) for role, score in row.scores.items() if score.calibration
        ]
        svg = plots.reliability(series, f"Accuracy by confidence on {row.title}")
        if svg:
            found.append({"title": row.title, "svg": svg, "scores": row.scores})
    return found


def _confusions(tables: Sequence[SettingTable]) -> list[dict[str, Any]]:
    """The confusion of PubMedQA's answers, for each model as it is; those of letters (A, B, ...) mean nothing."""
    rows = [row for table in tables[:1] for row in table.benchmarks if row.title == words.title("pubmedqa")]
    return [
        {"role": role, "labels": score.confusion.labels, "rows": _shaded(score.confusion)}
        for row in rows
        for role, score in row.scores.items()
        if _says_something(score) and score.confusion
    ]


def _says_something(score: Score) -> bool:
    return score.confusion is not None and any(map(any, score.confusion.counts))


def _shaded(confusion: Confusion) -> list[tuple[str, list[tuple[int, int]]]]:
    """Return each answer that has questions, with the counts and their share of the row in percent."""
    return [
        (label, [(count, round(100 * count / sum(row))) for count in row])
        for label, row in zip(confusion.labels, confusion.counts, strict=True)
        if sum(row)
    ]


def _opened(value: str) -> str | dict[str, Any]:
    """Return a tag's value; a JSON object is opened."""
    try:
        found = json.loads(value) if value.startswith("{") else None
    except ValueError:
        found = None
    return found if isinstance(found, dict) else value
