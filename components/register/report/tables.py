"""The tables of the report: a setting's models side by side, and the differences as rows of the forest plot."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from components.register.comparison.comparison import (
    BenchmarkDifference,
    Comparison,
    Estimate,
    ModelResults,
    PairedResult,
    PairResults,
    Score,
)
from components.register.report.plots import ForestRow
from components.register.report.words import points_with_interval, relative_with_interval, title

_ROLES = ("base", "candidate", "champion")


@dataclass(frozen=True)
class BenchmarkRow:
    """A benchmark: each model's score, and the candidate's difference from each reference, by role."""

    title: str
    decides: bool
    majority: float | None
    scores: dict[str, Score]
    differences: dict[str, BenchmarkDifference]


@dataclass(frozen=True)
class SettingTable:
    """The models that were treated alike before they were evaluated.

    Attributes:
        setting: Such as ``as is`` or ``fine-tuned on medqa (full)``.
        models: By role.
        pairs: The candidate's comparisons, by the reference's role.
    """

    setting: str
    models: dict[str, ModelResults]
    pairs: dict[str, PairResults]
    benchmarks: list[BenchmarkRow]


def setting_tables(comparison: Comparison) -> list[SettingTable]:
    """Group models and pairs by how the models were treated before; models as they are come first."""
    by_setting: dict[str, dict[str, ModelResults]] = {}
    for model in comparison.models:
        by_setting.setdefault(model.setting, {})[model.role] = model
    return [_table(comparison, setting, models) for setting, models in by_setting.items()]


def in_order(names: Iterable[str], comparison: Comparison) -> list[str]:
    """Return benchmarks as the policy names them, then the others."""
    first: list[str] = comparison.policy.get("benchmarks", [])
    return sorted(set(names), key=lambda name: (first.index(name) if name in first else len(first), name))


def benchmark_forest(comparison: Comparison, pairs: Sequence[PairResults]) -> list[tuple[str, list[ForestRow]]]:
    """Return a group for every pair, with a row for each of its benchmarks, in points."""
    return [
        (
            f"{_capital(pair.setting)}, against the {pair.reference}",
            [
                _row(name, pair.benchmarks[name], counted(pair.benchmarks[name]))
                for name in in_order(pair.benchmarks, comparison)
            ],
        )
        for pair in pairs
    ]


def perplexity_forest(pairs: Sequence[PairResults]) -> list[tuple[str, list[ForestRow]]]:
    """Return a group for every setting, with a row in percent for each reference; lower is better."""
    groups: dict[str, list[ForestRow]] = {}
    for pair in pairs:
        if pair.perplexity is not None:
            row = ForestRow(
                f"against the {pair.reference}", _scaled(pair.perplexity), relative_with_interval(pair.perplexity)
            )
            groups.setdefault(_capital(pair.setting), []).append(row)
    return [*groups.items()]


def counted(difference: BenchmarkDifference) -> PairedResult:
    """Return the difference on the questions that count; on all where none is left."""
    return difference.counted or difference.every


def _table(comparison: Comparison, setting: str, models: dict[str, ModelResults]) -> SettingTable:
    models = {role: models[role] for role in _ROLES if role in models}
    pairs = {pair.reference: pair for pair in comparison.pairs if pair.setting == setting}
    names = in_order((name for model in models.values() for name in model.benchmarks), comparison)
    return SettingTable(setting, models, pairs, [_benchmark(name, models, pairs) for name in names])


def _benchmark(name: str, models: dict[str, ModelResults], pairs: dict[str, PairResults]) -> BenchmarkRow:
    scores = {role: model.benchmarks[name] for role, model in models.items() if name in model.benchmarks}
    differences = {role: pair.benchmarks[name] for role, pair in pairs.items() if name in pair.benchmarks}
    return BenchmarkRow(
        title=title(name),
        decides=any(each.decides for each in differences.values()),
        majority=next((score.majority for score in scores.values() if score.majority is not None), None),
        scores=scores,
        differences=differences,
    )


def _row(name: str, difference: BenchmarkDifference, paired: PairedResult) -> ForestRow:
    return ForestRow(
        label=title(name),
        change=_scaled(paired.change),
        numbers=points_with_interval(paired.change),
        margin=100 * difference.margin if difference.decides else None,
        bad=difference.decides and paired.change.value < -difference.margin,
    )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _scaled(estimate: Estimate) -> Estimate:
    return Estimate(value=100 * estimate.value, low=100 * estimate.low, high=100 * estimate.high)
