"""Which option a written answer names.

The rules, the first that finds something decides; several different options under one rule are none:

1. ``OPTION B IS CORRECT``, which is what the authors' models are taught and what their evaluation looks for.
2. ``the answer is B``, ``Answer: (B)``, also with the option's text in place of its letter.
3. A text that begins with the letter by itself (``B``, ``B.``, ``(B) ...``, ``Option B``), or with the letter and its
   option's text.
4. The text of exactly one option, word by word, anywhere in it; of options that are a part of another one which is
   there too, the longest counts. For yes, no and maybe the word must begin the answer, since "no" stands in sentences
   that say yes.

A letter somewhere in a sentence is no answer: "vitamin C" and "hepatitis B" would be. Nor is a guess made.
"""

import re
from collections.abc import Iterable

from components.common.prompts import letters
from components.common.questions import Question

_SPACE = re.compile(r"\s+")
_IS_CORRECT = re.compile(r"\boption\s+\(?([a-z])\)?\s+is\s+correct\b", re.IGNORECASE)
_ANSWER_IS = re.compile(r"\banswer\s*(?:is|:)\s*:?\s*", re.IGNORECASE)
_LETTER = re.compile(r"[Oo](?:ption|PTION)\s+\(?([A-Za-z])\)?\b|\(([A-Za-z])\)|([A-Za-z])(?=\s*(?:$|[.:;),]))")
_OPTION = r"(?:option\s+)?\(?[A-Z]\)?"
_SEVERAL = re.compile(rf"{_OPTION}(?:\s*(?:,\s*and|,|/|&|and|or)\s*{_OPTION}(?!\w))+", re.IGNORECASE)
_ALONE = re.compile(r"\b[A-Z]\b")
_UNKNOWN = "?"
_MOST_CHARACTERS = 50  # of a list of letters


def parse_choice(text: str, question: Question) -> str:
    """Return the key of the option that a text names; empty where it names none, or more than one.

    Args:
        text: What a model wrote.
        question: What it was asked: its options by key, which the instruction form names by letters.
    """
    keys = letters(question)
    text = _SPACE.sub(" ", text).strip()
    for rule in (_correct_option, _stated_answer, _beginning, _option_texts):
        found = set(rule(text, keys, question.options))
        if found:
            only = found.pop()
            return only if not found and only in question.options else ""
    return ""


def _correct_option(text: str, keys: dict[str, str], _: dict[str, str]) -> list[str]:
    # A letter that stands for no option is an answer all the same, which no other rule may overrule.
    return [keys.get(letter.upper(), _UNKNOWN) for letter in _IS_CORRECT.findall(text)]


def _stated_answer(text: str, keys: dict[str, str], options: dict[str, str]) -> list[str]:
    longest = _MOST_CHARACTERS + max(map(len, options.values()))
    nexts = [text[match.end() : match.end() + longest] for match in _ANSWER_IS.finditer(text)]
    return [key for rest in nexts for key in _named(rest, keys, options)]


def _beginning(text: str, keys: dict[str, str], options: dict[str, str]) -> list[str]:
    return [] if _are_words(options) and _starting(text, options) else _letters_first(text, keys, options)


def _named(text: str, keys: dict[str, str], options: dict[str, str]) -> list[str]:
    """The options whose letters, or the one whose text, a text begins with."""
    return _starting(text, options)[:1] or _letters_first(text, keys, options)


def _letters_first(text: str, keys: dict[str, str], options: dict[str, str]) -> list[str]:
    if several := _SEVERAL.match(text):
        return [keys[letter] for letter in _ALONE.findall(several[0]) if letter in keys]
    if letter := _LETTER.match(text):
        key = keys.get((letter[1] or letter[2] or letter[3]).upper())
        return [key] if key else []
    return [key for letter, key in keys.items() if _starts(text, f"{letter} {options[key]}")]


def _starting(text: str, options: dict[str, str]) -> list[str]:
    """Options whose text a text begins with, the longest first."""
    return sorted((key for key, option in options.items() if _starts(text, option)), key=lambda k: -len(options[k]))


def _option_texts(text: str, _: dict[str, str], options: dict[str, str]) -> list[str]:
    if _are_words(options):
        return _starting(text, options)
    spans = {key: _spans(text, option) for key, option in options.items()}
    every = [span for found in spans.values() for span in found]
    return [key for key, found in spans.items() if any(not _within_longer(span, every) for span in found)]


def _are_words(options: dict[str, str]) -> bool:
    return all(key == option for key, option in options.items())


def _starts(text: str, part: str) -> bool:
    return bool(_plain(part)) and bool(re.match(rf"{re.escape(_plain(part))}(?!\w)", _plain(text)))


def _spans(text: str, part: str) -> list[tuple[int, int]]:
    if not _plain(part):
        return []
    pattern = rf"(?<!\w){re.escape(_plain(part))}(?!\w)"
    return [match.span() for match in re.finditer(pattern, _plain(text))]


def _within_longer(span: tuple[int, int], every: Iterable[tuple[int, int]]) -> bool:
    return any(start <= span[0] and span[1] <= end and end - start > span[1] - span[0] for start, end in every)


def _plain(text: str) -> str:
    return _SPACE.sub(" ", text).strip(" .").casefold()
