"""In-text citations: marked where they stand, then taken out with what would be left of them.

A walker marks where citations stood with control characters, which XML cannot hold, so that no article can forge a
mark; `without_citations` then looks at the whole paragraph: brackets that hold only citations go, brackets that say
something beside stay, and a citation by name that is part of its sentence stays.
"""

import re
from functools import lru_cache
from itertools import pairwise

NUMBER = "\x01"
"""Stands for a citation by number or symbol: ``[3]``, a superscript."""
YEAR = "\x02"
"""Stands for a citation by year alone, as in ``(Smith et al., 2019)`` with only the year linked."""
_OPEN, _CLOSE = "\x03", "\x04"  # around a citation by name: kept in a sentence, dropped in brackets
# Brackets within the mark of a name are hidden, so that the brackets around citations are found.
_HIDDEN = str.maketrans({"(": "\x05", ")": "\x06", "[": "\x07", "]": "\x08", "{": "\x0e", "}": "\x0f"})
_SHOWN = str.maketrans("\x05\x06\x07\x08\x0e\x0f", "()[]{}", "\x01\x02\x03\x04")

# Patterns that run over whole paragraphs start with one literal character: the search then skips at memory speed.
_MARKS = re.compile("[\x01-\x04]")
_NAMED = re.compile("\x03[^\x04]*\x04")
_CITING_BRACKETS = {
    bracket: re.compile(
        re.escape(bracket) + r"([^()\[\]{}（）［］\x01-\x04]*+[\x01-\x04][^()\[\]{}（）［］]*+)[)\]}）］]"
    )
    for bracket in "([{（［"
}
# What may stand beside citations in brackets without saying anything once they are gone.
_FILLER = re.compile(
    r"(?:[\s,;:.&*†‡–—−‐‑/-]|\b(?:see|but|also|e\.\s?g|i\.\s?e|eg|cf|viz|for|an?|the|recent|detailed|excellent|comprehensive|"
    r"full|further|more|review|reviews|reviewed|examples?|instance|details?|discussion|discussed|overview|summary|"
    r"summari[sz]ed|sensu|information|in|of|on|by|from|with|as|and|or|to|et|al|refs?|references?|citations?|therein|thereof|others|among|"
    r"many|compare|modified|after|adapted|adopted|reproduced|taken|according|reported|described|here|previously|"
    r"earlier|recently|respectively|results|entre|outros|otros|pp?|vol|chap(?:ter)?|\d{1,4}[a-z]?)\b)++",
    re.IGNORECASE,
)
_NAME = r"[^\W\d_a-z](?:[^\W\d_]|['’‐-](?!\d))*+(?!\d)"
_PARTICLE = r"(?:d[aeiou]s?|del|della|van|von|der|den|ter|te|la|las|los|le|el|al)"
_NAME_LIST = re.compile(
    r"(?:\s|[,.&;:–-]|\b(?:e\.\s?g|i\.\s?e|et al|and|und|et|y|e|in|see|also|cf|reviewed|by|for|"
    rf"{_PARTICLE}|unpublished|personal communication|in press|submitted)\b|"
    rf"\b{_NAME}|\b(?:1[6-9]|20)\d\d[a-z]?\b)++"
)
_BY_NAME = re.compile(r"\bet al\b|&\s|[^\W\d_], (?:1[6-9]|20)\d\d")
# "Smith, Jones and de la Cruz et al., " before the mark of a year.
_NAMED_YEAR = re.compile(
    r"(?:^|(?<=[,;:] ))(?:\b(?:see|see also|e\.g\.|cf\.),? )?\b"
    rf"(?:{_PARTICLE} )*{_NAME}(?:(?:, | and | & | e | y | et | |\. )(?:{_PARTICLE} )*{_NAME})*+"
    r"(?: et al\.?)?,? ?(?=[\x01\x02])"
)
_LINK = r"(?:\s|[,;/&+–—−‐‑-]|\b(?:and|or|to|through|und|y|e|et)\b)*"
_RUN = re.compile(r"\x01(?:" + _LINK + r"\x01)*")
_REFERENCE_WORD = re.compile(r"(?:[,;] )?(?<![^\W])(?:refs?|references?|citations?)\.?$", re.IGNORECASE)
# The letter of a year stands behind its link at times: "(Smith 2019</xref>b)".
_SUFFIXED_YEAR = re.compile(r"\x02(?:[a-z](?![\w.])| [a-z](?=[,;)\]]))")
_REFERENCE_ENDINGS = ("ef", "efs", "Fs", "nce", "nces", "ion", "ions", *(end + "." for end in "fsenFSEN"))
# "as described in [3]." must not end as "as described in.".
_DANGLING = re.compile(
    r"(?:[,;]? (?:but see|(?:as )?in|by|from|of|according to|than|see|also|such as|e\.g\.?|i\.e\.?|cf\.?|"
    r"for (?:a )?(?:recent )?reviews?,? see),?)++$|^see$"
)
# Endings are compared much faster than patterns; only what has one is looked at closely.
_DANGLING_ENDINGS = (",", " in", " by", " from", " of", " to", " than", "see", " also", " as", "e.g", "i.e", "cf", ".")
_PUNCTUATION, _LOOSE, _OPENING = ".;:,)]", " ,;:–-", "(["  # the empty string, an end, is in all of them
# A citation by name in brackets after such a word is part of the sentence.
_LEADS_IN = re.compile(r"\b(?:in|by|of|from|with|to|see|and|such as|e\.g\.,?|than|using|follow(?:s|ing)) $")
_PLAIN_NUMBERS = re.compile(r"(?:^| |(?<=[.,;]))\[(?:[1-9]\d{0,2})(?:\s?[,;–—−‐-]\s?[1-9]\d{0,2})*\](?!\w)")
_PLAIN_START = re.compile(r"\[[1-9]")
_EMPTY = {
    bracket: re.compile(re.escape(bracket) + r"(?=[ ,;.:–)\]-])(?! ?\.\.)[ ,;.:–-]*+[)\]]") for bracket in ("(", "[")
}
_BESIDE = re.compile(
    r"\s*[,;]?\s*(?:\b(?:see|also|cf|e\.g|and|in|by|from|refs?|references?)\b[\s.,]*+)*+[\x01\x02]"
    r"(?:" + _LINK + r"[\x01\x02])*(?:,? for (?:an? )?(?:\w+ )?(?:reviews?|details?|discussion|overview|examples?)\b)?"
)
_YEAR_NUMBER = re.compile(r"(?:1[6-9]|20)\d\d")
# "see [11] for its protocol" says only where to look.
_SEE_FOR = re.compile(r"\bsee(?: also)? [\x01\x02][\s,\x01\x02]*for\b.*$")
_SURNAME = re.compile(rf"(?:{_PARTICLE} )*(?:Mc|Mac)?[^\W\d_a-z][^\W\d_A-Z]+(?:[ ‐-][^\W\d_a-z][^\W\d_A-Z]+)?")
_AND_OTHERS = re.compile(r"\s*(?:and|among|y|e|entre) (?:others|otros|outros)\s*")
_TRAILING = re.compile(r"[\s,:]+(?:and|or|see|in|by)?\s*$|^[\s,:]+")
_HAS_NAME = re.compile(r"[^\W\d_]{3}")
_SEPARATORS = NUMBER + YEAR + " ,;.&"  # most others, names apart
_MARKED_NUMBERS = NUMBER + " ,;–-−"  # most brackets hold nothing else
_DEEPEST = 8  # brackets within brackets within ...
_LONG = 1000  # brackets longer than this are prose; the patterns are not tried on them


@lru_cache(maxsize=1024)  # most are numbers
def cite(text: str) -> str:
    """Return the mark for a citation whose link reads `text`.

    A name (``Smith et al. (2019)``) may be part of the sentence, so its text travels inside the mark.
    """
    words = text.strip()
    if words.isdigit() and len(words) <= 3:
        return NUMBER
    if not words.isprintable():
        words = _MARKS.sub("", words)
    # A bracket whose partner stands outside the link belongs outside.
    lead = words[:1] if words[:1] in ("(", "[") and not {")", "]"} & set(words) else ""
    trail = words[-1:] if words[-1:] in (")", "]") and not {"(", "["} & set(words) else ""
    words = words[len(lead) : len(words) - len(trail)]
    if (len(words) >= 3 and words[:3].isalpha()) or sum(map(str.isalpha, words)) >= 3:
        mark = f"{_OPEN}{words.translate(_HIDDEN)}{_CLOSE}"
    else:
        mark = YEAR if _YEAR_NUMBER.search(words) else NUMBER
    return f"{lead}{mark}{trail}"


def has_citation(text: str) -> bool:
    """Return whether the text holds the mark of a citation."""
    return NUMBER in text or YEAR in text or _OPEN in text


def has_plain_citation(text: str) -> bool:
    """Return whether the text holds what may be a citation that was typed rather than linked."""
    return "[" in text and _PLAIN_START.search(text) is not None and _PLAIN_NUMBERS.search(text) is not None


def without_plain_citations(text: str, references: int) -> str:
    """Take out citations that were typed rather than linked: ``[3, 5-8]`` with every number within 1..references."""

    def judge(match: re.Match[str]) -> str:
        numbers = [int(number) for number in re.findall(r"\d+", match[0])]
        ascending = all(low < high for low, high in pairwise(numbers))
        return "" if numbers[-1] <= references and ascending else match[0]

    return _PLAIN_NUMBERS.sub(judge, text)


def without_citations(text: str) -> str:
    """Take marked citations out of a paragraph, with the brackets, commas and words that only introduced them."""
    if YEAR in text:
        text = _SUFFIXED_YEAR.sub(YEAR, text)
    for _ in range(_DEEPEST):  # an emptied pair leaves a mark to the brackets around it
        found = 0
        for bracket, pattern in _CITING_BRACKETS.items():
            if bracket in text:
                text, count = pattern.subn(_judge_brackets, text)
                found += count
        if not found:
            break
    text = text.replace(YEAR, NUMBER)
    if NUMBER in text:
        text = _join(_RUN.split(text))
    if _OPEN in text:
        text = _NAMED.sub(_name_in_sentence, text)
    for bracket, pattern in _EMPTY.items():
        if bracket in text:
            text = pattern.sub(_judge_empty, text)
    return text


def _join(segments: list[str]) -> str:
    """Join what stood around citations: no doubled commas, no comma before a full stop, no words that touch."""
    joined = [segments[0]]
    for after in segments[1:]:
        before = joined[-1]
        if before[-1:] == " ":
            before = before.rstrip(" ")
        if before.endswith(_REFERENCE_ENDINGS):
            before = before[:-24] + _REFERENCE_WORD.sub("", before[-24:]).rstrip(" ")
        following = after[:1] if after[:1] != " " else after.lstrip(" ")[:1]
        if following in _PUNCTUATION:
            if before.endswith(_DANGLING_ENDINGS):
                before = before[:-32] + _DANGLING.sub("", before[-32:])
            if before[-1:] in _LOOSE:
                before = before.rstrip(_LOOSE)
        if following == "." and before.endswith((".", "!", "?")):
            after = after.lstrip(" ")[1:]  # "so it is. (Smith, 2019)."
        elif before[-1:] in _OPENING:
            after = after.lstrip(" ,;:")
        elif following == after[:1] and following.isalnum() and before[-1] not in "-–/":
            after = " " + after
        joined[-1] = before
        joined.append(after)
    return "".join(joined)


def _judge_brackets(match: re.Match[str]) -> str:
    """Drop brackets that hold only citations (a mark stays for the sentence around them), else clean what they hold."""
    inner = match[1]
    if not inner.strip(_MARKED_NUMBERS):
        return NUMBER
    if len(inner) > _LONG:
        return match[0][0] + inner.translate(_SHOWN) + match[0][-1]
    if _says_nothing(inner):
        if _OPEN in inner and _LEADS_IN.search(match.string, max(0, match.start() - 16), match.start()):
            return inner
        return YEAR if YEAR in inner and not _HAS_NAME.search(inner) else NUMBER
    rest = "; ".join(filter(None, _statements(inner.split(";")))).replace("; .", ".")
    return match[0][0] + rest + match[0][-1] if rest else NUMBER


def _statements(parts: list[str]) -> list[str]:
    """Return the parts of a bracket without their citations; "" for a part that held nothing else."""
    said: list[str] = []
    for part in parts:
        if not _MARKS.search(part):
            said.append("" if _AND_OTHERS.fullmatch(part) else part.strip())
            continue
        rest = "" if _says_nothing(part) else _without_names(part)
        named = not rest and (part.lstrip()[:1] == _OPEN or part.lstrip()[:1].isupper())
        while named and said and _SURNAME.fullmatch(said[-1]):
            said.pop()  # "Pina; Torres; Acerete, 2007": authors too are separated by semicolons
        said.append(rest)
    return said


def _without_names(part: str) -> str:
    """Return a part of a bracket that says something beside its citation."""
    rest = _NAMED.sub(NUMBER, part)
    if YEAR in rest:
        rest = _NAMED_YEAR.sub("", rest)
    rest = _TRAILING.sub("", _BESIDE.sub(_comma_of_a_list, _SEE_FOR.sub("", rest)))
    return rest.translate(_SHOWN).strip(" ,") if not _FILLER.fullmatch(rest) else ""


def _comma_of_a_list(match: re.Match[str]) -> str:
    """Keep the comma before a superscript: "TVu-8851,<sup>3</sup> TVu-9698"."""
    goes_on = match.string[match.end() : match.end() + 2].lstrip(" ")[:1].isalnum()
    return match[0][0] if goes_on and match[0][:1] in ",;" and match[0][1:2] in (NUMBER, YEAR) else ""


def _says_nothing(inner: str) -> bool:
    """Return whether nothing is left to say once the citations are gone: only fillers, names, years."""
    rest = _NAMED.sub("", inner) if _OPEN in inner else inner
    if not rest.strip(_SEPARATORS):
        return True
    bare = _MARKS.sub(" ", rest)
    if _FILLER.fullmatch(bare):
        return True
    by_name = YEAR in rest or _BY_NAME.search(rest)
    return bool(by_name and _NAME_LIST.fullmatch(bare))


def _name_in_sentence(match: re.Match[str]) -> str:
    """Return a citation by name as it reads, apart from words that touch it: "noted by<xref>Smith (2019)</xref>"."""
    text, start, end = match.string, match.start(), match.end()
    before, after = text[max(0, start - 2) : start], text[end : end + 2]
    lead = " " if before[-1:] in (",", ";") or (len(before) == 2 and before.isalpha()) else ""
    return lead + match[0].translate(_SHOWN) + (" " if len(after) == 2 and after.isalpha() else "")


def _judge_empty(match: re.Match[str]) -> str:
    """Drop empty brackets, but not those of a function's name: ``print()``."""
    before = match.string[match.start() - 1 : match.start()]
    return match[0] if len(match[0]) == 2 and before.isalnum() else ""
