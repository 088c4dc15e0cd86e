"""In-text citations in the styles that journals use, and the reference lists they point to."""

# Markup reads best unbroken.
# ruff: noqa: E501

import re

from sample_builder.draw import Draw

SURNAMES = ["Okafor", "Lindqvist", "Marchetti", "Tanaka", "Brandt", "Silva", "Novak", "Haddad", "Moreau", "Petrov"]
SURNAMES += ["Kowalski", "Eriksen", "Dubois", "Fernandes", "Ito", "Weber", "Castillo", "Nguyen", "Aydin", "Romano"]
STYLES = ("brackets", "brackets-inside", "superscript", "superscript-inside", "author-year")
TOKEN = re.compile(r"([.;,]?)\{(cites?)\}")


class Citations:
    """Numbers the citations of one article and keeps what its reference list must hold."""

    def __init__(self, style: str, draw: Draw, most: int = 9) -> None:
        """Draw `most` references, to be cited in one of STYLES."""
        self.style, self.most = style, most
        self.references = [self._reference(draw) for _ in range(most)]
        self.last = 0

    def render(self, text: str) -> str:
        """Replace {cite} and {cites} in a paragraph by cross-references."""
        return TOKEN.sub(lambda match: self._place(match[1], 1 if match[2] == "cite" else 3), text)

    def reference_list(self, nlm: bool, mixed: bool) -> str:
        """Return the <ref-list> with all references."""
        entries = "".join(self._entry(index + 1, nlm, mixed) for index in range(self.most))
        return f"<ref-list><title>References</title>{entries}</ref-list>"

    def _reference(self, draw: Draw) -> tuple[str, str, int, str, int, int]:
        first, second = draw.some(SURNAMES, 2)
        kind = draw.pick(["A cohort study", "A randomised trial", "A review", "Current concepts", "Lessons learned"])
        return first, second, draw.whole(1996, 2017), kind, draw.whole(3, 60), draw.whole(10, 900)

    def _place(self, stop: str, count: int) -> str:
        first = self.last % self.most + 1
        numbers = list(range(first, min(first + count, self.most + 1)))
        self.last = numbers[-1]
        mark = self._mark(numbers)
        # Superscripts follow the full stop, everything else precedes it.
        return stop + mark if self.style.startswith("superscript") else f" {mark}{stop}"

    def _mark(self, numbers: list[int]) -> str:
        first, last = numbers[0], numbers[-1]
        if self.style == "author-year":
            return (
                "("
                + "; ".join(
                    self._xref(n, f"{self.references[n - 1][0]} <italic>et al.</italic>, {self.references[n - 1][2]}")
                    for n in numbers
                )
                + ")"
            )
        span = str(first) if len(numbers) == 1 else f"{first}&#x2013;{last}"
        if self.style == "brackets-inside":
            return self._xref(first, f"[{span}]")
        if self.style == "superscript-inside":
            return self._xref(first, f"<sup>{span}</sup>")
        ends = self._xref(first, str(first))
        if len(numbers) == 2:
            ends += f",{self._xref(last, str(last))}"
        elif len(numbers) > 2:
            ends += f"&#x2013;{self._xref(last, str(last))}"
        return f"[{ends}]" if self.style == "brackets" else f"<sup>{ends}</sup>"

    def _xref(self, number: int, text: str) -> str:
        return f'<xref ref-type="bibr" rid="B{number}">{text}</xref>'

    def _entry(self, number: int, nlm: bool, mixed: bool) -> str:
        first, second, year, kind, volume, page = self.references[number - 1]
        names = f"<name><surname>{first}</surname><given-names>A</given-names></name>"
        others = f"<name><surname>{second}</surname><given-names>B</given-names></name>"
        group = f'<person-group person-group-type="author">{names}{others}</person-group>'
        facts = f"<year>{year}</year><volume>{volume}</volume><fpage>{page}</fpage><lpage>{page + 7}</lpage>"
        journal = "<source>J Synth Med</source>"
        if nlm:
            cited = f'<citation citation-type="journal">{group}<article-title>{kind}</article-title>{journal}{facts}</citation>'
        elif mixed:
            cited = (
                f'<mixed-citation publication-type="journal">{names}, {others}. <article-title>{kind}</article-title>. '
                f"<source>J Synth Med</source> <year>{year}</year>;<volume>{volume}</volume>:<fpage>{page}</fpage>"
                f"&#x2013;<lpage>{page + 7}</lpage>.</mixed-citation>"
            )
        else:
            cited = f'<element-citation publication-type="journal">{group}<article-title>{kind}</article-title>{journal}{facts}</element-citation>'
        return f'<ref id="B{number}"><label>{number}</label>{cited}</ref>'
