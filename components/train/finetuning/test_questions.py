"""What the benchmarks of a manifest test with: no model may be fine-tuned on it."""

import re
from collections import defaultdict
from collections.abc import Sequence

from components.common.manifest import Manifest
from components.common.questions import Question, read_questions

_TEST = "-test"
_WORD = re.compile(r"\w+")
# A shorter wording ("Treatment of choice is") stands in texts that have nothing to do with the question.
_TELLING_WORDS = 8
_KEY_WORDS = 4

Words = list[str]


class TestQuestions:
    """The questions of every test split in a manifest."""

    __test__ = False  # pytest takes classes of such a name for tests

    def __init__(self, benchmarks: Manifest) -> None:
        """Read them.

        Raises:
            InputError: A file is not what the manifest says.
            StorageError: A file cannot be read.
        """
        names = [shard.name.removesuffix(_TEST) for shard in benchmarks.shards if shard.name.endswith(_TEST)]
        questions = [question for name in names for question in read_questions(benchmarks, name, "test")]
        self._ids = {question.id for question in questions}
        self._wordings = {_wording(question) for question in questions}
        # By the first words of a question and how many those are, so that one pass over a text finds them all.
        self._by_start: dict[int, dict[tuple[str, ...], list[tuple[Words, Words]]]] = {}
        for question in questions:
            words, answer = _words(question.question), _words(question.options[question.answer])
            length = min(len(words), _KEY_WORDS)
            if length:
                by_start = self._by_start.setdefault(length, defaultdict(list))
                by_start[tuple(words[:length])].append((words, answer))

    def has(self, question: Question) -> bool:
        """Whether a training question has the id of a test question, or its wording but for case and white space."""
        return question.id in self._ids or _wording(question) in self._wordings

    def within(self, text: str) -> bool:
        """Whether a text holds a test question word by word; a short one counts with its right answer only."""
        words = _words(text)
        for length, by_start in self._by_start.items():
            # Nearly every text ends here; the loop over its words runs in C.
            if not by_start.keys().isdisjoint(zip(*(words[i:] for i in range(length)), strict=False)) and any(
                _holds(words, place, question, answer)
                for place in range(len(words) - length + 1)
                for question, answer in by_start.get(tuple(words[place : place + length]), ())
            ):
                return True
        return False


def _holds(words: Words, place: int, question: Words, answer: Words) -> bool:
    if words[place : place + len(question)] != question:
        return False
    return len(question) >= _TELLING_WORDS or _contains(words, answer)


def _contains(words: Words, part: Sequence[str]) -> bool:
    return any(words[i : i + len(part)] == part for i in range(len(words) - len(part) + 1))


def _wording(question: Question) -> str:
    return " ".join(question.question.casefold().split())


def _words(text: str) -> Words:
    return _WORD.findall(text.casefold())
