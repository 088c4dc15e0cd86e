"""Charts for a page, as SVG that takes the page's colours and fonts.

matplotlib draws them; what it writes is then made fit to stand in a page: without ids, style sheets, links or metadata,
in the page's CSS variables for colours (so that a chart is dark where the page is), and with text as text. The same
numbers give the same bytes. Labels may be hostile: they are neither markup nor mathematics.
"""

import io
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import matplotlib
from lxml import etree
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator

Counts = Sequence[tuple[str, int]]

# Drawn in colours that nobody else uses, which then become the page's.
_TEXT, _FAINT, _LINE, _BAR, _LOST = "#000001", "#000002", "#000003", "#000004", "#000005"
_COLOURS = {_TEXT: "--text", _FAINT: "--faint", _LINE: "--line", _BAR: "--bar", _LOST: "--lost"}
_WIDTH = 480  # in CSS pixels, as wide as a column of the page, so that text keeps its size
_ROW = 24
_FONT = 12.5
_CHARACTER = 6.9  # mean width of a character of that size
_LABEL = 30  # characters of a label beside a bar; the whole label is shown on hovering
_NUMBER = 88  # pixels to the right of a bar, for its number
_SVG = "{http://www.w3.org/2000/svg}"


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
    rows = [(label, 0, count, f"{compact(count)} · {_share(count, whole)}", _BAR) for label, count in counts]
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
    rows = [(first[0], 0, whole, compact(whole), _BAR)]
    for label, count in losses:
        left -= count
        rows.append((label, left, count, f"−{compact(count)} · {_share(count, whole)}", _LOST))
    rows.append((last[0], 0, last[1], f"{compact(last[1])} · {_share(last[1], whole)}", _BAR))
    return _rows(rows, description)


def histogram(counts: Counts, description: str, height: int = 220) -> Markup:
    """Draw an upright bar for each label, side by side; as many labels are written as there is room for."""
    if not counts:
        return Markup("")
    with _drawing():
        figure, axes = _canvas(height, left=52, right=10, bottom=26, top=10)
        drawn = axes.bar(range(len(counts)), [count for _, count in counts], width=0.86, color=_BAR, clip_on=False)
        titles = {}
        for place, (bar, (label, count)) in enumerate(zip(drawn, counts, strict=True)):
            bar.set_gid(f"bar-{place}")
            titles[f"bar-{place}"] = f"{label}: {count:,}"
        axes.set_xlim(-0.6, len(counts) - 0.4)
        step = -(-len(counts) // 7)
        places = range(0, len(counts), step)
        axes.set_xticks(list(places), [_clean(counts[place][0], 14) for place in places], color=_FAINT)
        axes.yaxis.set_major_locator(MaxNLocator(4, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: compact(int(value))))
        axes.tick_params(axis="y", labelcolor=_FAINT)
        axes.grid(axis="y", color=_LINE, linewidth=0.7, clip_on=False)
        axes.set_axisbelow(True)
        return _svg(figure, description, titles)


def compact(number: int) -> str:
    """Write a number in at most seven characters: 950, 123,456, 1.23M, 36.1B."""
    for size, letter in ((10**9, "B"), (10**6, "M")):
        if number >= 0.9995 * size:  # else 999,600,000 would be 1e+03M
            return f"{number / size:.3g}{letter}"
    return f"{number:,}"


def _rows(rows: Sequence[tuple[str, int, int, str, str]], description: str) -> Markup:
    """Draw rows of label, start, length, number and colour."""
    if not rows:
        return Markup("")
    labels = [_clean(label, _LABEL) for label, *_ in rows]
    with _drawing():
        left = 10 + _CHARACTER * max(map(len, labels))
        figure, axes = _canvas(_ROW * len(rows) + 8, left=left, right=_NUMBER, bottom=4, top=4)
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
                color=_FAINT,
            )
        axes.set_xlim(0, end)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xticks([])
        axes.set_yticks(range(len(rows)), labels, color=_TEXT)
        axes.spines["bottom"].set_visible(False)
        return _svg(figure, description, titles)


def _canvas(height: int, left: float, right: float, bottom: float, top: float) -> tuple[Figure, Axes]:
    """Return a figure with one bare pair of axes, that many pixels from its edges."""
    figure = Figure(figsize=(_WIDTH / 72, height / 72), dpi=72)
    size = (_WIDTH - left - right) / _WIDTH, (height - bottom - top) / height
    axes = figure.add_axes((left / _WIDTH, bottom / height, *size))
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(_LINE)
    axes.tick_params(length=0, pad=6)  # a mark would be a link to a shape
    return figure, axes


@contextmanager
def _drawing() -> Iterator[None]:
    """Set matplotlib's settings for the time of a drawing."""
    with (
        warnings.catch_warnings(),
        matplotlib.rc_context(
            {
                "svg.fonttype": "none",
                "svg.hashsalt": "plots",
                "text.parse_math": False,
                "text.usetex": False,
                "font.family": ["DejaVu Sans"],
                "font.size": _FONT,
            }
        ),
    ):
        warnings.filterwarnings("ignore", message="Glyph")  # the browser's fonts have them
        yield


def _svg(figure: Figure, description: str, titles: dict[str, str]) -> Markup:
    """Write a figure as an element for a page."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    parser = etree.XMLParser(remove_comments=True, remove_pis=True, resolve_entities=False, no_network=True)
    root = etree.fromstring(buffer.getvalue(), parser)
    for element in list(root.iter(f"{_SVG}defs", f"{_SVG}metadata")):
        element.getparent().remove(element)
    for element in root.iter():
        name = element.attrib.pop("id", "")
        if name in titles:
            title = etree.SubElement(element, f"{_SVG}title")
            title.text = _clean(titles[name], 300)
            element.insert(0, title)
        if "style" in element.attrib:
            element.set("style", _in_the_pages_colours(element.get("style", "")))
    size = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update({"viewBox": size, "class": "plot", "role": "img", "aria-label": description})
    etree.cleanup_namespaces(root)
    return Markup(etree.tostring(root, encoding="unicode"))  # noqa: S704 - lxml escapes the text


def _in_the_pages_colours(style: str) -> str:
    for colour, variable in _COLOURS.items():
        style = style.replace(colour, f"var({variable})")
    return style


def _clean(label: str, length: int) -> str:
    """Return a label as one short line without what XML cannot hold."""
    line = " ".join("".join(character if character.isprintable() else " " for character in label).split())
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


def _share(part: int, whole: int) -> str:
    share = 100 * part / max(whole, 1)
    return f"{share:.0f}%" if share >= 10 else f"{share:.1f}%" if share >= 0.1 or not part else "<0.1%"
