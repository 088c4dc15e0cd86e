"""The model card of a model that follows instructions: that of every model, with what is different about it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from components.common.instructions import DOCTOR, Instruction
from components.common.manifest import Manifest
from components.register.card.card import data_set_title, number_text, render_card, render_description, share_text
from components.register.card.card_settings import CardSettings
from components.register.card.markdown import Verbatim
from components.register.comparison.comparison import Comparison, ModelResults

EXAMPLE = Instruction(DOCTOR, "Which vitamin deficiency causes scurvy?").prompt
"""A request in the words that such a model has learned."""


@dataclass(frozen=True)
class Instructions:
    """What a model learned to answer from.

    Attributes:
        place: Where the set came from, as the recipe names it.
        fingerprint: SHA-256 of the set.
        lines: Instructions in it.
        learned: Those that the model learned from: the rest holds test questions, is too long or was left out.
        tasks: Benchmarks whose training questions were among the examples.
    """

    place: str
    fingerprint: str
    lines: int
    learned: int
    tasks: tuple[str, ...]


def answering_card(
    name: str,
    model: Manifest,
    corpus: Manifest,
    comparison: Comparison,
    settings: CardSettings,
    facts: Mapping[str, str],
    taught: Instructions,
) -> str:
    """Return the card: YAML front matter, then Markdown. All that comes from outside is escaped.

    Args:
        name: Of the registered model.
        model: What was taught to answer.
        corpus: What the model that it was taught from was trained on.
        comparison: What was measured, and the verdict.
        settings: What people say about the model.
        facts: The version's tags, such as ``taught_from``.
        taught: What it learned to answer from.
    """
    before, after = (_as_is(comparison, role).perplexity for role in ("base", "candidate"))
    return render_card(
        "answering_card.md.j2",
        name,
        model,
        corpus,
        comparison,
        settings,
        facts,
        training_type="fine-tuning",
        rows=[*_rows(comparison)],
        perplexity=after and number_text(after),
        perplexity_before=number_text(before),
        taught=taught,
        example=Verbatim(repr(EXAMPLE)),
    )


def answering_description(comparison: Comparison, taught_from: str, card_uri: str) -> str:
    """Return what the registry's page shows of a version: the verdict, the results, and where the card is."""
    rows = [*_rows(comparison)]
    return render_description("answering_description.md.j2", comparison, card_uri, rows=rows, taught_from=taught_from)


@dataclass(frozen=True)
class _Row:
    """A line of the table of results, ready to show."""

    measure: str
    right: str
    unreadable: str
    majority: str


def _rows(comparison: Comparison) -> Iterator[_Row]:
    for name, score in sorted(_as_is(comparison, "candidate").benchmarks.items()):
        yield _Row(
            data_set_title(name),
            share_text(score.accuracy),
            f"{score.unparsable:,} of {score.questions:,}",
            "unknown" if score.majority is None else f"{score.majority:.1%}",
        )


def _as_is(comparison: Comparison, role: str) -> ModelResults:
    return next(each for each in comparison.models if each.role == role and each.fine_tuning is None)
