"""The page on contamination: how many test questions overlap with the corpus, and which."""

from pathlib import Path
from typing import Any

import pyarrow as pa
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.preprocess.decontamination.contamination import Contamination

_SHOWN = 100  # of the overlaps with articles and with training questions each; the tables hold all
_ACTIONS = {
    "drop": "the article was dropped",
    "cut": "the paragraphs were cut out",
    "keep": "it stays in the corpus",
    "duplicate": "the article left as a copy of another",
}


def render_contamination(contamination: Contamination) -> str:
    """Describe what was found as one self-contained HTML page; all that comes from articles is escaped."""
    templates = FileSystemLoader(Path(__file__).parents[1] / "templates")
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["count"] = lambda number: f"{number:,}"
    environment.filters["share"] = lambda number: f"{number:.0%}"
    texts = {
        (row["benchmark"], row["question_id"]): row["question"]
        for row in contamination.questions.select(["benchmark", "question_id", "question"]).to_pylist()
    }
    return environment.get_template("contamination.html.j2").render(
        summary=contamination.summary,
        matches=_shown(contamination.matches, texts),
        matches_in_all=contamination.matches.num_rows,
        training=_shown(contamination.training, texts),
        training_in_all=contamination.training.num_rows,
        actions=_ACTIONS,
    )


def _shown(table: pa.Table, texts: dict[tuple[str, str], str]) -> list[dict[str, Any]]:
    rows = table.slice(0, _SHOWN).to_pylist()
    return [row | {"question": texts[row["benchmark"], row["question_id"]]} for row in rows]
