"""Mutate articles and see that none breaks extraction: ``python tests/fuzz.py [--articles PLACE] [--inputs 50000]``.

Every input is a pure function of the seed and its number, so a failure can be looked at alone: ``--only 1234`` writes
that input to a file and runs it here. What is checked of each: the extraction gives a text or refuses the article by a
reason, within five seconds; the text holds no markup, no control character, no doubled space, and is composed (NFC);
filters, signatures and the search for test questions take it.
"""

import argparse
import contextlib
import copy
import importlib
import itertools
import random
import re
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lxml import etree

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from components.common.questions import Question
from components.download.settings import DownloadSettings
from components.download.sources import Article, open_source
from components.preprocess.decontamination.decontaminate import Decontaminator
from components.preprocess.decontamination.question_index import build_index
from components.preprocess.deduplication.signatures import signatures
from components.preprocess.extraction import jats
from components.preprocess.filtering import filters
from components.preprocess.settings import DecontaminateSettings, ExtractSettings, FilterSettings
from components.preprocess.workers.worker_pool import Limits, Names, in_workers

SECONDS = 5.0
BATCH = 50
TOKENS = (
    b"<p>", b"</p>", b"<sec>", b"</sec>", b"<body>", b"</body>", b"<title>", b"<xref ref-type='bibr' rid='r1'>",
    b"</xref>", b"<sup>", b"</sup>", b"<sub>", b"<list><list-item>", b"<table-wrap>", b"<table><tr><td>",
    b"<fig><caption>", b"<label>", b"<inline-formula>", b"<mml:math>", b"<tex-math>",
    b"\\begin{document}$x$\\end{document}", b"<sub-article>", b"<response>", b"<boxed-text>", b"<disp-quote>",
    b"<def-list><def-item><term>", b"<![CDATA[", b"]]>", b"<!--", b"-->", b"<?pi ", b"?>",
    b"<!DOCTYPE article [<!ENTITY a 'b'>]>", b"&nbsp;", b"&a;", b"&#0;", b"&#xFFFE;", b"&#x1F9EC;", b"&lt;p&gt;",
    b"&", b"<", b">", b"\x00", b"\x01", b"\x02\x03\x04", b"\xff\xfe", b"\xc3", b"\xe2\x80\x8b", b"\xef\xbb\xbf",
    b"[1,2]", b"(", b")", b"[", b"]", b"et al.", b"(Smith et al., 2019; )", b" ,", b"\xe2\x80\x93",
    b"\xd9\x85\xd8\xb1\xd8\xad", b"  \n\t ", b"xml:lang='ar'", b"xmlns='urn:x'", b"encoding='utf-16'",
    b"encoding='iso-8859-1'",
)  # fmt: skip
MARKUP = re.compile(
    r"</?(?:p|sec|title|xref|italic|bold|sup|sub|list|list-item|fig|caption|table|tr|td|ext-link|mml:\w+|article|body)"
    r"(?:\s[^<>]{0,80})?/?>"
)
UNWANTED = re.compile("[\x00-\x09\x0b-\x1f\x7f\u200b\ufeff\ue000-\uf8ff]|(?<![\n| ])  +[^ |\n]|\n\n\n")


def main() -> None:
    """Run the fuzzer; exit status 1 when an input failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", default="", help="folder or archive of JATS files (default: the bundled sample)")
    parser.add_argument("--inputs", type=int, default=50_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", type=int, help="run this input alone, here, and write it to fuzz-<number>.xml")
    options = parser.parse_args()
    if options.only is not None:
        _start(options.articles, options.seed)
        Path(f"fuzz-{options.only}.xml").write_bytes(_mutated(options.only))
        print(_outcome(options.only))
        return
    started = time.monotonic()
    outcomes, failures = _run(options)
    for reason, count in outcomes.most_common():
        print(f"{count:8,} {reason}")
    for number, failure in failures:
        print(f"input {number}: {failure}")
    print(f"{options.inputs:,} inputs, {len(failures)} failures, {time.monotonic() - started:.0f} s")
    sys.exit(bool(failures))


def _run(options: argparse.Namespace) -> tuple[Counter[str], list[tuple[int, str]]]:
    outcomes: Counter[str] = Counter()
    failures: list[tuple[int, str]] = []
    numbers = range(options.inputs)
    batches = (list(numbers[first : first + BATCH]) for first in range(0, options.inputs, BATCH))
    limits = Limits(options.processes, memory_mb=900, seconds=30 * SECONDS, losses=100)
    names: Names[int] = Names("the fuzzer's inputs", lambda number: f"input {number}", lambda _: 0)
    # As `tests.fuzz`, not as the program that runs: by that name the workers find it.
    work = importlib.import_module("tests.fuzz").Fuzz(options.articles, options.seed)
    with contextlib.closing(in_workers(work, batches, limits, names)) as results:
        for number, outcome in itertools.chain.from_iterable(results):
            if outcome.startswith("FAILED"):
                failures.append((number, outcome))
            else:
                outcomes[outcome] += 1
    return outcomes, failures


@dataclass(frozen=True)
class Fuzz:
    """The work on a batch of inputs, in a worker."""

    place: str
    seed: int

    def __call__(self, batch: Sequence[int]) -> list[tuple[int, str]]:
        """Return what became of each input."""
        if not _FILES:
            _start(self.place, self.seed)
        return [(number, _outcome(number)) for number in batch]

    def give_up(self, item: int, reason: str, detail: str) -> list[tuple[int, str]]:
        """Say that an input ended its worker."""
        return [(item, f"FAILED {reason}: {detail}")]


def _outcome(number: int) -> str:
    """Return the reason of a refusal, `text`, or `FAILED` with what went wrong."""
    xml = _mutated(number)
    started = time.process_time()
    try:
        outcome = _process(xml)
    except Exception as error:  # noqa: BLE001 - what a fuzzer is for
        return f"FAILED {type(error).__name__}: {error}"
    seconds = time.process_time() - started
    return f"FAILED too slow: {seconds:.1f} s of CPU for {len(xml):,} bytes" if seconds > SECONDS else outcome


def _process(xml: bytes) -> str:
    try:
        article = jats.extract(xml, SETTINGS[len(xml) % len(SETTINGS)])
    except jats.ArticleError as error:
        return f"rejected: {error.reason}"
    fault = _fault(article.text, xml)
    if fault:
        return f"FAILED {fault}"
    reason = filters.judge(article, FilterSettings())
    _EXAM.examine("a", article.pmid, article.text)
    if signatures([article.text]).shape != (1, 112):
        return "FAILED no signature"
    return f"dropped: {reason}" if reason else "text"


def _fault(text: str, xml: bytes) -> str:
    for match in MARKUP.finditer(text):
        name = re.match(r"</?[\w:-]+", match[0])
        escaped = re.sub("^<", "&lt;", name[0] if name else "").encode()
        typed = escaped in xml or b"CDATA" in xml or b"&#" in xml or b"&amp;" in xml
        if not typed:
            return f"markup {match[0]!r}"
    unwanted = UNWANTED.search(text)
    if unwanted:
        return f"unwanted {text[max(unwanted.start() - 20, 0) : unwanted.end() + 20]!r}"
    return "" if unicodedata.is_normalized("NFC", text) else "not composed (NFC)"


SETTINGS = (
    ExtractSettings(),
    ExtractSettings(tables=True, sub_articles=True, appendices=True, formulas="tex"),
    ExtractSettings(captions=False, abstract=False, formulas="drop", data_availability=True),
)
_FILES: list[bytes] = []
_SEED = 0
_QUESTION = Question(
    id="q", question="which of these cells is the first to reach the wound", options={"A": "a"}, answer="A"
)
_EXAM = Decontaminator(
    build_index([("medqa-test", _QUESTION)], DecontaminateSettings()), DecontaminateSettings(), frozenset()
)


def _start(place: str, seed: int) -> None:
    global _SEED
    _SEED = seed
    source = open_source(DownloadSettings(source="files", articles=place) if place else DownloadSettings())
    outcomes = [outcome for part in source.plan().parts for outcome in source.fetch(part.table, None)]
    _FILES.extend(outcome.xml for outcome in outcomes if isinstance(outcome, Article))


def _mutated(number: int) -> bytes:
    draw = random.Random(f"{_SEED}:{number}")
    data = bytearray(draw.choice(_FILES))
    if len(data) > 100_000 and draw.random() < 0.8:  # long ones take time without telling more
        start = data.find(b"<body")
        data = data[: start + draw.randint(2_000, 40_000)] + b"</p></sec></body></article>"
    if draw.random() < 0.6:  # damaged bytes are mostly refused: a damaged tree gets further
        return _mutated_tree(bytes(data), draw)
    for _ in range(draw.choice((1, 1, 2, 3, 5, 10, 40))):
        draw.choice(MUTATIONS)(data, draw)
    return bytes(data)


def _mutated_tree(xml: bytes, draw: random.Random) -> bytes:
    """Move, repeat, rename, wrap and fill elements: the result is well-formed."""
    root = etree.fromstring(xml, etree.XMLParser(recover=True, resolve_entities=False, no_network=True))
    body = next((each for each in root.iter("{*}body")), root)
    for _ in range(draw.choice((1, 2, 5, 10, 40))):
        elements = [each for each in body.iter(etree.Element) if each is not body]
        if elements:
            draw.choice(TREE_MUTATIONS)(draw.choice(elements), draw.choice(elements), draw)
    return etree.tostring(root)


def _move(one: etree._Element, other: etree._Element, draw: random.Random) -> None:
    if one not in other.iterancestors() and one is not other:
        other.insert(draw.randint(0, len(other)), one)


def _copy(one: etree._Element, other: etree._Element, draw: random.Random) -> None:
    if sum(1 for _ in one.iter()) < 100:
        other.insert(draw.randint(0, len(other)), copy.deepcopy(one))


def _remove(one: etree._Element, _: etree._Element, draw: random.Random) -> None:
    parent = one.getparent()
    if parent is not None:
        parent.remove(one)


def _rename(one: etree._Element, other: etree._Element, draw: random.Random) -> None:
    one.tag = draw.choice((other.tag, *NAMES))


def _wrap(one: etree._Element, _: etree._Element, draw: random.Random) -> None:
    parent = one.getparent()
    if parent is not None:
        outer = etree.Element(draw.choice(NAMES))
        parent.replace(one, outer)
        outer.append(one)


def _write(one: etree._Element, _: etree._Element, draw: random.Random) -> None:
    text = draw.choice(TEXTS) * draw.choice((1, 1, 1, 3, 200))
    if draw.random() < 0.5:
        one.text = draw.choice(("", one.text or "")) + text
    else:
        one.tail = draw.choice(("", one.tail or "")) + text


def _place(data: bytearray, draw: random.Random) -> int:
    """A place anywhere, or before or after a tag, where markup reacts."""
    place = draw.randrange(len(data) + 1)
    if draw.random() < 0.6:
        found = data.find(draw.choice((b"<", b">")), place)
        place = place if found < 0 else found + draw.randint(0, 1)
    return place


def _flip(data: bytearray, draw: random.Random) -> None:
    if data:
        data[draw.randrange(len(data))] = draw.randrange(256)


def _insert(data: bytearray, draw: random.Random) -> None:
    place = _place(data, draw)
    data[place:place] = draw.choice(TOKENS) * draw.choice((1, 1, 1, 2, 50))


def _delete(data: bytearray, draw: random.Random) -> None:
    place = _place(data, draw)
    del data[place : place + draw.choice((1, 3, 20, 200, 5000))]


def _repeat(data: bytearray, draw: random.Random) -> None:
    place = _place(data, draw)
    data[place:place] = data[place : place + draw.choice((5, 50, 1000))] * draw.choice((1, 3, 100))


def _swap(data: bytearray, draw: random.Random) -> None:
    place, size = _place(data, draw), draw.choice((10, 100, 1000))
    piece = data[place : place + size]
    del data[place : place + size]
    other = _place(data, draw)
    data[other:other] = piece


def _splice(data: bytearray, draw: random.Random) -> None:
    other = draw.choice(_FILES)
    start = draw.randrange(len(other))
    place = _place(data, draw)
    data[place:place] = other[start : start + draw.choice((20, 300, 3000))]


def _truncate(data: bytearray, draw: random.Random) -> None:
    del data[_place(data, draw) :]


def _nest(data: bytearray, draw: random.Random) -> None:
    tag = draw.choice((b"sec", b"p", b"italic", b"list", b"sub", b"mml:mrow", b"xref"))
    depth = draw.choice((3, 60, 200, 3000))
    place = _place(data, draw)
    data[place:place] = (b"<%s>" % tag) * depth + b"x" + (b"</%s>" % tag) * depth


def _retag(data: bytearray, draw: random.Random) -> None:
    """Rename an element throughout: well-formed, with another meaning."""
    names = sorted(set(re.findall(rb"<([a-z][\w:-]*)", bytes(data[:200_000]))))
    if len(names) > 1:
        old, new = draw.sample(names, 2)
        data[:] = re.sub(rb"(</?)" + old + rb"(?=[\s>/])", rb"\g<1>" + new, bytes(data))


NAMES = [
    "p",
    "sec",
    "title",
    "xref",
    "sup",
    "sub",
    "list",
    "list-item",
    "label",
    "table-wrap",
    "table",
    "tr",
    "td",
    "fig",
    "caption",
    "inline-formula",
    "disp-formula",
    "tex-math",
    "boxed-text",
    "disp-quote",
    "def-list",
    "def-item",
    "term",
    "def",
    "fn-group",
    "sub-article",
    "response",
    "body",
    "statement",
    "speech",
    "preformat",
    "ext-link",
    "named-content",
    "italic",
    "ack",
    "app",
    "ref-list",
    "graphic",
    "unknown",
]
TEXTS = (
    "[1,2]", "[3\u20136]", "(", ")", "[", "]", "(Smith et al., 2019; )", "et al.", " ,", ";", "\u00a0", "\u200b",
    "\u202e", "e\u0301", "\U0001f9ec", "\u0645\u0631\u062d\u0628\u0627", "(Fig. 2)", "see", "<b>", "&lt;p&gt;",
    "\n\n", "\t", "x", "\ue000", "\ufffd", "\\frac{a}{b}", "{", "\\begin{document}", "10.1371/journal.pone.1", "1",
    "\u2212",
)  # fmt: skip
TREE_MUTATIONS = (_move, _copy, _remove, _rename, _rename, _wrap, _write, _write)
MUTATIONS = (_flip, _insert, _insert, _delete, _repeat, _swap, _splice, _truncate, _nest, _retag, _retag)


if __name__ == "__main__":
    main()
