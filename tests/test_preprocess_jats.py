"""JATS to text: small articles with the exact text they must become, and what must be refused."""

# ruff: noqa: E501 - an XML snippet beside the text it becomes reads best on one line

import re
import tarfile
from pathlib import Path

import pytest

from components.preprocess.extraction.jats import Article, ArticleError, extract
from components.preprocess.settings import ExtractSettings

REAL = Path(__file__).parents[2] / "shared" / "data" / "jats-open.tar.gz"
MATHML = 'xmlns:mml="http://www.w3.org/1998/Math/MathML"'


def article(body: str, front: str = "", back: str = "", root: str = "") -> bytes:
    return (
        f'<article {MATHML} xmlns:xlink="http://www.w3.org/1999/xlink" {root}><front><article-meta><title-group>'
        f"<article-title>T</article-title></title-group>{front}</article-meta></front>"
        f"<body>{body}</body><back>{back}</back></article>"
    ).encode()


def text_of(body: str, front: str = "", back: str = "", **settings: object) -> str:
    text = extract(article(body, front, back), ExtractSettings.model_validate(settings)).text
    return text.removeprefix("T\n\n")


def refusal(xml: bytes, **settings: object) -> ArticleError:
    with pytest.raises(ArticleError) as caught:
        extract(xml, ExtractSettings.model_validate(settings))
    return caught.value


FULL = article(
    root='article-type="Research-Article" xml:lang="en-GB"',
    front="""
    <article-id pub-id-type="doi">10.1/x</article-id><article-id pub-id-type="pmid">12</article-id>
    <article-id pub-id-type="pmc">345</article-id>
    <contrib-group><contrib><name><surname>Doe</surname></name><xref ref-type="aff" rid="a1">1</xref></contrib></contrib-group>
    <aff id="a1">University of Nowhere</aff><author-notes><corresp>doe@example.org</corresp></author-notes>
    <pub-date pub-type="pmc-release"><year>2001</year></pub-date><pub-date pub-type="epub"><year>2012</year></pub-date>
    <pub-date date-type="collection"><year>2013</year></pub-date>
    <permissions><copyright-statement>(c) Doe</copyright-statement>
      <license xlink:href="http://creativecommons.org/licenses/by/4.0/"><license-p>Open</license-p></license></permissions>
    <abstract><sec><title>Background</title><p>Why.</p></sec><sec><title>Results</title><p>What.</p></sec></abstract>
    <abstract abstract-type="graphical"><p>A picture.</p></abstract>
    <trans-abstract xml:lang="pt"><p>Resumo.</p></trans-abstract>""",
    body="""
    <sec><label>1</label><title>Introduction</title><p>First <italic>in vitro</italic> work
       [<xref ref-type="bibr" rid="b1">1</xref>,<xref ref-type="bibr" rid="b2">2</xref>]
       .</p><sec><title>Aims</title><p>Second.</p></sec></sec>
    <sec sec-type="supplementary-material"><title>Files</title><p>Click here.</p></sec>
    <sec><title>2. Conflict of Interest:</title><p>None.</p></sec>""",
    back="""<ack><p>We thank.</p></ack><fn-group><fn><p>Note.</p></fn></fn-group>
    <ref-list><title>References</title><ref id="b1"><mixed-citation>Doe 1999</mixed-citation></ref></ref-list>""",
)


def test_an_article_becomes_title_abstract_and_body_and_nothing_of_its_apparatus() -> None:
    found = extract(FULL, ExtractSettings())
    assert found.text == (
        "T\n\nAbstract\n\nBackground\n\nWhy.\n\nResults\n\nWhat.\n\n"
        "Introduction\n\nFirst in vitro work.\n\nAims\n\nSecond."
    )


def test_what_the_article_says_of_itself_is_read() -> None:
    assert extract(FULL, ExtractSettings()) == Article(
        title="T",
        text=extract(FULL, ExtractSettings()).text,
        language="en",
        article_type="research-article",
        journal="",
        year=2012,
        licence="CC BY 4.0",
        doi="10.1/x",
        pmid="12",
        pmcid="PMC345",
        sections=4,
    )


@pytest.mark.parametrize(
    ("permissions", "licence"),
    [
        (
            "<license><license-p>under the Creative Commons Attribution-NonCommercial License</license-p></license>",
            "CC BY-NC",
        ),
        ("<license><license-p>Creative Commons Attribution License, which permits</license-p></license>", "CC BY"),
        ('<license xlink:href="https://creativecommons.org/publicdomain/zero/1.0/"/>', "CC0 1.0"),
        ("<license><license-p>distributed under CC-BY-NC-ND 4.0</license-p></license>", "CC BY-NC-ND 4.0"),
        ("<license><license-p>All rights reserved</license-p></license>", ""),
    ],
)
def test_licences_are_read_from_links_and_words(permissions: str, licence: str) -> None:
    xml = article("<p>x</p>", f"<permissions>{permissions}</permissions>")
    assert extract(xml, ExtractSettings()).licence == licence


@pytest.mark.parametrize(
    ("body", "text"),
    [
        # inline markup keeps the words as they stand
        ("<p>H<sub>2</sub>O and <bold>CO<sub>2</sub></bold>, m<sup>2</sup></p>", "H2O and CO2, m2"),
        ("<p>3 × 10<sup>6</sup> and 10<sup>−3</sup>, PO<sub>4</sub><sup>3−</sup></p>", "3 × 10^6 and 10^-3, PO4^3-"),
        ("<p>1<sup>st</sup>, (a + b)<sup>2</sup></p>", "1st, (a + b)^2"),
        ("<p>one<break/>two <named-content>three</named-content></p>", "one two three"),
        ("<p>see <ext-link xlink:href='http://x.org'>our site</ext-link></p>", "see our site"),
        ("<p>One.</p><p>Two.</p>", "One.\n\nTwo."),
        ("Loose words <italic>in</italic> the body<p>A paragraph.</p>", "Loose words in the body\n\nA paragraph."),
        ("<sec><title>Nothing under it</title><graphic/></sec><p>x</p>", "x"),
        # links
        ("<p>seen (<xref ref-type='fig' rid='f'>Fig. 2</xref>).</p>", "seen (Fig. 2)."),
        ("<p>known<sup><xref ref-type='bibr' rid='b'>1</xref>,<xref ref-type='bibr' rid='b'>2</xref></sup>.</p>", "known."),
        ("<p>known<xref ref-type='bibr' rid='b'><sup>1</sup></xref>and</p>", "known and"),
        ("<p>known<sup>[<xref ref-type='bibr' rid='b'>1</xref>–4]</sup>.</p>", "known."),
        ("<p>shown previously.<sup>12,13</sup> Next</p>", "shown previously. Next"),
        ("<p>known (<xref ref-type='bibr' rid='b'>Doe, 1999</xref>; <xref rid='r1'>Roe, 2000</xref>).</p>", "known."),
        ("<p><xref ref-type='bibr' rid='b'>Doe (1999)</xref> knew.</p>", "Doe (1999) knew."),
        ("<p>a word<xref ref-type='fn' rid='n'>*</xref> more<fn><p>Note.</p></fn>.</p>", "a word more."),
        ("<p>seen [1] and [2, 3], not [2, 9].</p>", "seen and, not [2, 9]."),
        # blocks within paragraphs
        (
            "<p>Before<list list-type='bullet'><list-item><p>one</p></list-item><list-item><p>two</p></list-item></list>after</p>",
            "Before\n\n- one\n- two\n\nafter",
        ),
        (
            "<list list-type='order'><list-item><p>one</p></list-item><list-item><p>two</p>"
            "<list><list-item><p>deep</p></list-item></list></list-item></list>",
            "1. one\n2. two\n  - deep",
        ),
        ("<list><list-item><label>(a)</label><p>one</p></list-item></list>", "(a) one"),
        (
            "<def-list><def-item><term>BMI</term><def><p>body mass index</p></def></def-item></def-list>",
            "BMI: body mass index",
        ),
        ("<disp-quote><p>Words.</p><attrib>Doe</attrib></disp-quote>", "Words.\n\nDoe"),
        ("<boxed-text><caption><title>Box 1</title></caption><p>In a box.</p></boxed-text>", "Box 1\n\nIn a box."),
        ("<speech><speaker>Q</speaker><p>Why?</p></speech>", "Q: Why?"),
        (
            "<p>See<fig id='f'><object-id>x</object-id><label>Figure 1.</label><caption><title>Growth</title><p>Of mice "
            "[<xref ref-type='bibr' rid='b'>3</xref>].</p><p>DOI: http://dx.doi.org/10.7554/e.1</p></caption>"
            "<alt-text>alt</alt-text><graphic/></fig></p>",
            "See\n\nFigure 1. Growth. Of mice.",
        ),
        ("<table-wrap><label>Table 1</label><caption><p>Ages</p></caption><table><tr><td>7</td></tr></table>"
         "<table-wrap-foot><p>Foot</p></table-wrap-foot></table-wrap>", "Table 1. Ages."),
        ("<list><list-item><label>\u200b(a)\n\t</label><p>one</p></list-item></list>", "(a) one"),
        ("<p>x</p><preformat>one\n\u200b\n  two</preformat><verse-group><verse-line>\u200b</verse-line></verse-group>", "x\n\none\n  two"),
        ("<p>one &lt;b&gt;  two  &lt;/b&gt; three</p>", "one two three"),
        # elements nobody has heard of pass their text on
        ("<tp:treatment xmlns:tp='urn:tp'><tp:nomen>Aus <tp:n>bus</tp:n></tp:nomen><p>Rare.</p></tp:treatment>", "Aus bus\n\nRare."),
        # what goes with all it holds
        ("<p>x</p><sec><title>Funding</title><sec><title>More</title><p>NIH.</p></sec></sec>", "x"),
        ("<p>x</p><sec sec-type='data-availability'><title>Where</title><p>Dryad.</p></sec>", "x"),
        ("<p>x</p><sec><title>Availability of data and materials</title><p>Dryad.</p></sec>", "x"),
        ("<p>x</p><sec><title>AUTHORS’ CONTRIBUTIONS</title><p>JD.</p></sec><sec><title>Abbreviations</title><p>A.</p></sec>", "x"),
        ("<p>x</p><sec><title>Role of funding source</title><p>None.</p></sec>", "x"),
        ("<p>x</p><sec><title>Funding of trials by industry</title><p>Kept.</p></sec>",
         "x\n\nFunding of trials by industry\n\nKept."),
        ("<p>x<supplementary-material><p>File</p></supplementary-material></p>", "x"),
        ("<p>x</p><!-- c --><?pi p?><p>a<!-- c -->b</p>", "x\n\nab"),
    ],
)  # fmt: skip
def test_body(body: str, text: str) -> None:
    references = "<ref-list><ref id='r1'><label>1</label></ref><ref id='r2'/><ref id='r3'/></ref-list>"
    assert text_of(body, back=references) == text


FORMULA = (
    "<p>if <inline-formula><alternatives><tex-math>\\documentclass{minimal}\\usepackage{amsmath}\\begin{document}$$\\frac{a}{b_{1}} "
    "\\le x^{2}$$\\end{document}</tex-math><mml:math><mml:mfrac><mml:mi>a</mml:mi><mml:msub><mml:mi>b</mml:mi><mml:mn>1</mml:mn>"
    "</mml:msub></mml:mfrac><mml:mo>≤</mml:mo><mml:msup><mml:mi>x</mml:mi><mml:mrow><mml:mo>−</mml:mo><mml:mn>2</mml:mn>"
    "</mml:mrow></mml:msup></mml:math></alternatives></inline-formula>, then</p>"
)
TEX_ONLY = "<p>so<disp-formula><label>(1)</label><tex-math>$$\\mathrm{pH} \\le \\frac{a}{b}$$</tex-math></disp-formula>holds</p>"


@pytest.mark.parametrize(
    ("formulas", "body", "text"),
    [
        ("text", FORMULA, "if a/b_1 ≤ x^-2, then"),
        ("tex", FORMULA, "if \\frac{a}{b_{1}} \\le x^{2}, then"),
        ("drop", FORMULA, "if, then"),
        ("text", TEX_ONLY, "so pH ≤ a/b holds"),
        ("tex", TEX_ONLY, "so \\mathrm{pH} \\le \\frac{a}{b} holds"),
        ("text", "<p>x <inline-formula>a<sup>2</sup></inline-formula> y</p>", "x a2 y"),
    ],
)
def test_formulas_are_readable_text_or_tex_never_a_latex_preamble(formulas: str, body: str, text: str) -> None:
    assert text_of(body, formulas=formulas) == text


@pytest.mark.parametrize(
    ("mathml", "text"),
    [
        ("<mml:msqrt><mml:mi>x</mml:mi><mml:mo>+</mml:mo><mml:mn>1</mml:mn></mml:msqrt>", "sqrt(x + 1)"),
        ("<mml:munderover><mml:mo>∑</mml:mo><mml:mrow><mml:mi>i</mml:mi><mml:mo>=</mml:mo><mml:mn>1</mml:mn></mml:mrow>"
         "<mml:mi>n</mml:mi></mml:munderover><mml:msub><mml:mi>x</mml:mi><mml:mi>i</mml:mi></mml:msub>", "∑_(i = 1)^n x_i"),
        ("<mml:mover><mml:mi>x</mml:mi><mml:mo>¯</mml:mo></mml:mover>", "x̄"),
        ("<mml:mfenced separators=','><mml:mi>a</mml:mi><mml:mi>b</mml:mi></mml:mfenced>", "(a, b)"),
        ("<mml:mtable><mml:mtr><mml:mtd><mml:mn>1</mml:mn></mml:mtd><mml:mtd><mml:mn>0</mml:mn></mml:mtd></mml:mtr>"
         "<mml:mtr><mml:mtd><mml:mn>0</mml:mn></mml:mtd><mml:mtd><mml:mn>1</mml:mn></mml:mtd></mml:mtr></mml:mtable>", "1, 0; 0, 1"),
        ("<mml:semantics><mml:mi>q</mml:mi><mml:annotation>\\q</mml:annotation></mml:semantics>", "q"),
    ],
)  # fmt: skip
def test_mathml_is_written_on_one_line(mathml: str, text: str) -> None:
    assert text_of(f"<p><inline-formula><mml:math>{mathml}</mml:math></inline-formula></p>") == text


def test_settings_choose_what_becomes_text() -> None:
    body = (
        "<p>x</p><fig><caption><p>Cap.</p></caption></fig><table-wrap><caption><p>Tab.</p></caption><table><tr><th>a</th>"
        "<th>b</th></tr><tr><td>1</td><td>2 [<xref ref-type='bibr' rid='r'>3</xref>]</td></tr></table></table-wrap>"
        "<sec><title>Data availability</title><p>Dryad.</p></sec><sec><title>3. My Notes</title><p>N.</p></sec>"
    )
    front = "<abstract><p>Abs.</p></abstract>"
    back = "<app-group><app><title>Appendix</title><p>App.</p></app></app-group>"
    plain = "Abstract\n\nAbs.\n\nx\n\nCap.\n\nTab.\n\nMy Notes\n\nN.".replace("My Notes", "3. My Notes")
    assert text_of(body, front, back) == plain
    assert text_of(body, front, back, abstract=False) == plain.removeprefix("Abstract\n\nAbs.\n\n")
    assert text_of(body, front, back, captions=False) == plain.replace("\n\nCap.\n\nTab.", "")
    assert text_of(body, front, back, tables=True) == plain.replace("Tab.", "Tab.\n\na | b\n1 | 2")
    assert text_of(body, front, back, appendices=True) == plain + "\n\nAppendix\n\nApp."
    assert text_of(body, front, back, drop_sections=("my notes",)) == plain.removesuffix("\n\n3. My Notes\n\nN.")
    assert "Data availability\n\nDryad." in text_of(body, front, back, data_availability=True)


def test_sub_articles_are_kept_only_when_asked_for() -> None:
    xml = article("<p>x</p>").replace(
        b"</article>",
        b"<sub-article><front-stub><title-group><article-title>Reply</article-title></title-group></front-stub>"
        b"<body><p>y</p></body></sub-article></article>",
    )
    assert extract(xml, ExtractSettings()).text == "T\n\nx"
    assert extract(xml, ExtractSettings(sub_articles=True)).text == "T\n\nx\n\nReply\n\ny"


@pytest.mark.parametrize("namespace", ["", ' xmlns="https://jats.nlm.nih.gov/ns/archiving/1.3/"'])
def test_namespaces_make_no_difference(namespace: str) -> None:
    xml = FULL.replace(b"<article ", f"<article{namespace} ".encode())
    assert extract(xml, ExtractSettings()) == extract(FULL, ExtractSettings())


def test_one_article_within_an_oai_answer_is_found() -> None:
    wrapped = b"<OAI-PMH xmlns='urn:oai'><record>" + FULL + b"</record></OAI-PMH>"
    assert extract(wrapped, ExtractSettings()).text == extract(FULL, ExtractSettings()).text


def bare(body: bytes) -> bytes:
    return b"<article><body><p>" + body + b"</p></body></article>"


@pytest.mark.parametrize(
    ("xml", "text", "repairs"),
    [
        (bare(b"caf&eacute;&nbsp;&alpha; R&D &lt;"), "café α R&D <", ("entities",)),
        (bare(b"<![CDATA[a &nbsp; b]]> &ndash;"), "a &nbsp; b –", ("entities",)),
        (bare(b"caf\xe9 d\xe9j\xe0 vu, d\xc3\xa9j\xc3\xa0 lu"), "café déjà vu, déjà lu", ("encoding",)),
        (bare(b"a\x0bb&#x1;c"), "abc", ("control-characters",)),
        (bare(b"<italic foo:id='1'>x</italic>"), "x", ("namespaces",)),
        (b'<?xml version="1.0" encoding="iso-8859-1"?>' + bare(b"caf\xe9"), "café", ()),
        (bare("déjà vu".encode()).decode().encode("utf-16"), "déjà vu", ()),
        (b"\xef\xbb\xbf \n" + bare(b"x"), "x", ()),
    ],
)
def test_common_faults_are_repaired_and_told(xml: bytes, text: str, repairs: tuple[str, ...]) -> None:
    found = extract(xml, ExtractSettings())
    assert (found.text, found.repairs) == (text, repairs)


BOMB = b"".join(
    [
        b'<!DOCTYPE article [<!ENTITY a "ha">',
        *(b'<!ENTITY %c "&%c;&%c;">' % (i + 98, i + 97, i + 97) for i in range(20)),
        b"]>",
    ]
)


@pytest.mark.parametrize(
    ("xml", "reason"),
    [
        (b"", "not-xml"),
        (b"%PDF-1.4 \x00\xff", "not-xml"),
        (b"{}", "not-xml"),
        (b"<!DOCTYPE html><html><body><p>404</p></body></html>", "not-jats"),
        (b"<html><p>404<br></html>", "malformed-xml"),
        (FULL[:-40], "truncated-xml"),
        (FULL[: len(FULL) // 2], "truncated-xml"),
        (b"<article><p></article>", "malformed-xml"),
        (BOMB + article("<p>&u;</p>"), "entity-declarations"),
        (
            b'<!DOCTYPE article [<!ENTITY x SYSTEM "file:///etc/passwd">]>' + article("<p>&x;</p>"),
            "entity-declarations",
        ),
        (
            b'<!DOCTYPE article [<!ENTITY % x SYSTEM "http://127.0.0.1:9/x.dtd"> %x;]>' + article("<p>a</p>"),
            "entity-declarations",
        ),
        ((BOMB.decode() + "<article/>").encode("utf-16"), "entity-declarations"),
        (article("<p>&nonsense;</p>"), "unknown-entity"),
        (b'<?xml version="1.0" encoding="klingon"?>' + article("<p>a</p>"), "unknown-encoding"),
        (article("<p>x</p>").replace(b"x", b"\x93\xfa\x96\x8c\xea" * 200), "unknown-encoding"),
        (article("<sec>" * 5000 + "<p>x</p>" + "</sec>" * 5000), "too-deep"),
        (article("<sec>" * 245 + "<p>x</p>" + "</sec>" * 245), None),
        (b"<article><front/></article>", "no-body"),
        (article("<p> </p><fig/>"), "no-body"),
        (article("<p>" + "&lt;p&gt;&lt;small&gt;x&lt;/small&gt;&lt;/p&gt;" * 30 + "</p>"), "escaped-html"),
        (b"<set>" + FULL + FULL + b"</set>", "not-jats"),
    ],
)
def test_unusable_articles_are_refused_by_reason(xml: bytes, reason: str | None) -> None:
    if reason is None:
        assert extract(xml, ExtractSettings()).text.endswith("x")
    else:
        assert refusal(xml).reason == reason


def test_an_article_over_the_size_limit_is_refused_with_its_size() -> None:
    error = refusal(article("<p>" + "x" * 2000 + "</p>"), max_bytes=1024)
    assert error.reason == "too-large"
    assert "1024 allowed" in str(error)


def test_an_external_dtd_is_never_loaded(tmp_path: Path) -> None:
    (tmp_path / "x.dtd").write_text('<!ENTITY secret "leaked">')
    xml = f'<!DOCTYPE article SYSTEM "file://{tmp_path}/x.dtd">'.encode() + article("<p>a</p>")
    assert extract(xml, ExtractSettings()).text == "T\n\na"
    assert refusal(xml.replace(b"<p>a", b"<p>&secret;")).reason == "unknown-entity"


@pytest.mark.skipif(not REAL.exists(), reason="the real articles are not here")
def test_real_articles_become_text_without_markup_or_debris() -> None:
    texts, reasons = [], []
    with tarfile.open(REAL) as archive:
        for member in list(archive)[:120]:
            if member.name.endswith(("xml", "nxml")):
                handle = archive.extractfile(member)
                assert handle is not None
                try:
                    texts.append(extract(handle.read(), ExtractSettings()).text)
                except ArticleError as error:
                    reasons.append(error.reason)
    assert len(texts) > 90
    assert set(reasons) <= {"no-body", "escaped-html"}
    joined = "\n\n".join(texts)
    assert not re.findall(
        r"</?(?:xref|italic|sup|sub|p|sec|bold)\b|\\usepackage|\\documentclass|[\x00-\x08\u200b\ufeff]", joined
    )
    assert not re.findall(r"\(\s*[,;]*\s*\)(?<=[\s,;]\))| ,\s|\s\.\s|\n{3,}", joined)
