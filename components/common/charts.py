"""The frame of every chart on a page: SVG that takes the page's colours and fonts.

matplotlib draws; what it writes is then made fit to stand in a page: without ids, style sheets, links or metadata, in
the page's CSS variables for colours (so that a chart is dark where the page is), and with text as text. The same
numbers give the same bytes. Labels may be hostile: they are neither markup nor mathematics.

A point is a line without length and with round ends (:func:`dot`): a marker would be a link to a shape.
"""

import io
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import matplotlib
from lxml import etree
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

# Drawn in colours that nobody else uses, which then become the page's.
TEXT, FAINT, LINE, BAR, LOST = "#000001", "#000002", "#000003", "#000004", "#000005"
_COLOURS = {TEXT: "--text", FAINT: "--faint", LINE: "--line", BAR: "--bar", LOST: "--lost"}
WIDTH = 480
"""In CSS pixels: as wide as a column of the page, so that text keeps its size."""
ROW = 24
"""Height of a row beside a label, in CSS pixels."""
CHARACTER = 6.9
"""Mean width of a character, in CSS pixels."""
_FONT = 12.5
_SVG = "{http://www.w3.org/2000/svg}"


@contextmanager
def drawing() -> Iterator[None]:
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


def canvas(height: float, left: float, right: float, bottom: float, top: float) -> tuple[Figure, Axes]:
    """Return a figure with one bare pair of axes, that many pixels from its edges."""
    figure = Figure(figsize=(WIDTH / 72, height / 72), dpi=72)
    size = (WIDTH - left - right) / WIDTH, (height - bottom - top) / height
    axes = figure.add_axes((left / WIDTH, bottom / height, *size))
    figure.patch.set_visible(False)
    axes.patch.set_visible(False)
    axes.spines[["left", "top", "right"]].set_visible(False)
    axes.spines["bottom"].set_color(LINE)
    axes.tick_params(length=0, pad=6)  # a mark would be a link to a shape
    return figure, axes


def dot(axes: Axes, x: float, y: float, colour: str, size: float = 8) -> Line2D:
    """Draw a round point of that many pixels."""
    return axes.plot([x, x], [y, y], color=colour, linewidth=size, solid_capstyle="round", clip_on=False)[0]


def to_svg(figure: Figure, description: str, titles: Mapping[str, str]) -> Markup:
    """Write a figure as an element for a page.

    Args:
        figure: From :func:`canvas`, drawn within :func:`drawing`.
        description: What the chart shows, for those who cannot see it.
        titles: What is shown on hovering, by the gid of what is hovered over.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    parser = etree.XMLParser(remove_comments=True, remove_pis=True, resolve_entities=False, no_network=True)
    root = etree.fromstring(buffer.getvalue(), parser)
    for element in list(root.iter(f"{_SVG}defs", f"{_SVG}metadata")):
        element.getparent().remove(element)
    for element in root.iter():
        name = str(element.attrib.pop("id", ""))
        if name in titles:
            title = etree.SubElement(element, f"{_SVG}title")
            title.text = clean(titles[name], 300)
            element.insert(0, title)
        if "style" in element.attrib:
            element.set("style", _in_the_pages_colours(element.get("style", "")))
    size = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update({"viewBox": size, "class": "plot", "role": "img", "aria-label": clean(description, 300)})
    etree.cleanup_namespaces(root)
    return Markup(etree.tostring(root, encoding="unicode"))  # noqa: S704 - lxml escapes the text


def clean(label: str, length: int) -> str:
    """Return a label as one short line without what XML cannot hold."""
    line = " ".join("".join(character if character.isprintable() else " " for character in label).split())
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


def compact(number: int) -> str:
    """Write a number in at most seven characters: 950, 123,456, 1.23M, 36.1B."""
    for size, letter in ((10**9, "B"), (10**6, "M")):
        if number >= 0.9995 * size:  # else 999,600,000 would be 1e+03M
            return f"{number / size:.3g}{letter}"
    return f"{number:,}"


def _in_the_pages_colours(style: str) -> str:
    for colour, variable in _COLOURS.items():
        style = style.replace(colour, f"var({variable})")
    return style
