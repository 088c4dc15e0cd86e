"""Clean text from a block of an article: citations out, spaces right, nothing invisible, Unicode in NFC."""

import re
import unicodedata

from components.preprocess.citations import has_citation, without_citations

# Control characters, soft hyphens, zero-width and direction marks, private use, replacement and tag characters.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffd\ue000-\uf8ff\ufdd0-\ufdef\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
_ESCAPED_TAG = re.compile(r"</?(?:sup|sub|i|b|em|strong|u|p|br|font|span|italic|bold)\b[^<>]{0,100}>", re.IGNORECASE)
_DOUBLED = re.compile(r"(?<!,),(?:,++\.?|\.)(?=\s|$)")
_SPACE_BEFORE = re.compile(r" (?=,(?:[ ,)\]]|$)|[;.)\]](?:[ )\]]|$))|(?<=[(\[]) ")


def tidy(text: str) -> str:
    """Make one line of clean text of a block.

    Takes out marked citations with their brackets, empty brackets, invisible characters, spaces inside brackets and
    before commas, inline tags that were escaped by mistake; collapses white space; composes characters (NFC).
    """
    if text.isprintable() and "  " not in text:  # a space is the only white space that counts as printable
        text = text.strip()
    else:
        text = " ".join(text.split())
        if has_citation(text):
            text = " ".join(without_citations(text).split())
        if not text.isprintable():
            text = " ".join(_INVISIBLE.sub("", text).split())
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if "</" in text:
        text = _ESCAPED_TAG.sub("", text)
    if ("(" in text and " ()" in text) or ("[" in text and " []" in text):  # one character is found much faster
        text = text.replace(" ()", "").replace(" []", "")
    if (
        " ," in text
        or " ." in text
        or (";" in text and " ;" in text)
        or (")" in text and (" )" in text or "( " in text))
    ):
        text = _SPACE_BEFORE.sub("", text)
    if ",," in text or ",." in text:  # something between them was an image
        text = _DOUBLED.sub(lambda match: match[0][-1], text)
    return text
