"""Charts of a comparison for its report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

from components.common.charts import (
    BAR,
    CHARACTER,
    FAINT,
    LINE,
    LOST,
    ROW,
    TEXT,
    WIDTH,
    canvas,
    clean,
    compact,
    dot,
    drawing,
    to_svg,
)
from components.register.comparison.comparison import Estimate, ReliabilityBin

Points = Sequence[tuple[float, float]]

_LABEL = 22  # characters of a benchmark's name beside its interval
_NUMBERS = 138  # pixels to the right of an interval, for its numbers
_BOTTOM = 28
_FEW = 60  # points that are shown one by one
_ASIDE = 0.012  # of the width, between models in one bin


@dataclass(frozen=True)
class ForestRow:
    """A difference with its interval.

    Attributes:
        label: What it is of.
        change: In the unit that is shown.
        numbers: The same as a reader sees it.
        margin: How much may be lost, in the same unit; None where nothing is decided by it.
        bad: Whether it is worse than allowed.
    """

    label: str
    change: Estimate
    numbers: str
    margin: float | None = None
    bad: bool = False


def forest(groups: Sequence[tuple[str, Sequence[ForestRow]]], description: str, unit: str) -> Markup:
    """Draw each difference as a point with its interval, against a line at none and the margin that may be lost.

    Args:
        groups: A heading and its rows; the headings of single groups are left out.
        description: What the chart shows, for those who cannot see it.
        unit: Of the axis, such as ``points``.

    Returns:
        An ``svg`` element; nothing when there is nothing to show.
    """
    rows = [row for _, members in groups for row in members]
    if not rows:
        return Markup("")
    lines: list[str | ForestRow] = []
    for heading, members in groups:
        lines += [heading, *members] if members else []
    longest = max(len(clean(row.label, _LABEL)) for row in rows)
    with drawing():
        figure, axes = canvas(
            ROW * len(lines) + _BOTTOM + 8, left=12 + CHARACTER * longest, right=_NUMBERS, bottom=_BOTTOM, top=8
        )
        axes.set_xlim(*_limits(rows))
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_yticks([])
        titles: dict[str, str] = {}
        for place, line in enumerate(lines):
            if isinstance(line, str):
                _beside(axes, place, line, TEXT, weight="bold")
            else:
                titles |= _interval(axes, place, line)
        axes.xaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:+g}" if value else f"0 {unit}"))
        axes.tick_params(axis="x", labelcolor=FAINT)
        return to_svg(figure, description, titles)


def curve(points: Points, description: str, logarithmic: bool = False) -> Markup:
    """Draw a quantity over the tokens that were learned from.

    Args:
        points: Tokens and the quantity, in their order.
        description: What the chart shows, for those who cannot see it.
        logarithmic: Whether equal factors are equal heights; only of positive numbers.
    """
    known = [(x, y) for x, y in points if math.isfinite(y) and (y > 0 or not logarithmic)]
    if not known:
        return Markup("")
    with drawing():
        figure, axes = canvas(200, left=58, right=14, bottom=_BOTTOM, top=12)
        xs, ys = zip(*known, strict=True)
        if logarithmic:
            axes.set_yscale("log")
        axes.plot(xs, ys, color=BAR, linewidth=1.8, solid_joinstyle="round", clip_on=False)
        titles = {}
        for place, (x, y) in enumerate(known if len(known) <= _FEW else known[-1:]):
            dot(axes, x, y, BAR, 6).set_gid(f"point-{place}")
            titles[f"point-{place}"] = f"{y:.4g} after {x:,.0f} tokens"
        axes.set_xlim(min(0, *xs), max(xs) or 1)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(round(value))))
        _upright(axes, logarithmic, min(ys), max(ys))
        return to_svg(figure, description, titles)


def reliability(series: Sequence[tuple[str, str, Sequence[ReliabilityBin]]], description: str) -> Markup:
    """Draw how often answers are right against how sure the models were of them; on the diagonal both agree.

    Args:
        series: For each model its name, its colour and its bins.
        description: What the chart shows, for those who cannot see it.
    """
    if not any(bins for _, _, bins in series):
        return Markup("")
    with drawing():
        figure, axes = canvas(300, left=52, right=14, bottom=_BOTTOM, top=12)
        axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1, linestyle=(0, (4, 4)), clip_on=False)
        titles = {}
        for number, (name, colour, bins) in enumerate(series):
            for place, one in enumerate(bins):
                # Side by side, or the intervals of models that are as sure as each other would hide each other.
                x, y = one.confidence + _ASIDE * (number - (len(series) - 1) / 2), one.accuracy
                axes.plot([x, x], [y.low, y.high], color=colour, linewidth=1.4, clip_on=False)
                gid = f"bin-{number}-{place}"
                dot(axes, x, y.value, colour, 8).set_gid(gid)
                titles[gid] = f"{name}: {y.value:.1%} of {one.questions:,} right where it was {one.confidence:.1%} sure"
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(FixedLocator([0, 0.25, 0.5, 0.75, 1]))
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        axes.tick_params(labelcolor=FAINT)
        axes.grid(axis="y", color=LINE, linewidth=0.7, clip_on=False)
        axes.set_axisbelow(True)
        return to_svg(figure, description, titles)


def _limits(rows: Sequence[ForestRow]) -> tuple[float, float]:
    ends = [end for row in rows for end in (row.change.low, row.change.high, -(row.margin or 0.0))]
    low, high = min(0.0, *ends), max(0.0, *ends)
    room = 0.04 * (high - low) or 1.0
    return low - room, high + room


def _interval(axes: Axes, place: int, row: ForestRow) -> dict[str, str]:
    """Draw one row; returns its title by its gid."""
    colour = LOST if row.bad else BAR if row.margin is not None else FAINT
    axes.plot([0, 0], [place - 0.5, place + 0.5], color=FAINT, linewidth=1, clip_on=False)
    if row.margin is not None:
        margin = [-row.margin, -row.margin], [place - 0.5, place + 0.5]
        axes.plot(*margin, color=LOST, linewidth=1.2, linestyle=(0, (3, 3)), clip_on=False)
    axes.plot([row.change.low, row.change.high], [place, place], color=colour, linewidth=2, clip_on=False)
    dot(axes, row.change.value, place, colour, 9).set_gid(f"row-{place}")
    _beside(axes, place, clean(row.label, _LABEL), TEXT)
    axes.annotate(
        row.numbers,
        (1, place),
        xycoords=("axes fraction", "data"),
        xytext=(12, 0),
        textcoords="offset points",
        va="center_baseline",
        color=FAINT,
    )
    return {f"row-{place}": f"{row.label}: {row.numbers}"}


def _beside(axes: Axes, place: int, text: str, colour: str, weight: str = "normal") -> None:
    """Write at the left edge of a row."""
    axes.annotate(
        clean(text, round(WIDTH / CHARACTER)),
        (0, place),
        xycoords=("figure fraction", "data"),
        va="center_baseline",
        color=colour,
        fontweight=weight,
        annotation_clip=False,
    )


def _upright(axes: Axes, logarithmic: bool, low: float, high: float) -> None:
    """Set the marks of the upright axis: few, and at least two of them."""
    if not logarithmic or high / low < 2:
        axes.yaxis.set_major_locator(MaxNLocator(4, min_n_ticks=2))
    else:
        narrow = high / low < 100
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if narrow else (1,), numticks=6))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))
    axes.tick_params(labelcolor=FAINT)
    axes.grid(axis="y", color=LINE, linewidth=0.7, clip_on=False)
    axes.set_axisbelow(True)
