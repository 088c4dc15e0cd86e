"""Clean text from a block of an article: citations out, spaces right, nothing invisible, Unicode in NFC."""

import re
import unicodedata
from functools import lru_cache

import numpy as np

from components.preprocess.extraction.citations import has_citation, without_citations

# Control characters, soft hyphens, zero-width and direction marks, private use, replacement and tag characters.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffd\ue000-\uf8ff\ufdd0-\ufdef\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
_WIDE_SPACE = re.compile("[\u2002-\u200a\u202f\u3000]")
# Whatever `_mended` mends. The set of characters comes first: it is searched for fast.
_SUSPECT = re.compile(r"[,.;)\]([](?:(?<=[ ,([][,.;)\]])|(?<=[(\[])(?= ))")
_ESCAPED_TAG = re.compile(r"</?(?:sup|sub|i|b|em|strong|u|p|br|font|span|italic|bold)\b[^<>]{0,100}>", re.IGNORECASE)
_DOUBLED = re.compile(r"(?<!,),(?:,++\.?|\.)(?=\s|$)")
_SPACE_BEFORE = re.compile(r" (?=,(?:[ ,)\]]|$)|[;.)\]](?:[ )\]]|$))|(?<=[(\[]) ")


def tidy(text: str) -> str:
    """Make one line of clean text: `polished` of what is left `uncited`."""
    return polished(uncited(text))


def uncited(text: str) -> str:
    """Take marked citations with their brackets out of a block."""
    if not has_citation(text):
        return text
    return without_citations(text if _has_single_spaces(text) else " ".join(text.split()))


def polished(text: str) -> str:
    """Make one line of clean text of a block without citations.

    Takes out empty brackets, invisible characters, spaces inside brackets and before commas, inline tags that were
    escaped by mistake; collapses white space; composes characters (NFC).
    """
    if "  " in text or not text.isprintable():  # a space is the only white space that counts as printable
        text = " ".join(text.split())
        if not text.isprintable():
            text = " ".join(_INVISIBLE.sub("", text).split())
    else:
        text = text.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if "<" in text and "</" in text:  # one character is found much faster
        text = " ".join(_ESCAPED_TAG.sub("", text).split())
    return _mended(text) if _SUSPECT.search(text) else text


def unpolished(texts: list[str]) -> list[int]:
    """Return which texts `polished` may change, found at one glance at all of them.

    Most paragraphs are clean as they come, and looking for one fault after the other is what cleaning costs. Here each
    character is looked up once, and each pair of neighbours: a space before a comma, two spaces, an invisible one.
    """
    joined = _BETWEEN + _BETWEEN.join(texts) + _BETWEEN
    kinds = _kinds().take(np.frombuffer(joined.encode("utf-16-le", errors="surrogatepass"), dtype="<u2"))
    faults = np.flatnonzero(_FAULTS.take(kinds[:-1] * _KINDS + kinds[1:]))
    if not len(faults):
        return []
    starts = np.flatnonzero(kinds == _START)
    return sorted(set((np.searchsorted(starts, faults, side="right") - 1).tolist()))


def _has_single_spaces(text: str) -> bool:
    """Tell whether single spaces are all the white space of a text, as far as a glance can tell."""
    if "\n" in text or "\t" in text or "\r" in text or "  " in text:
        return False
    return text.isascii() or not ("\u00a0" in text or "\u2009" in text or _WIDE_SPACE.search(text))


def _mended(text: str) -> str:
    """Take out empty brackets, spaces that don't belong, and doubled commas."""
    if " ()" in text or " []" in text:
        text = text.replace(" ()", "").replace(" []", "")
    text = _SPACE_BEFORE.sub("", text)
    if ",," in text or ",." in text:  # something between them was an image
        text = _DOUBLED.sub(lambda match: match[0][-1], text)
    return text


@lru_cache(maxsize=1)
def _kinds() -> np.ndarray:
    """The kind of each UTF-16 code unit; odd is what may be taken out or composed, and halves of rare characters."""
    kinds = np.full(0x10000, _PLAIN, dtype=np.uint8)
    for code in range(0x10000):
        character = chr(code)
        composes = unicodedata.category(character) in _MARKS or unicodedata.normalize("NFC", character) != character
        if not character.isprintable() or composes or 0x1160 <= code < 0x1200:  # the last: letters of Hangul syllables
            kinds[code] = _ODD
    for kind, characters in _CHARACTERS.items():
        kinds[[ord(character) for character in characters]] = kind
    return kinds


def _pairs_at_fault() -> np.ndarray:
    faults = np.zeros((_KINDS, _KINDS), dtype=bool)
    faults[_ODD, :] = faults[:, _ODD] = True
    for first, second in (
        *((_SPACE, _SPACE), (_START, _SPACE), (_SPACE, _START), (_OPEN, _SPACE), (_LESS, _SLASH)),
        *((first, second) for first in (_SPACE, _COMMA, _OPEN) for second in (_COMMA, _CLOSE)),
    ):
        faults[first, second] = True
    return faults.ravel()


_BETWEEN = "\0"  # XML cannot hold it
_PLAIN, _START, _SPACE, _COMMA, _CLOSE, _OPEN, _LESS, _SLASH, _ODD = range(9)
_CHARACTERS = {_START: _BETWEEN, _SPACE: " ", _COMMA: ",", _CLOSE: ".;)]", _OPEN: "([", _LESS: "<", _SLASH: "/"}
_KINDS = np.uint8(9)
_MARKS = ("Mn", "Mc", "Me", "Cs")
_FAULTS = _pairs_at_fault()
