"""The model card: what a person must know before using a model, in the format of the Hugging Face hub."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.common.manifest import Manifest
from components.register.card.card_settings import CardSettings
from components.register.card.markdown import Verbatim, code, escaped, literal
from components.register.comparison.comparison import Comparison, Estimate, ModelResults, PairResults

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_DATA_SETS = {
    "pubmedqa": ("qiaojin/PubMedQA", "PubMedQA"),
    "medmcqa": ("openlifescienceai/medmcqa", "MedMCQA"),
    "medqa": ("GBaker/MedQA-USMLE-4-options", "MedQA-USMLE"),
}
_AS_IS = "as is"
_LONGEST_REASON = 1500


@dataclass(frozen=True)
class Footprint:
    """What the training took.

    Attributes:
        device_hours: Hours of all training devices together, spent in training steps; None if they were not measured.
        energy_kwh: None if the devices' power is not known.
        emissions_kg: Of CO2-equivalent; None if the energy or the grid's carbon intensity is not known.
    """

    device_hours: float | None
    energy_kwh: float | None
    emissions_kg: float | None


def model_card(
    name: str,
    model: Manifest,
    corpus: Manifest,
    comparison: Comparison,
    settings: CardSettings,
    facts: Mapping[str, str],
) -> str:
    """Return the card: YAML front matter, then Markdown. All that comes from outside is escaped.

    Args:
        name: Of the registered model.
        model: The trained model.
        corpus: What it was trained on.
        comparison: What was measured, and the verdict.
        settings: What people say about the model.
        facts: The version's tags, such as ``base_model``, ``recipe``, ``git_revision``.
    """
    return render_card("model_card.md.j2", name, model, corpus, comparison, settings, facts, rows=[*_rows(comparison)])


def description(comparison: Comparison, card_uri: str) -> str:
    """Return what the registry's page shows of a version: the verdict, the results, and where the card is."""
    return render_description("description.md.j2", comparison, card_uri, rows=[*_rows(comparison)])


def render_card(
    template: str,
    name: str,
    model: Manifest,
    corpus: Manifest,
    comparison: Comparison,
    settings: CardSettings,
    facts: Mapping[str, str],
    training_type: str = "pre-training",
    **more: Any,
) -> str:
    """Return a card by its template, which gets `more` beside what is the same for every model.

    Args:
        template: File of the folder `templates`.
        name: As for :func:`model_card`, like the following.
        model: The model.
        corpus: What it, or the model before it, was trained on.
        comparison: What was measured, and the verdict.
        settings: What people say about the model.
        facts: The version's tags.
        training_type: What the hub calls the training whose emissions are told.
        more: For this template.
    """
    cost = footprint(model, settings)
    text = (
        _environment()
        .get_template(template)
        .render(
            name=name,
            model=model,
            corpus=corpus,
            comparison=comparison,
            settings=settings,
            facts=facts,
            cost=cost,
            origins=[_origin(each) for each in corpus.extra.get("origins", [])],
            articles=sum(comparison.licences.counts.values()),
            **more,
        )
    )
    return f"---\n{_front_matter(name, comparison, settings, facts, cost, training_type)}\n---\n\n{text}"


def render_description(template: str, comparison: Comparison, card_uri: str, **more: Any) -> str:
    """Return the text of the registry's page by its template, which gets `more` beside the verdict's reason."""
    reason = comparison.verdict.reason[:_LONGEST_REASON]
    return _environment().get_template(template).render(reason=reason, card_uri=card_uri, **more)


def data_set_title(benchmark: str) -> str:
    """Return what people call a benchmark."""
    return _DATA_SETS.get(benchmark, ("", benchmark))[1]


def number_text(estimate: Estimate | None) -> str:
    """Return a number with its interval."""
    return "unknown" if estimate is None else f"{estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g})"


def share_text(estimate: Estimate | None) -> str:
    """Return a share with its interval in percent."""
    return "unknown" if estimate is None else f"{estimate.value:.1%} ({estimate.low:.1%} to {estimate.high:.1%})"


def footprint(model: Manifest, settings: CardSettings) -> Footprint:
    """Work out the energy and the emissions of the training steps.

    Energy is time times power times the data centre's overhead, emissions are energy times the grid's carbon intensity
    (Lacoste et al. 2019, https://arxiv.org/abs/1910.09700; CodeCarbon's estimate without a meter is the same).
    """
    tokens, speed = model.totals.get("tokens"), model.totals.get("mean_tokens_per_second")
    if not tokens or not speed:
        return Footprint(None, None, None)
    hours = tokens / speed / 3600 * model.totals.get("processes", 1)
    if settings.device_power_watts is None:
        return Footprint(hours, None, None)
    energy = hours * settings.device_power_watts / 1000 * settings.power_usage_effectiveness
    if settings.carbon_intensity is None:
        return Footprint(hours, energy, None)
    return Footprint(hours, energy, energy * settings.carbon_intensity / 1000)


@dataclass(frozen=True)
class _Row:
    """A line of the table of results, ready to show."""

    measure: str
    setting: str
    base: str
    model: str
    change: str
    majority: str


def _rows(comparison: Comparison) -> Iterator[_Row]:
    by_setting: dict[str, dict[str, ModelResults]] = {}
    for each in comparison.models:
        by_setting.setdefault(each.setting, {})[each.role] = each
    pairs = {pair.setting: pair for pair in comparison.pairs if pair.reference == "base"}
    for setting, models in by_setting.items():
        candidate, base, pair = models.get("candidate"), models.get("base"), pairs.get(setting)
        if candidate is not None:
            yield from _rows_of(setting, candidate, base, pair)


def _rows_of(
    setting: str, candidate: ModelResults, base: ModelResults | None, pair: PairResults | None
) -> Iterator[_Row]:
    if candidate.perplexity is not None:
        before = base.perplexity if base else None
        change = pair.perplexity if pair else None
        yield _Row(
            "Held-out perplexity", setting, number_text(before), number_text(candidate.perplexity), _percent(change), ""
        )
    for name, score in sorted(candidate.benchmarks.items()):
        reference = base.benchmarks.get(name) if base else None
        difference = pair.benchmarks.get(name) if pair else None
        majority = "" if score.majority is None else f"{score.majority:.1%}"
        yield _Row(
            data_set_title(name),
            setting,
            share_text(reference.accuracy if reference else None),
            share_text(score.accuracy),
            _points(difference.every.change if difference else None),
            majority,
        )


def _front_matter(
    name: str,
    comparison: Comparison,
    settings: CardSettings,
    facts: Mapping[str, str],
    cost: Footprint,
    training_type: str,
) -> str:
    base = facts.get("base_model", "")
    data = ModelCardData(
        language=settings.language,
        license=settings.license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["biology", "medical", "pmc-llama"],
        base_model=base if _HUB_ID.fullmatch(base) else None,
        model_name=name,
        eval_results=[*_results(comparison)] or None,
        **_emissions(cost, settings, training_type),
    )
    return str(data.to_yaml()).strip()


def _emissions(cost: Footprint, settings: CardSettings, training_type: str) -> dict[str, Any]:
    if cost.emissions_kg is None:
        return {}
    found: dict[str, Any] = {
        "emissions": round(1000 * cost.emissions_kg, 3),  # the hub wants grams
        "source": "device hours x power x power usage effectiveness x carbon intensity",
        "training_type": training_type,
    }
    return {"co2_eq_emissions": found | ({"geographical_location": settings.region} if settings.region else {})}


def _results(comparison: Comparison) -> Iterator[EvalResult]:
    own = [each for each in comparison.models if each.role == "candidate" and each.fine_tuning is None]
    for name, score in (pair for each in own for pair in sorted(each.benchmarks.items())):
        identifier, title = _DATA_SETS.get(name, (name, name))
        yield EvalResult(
            task_type="question-answering",
            dataset_type=identifier,
            dataset_name=title,
            dataset_split="test",
            metric_type="accuracy",
            metric_value=round(score.accuracy.value, 6),
        )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=False,  # noqa: S701 - it is Markdown: `finalize` escapes every value for it, and for HTML
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": code, "literal": literal, "verbatim": Verbatim, "count": _count}
    return environment


def _origin(origin: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in origin.items())


def _count(number: float) -> Verbatim:
    return Verbatim(f"{number:,}")


def _points(estimate: Estimate | None) -> str:
    if estimate is None:
        return "not compared"
    return f"{100 * estimate.value:+.1f} ({100 * estimate.low:+.1f} to {100 * estimate.high:+.1f}) points"


def _percent(estimate: Estimate | None) -> str:
    if estimate is None or not math.isfinite(estimate.value):
        return "not compared"
    return f"{estimate.value:+.2%} ({estimate.low:+.2%} to {estimate.high:+.2%})"
