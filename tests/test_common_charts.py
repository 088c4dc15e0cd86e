"""The frame of charts: what matplotlib draws becomes harmless and takes the page's colours."""

import re

import pytest
from lxml import etree
from markupsafe import Markup

from components.common.charts import BAR, TEXT, canvas, clean, compact, dot, drawing, to_svg

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "<script>alert(1)</script>",
    '" onload="alert(1)',
    "]]> --> <!-- &lt;b&gt;",
    "nul\x00 \u202e\ud800",
    "$\\frac{$",
]


def drawn(text: str, description: str = "one point", title: str = "a title") -> Markup:
    with drawing():
        figure, axes = canvas(120, left=20, right=20, bottom=20, top=20)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        dot(axes, 0.5, 0.25, BAR).set_gid("a point")
        axes.text(0.5, 0.5, clean(text, 40), color=TEXT)
        return to_svg(figure, description, {"a point": title})


def test_a_point_is_a_round_end_where_it_belongs_with_its_title() -> None:
    root = etree.fromstring(drawn("x"))
    (title,) = root.iter(f"{SVG}title")
    path = title.getnext()
    x, y = map(float, re.findall(r"M ([\d.]+) ([\d.]+)", path.get("d"))[0])
    assert (x, y) == (pytest.approx(20 + 0.5 * 440), pytest.approx(120 - (20 + 0.25 * 80)))
    assert "stroke-linecap: round" in path.get("style")
    assert title.text == "a title"


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_in_a_text_becomes_markup(text: str) -> None:
    svg = drawn(text, description=text, title=text)
    elements = [*etree.fromstring(svg).iter()]
    assert {element.tag.removeprefix(SVG) for element in elements} <= {"svg", "g", "path", "text", "title"}
    attributes = {name for element in elements for name in element.attrib}
    assert attributes <= {"viewBox", "class", "role", "aria-label", "style", "d", "x", "y", "transform"}


def test_colours_are_the_pages_and_the_bytes_are_the_same_each_time() -> None:
    svg = drawn("x")
    assert svg == drawn("x")
    assert {"--bar", "--text"} <= set(re.findall(r"var\((--\w+)\)", svg))
    assert not re.search(r"#[0-9a-f]{6}|url\(|href", svg)


def test_a_long_label_is_cut_to_one_line() -> None:
    assert clean("two\nlines", 20) == "two lines"
    assert clean("x" * 30, 10) == "x" * 9 + "…"


@pytest.mark.parametrize(("number", "written"), [(950, "950"), (123_456, "123,456"), (999_600_000, "1B")])
def test_large_numbers_are_written_short(number: int, written: str) -> None:
    assert compact(number) == written
