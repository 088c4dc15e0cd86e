"""From a topic and a study design to the text of an article."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sample_builder.draw import Draw
from sample_builder.study import study_words

HERE = Path(__file__).parent
COUNTRIES = ["Norland", "Westmark", "Ardenia", "Calvora", "Tessaly", "Brenland", "Osterra", "Marivia"]
CITIES = ["Northbridge", "Elmstad", "Port Halden", "Vasteras Bay", "Corvale", "Lindmoor", "Santa Reva", "Kesterly"]
MONTHS = ["January", "February", "March", "April", "May", "June", "September", "October", "November"]
GENES = ["IL6", "TNF", "CCL2", "HMOX1", "SOD2", "VEGFA", "COL1A1", "NFKBIA", "STAT3", "CXCL8", "FOXO1", "SIRT1"]
CITATION = re.compile(r"\.\{(cites?)\}")


@dataclass
class Section:
    """A titled run of paragraphs with sections under it. Text is JATS inline markup, with {cite} and {cites} in it."""

    title: str
    paragraphs: list[str]
    sections: list["Section"] = field(default_factory=list)


@dataclass
class Prose:
    """The words of one article, before any XML."""

    title: str
    abstract: list[Section]
    body: list[Section]
    words: dict[str, str]


def load_topics() -> dict[str, dict[str, Any]]:
    """Return the topics by key."""
    with (HERE / "topics.toml").open("rb") as file:
        return {topic["key"]: topic for topic in tomllib.load(file)["topic"]}


def load_templates() -> dict[str, dict[str, Any]]:
    """Return the wording of every study design."""
    with (HERE / "templates.toml").open("rb") as file:
        return tomllib.load(file)


def compose(topic: dict[str, Any], design: dict[str, Any], draw: Draw, first_fact: int = 0) -> Prose:
    """Write one article.

    Args:
        topic: An entry of topics.toml.
        design: An entry of templates.toml.
        draw: Source of randomness.
        first_fact: Which of the topic's facts comes first, so that two articles on a topic differ.
    """
    words = _vocabulary(topic, draw)
    facts = topic["facts"][first_fact:] + topic["facts"][:first_fact]
    writer = _Writer(words, topic["verdict"], draw, facts)
    title = writer.sentence(design["titles"][0]["text"])
    abstract = [writer.section(entry) for entry in design.get("abstract", [])]
    return Prose(title, abstract, writer.tree(design["body"]), words)


def capital(text: str) -> str:
    """Return the text with its first letter large, past any markup."""
    match = re.match(r"(?:<[^>]+>)*", text)
    start = match.end() if match else 0
    return text[:start] + text[start : start + 1].upper() + text[start + 1 :]


def article_for(patient: str) -> str:
    """Return "a" or "an" for a noun that starts with an age, such as 11-year-old boy."""
    return "an" if patient.startswith(("8", "11-", "18-")) else "a"


def _vocabulary(topic: dict[str, Any], draw: Draw) -> dict[str, str]:
    names = {name: topic[name] for name in ("condition", "short", "people", "treatment", "comparator", "event")}
    names |= {name: topic[name] for name in ("tissue", "mechanism", "presentation", "sign", "test", "patient")}
    names |= {"measure": topic["measure"][0], "marker": topic["marker"][0]}
    names |= {"country": draw.pick(COUNTRIES), "university": f"University of {draw.pick(CITIES)}"}
    names |= {"month": draw.pick(MONTHS), "month2": draw.pick(MONTHS), "gene": draw.pick(GENES)}
    number, unit = topic["patient"].split("-")[:2]
    names |= {"age": f"{float(number) * draw.between(0.9, 1.1):.1f} {unit}s"}
    capitals = {capital(name): capital(text) for name, text in names.items()}
    return names | capitals | study_words(draw, topic["verdict"], topic["measure"], topic["marker"])


class _Writer:
    def __init__(self, words: dict[str, str], verdict: str, draw: Draw, facts: list[str]) -> None:
        self.words, self.verdict, self.draw = words, verdict, draw
        self.facts: Iterator[str] = iter(facts)

    def sentence(self, slot: str | list[str] | dict[str, list[str]]) -> str:
        if isinstance(slot, dict):
            slot = slot[self.verdict]
        text = slot if isinstance(slot, str) else self.draw.pick(slot)
        if "{fact}" in text:
            text = text.replace("{fact}", next(self.facts))
        # "an 8-year-old", "an 11-year-old"
        if article_for(self.words["patient"]) == "an":
            text = re.sub(r"\b([Aa]) \{patient\}", r"\1n {patient}", text)
        return text.format_map(self.words | {"cite": "{cite}", "cites": "{cites}"})

    def section(self, entry: dict[str, Any]) -> Section:
        paragraphs = [" ".join(self.sentence(slot) for slot in slots) for slots in entry["paragraphs"]]
        return Section(self.sentence(entry["title"]), paragraphs)

    def tree(self, entries: list[dict[str, Any]]) -> list[Section]:
        roots: list[Section] = []
        open_sections: list[Section] = []
        for entry in entries:
            section = self.section(entry)
            level = max(entry["level"], 1)
            del open_sections[level - 1 :]
            (open_sections[-1].sections if open_sections else roots).append(section)
            open_sections.append(section)
        return roots
