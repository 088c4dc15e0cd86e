"""The registry on a real MLflow server with PostgreSQL, and a real S3 server: what must hold, holds there too."""

import pytest

from components.common import storage
from components.common.settings import get_settings
from tests import registry_scenarios as scenarios
from tests.registry_helpers import Place
from tests.registry_servers import mlflow_server, postgresql, postgresql_programs, seaweedfs

PROGRAMS = postgresql_programs()
pytestmark = pytest.mark.skipif(PROGRAMS is None, reason="PostgreSQL is not installed (Debian: postgresql)")


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("servers")
    with postgresql(PROGRAMS) as database, mlflow_server(database, folder) as mlflow, seaweedfs(folder) as (store, s3):
        yield mlflow, store, s3


@pytest.fixture
def place(servers, monkeypatch) -> Place:
    mlflow, store, s3 = servers
    for name, value in {**s3, "MLFLOW_TRACKING_URI": mlflow, "PMC_STORE_URI": store}.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    storage._s3_store.cache_clear()
    return Place(mlflow, store)


def test_a_promotion_killed_at_any_step_leaves_a_right_champion(place):
    assert scenarios.a_promotion_killed_at_any_step_leaves_a_right_champion(place, "promoted") >= 8


def test_a_rollback_killed_at_any_step_leaves_a_right_champion(place):
    assert scenarios.a_rollback_killed_at_any_step_leaves_a_right_champion(place, "rolled-back", every=3) >= 3


def test_a_rollback_brings_the_previous_champion_back(place):
    scenarios.a_rollback_brings_the_previous_champion_back(place, "back")


def test_ten_registrations_at_once_make_one_version_of_each_model(place, tmp_path):
    scenarios.ten_registrations_at_once_make_one_version_of_each_model(place, "registered", tmp_path)


def test_a_registration_killed_at_some_steps_is_finished_by_a_rerun(place, tmp_path):
    assert scenarios.a_registration_killed_at_any_step_is_finished_by_a_rerun(place, "killed", tmp_path, every=6) >= 3
