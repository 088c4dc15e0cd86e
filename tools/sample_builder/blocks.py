"""Things that stand between paragraphs: formulas, tables, figures, lists.

Each function returns the JATS of the feature that it is named for.
"""

# Markup reads best unbroken, and not every block needs the article's words.
# ruff: noqa: E501, D103, ARG001

from collections.abc import Callable, Mapping

Words = Mapping[str, str]

PREAMBLE = (
    "\\documentclass[12pt]{minimal} \\usepackage{amsmath} \\usepackage{wasysym} \\usepackage{amsfonts} "
    "\\usepackage{amssymb} \\usepackage{mathrsfs} \\setlength{\\oddsidemargin}{-69pt} \\begin{document}"
)
MML = 'xmlns:mml="http://www.w3.org/1998/Math/MathML"'


def mathml(words: Words) -> str:
    return (
        "<p>The risk ratio was computed as</p>"
        f'<disp-formula id="E1"><label>(1)</label><mml:math {MML} id="M1"><mml:mrow><mml:mi>RR</mml:mi><mml:mo>=</mml:mo>'
        f"<mml:mfrac><mml:mrow><mml:mn>{words['e1']}</mml:mn><mml:mo>/</mml:mo><mml:mn>{words['n1']}</mml:mn></mml:mrow>"
        f"<mml:mrow><mml:mn>{words['e2']}</mml:mn><mml:mo>/</mml:mo><mml:mn>{words['n2']}</mml:mn></mml:mrow></mml:mfrac>"
        f"<mml:mo>=</mml:mo><mml:mn>{words['rr']}</mml:mn></mml:mrow></mml:math></disp-formula>"
        "<p>where numerators are events and denominators are persons at risk.</p>"
    )


def tex_math(words: Words) -> str:
    return (
        '<p>The standard error of the log risk ratio is <disp-formula id="E2"><alternatives><tex-math id="M2">'
        f"{PREAMBLE}$$SE = \\sqrt{{\\frac{{1}}{{{words['e1']}}} - \\frac{{1}}{{{words['n1']}}} + "
        f"\\frac{{1}}{{{words['e2']}}} - \\frac{{1}}{{{words['n2']}}}}}$$\\end{{document}}</tex-math>"
        f'<mml:math {MML}><mml:mi>SE</mml:mi></mml:math><graphic xlink:href="e2.gif"/></alternatives></disp-formula> '
        "as given in standard textbooks.</p>"
    )


def inline_formula(words: Words) -> str:
    return (
        "<p>A difference was called relevant when <inline-formula><alternatives><tex-math id='IM1'>"
        f"{PREAMBLE}$$|\\delta | \\ge 0.2\\sigma$$\\end{{document}}</tex-math>"
        '<math xmlns="http://www.w3.org/1998/Math/MathML"><mo>|</mo><mi>&#x03B4;</mi><mo>|</mo><mo>&#x2265;</mo>'
        "<mn>0.2</mn><mi>&#x03C3;</mi></math></alternatives></inline-formula>, a choice made before the data were seen.</p>"
    )


def table(words: Words) -> str:
    rows = [
        ("Participants", words["n1"], words["n2"]),
        ("Events", f"{words['e1']} ({words['p1']}%)", f"{words['e2']} ({words['p2']}%)"),
        ("Serious adverse events", words["sae1"], words["sae2"]),
    ]
    cells = "".join(
        f'<tr><th align="left">{name}</th><td align="center">{a}</td><td align="center">{b}</td></tr>'
        for name, a, b in rows
    )
    return (
        '<table-wrap id="T1" position="float"><label>Table 1</label><caption><title>Events by group</title>'
        "<p>Values are numbers and percentages.</p></caption><table frame='hsides' rules='groups'><thead>"
        f'<tr><th rowspan="2">Item</th><th colspan="2">Group</th></tr><tr><th>{words["Treatment"]}</th>'
        f"<th>{words['Comparator']}</th></tr></thead><tbody>{cells}"
        f'<tr><th align="left">Risk ratio (95% CI)</th><td colspan="2">{words["rr"]} ({words["lo"]} to {words["hi"]})</td></tr>'
        '</tbody></table><table-wrap-foot><fn id="TFN1"><label>a</label><p>Denominators exclude withdrawals of consent.</p>'
        "</fn></table-wrap-foot></table-wrap>"
    )


def figure(words: Words) -> str:
    return (
        '<fig id="F1" orientation="portrait" position="float"><label>Fig. 1</label><caption>'
        f"<title>Cumulative incidence of {words['event']}</title><p>The solid line shows {words['treatment']}, the dashed "
        f"line {words['comparator']}. Bands are 95% intervals.</p></caption>"
        '<graphic xmlns:xlink="http://www.w3.org/1999/xlink" xlink:href="sample-g001.jpg" mime-subtype="jpeg"/>'
        "<attrib>Drawn by the authors; no rights reserved.</attrib></fig>"
    )


def figure_group(words: Words) -> str:
    return (
        '<fig-group id="FG1"><caption><title>Flow and follow-up</title></caption><fig id="F2"><label>Figure 2A</label>'
        f'<caption><p>Flow of the {words["n"]} participants.</p></caption><graphic xlink:href="sample-g002a.tif"/></fig>'
        '<fig id="F3"><label>Figure 2B</label><caption><p>Number at risk by month.</p></caption>'
        '<graphic xlink:href="sample-g002b.tif"/></fig></fig-group>'
    )


def boxed_text(words: Words) -> str:
    return (
        '<boxed-text id="BX1" position="float"><label>Box 1</label><caption><title>Key messages</title></caption>'
        f"<p>{words['Event']} matters to {words['people']}.</p><sec><title>What this work adds</title>"
        f"<p>It gives numbers for {words['treatment']} and {words['comparator']} under the conditions of daily care.</p>"
        "</sec></boxed-text>"
    )


def lists(words: Words) -> str:
    return (
        '<p>Three questions guided the work:</p><list list-type="order"><list-item><label>1.</label>'
        f"<p>How often is {words['event']} seen?</p></list-item><list-item><label>2.</label><p>What changes it?</p>"
        '<list list-type="bullet"><list-item><p>factors that can be altered;</p></list-item><list-item>'
        "<p>factors that cannot.</p></list-item></list></list-item><list-item><label>3.</label>"
        f"<p>Is {words['marker']} of use in practice?</p></list-item></list>"
    )


def definition_list(words: Words) -> str:
    return (
        "<def-list><title>Terms</title><def-item><term>Event</term><def>"
        f"<p>{words['Event']}, as judged by two readers.</p></def></def-item><def-item><term>Exposure</term><def>"
        f"<p>At least one dose or session of {words['treatment']}.</p></def></def-item></def-list>"
    )


def quotation(words: Words) -> str:
    return (
        "<p>One participant put it in these words:</p><disp-quote><p>I had stopped making plans. What I wanted to know was "
        "not the percentage, but whether I could visit my sister in spring.</p><attrib>Participant 17</attrib></disp-quote>"
    )


def supplement(words: Words) -> str:
    return (
        '<p>The protocol is given in Additional file 1.<supplementary-material content-type="local-data" id="SM1">'
        '<media xlink:href="sample-s001.docx" mimetype="application"><caption><p><bold>Additional file 1.</bold> Protocol and '
        "analysis plan (DOCX 48 kb).</p></caption></media></supplementary-material></p>"
    )


def external_link(words: Words) -> str:
    return (
        '<p>Definitions follow the handbook at <ext-link ext-link-type="uri" xlink:href="https://example.org/handbook">'
        'https://example.org/handbook</ext-link> (<uri xlink:href="https://example.org/errata">errata</uri>); questions go to '
        "<email>office@example.org</email>.</p>"
    )


def footnote(words: Words) -> str:
    return (
        "<p>Doses were rounded to the nearest tablet"
        '<xref ref-type="fn" rid="fn1"><sup>*</sup></xref><fn id="fn1"><label>*</label><p>Half tablets were allowed for those '
        "who weighed less than 45 kg.</p></fn> and recorded by hand.</p>"
    )


def cdata(words: Words) -> str:
    return (
        "<p><![CDATA[Subgroups with n < 30 were not analysed, and results with P > 0.05 & wide intervals are shown without "
        "comment.]]></p>"
    )


def inline_markup(words: Words) -> str:
    return (
        "<p>A change that is <italic>a priori</italic> unlikely calls for <bold>two</bold> readings, at "
        "<italic>t</italic><sub>0</sub> and <italic>t</italic><sub>1</sub>; counts above 10<sup>6</sup> per mm<sup>3</sup> are "
        "<underline>always</underline> repeated. In tables <sc>Sites</sc> go by <monospace>site_id</monospace> "
        "<named-content content-type='role'>(<styled-content style='color:red'>see</styled-content> "
        "<xref ref-type='table' rid='T1'>Table 1</xref> and <xref ref-type='fig' rid='F1'>Fig.&#xA0;1</xref>)</named-content>.</p>"
    )


def comment(words: Words) -> str:
    return (
        "<p>Queries were resolved <!-- typesetter: check spelling -->before the <?xpp line-break?>database was closed"
        "<?supplied-pi note?>.</p>"
    )


def undeclared_entity(words: Words) -> str:
    return (
        f"<p>Samples were kept at 4&nbsp;&#xB0;C for up to 12&nbsp;hours before {words['marker']} was determined.</p>"
    )


def code_block(words: Words) -> str:
    return (
        "<p>The model was fitted with one line of code:</p><preformat>fit &lt;- glm(event ~ group + site, family = poisson)"
        "</preformat><p>Scripts are available on request.</p>"
    )


def statement(words: Words) -> str:
    return (
        "<statement><title>Hypothesis</title><p>The risk of the primary outcome is the same in both groups.</p></statement>"
        "<p>The hypothesis was tested once, at the end.</p>"
    )


BLOCKS: dict[str, Callable[[Words], str]] = {
    "mathml": mathml,
    "tex-math": tex_math,
    "inline-formula": inline_formula,
    "table": table,
    "figure": figure,
    "figure-group": figure_group,
    "boxed-text": boxed_text,
    "nested-list": lists,
    "definition-list": definition_list,
    "disp-quote": quotation,
    "supplementary-material": supplement,
    "ext-link": external_link,
    "footnote": footnote,
    "cdata": cdata,
    "inline-markup": inline_markup,
    "comment-and-instruction": comment,
    "preformat": code_block,
    "statement": statement,
    "undeclared-entity": undeclared_entity,
}

# The section that a block belongs to: the first whose title holds one of these words, else the last.
_METHODS = ("nalysis", "Synthesis", "Method")
_RESULTS = ("Primary", "Main result", "Findings", "Results")
PLACES: dict[str, tuple[str, ...]] = dict.fromkeys(BLOCKS, _METHODS) | dict.fromkeys(
    ("table", "figure", "figure-group"), _RESULTS
)
PLACES |= {
    "boxed-text": ("Introduction", "Background"),
    "disp-quote": ("Discussion", "Comment", "Perspective", "Treatment"),
}
