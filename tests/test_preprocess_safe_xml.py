"""Hostile and damaged XML: refused by reason or repaired, in little time and memory whatever it holds."""

import subprocess
import sys
import textwrap
import time
from collections.abc import Callable

import pytest

from components.preprocess.extraction.jats import ArticleError, extract
from components.preprocess.settings import ExtractSettings

MB = 1024 * 1024
EVERYTHING = ExtractSettings(
    tables=True, sub_articles=True, acknowledgements=True, appendices=True, data_availability=True
)
REASONS = {
    "not-xml",
    "malformed-xml",
    "truncated-xml",
    "entity-declarations",
    "unknown-entity",
    "unknown-encoding",
    "too-large",
    "too-deep",
    "not-jats",
    "no-body",
    "escaped-html",
}


def whole(body: bytes, back: bytes = b"") -> bytes:
    title = b"<front><article-meta><title-group><article-title>T</article-title></title-group></article-meta></front>"
    return b"<article>" + title + b"<body>" + body + b"</body>" + back + b"</article>"


def paragraph(text: bytes) -> bytes:
    return whole(b"<p>" + text + b"</p>")


def outcome(xml: bytes) -> str:
    """The reason of the refusal, or "text"."""
    try:
        extract(xml, EVERYTHING)
    except ArticleError as error:
        return error.reason
    return "text"


def nested(opening: bytes, closing: bytes, depth: int, content: bytes) -> bytes:
    return whole(opening * depth + content + closing * depth)


def attributes(count: int, pattern: bytes) -> bytes:
    return b"<p " + b" ".join(pattern % number for number in range(count)) + b">x</p>"


def many(pattern: bytes, count: int) -> bytes:
    return b"<back>" + b"".join(pattern % number for number in range(count)) + b"</back>"


LINK = b'<xref ref-type="bibr">1</xref>'
OUTSIDE = b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
DEEP_FORMULA = b"<math>" + b"<msup>" * 200 + b"<mi>" + b"w " * MB + b"</mi>" + b"</msup>" * 200 + b"</math>"
LAUGHS = (
    b'<!DOCTYPE article [<!ENTITY a "ha">'
    + b"".join(b'<!ENTITY %c "&%c;&%c;&%c;">' % (i + 98, i + 97, i + 97, i + 97) for i in range(24))
    + b"]>"
)


HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "200 MB of words": (lambda: paragraph(b"word " * (40 * MB)), "too-large"),
    "200 MB of spaces": (lambda: b" " * (200 * MB), "too-large"),
    "one text of 20 MB": (lambda: paragraph(b"word " * (4 * MB)), "too-large"),
    "depth 10,000": (lambda: nested(b"<sec>", b"</sec>", 10_000, b"<p>x</p>"), "too-deep"),
    "lists 60 deep": (lambda: nested(b"<list><list-item>", b"</list-item></list>", 60, b"<p>x</p>"), "too-deep"),
    "boxes 200 deep": (lambda: nested(b"<boxed-text>", b"</boxed-text>", 200, b"<p>x</p>"), "too-deep"),
    "a million tags never closed": (lambda: b"<a>" * 1_000_000, "too-large"),
    "a million attributes on one element": (lambda: whole(attributes(1_000_000, b'a%d="1"')), "too-large"),
    "the same in single quotes": (lambda: whole(attributes(1_000_000, b"a%d='1'")), "too-large"),
    "the same with spaces around the equals signs": (lambda: whole(attributes(1_000_000, b'a%d = "1"')), "too-large"),
    "a million attributes in the document": (lambda: whole(b'<p a="1">x</p>' * 1_000_000), "too-large"),
    "two million attributes, fifty to an element": (
        lambda: whole((b"<p " + b" ".join(b'a%d = ""' % i for i in range(50)) + b"/>") * 40_000),
        "too-large",
    ),
    "50,000 attributes on one element": (lambda: whole(attributes(50_000, b'a%d="1"')), "text"),
    "six million empty elements": (lambda: whole(b"<a/>" * (6 * MB)), "too-large"),
    "200,000 different tags": (lambda: whole(b"".join(b"<t%d>x</t%d>" % (i, i) for i in range(200_000))), "text"),
    "100,000 undeclared prefixes": (lambda: whole(b"<t:a>x</t:a>" * 100_000), "text"),
    "four million entities": (lambda: paragraph(b"&nbsp;" * (4 * MB)), "too-large"),
    "bare ampersands": (lambda: paragraph(b"x" + b"&" * 900_000), "text"),
    "control characters": (lambda: paragraph(b"\x01a" * (4 * MB)), "text"),
    "billion laughs": (lambda: LAUGHS + paragraph(b"&y;"), "entity-declarations"),
    "billion laughs in UTF-16": (lambda: (LAUGHS + paragraph(b"&y;")).decode().encode("utf-16"), "entity-declarations"),
    "an external entity": (lambda: OUTSIDE + paragraph(b"&x;"), "entity-declarations"),
    "comments never closed, before": (lambda: b"<!--" * 400_000 + paragraph(b"x"), "malformed-xml"),
    "comments never closed, within": (lambda: paragraph(b"<!--" * 400_000 + b"&nbsp;"), "malformed-xml"),
    "CDATA never closed": (lambda: paragraph(b"<![CDATA[" * 400_000 + b"&nbsp;"), "malformed-xml"),
    "brackets a million deep": (lambda: paragraph(b"(" * MB + LINK + b")" * MB), "no-body"),
    "brackets with words 200,000 deep": (lambda: paragraph(b"(a " * 200_000 + LINK + b")" * 200_000), "text"),
    "100,000 citations in a paragraph": (lambda: paragraph(b"word [" + LINK + b"]. " * 100_000), "text"),
    "superscripts 200 deep": (lambda: nested(b"<sup>", b"</sup>", 200, b"word " * MB), "text"),
    "citations 200 deep": (lambda: nested(b"<xref ref-type='bibr'>", b"</xref>", 200, b"word " * MB), "text"),
    "a formula 200 deep": (lambda: paragraph(DEEP_FORMULA), "text"),
    "TeX options never closed": (
        lambda: paragraph(b"x<tex-math>" + b"\\usepackage[" * 200_000 + b"</tex-math>"),
        "text",
    ),
    "TeX spaces never closed": (lambda: paragraph(b"x<tex-math>" + b"\\hspace{" * 200_000 + b"</tex-math>"), "text"),
    "30,000 figures in a paragraph": (lambda: paragraph(b"a<fig><caption><p>b</p></caption></fig>" * 30_000), "text"),
    "20,000 thanks": (lambda: whole(b"<p>x</p>", many(b"<ack><p>T %d</p></ack>", 20_000)), "text"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_no_document_takes_more_than_a_few_seconds(name: str) -> None:
    make, expected = HOSTILE[name]
    xml = make()
    started = time.process_time()
    assert outcome(xml) == expected
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    "make",
    [
        "paragraph(b'some words here ' * 500_000)",
        "whole(b'<a/>' * 6_000_000)",
        "whole(b'<p a=\"1\">x</p>' * 1_000_000)",
        "paragraph(b'&nbsp;' * 2_000_000)",
        "paragraph(b'\\x01a' * 6_000_000)",
        "whole(b'<p>some words here, not many</p>' * 300_000)",
    ],
)
def test_memory_stays_within_a_small_multiple_of_the_document(make: str) -> None:
    script = textwrap.dedent(f"""
        import resource, sys
        from tests.test_preprocess_safe_xml import outcome, paragraph, whole
        outcome(paragraph(b"warm"))
        xml = {make}
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        outcome(xml)
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
        print(grown, len(xml))
    """)
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    grown, size = map(int, done.stdout.split())
    assert grown < 15 * size + 96 * MB


@pytest.mark.parametrize(
    ("xml", "text"),
    [
        # declared UTF-8, is Latin-1 or Windows-1252
        (b'<?xml version="1.0" encoding="UTF-8"?>' + paragraph(b"caf\xe9 \x96 d\xe9j\xe0 vu, again and again"),
         "café – déjà vu, again and again"),
        # declared UTF-16 or UTF-32, is UTF-8
        (b'<?xml version="1.0" encoding="UTF-16"?>\n' + paragraph("déjà vu".encode()), "déjà vu"),
        (b"<?xml version='1.0' encoding='utf-32le' ?>" + paragraph("déjà vu".encode()), "déjà vu"),
        # declared Latin-1 or Windows-1252, is UTF-8
        (b'<?xml version="1.0" encoding="ISO-8859-1"?>' + paragraph("déjà – vu".encode()), "déjà – vu"),
        (b'<?xml version="1.0" encoding="windows-1252" standalone="yes"?>' + paragraph("déjà".encode()), "déjà"),
        # declared ASCII, is UTF-8
        (b'<?xml version="1.0" encoding="us-ascii"?>' + paragraph("déjà".encode()), "déjà"),
    ],
)  # fmt: skip
def test_a_wrongly_declared_encoding_is_mended_and_told(xml: bytes, text: str) -> None:
    found = extract(xml, ExtractSettings())
    assert found.text == f"T\n\n{text}"
    assert found.repairs == ("encoding",)


@pytest.mark.parametrize(
    ("encoding", "text"), [("iso-8859-1", "déjà"), ("windows-1251", "Вода"), ("shift_jis", "水"), ("gb18030", "水")]
)
def test_a_rightly_declared_encoding_is_read_without_repair(encoding: str, text: str) -> None:
    xml = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + paragraph(text.encode(encoding))
    found = extract(xml, ExtractSettings())
    assert (found.text, found.repairs) == (f"T\n\n{text}", ())


@pytest.mark.parametrize("encoding", ["klingon", "utf-7", "ibm037", "rot13", "zlib", "idna", "unicode_escape"])
def test_an_encoding_nobody_knows_or_that_hides_markup_is_refused(encoding: str) -> None:
    xml = f'<?xml version="1.0" encoding="{encoding}"?>'.encode() + paragraph(b"x")
    assert outcome(xml) == "unknown-encoding"


def test_an_article_cut_off_anywhere_is_refused_by_reason() -> None:
    xml = b'<?xml version="1.0" encoding="UTF-8"?><!DOCTYPE article>' + whole(
        "<sec><title>Déjà</title><p a='1'>x &amp; y<!-- c --> <![CDATA[z]]> <xref rid='r'>1</xref></p></sec>".encode()
    )
    for end in range(len(xml)):
        assert outcome(xml[:end]) in REASONS, xml[:end]
    reasons = {outcome(xml[:end]) for end in range(100, len(xml))}
    assert "truncated-xml" in reasons
    assert reasons <= {"truncated-xml", "malformed-xml", "unknown-encoding"}
    wide = xml.split(b"?>", 1)[1].decode().encode("utf-16")
    assert {outcome(wide[:end]) for end in range(4, len(wide))} <= REASONS


def test_what_is_missing_from_the_middle_is_refused_or_still_text() -> None:
    xml = whole(b"<sec><title>A</title><p>word <italic>x</italic> [<xref>1</xref>] &amp; so on.</p></sec>" * 3)
    for start in range(0, len(xml), 3):
        assert outcome(xml[:start] + xml[start + 7 :]) in REASONS | {"text"}
