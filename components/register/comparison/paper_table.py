"""The paper's table of results after fine-tuning: the published rows, and this run's beside them."""

from collections.abc import Sequence

from components.register.comparison.comparison import Cell, ModelResults, Table, TableRow
from components.register.comparison.published import COLUMNS, METHODS, published_table

_BENCHMARK_OF = {"usmle_out": "medqa", "usmle_in": "medqa", "medmcqa": "medmcqa", "pubmedqa": "pubmedqa"}
_AS_IS = "as is"
_USMLE = "medqa"


def paper_table(models: Sequence[ModelResults]) -> Table:
    """Return the published rows, then a row for each model and way of fine-tuning that this run measured.

    A column takes the result of the model that was fine-tuned on the fewest tasks of those that fit it: USMLE in domain
    needs its own training questions, out of domain none of them, the others their own. Models as they are have their
    USMLE result in the first column, as ChatGPT has.
    """
    published = published_table()
    groups: dict[tuple[str, str], list[ModelResults]] = {}
    for model in models:
        method = METHODS[model.fine_tuning.method] if model.fine_tuning else _AS_IS
        groups.setdefault((model.role, method), []).append(model)
    measured = [_row(role, method, members) for (role, method), members in groups.items()]
    return Table(columns=published.columns, rows=[*published.rows, *measured])


def _row(role: str, method: str, members: Sequence[ModelResults]) -> TableRow:
    chosen = {column: _best(column, members) for column in COLUMNS}
    return TableRow(
        model=role,
        setting=method,
        source="measured",
        trained_on={
            column: " and ".join(model.fine_tuning.tasks)
            for column, model in chosen.items()
            if model and model.fine_tuning
        },
        cells={column: _cell(column, model) for column, model in chosen.items()},
    )


def _best(column: str, members: Sequence[ModelResults]) -> ModelResults | None:
    fitting = [model for model in members if _BENCHMARK_OF[column] in model.benchmarks and _fits(column, model)]
    return min(fitting, key=lambda model: (len(_tasks(model)), model.setting), default=None)


def _fits(column: str, model: ModelResults) -> bool:
    if model.fine_tuning is None:
        return column != "usmle_in"
    return _USMLE not in _tasks(model) if column == "usmle_out" else _BENCHMARK_OF[column] in _tasks(model)


def _tasks(model: ModelResults) -> tuple[str, ...]:
    return model.fine_tuning.tasks if model.fine_tuning else ()


def _cell(column: str, model: ModelResults | None) -> Cell | None:
    if model is None:
        return None
    score = model.benchmarks[_BENCHMARK_OF[column]]
    accuracy = score.accuracy
    return Cell(value=accuracy.value, low=accuracy.low, high=accuracy.high, questions=score.questions)
