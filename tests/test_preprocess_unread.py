"""What nobody reads is set apart before an article is parsed, and only where that is safe."""

import time

import pytest

from components.preprocess.extraction import jats
from components.preprocess.extraction.unread import trim
from components.preprocess.settings import ExtractSettings

LIST = b"<ref-list><ref id=\"r1\"><p>One</p></ref><ref  id='r2'/><ref><p>Three</p></ref></ref-list>"
TABLE = b"<table frame='box'><tr><td>7</td></tr></table>"


def article(body: bytes, back: bytes = b"") -> bytes:
    return b"<article><body><p>Text.</p>" + body + b"</body><back>" + back + b"</back></article>"


def trimmed(xml: bytes, **wanted: bool) -> bytes:
    return trim(xml, ExtractSettings.model_validate(wanted)).xml


def test_tables_and_what_stands_behind_the_body_are_set_apart_and_the_references_known() -> None:
    found = trim(article(TABLE + b"<p>More.</p>" + TABLE, LIST + b"<ack/>" + LIST), ExtractSettings())
    assert found.xml == article(b"<p>More.</p>").replace(b"<back></back>", b"")
    assert found.reference_count == 6
    assert found.reference_ids == {"r1", "r2"}


@pytest.mark.parametrize("wanted", ["acknowledgements", "data_availability", "appendices"])
def test_only_the_reference_lists_go_where_something_behind_the_body_is_wanted(wanted: str) -> None:
    found = trim(article(b"", LIST + b"<ack/>" + LIST), ExtractSettings.model_validate({wanted: True}))
    assert found.xml == article(b"", b"<ack/>")
    assert found.reference_count == 6


def test_tables_stay_where_they_are_wanted() -> None:
    assert trimmed(article(TABLE, LIST), tables=True, appendices=True) == article(TABLE)


def test_authors_are_set_apart() -> None:
    xml = b"<front><contrib-group><contrib/></contrib-group><p>x</p></front><body><p>Text.</p></body>"
    assert trimmed(xml) == b"<front><p>x</p></front><body><p>Text.</p></body>"


@pytest.mark.parametrize("name", [b"sub-article", b"response"])
def test_reviews_and_replies_are_set_apart_unless_wanted(name: bytes) -> None:
    review = b"<%b><body><p>Good.</p></body><back>%b</back></%b>" % (name, LIST, name)
    xml = article(b"", LIST).replace(b"</article>", b"<floats-group/>" + review + review + b"</article>")
    kept = article(b"").replace(b"<back></back>", b"<floats-group/>")
    assert trimmed(xml) == kept
    assert trimmed(xml, sub_articles=True) == kept.replace(b"</article>", review + review + b"</article>")


def test_names_that_only_begin_alike_are_other_elements() -> None:
    xml = article(b"<table-wrap><table-wrap-foot/></table-wrap><tables></tables>", b"<ref-list-group></ref-list-group>")
    assert trimmed(xml, appendices=True) == xml
    wrapped = article(b"<table-wrap>" + TABLE + b"</table-wrap>")
    assert trimmed(wrapped, appendices=True) == article(b"<table-wrap></table-wrap>")


def test_elements_within_elements_of_their_name_go_as_one() -> None:
    nested = b"<table><tr><td>" + TABLE + b"</td><td>" + TABLE + TABLE + b"</td></tr></table>"
    expected = article(b"<p>After.</p>" + b"<p>Last.</p>")
    assert trimmed(article(nested + b"<p>After.</p>" + TABLE + b"<p>Last.</p>"), appendices=True) == expected


def test_comments_hide_no_markup() -> None:
    body = b"<table><!-- </table> --><tr/></table><!-- <table> --><p>kept!</p>" + TABLE
    assert trimmed(article(body), appendices=True) == article(b"<p>kept!</p>")


@pytest.mark.parametrize(
    "body",
    [
        b"<table><tr><td>never closed</td></tr>",
        b"<p>never opened</p></table>",
        b"<![CDATA[<table>]]><p>kept</p>" + TABLE,
        b"<!-- never closed <p>kept</p>" + TABLE,
        b"<!-- two -- hyphens --><p>kept</p>" + TABLE,
        b"<table",
        b"<table ",
    ],
)
def test_what_only_a_parser_can_tell_is_left_whole(body: bytes) -> None:
    assert trimmed(article(body), appendices=True) == article(body)


@pytest.mark.parametrize(
    "body",
    [
        b"<!-- <table> --><p>kept</p>" + TABLE,
        b"<p><![CDATA[a <table> b]]></p><p>kept</p>" + TABLE,
        b"<p>x</p><table-wrap><caption><p>Kept.</p></caption>" + TABLE + b"</table-wrap>",
        b"<table frame='a>b'><tr/></table><p>kept</p>",
        b"<table/><p>kept</p><table><tr/></table>",
        b"<table frame='box' /><p>kept</p><table><tr/></table>",
        b"<table><tr><td><table/></td></tr></table><p>kept</p>",
        b"<table><!-- </table> --><tr/></table><p>kept</p>",
        b"<?see <table> ?><p>kept</p>" + TABLE,
    ],
)
def test_the_text_is_that_of_the_whole_article(body: bytes) -> None:
    xml = article(body, LIST)
    whole = jats.extract(xml.replace(b"<article>", b"<article>" + b" " * 4_000_001), ExtractSettings())
    assert jats.extract(xml, ExtractSettings()).text == whole.text
    assert "ept" in whole.text


def test_typed_citations_go_when_the_list_that_was_set_apart_is_long_enough() -> None:
    body = b"<p>It is known [3] and [4].</p>"
    assert jats.extract(article(body, LIST), ExtractSettings()).text == "Text.\n\nIt is known and [4]."


def test_markup_without_end_costs_no_time() -> None:
    started = time.process_time()
    for tag in (b"</table>", b"<table>", b"<table-wrap>", b"<!", b"!"):
        trim(article(tag * (3_900_000 // len(tag))), ExtractSettings())
    assert time.process_time() - started < 10


def test_a_fault_in_what_is_set_apart_loses_no_article_and_one_outside_is_told_of_the_whole() -> None:
    broken = LIST.replace(b"</p>", b"</q>")
    assert jats.extract(article(b"<p>More.</p>", broken), ExtractSettings()).text == "Text.\n\nMore."
    with pytest.raises(jats.ArticleError) as error:
        jats.extract(article(b"<p>More.</q>", LIST), ExtractSettings())
    assert error.value.reason == "malformed-xml"
