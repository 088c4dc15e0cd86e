"""Promotion and rollback: refused where they must be, recorded, and right after a kill at any step."""

import pytest

from components.common import storage
from components.common.errors import InputError, PipelineError, StorageError
from components.register.registry.promotion import ChampionChanged, Move, exclusive, move_champion, promote, roll_back
from components.register.registry.registry import JOURNAL_TAG, LOCK_TAG
from tests import registry_scenarios as scenarios
from tests.registry_helpers import Place, empty_database

NAME = "pmc-llama"


@pytest.fixture
def place(tmp_path, monkeypatch) -> Place:
    found = Place(empty_database(tmp_path), f"file://{tmp_path}/store")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", found.tracking_uri)
    monkeypatch.setenv("PMC_STORE_URI", found.store_uri)
    return found


def to(place: Place, number: str, **more) -> str:
    return promote(place.tracking_uri, place.store_uri, f"{NAME}/{number}", **more)


def test_a_promotion_killed_at_any_step_leaves_a_right_champion(place):
    assert scenarios.a_promotion_killed_at_any_step_leaves_a_right_champion(place, NAME) >= 8


def test_a_rollback_killed_at_any_step_leaves_a_right_champion(place):
    assert scenarios.a_rollback_killed_at_any_step_leaves_a_right_champion(place, NAME, every=2) >= 4


def test_ten_registrations_at_once_make_one_version_of_each_model(place, tmp_path):
    scenarios.ten_registrations_at_once_make_one_version_of_each_model(place, NAME, tmp_path)


def test_a_rollback_brings_the_previous_champion_back(place):
    scenarios.a_rollback_brings_the_previous_champion_back(place, NAME)


def test_a_verdict_on_another_champion_does_not_count(place):
    place.add(NAME, against="none"), place.add(NAME, against="none"), place.add(NAME, against="2")
    to(place, "1")
    with pytest.raises(
        InputError, match=r"Version 2 .* was judged when there was no champion, and now version 1 is cha"
    ):
        to(place, "2")
    with pytest.raises(
        InputError, match=r"Version 3 .* was judged against version 2, and now version 1 is champion: run"
    ):
        to(place, "3")
    assert to(place, "3", force=True, reason="known to be better").startswith("Version 3 of pmc-llama is champion;")
    place.registry(NAME).set_alias("champion", None)
    with pytest.raises(InputError, match=r"Version 3 .* was judged against version 2, and now there is none"):
        to(place, "3")


def test_a_version_that_was_never_judged_is_refused(place):
    number = place.add(NAME)
    place.registry(NAME).tag(number, {"verdict": ""})
    with pytest.raises(InputError, match="has no verdict of the gate; to promote it all the same, add --force"):
        to(place, number)


def test_a_version_whose_weights_are_gone_is_refused_even_by_force(place):
    number = place.add(NAME)
    storage.delete(storage.join(place.registry(NAME).version(number).source, "model.safetensors"))
    with pytest.raises(
        InputError, match=r"cannot become champion: .* lacks model\.safetensors; run its training again"
    ):
        to(place, number, force=True, reason="I want it")
    assert place.aliases(NAME) == {}


def test_there_is_no_going_back_from_a_first_champion_or_to_one_without_weights(place):
    first = place.add(NAME)
    to(place, first)
    with pytest.raises(InputError, match="has no previous champion to go back to"):
        roll_back(place.tracking_uri, place.store_uri, NAME)
    to(place, place.add(NAME))
    storage.delete(storage.join(place.registry(NAME).version(first).source, "config.json"))
    with pytest.raises(InputError, match=r"cannot become champion: .* lacks config\.json"):
        roll_back(place.tracking_uri, place.store_uri, NAME)
    assert place.aliases(NAME) == {"champion": "2", "previous": "1"}


def test_a_rollback_to_the_champion_that_was_taken_away_leaves_none_previous(place):
    for number in (place.add(NAME), place.add(NAME)):
        to(place, number)
    place.registry(NAME).set_alias("champion", None)
    roll_back(place.tracking_uri, place.store_uri, NAME)
    assert place.aliases(NAME) == {"champion": "1"}


def test_a_champion_that_somebody_moved_past_the_lock_is_not_overwritten(place):
    for number in (place.add(NAME), place.add(NAME), place.add(NAME)):
        to(place, number)
    registry = place.registry(NAME)
    with exclusive(registry, place.store_uri) as lock:
        with pytest.raises(ChampionChanged, match="was version 2 when the decision was made, and is version 3 now"):
            move_champion(registry, lock, "1", "2", "because")
        assert place.aliases(NAME) == {"champion": "3", "previous": "2"}
        by_hand(registry, lock)
        with pytest.raises(ChampionChanged, match="was version 3 when the decision was made, and is version 2 now"):
            move_champion(registry, lock, "1", "3", "because")
        assert place.aliases(NAME) == {"champion": "2", "previous": "3"}
        assert registry.journal() == ""


def by_hand(registry, lock) -> None:
    """Somebody clicks in MLflow's pages right before the champion would be moved."""
    confirm, calls = lock.confirm, []

    def confirm_late() -> None:
        confirm()
        calls.append(1)
        if len(calls) == 2:
            registry.set_alias("champion", "2")

    lock.confirm = confirm_late


def test_whoever_lost_the_lock_changes_nothing(place, monkeypatch):
    number = place.add(NAME)
    registry = place.registry(NAME)
    monkeypatch.setattr("components.common.lock.EXPIRY_SECONDS", 0.0)
    with (
        exclusive(registry, place.store_uri) as lock,
        exclusive(registry, place.store_uri),
        pytest.raises(StorageError, match="locked by another process while this one stood still"),
    ):
        move_champion(registry, lock, number, None, "because")
    assert place.aliases(NAME) == {}
    assert registry.journal() == ""


def test_an_interrupted_promotion_that_somebody_mended_by_hand_is_left_as_it_is(place):
    for number in (place.add(NAME), place.add(NAME), place.add(NAME)):
        to(place, number)
    registry = place.registry(NAME)
    begun = {"kind": "promotion", "to": place.add(NAME), "champion": "3", "previous": "2"}
    registry.write_journal(Move(**begun, at="2026-11-20T10:00:00+00:00", by="somebody", reason="").model_dump_json())
    registry.set_alias("champion", "1")
    registry.set_alias("previous", "3")
    with exclusive(registry, place.store_uri):
        assert place.aliases(NAME) == {"champion": "1", "previous": "3"}
    assert registry.journal() == ""


def test_a_journal_that_cannot_be_read_stops_whoever_comes(place):
    number = place.add(NAME)
    place.client.set_registered_model_tag(NAME, JOURNAL_TAG, "{}")
    with pytest.raises(
        PipelineError, match="a note of an unfinished promotion that cannot be read; look at its aliases"
    ):
        to(place, number)


def test_a_lock_that_lies_on_a_disk_is_refused_where_the_store_is_a_bucket(place):
    place.add(NAME)
    with pytest.raises(
        PipelineError, match=rf"lies on a disk \(file://.*; set the registered model's tag {LOCK_TAG} to"
    ):
        place.registry(NAME).lock("s3://bucket/store")


def test_processes_with_other_stores_take_the_lock_that_the_model_names(place, tmp_path):
    place.add(NAME)
    first, second = (place.registry(NAME).lock(f"file://{tmp_path}/{store}") for store in ("store", "another"))
    assert first._uri == second._uri == f"file://{tmp_path}/store/registry/{NAME}/lock"


def test_a_version_that_mlflow_made_twice_for_one_request_is_kept_once(place, monkeypatch):
    from mlflow import MlflowClient

    create = MlflowClient.create_model_version

    def answer_lost(self, *arguments, **named):
        create(self, *arguments, **named)
        return create(self, *arguments, **named)  # the client's repetition

    monkeypatch.setattr(MlflowClient, "create_model_version", answer_lost)
    assert place.add(NAME) == "1"
    assert [str(each.version) for each in place.client.search_model_versions(f"name = '{NAME}'")] == ["1"]
