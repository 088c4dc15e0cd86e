"""The state of a recipe's sources."""

import os
from pathlib import Path

import pytest

from components.common.errors import InputError
from pipelines.recipe import Recipe, load_recipe
from pipelines.sources import with_version


def _version(*overrides: str) -> str:
    return with_version(load_recipe("tiny", overrides)).download.version


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "articles").mkdir()
    (tmp_path / "articles" / "a.xml").write_text("<article/>")
    return tmp_path / "articles"


def test_the_bundled_sample_has_no_version() -> None:
    assert _version() == ""


def test_a_changed_folder_is_another_version(folder: Path) -> None:
    place = ("download.source=files", f"download.articles={folder}")
    before = _version(*place)
    assert before
    assert before == _version(*place)
    (folder / "b.xml").write_text("<article/>")
    assert _version(*place) != before


def test_a_changed_archive_is_another_version(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(b"1")
    place = ("download.source=files", f"download.articles={archive}")
    before = _version(*place)
    os.utime(archive, ns=(1, 1))
    assert _version(*place) != before


def test_a_version_that_is_given_stays(folder: Path) -> None:
    recipe: Recipe = load_recipe("tiny", [f"download.benchmarks={folder}", "download.version=v1"])
    assert with_version(recipe).download.version == "v1"


def test_a_missing_place_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        _version("download.source=files", f"download.articles={tmp_path}/nowhere")
    with pytest.raises(InputError, match=r"needs download\.articles"):
        _version("download.source=files")


def test_a_model_of_the_hub_is_not_taken_for_a_folder() -> None:
    assert _version("download.base_model=huggyllama/llama-7b") == ""
