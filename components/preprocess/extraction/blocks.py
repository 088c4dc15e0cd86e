"""What stands in blocks: paragraphs, sections, lists, figures, tables, boxes, verse."""

import re
from functools import lru_cache
from itertools import groupby
from typing import TYPE_CHECKING

from lxml import etree

from components.preprocess.extraction import back_matter
from components.preprocess.extraction.safe_xml import all_text, child_named, local_name
from components.preprocess.extraction.text import tidy

if TYPE_CHECKING:
    from components.preprocess.extraction.walker import Walker

_ROMAN = ((10, "x"), (9, "ix"), (5, "v"), (4, "iv"), (1, "i"))
_SHORT_LABEL = re.compile(r"\w{1,3}")


class Lines(str):
    """A block of several lines, such as a list; within an item of another list it keeps its lines."""

    __slots__ = ()


def paragraph(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write a paragraph or a title."""
    walker.flush(out)
    walker.inline(element, out)
    walker.flush(out)


def block(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write what an element holds as blocks."""
    walker.flush(out)
    walker.walk(element)


def section(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write a section; its title goes when nothing is left under it."""
    walker.flush(out)
    title = child_named(element, "title")
    heading = "" if title is None else all_text(title)
    if back_matter.is_dropped(element, heading, walker.settings):
        back_matter.walk_wanted(walker, element)
        return
    before = len(walker.blocks)
    walker.walk(element)
    if title is None or not heading.strip() or len(walker.blocks) == before:
        return
    if len(walker.blocks) == before + 1 and tidy(walker.blocks[-1]) == walker.line(title):
        walker.blocks.pop()  # all under the heading was dropped
    else:
        walker.sections += 1


def labelled(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write a box or an appendix: ``Box 1. Title``, then what it holds."""
    walker.flush(out)
    inner = walker.apart(element)
    label = _label(element)
    title = element.find("{*}caption/{*}title")
    title = element.find("{*}title") if title is None else title
    heading = "" if title is None else walker.line(title)
    if inner and label and inner[0] == heading:
        inner[0] = f"{label}. {heading}"
    elif inner and label:
        inner.insert(0, label)
    walker.blocks += inner


def listing(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write a list, one item a line, lists within it indented."""
    walker.flush(out)
    kind = element.get("list-type") or ""
    lines: list[str] = []
    number = 0
    for child in element:
        name = local_name(child)
        if name == "list-item":
            number += 1
            lines += _item(_bullet(child, kind, number), walker.apart(child))
        elif name == "title":
            walker.add(walker.line(child))
    if lines:
        walker.blocks.append(Lines("\n".join(lines)))


def _bullet(item: etree._Element, kind: str, number: int) -> str:
    label = next((tidy(all_text(child)) for child in item.iterchildren("{*}label")), "")
    if any(map(str.isalnum, label)):
        return f"{label}." if _SHORT_LABEL.fullmatch(label) else label
    if kind in ("order", "number", "arabic"):
        return f"{number}."
    if kind.startswith("alpha-") and number <= 26:
        return f"{chr((65 if kind == 'alpha-upper' else 97) + number - 1)}."
    if kind.startswith("roman-") and number < 40:
        roman = _roman(number)
        return f"{roman.upper() if kind == 'roman-upper' else roman}."
    return "-"


def _roman(number: int) -> str:
    text = ""
    for value, digits in _ROMAN:
        text += digits * (number // value)
        number %= value
    return text


def _item(bullet: str, blocks: list[str]) -> list[str]:
    """Return the lines of a list item: its paragraphs on one line, lists within it indented below."""
    said = " ".join(block for block in blocks if not isinstance(block, Lines))
    lines = [f"{bullet} {said}"] if said else []
    lines += ["  " + line for block in blocks if isinstance(block, Lines) for line in block.split("\n")]
    return lines


def definitions(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write a list of definitions, ``term: meaning``, one a line."""
    walker.flush(out)
    lines = []
    for child in element:
        if local_name(child) == "def-item":
            parts = [walker.line(part) for part in child if local_name(part) in ("term", "def")]
            term, *rest = [part for part in parts if part] or [""]
            lines.append(": ".join([term.rstrip(":"), " ".join(rest)]) if rest else term)
        elif local_name(child) == "title":
            walker.add(walker.line(child))
        elif local_name(child) == "def-list":
            lines += ["  " + line for block in walker.apart(child) for line in block.split("\n")]
    if any(lines):
        walker.blocks.append(Lines("\n".join(filter(None, lines))))


def figure(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write `Figure 1. Title. Caption`, and a table's rows if tables are wanted."""
    walker.flush(out)
    if walker.settings.captions:
        children = [(local_name(child), child) for child in element]
        caption = _sentences([block for name, child in children if name == "caption" for block in walker.apart(child)])
        label = _label(element)
        if caption:
            walker.add(f"{label}. {caption}" if label else caption)
        for name, child in children:
            if name in ("p", "list", "def-list"):  # beside the caption, with some publishers
                walker.write(child)
    if walker.settings.tables and local_name(element).startswith("table"):
        for child in element:
            for table in [child] if local_name(child) == "table" else child.iterfind("{*}table"):
                _table(walker, table)


def figure_group(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write the captions of a group of figures and of those in it."""
    figure(walker, element, out)
    for child in element.iterchildren("{*}fig", "{*}table-wrap"):
        figure(walker, child, out)


def _table(walker: "Walker", table: etree._Element) -> None:
    rows = []
    for row in table.iter("{*}tr"):
        cells = [walker.line(cell) for cell in row]
        if any(cells):
            rows.append(" | ".join(cells))
    if rows:
        walker.blocks.append(Lines("\n".join(rows)))


def speech(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write what somebody says after his name."""
    walker.flush(out)
    speaker = next(map(walker.line, element.iterchildren("{*}speaker")), "")
    said = " ".join(map(walker.line, element.iterchildren("{*}p")))
    walker.add(f"{speaker.rstrip(':')}: {said}" if speaker else said)


def statement(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write a theorem or the like: its label is its name."""
    walker.flush(out)
    with walker.under(_label(element)):
        walker.walk(element)


def verse(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write the lines of a poem."""
    walker.flush(out)
    for is_line, children in groupby(element, lambda child: local_name(child) == "verse-line"):
        if is_line:
            lines = list(filter(None, map(walker.line, children)))
            if lines:
                walker.blocks.append(Lines("\n".join(lines)))
        else:
            for child in children:
                walker.write(child)


def preformatted(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write code and the like in its lines, with their indentation."""
    walker.flush(out)
    lines = [line.expandtabs(4).rstrip() for line in all_text(element).split("\n")]
    kept = [line[: len(line) - len(line.lstrip())] + text for line in lines if (text := tidy(line))]
    if kept:
        walker.blocks.append(Lines("\n".join(kept)))


def _label(element: etree._Element) -> str:
    """Return the label of a figure, box or theorem without the punctuation at its end."""
    label = child_named(element, "label")
    return "" if label is None else _tidy_label(all_text(label))


@lru_cache(maxsize=256)  # Figure 1, Table 2, ...
def _tidy_label(text: str) -> str:
    return tidy(text.strip()).rstrip(" .:-–—|")


def _sentences(blocks: list[str]) -> str:
    """Join blocks into one line, ending each with a full stop."""
    return " ".join(block if block.endswith((".", "!", "?", ":", ";", ".)")) else block + "." for block in blocks)
