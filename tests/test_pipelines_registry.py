"""promote, rollback and lineage on the command line: what they print, and how they end."""

import json
import sys

import pytest
from typer.testing import CliRunner

from components.common import storage
from components.common.errors import InputError
from components.common.settings import get_settings
from pipelines.cli import app, main
from tests.registry_helpers import Place, empty_database

NAME = "pmc-llama"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    found = Place(empty_database(tmp_path), f"file://{tmp_path}/store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", found.tracking_uri)
    monkeypatch.setenv("PMC_STORE_URI", found.store_uri)
    get_settings.cache_clear()
    return found


def call(*arguments: str) -> str:
    """Run a command in this process; returns what it prints, and raises what it raises."""
    done = CliRunner().invoke(app, list(arguments))
    if done.exception:
        raise done.exception
    return done.stdout


def test_the_candidate_is_promoted_and_rolled_back(place):
    for number in (place.add(NAME), place.add(NAME)):
        place.client.set_registered_model_alias(NAME, "candidate", number)
        said = call("promote", NAME)
    assert said == "Version 2 of pmc-llama is champion; version 1 is previous now.\n"
    assert call("promote", NAME) == "Version 2 of pmc-llama is the champion already.\n"
    assert call("rollback", NAME, "--reason", "it made things up") == (
        "Version 1 of pmc-llama is champion again; version 2 is previous now.\n"
    )
    assert place.aliases(NAME) == {"candidate": "2", "champion": "1", "previous": "2"}


def test_another_version_is_promoted_by_its_number_or_alias(place):
    place.add(NAME), place.add(NAME)
    assert call("promote", NAME, "--version", "2").startswith("Version 2 of pmc-llama is champion; there was none")
    place.client.set_registered_model_alias(NAME, "cautious", "1")
    assert call("promote", NAME, "--alias", "cautious").startswith("Version 1 of pmc-llama is champion; version 2 is")
    assert call("promote", f"{NAME}/2").startswith("Version 2 ")
    with pytest.raises(InputError, match="not both"):
        call("promote", NAME, "--version", "1", "--alias", "cautious")
    with pytest.raises(InputError, match="names a version already"):
        call("promote", f"{NAME}/2", "--version", "1")
    with pytest.raises(InputError, match="has no alias 'candidate'; it has versions 1, 2 and aliases"):
        call("promote", NAME)


def test_a_version_that_failed_is_promoted_by_force_only_and_with_a_reason(place):
    place.add(NAME, verdict="failed")
    with pytest.raises(InputError, match=r"^Version 1 of pmc-llama did not pass the gate \(It failed\); to promote it"):
        call("promote", NAME, "--version", "1")
    with pytest.raises(InputError, match="needs a reason"):
        call("promote", NAME, "--version", "1", "--force")
    assert place.aliases(NAME) == {}
    call("promote", NAME, "--version", "1", "--force", "--reason", "a demonstration")
    tags = place.registry(NAME).version("1").tags
    assert (tags["promotion_forced"], tags["promotion_reason"]) == ("yes", "a demonstration")


def test_lineage_shows_a_tree_and_prints_json(place):
    number = place.add(NAME)
    told = {
        "recipe": "tiny [bold]x[/bold]",
        "licences": json.dumps({"CC BY": 7, "CC0": 2}),
        "evaluation": json.dumps({"medqa": {"base": [0.4, 0.3, 0.5], "candidate": [0.6, 0.5, 0.7]}}),
        "sources": json.dumps([{"source": "pmc", "inventory": "2026-10-01"}]),
        "git_revision": "abc123",
        "something": "else",
    }
    place.registry(NAME).tag(number, told)
    place.client.set_registered_model_alias(NAME, "champion", number)
    shown = call("lineage", NAME)
    for line in (
        "pmc-llama version 1 (champion)",
        "recipe: tiny [bold]x[/bold]",
        "CC BY: 7",
        "candidate: 0.6 (0.5 to 0.7)",
        "inventory 2026-10-01",
        "git revision: abc123",
        "something: else",
    ):
        assert line in shown, shown
    found = json.loads(call("lineage", f"{NAME}@champion", "--json"))
    assert found["corpus"]["licences"] == {"CC BY": 7, "CC0": 2}
    assert (found["aliases"], found["verdict"]["verdict"], found["weights"]["missing"]) == (["champion"], "passed", [])
    storage.delete(storage.join(found["weights"]["uri"], "model.safetensors"))
    assert "gone: model.safetensors" in call("lineage", NAME)


def test_an_error_is_one_sentence_and_exit_status_1(place, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["pipelines", "rollback", "nobody"])
    with pytest.raises(SystemExit, match="1"):
        main()
    said = capsys.readouterr().err.strip()
    assert said == "No model 'nobody' is registered; none is: run the pipeline to register one."
