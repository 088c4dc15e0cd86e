"""The model card: complete, honest about what is unknown, and harmless whatever the texts in it are."""

import dataclasses

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from components.common.manifest import Manifest
from components.register.card.card import description, footprint, model_card
from components.register.card.card_settings import CardSettings
from components.register.card.markdown import code, escaped, literal
from components.register.comparison.compare import compare
from components.register.comparison.comparison import Comparison
from components.register.gate.gate import decide
from components.register.settings import RegisterSettings
from tests.register_helpers import answers, evaluation, evidence

SETTINGS = RegisterSettings(benchmarks=["medqa"])
TOTALS = {
    "tokens": 3_600_000,
    "mean_tokens_per_second": 100.0,
    "processes": 8,
    "steps": 500,
    "parameters": 6_738_415_616,
}
FACTS = {"base_model": "huggyllama/llama-7b", "recipe": "paper", "git_revision": "abc123", "model_uri": "s3://b/m"}
NASTY = [
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](https://tracker.example/x.png)",
    "a | b\n\n# Heading\n- item",
    "`code` **bold** ~~gone~~ https://evil.example www.evil.example",
    "---\nlicense: mit\n---",
    "1. first",
    "{{ 7 * 7 }} {% raw %}",
    '"><img src=x onerror=alert(1)>',
]


def manifest(kind: str, totals: dict | None = None, **extra) -> Manifest:
    settings = {"learning_rate": 2e-5}
    return Manifest(
        kind=kind, fingerprint="c0ffee", inputs={}, settings=settings, shards=[], totals=totals or {}, extra=extra
    )


def comparison(**more) -> Comparison:
    found = evidence(
        evaluation("base", 3.0, medqa=answers(150)), evaluation("candidate", 2.5, medqa=answers(250)), **more
    )
    return compare(found, decide(found, SETTINGS), SETTINGS)


def card(settings: CardSettings | None = None, totals: dict | None = None, facts: dict | None = None, **more) -> str:
    corpus = manifest("corpus", origins=[{"source": "pmc", "inventory": "2026-10-01"}], retracted=["PMC1"])
    model = manifest("model", TOTALS if totals is None else totals)
    found = more.pop("comparison", None) or comparison(**more)
    return model_card("pmc-llama", model, corpus, found, settings or CardSettings(), facts or FACTS)


def test_the_card_is_one_that_the_hub_reads(tmp_path):
    (tmp_path / "README.md").write_text(card(), encoding="utf-8")
    read = ModelCard.load(tmp_path / "README.md")
    data = read.data
    assert (data.language, data.license, data.library_name) == ("en", "other", "transformers")
    assert (data.base_model, data.pipeline_tag) == ("huggyllama/llama-7b", "text-generation")
    (result,) = data.eval_results
    assert (result.dataset_type, result.metric_type, result.metric_value) == (
        "GBaker/MedQA-USMLE-4-options",
        "accuracy",
        0.5,
    )
    assert read.text.strip().startswith("# pmc-llama")


def test_the_card_says_what_a_person_must_know():
    text = card()
    for expected in (
        "**Not a medical device.**",
        "## Intended use",
        "## Out of scope, and limits",
        "| CC BY | 90 |",
        "- From: source pmc, inventory 2026-10-01",
        "- Retracted articles among the sources, at the time: 1",
        "**Passed.** Promoted: ",
        "| MedQA-USMLE | as is | 30.0% (26.1% to 34.2%) | 50.0% (45.6% to 54.4%) | +20.0 (+16.",
        "| Parameters | 6,738,415,616 |",
        "| learning rate | 2e-05 |",
        "mlflow.transformers.load_model('models:/pmc-llama@champion')",
        "@article{wu2023pmcllama,",
        "title   = {{PMC-LLaMA",
    ):
        assert expected in text, expected
    assert card() == text


def test_the_footprint_is_time_times_power_times_carbon_or_unknown():
    model = manifest("model", TOTALS)
    known = CardSettings(device_power_watts=400, carbon_intensity=250, power_usage_effectiveness=1.5)
    found = footprint(model, known)
    assert dataclasses.astuple(found) == pytest.approx((80.0, 48.0, 12.0))
    text = card(known.model_copy(update={"region": "eu-west-1"}))
    assert "80 device hours, in eu-west-1" in text
    assert "48 kWh" in text
    assert "12 kg CO2-equivalent" in text
    assert yaml.safe_load(text.split("---")[1])["co2_eq_emissions"]["emissions"] == 12_000
    powerless = card(CardSettings(carbon_intensity=250))
    assert "Energy: unknown, as nobody said what a device draws" in powerless
    assert "Emissions: unknown.\n" in powerless
    assert "co2_eq_emissions" not in powerless
    assert "Emissions: unknown, as nobody said how clean the grid is" in card(CardSettings(device_power_watts=400))
    assert "The time of its training was not measured." in card(totals={})


@pytest.mark.parametrize("nasty", NASTY)
def test_texts_from_outside_stay_text(nasty):
    """Wherever such a text can come in, it is shown as it is: no element, no link, no heading of its own."""
    calm, evil = (
        card(
            CardSettings(contact=text, region=text),
            facts=dict.fromkeys(FACTS, text),
            licences={text: 5},
            totals=TOTALS,
        )
        for text in ("calm", nasty)
    )
    assert shape(body(evil)) == shape(body(calm))
    rendered = "".join(token.content for token in inline(body(evil)) if token.type == "text")
    assert "".join(nasty.split()) in "".join(rendered.split())
    assert yaml.safe_load(evil.split("\n---\n")[0])["license"] == "other"
    assert evil.count("\n---\n") == calm.count("\n---\n")


@pytest.mark.parametrize("nasty", [*NASTY, "`", "```", "~~~", "'", "\\"])
def test_code_spans_and_literals_hold_any_text(nasty):
    markdown = MarkdownIt("commonmark")
    (paragraph,) = [token for token in markdown.parse(str(code(nasty))) if token.type == "inline"]
    (span,) = paragraph.children
    assert (span.type, span.content.split()) == ("code_inline", nasty.split())
    block = f"```python\nx = {literal(nasty)}\n```"
    (fence,) = markdown.parse(block)
    assert eval(fence.content.removeprefix("x = ")).split() == nasty.split()  # a literal of our own making


def test_ordinary_texts_are_left_as_they_are():
    for text in ("CC BY-NC 4.0", "+1.2 (+0.4 to +2.0) points", "13.46 (12.1 to 14.9)", "-3.5%", "v1.2: as is, 50%"):
        assert escaped(text) == text


def test_the_description_is_short_enough_for_any_server():
    found = comparison()
    text = description(found, "s3://bucket/model/README.md")
    assert text.startswith("Promoted: ")
    assert "| MedQA-USMLE |" in text
    assert text.rstrip().endswith("Model card: `s3://bucket/model/README.md`")
    long = found.model_copy(update={"verdict": dataclasses.replace(found.verdict, reason="no " * 5000)})
    assert len(description(long, "s3://bucket/model/README.md")) < 5000


def body(text: str) -> str:
    return text.split("\n---\n", 1)[1]


def inline(text: str) -> list:
    parsed = MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(text)
    return [child for token in parsed for child in token.children or []]


def shape(text: str) -> list[str]:
    """The elements of a Markdown text, without what they say."""
    parsed = MarkdownIt("gfm-like", {"linkify": False, "html": True}).parse(text)
    kinds = [token.type for token in parsed]
    return kinds + [
        child.type for token in parsed for child in token.children or [] if child.type not in ("text", "text_special")
    ]
