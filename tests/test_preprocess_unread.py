"""What nobody reads is set apart before an article is parsed, and only where that is safe."""

import pytest

from components.preprocess.extraction import jats
from components.preprocess.extraction.unread import trim
from components.preprocess.settings import ExtractSettings

LIST = b"<ref-list><ref id=\"r1\"><p>One</p></ref><ref  id='r2'/><ref><p>Three</p></ref></ref-list>"
TABLE = b"<table frame='box'><tr><td>7</td></tr></table>"


def article(body: bytes, back: bytes = b"") -> bytes:
    return b"<article><body><p>Text.</p>" + body + b"</body><back>" + back + b"</back></article>"


def test_reference_lists_and_tables_are_set_apart_and_the_references_known() -> None:
    trimmed = trim(article(TABLE + b"<p>More.</p>" + TABLE, LIST + b"<ack/>" + LIST), tables=False)
    assert trimmed.xml == article(b"<p>More.</p>", b"<ack/>")
    assert trimmed.references == LIST + LIST
    assert trimmed.reference_count == 6
    assert trimmed.reference_ids == {"r1", "r2"}


def test_tables_stay_where_they_are_wanted() -> None:
    assert trim(article(TABLE, LIST), tables=True).xml == article(TABLE)


def test_names_that_only_begin_alike_are_other_elements() -> None:
    xml = article(b"<table-wrap><table-wrap-foot/></table-wrap><tables/>", b"<ref-list-group/>")
    assert trim(xml, tables=False).xml == xml
    assert trim(article(b"<table-wrap>" + TABLE + b"</table-wrap>"), tables=False).xml == article(
        b"<table-wrap></table-wrap>"
    )


def test_elements_within_elements_of_their_name_go_as_one() -> None:
    nested = b"<table><tr><td>" + TABLE + b"</td><td>" + TABLE + TABLE + b"</td></tr></table>"
    assert trim(article(nested + b"<p>After.</p>"), tables=False).xml == article(b"<p>After.</p>")


@pytest.mark.parametrize(
    "body",
    [
        b"<table><tr><td>never closed</td></tr>",
        b"<table /><p>after</p><table><tr/></table>",
        b"<!-- <table> --><p>kept</p>" + TABLE,
        b"<![CDATA[<table>]]><p>kept</p>" + TABLE,
        b"<table><!-- </table> --><tr/></table>",
        b"<table",
        b"<table ",
    ],
)
def test_what_only_a_parser_can_tell_is_left_whole(body: bytes) -> None:
    assert trim(article(body), tables=False).xml == article(body)


@pytest.mark.parametrize(
    "body",
    [
        b"<!-- <table> --><p>kept</p>" + TABLE,
        b"<p><![CDATA[a <table> b]]></p><p>kept</p>" + TABLE,
        b"<p>x</p><table-wrap><caption><p>Kept.</p></caption>" + TABLE + b"</table-wrap>",
        b"<table frame='a>b'><tr/></table><p>kept</p>",
        b"<table/><p>kept</p><table><tr/></table>",
        b"<table frame='box' /><p>kept</p><table><tr/></table>",
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


def test_a_fault_in_what_is_set_apart_loses_no_article_and_one_outside_is_told_of_the_whole() -> None:
    broken = LIST.replace(b"</p>", b"</q>")
    assert jats.extract(article(b"<p>More.</p>", broken), ExtractSettings()).text == "Text.\n\nMore."
    with pytest.raises(jats.ArticleError) as error:
        jats.extract(article(b"<p>More.</q>", LIST), ExtractSettings())
    assert error.value.reason == "malformed-xml"
