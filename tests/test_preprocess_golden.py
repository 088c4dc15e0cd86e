"""Golden set: invented articles in the manner of many publishers, with the text a careful human would copy out.

An article is `golden/<name>.xml`, its text `golden/<name>.txt`; settings other than the defaults are in `<name>.json`.
"""

import difflib
import json
from pathlib import Path

import pytest

from components.preprocess.extraction.jats import extract
from components.preprocess.settings import ExtractSettings

GOLDEN = Path(__file__).parent / "golden"
ARTICLES = sorted(GOLDEN.glob("*.xml"))


def test_the_golden_set_is_whole() -> None:
    names = {path.stem for path in ARTICLES}
    assert len(names) >= 28
    assert {path.stem for path in GOLDEN.glob("*.txt")} == names
    assert {path.stem for path in GOLDEN.glob("*.json")} <= names


@pytest.mark.parametrize("path", ARTICLES, ids=lambda path: path.stem)
def test_an_article_becomes_the_text_a_careful_human_would_copy(path: Path) -> None:
    settings = path.with_suffix(".json")
    options = json.loads(settings.read_text(encoding="utf-8")) if settings.exists() else {}
    text = extract(path.read_bytes(), ExtractSettings.model_validate(options)).text
    expected = path.with_suffix(".txt").read_text(encoding="utf-8").removesuffix("\n")
    if text != expected:
        diff = difflib.unified_diff(expected.split("\n"), text.split("\n"), "expected", "extracted", lineterm="", n=1)
        pytest.fail(f"{path.name}:\n" + "\n".join(diff), pytrace=False)
