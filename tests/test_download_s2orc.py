"""S2ORC over real HTTP: the Datasets API, bulk files that break off and expire, records as JATS."""

import gzip
import json
import logging
import random
import re
import socket
import struct
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pyarrow.parquet as pq
import pytest

from components.common import storage
from components.common.errors import InputError
from components.common.manifest import Rejected
from components.common.pmc.settings import TransportSettings
from components.download.fetch import fetch_shard
from components.download.plan import plan_download
from components.download.sampling import in_sample
from components.download.settings import DownloadSettings
from components.download.sources import Article, LeftOut, Outcome
from components.download.sources.s2orc import S2orcSource, read_record, release_of
from components.download.sources.s2orc_jats import BadAnnotations, to_jats
from components.preprocess.extraction import jats
from components.preprocess.settings import ExtractSettings

KEY = "the-key"
RELEASE = "2026-11-10"
SECRET = "SECRET"
FOLDER = "staging/2026-11-10/s2orc"


# ---- records ---------------------------------------------------------------------------------------------------------


class Draft:
    """A text that is put together piece by piece, with the spans of the pieces as annotations."""

    def __init__(self) -> None:
        self.text = ""
        self.spans: dict[str, list[dict[str, Any]]] = {}

    def add(self, text: str, *kinds: str, **attributes: str) -> "Draft":
        start = len(self.text)
        self.text += text
        for kind in kinds:
            self.mark(kind, start, len(self.text), **attributes)
        return self

    def mark(self, kind: str, start: Any, end: Any, **attributes: str) -> "Draft":
        span: dict[str, Any] = {"start": start, "end": end}
        self.spans.setdefault(kind, []).append(span | ({"attributes": attributes} if attributes else {}))
        return self

    def around(self, kind: str, begin: str, end: str = "") -> "Draft":
        """Mark from the first occurrence of a string to the end of another."""
        start = self.text.index(begin)
        last = end or begin
        return self.mark(kind, start, self.text.index(last, start) + len(last))

    def annotations(self) -> dict[str, str | None]:
        return {"formula": None, "venue": None} | {kind: json.dumps(spans) for kind, spans in self.spans.items()}

    def record(self, corpus_id: int = 1, licence: str | None = "CCBYNC", **external: Any) -> dict[str, Any]:
        ids = {"arxiv": None, "mag": None, "pubmed": "36589072", "pubmedcentral": "9798118", "doi": "10.1/x.2"}
        return {
            "corpusid": corpus_id,
            "externalids": ids | external,
            "content": {
                "source": {"pdfurls": None, "pdfsha": "b57a", "oainfo": {"license": licence} if licence else None},
                "text": self.text,
                "annotations": self.annotations(),
            },
        }


def paper() -> Draft:
    """A paper as the releases have them: front matter that says too much, numbered sections, labels at the end."""
    draft = (
        Draft().add("\n").add("Grafting & heat <stress> in\nbitter gourd", "title").add(" OPEN ACCESS EDITED BY\n\n")
    )
    draft.add("Le Liang", "author").add("\n").add("Yi Tang", "author").add("\nKeywords: secret keyword\n\n")
    draft.add("Grafting & heat stress in bitter gourd", "title").add("\n").add("Front Plant Sci", "venue").add("\n")
    draft.add("Frontiers Media", "publisher").add("\n\n")
    draft.add("Heat harms plants.\n\nGrafting helps [1].", "abstract").add("\n\n")
    draft.add("Introduction", "sectionheader", n="1").add("\n")
    draft.add("Heat is known (Ahmad et al., 2011; Li et al., 2020) to harm\ncrops [2, 3]. See Figure 1.", "paragraph")
    draft.around("bibref", "(Ahmad et al., 2011;").around("bibref", "Li et al., 2020)")
    draft.around("bibref", "[2,").around("bibref", "3]").around("bibref", "[1]").around("figureref", "Figure 1")
    draft.add("\n\n").add("Methods", "sectionheader", n="2.").add("\n\n")
    draft.add("Plants", "sectionheader", n="2.1").add("\n").add("Seeds were sown12 at p < 0.05 & more.", "paragraph")
    draft.around("bibref", "12 ".strip())
    draft.add("\n\nE = mc2 (1)\n\n").around("formula", "E = mc2 (1)")
    draft.add("Sugar", "sectionheader", n="2.2").add("\n").add(
        "As Jones et al. (2020) say, sugar is sweet.", "paragraph"
    )
    draft.around("bibref", "Jones et al. (2020)")
    draft.add("\n\n").add("Funding", "sectionheader").add("\n").add("By the state.", "paragraph").add("\n\n")
    draft.add("FIGURE 1", "sectionheader").add("\nA hidden caption.\n").around("figure", "A hidden caption.")
    draft.add("Ahmad P, Old heat. J Heat 2011.", "bibentry").add("\n").add("Li Q, New heat. 2020.", "bibentry")
    return draft.around("bibauthor", "Ahmad P").around("bibtitle", "Old heat").around("bibvenue", "J Heat")


PAPER_TEXT = """Grafting & heat <stress> in bitter gourd

Abstract

Heat harms plants.

Grafting helps.

Introduction

Heat is known to harm crops. See Figure 1.

Methods

Plants

Seeds were sown at p < 0.05 & more.

Sugar

As Jones et al. (2020) say, sugar is sweet."""


def text_of(xml: bytes) -> str:
    return jats.extract(xml, ExtractSettings()).text


def converted(draft: Draft) -> str:
    return text_of(to_jats(draft.text, draft.annotations()).xml)


def read(record: Any, fraction: float = 1.0) -> Outcome:
    return read_record(record if isinstance(record, bytes) else json.dumps(record).encode(), "f.gz:7", fraction)


def article(record: Any) -> Article:
    outcome = read(record)
    assert isinstance(outcome, Article), outcome
    return outcome


def test_a_record_becomes_its_title_abstract_and_sections_and_nothing_else() -> None:
    assert text_of(article(paper().record()).xml) == PAPER_TEXT


def test_what_is_known_of_a_record_is_kept_with_it_and_in_the_xml() -> None:
    found = article(paper().record())
    assert (found.article_id, found.pmcid, found.pmid, found.doi) == (
        "PMC9798118",
        "PMC9798118",
        "36589072",
        "10.1/x.2",
    )
    assert found.title == "Grafting & heat <stress> in bitter gourd"
    assert (found.licence, found.path) == ("CC BY-NC", "f.gz:7")
    extracted = jats.extract(found.xml, ExtractSettings())
    assert (extracted.title, extracted.pmcid, extracted.pmid) == (found.title, "PMC9798118", "36589072")
    assert (extracted.doi, extracted.licence, extracted.repairs) == ("10.1/x.2", "CC BY-NC", ())


@pytest.mark.parametrize(
    ("given", "licence"),
    [("CCBY", "CC BY"), ("CCBYNCND", "CC BY-NC-ND"), ("cc-by-nc-sa", "CC BY-NC-SA"), ("CCBYSA", "CC BY-SA"),
     ("CC BY-ND 4.0", "CC BY-ND"), ("CC0", "CC0"), ("publisher-specific-oa", ""), (None, ""), ({"a": 1}, "")],
)  # fmt: skip
def test_licences_are_written_as_pubmed_central_does(given: Any, licence: str) -> None:
    record = paper().record()
    record["content"]["source"]["oainfo"] = {"license": given}
    found = article(record)
    assert found.licence == licence
    assert jats.extract(found.xml, ExtractSettings()).licence == licence


@pytest.mark.parametrize(
    ("external", "pmcid"),
    [({"pubmedcentral": "PMC12"}, "PMC12"), ({"pubmedcentral": 12}, "PMC12"), ({"pubmedcentral": "pmc0012"}, "PMC12"),
     ({"PubMedCentral": "12"}, "PMC12"), ({"PubMedCentral": None, "pubmedcentral": "12"}, "PMC12"),
     ({"pubmedcentral": 12, "PubMedCentral": None}, "PMC12")],
)  # fmt: skip
def test_ids_come_in_many_spellings(external: dict[str, Any], pmcid: str) -> None:
    record = paper().record()
    record["externalids"] = external | {"PubMed": 5, "DOI": " 10.1/y "}
    found = article(record)
    assert (found.article_id, found.pmid, found.doi) == (pmcid, "5", "10.1/y")


@pytest.mark.parametrize("order", ["corpusid first", "corpusid last", "spaced"])
@pytest.mark.parametrize(
    ("external", "expected"),
    [
        ({"pubmedcentral": None}, LeftOut("corpusid:77", "no-pmc-id")),
        ({"pubmedcentral": ""}, LeftOut("corpusid:77", "no-pmc-id")),
        ({"doi": "10.1/a}b"}, LeftOut("corpusid:77", "no-pmc-id")),
        (None, LeftOut("corpusid:77", "no-pmc-id")),
        ({"pubmedcentral": "x1"}, Rejected(id="corpusid:77", reason="bad-pmc-id", detail="pubmedcentral is 'x1'")),
        ({"pubmedcentral": True}, Rejected(id="corpusid:77", reason="bad-pmc-id", detail="pubmedcentral is 'True'")),
    ],
)
def test_a_record_without_pmc_id_is_left_out_wherever_its_ids_stand(
    external: Any, expected: Outcome, order: str
) -> None:
    record = {"corpusid": 77, "externalids": external, "content": paper().record()["content"]}
    if order == "corpusid last":
        record = dict(reversed(record.items()))
    line = json.dumps(record, indent=1 if order == "spaced" else None).replace("\n", " ")
    assert read(line.encode()) == expected


def test_the_head_of_a_record_is_not_mistaken_for_ids_in_its_text() -> None:
    record = paper().record(pubmedcentral="31")
    record["content"]["text"] = '{"corpusid": 5, "externalids": {"pubmedcentral": null}, ' + record["content"]["text"]
    record["content"]["annotations"] = None
    assert article(record).pmcid == "PMC31"


@pytest.mark.parametrize("text", [None, "", " \n\t "])
def test_a_record_without_text_is_left_out(text: str | None) -> None:
    record = paper().record()
    record["content"]["text"] = text
    assert read(record) == LeftOut("PMC9798118", "no-text")
    record["content"] = None
    assert read(record) == LeftOut("PMC9798118", "no-text")


def test_a_record_of_which_only_the_front_matter_is_known_is_left_out() -> None:
    draft = Draft().add("A title", "title").add("\n").add("An abstract.", "abstract").add("\n").add("A Name", "author")
    assert read(draft.record()) == LeftOut("PMC9798118", "no-body")


def test_a_larger_sample_contains_a_smaller_one_and_goes_by_the_id_alone() -> None:
    records = [paper().record(corpus_id=n, pubmedcentral=str(1000 + n)) for n in range(200)]

    def kept(fraction: float) -> set[str]:
        return {found.article_id for found in (read(r, fraction) for r in records) if isinstance(found, Article)}

    small, large = kept(0.1), kept(0.4)
    assert small < large < kept(1.0)
    assert small == {f"PMC{1000 + n}" for n in range(200) if in_sample(f"PMC{1000 + n}", 0.1)}
    left = next(r for r in records if f"PMC{r['externalids']['pubmedcentral']}" not in small)
    assert read(left, 0.1) == LeftOut(f"PMC{left['externalids']['pubmedcentral']}", "not-sampled")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"corpusid": 1, "externalids": {"pubmedcentral": "1"}, "content"', "not-json"),
        (b"\xff\xfe{}", "not-json"),
        (b"[" * 100_000, "not-json"),
        (b'{"corpusid": ' + b"9" * 5000 + b"}", "not-json"),
        (b"[1]", "bad-record"),
        (b'{"corpusid": 1, "externalids": {"pubmedcentral": "1"}, "content": [1]}', "bad-record"),
        (b'{"corpusid": 1, "externalids": {"pubmedcentral": "1"}, "content": {"text": 3}}', "bad-record"),
        (b'{"corpusid": 1, "externalids": {"pubmedcentral": "1"}, "content": {"text": "a", "annotations": [1]}}',
         "bad-annotations"),
    ],
)  # fmt: skip
def test_a_line_that_is_no_record_is_rejected_by_name(line: bytes, reason: str) -> None:
    found = read(line)
    assert isinstance(found, Rejected)
    assert (found.reason, found.id in {"f.gz:7", "corpusid:1", "PMC1"}) == (reason, True)
    assert "f.gz:7" in found.detail
    assert len(found.detail) < 300


# ---- annotations -----------------------------------------------------------------------------------------------------


def test_without_paragraph_annotations_blank_lines_divide_what_is_left() -> None:
    draft = Draft().add("A title", "title").add("\n").add("A. Author", "author").add(", ").add("B. Author", "author")
    draft.add("\n\n").add("An abstract.", "abstract").add(
        "\n\nFirst paragraph,\nsecond line.\n \n\nSecond one [1].\n\n"
    )
    draft.add("Ref A. 2011.", "bibentry").add("\n").add("Ref B. 2012.", "bibentry")
    # A typed citation goes too: the extraction learns how long the bibliography was.
    expected = "A title\n\nAbstract\n\nAn abstract.\n\nFirst paragraph, second line.\n\nSecond one."
    assert converted(draft) == expected
    draft.spans["paragraph"] = []
    assert converted(draft) == expected


def test_without_any_annotation_the_whole_text_is_prose() -> None:
    assert text_of(to_jats("One.\n\nTwo.\r\n\r\nThree & <four>.", {}).xml) == "One.\n\nTwo.\n\nThree & <four>."


def test_no_character_stands_in_two_places() -> None:
    draft = Draft().add("Title", "title").add(" ").add("Abstract text here.", "abstract").add("\n\n")
    draft.add("Head", "sectionheader").add(" first paragraph of it. ").add("Inner part.").add("\n\nlast one.")
    draft.mark("paragraph", 0, len(draft.text)).around("paragraph", "Inner part.").around("paragraph", "part.", "last")
    draft.around("sectionheader", "text")  # within the abstract: the abstract's
    draft.mark("abstract", 0, 3)  # within the title: the title's
    said = "Title Abstract Abstract text here. Head first paragraph of it. Inner part. last one."
    assert " ".join(converted(draft).split()) == said


def test_what_is_cut_leaves_the_paragraph_around_it_whole() -> None:
    draft = Draft().add("Before the name J. Doe after it.", "paragraph").around("author", "J. Doe")
    draft.around("authorfirstname", "J.").around("authorlastname", "Doe").around("authoraffiliation", "Doe after")
    assert converted(draft) == "Before the name it."


def test_annotations_that_are_there_twice_count_once() -> None:
    draft = paper()
    for spans in draft.spans.values():
        spans += spans
    record = draft.record()
    assert text_of(article(record).xml) == PAPER_TEXT
    assert article(record).title == "Grafting & heat <stress> in bitter gourd"


def test_the_longer_of_two_headings_stands() -> None:
    draft = Draft().add("Materials and methods", "sectionheader").add("\n").add("Mice were used.", "paragraph")
    draft.around("sectionheader", "methods").around("sectionheader", "and")
    assert converted(draft) == "Materials and methods\n\nMice were used."


def test_a_link_across_two_paragraphs_goes_from_both_whatever_nests_in_it() -> None:
    draft = Draft().add("One 3", "paragraph").add("\n\n").add("4 two.", "paragraph")
    draft.around("bibref", "3", "4").around("bibref", "3")
    assert converted(draft) == "One\n\ntwo."


def test_links_that_nest_overlap_or_cross_a_paragraph_are_cut_to_size() -> None:
    draft = Draft().add("One [3].", "paragraph").add("\n\n").add("Two [4] see Fig. 2 end.", "paragraph")
    draft.around("bibref", "[3].", "Two").around("bibref", "[4]").around("bibref", "4").around(
        "figureref", "4] see Fig. 2"
    )
    assert converted(draft) == "One.\n\nTwo see Fig. 2 end."


@pytest.mark.parametrize(
    ("text", "links", "expected"),
    [
        ("Known [1,2] facts.", ["[1,", "2]"], "Known facts."),
        ("Known [12] facts.", ["[12"], "Known facts."),
        ("Known (1) facts.", ["1"], "Known facts."),
        ("Known1,2 facts.", ["1", "2"], "Known facts."),
        ("Known (Li, 2020; Wu & Ha, 2021).", ["(Li, 2020;", "Wu & Ha, 2021)"], "Known."),
        ("By Li et al. (2020), known.", ["Li et al. (2020)"], "By Li et al. (2020), known."),
        ("Known (see Li (2020)).", ["Li (2020))"], "Known."),
    ],
)
def test_citations_leave_no_debris(text: str, links: list[str], expected: str) -> None:
    draft = Draft().add(text, "paragraph")
    for link in links:
        draft.around("bibref", link)
    assert converted(draft) == expected


@pytest.mark.parametrize("kind", ["title", "abstract", "sectionheader", "paragraph", "bibref", "author", "bibentry"])
@pytest.mark.parametrize(
    "span",
    [{"start": 5, "end": 2}, {"start": -1, "end": 2}, {"start": 0, "end": 99}, {"start": 90, "end": 99},
     {"start": 1.5, "end": 2}, {"start": "a", "end": 2}, {"start": None, "end": 2}, {"end": 2}, {}, 3, None, [1, 2],
     {"start": True, "end": 2}, {"start": 1e400, "end": 2}, {"start": "9" * 5000, "end": 2}, {"start": [1], "end": 2}],
    ids=str,
)  # fmt: skip
def test_a_span_that_fits_no_text_rejects_the_record(kind: str, span: Any) -> None:
    record = Draft().add("A text of words.", "paragraph").record()
    record["content"]["annotations"][kind] = json.dumps([{"start": 0, "end": 3}, span])
    found = read(record)
    assert isinstance(found, Rejected)
    assert (found.id, found.reason) == ("PMC9798118", "bad-annotations")
    assert kind in found.detail
    assert len(found.detail) < 250


@pytest.mark.parametrize("value", ["[{", '"text"', "3", "{}x", 7, "[" * 99_999, {"start": 1}])
def test_annotations_that_are_no_list_reject_the_record(value: Any) -> None:
    record = paper().record()
    record["content"]["annotations"]["bibentry"] = value
    found = read(record)
    assert isinstance(found, Rejected)
    assert found.reason == "bad-annotations"


def test_spans_as_strings_as_floats_as_plain_lists_and_one_beyond_the_end_are_mended() -> None:
    text = "Title. A text of words."
    given = {
        "title": '[{"start": "0", "end": "6"}, {"start": "3", "end": 3}]',
        "paragraph": [{"start": 7.0, "end": len(text) + 1}],
        "author": "",
        "venue": "null",
        "unknownkind": "[{",
    }
    assert text_of(to_jats(text, given).xml) == "Title.\n\nA text of words."


def test_characters_that_xml_cannot_hold_are_dropped_and_all_others_kept() -> None:
    odd = "\x00\x08\x0b\x0c\x1f\udfff\ud800\ufffe\uffff"
    draft = Draft().add(f"T{odd}itle", "title").add(f"\nGood{odd} text 𝛼 β é \x85 a]]> <p> &amp; fine.", "paragraph")
    record = draft.record(doi=f"10.1/{odd}x")
    found = article(record)
    assert (found.title, found.doi) == ("Title", "10.1/x")
    extracted = jats.extract(found.xml, ExtractSettings())
    assert extracted.text == "Title\n\nGood text 𝛼 β é a]]> <p> &amp; fine."
    assert extracted.repairs == ()


def test_sections_nest_by_their_numbers_and_an_unnumbered_one_stands_apart() -> None:
    draft = Draft()
    for number, head in [
        ("1", "One"),
        ("1.1", "Deep"),
        ("1.1.1", "Deeper"),
        ("", "Funding"),
        ("1.2", "Next"),
        ("10", "Ten"),
    ]:
        draft.add(head, "sectionheader", n=number).add("\n").add(f"{head} says this.", "paragraph").add("\n")
    xml = to_jats(draft.text, draft.annotations()).xml.decode()
    assert re.sub(r"<title>(\w+)</title>|<p>.*?</p>", r"\1", xml.split("<body>")[1].split("</body>")[0]) == (
        "<sec>One<sec>Deep<sec>Deeper</sec></sec></sec><sec>Funding</sec><sec>Next</sec><sec>Ten</sec>"
    )
    assert "Funding" not in text_of(xml.encode())
    assert "Next says this." in text_of(xml.encode())


def test_random_annotations_never_crash_and_never_write_a_character_twice() -> None:
    chance = random.Random(7)
    kinds = ["title", "abstract", "sectionheader", "paragraph", "bibref", "figureref", "tableref", "author", "bibentry"]
    words = ["word", "[3]", "(Li 2020)", "<&>", "\n\n", "𝛼", "\x00", "\ud83d", "end."]
    written = 0
    for _ in range(600):
        text = " ".join(f"{chance.choice(words)}{n}" for n in range(chance.randrange(1, 40)))
        spans: dict[str, list[dict[str, int]]] = {kind: [] for kind in kinds}
        for _ in range(chance.randrange(0, 25)):
            start = chance.randrange(len(text) + 1)
            span = {"start": start, "end": min(len(text), start + chance.randrange(120)), "attributes": {"n": "1.2"}}
            spans[chance.choice(kinds)].append(span)
        found = to_jats(text, {kind: json.dumps(each) for kind, each in spans.items()})
        if not found.xml:
            continue
        written += 1
        root = jats.parse(found.xml, 1 << 20)[0]
        counts = [int(n) for n in re.findall(r"word(\d+)", "|".join(root.itertext()))]
        assert len([n for n in counts if n > 9]) == len({n for n in counts if n > 9})
    assert written > 200


def test_spans_beyond_the_text_name_the_kind_and_the_length() -> None:
    with pytest.raises(BadAnnotations, match=r"^paragraph has .*99.* in a text of 4 characters$"):
        to_jats("text", {"paragraph": '[{"start": 0, "end": 99}]'})


# ---- the API and the files, over HTTP --------------------------------------------------------------------------------


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up, or is hung up on, is what these tests are about."""


class Service:
    """The Datasets API and the host of its files on one port, which can be told to misbehave."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.releases = {RELEASE}
        self.signature = 0  # grows with each listing; only the newest is valid if `only_newest`
        self.only_newest = False
        self.ranges = True
        self.api_faults: list[tuple[int, dict[str, str], bytes]] = []
        self.file_faults: list[str] = []
        self.seen: list[tuple[str, str]] = []
        service = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                credentials = self.headers.get("Proxy-Authorization", "")
                service.seen.append((urlsplit(self.path).path, self.headers.get("Range", credentials)))
                if self.path.startswith("/api/"):
                    service.answer_api(self)
                elif self.path.startswith("/"):
                    service.answer_file(self)
                else:
                    send(self, 404, b"")

            def log_message(self, *_: Any) -> None:
                pass

        self.server = Quiet(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def put(self, number: int, *records: Any) -> str:
        lines = b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in records)
        name = f"{FOLDER}/2026_{number:05d}_part.gz"
        self.files[name] = gzip.compress(lines, 1)
        return name

    def answer_api(self, handler: BaseHTTPRequestHandler) -> None:
        if self.api_faults:
            status, headers, body = self.api_faults.pop(0)
            return send(handler, status, body, headers)
        if handler.headers.get("x-api-key") != KEY:
            return send(handler, 403, b'{"message":"Forbidden"}')
        parts = handler.path.removeprefix("/api/release/").split("/")
        release = RELEASE if parts[0] == "latest" else parts[0]
        if release not in self.releases:
            return send(handler, 404, b'{"error":"no such release"}')
        if parts[1:] == ["dataset", "s2orc"]:
            self.signature += 1
            query = f"X-Amz-Signature={SECRET}&n={self.signature}"
            addresses = [f"{self.address}/{name}?{query}" for name in reversed(self.files)]
            return send(handler, 200, json.dumps({"name": "s2orc", "files": addresses}).encode())
        return send(handler, 200, json.dumps({"release_id": release, "datasets": []}).encode())

    def answer_file(self, handler: BaseHTTPRequestHandler) -> None:
        url = urlsplit(handler.path)
        query = parse_qs(url.query)
        fault = self.file_faults.pop(0) if self.file_faults else ""
        if fault.isdigit():
            return send(handler, int(fault), b"<Error/>")
        if fault == "slow-down":
            return send(handler, 503, b"<Error/>", {"Retry-After": "1"})
        if query.get("X-Amz-Signature") != [SECRET] or (self.only_newest and query["n"] != [str(self.signature)]):
            return send(handler, 403, b"<Error><Code>AccessDenied</Code></Error>")
        data = self.files[url.path.strip("/")]
        start = int((handler.headers.get("Range", "") if self.ranges else "").removeprefix("bytes=").rstrip("-") or 0)
        body = data[start : start + 1000] if fault == "short" else data[start:]
        headers = {"ETag": '"other"' if fault == "changed" else '"one"', "Content-Encoding": "gzip"}
        if start:
            headers["Content-Range"] = f"bytes {start}-{start + len(body) - 1}/{len(data)}"
        handler.send_response(206 if start else 200)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            handler.send_header(name, value)
        handler.end_headers()
        if fault in ("reset", "cut", "stall"):
            handler.wfile.write(body[: len(body) // 2])
            handler.wfile.flush()
            handler.close_connection = True
            if fault == "stall":
                time.sleep(1.5)
            if fault == "reset":
                handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                handler.connection.close()
            return None
        handler.wfile.write(body)
        return None


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
    handler.send_response(status)
    for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
        handler.send_header(name, value)
    handler.end_headers()
    handler.wfile.write(body)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    found = Service()
    monkeypatch.setenv("S2_API_KEY", KEY)
    monkeypatch.setenv("S2_API_URL", f"{found.address}/api/")
    yield found
    found.server.shutdown()
    found.server.server_close()


def source(**more: Any) -> S2orcSource:
    transport = TransportSettings(read_timeout_seconds=1, longest_backoff_seconds=0.01, attempts=4)
    return S2orcSource(DownloadSettings(**({"source": "s2orc", "transport": transport} | more)))


def fetched(**more: Any) -> list[Outcome]:
    found = source(**more)
    return [outcome for part in found.plan().parts for outcome in found.fetch(part.table, None)]


def many(count: int) -> list[dict[str, Any]]:
    """Records whose texts do not compress, so that a file is longer than what a socket holds at once."""
    chance = random.Random(1)
    return [
        Draft().add(f"Noise {chance.randbytes(20_000).hex()}", "paragraph").record(n, pubmedcentral=str(1000 + n))
        for n in range(count)
    ]


def ids(outcomes: list[Outcome]) -> list[str]:
    return [found.article_id for found in outcomes if isinstance(found, Article)]


def test_a_plan_has_a_shard_for_each_file_of_the_release_that_latest_stands_for(service: Service) -> None:
    names = [service.put(number, paper().record()) for number in (2, 0, 1)]
    plan = source().plan()
    parts = list(plan.parts)
    assert [part.name for part in parts] == ["shard-00000", "shard-00001", "shard-00002"]
    assert [part.table.to_pylist() for part in parts] == [[{"release": RELEASE, "file": n}] for n in sorted(names)]
    assert (plan.articles, plan.inputs, plan.totals["files"]) == (0, {"s2orc": RELEASE}, 3)
    again = source(s2orc={"release": RELEASE}).plan()
    assert [p.table for p in again.parts] == [p.table for p in parts]
    assert again.inputs == plan.inputs
    assert release_of(source().settings) == release_of(source(s2orc={"release": RELEASE}).settings) == RELEASE


def test_a_file_gives_its_articles_in_order_and_counts_the_others(service: Service) -> None:
    service.put(
        0, paper().record(1), b"", paper().record(2, pubmedcentral=None), b"{broken", paper().record(3, pubmedcentral=8)
    )
    first, second, third, fourth = fetched()
    assert isinstance(first, Article)
    assert text_of(first.xml) == PAPER_TEXT
    assert first.path == "2026_00000_part.gz:1"
    assert second == LeftOut("corpusid:2", "no-pmc-id")
    assert isinstance(third, Rejected)
    assert (third.id, third.reason) == ("2026_00000_part.gz:4", "not-json")
    assert isinstance(fourth, Article)
    assert fourth.article_id == "PMC8"


def test_the_stage_packs_a_file_into_a_raw_shard_and_never_reads_it_twice(service: Service, tmp_path: Path) -> None:
    other = paper().record(2, pubmedcentral=None)
    service.put(0, paper().record(1), other, b"{broken", paper().record(3, pubmedcentral=8))
    settings = source().settings
    plan = plan_download(settings, storage.to_uri(tmp_path))
    assert (len(plan.shards), plan.inputs) == (1, {"s2orc": RELEASE})
    raw = fetch_shard(plan, "shard-00000", settings)
    assert (raw.totals["listed"], raw.totals["articles"]) == (4, 2)
    assert (raw.dropped, [each.reason for each in raw.rejected]) == ({"no-pmc-id": 1}, ["not-json"])
    rows = pq.read_table(storage.local_path(raw.shards[0].uri)).to_pylist()
    assert [(row["article_id"], row["source"], row["licence"]) for row in rows] == [
        ("PMC9798118", "s2orc", "CC BY-NC"),
        ("PMC8", "s2orc", "CC BY-NC"),
    ]
    assert text_of(rows[0]["xml"]) == PAPER_TEXT
    service.seen.clear()
    assert fetch_shard(plan, "shard-00000", settings) == raw
    assert service.seen == []
    assert SECRET.encode() not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_line_that_is_too_long_is_rejected_and_the_next_one_read(service: Service) -> None:
    service.put(0, b'{"a": "' + b"x" * 50_000 + b'"}', paper().record(), b"y" * 20_000)
    found = fetched(max_article_bytes=10_000)
    assert [f.reason if isinstance(f, Rejected) else "" for f in found] == ["too-large", "", "too-large"]
    assert ids(found) == ["PMC9798118"]


def test_another_sample_or_limit_is_another_identity(service: Service) -> None:
    assert len({source(**s).identity() for s in ({}, {"sample_fraction": 0.5}, {"max_article_bytes": 10_000})}) == 3
    assert source().identity() == source(s2orc={"release": RELEASE}).identity()


@pytest.mark.parametrize(
    ("faults", "opened"),
    [
        (["reset"], 2),
        (["cut"], 2),
        (["stall"], 2),
        (["500", "503"], 3),
        (["slow-down"], 2),
        (["cut", "short"], 3),
        (["reset", "cut", "500"], 4),
    ],
    ids=str,
)
def test_a_fault_of_the_file_host_costs_no_record(service: Service, faults: list[str], opened: int) -> None:
    name = service.put(0, *many(40))
    expected = ids(fetched())
    service.seen.clear()
    service.file_faults = list(faults)
    started = time.monotonic()
    assert ids(fetched()) == expected == [f"PMC{1000 + n}" for n in range(40)]
    if faults == ["slow-down"]:
        assert time.monotonic() - started >= 1  # as its Retry-After asks
    ranges = [span for path, span in service.seen if path == f"/{name}"]
    assert len(ranges) == opened
    half = len(service.files[name]) // 2
    if faults == ["cut"]:
        assert ranges == ["", f"bytes={half}-"]  # nothing is read twice


def test_a_host_without_ranges_is_read_again_from_the_start(service: Service) -> None:
    service.put(0, *many(40))
    service.ranges, service.file_faults = False, ["reset", "cut"]
    assert len(ids(fetched())) == 40


def test_an_address_that_expires_is_asked_for_anew(service: Service) -> None:
    service.put(0, *many(30))
    found = source()
    [part] = found.plan().parts
    service.only_newest = True
    service.file_faults = ["403", "cut", "400"]  # before the first byte, and half-way
    assert len(ids(list(found.fetch(part.table, None)))) == 30
    assert service.signature == 4  # the plan's, the fetch's, and one for each that had expired


def test_a_fresh_address_that_is_refused_too_ends_the_fetch(service: Service) -> None:
    name = service.put(0, paper().record())
    service.file_faults = ["403"] * 9
    with pytest.raises(InputError, match=rf"{name} refuses even a fresh address \(HTTP 403\)"):
        fetched()
    assert service.signature == 3  # the plan's, the fetch's, the fresh one


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (["404"], "answers HTTP 404"),
        (["500"] * 9, r"cannot be read beyond byte 0 \(HTTP 500\); run again"),
        (["cut"] * 9, r"cannot be read beyond byte [\d,]+ of [\d,]+ \(.*\); run again"),
        (["cut", "changed"], "has changed while it was read"),
    ],
    ids=str,
)
def test_a_file_that_cannot_be_read_ends_the_fetch(service: Service, faults: list[str], message: str) -> None:
    service.put(0, *many(10))
    service.file_faults = list(faults)
    with pytest.raises(InputError, match=message) as caught:
        fetched()
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "no gzip", "trailing"])
def test_a_damaged_file_ends_the_fetch_and_says_how_far_it_was_good(service: Service, damage: str) -> None:
    name = service.put(0, *many(40))
    data = service.files[name]
    service.files[name], least, most = {
        "truncated": (data[: len(data) // 2], 1, 20),
        "flipped": (data[:-8] + bytes([data[-8] ^ 1]) + data[-7:], 20, 40),
        "no gzip": (b"<html>" + data, 0, 0),
        "trailing": (data + b"rest", 20, 40),
    }[damage]
    with pytest.raises(InputError, match=rf"{name} is truncated or damaged after \d+ readable records") as caught:
        fetched()
    assert least <= int(re.findall(r"after (\d+)", str(caught.value))[0]) <= most


def test_a_file_of_several_gzip_members_is_read_to_its_end(service: Service) -> None:
    name = service.put(0, paper().record())
    service.files[name] += gzip.compress(json.dumps(paper().record(2, pubmedcentral="5")).encode())
    assert ids(fetched()) == ["PMC9798118", "PMC5"]


def test_a_file_that_left_the_release_ends_the_fetch(service: Service) -> None:
    name = service.put(0, paper().record())
    found = source()
    [part] = found.plan().parts
    service.files = {f"{FOLDER}/other.gz": service.files[name]}
    with pytest.raises(InputError, match=f"has lost the file {name}"):
        list(found.fetch(part.table, None))


def test_no_key_and_a_wrong_key_name_the_variable(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2_API_KEY", "guess")
    with pytest.raises(
        InputError, match=r"refuses the key \(HTTP 403\); check the environment variable S2_API_KEY"
    ) as e:
        source().plan()
    assert "guess" not in str(e.value)
    assert len(service.seen) == 1  # asking again cannot help
    monkeypatch.delenv("S2_API_KEY")
    with pytest.raises(InputError, match="environment variable S2_API_KEY"):
        source()


def test_a_release_that_is_not_there_names_the_setting(service: Service) -> None:
    with pytest.raises(InputError, match=r"no release '2020-01-01' of S2ORC at .*; set download\.s2orc\.release"):
        source(s2orc={"release": "2020-01-01"}).plan()


def test_a_busy_api_is_asked_again_when_it_says(service: Service) -> None:
    service.put(0, paper().record())
    service.api_faults = [(429, {"Retry-After": "1"}, b"{}"), (500, {}, b""), (503, {}, b"")]
    started = time.monotonic()
    assert len(list(source().plan().parts)) == 1
    assert time.monotonic() - started >= 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ((429, {}, b"{}"), r"asked too often \(HTTP 429\)"),
        ((500, {}, b"{}"), "answers HTTP 500"),
        ((302, {"Location": "http://127.0.0.1:1/"}, b""), "answers HTTP 302"),
        ((200, {}, b"<html>"), "does not answer in JSON"),
        ((200, {}, b"[]"), "names no release_id"),
        ((200, {}, b'{"release_id": "../../x"}'), "names no release_id"),
    ],
    ids=str,
)
def test_an_api_that_does_not_answer_is_named(service: Service, fault: tuple[int, dict, bytes], message: str) -> None:
    service.api_faults = [fault] * 9
    with pytest.raises(InputError, match=message):
        source().plan()


@pytest.mark.parametrize("files", [b"{}", b'{"files": []}', b'{"files": [3]}', b'{"files": ["file:///etc/passwd"]}'])
def test_a_listing_without_files_is_refused(service: Service, files: bytes) -> None:
    service.api_faults = [(200, {}, json.dumps({"release_id": RELEASE}).encode()), (200, {}, files)]
    with pytest.raises(InputError, match=f"{RELEASE}/dataset/s2orc lists no files"):
        source().plan()


def test_an_api_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("S2_API_KEY", KEY)
    monkeypatch.setenv("S2_API_URL", "http://127.0.0.1:1/api")
    with pytest.raises(InputError, match=r"http://127.0.0.1:1/api/release/latest cannot be reached \(.*refused"):
        source().plan()
    monkeypatch.setenv("S2_API_URL", "ftp://somewhere")
    with pytest.raises(InputError, match="S2_API_URL='ftp://somewhere' is no plain http"):
        source()
    monkeypatch.setenv("S2_API_URL", "http://me:hidden@somewhere")
    with pytest.raises(InputError, match="S2_API_URL='http://somewhere' is no plain http"):
        source()


def test_the_environments_proxy_is_used_and_its_exceptions_are_not(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.put(0, paper().record())
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with pytest.raises(InputError, match="cannot be reached"):
        source().plan()
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert len(list(source().plan().parts)) == 1
    monkeypatch.delenv("no_proxy")
    monkeypatch.setenv("http_proxy", service.address.replace("//", "//me:pass%20word@"))
    with pytest.raises(InputError, match="There is no release"):  # it is no proxy, and is asked as one
        source().plan()
    assert service.seen[-1] == ("/api/release/latest", "Basic " + b64encode(b"me:pass word").decode())


def test_max_articles_is_refused_before_anything_is_asked(service: Service) -> None:
    with pytest.raises(InputError, match=r"max_articles=5 .* download\.sample_fraction in its place"):
        source(max_articles=5)
    assert service.seen == []


def test_the_signature_and_the_key_are_never_logged_or_kept(
    service: Service, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.put(0, *many(20))
    service.file_faults = ["reset", "500", "403"]
    # Other tests may have quietened the client's log, as every step does, or disabled it, as Alembic does.
    requests = "urllib3.connectionpool"
    monkeypatch.setattr(logging.getLogger(requests), "disabled", False)
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, logger=requests):
        found = source()
        plan = found.plan()
        outcomes = [outcome for part in plan.parts for outcome in found.fetch(part.table, None)]
    assert len(ids(outcomes)) == 20
    assert f"GET /{FOLDER}/2026_00000_part.gz" in caplog.text  # the requests are logged, their queries are not
    everything = caplog.text + repr(plan) + str([part.table.to_pylist() for part in plan.parts])
    assert SECRET not in everything
    assert KEY not in everything
