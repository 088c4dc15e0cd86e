"""Which articles the sample has, and what becomes of each in the pipeline."""

import itertools
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sample_builder.blocks import BLOCKS
from sample_builder.citations import STYLES
from sample_builder.draw import Draw
from sample_builder.jats import DOCTYPES, Paper, plain
from sample_builder.prose import HERE, Prose, Section, compose, load_templates, load_topics

# One line a topic: what kinds of article are written about it.
DESIGNS = {
    "heart-failure": "trial diagnostic",
    "atrial-fibrillation": "cohort",
    "hypertension": "trial review",
    "asthma": "trial case",
    "copd": "cohort review",
    "pneumonia": "trial diagnostic",
    "tuberculosis": "meta",
    "type-2-diabetes": "trial lab",
    "gestational-diabetes": "meta",
    "chronic-kidney-disease": "trial review",
    "rheumatoid-arthritis": "diagnostic trial",
    "gout": "trial letter",
    "osteoporosis": "cohort review",
    "knee-osteoarthritis": "meta",
    "stroke": "trial case",
    "migraine": "meta editorial",
    "parkinson": "trial review",
    "epilepsy": "cohort case",
    "depression": "meta",
    "schizophrenia": "cohort",
    "pre-eclampsia": "trial diagnostic",
    "postpartum-haemorrhage": "trial",
    "neonatal-jaundice": "diagnostic",
    "bronchiolitis": "meta case",
    "iron-deficiency": "lab review",
    "sickle-cell": "cohort",
    "malaria": "diagnostic",
    "hiv": "trial",
    "hepatic-encephalopathy": "meta case",
    "crohn": "diagnostic cohort",
    "helicobacter": "trial",
    "colorectal-cancer": "lab meta",
    "breast-cancer": "cohort editorial",
    "psoriasis": "lab",
    "atopic-dermatitis": "trial",
    "glaucoma": "review",
    "diabetic-retinopathy": "lab",
    "otitis-media": "case",
    "dental-caries": "cohort",
    "periodontitis": "meta",
    "sepsis": "trial letter",
    "spinal-hypotension": "trial",
}
ARTICLE_TYPES = {"case": "case-report", "review": "review-article", "editorial": "editorial", "letter": "letter"}
STUDIES = ("trial", "cohort", "diagnostic", "meta")
PROSE_BLOCKS = ("boxed-text", "nested-list", "disp-quote", "supplementary-material", "ext-link", "inline-markup")
STUDY_BLOCKS = tuple(name for name in BLOCKS if name != "undeclared-entity")
FRONT = ["author-notes", "funding", "keywords", "subtitle", "collab", "history", "ali-licence", "no-doi"]
FRONT += ["abstract-graphical", "abstract-plain-language", "abstract-highlights"]
BACK = [
    "acknowledgements",
    "footnote-group",
    "glossary",
    "appendix",
    "data-availability",
    "mixed-citation",
    "floats-group",
]
LAYOUT = ["doctype-external-dtd", "single-line", "wrapped-whitespace", "section-labels", "no-xml-lang"]
# Features that few files need: article number -> features.
RARE = {
    3: ["sub-article-review", "response"],
    5: ["undeclared-entity", "doctype-external-dtd"],
    8: ["undeclared-entity", "no-doctype"],
    12: ["sub-article-translation"],
    14: ["encoding-latin-1"],
    17: ["byte-order-mark"],
    21: ["nxml-extension"],
    25: ["sub-article-review", "sub-article-translation"],
    30: ["nxml-extension"],
    33: ["trans-abstract"],
    37: ["undeclared-entity", "no-doctype", "nxml-extension"],
    41: ["sub-article-review"],
}
NEAR_DUPLICATES_OF = (1, 6, 19, 28)
EXACT_DUPLICATE_OF = 10
DECOY_OF = 3


@dataclass(frozen=True)
class Entry:
    """One file of the sample: the article and its expected fate."""

    paper: Paper
    fate: str
    duplicate_of: int = 0

    @property
    def name(self) -> str:
        """Return the file name."""
        suffix = "nxml" if "nxml-extension" in self.paper.features else "xml"
        return f"{self.id}.{suffix}"

    @property
    def id(self) -> str:
        """Return the article's id: the stem of its file, and its PubMed Central id."""
        return f"PMC{999_900_000 + self.paper.number}"


def entries() -> list[Entry]:
    """Return all files of the sample, in order."""
    kept = _kept()
    papers = {entry.paper.number: entry.paper for entry in kept}
    after = _Numbers(len(kept))
    return [
        *kept,
        *(_near_duplicate(papers[number], after.next()) for number in NEAR_DUPLICATES_OF),
        _exact_duplicate(papers[EXACT_DUPLICATE_OF], after.next()),
        *_foreign(after),
        *_notices(after),
        *_unfinished(after),
        _decoy(after.next()),
    ]


class _Numbers:
    def __init__(self, last: int) -> None:
        self.last = last

    def next(self) -> int:
        self.last += 1
        return self.last


def _kept() -> list[Entry]:
    topics, templates = load_topics(), load_templates()
    first = [(key, names.split()[0], 0) for key, names in DESIGNS.items()]
    second = [(key, names.split()[1], 2) for key, names in DESIGNS.items() if " " in names]
    found = []
    for index, (key, design, fact) in enumerate(first + second):
        number = index + 1
        prose = compose(topics[key], templates[design], Draw(f"article {key} {design}"), fact)
        paper = _dress(number, prose, design, topics[key]["subject"])
        found.append(Entry(paper, "kept"))
    return found


def _dress(number: int, prose: Prose, design: str, subject: str) -> Paper:
    """Deal the features out, so that every one is in several files and no two files have the same set."""
    common = list(STUDY_BLOCKS if design in STUDIES else PROSE_BLOCKS)
    features = {name for k, name in enumerate(common) if (number + 3 * k) % 4 == 0}
    features |= {name for k, name in enumerate(FRONT) if (number + 2 * k) % 5 == 0}
    features |= {name for k, name in enumerate(BACK) if (number + 2 * k) % 5 == 1}
    features |= {name for k, name in enumerate(LAYOUT) if (2 * number + k) % 7 in (0, 3)}
    features |= set(RARE.get(number, []))
    if "no-doctype" in features:
        features.discard("doctype-external-dtd")
    dialect = list(DOCTYPES)[number % len(DOCTYPES)]
    if dialect == "nlm-2.3":
        features -= {"ali-licence", "floats-group"}
    trans = _SPANISH if "trans-abstract" in features else ""
    return Paper(
        number=number,
        prose=prose,
        features=frozenset(features),
        article_type=ARTICLE_TYPES.get(design, "research-article"),
        subject=subject,
        pmid=990_000_000 + number if number % 5 else 0,
        dialect=dialect,
        style=STYLES[number % len(STYLES)],
        trans_abstract=trans,
    )


_SPANISH = (
    "Este estudio compara dos tratamientos. Los resultados son inventados y sirven para probar programas informáticos."
)


def _near_duplicate(paper: Paper, number: int) -> Entry:
    """A shorter deposit of the same article: some sentences are missing."""
    features = paper.features - {"nxml-extension"} | {"near-duplicate"}
    if number % 2:
        features |= {"nxml-extension"}
    counter = itertools.count(number)
    prose = replace(paper.prose, body=[_shortened(section, counter) for section in paper.prose.body])
    copy = replace(paper, number=number, prose=prose, features=features, pmid=0, copy_of=paper.number)
    return Entry(copy, "near-duplicate", paper.number)


def _shortened(section: Section, counter: Iterator[int]) -> Section:
    """Drop the last sentence of every fifth paragraph, where it isn't the only one."""
    paragraphs = []
    for text in section.paragraphs:
        first, stop, _ = text.rpartition(". ")
        paragraphs.append(first + "." if stop and next(counter) % 5 == 0 else text)
    return Section(section.title, paragraphs, [_shortened(under, counter) for under in section.sections])


def _exact_duplicate(paper: Paper, number: int) -> Entry:
    """The same text, deposited twice under different identifiers."""
    features = paper.features | {"exact-duplicate"}
    copy = replace(paper, number=number, features=features, pmid=0, copy_of=paper.number)
    return Entry(copy, "exact-duplicate", paper.number)


def _decoy(number: int) -> Entry:
    """A second report from the same trial: shares the methods with the first, and is no duplicate."""
    topics, templates = load_topics(), load_templates()
    key = list(DESIGNS)[DECOY_OF - 1]
    topic, design = topics[key], templates[DESIGNS[key].split()[0]]
    first = compose(topic, design, Draw(f"article {key} {DESIGNS[key].split()[0]}"))
    second = compose(topic, design, Draw(f"second report {key}"), first_fact=2)
    body = [second.body[0], first.body[1], *second.body[2:]]
    paper = _dress(number, replace(second, body=body), "trial", topic["subject"])
    return Entry(replace(paper, features=paper.features | {"shared-methods"}), "kept")


def _foreign(after: _Numbers) -> list[Entry]:
    with (HERE / "foreign.toml").open("rb") as file:
        articles = tomllib.load(file)["article"]
    return [_foreign_entry(article, after.next()) for article in articles]


def _foreign_entry(article: dict[str, Any], number: int) -> Entry:
    features = {f"language-{article['language']}", "trans-abstract", "acknowledgements"}
    if article["declared"] != article["language"]:
        features.add("mislabelled-language")
    if number % 2:
        features.add("sub-article-translation")
    sections = [Section(title, list(paragraphs)) for title, *paragraphs in article["sections"]]
    prose = Prose(article["title"], [Section("", [article["abstract"]])], sections, {})
    paper = Paper(
        number=number,
        prose=prose,
        features=frozenset(features),
        language=article["declared"],
        style=STYLES[number % len(STYLES)],
        trans_abstract=article["english"],
    )
    return Entry(paper, "language")


def _notices(after: _Numbers) -> list[Entry]:
    with (HERE / "notices.toml").open("rb") as file:
        notices = tomllib.load(file)["notice"]
    return [_notice(after.next(), notice["kind"], notice["title"], notice["paragraphs"]) for notice in notices]


def _notice(number: int, kind: str, title: str, paragraphs: list[str]) -> Entry:
    features = frozenset({f"notice-{kind}", "related-article", "no-references"})
    return Entry(Paper(number, Prose(title, [], [Section("", paragraphs)], {}), features, kind), "article-type")


def _unfinished(after: _Numbers) -> list[Entry]:
    topics, templates = load_topics(), load_templates()

    def paper(key: str, design: str, *features: str) -> Paper:
        prose = compose(topics[key], templates[design], Draw(f"unfinished {key} {design}"))
        return Paper(after.next(), prose, frozenset(features), dialect="jats-1.1")

    short = [Section("", ["This image shows a lesion of the forearm in a gardener. It healed in two weeks."])]
    stub = [Section("", ["Abstract of a talk; see the programme."])]
    brief = Prose("Images in clinical medicine: a sore forearm", [], short, {})
    talk = Prose("Poster 14: outpatient parenteral therapy", [], stub, {})
    return [
        Entry(Paper(after.next(), brief, frozenset({"short-body", "no-references"})), "too-short"),
        Entry(Paper(after.next(), talk, frozenset({"short-body", "no-references", "no-doi"})), "too-short"),
        Entry(paper("asthma", "cohort", "no-body", "keywords"), "no-body"),
        Entry(paper("hiv", "meta", "empty-body", "funding"), "no-body"),
        Entry(paper("sepsis", "cohort", "truncated", "table"), "broken"),
    ]


def index_entry(entry: Entry) -> dict[str, Any]:
    """Return what articles.json says about a file."""
    paper = entry.paper
    features = set(paper.features) | {paper.dialect, f"citations-{paper.style}"}
    if any(section.sections for section in paper.prose.body):
        features.add(f"nested-{_depth(paper.prose.body)}-deep")
    if paper.prose.abstract and paper.prose.abstract[0].title:
        features.add("structured-abstract")
    found: dict[str, Any] = {
        "id": entry.id,
        "file": entry.name,
        "title": plain(paper.prose.title),
        "article_type": paper.article_type,
        "features": sorted(features),
        "fate": entry.fate,
    }
    if entry.duplicate_of:
        found["duplicate_of"] = f"PMC{999_900_000 + entry.duplicate_of}"
    return found


def _depth(sections: list[Section]) -> int:
    return max((1 + _depth(section.sections) for section in sections), default=0)
