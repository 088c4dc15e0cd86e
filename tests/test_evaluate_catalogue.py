"""The catalogue of benchmarks, and the guide's example of a further one, which is run as it is printed."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.common import storage
from components.common.questions import Question, read_questions
from components.download import benchmark_table
from components.download.benchmarks import download_benchmarks
from components.download.sample import BENCHMARKS_DIR
from components.download.settings import DownloadSettings
from components.evaluate import catalogue
from components.evaluate.settings import EvaluateSettings
from components.evaluate.tasks import build_task

GUIDE = Path(__file__).parents[1] / "docs" / "evaluation.md"
ROWS = [
    {
        "unique_id": f"q{i}",
        "question": f"Question {i}?",
        **{f"op{place}": f"option {place} of {i}" for place in range(1, 5)},
        "cop": i % 4 + 1,
        "category": "Nursing",
    }
    for i in range(5621)
]


@pytest.fixture
def _added(monkeypatch: pytest.MonkeyPatch) -> None:
    for table in (benchmark_table.TABLE, catalogue.BENCHMARKS):
        monkeypatch.setitem(table, "careqa", None)  # taken out again afterwards
    section = GUIDE.read_text(encoding="utf-8").partition("## Adding a benchmark")[2]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    names: dict[str, Any] = {**vars(benchmark_table), **vars(catalogue), "Question": benchmark_table.Question}
    exec(code, names)


@pytest.mark.usefixtures("_added")
def test_the_benchmark_of_the_guide_is_fetched_and_asked(tmp_path: Path) -> None:
    mirror = tmp_path / "mirror"
    shutil.copytree(BENCHMARKS_DIR, mirror)
    for file in [*mirror.rglob("*.json*")]:
        if "ground_truth" not in file.name:
            file.rename(file.with_suffix(".sample" + file.suffix))
    for split in ("test", "train"):
        (mirror / f"medqa/phrases_no_exclude_{split}.sample.jsonl").rename(mirror / f"medqa/{split}.sample.jsonl")
    (mirror / "careqa").mkdir()
    (mirror / "careqa/CareQA_en.json").write_text(json.dumps(ROWS))

    settings = DownloadSettings(benchmarks=str(mirror), more_benchmarks=["careqa"])
    manifest = download_benchmarks(settings, storage.to_uri(tmp_path / "store"))
    (name,) = EvaluateSettings(benchmarks=["careqa"]).benchmarks
    asked: list[Question] = read_questions(manifest, name, "test", 3)
    task = build_task(name, asked)
    document = task.test_docs()[2]
    choices = "\n".join(f"{letter}. option {place} of 2" for place, letter in enumerate("ABCD", start=1))
    assert task.doc_to_text(document) == f"Question: Question 2?\nChoices:\n{choices}\nAnswer:"
    assert task.doc_to_choice(document)[task.doc_to_target(document)] == "C" == asked[2].answer


def test_every_benchmark_of_a_suite_is_in_the_catalogue() -> None:
    parts = {name for names in catalogue.SUITES.values() for name in names}
    assert parts <= catalogue.BENCHMARKS.keys()
