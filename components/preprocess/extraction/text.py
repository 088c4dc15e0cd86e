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
_ASCII_SPACES = ("\n", "\t", "\r")
_COMMON_SPACES = (*_ASCII_SPACES, "\u00a0", "\u2005", "\u2009", "\u200a", "\u202f")
_SPACES = (*_ASCII_SPACES, "\u00a0", *map(chr, range(0x2002, 0x200B)), "\u202f", "\u3000")
_IDENTIFIER = re.compile(r"(?:doi:? *)?(?:https?://(?:dx\.)?doi\.org/)?10\.\d{4,9}/\S+", re.IGNORECASE)
# Whatever `_mended` mends. The set of characters comes first: it is searched for fast.
_SUSPECT = re.compile(r"[,.;)\]([](?:(?<=[ ,([][,.;)\]])|(?<=[(\[])(?= ))")
_ESCAPED_TAG = re.compile(r"</?(?:sup|sub|i|b|em|strong|u|p|br|font|span|italic|bold)\b[^<>]{0,100}>", re.IGNORECASE)
_DOUBLED = re.compile(r"(?<!,),(?:,++\.?|\.)(?=\s|$)")
_SPACE_BEFORE = re.compile(r" (?:(?=,(?:[ ,)\]]|$)|[;.)\]](?:[ )\]]|$))|(?<=[(\[] ))")


def tidy(text: str) -> str:
    """Make one line of clean text: `polished` of what is left `uncited`."""
    return polished(uncited(text))


def uncited(text: str) -> str:
    """Take marked citations with their brackets out of a block."""
    return without_citations(_single_spaced(text)) if has_citation(text) else text


def polished(text: str) -> str:
    """Make one line of clean text of a block without citations.

    Takes out empty brackets, invisible characters, spaces inside brackets and before commas, inline tags that were
    escaped by mistake; collapses white space; composes characters (NFC).
    """
    if not text.isprintable():  # a space is the only white space that counts as printable
        text = _single_spaced(text)
        if not text.isprintable():
            text = _INVISIBLE.sub("", " ".join(text.split()))
    text = " ".join(text.split()) if "  " in text else text.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if "<" in text and "</" in text:  # one character is found much faster
        text = " ".join(_ESCAPED_TAG.sub("", text).split())
    return _mended(text) if _SUSPECT.search(text) else text


def all_polished(texts: list[str]) -> list[str]:
    """Return `polished` of each text, found out at one glance at all of them which it would change.

    Most paragraphs are clean as they come, but for white space that is no space, and looking for one fault after the
    other is what cleaning costs. Here each character is looked up once, and its part in pairs that are faults compared
    with that of its neighbour.
    """
    joined = _BETWEEN.join(["", *texts, ""])
    spaced = _with_plain_spaces(joined, _COMMON_SPACES)
    texts = texts if spaced is joined else spaced.split(_BETWEEN)[1:-1]
    codes = np.frombuffer(spaced.encode("utf-16-le", errors="surrogatepass"), dtype="<u2")
    parts = _parts().take(codes)
    (faults,) = (parts[:-1] & (parts[1:] >> 4) != 0).nonzero()  # of true and false it finds them much faster
    if not len(faults):
        return texts
    (starts,) = (codes == 0).nonzero()
    faulty = set((np.searchsorted(starts, faults, side="right") - 1).tolist())
    return [polished(text) if number in faulty else text for number, text in enumerate(texts)]


def says_something(block: str) -> bool:
    """Return whether a block holds a letter or digit and is no lone identifier, as eLife has under each figure."""
    if block.startswith(("DOI", "doi", "http")) and _IDENTIFIER.fullmatch(block):
        return False
    return block[:1].isalnum() or any(map(str.isalnum, block))


def _with_plain_spaces(text: str, spaces: tuple[str, ...]) -> str:
    for space in spaces:
        if space in text:
            text = text.replace(space, " ")
    return text


def _single_spaced(text: str) -> str:
    """Make single spaces of all white space; it is looked for first, as most texts hold no other."""
    spaced = _with_plain_spaces(text, _ASCII_SPACES if text.isascii() else _SPACES)
    if "  " in spaced:
        return " ".join(spaced.split())
    return text if spaced is text else spaced.strip()


def _mended(text: str) -> str:
    """Take out empty brackets, spaces that don't belong, and doubled commas."""
    if " ()" in text or " []" in text:
        text = text.replace(" ()", "").replace(" []", "")
    text = _SPACE_BEFORE.sub("", text)
    if ",," in text or ",." in text:  # something between them was an image
        text = _DOUBLED.sub(lambda match: match[0][-1], text)
    return text


@lru_cache(maxsize=1)
def _parts() -> np.ndarray:
    """What each UTF-16 code unit may be part of: the pairs it begins in the lower four bits, those it ends above."""
    parts = np.full(0x10000, _ODD << 4, dtype=np.uint8)
    for code in range(0x10000):
        character = chr(code)
        composes = unicodedata.category(character) in _MARKS or unicodedata.normalize("NFC", character) != character
        if not character.isprintable() or composes or 0x1160 <= code < 0x1200:  # the last: letters of Hangul syllables
            parts[code] |= _ODD
    parts[ord(_BETWEEN)] = _ODD << 4
    for pair, (first, second) in _PAIRS.items():
        parts[[ord(character) for character in first]] |= pair
        parts[[ord(character) for character in second]] |= pair << 4
    return parts


_BETWEEN = "\0"  # XML cannot hold it
_ODD = 1  # what may be taken out or composed, and halves of rare characters: a fault before whatever follows
_PAIRS = {2: (" ([,", ",.;)]"), 4: (" ([" + _BETWEEN, " " + _BETWEEN), 8: ("<", "/")}
_MARKS = ("Mn", "Mc", "Me", "Cs")
