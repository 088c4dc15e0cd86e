"""What the authors of PMC-LLaMA published for their first version, to stand beside what a run measures.

The numbers are quoted, never measured here: accuracy in percent, from the README of the authors' repository.
"""

from components.register.comparison.comparison import Cell, Table, TableRow

CITATION = (
    "Wu et al., PMC-LLaMA: Further Finetuning LLaMA on Medical Papers, arXiv 2304.14454 v1; "
    "README of github.com/chaoyi-wu/PMC-LLaMA, May 2023"
)
COLUMNS = {
    "usmle_out": "USMLE, out of domain",
    "usmle_in": "USMLE, in domain",
    "medmcqa": "MedMCQA",
    "pubmedqa": "PubMedQA",
}
"""Out of domain: fine-tuned on PubMedQA and MedMCQA; in domain: on USMLE's own training questions."""

METHODS = {"full": "full fine-tuning", "lora": "PEFT"}
_OWN_METHOD = ""

_ROWS: list[tuple[str, str, tuple[float | None, float | None, float | None, float | None]]] = [
    ("Human (pass)", _OWN_METHOD, (50.0, None, None, 60.0)),
    ("Human (expert)", _OWN_METHOD, (87.0, None, 90.0, 78.0)),
    ("ChatGPT", "zero-shot", (57.0, None, 44.7, 63.9)),
    ("LLaMA-7B", METHODS["full"], (44.55, 35.66, 48.15, 73.41)),
    ("PMC-LLaMA-7B", METHODS["full"], (44.70, 40.61, 50.54, 69.53)),
    ("LLaMA-7B", METHODS["lora"], (29.38, 27.34, 32.37, 65.81)),
    ("PMC-LLaMA-7B", METHODS["lora"], (30.64, 28.52, 34.33, 68.23)),
]


def published_table() -> Table:
    """Return the authors' table."""
    rows = [
        TableRow(
            model=model,
            setting=setting,
            source="published",
            citation=CITATION,
            cells={
                column: None if percent is None else Cell(value=round(percent / 100, 4))
                for column, percent in zip(COLUMNS, percents, strict=True)
            },
        )
        for model, setting, percents in _ROWS
    ]
    return Table(columns=COLUMNS, rows=rows)
