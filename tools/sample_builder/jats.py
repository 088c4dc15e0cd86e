"""From prose to JATS XML, with everything that real files throw at a parser."""

# Markup reads best unbroken.
# ruff: noqa: E501

import re
from dataclasses import dataclass

from sample_builder.blocks import BLOCKS, PLACES
from sample_builder.citations import SURNAMES, Citations
from sample_builder.draw import Draw
from sample_builder.prose import CITIES, Prose, Section

JOURNAL = "Journal of Synthetic Medicine (sample)"
CC0 = "https://creativecommons.org/publicdomain/zero/1.0/"
NOTICE = "<!-- SYNTHETIC: made by tools/make_sample.py. Not medical evidence. CC0 1.0. -->"
DOCTYPES = {
    "jats-1.0": (
        "-//NLM//DTD JATS (Z39.96) Journal Archiving and Interchange DTD v1.0 20120330//EN",
        "JATS-archivearticle1.dtd",
    ),
    "jats-1.1": ("-//NLM//DTD JATS (Z39.96) Journal Publishing DTD v1.1 20151215//EN", "JATS-journalpublishing1.dtd"),
    "jats-1.2": (
        "-//NLM//DTD JATS (Z39.96) Journal Archiving and Interchange DTD v1.2 20190208//EN",
        "JATS-archivearticle1.dtd",
    ),
    "jats-1.3": ("-//NLM//DTD JATS (Z39.96) Journal Publishing DTD v1.3 20210610//EN", "JATS-journalpublishing1-3.dtd"),
    "nlm-2.3": ("-//NLM//DTD Journal Publishing DTD v2.3 20070202//EN", "journalpublishing.dtd"),
}
NAMESPACES = 'xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mml="http://www.w3.org/1998/Math/MathML"'
GIVEN = ["Ada", "Bruno", "Chidi", "Dana", "Emil", "Farah", "Goran", "Hana", "Ines", "Jonas", "Kemi", "Lucia", "Mats"]


@dataclass(frozen=True)
class Paper:
    """An article ready to be written: its words and how to dress them."""

    number: int
    prose: Prose
    features: frozenset[str]
    article_type: str = "research-article"
    language: str = "en"
    subject: str = "Medicine"
    pmid: int = 0
    dialect: str = "jats-1.2"
    style: str = "brackets"
    trans_abstract: str = ""
    copy_of: int = 0


def render(paper: Paper) -> bytes:
    """Return the file of one article."""
    draw = Draw(f"jats {paper.copy_of or paper.number}")
    citations = Citations(paper.style, draw)
    body = "" if "no-body" in paper.features else _body(paper, citations)
    if "empty-body" in paper.features:
        body = "<body/>"
    text = (
        f"{_opening(paper)}<front>{_journal(paper)}{_article_meta(paper, draw)}</front>\n{body}\n"
        f"{_back(paper, citations)}\n{_floats(paper)}{_sub_articles(paper)}</article>\n"
    )
    return _encode(paper, _lay_out(paper, text))


def plain(fragment: str) -> str:
    """Return a fragment of inline markup as plain text, without citations."""
    import html

    text = re.sub(r"\{cites?\}", "", fragment)
    return html.unescape(re.sub(r"<[^>]+>", "", text))


def _opening(paper: Paper) -> str:
    encoding = "ISO-8859-1" if "encoding-latin-1" in paper.features else "UTF-8"
    lines = [f'<?xml version="1.0" encoding="{encoding}"?>']
    if "doctype-external-dtd" in paper.features:
        public, system = DOCTYPES[paper.dialect]
        lines.append(f'<!DOCTYPE article PUBLIC "{public}" "{system}">')
    version = "2.3" if paper.dialect == "nlm-2.3" else paper.dialect.removeprefix("jats-")
    language = "" if "no-xml-lang" in paper.features else f' xml:lang="{paper.language}"'
    ali = ' xmlns:ali="http://www.niso.org/schemas/ali/1.0/"' if "ali-licence" in paper.features else ""
    lines.append(NOTICE)
    lines.append(f'<article {NAMESPACES}{ali} article-type="{paper.article_type}" dtd-version="{version}"{language}>')
    return "\n".join(lines) + "\n"


def _journal(paper: Paper) -> str:
    title = f"<journal-title>{JOURNAL}</journal-title>"
    if paper.dialect != "nlm-2.3":
        title = f'<journal-title-group>{title}<abbrev-journal-title abbrev-type="publisher">J Synth Med</abbrev-journal-title></journal-title-group>'
    return (
        f'<journal-meta><journal-id journal-id-type="nlm-ta">J Synth Med</journal-id>{title}'
        "<publisher><publisher-name>Sample Press</publisher-name></publisher></journal-meta>\n"
    )


def _article_meta(paper: Paper, draw: Draw) -> str:
    year = 2012 + (paper.copy_of or paper.number) % 12
    parts = [
        _identifiers(paper),
        f'<article-categories><subj-group subj-group-type="heading"><subject>{_amp(paper.subject)}</subject></subj-group></article-categories>',
        f"<title-group><article-title>{paper.prose.title}</article-title>{_subtitle(paper)}</title-group>\n",
        _authors(paper, draw),
        _dates(paper, year),
        f"<volume>{year - 2011}</volume><issue>{paper.number % 12 + 1}</issue><elocation-id>e{paper.number:04d}</elocation-id>",
        _permissions(paper, year),
        _related(paper),
        _abstracts(paper),
        _keywords(paper),
        _funding(paper),
    ]
    return f"<article-meta>{''.join(parts)}</article-meta>"


def _identifiers(paper: Paper) -> str:
    # Nine digits: no PubMed Central or PubMed number is that long, so a sample can't be taken for a real article.
    kind = "pmc" if paper.number % 3 else "pmcid"
    prefix = "PMC" if kind == "pmcid" else ""
    text = f'<article-id pub-id-type="{kind}">{prefix}{999_900_000 + paper.number}</article-id>'
    if "no-doi" not in paper.features:
        text += f'<article-id pub-id-type="doi">10.5555/josm.{paper.number:04d}</article-id>'
    if paper.pmid:
        text += f'<article-id pub-id-type="pmid">{paper.pmid}</article-id>'
    return text


def _subtitle(paper: Paper) -> str:
    return "<subtitle>A synthetic report for software tests</subtitle>" if "subtitle" in paper.features else ""


def _authors(paper: Paper, draw: Draw) -> str:
    people = "".join(
        f'<contrib contrib-type="author"{" corresp=" + chr(34) + "yes" + chr(34) if i == 0 else ""}><name><surname>{surname}'
        f'</surname><given-names>{draw.pick(GIVEN)}</given-names></name><xref ref-type="aff" rid="aff{i % 2 + 1}"><sup>{i % 2 + 1}'
        "</sup></xref></contrib>"
        for i, surname in enumerate(draw.some(SURNAMES, draw.whole(2, 5)))
    )
    if "collab" in paper.features:
        people += '<contrib contrib-type="author"><collab>on behalf of the Sample Study Group</collab></contrib>'
    places = "".join(
        f'<aff id="aff{i + 1}"><label>{i + 1}</label>Department of {_amp(paper.subject)}, <institution>University Hospital</institution>, '
        f"<city>{city}</city></aff>"
        for i, city in enumerate(draw.some(CITIES, 2))
    )
    notes = ""
    if "author-notes" in paper.features:
        notes = (
            '<author-notes><corresp id="cor1">Correspondence: <email>author@example.org</email></corresp><fn fn-type="con" '
            'id="an1"><p>All authors wrote the paper and are accountable for it.</p></fn><fn fn-type="conflict"><p>No competing '
            "interests were declared.</p></fn></author-notes>"
        )
    return f"<contrib-group>{people}</contrib-group>{places}{notes}\n"


def _dates(paper: Paper, year: int) -> str:
    month = paper.number % 12 + 1
    if paper.number % 4 == 0:
        return f'<pub-date publication-format="electronic" date-type="pub" iso-8601-date="{year}-{month:02d}-11"><day>11</day><month>{month}</month><year>{year}</year></pub-date>'
    dates = f'<pub-date pub-type="epub"><day>11</day><month>{month}</month><year>{year}</year></pub-date>'
    if paper.number % 4 == 1:
        dates += f'<pub-date pub-type="collection"><year>{year + 1}</year></pub-date>'
    if "history" in paper.features:
        dates += f'<history><date date-type="received"><day>3</day><month>2</month><year>{year}</year></date></history>'
    return dates


def _permissions(paper: Paper, year: int) -> str:
    sentence = "This synthetic text is dedicated to the public domain"
    if paper.dialect == "nlm-2.3":
        return (
            f"<permissions><copyright-statement>No rights reserved (CC0), {year}</copyright-statement><license license-type="
            f'"open-access" xlink:href="{CC0}"><p>{sentence} (CC0 1.0).</p></license></permissions>'
        )
    if "ali-licence" in paper.features:
        return f"<permissions><license><ali:license_ref>{CC0}</ali:license_ref><license-p>{sentence}.</license-p></license></permissions>"
    return (
        f'<permissions><copyright-year>{year}</copyright-year><license license-type="cc0" xlink:href="{CC0}"><license-p>{sentence} '
        f'(<ext-link ext-link-type="uri" xlink:href="{CC0}">CC0 1.0</ext-link>).</license-p></license></permissions>'
    )


def _related(paper: Paper) -> str:
    if paper.article_type not in ("retraction", "correction"):
        return ""
    kind = "retracted-article" if paper.article_type == "retraction" else "corrected-article"
    return (
        f'<related-article related-article-type="{kind}" id="d1" ext-link-type="doi" xlink:href="10.5555/josm.9999"/>'
    )


def _abstracts(paper: Paper) -> str:
    abstract = "".join(_abstract_part(section) for section in paper.prose.abstract)
    parts = [f"<abstract>{abstract}</abstract>"] if abstract else []
    words = paper.prose.words
    if "abstract-graphical" in paper.features:
        parts.append(
            '<abstract abstract-type="graphical"><p><fig id="ga"><graphic xlink:href="sample-ga.jpg"/></fig></p></abstract>'
        )
    if "abstract-plain-language" in paper.features:
        parts.append(
            '<abstract abstract-type="plain-language-summary"><title>Plain language summary</title><p>We wanted to know what '
            f"helps {words['people']}. The numbers in this report are made up and serve to test software.</p></abstract>"
        )
    if "abstract-highlights" in paper.features:
        parts.append(
            '<abstract abstract-type="author-highlights"><list list-type="bullet"><list-item><p>The text is synthetic.</p>'
            f"</list-item><list-item><p>The topic is {words['condition']}.</p></list-item></list></abstract>"
        )
    if paper.trans_abstract:
        other = "en" if paper.language != "en" or "mislabelled-language" in paper.features else "es"
        parts.append(f'<trans-abstract xml:lang="{other}"><p>{paper.trans_abstract}</p></trans-abstract>')
    return "".join(parts) + "\n"


def _abstract_part(section: Section) -> str:
    paragraphs = "".join(f"<p>{text}</p>" for text in section.paragraphs)
    return f"<sec><title>{section.title}</title>{paragraphs}</sec>" if section.title else paragraphs


def _keywords(paper: Paper) -> str:
    if "keywords" not in paper.features:
        return ""
    words = paper.prose.words
    items = "".join(f"<kwd>{words[name]}</kwd>" for name in ("condition", "treatment", "marker"))
    return f'<kwd-group kwd-group-type="author"><title>Keywords</title>{items}</kwd-group>'


def _funding(paper: Paper) -> str:
    if "funding" not in paper.features:
        return ""
    return (
        '<funding-group><award-group id="aw1"><funding-source>Invented Research Council</funding-source><award-id>IRC-'
        f"{1000 + paper.number}</award-id></award-group><funding-statement>The funder had no part in this work."
        "</funding-statement></funding-group>"
    )


def _body(paper: Paper, citations: Citations) -> str:
    sections = _flatten(paper.prose.body)
    placed: dict[int, list[str]] = {}
    for name in (name for name in BLOCKS if name in paper.features):
        section = _place(name, sections)
        placed.setdefault(id(section), []).append(BLOCKS[name](paper.prose.words))
    parts = [_section(paper, section, citations, placed, str(i + 1)) for i, section in enumerate(paper.prose.body)]
    return "<body>" + "\n".join(parts) + "</body>"


def _place(block: str, sections: list[Section]) -> Section:
    fitting = (section for word in PLACES[block] for section in sections if word in section.title)
    return next(fitting, sections[-1])


def _flatten(sections: list[Section]) -> list[Section]:
    return [found for section in sections for found in (section, *_flatten(section.sections))]


def _section(paper: Paper, section: Section, citations: Citations, placed: dict[int, list[str]], number: str) -> str:
    paragraphs = "\n".join(f"<p>{citations.render(text)}</p>" for text in section.paragraphs)
    content = paragraphs + "".join(placed.get(id(section), []))
    if not section.title:
        return content
    label = f"<label>{number}.</label>" if "section-labels" in paper.features else ""
    under = "\n".join(
        _section(paper, s, citations, placed, f"{number}.{i + 1}") for i, s in enumerate(section.sections)
    )
    return f'<sec id="s{number.replace(".", "-")}">{label}<title>{section.title}</title>\n{content}\n{under}</sec>'


def _back(paper: Paper, citations: Citations) -> str:
    parts = []
    if "acknowledgements" in paper.features:
        parts.append("<ack><title>Acknowledgements</title><p>We thank the nurses of the outpatient clinic.</p></ack>")
    if "footnote-group" in paper.features:
        parts.append(
            '<fn-group><title>Declarations</title><fn fn-type="other" id="bfn1"><p>Ethics: not applicable to invented data.</p>'
            "</fn></fn-group>"
        )
    if "glossary" in paper.features:
        parts.append(
            "<glossary><title>Abbreviations</title><def-list><def-item><term>CI</term><def><p>confidence interval</p></def>"
            "</def-item></def-list></glossary>"
        )
    if "appendix" in paper.features:
        parts.append(
            '<app-group><app id="app1"><title>Appendix A</title><p>The questionnaire had twelve items in three domains.</p></app></app-group>'
        )
    if "data-availability" in paper.features:
        parts.append(
            '<sec sec-type="data-availability"><title>Data availability</title><p>There are no data.</p></sec>'
        )
    if "no-references" not in paper.features:
        parts.append(citations.reference_list(paper.dialect == "nlm-2.3", "mixed-citation" in paper.features))
    return f"<back>{''.join(parts)}</back>" if parts else ""


def _floats(paper: Paper) -> str:
    if "floats-group" not in paper.features:
        return ""
    return (
        '<floats-group><fig id="F9" position="float"><label>Figure 9</label><caption><p>Regional map of the sites.</p></caption>'
        '<graphic xlink:href="sample-g009.jpg"/></fig></floats-group>\n'
    )


def _sub_articles(paper: Paper) -> str:
    parts = []
    if "sub-article-review" in paper.features:
        parts.append(_review(paper))
    if "response" in paper.features:
        parts.append(
            '<response id="r1" response-type="reply"><front-stub><title-group><article-title>Author response</article-title>'
            "</title-group></front-stub><body><p>We thank the reviewer and have shortened the discussion as proposed.</p></body>"
            "</response>"
        )
    if "sub-article-translation" in paper.features:
        parts.append(_translation(paper))
    return "".join(parts)


def _review(paper: Paper) -> str:
    return (
        '<sub-article article-type="reviewer-report" id="sa1"><front-stub><article-id pub-id-type="doi">'
        f"10.5555/josm.{paper.number:04d}.sa1</article-id><title-group><article-title>Decision letter</article-title></title-group>"
        '<contrib-group><contrib contrib-type="reviewer"><anonymous/></contrib></contrib-group></front-stub><body><p>The manuscript '
        "is clearly written. Please state in the abstract how many people declined to take part, and tone down the last "
        "sentence.</p><p>A figure with the flow of participants would help readers.</p></body></sub-article>\n"
    )


def _translation(paper: Paper) -> str:
    if paper.trans_abstract and paper.language != "en":
        language, title, text = "en", "English version", paper.trans_abstract
    else:
        language, title = "es", "Versión en español"
        text = (
            "Este resumen traducido acompaña al artículo original. Los datos son inventados y sirven solamente para probar "
            "programas informáticos, de modo que no deben utilizarse en la atención de los pacientes."
        )
    return (
        f'<sub-article article-type="translation" id="s2" xml:lang="{language}"><front-stub><title-group><article-title>{title}'
        f"</article-title></title-group></front-stub><body><sec><title>{title}</title><p>{text}</p></sec></body></sub-article>\n"
    )


def _lay_out(paper: Paper, text: str) -> str:
    if "single-line" in paper.features:
        head, _, rest = text.partition("<article ")
        return head + "<article " + re.sub(r"\n+", "", rest) + "\n"
    if "wrapped-whitespace" in paper.features:
        # Break long lines inside paragraphs, as files from some publishers have them.
        return re.sub(r"<p>([^<]{80,})", lambda m: "<p>\n      " + re.sub(r"(.{60,80}?) ", r"\1\n      ", m[1]), text)
    return re.sub(r"\n{2,}", "\n", text)


def _encode(paper: Paper, text: str) -> bytes:
    if "encoding-latin-1" in paper.features:
        return text.encode("iso-8859-1", "xmlcharrefreplace")
    data = text.encode("utf-8")
    if "byte-order-mark" in paper.features:
        data = b"\xef\xbb\xbf" + data
    if "truncated" in paper.features:
        # Not through the middle of a character: the fault is to be the missing end.
        data = text[: len(text) * 7 // 10].encode("utf-8")
    return data


def _amp(text: str) -> str:
    return text.replace("&", "&amp;")
