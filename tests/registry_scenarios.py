"""What must hold of the registry, wherever MLflow and the store are: run on SQLite, and on PostgreSQL with S3."""

import itertools
from collections.abc import Sequence
from pathlib import Path

from components.common import storage
from components.common.manifest import Manifest
from components.register.register import register
from components.register.registry.promotion import exclusive, promote, roll_back
from components.register.settings import RegisterSettings
from tests.register_helpers import write_corpus, write_evaluation
from tests.registry_helpers import Place, in_process, start


def a_promotion_killed_at_any_step_leaves_a_right_champion(place: Place, name: str) -> int:
    """Returns at how many steps it was killed."""
    first, second = place.add(name), place.add(name)
    for number in (first, second):
        promote(place.tracking_uri, place.store_uri, f"{name}/{number}")
    before = place.aliases(name)
    for step in itertools.count(1):
        number = place.add(name)
        code = in_process(promote, place.tracking_uri, place.store_uri, f"{name}/{number}", die_before=step)
        found = place.aliases(name)["champion"]
        assert code in (0, -9)
        assert found in (before["champion"], number)
        with exclusive(place.registry(name), place.store_uri):  # whoever comes next puts it right
            pass
        promoted = before | {"champion": number, "previous": before["champion"]}
        assert place.aliases(name) == (promoted if found == number else before)
        assert place.registry(name).journal() == ""
        assert ("promoted_at" in place.registry(name).version(number).tags) == (found == number)
        promote(place.tracking_uri, place.store_uri, f"{name}/{number}")
        assert place.aliases(name) == promoted
        if code == 0:
            return step - 1
        before = promoted
    raise AssertionError


def a_rollback_killed_at_any_step_leaves_a_right_champion(place: Place, name: str, every: int = 1) -> int:
    """Returns at how many steps it was killed: each `every`-th."""
    for number in (place.add(name), place.add(name)):
        promote(place.tracking_uri, place.store_uri, f"{name}/{number}")
    for step in itertools.count(1, every):
        before = place.aliases(name)
        back = before | {"champion": before["previous"], "previous": before["champion"]}
        code = in_process(roll_back, place.tracking_uri, place.store_uri, name, die_before=step)
        found = place.aliases(name)["champion"]
        assert found in (before["champion"], back["champion"])
        with exclusive(place.registry(name), place.store_uri):
            pass
        assert place.aliases(name) == (back if found == back["champion"] else before)
        tags = place.registry(name).version(before["champion"]).tags
        assert ("rolled_back_at" in tags) == (found == back["champion"])
        if code == 0:
            return step // every
    raise AssertionError


def a_rollback_brings_the_previous_champion_back(place: Place, name: str) -> None:
    first, second = place.add(name), place.add(name)
    for number in (first, second):
        promote(place.tracking_uri, place.store_uri, f"{name}/{number}")
    said = roll_back(place.tracking_uri, place.store_uri, name, "it made things up")
    assert said == f"Version {first} of {name} is champion again; version {second} is previous now."
    assert place.aliases(name) == {"champion": first, "previous": second}
    assert place.registry(name).version(second).tags["rollback_reason"] == "it made things up"
    roll_back(place.tracking_uri, place.store_uri, name)
    assert place.aliases(name) == {"champion": second, "previous": first}


def ten_registrations_at_once_make_one_version_of_each_model(place: Place, name: str, folder: Path) -> None:
    """Five models, each registered by two processes; each beats all those that answer less."""
    answers = {f"{name}-{correct}": correct for correct in (60, 68, 76, 84, 92)}
    requests = {mark: request(folder, save_weights(place, mark), correct) for mark, correct in answers.items()}
    processes = [start(register_model, name, each) for each in [*requests.values()] * 2]
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 10
    versions = place.client.search_model_versions(f"name = '{name}'")
    assert sorted(version.tags["model_fingerprint"] for version in versions) == sorted(answers)
    assert sorted(int(version.version) for version in versions) == [1, 2, 3, 4, 5]
    by_number = {str(version.version): version for version in versions}
    aliases = place.aliases(name)
    assert by_number[aliases["champion"]].tags["model_fingerprint"] == f"{name}-92"
    if previous := aliases.get("previous"):  # nobody was champion before it, if it came first
        assert previous != aliases["champion"]
        assert by_number[previous].tags["promoted_at"] <= by_number[aliases["champion"]].tags["promoted_at"]
    register_model(name, requests[f"{name}-60"])  # a rerun, with the best one in place
    assert len(place.client.search_model_versions(f"name = '{name}'")) == 5
    weakest = next(number for number, version in by_number.items() if version.tags["model_fingerprint"] == f"{name}-60")
    assert place.aliases(name) == aliases | {"candidate": weakest}
    assert place.registry(name).version(weakest).tags["judged_against"] == aliases["champion"]


def a_registration_killed_at_any_step_is_finished_by_a_rerun(place: Place, name: str, folder: Path, every: int) -> int:
    """Returns at how many steps it was killed: each `every`-th."""
    for step in itertools.count(1, every):
        own = f"{name}-{step}"
        register_model(own, request(folder, save_weights(place, f"{own}-60"), 60))
        better = request(folder, save_weights(place, f"{own}-80"), 80)
        code = in_process(register_model, own, better, die_before=step)
        assert code in (0, -9)
        assert place.aliases(own)["champion"] in ("1", "2")
        register_model(own, better)
        assert len(place.client.search_model_versions(f"name = '{own}'")) == 2
        assert place.aliases(own) == {"candidate": "2", "champion": "2", "previous": "1"}
        if code == 0:
            return step // every
    raise AssertionError


def register_model(name: str, manifests: Sequence[Manifest]) -> None:
    register(*manifests, RegisterSettings(model_name=name, benchmarks=["medqa"]), {"recipe": "tiny"})


def request(folder: Path, model: Manifest, correct: int) -> tuple[Manifest, ...]:
    """A model that answers so many of 100 questions, the base 40; the more it answers, the lower its loss."""
    return (
        model,
        write_corpus(folder),
        write_evaluation(folder, "base", 3.0, {"medqa": 40}),
        write_evaluation(folder, model.fingerprint, 3.0 - correct / 100, {"medqa": correct}),
    )


def save_weights(place: Place, mark: str) -> Manifest:
    """Store what a registered model needs, with weights of a few bytes."""
    uri = storage.join(place.store_uri, "models", mark, "model")
    files = {"config.json": b'{"transformers_version": "5.17.0"}', "model.safetensors": b"{}", "tokenizer.json": b"{}"}
    for name, data in files.items():
        storage.write(storage.join(uri, name), data)
    extra = {"model_uri": uri}
    return Manifest(kind="model", fingerprint=mark, inputs={}, settings={}, shards=[], totals={}, extra=extra)
