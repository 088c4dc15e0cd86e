"""Citations out, spaces right: lines with citation marks as the walker makes them."""

import time

import pytest

from components.preprocess.extraction.citations import NUMBER, YEAR, cite, has_plain_citation, without_plain_citations
from components.preprocess.extraction.text import tidy

N, Y = NUMBER, YEAR
SMITH = cite("Smith et al., 2019")


@pytest.mark.parametrize(
    ("marked", "clean"),
    [
        # numbers
        (f"shown [{N}]. Next", "shown. Next"),
        (f"shown [{N},{N}–{N}]. Next", "shown. Next"),
        (f"shown [{N}, 4-6] here", "shown here"),
        (f"shown [{N}]–[{N}], and", "shown, and"),
        (f"shown{N},{N} next", "shown next"),
        (f"shown.{N}Next", "shown. Next"),
        (f"shown.{N} Next", "shown. Next"),
        (f"one{N}two", "one two"),
        (f"one {N}, two {N}, and three {N}.", "one, two, and three."),
        (f"foo ( {N} ) bar", "foo bar"),
        (f"range {{{N}}} of", "range of"),
        (f"(GATK [{N}]) calls", "(GATK) calls"),
        # words that only introduce a citation
        (f"known (reviewed in {N}) here", "known here"),
        (f"known (see refs. {N} and {N}) here", "known here"),
        (f"known, ref. {N}, and", "known, and"),
        (f"as described in [{N}]. Then", "as described. Then"),
        # what else the brackets say stays
        (f"seen (Fig. 2; {N}) here", "seen (Fig. 2) here"),
        (f"seen (Fig. 2, {N}) here", "seen (Fig. 2) here"),
        (f"seen ([{N}], Fig. 3A) here", "seen (Fig. 3A) here"),
        (f"seen (n = 10; {SMITH}) here", "seen (n = 10) here"),
        (f"seen (see also {SMITH}, Table 3).", "seen (Table 3)."),
        (f"lost (data not shown, {N}).", "lost (data not shown)."),
        # names and years
        (f"seen ({SMITH}; ) here", "seen here"),
        (f"seen ({SMITH}; {cite('Jones, 2018')}) here", "seen here"),
        (f"Smith et al. ({Y}) showed", "Smith et al. showed"),
        (f"seen (Smith et al., {Y}; Jones & Lee, {Y}, {Y}), too", "seen, too"),
        (f"seen (e.g., Smith et al. [{Y}]; de la Cruz {Y}) here", "seen here"),
        (f"As {cite('Smith et al. (2019)')} showed", "As Smith et al. (2019) showed"),
        (f"pioneers such as ({SMITH}) and", "pioneers such as Smith et al., 2019 and"),
        (f"(for review, see {cite('Smith (2019)')}), it is", "it is"),
        (f"seen (GS30, Smith et al. {Y}) here", "seen (GS30) here"),
        (f"seen (AIC; see {SMITH} for a review) here", "seen (AIC) here"),
        (f"seen (see [{N}] for its protocol) here", "seen here"),
        (f"methods (Ensemble methods [{N}], see [{N}] for a review) work", "methods (Ensemble methods) work"),
        (f"five accessions (TVu-8851,{N} TVu-9698,{N} and TVu-3)", "five accessions (TVu-8851, TVu-9698, and TVu-3)"),
        (f"paid [Chad ({cite('Roe, 2003')}), and Peru (Lee {Y})]", "paid [Chad, and Peru]"),
        (f"seen (Smith et al. {Y}b, {Y}) here", "seen here"),
        (f"seen (DePaoli, 2014{N}; Wu et al., 2007{N}) here", "seen here"),
        (f"seen (Pina; Torres; Acerete, {Y}; and others) here", "seen here"),
        (f"seen (the Republic of Korea {Y}) here", "seen (the Republic of Korea) here"),
        (f"Others did not (but see {SMITH}).", "Others did not."),
        (f"Others did not, but see [{N}].", "Others did not."),
        (f"in reviews such as [{N}-{N}].", "in reviews."),
        (f"Smith et al. [{N}]. Next", "Smith et al. Next"),
        (f"So it is. ({SMITH}).", "So it is."),
        (f"so it is (...) and “[...] more” ({SMITH})", "so it is (...) and “[...] more”"),
        (f"noted by{cite('Smith (2019)')}apud{cite('Roe (1999)')}, and", "noted by Smith (2019) apud Roe (1999), and"),
        (f"{cite('Dahl (2010')}, {cite('2012)')} said", "Dahl (2010) said"),
        (f"见图1（{cite('王等，2019')}）。", "见图1。"),
    ],
)
def test_citations_leave_nothing_behind(marked: str, clean: str) -> None:
    assert tidy(marked) == clean


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("a\u00a0 b\n\t c\u2009d", "a b c d"),
        ("zero\u200bwidth\ufeff so\u00adft", "zerowidth soft"),
        ("control\x0b and\u0085next\x9f", "control and next"),
        ("direction \u202e marks\u2069", "direction marks"),
        ("private \ue123 use", "private use"),
        ("cafe\u0301", "café"),
        ("spaces ( inside ) , and before .", "spaces (inside), and before."),
        ("an empty () pair [] but print() stays", "an empty pair but print() stays"),
        ("R<sup>2</sup> and <i>p</i> < 0.05", "R2 and p < 0.05"),
        ("from 0 .5 to 1", "from 0 .5 to 1"),
        ("images,, and lost,.", "images, and lost."),
        ("an elision [...] stays ; (…) too", "an elision [...] stays; (…) too"),
    ],
)
def test_invisible_characters_and_stray_spaces_go(text: str, clean: str) -> None:
    assert tidy(text) == clean


def test_typed_citations_go_only_when_they_can_be_entries_of_the_reference_list() -> None:
    text = "seen [1], [3-5] and [2, 7]; in [0, 1], [9], [4, 2], x[1] and F[1,12]"
    assert has_plain_citation(text)
    assert without_plain_citations(text, 8) == "seen, and; in [0, 1], [9], [4, 2], x[1] and F[1,12]"
    assert not has_plain_citation("nothing in [brackets]")


@pytest.mark.parametrize(
    "hostile",
    [
        "(" + "A-" * 20_000 + f"{Y})",
        "(" * 20_000 + N + ")" * 3,
        f"({N}" + " see" * 20_000 + "!)",
        f"({N}" + "," * 50_000 + "x)",
        f"a{N} and" * 10_000,
        "[1" + ",2" * 50_000,
    ],
)
def test_hostile_paragraphs_take_no_longer_than_their_length_warrants(hostile: str) -> None:
    started = time.process_time()
    tidy(without_plain_citations(hostile, 10))
    assert time.process_time() - started < 2
