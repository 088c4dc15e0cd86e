"""What a person sees of a local run."""

import io
from pathlib import Path

import pytest

from pipelines.console import LineFilter, show_failure, show_results
from pipelines.ledger import StepResult

KFP_OUTPUT = """\
12:00:01.123 - INFO - Executing task \x1b[96m'plan-download'\x1b[0m
    [KFP Executor 2026-11-23 12:00:01,200 INFO]: --component_module_path
    12:00:02 Plan the download: started
        12:00:03 ERROR: Plan the download failed: There is no archive x.tar.gz.
--------------------------------------------------------------------------------
"""


def test_only_the_steps_own_lines_are_shown_and_the_log_keeps_all() -> None:
    log, shown = io.StringIO(), io.StringIO()
    stream = LineFilter(log, shown)
    for start in range(0, len(KFP_OUTPUT), 7):
        stream.write(KFP_OUTPUT[start : start + 7])
    assert log.getvalue() == KFP_OUTPUT
    assert stream.causes == ["Plan the download failed: There is no archive x.tar.gz."]
    assert shown.getvalue().splitlines() == [
        "12:00:02 Plan the download: started",
        "12:00:03 ERROR: Plan the download failed: There is no archive x.tar.gz.",
    ]


def test_the_table_says_what_ran_what_was_cached_and_where_the_model_is(capsys: pytest.CaptureFixture[str]) -> None:
    registration = {
        "reason": "Passed: the perplexity fell by 60%.",
        "model": "pmc-llama-tiny",
        "version": "3",
        "aliases": ["candidate", "champion"],
        "model_uri": "file:///store/models/x/model",
        "report_uri": "file:///store/comparisons/x/report.html",
        "perplexity_base": 2048.0,
        "perplexity_candidate": 312.5,
        "medqa_base": 0.25,
        "medqa_candidate": 0.3,
    }
    answering = {"reason": "Promoted: its answers can be read.", "model": "pmc-llama-tiny-instruct", "version": "2"}
    answering |= {"aliases": ["candidate"], "taught_from": "pmc-llama-tiny/3", "medqa_base": 0.9}
    results = [
        StepResult("Fetch articles", True, 0.0, {"articles": 24}),
        StepResult("Fetch articles", True, 0.0, {"articles": 12}),
        StepResult("Train the model", False, 61.5, {"steps": 120, "final_loss": 4.25}),
        StepResult("Register the model", False, 3.0, registration),
        StepResult("Register the model that answers", False, 3.0, answering),
    ]
    show_results(results, 70.0, "sqlite:///x/mlflow.db", Path("run.log"))
    shown = capsys.readouterr().out
    lines = shown.splitlines()
    fetch = next(line for line in lines if "Fetch articles x 2" in line)
    assert "cached" in fetch
    assert "articles 36" in fetch
    assert "61.5" in next(line for line in lines if "Train the model" in line)
    assert "25.0%" in next(line for line in lines if "MedQA-USMLE" in line)
    assert "312.50" in next(line for line in lines if "perplexity" in line and "2,048.00" in line)
    assert "Verdict:  Passed: the perplexity fell by 60%." in lines
    assert "Report:   file:///store/comparisons/x/report.html" in lines
    assert "Answers:  pmc-llama-tiny-instruct version 2 (candidate): make chat MODEL=pmc-llama-tiny-instruct" in lines
    for expected in ("version 3 (candidate, champion)", "file:///store/models/x/model", "make ui", "5 tasks, 2 from"):
        assert expected in shown


def test_a_tracking_servers_password_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    show_results([], 1.0, "https://user:sentinel@mlflow.example.org", Path("run.log"))
    shown = capsys.readouterr().out
    assert "https://mlflow.example.org" in shown
    assert "sentinel" not in shown


def test_a_failure_is_its_cause_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    show_failure(["Train the model failed: the disk is full."], Path("run.log"))
    shown = capsys.readouterr().err
    assert "Train the model failed: the disk is full." in shown
    assert "run the same command again" in shown
