"""Clean text from a block of an article: citations out, spaces right, nothing invisible, Unicode in NFC."""

import re
import unicodedata

from components.preprocess.citations import has_citation, without_citations

# Control characters, soft hyphens, zero-width and direction marks, private use, replacement and tag characters.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffd\ue000-\uf8ff\ufdd0-\ufdef\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
_WHITE = ("\n", "\t", "\r", "  ")
_WIDE_WHITE = ("\u00a0", "\u2002", "\u2003", "\u2009", "\u200a", "\u202f", "\u3000")
# Whatever `_mended` mends. The set of characters comes first: it is searched for fast.
_SUSPECT = re.compile(r"[,.;)\]([](?:(?<=[ ,([][,.;)\]])|(?<=[(\[])(?= ))")
_ESCAPED_TAG = re.compile(r"</?(?:sup|sub|i|b|em|strong|u|p|br|font|span|italic|bold)\b[^<>]{0,100}>", re.IGNORECASE)
_DOUBLED = re.compile(r"(?<!,),(?:,++\.?|\.)(?=\s|$)")
_SPACE_BEFORE = re.compile(r" (?=,(?:[ ,)\]]|$)|[;.)\]](?:[ )\]]|$))|(?<=[(\[]) ")


def tidy(text: str) -> str:
    """Make one line of clean text of a block.

    Takes out marked citations with their brackets, empty brackets, invisible characters, spaces inside brackets and
    before commas, inline tags that were escaped by mistake; collapses white space; composes characters (NFC).
    """
    if has_citation(text):
        text = without_citations(text if _has_single_spaces(text) else " ".join(text.split()))
    if "  " in text or not text.isprintable():  # a space is the only white space that counts as printable
        text = " ".join(text.split())
        if not text.isprintable():
            text = " ".join(_INVISIBLE.sub("", text).split())
    else:
        text = text.strip()
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if "<" in text and "</" in text:  # one character is found much faster
        text = _ESCAPED_TAG.sub("", text)
    return _mended(text) if _SUSPECT.search(text) else text


def _has_single_spaces(text: str) -> bool:
    """Tell whether single spaces are all the white space of a text, as far as a glance can tell."""
    return not any(white in text for white in (_WHITE if text.isascii() else _WHITE + _WIDE_WHITE))


def _mended(text: str) -> str:
    """Take out empty brackets, spaces that don't belong, and doubled commas."""
    if " ()" in text or " []" in text:
        text = text.replace(" ()", "").replace(" []", "")
    text = _SPACE_BEFORE.sub("", text)
    if ",," in text or ",." in text:  # something between them was an image
        text = _DOUBLED.sub(lambda match: match[0][-1], text)
    return text
