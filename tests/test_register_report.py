"""The report says what was found, carries what fits, and is harmless whatever stands in it."""

import base64
import dataclasses
import hashlib
import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from lxml import html
from register_helpers import answers, evaluation, evidence, examined

from components.common.manifest import Manifest
from components.register.comparison.compare import compare
from components.register.comparison.comparison import Comparison, Estimate, QuestionChange, ReliabilityBin
from components.register.evidence.champion import Champion
from components.register.evidence.evidence import Evidence
from components.register.evidence.results import Benchmark, Evaluation, FineTuning, QuestionResult
from components.register.gate.gate import decide
from components.register.report import plots
from components.register.report.page import render
from components.register.report.questions import question_groups
from components.register.report.summary import confusion, numbers, summary
from components.register.report.training import cost, curves
from components.register.settings import RegisterSettings

SETTINGS = RegisterSettings(benchmarks=["medqa", "medmcqa"], model_name="pmc-llama")
URI = "s3://bucket/comparisons/pmc-llama/abc/comparison.json"
HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)> **bold** [a](javascript:x) \" ' & {{ 7 * 7 }}"
TUNED = FineTuning(("medqa",), "lora", 1.0, "same")


def yes_no_maybe(right: int, of: int = 90) -> Benchmark:
    """PubMedQA's labels, in turn; the first `right` are given, the others are answered maybe, the last not at all."""
    labels = ("yes", "no", "maybe")
    questions = {}
    for i in range(of):
        answer = labels[i % 3]
        prediction = "" if i == of - 1 else answer if i < right else "maybe"
        questions[f"p{i}"] = QuestionResult(
            id=f"p{i}",
            question_hash=f"hash of p{i}",
            prompt_hash=f"prompt of p{i}",
            correct=prediction == answer,
            prediction=prediction,
            answer=answer,
        )
    return Benchmark(questions, 0.4)


BASE = evaluation("base", medqa=answers(200), medmcqa=answers(240), pubmedqa=yes_no_maybe(30))
BETTER = evaluation(
    "candidate", loss=2.8, medqa=answers(260), medmcqa=answers(250, first=10), pubmedqa=yes_no_maybe(45)
)
WORSE = evaluation("candidate", loss=3.1, medqa=answers(140), medmcqa=answers(240), pubmedqa=yes_no_maybe(45))


def compared(base: Evaluation = BASE, candidate: Evaluation = BETTER, **more: Any) -> Comparison:
    known = evidence(base, candidate, **more)
    return compare(known, decide(known, SETTINGS), SETTINGS)


@cache
def usual() -> Comparison:
    return compared()


def full() -> Evidence:
    """With a champion, a pair of fine-tuned models, and questions that the corpus holds."""
    return evidence(
        BASE,
        BETTER,
        champion=Champion(
            "3", "model champion", evaluation("champion", loss=2.9, medqa=answers(250), medmcqa=answers(245))
        ),
        base_fine_tuned={TUNED: evaluation("base", medqa=answers(300))},
        candidate_fine_tuned={TUNED: evaluation("candidate", medqa=answers(310))},
        contamination=examined(BETTER, {"medqa": ["q1", "q2"]}),
        licences={"CC BY": 90, "CC BY-NC": 10},
    )


def model(**fields: Any) -> Manifest:
    totals = {"tokens": 7_200_000, "mean_tokens_per_second": 1000.0, "processes": 4}
    return Manifest(
        **{"kind": "model", "fingerprint": "m", "inputs": {}, "settings": {}, "shards": [], "totals": totals} | fields
    )


def corpus(**fields: Any) -> Manifest:
    totals = {"documents": 90, "tokens": 123_456, "listed": 120}
    return Manifest(
        **{"kind": "corpus", "fingerprint": "c", "inputs": {}, "settings": {}, "shards": [], "totals": totals}
        | {"dropped": {"too-short": 30}}
        | fields
    )


def page(comparison: Comparison, **fields: Any) -> str:
    given = {"model": model(), "corpus": corpus(), "settings": SETTINGS, "version": "7", "aliases": ["candidate"]}
    return render(comparison, **{**given, "tags": {"comparison_uri": URI, "recipe": "tiny"}, **fields})


def words(text: str) -> str:
    """What a reader sees, in one line."""
    tree = html.fromstring(text.replace("</td>", " </td>"))
    for element in tree.xpath("//style | //script"):
        element.drop_tree()
    return " ".join(tree.text_content().split())


@pytest.mark.parametrize("candidate", [BETTER, WORSE])
def test_the_verdict_stands_on_top_in_its_own_words(candidate: Evaluation) -> None:
    comparison = compared(candidate=candidate)
    text = page(comparison)
    assert words(text).index(comparison.verdict.reason) < 200
    assert ('class="verdict good"' in text) == comparison.verdict.passed == (candidate is BETTER)
    for check in comparison.verdict.checks:
        assert check.detail in words(text)
    assert words(text).count("Research, not a medical device") == 2


def test_every_number_of_the_comparison_is_in_its_table() -> None:
    known = full()
    comparison = compare(known, decide(known, SETTINGS), SETTINGS)
    shown = words(page(comparison))
    assert len([each for each in comparison.models if each.fine_tuning]) == 2
    for each in comparison.models:
        for score in each.benchmarks.values():
            accuracy = score.accuracy
            assert f"{accuracy.value:.1%}{accuracy.low:.1%} to {accuracy.high:.1%}" in shown
    for pair in comparison.pairs:
        for difference in pair.benchmarks.values():
            change = difference.counted.change
            ends = [f"{100 * end:+.1f}".replace("-", "−").replace("+0.0", "0.0") for end in (change.low, change.high)]
            assert f"({ends[0]} to {ends[1]}) points" in shown
    assert "Fine-tuned on medqa (lora)" in shown
    assert "champion, version 3" in shown
    assert "without 2 questions in the training data" in shown


def test_published_numbers_are_marked_and_stay_apart_from_measured_ones() -> None:
    tree = html.fromstring(page(usual()))
    rows = {tuple(row.xpath("td[1]/text() | td[2]/text()")): row for row in tree.xpath("//tr[td/span[@class='tag']]")}
    published = rows[("PMC-LLaMA-7B", "full fine-tuning")]
    assert published.get("class") == "quoted"
    assert "69.53%" in published.text_content()
    assert "published" in published.text_content()
    assert "measured" in rows[("candidate", "as is")].text_content()
    assert "arXiv 2304.14454" in tree.text_content()


def test_the_forest_shows_each_pair_with_margin_and_marks_a_loss() -> None:
    rows = [
        plots.ForestRow("MedQA", Estimate(value=5, low=1, high=9), "+5.0 (+1.0 to +9.0)", margin=2),
        plots.ForestRow("MedMCQA", Estimate(value=-6, low=-9, high=-3), "−6.0 (−9.0 to −3.0)", margin=2, bad=True),
    ]
    svg = plots.forest([("As is, against the base", rows)], "differences", "points")
    tree = html.fromstring(svg)
    assert "As is, against the base" in tree.text_content()
    assert "+5.0 (+1.0 to +9.0)" in tree.text_content()

    def stretches(colour: str) -> list[list[float]]:
        """The ends of the horizontal lines of that colour, from left to right."""
        paths = [each.get("d") for each in tree.iter("path") if f"stroke: var({colour})" in each.get("style", "")]
        ends = [[float(x) for x in re.findall(r"[ML] ([\d.]+) ", path)] for path in paths]
        return sorted(end for end in ends if end[0] != end[-1])

    ((low, high),), ((bad_low, bad_high),) = stretches("--bar"), stretches("--lost")
    assert (high - low) / (bad_high - bad_low) == pytest.approx(8 / 6, rel=0.01)
    assert bad_high < low
    assert plots.forest([], "none", "points") == plots.forest([("empty", [])], "none", "points") == ""


def test_training_is_shown_over_the_tokens_learned_from(tmp_path: Path) -> None:
    records = [
        {"step": i, "loss": None if i == 500 else 3 - i / 1000, "learning_rate": 1e-3, "tokens": 10, "seconds": 1}
        | ({"validation_loss": 2.5} if i % 250 == 0 else {})
        | ({"skipped": True} if i == 500 else {})
        for i in range(1, 1001)
    ]
    (tmp_path / "losses.jsonl").write_text("".join(json.dumps(each) + "\n" for each in records))
    trained = model(extra={"losses_uri": (tmp_path / "losses.jsonl").as_uri()})
    found = curves(trained)
    assert (found.steps, found.skipped) == (1000, 1)
    assert found.loss[-1] == (10_000, pytest.approx(2.0, abs=0.01))
    assert len(found.loss) < 500
    assert [x for x, _ in found.perplexity] == [2500, 5000, 7500, 10_000]
    assert found.perplexity[0][1] == pytest.approx(12.18, abs=0.01)
    text = page(usual(), model=trained)
    assert "1,000 steps; 1 were left out" in words(text)
    assert text.count("<h3>Loss</h3>") == text.count("<h3>Held-out perplexity</h3>") == 1


@pytest.mark.parametrize("content", [None, "no json\n", '{"step": 1}\n', "[1]\n"])
def test_a_record_of_training_that_cannot_be_read_is_said(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "losses.jsonl").write_text(content)
    uri = (tmp_path / "losses.jsonl").as_uri()
    found = curves(model(extra={"losses_uri": uri}))
    assert found.obstacle.startswith(f"The record of the training, {uri}, cannot be read: ")
    assert not found.loss


def test_a_missing_record_of_training_costs_no_report(tmp_path: Path) -> None:
    uri = (tmp_path / "losses.jsonl").as_uri()
    assert f"{uri}, cannot be read" in words(page(usual(), model=model(extra={"losses_uri": uri})))
    assert "came without a record of its training" in words(page(usual()))


def test_cost_is_hours_times_price() -> None:
    dear = model(settings={"gpu_hour_price": 2.5})
    found = cost(dear, SETTINGS.card)
    assert found.footprint.device_hours == pytest.approx(8)
    assert found.price == pytest.approx(20)
    shown = words(page(usual(), model=dear))
    assert "Priceat 2.5 a device hour 20.00" in shown
    assert "Tokens a second250 a device 1,000" in shown
    assert "Nobody measured the time" in words(page(usual(), model=model(totals={})))


def test_calibration_and_confusion_are_shown_where_there_are_any() -> None:
    comparison = usual()
    shown = words(page(comparison))
    calibration = next(each.benchmarks["medqa"].calibration for each in comparison.models if each.role == "candidate")
    assert f"Candidate: ECE {calibration.ece:.3f}, Brier {calibration.brier:.3f}." in shown
    tree = html.fromstring(page(comparison))
    tables = tree.xpath("//table[@class='confusion']")
    counts = [[int(cell.text) for cell in row.xpath("td")] for row in tables[1].xpath(".//tr[td]")]
    assert counts == [[15, 0, 15, 0], [0, 15, 15, 0], [0, 0, 29, 1]]
    assert tables[1].xpath(".//tr[1]/th/text()") == ["yes", "no", "maybe", "unparsable"]
    assert "Confusion of" not in words(
        page(compared(evaluation("b", medqa=answers(9)), evaluation("c", medqa=answers(9))))
    )
    bins = [
        ReliabilityBin(low=0, high=0.1, questions=4, confidence=0.05, accuracy=Estimate(value=0.5, low=0.2, high=0.8))
    ]
    assert "50.0% of 4 right where it was 5.0% sure" in plots.reliability([("base", plots.FAINT, bins)], "bins")


def change(number: int, benchmark: str = "medqa", **fields: Any) -> QuestionChange:
    given: dict[str, Any] = {
        "benchmark": benchmark,
        "id": f"q{number}",
        "hash": "h",
        "text": f"What helps patient {number}?",
        "options": {"A": "rest", "B": "surgery"},
        "answer": "B",
        "predictions": {"base": "A", "candidate": "B"},
        "outcome": {"base": "won" if number % 3 else "lost"},
        "coverage": None,
        "overlaps": False,
        "flagged": False,
    }
    return QuestionChange(**given | fields)


def test_a_question_shows_who_answered_what() -> None:
    asked = [
        change(1, coverage=0.85, overlaps=True, flagged=True),
        change(3, predictions={"base": "B", "candidate": ""}),
    ]
    tree = html.fromstring(page(usual().model_copy(update={"questions": asked})))
    first, second = tree.xpath("//details[contains(@class, 'q ')]")
    assert first.get("class").split() == ["q", "won-base", "held"]
    assert [" ".join(each.text_content().split()) for each in first.xpath(".//li")] == [
        "A rest base",
        "B surgery right candidate",
    ]
    assert "the training data holds it · 85% of its words in one article" in first.text_content()
    assert "no readable answer: candidate" in second.text_content()


def test_questions_without_texts_are_shown_by_their_ids() -> None:
    asked = [change(1, text="", options={})]
    tree = html.fromstring(page(usual().model_copy(update={"questions": asked})))
    (question,) = tree.xpath("//details[contains(@class, 'q ')]")
    assert "q1" in question.xpath("string(summary)")
    assert len(question.xpath(".//li")) == 2


def test_a_page_stays_below_3_mb_and_says_what_was_cut() -> None:
    long = "A patient <with> pain & fever. " * 40
    asked = [change(i, "medqa" if i % 4 else "pubmedqa", text=f"{i}: {long}") for i in range(6000)]
    text = page(usual().model_copy(update={"questions": asked}))
    assert 2_000_000 < len(text.encode()) < 3_000_000
    tree = html.fromstring(text)
    on_page = len(tree.xpath("//details[contains(@class, 'q ')]"))
    assert f"This page carries {on_page:,} of 6,000, the first ones of each benchmark and outcome" in words(text)
    assert f"all of them are in {URI}" in words(text)
    for group, outcome, of_all in (
        ("MedQA-USMLE", "won", 3000),
        ("MedQA-USMLE", "lost", 1500),
        ("PubMedQA", "won", 1000),
    ):
        (found,) = tree.xpath(f"//details[@class='group'][starts-with(summary, '{group}')]")
        kept = found.xpath(f".//details[contains(@class, '{outcome}-base')]")
        assert len(kept) == pytest.approx(on_page * of_all / 6000, rel=0.02)


def test_what_is_kept_of_each_kind_is_its_beginning() -> None:
    from markupsafe import Markup

    asked = [change(i, "medqa" if i % 2 else "medmcqa") for i in range(120)]
    groups = question_groups(asked, 6000, lambda shown: Markup(shown.id.ljust(100)))
    assert [group.changed for group in groups] == [60, 60]
    assert [len(group.shown) for group in groups] == [30, 30]
    assert groups[0].counts == {"base": (40, 20)}
    assert [str(each).strip() for each in groups[1].shown][:3] == ["q1", "q3", "q5"]
    assert all(len(group.shown) == 60 for group in question_groups(asked, 10**6, lambda shown: Markup("x")))


def test_nothing_that_stands_in_it_can_do_harm() -> None:
    bad = HOSTILE + " \ud800\x00\u202e"
    renamed = {f"{HOSTILE[:20]}{i}": score for i, score in enumerate(BASE.benchmarks.values())}
    base = dataclasses.replace(BASE, name=bad, benchmarks=BASE.benchmarks | renamed)
    candidate = dataclasses.replace(BETTER, name=bad, benchmarks=BETTER.benchmarks | renamed)
    comparison = compared(base, candidate, licences={HOSTILE: 3}, contamination=examined(candidate))
    asked = [
        change(1, bad, id=bad, text=bad, options={"A": bad, bad: bad}, predictions={"base": bad, "candidate": "A"})
    ]
    text = page(
        comparison.model_copy(update={"questions": asked, "champion_obstacle": bad}),
        corpus=corpus(dropped={bad: 1}, extra={"origins": [{bad: bad}]}),
        model=model(extra={"losses_uri": "file:///" + HOSTILE}),
        version=bad,
        aliases=[bad],
        tags={"comparison_uri": bad, bad: bad, "datasets": json.dumps({HOSTILE: HOSTILE})},
    )
    text.encode()
    tree = html.document_fromstring(text)
    scripts = tree.xpath("//script")
    assert len(scripts) == 1
    assert tree.xpath("//img | //iframe | //object | //embed | //link | //a | //form | //base | //image | //use") == []
    attributes = {name.lower() for element in tree.iter() if isinstance(element.tag, str) for name in element.attrib}
    assert not [name for name in attributes if name.startswith("on") or name in {"src", "href", "srcset", "action"}]
    assert text.count("**bold**") >= 8
    assert "49" not in re.findall(r"&amp; (.{0,9})", text)


def test_its_policy_forbids_everything_but_its_own_script() -> None:
    text = page(usual())
    (policy,) = html.document_fromstring(text).xpath("//meta[@http-equiv='Content-Security-Policy']/@content")
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules == {
        "default-src": "'none'",
        "style-src": "'unsafe-inline'",
        "script-src": f"'sha256-{digest}'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    assert text.index("Content-Security-Policy") < text.index("<style>")
    assert not re.search(r"https?://|@import|url\(", text.replace("http://www.w3.org/2000/svg", ""))


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
def test_a_browser_runs_its_search_under_its_own_policy(tmp_path: Path) -> None:
    text = page(usual().model_copy(update={"questions": [change(i) for i in range(50)]}))
    assert '<label id="search-label" hidden>' in text
    (tmp_path / "report.html").write_text(text, encoding="utf-8")
    folder = f"--user-data-dir={tmp_path / 'profile'}"
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", folder, "--dump-dom"]
    address = (tmp_path / "report.html").as_uri()
    done = subprocess.run([*command, address], capture_output=True, text=True, timeout=120, check=True)
    assert '<label id="search-label">' in done.stdout


def test_it_says_what_is_not_known() -> None:
    bare = evaluation("base", medqa=answers(200)), evaluation("candidate", medqa=answers(260))
    comparison = compared(*bare, contamination=None, licences={})
    shown = words(page(comparison, corpus=corpus(totals={}, dropped={}), tags={}))
    assert "was not searched for test questions" in shown
    assert "No licence is recorded" in shown
    assert "medmcqa" in comparison.verdict.reason


def test_pages_of_the_same_comparison_are_the_same() -> None:
    assert page(usual()) == page(usual())


def test_the_run_table_and_kfp_get_flat_numbers() -> None:
    comparison = usual()
    found = numbers(comparison)
    assert found["medqa_base"] == 0.4
    assert found["medqa_candidate"] == 0.52
    assert found["perplexity_candidate"] == pytest.approx(16.44, abs=0.01)
    row = summary(comparison, "pmc-llama", "7")
    assert row.items() >= found.items()
    assert (row["model"], row["version"], row["passed"]) == ("pmc-llama", "7", True)
    assert row["model_fingerprint"] == comparison.models[1].model and "fingerprint" not in row
    table = confusion(comparison)
    assert table is not None
    assert table.labels == ["yes", "no", "maybe", "unparsable"]
    assert confusion(compared(evaluation("b", medqa=answers(9)), evaluation("c", medqa=answers(9)))) is None
