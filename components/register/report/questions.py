"""The questions that the candidate won and lost, as many as a page can carry."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from components.register.comparison.comparison import QuestionChange
from components.register.report.words import title

_LONGEST_TEXT = 1500
_LONGEST_OPTION = 240
_MOST_OPTIONS = 12


@dataclass(frozen=True)
class Shown:
    """A question as the page shows it.

    Attributes:
        marks: CSS classes: ``won-base``, ``lost-champion``, ``held``.
        options: Key, text, whether it is the right one, and who chose it.
    """

    id: str
    marks: str
    text: str
    options: Sequence[tuple[str, str, bool, Sequence[str]]]
    outcome: Mapping[str, str]
    coverage: float | None
    flagged: bool
    unread: Sequence[str]


@dataclass(frozen=True)
class Group:
    """The questions of a benchmark.

    Attributes:
        counts: Won and lost against each reference, such as ``{"base": (12, 7)}``; also those that are not shown.
        changed: Questions that changed sides.
        shown: Those that the page carries, as HTML.
    """

    title: str
    counts: Mapping[str, tuple[int, int]]
    changed: int
    shown: Sequence[Markup]


def question_groups(
    questions: Sequence[QuestionChange], most_bytes: int, to_html: Callable[[Shown], Markup]
) -> list[Group]:
    """Return the questions by benchmark, as many as fit.

    When there are too many, each benchmark's and each outcome's are cut alike: the first of each are kept, in their
    order.

    Args:
        questions: Those that changed sides.
        most_bytes: Of HTML in all.
        to_html: Renders one.
    """
    rendered = [(question, to_html(_shown(question))) for question in questions]
    sizes = [len(html.encode("utf-8", "replace")) for _, html in rendered]
    part = min(1.0, most_bytes / max(sum(sizes), 1))
    kept = _kept([_kind(question) for question, _ in rendered], sizes, part)
    groups: dict[str, list[tuple[QuestionChange, Markup | None]]] = {}
    for place, (question, html) in enumerate(rendered):
        groups.setdefault(question.benchmark, []).append((question, html if place in kept else None))
    return [_group(name, members) for name, members in groups.items()]


def references(questions: Sequence[QuestionChange]) -> list[str]:
    """Return the models that questions were won from or lost to: the base, the champion."""
    return sorted({role for question in questions for role in question.outcome})


def _kind(question: QuestionChange) -> tuple[str, ...]:
    return question.benchmark, *(f"{role} {outcome}" for role, outcome in sorted(question.outcome.items()))


def _kept(kinds: Sequence[tuple[str, ...]], sizes: Sequence[int], part: float) -> set[int]:
    """Return the places of the questions to keep: of each kind the first ones, up to that part of its bytes."""
    whole: dict[tuple[str, ...], int] = {}
    for kind, size in zip(kinds, sizes, strict=True):
        whole[kind] = whole.get(kind, 0) + size
    used, full, kept = dict.fromkeys(whole, 0), set(), set()
    for place, (kind, size) in enumerate(zip(kinds, sizes, strict=True)):
        if kind in full or used[kind] + size > part * whole[kind]:
            full.add(kind)
            continue
        used[kind] += size
        kept.add(place)
    return kept


def _group(name: str, members: Sequence[tuple[QuestionChange, Markup | None]]) -> Group:
    questions = [question for question, _ in members]
    counts = {
        role: tuple(sum(question.outcome.get(role) == word for question in questions) for word in ("won", "lost"))
        for role in references(questions)
    }
    return Group(
        title=title(name),
        counts={role: (won, lost) for role, (won, lost) in counts.items()},
        changed=len(members),
        shown=[html for _, html in members if html is not None],
    )


def _shown(question: QuestionChange) -> Shown:
    held = question.flagged or question.overlaps
    marks = [f"{outcome}-{role}" for role, outcome in question.outcome.items()]
    return Shown(
        id=question.id[:80],
        marks=" ".join([*marks, "held"] if held else marks),
        text=_short(question.text, _LONGEST_TEXT),
        options=[*_options(question)],
        outcome=question.outcome,
        coverage=question.coverage if held else None,
        flagged=question.flagged,
        unread=[role for role, prediction in question.predictions.items() if not prediction],
    )


def _options(question: QuestionChange) -> Iterator[tuple[str, str, bool, Sequence[str]]]:
    """Yield the options; where their texts are not at hand, those that somebody gave."""
    given = dict.fromkeys([question.answer, *question.predictions.values()])
    options = question.options or {key: "" for key in given if key}
    for key, text in [*options.items()][:_MOST_OPTIONS]:
        chosen_by = [role for role, prediction in question.predictions.items() if prediction == key]
        yield key, _short("" if text == key else text, _LONGEST_OPTION), key == question.answer, chosen_by


def _short(text: str, length: int) -> str:
    text = " ".join(text.split())
    return text if len(text) <= length else f"{text[: length - 1].rstrip()}…"
