"""Clean text from a block of an article: citations out, spaces right, Unicode in NFC.

A walker marks where citations stood with control characters, which XML cannot hold, so that no article can forge a
mark; `tidy` then looks at the whole paragraph and takes out what would be left of them.
"""

import re
import unicodedata
from itertools import pairwise

NUMBER = "\x01"
"""Stands for a citation by number or symbol: ``[3]``, a superscript."""
YEAR = "\x02"
"""Stands for a citation by year alone, as in ``(Smith et al., 2019)`` with only the year linked."""
_OPEN, _CLOSE = "\x03", "\x04"  # around a citation by name: kept in a sentence, dropped in brackets
# Brackets within the mark of a name are hidden, so that the brackets around citations are found.
_HIDDEN = str.maketrans({"(": "\x05", ")": "\x06", "[": "\x07", "]": "\x08", "{": "\x0e", "}": "\x0f"})
_SHOWN = {"\x05": "(", "\x06": ")", "\x07": "[", "\x08": "]", "\x0e": "{", "\x0f": "}"}
_CONTROL = re.compile("[\x01-\x08\x0e\x0f]")

# Patterns that run over whole paragraphs start with a character class: the search then skips at C speed.
_MARKS = re.compile("[\x01-\x04]")
_NAMED = re.compile("\x03[^\x04]*\x04")
_CITING_BRACKETS = re.compile(r"[(\[{]([^()\[\]{}\x01-\x04]*+[\x01-\x04][^()\[\]{}]*+)[)\]}]")
# Control characters, soft hyphens, zero-width and direction marks, private use, replacement and tag characters.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\u00ad\u034f\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f"
    "\ufe00-\ufe0f\ufeff\ufff9-\ufffd\ue000-\uf8ff\ufdd0-\ufdef\U000e0000-\U000e0fff\U000f0000-\U0010ffff]"
)
# What may stand beside citations in brackets without saying anything once they are gone.
_FILLER = re.compile(
    r"(?:[\s,;:.&*†‡–—−‐‑/-]|\b(?:see|also|e\.\s?g|i\.\s?e|eg|cf|viz|for|an?|the|recent|detailed|excellent|comprehensive|"
    r"full|further|more|review|reviews|reviewed|examples?|instance|details?|discussion|discussed|overview|summary|"
    r"information|in|of|on|by|from|with|as|and|or|to|et|al|refs?|references?|citations?|therein|thereof|others|among|"
    r"many|compare|modified|after|adapted|adopted|reproduced|taken|according|reported|described|here|previously|"
    r"earlier|recently|respectively|pp?|vol|chap(?:ter)?|\d{1,4}[a-z]?)\b)++",
    re.IGNORECASE,
)
_NAME_LIST = re.compile(
    r"(?:\s|[,.&;:–-]|\b(?:e\.\s?g|i\.\s?e|et al|and|und|et|y|e|in|see|also|cf|reviewed|by|for|"
    r"d[aeiou]s?|del|della|van|von|der|den|ter|la|le|unpublished|personal communication|in press|submitted)\b|"
    r"\b(?:[^\W\d_a-z][\w'’‐-]*+)|\b(?:1[6-9]|20)\d\d[a-z]?\b)++"
)
_ET_AL = re.compile(r"\bet al\b|\b(?:and|&)\s")
_LINK = r"(?:\s|[,;/&+–—−‐‑-]|\b(?:and|or|to|through|und|y|e|et)\b)*"
_RUN = re.compile(r"[\x01\x02](?:" + _LINK + r"[\x01\x02])*")
_REFERENCE_WORD = re.compile(r"(?:[,;] )?(?<![^\W])(?:refs?|references?|citations?)\.?$", re.IGNORECASE)
# "as described in [3]." must not end as "as described in.".
_DANGLING = re.compile(
    r",? (?:(?:as )?in|by|from|see|also|e\.g\.?|i\.e\.?|cf\.?|for (?:a )?(?:recent )?reviews?,? see),?$|^see$"
)
# A citation by name in brackets after such a word is part of the sentence.
_LEADS_IN = re.compile(r"\b(?:in|by|of|from|with|to|see|and|such as|e\.g\.,?|than|using|follow(?:s|ing)) $")
_PLAIN_NUMBERS = re.compile(r"(?:^| |(?<=[.,;]))\[(?:[1-9]\d{0,2})(?:\s?[,;–—−‐-]\s?[1-9]\d{0,2})*\](?!\w)")
_EMPTY = re.compile(r"[(\[](?=[ ,;.:–)\]-])[ ,;.:–-]*+[)\]]")
_ESCAPED_TAG = re.compile(r"</?(?:sup|sub|i|b|em|strong|u|p|br|font|span|italic|bold)\b[^<>]{0,100}>", re.IGNORECASE)
_SPACE_BEFORE = re.compile(r" (?=[,;.)\]](?:[ )\]]|$))|(?<=[(\[]) ")
_BESIDE = re.compile(
    r"\s*[,;]?\s*(?:\b(?:see|also|cf|e\.g|and|in|by|from|refs?)\b[\s.,]*+)*+[\x01\x02](?:" + _LINK + r"[\x01\x02])*"
)
_LONG = 1000  # brackets longer than this are prose; the patterns are not tried on them


def tidy(text: str) -> str:
    """Make one line of clean text of a block.

    Takes out marked citations with their brackets, empty brackets, invisible characters, spaces inside brackets and
    before commas, inline tags that were escaped by mistake; collapses white space; composes characters (NFC).
    """
    if has_citation(text):
        text = _without_citations(" ".join(text.split()))
    text = " ".join(text.split())
    if not text.isprintable():  # white space is plain by now, so something invisible is left
        text = " ".join(_INVISIBLE.sub("", text).split())
    if not text.isascii():
        text = unicodedata.normalize("NFC", text)
    if "</" in text:
        text = _ESCAPED_TAG.sub("", text)
    if " ()" in text or " []" in text:
        text = text.replace(" ()", "").replace(" []", "")
    if " ," in text or " ." in text or " )" in text or "( " in text:
        text = _SPACE_BEFORE.sub("", text)
    return text


def cite(text: str) -> str:
    """Return the mark for a citation whose link reads `text`.

    A name (``Smith et al. (2019)``) may be part of the sentence, so its text travels inside the mark.
    """
    text = text.strip()
    words = _MARKS.sub("", text)
    if sum(map(str.isalpha, words)) >= 3:
        return f"{_OPEN}{words.translate(_HIDDEN)}{_CLOSE}"
    return YEAR if re.search(r"(?:1[6-9]|20)\d\d", words) else NUMBER


def has_citation(text: str) -> bool:
    """Return whether the text holds the mark of a citation."""
    return NUMBER in text or YEAR in text or _OPEN in text


def has_plain_citation(text: str) -> bool:
    """Return whether the text holds what may be a citation that was typed rather than linked."""
    return "[" in text and _PLAIN_NUMBERS.search(text) is not None


def without_plain_citations(text: str, references: int) -> str:
    """Take out citations that were typed rather than linked: ``[3, 5-8]`` with every number within 1..references."""

    def judge(match: re.Match[str]) -> str:
        numbers = [int(number) for number in re.findall(r"\d+", match[0])]
        ascending = all(low < high for low, high in pairwise(numbers))
        return "" if numbers[-1] <= references and ascending else match[0]

    return _PLAIN_NUMBERS.sub(judge, text)


def _without_citations(text: str) -> str:
    brackets = 1
    while brackets:  # an emptied pair leaves a mark to the brackets around it
        text, brackets = _CITING_BRACKETS.subn(_judge_brackets, text)
    if NUMBER in text or YEAR in text:
        text = _join(_RUN.split(text))
    if _OPEN in text:
        text = _CONTROL.sub(_show, text)
    return _EMPTY.sub(_judge_empty, text)


def _join(segments: list[str]) -> str:
    """Join what stood around citations: no doubled commas, no comma before a full stop, no words that touch."""
    joined = [segments[0]]
    for after in segments[1:]:
        before = joined[-1].rstrip(" ")
        if before[-1:] in ("f", "s", ".", "e", "n"):
            before = before[:-24] + _REFERENCE_WORD.sub("", before[-24:]).rstrip(" ")
        following = after.lstrip(" ")[:1]
        if not following or following in ".;:,)]":
            before = before[:-24] + _DANGLING.sub("", before[-24:])
            before = before.rstrip(" ,;:–-")
        if not before or before[-1] in "([":
            after = after.lstrip(" ,;:")
        elif following == after[:1] and after[:1].isalnum() and before[-1] not in "-–/":
            after = " " + after
        joined[-1] = before
        joined.append(after)
    return "".join(joined)


def _judge_brackets(match: re.Match[str]) -> str:
    """Drop brackets that hold only citations (a mark stays for the sentence around them), else clean what they hold."""
    inner = match[1]
    if len(inner) > _LONG:
        return match[0][0] + _CONTROL.sub(_show, inner) + match[0][-1]
    if _says_nothing(inner):
        if _OPEN in inner and _LEADS_IN.search(match.string, max(0, match.start() - 16), match.start()):
            return inner
        return YEAR if YEAR in inner else NUMBER
    kept = [part for part in inner.split(";") if not (_MARKS.search(part) and _says_nothing(part))]
    rest = _BESIDE.sub("", _NAMED.sub(NUMBER, ";".join(kept))).strip(" ,;")
    rest = _CONTROL.sub(_show, rest)
    return match[0][0] + rest + match[0][-1] if rest else NUMBER


def _says_nothing(inner: str) -> bool:
    """Return whether nothing is left to say once the citations are gone: only fillers, names, years."""
    rest = _NAMED.sub("", inner)
    bare = _MARKS.sub(" ", rest)
    if not _FILLER.sub("", bare).strip():
        return True
    by_name = YEAR in rest or _ET_AL.search(rest)
    return bool(by_name and _NAME_LIST.fullmatch(bare))


def _show(match: re.Match[str]) -> str:
    return _SHOWN.get(match[0], "")


def _judge_empty(match: re.Match[str]) -> str:
    """Drop empty brackets, but not those of a function's name: ``print()``."""
    before = match.string[match.start() - 1 : match.start()]
    return match[0] if len(match[0]) == 2 and before.isalnum() else ""
