"""Charts of a corpus for its data card."""

from collections.abc import Sequence

from markupsafe import Markup
from matplotlib.ticker import FuncFormatter, MaxNLocator

from components.common.charts import BAR, CHARACTER, FAINT, LINE, LOST, ROW, TEXT, canvas, clean, drawing, to_svg
from components.common.charts import compact as compact

Counts = Sequence[tuple[str, int]]

_LABEL = 30  # characters of a label beside a bar; the whole label is shown on hovering
_NUMBER = 88  # pixels to the right of a bar, for its number


def bars(counts: Counts, description: str, whole: int = 0) -> Markup:
    """Draw a horizontal bar for each label, the first on top, with its count and its share of all.

    Args:
        counts: Labels and counts.
        description: What the chart shows, for those who cannot see it.
        whole: What the shares are of, when the counts shown are not all.

    Returns:
        An `svg` element; nothing when there is nothing to show.
    """
    whole = max(whole, sum(count for _, count in counts))
    rows = [(label, 0, count, f"{compact(count)} · {_share(count, whole)}", BAR) for label, count in counts]
    return _rows(rows, description)


def waterfall(first: tuple[str, int], losses: Counts, last: tuple[str, int], description: str) -> Markup:
    """Draw how a first count becomes a last one: each loss hangs where the bars above left off.

    Args:
        first: Label and count at the start.
        losses: Labels and counts of what is taken away, in their order.
        last: Label and count of what is left.
        description: What the chart shows, for those who cannot see it.
    """
    left, whole = first[1], first[1]
    rows = [(first[0], 0, whole, compact(whole), BAR)]
    for label, count in losses:
        left -= count
        rows.append((label, left, count, f"−{compact(count)} · {_share(count, whole)}", LOST))
    rows.append((last[0], 0, last[1], f"{compact(last[1])} · {_share(last[1], whole)}", BAR))
    return _rows(rows, description)


def histogram(counts: Counts, description: str, height: int = 220) -> Markup:
    """Draw an upright bar for each label, side by side; as many labels are written as there is room for."""
    if not counts:
        return Markup("")
    with drawing():
        figure, axes = canvas(height, left=52, right=10, bottom=26, top=10)
        drawn = axes.bar(range(len(counts)), [count for _, count in counts], width=0.86, color=BAR, clip_on=False)
        titles = {}
        for place, (bar, (label, count)) in enumerate(zip(drawn, counts, strict=True)):
            bar.set_gid(f"bar-{place}")
            titles[f"bar-{place}"] = f"{label}: {count:,}"
        axes.set_xlim(-0.6, len(counts) - 0.4)
        step = -(-len(counts) // 7)
        places = range(0, len(counts), step)
        axes.set_xticks(list(places), [clean(counts[place][0], 14) for place in places], color=FAINT)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(int(value))))
        axes.tick_params(axis="y", labelcolor=FAINT)
        axes.grid(axis="y", color=LINE, linewidth=0.7, clip_on=False)
        axes.set_axisbelow(True)
        return to_svg(figure, description, titles)


def _rows(rows: Sequence[tuple[str, int, int, str, str]], description: str) -> Markup:
    """Draw rows of label, start, length, number and colour."""
    if not rows:
        return Markup("")
    labels = [clean(label, _LABEL) for label, *_ in rows]
    with drawing():
        left = 10 + CHARACTER * max(map(len, labels))
        figure, axes = canvas(ROW * len(rows) + 8, left=left, right=_NUMBER, bottom=4, top=4)
        end = max(start + length for _, start, length, *_ in rows) or 1
        titles = {}
        for place, (label, start, length, number, colour) in enumerate(rows):
            bar = axes.barh(place, length, left=start, height=0.66, color=colour, clip_on=False)[0]
            bar.set_gid(f"bar-{place}")
            titles[f"bar-{place}"] = f"{label}: {length:,}"
            axes.annotate(
                number,
                ((start + length) / end, place),
                xycoords=("axes fraction", "data"),
                xytext=(6, 0),
                textcoords="offset points",
                va="center_baseline",
                color=FAINT,
            )
        axes.set_xlim(0, end)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks([])
        axes.set_yticks(range(len(rows)), labels, color=TEXT)
        axes.spines["bottom"].set_visible(False)
        return to_svg(figure, description, titles)


def _share(part: int, whole: int) -> str:
    share = 100 * part / max(whole, 1)
    return f"{share:.0f}%" if share >= 10 else f"{share:.1f}%" if share >= 0.1 or not part else "<0.1%"
