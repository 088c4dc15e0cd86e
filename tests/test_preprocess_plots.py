"""Charts are harmless, take the page's colours, and say what they were given."""

import re

import pytest
from lxml import etree

from components.preprocess import plots

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = [
    "<script>alert('x')</script>",
    "$\\frac{1}{2}$ & $\\undefined{",
    '" onload="alert(1)',
    "]]> --> <!-- &lt;b&gt;",
    "nul\x00 bell\x07 line\nbreak \u202e\ud800",
    "中文杂志 مجلة 🧬",
    "",
    "x" * 500,
]


def texts(svg: str) -> list[str]:
    return ["".join(one.itertext()) for one in etree.fromstring(svg).iter(f"{SVG}text")]


def lengths(svg: str) -> dict[str, float]:
    """The width of each bar that has a title, in the chart's own pixels."""
    found = {}
    for title in etree.fromstring(svg).iter(f"{SVG}title"):
        corners = [float(x) for x in re.findall(r"[ML] ([\d.]+) ", title.getnext().get("d"))]
        found[title.text] = max(corners) - min(corners)
    return found


def test_a_bar_is_as_long_as_its_count_and_shows_it_with_its_share() -> None:
    svg = plots.bars([("PLoS ONE", 300), ("eLife", 100), ("None", 0)], "Articles by journal")
    assert texts(svg) == ["PLoS ONE", "eLife", "None", "300 · 75%", "100 · 25%", "0 · 0.0%"]
    bars = lengths(svg)
    assert bars["PLoS ONE: 300"] == pytest.approx(3 * bars["eLife: 100"], rel=0.01)
    assert bars["None: 0"] == 0
    assert 'aria-label="Articles by journal"' in svg
    assert "300 · 30%" in texts(plots.bars([("PLoS ONE", 300)], "of more", whole=1000))


def test_losses_hang_where_those_before_left_off() -> None:
    svg = plots.waterfall(("listed", 100), [("language", 20), ("too-short", 30)], ("kept", 50), "From listed to kept")
    assert "−20 · 20%" in texts(svg)
    bars = lengths(svg)
    assert bars["language: 20"] + bars["too-short: 30"] + bars["kept: 50"] == pytest.approx(
        bars["listed: 100"], rel=0.01
    )


def test_a_histogram_has_a_bar_for_every_count_and_few_labels() -> None:
    years = [(str(year), year - 1959) for year in range(1960, 2026)]
    svg = plots.histogram(years, "Articles by year")
    assert len(lengths(svg)) == 66
    assert len([text for text in texts(svg) if text.startswith(("19", "20")) and len(text) == 4]) <= 8
    assert plots.histogram([("512", 1)], "one bar")


@pytest.mark.parametrize("label", HOSTILE)
def test_labels_are_neither_markup_nor_mathematics(label: str) -> None:
    for svg in (
        plots.bars([(label, 3), ("other", 1)], "hostile"),
        plots.histogram([(label, 3), ("other", 1)], "hostile"),
        plots.waterfall((label, 3), [(label, 1)], (label, 2), "hostile"),
    ):
        names = {element.tag.removeprefix(SVG) for element in etree.fromstring(svg).iter()}
        assert names <= {"svg", "g", "path", "text", "title"}
        attributes = {name for element in etree.fromstring(svg).iter() for name in element.attrib}
        assert attributes <= {"viewBox", "class", "role", "aria-label", "style", "d", "x", "y", "transform"}


def test_the_same_numbers_give_the_same_bytes_in_the_pages_colours() -> None:
    counts = [("a", 3), ("b", 2)]
    assert plots.bars(counts, "same") == plots.bars(counts, "same")
    assert plots.histogram(counts, "same") == plots.histogram(counts, "same")
    svg = plots.waterfall(("a", 3), [("b", 1)], ("c", 2), "same")
    assert set(re.findall(r"var\((--\w+)\)", svg)) == {"--bar", "--lost", "--text", "--faint"}
    assert not re.search(r"#[0-9a-f]{6}|url\(|href", svg)


def test_nothing_is_drawn_of_nothing() -> None:
    assert plots.bars([], "none") == ""
    assert plots.histogram([], "none") == ""
    assert lengths(plots.waterfall(("listed", 0), [], ("kept", 0), "none")) == {"listed: 0": 0, "kept: 0": 0}


@pytest.mark.parametrize(
    ("number", "written"),
    [
        (0, "0"), (999, "999"), (123_456, "123,456"), (999_400, "999,400"), (999_999, "1M"), (1_234_567, "1.23M"),
        (999_600_000, "1B"), (36_100_000_000, "36.1B"),
    ],
)  # fmt: skip
def test_numbers_are_written_short(number: int, written: str) -> None:
    assert plots.compact(number) == written
