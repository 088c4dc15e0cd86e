"""What stands within a line: links, citations, superscripts, formulas."""

import re
from typing import TYPE_CHECKING

from lxml import etree

from components.preprocess.extraction import formula as formulas
from components.preprocess.extraction.citations import NUMBER, cite, has_citation
from components.preprocess.extraction.safe_xml import all_text, local_name

if TYPE_CHECKING:
    from components.preprocess.extraction.walker import Walker

_CITATIONS = {"bibr", "ref", "bib", "bibref", "citation"}
_NOTE_LINKS = {"fn", "table-fn", "author-notes", "aff", "corresp", "contrib"}
_NUMBERS = re.compile(r"\s*\[?\(?[1-9]\d{0,2}(?:\s*[,;–—−‐-]\s*[1-9]\d{0,2})*\)?\]?\s*")
_CITABLE = re.compile(r"(?:[a-z]{5,}|[.,;])$")
_EXPONENT = re.compile(r"[-−–+]?\d*(?:\.\d+)?[+−-]?")
# The mass number of an isotope stands before its symbol; `In`, `As`, `He` and the like are words more often.
_ISOTOPE = re.compile(
    r"-?(?:[HDTCNOFPSKIUYVWB]|A[cglmru]|B[air]|C[adlorsu]|Cm|F[er]|G[ade]|H[fgo]|I[r]|Kr|L[aiu]|M[gno]|N[abdeip]|"
    r"P[abdortu]|R[abehnu]|S[bceimnr]|T[abcehlm]|Xe|Yb|Z[nr])(?![a-z])"
)
_LONE_LETTER = re.compile(r"(?:^|[\s(=,;×·/])(?![aAI])[^\W\d_]$")
_SYMBOL = re.compile(r"[)\]]$|(?<!\w)(?:\w{1,3}|[^\W\d_a-z]\w{0,5})$")
_LONGEST = 2000
_ENDS_IN_WORD = re.compile(r"(?<!\d)[a-z]$")


def line_break(_walker: "Walker", _element: etree._Element, out: list[str]) -> None:
    """Write a space for a break."""
    out.append(" ")


def link(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write the text of a link to a figure or the like, the mark of a citation, nothing for a note."""
    kind = element.get("ref-type") or "other"
    if kind == "other" and (element.get("rid") or "").partition(" ")[0] in walker.reference_ids:
        kind = "bibr"
    if kind in _NOTE_LINKS:
        return
    text = _text(walker, element)
    if kind in _CITATIONS and len(text) <= _LONGEST:  # else it is not what it says it is
        walker.linked_citations = True
        out.append(cite(text))
        return
    if out and text[:1].isalnum() and not text[:1].islower() and _ENDS_IN_WORD.search(out[-1][-2:]):
        out.append(" ")  # "and<xref>Fig. 3</xref>"
    out.append(text)


def _text(walker: "Walker", element: etree._Element) -> str:
    if not len(element):
        return element.text or ""
    inner: list[str] = []
    walker.inline(element, inner)
    return "".join(inner)


def subscript(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write a subscript: it belongs to what stands before it, even where an editor put a space between."""
    _join_to_base(out, _SYMBOL)
    walker.inline(element, out)


def named_part(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write a named piece of text; some publishers put genus and species side by side without a space."""
    walker.inline(element, out)
    following = element.getnext() if not element.tail else None
    if following is not None and following.tag == element.tag and _part(following) != _part(element):
        out.append(" ")


def _part(element: etree._Element) -> str:
    return element.get("content-type") or element.get("taxon-name-part-type") or ""


def publication_id(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write the identifier of a work named in the text, apart from the word before it."""
    if out and out[-1][-1:].isalnum():
        out.append(" ")
    walker.inline(element, out)


def superscript(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write a superscript: a citation, an exponent, or just what it says."""
    text = _text(walker, element)
    if len(text) > _LONGEST:  # it is not what it says it is
        out.append(text)
        return
    if text[:1].isalnum() and not _ISOTOPE.match(element.tail or ""):
        _join_to_base(out, _LONE_LETTER)
    before = out[-1][-8:] if out else ""
    if text == NUMBER:
        out.append(NUMBER)
    elif has_citation(text):
        out.append(text if any(map(str.isalpha, text)) else NUMBER)
    elif _NUMBERS.fullmatch(text) and _CITABLE.search(before) and not _ISOTOPE.match(element.tail or ""):
        out.append(NUMBER)
    elif (before[-1:].isdigit() and _EXPONENT.fullmatch(text.strip())) or (before[-1:] in ")]" and text in ("2", "3")):
        out.append("^" + text.strip().replace("−", "-").replace("–", "-"))
    else:
        out.append(text)


def _join_to_base(out: list[str], base: re.Pattern[str]) -> None:
    """Take away the space at the end of the line if what it stands behind is a base: `R <sup>2</sup>`, `H <sub>2`."""
    if not out or not out[-1][-1:].isspace():
        return
    line = "".join(out[-2:])[-40:].rstrip()
    if base.search(line):
        out[-1] = out[-1].rstrip()
        if not out[-1] and len(out) > 1:
            out.pop()
            out[-1] = out[-1].rstrip()


def formula(walker: "Walker", element: etree._Element, out: list[str]) -> None:
    """Write a formula as the settings want it; one that stands on its own line gets spaces around it."""
    text = _formula_text(walker, element)
    if text:
        name = local_name(element)
        within = name == "inline-formula" or (name == "math" and element.get("display") != "block")
        out.append(text if within else f" {text} ")


def _formula_text(walker: "Walker", element: etree._Element) -> str:
    wanted = walker.settings.formulas
    if wanted == "drop":
        return ""
    math = next(element.iter("{*}math"), None)
    tex = next(element.iter("{*}tex-math"), None) if math is None or wanted == "tex" else None
    if tex is not None:
        body = formulas.tex_body(all_text(tex))
        plain = formulas.plain_tex(body)
        return plain if wanted == "text" and "\\" not in plain else body  # half of each would be neither
    if math is not None:
        return formulas.mathml_text(math)
    return _text(walker, element).strip()
