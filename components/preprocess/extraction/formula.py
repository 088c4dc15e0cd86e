"""Formulas as text: MathML written on one line, TeX freed of its preamble."""

import re
from collections.abc import Callable, Iterator
from html.entities import html5

from lxml import etree

from components.preprocess.extraction.safe_xml import ByName, all_text

_DOCUMENT = re.compile(r"\\begin\{document\}(.*?)(?:\\end\{document\}|$)", re.DOTALL)
_PREAMBLE = re.compile(
    r"\\(?:documentclass|usepackage|setlength|DeclareMathSizes|newcommand|pagestyle)"
    r"(?:\[[^\[\]]{0,200}\])?(?:\{[^{}]*\})*"
)
_DELIMITERS = re.compile(r"^\s*(?:\$\$?|\\\[|\\\()|(?:\$\$?|\\\]|\\\))\s*$")
_STYLES = re.compile(
    r"\\(?:mathrm|mathbf|mathit|mathsf|mathcal|mathbb|boldsymbol|text|textrm|textit|textbf|operatorname|mbox|hbox|rm|bf|it|"
    r"left|right|big|Big|bigg|Bigg|displaystyle|textstyle|limits|nolimits|begin\{[a-z*]+\}|end\{[a-z*]+\})(?![A-Za-z])"
)
_SPACING = re.compile(r"\\[,;:! ]|\\\\|\\(?:quad|qquad|hfill|hspace\{[^{}]{0,100}\})(?![A-Za-z])|~")
_COMMAND_NAMES = re.compile(r"\\([A-Za-z]+)")
_TEX_NAMES = {
    "to": "rarr",
    "varepsilon": "epsilon",
    "cdot": "sdot",
    "infty": "infin",
    "leq": "le",
    "geq": "ge",
    "neq": "ne",
}
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_RELATIONS = frozenset("=<>≤≥≠≈≡∼~≃≅∝→←↔⇒⇔∈∉⊂⊆∪∩+±−×⋅·∗*÷∧∨|:≪≫-")
_ACCENTS = {
    "^": "\u0302", "ˆ": "\u0302", "~": "\u0303", "˜": "\u0303", "∼": "\u0303",
    "¯": "\u0304", "‾": "\u0304", "―": "\u0304", "_": "\u0304",
    "-": "\u0304", "→": "\u20d7", "⃗": "\u20d7", ".": "\u0307", "˙": "\u0307", "¨": "\u0308",
}  # fmt: skip
_PRODUCT = re.compile(r"\d[\d.]*[^\W\d_]")  # a/2b would be read as half of ab
_LONGEST = 20_000  # characters; a longer one is no formula, and a hostile one would be costly to write out
_SIGNED = re.compile(r"[-−+±] [\w.]+")
_SIMPLE = re.compile(r"-?[\w.∞′*]+")


def mathml_text(math: etree._Element) -> str:
    """Return a MathML formula as one readable line, such as ``(a + b)/2 = sqrt(x^2)``."""
    text = all_text(math)
    if len(text) > _LONGEST:
        return " ".join(text.split())
    return " ".join(_linear(math).split())


def tex_body(tex: str) -> str:
    """Return TeX without document preamble and dollar signs, on one line."""
    document = _DOCUMENT.search(tex)
    body = document[1] if document else _PREAMBLE.sub("", tex)
    for _ in range(2):  # $$ and \[ may stand inside one another
        body = _DELIMITERS.sub("", body)
    return " ".join(body.split())


def plain_tex(tex: str) -> str:
    r"""Return simple TeX as readable text: ``\mathrm{pH} \le 7`` becomes ``pH ≤ 7``; what is unknown stays TeX."""
    text = _SPACING.sub(" ", _COMMAND_NAMES.sub(_character, _STYLES.sub("", tex)))
    text = _FRACTION.sub(r"(\1)/(\2)", text)
    text = re.sub(r"\\sqrt\s*\{([^{}]*)\}", r"sqrt(\1)", text)
    text = re.sub(r"([\^_])\{([^{}]{2,})\}", r"\1(\2)", text)
    text = re.sub(r"\(([\w.]+|-\d+)\)(?=/)|(?<=[/^_])\(([\w.]+|-\d+)\)", r"\1\2", text)
    return " ".join(text.replace("{", "").replace("}", "").replace("&", " ").split())


def _character(match: re.Match[str]) -> str:
    return html5.get(_TEX_NAMES.get(match[1], match[1]) + ";", match[0])


def _linear(element: etree._Element) -> str:
    return _WRITERS[element.tag](element)


def _row(element: etree._Element) -> str:
    text = (element.text or "").strip()
    return text + "".join(map(_linear, element)) if len(element) else text


def _operator(element: etree._Element) -> str:
    text = (element.text or "").strip()
    if text in ("\u2061", "\u2062", "\u2063", "\u2064"):  # invisible application, times, separator, plus
        return " " if text == "\u2061" else ""
    if text == ",":
        return ", "
    return f" {text} " if text in _RELATIONS else text


def _words(element: etree._Element) -> str:
    text = all_text(element)
    return f" {text.strip()} " if text.strip() and (text[0].isspace() or text[-1].isspace()) else text


def _group(text: str) -> str:
    """Bracket what is more than one symbol."""
    text = " ".join(text.split())
    bracketed = text.startswith("(") and text.endswith(")") and ")" not in text[1:-1]
    return text if not text or bracketed or _SIMPLE.fullmatch(text) else f"({text})"


def _sign(text: str) -> str:
    """Write an exponent's or index's lone sign without spaces: ``-1``, not ``- 1``."""
    text = " ".join(text.split())
    return text[0].replace("−", "-") + text[2:] if _SIGNED.fullmatch(text) else text


def _parts(element: etree._Element) -> list[str]:
    return [_linear(child) for child in element if isinstance(child.tag, str)]


def _script(*marks: str) -> Callable[[etree._Element], str]:
    def write(element: etree._Element) -> str:
        parts = _parts(element)
        scripts = zip(marks, parts[1:], strict=False)
        text = "".join([*parts[:1], *(mark + _group(_sign(part)) for mark, part in scripts if part.strip())])
        return text + " " if text[:1] in "∑∏∫⋃⋂" else text

    return write


def _over(element: etree._Element) -> str:
    parts = _parts(element)
    accent = _ACCENTS.get(parts[1].strip()) if len(parts) == 2 else None
    if accent:
        base = parts[0].strip()
        return base + accent if len(base) == 1 else _group(base) + accent
    return _script("^")(element)


def _under(element: etree._Element) -> str:
    parts = _parts(element)
    return parts[0] if len(parts) == 2 and parts[1].strip() in ("¯", "_", "‾", "⏟") else _script("_")(element)


def _fraction(element: etree._Element) -> str:
    over, *under = map(_group, _parts(element)) if len(element) else [""]
    return "/".join([over, *(f"({part})" if _PRODUCT.match(part) else part for part in under)])


def _root(element: etree._Element) -> str:
    return f"sqrt({_row(element).strip()})"


def _nth_root(element: etree._Element) -> str:
    parts = _parts(element)
    return f"root({', '.join(part.strip() for part in parts)})"


def _fenced(element: etree._Element) -> str:
    separator = (element.get("separators", ",").strip() or " ")[0]
    inside = (separator + " ").join(part.strip() for part in _parts(element))
    return element.get("open", "(") + inside + element.get("close", ")")


def _table(element: etree._Element) -> str:
    rows: Iterator[list[str]] = (_parts(row) for row in element if isinstance(row.tag, str))
    return " " + "; ".join(", ".join(cell.strip() for cell in row if cell.strip()) for row in rows) + " "


def _first(element: etree._Element) -> str:
    return next(iter(_parts(element)), "")


def _nothing(_: etree._Element) -> str:
    return ""


def _space(_: etree._Element) -> str:
    return " "


_NAMES: dict[str, Callable[[etree._Element], str]] = {
    "mo": _operator,
    "mtext": _words,
    "ms": _words,
    "mspace": _space,
    "msup": _script("^"),
    "msub": _script("_"),
    "msubsup": _script("_", "^"),
    "munderover": _script("_", "^"),
    "mover": _over,
    "munder": _under,
    "mfrac": _fraction,
    "msqrt": _root,
    "mroot": _nth_root,
    "mfenced": _fenced,
    "mtable": _table,
    "semantics": _first,
    "mphantom": _nothing,
    "annotation": _nothing,
    "annotation-xml": _nothing,
    "maligngroup": _nothing,
    "malignmark": _nothing,
}
_WRITERS = ByName(_NAMES, default=_row, otherwise=_nothing)
