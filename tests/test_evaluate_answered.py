"""An evaluation that is killed goes on with what it had not answered."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from components.common import storage
from components.common.errors import InputError
from components.evaluate.answered import Answered
from components.evaluate.evaluate import evaluate
from components.evaluate.settings import EvaluateSettings
from tests.evaluate_helpers import questions, save_benchmarks, save_corpus, save_model

SETTINGS = EvaluateSettings(benchmarks=["medqa"], context_length=32, batch_tokens=1, save_seconds=0)


def test_answers_come_back_from_the_store_as_they_went_there(tmp_path):
    answered = Answered(f"file://{tmp_path}/parts", save_seconds=1000)
    answered.add(("prompt", " A"), (-1.2345678901234567, True), truncated=False)
    answered.add(("prompt", " B"), (-2.5, False), truncated=True)
    assert not list(tmp_path.rglob("*.jsonl"))
    answered.save()
    answered.save()
    assert len(list(tmp_path.rglob("*.jsonl"))) == 1
    again = Answered(f"file://{tmp_path}/parts", save_seconds=0)
    assert again.get(("prompt", " A")) == (-1.2345678901234567, True)
    assert again.get(("prompt", " C")) is None
    assert (len(again), again.truncated) == (2, 1)
    again.delete()
    assert len(Answered(f"file://{tmp_path}/parts", save_seconds=0)) == 0


def test_a_part_that_is_none_is_named(tmp_path):
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "x.jsonl").write_text('{"request": 1}\n')
    with pytest.raises(InputError, match=r"parts/x.jsonl holds no answers of an interrupted evaluation"):
        Answered(f"file://{tmp_path}/parts", save_seconds=0)


RUN = """
    import sys, time
    from components.common.manifest import Manifest
    from components.evaluate import scorer
    from components.evaluate.evaluate import evaluate
    from components.evaluate.settings import EvaluateSettings
    here, original = sys.argv[1], scorer.score_rows

    def slow(*arguments):
        time.sleep(0.05)
        return original(*arguments)

    scorer.score_rows = slow
    manifests = [Manifest.load(f"{here}/{name}.json") for name in ("model", "benchmarks", "corpus")]
    settings = EvaluateSettings.model_validate_json(sys.argv[2])
    evaluate("base", *manifests, settings, f"file://{here}/out")
"""


def test_a_killed_evaluation_asks_only_what_was_not_answered(tmp_path, monkeypatch):
    manifests = {
        "model": save_model(tmp_path),
        "benchmarks": save_benchmarks(tmp_path / "questions", {"medqa-test": questions("medqa", 40)}),
        "corpus": save_corpus(tmp_path / "corpus", {"PMC1": [5, 6, 7], "PMC2": [8, 9, 7, 5]}),
    }
    for name, manifest in manifests.items():
        manifest.save(tmp_path / f"{name}.json")
    (tmp_path / "run.py").write_text(textwrap.dedent(RUN))
    process = subprocess.Popen(
        [sys.executable, tmp_path / "run.py", tmp_path, SETTINGS.model_dump_json()],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        cwd=tmp_path,
    )
    parts: list[Path] = []
    while len(parts) < 5:
        assert process.poll() is None, "the evaluation ended before it could be killed"
        time.sleep(0.01)
        parts = list((tmp_path / "out").rglob("answered/medqa/*.jsonl"))
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = sum(len(part.read_text().splitlines()) for part in (tmp_path / "out").rglob("answered/medqa/*.jsonl"))
    assert 5 <= kept < 160
    asked = _count_scored(monkeypatch)
    root = f"file://{tmp_path}/out"
    resumed = evaluate("base", *manifests.values(), SETTINGS, root)
    assert asked == [160 - kept]
    assert not list((tmp_path / "out").rglob("answered/medqa/*.jsonl"))
    whole = evaluate("base", *manifests.values(), SETTINGS, f"file://{tmp_path}/whole")
    one, other = (
        [json.loads(line) for line in storage.read(manifest.extra["results"]["medqa"]).splitlines()]
        for manifest in (resumed, whole)
    )
    assert one == other
    assert resumed.totals == whole.totals


def _count_scored(monkeypatch) -> list[int]:
    from components.evaluate.scorer import Scorer

    counts: list[int] = []
    original = Scorer._loglikelihood_tokens
    monkeypatch.setattr(
        Scorer,
        "_loglikelihood_tokens",
        lambda self, asked, *more: counts.append(len(asked)) or original(self, asked, *more),
    )
    return counts
