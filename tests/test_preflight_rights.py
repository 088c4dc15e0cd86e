"""The table of rights is what the launcher and the exit task do on a cluster: no verb more, and none less."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.common.cluster.leftovers import delete_leftovers
from components.common.cluster.rights import OPTIONAL, STEPS, rights_of
from components.common.errors import TrainingError
from components.preflight.cluster.api import look_at_cluster
from components.preflight.settings import read_situation
from components.train.launching.cluster.run import run_on_cluster
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.helpers import launch, program, running_cluster, small, small_job, wait_for


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    with running_cluster(tmp_path, monkeypatch) as running:
        yield running


@pytest.mark.parametrize("launcher", ["pytorchjob", "trainjob"])
def test_the_table_is_what_a_run_of_a_pipeline_uses(tmp_path: Path, cluster: FakeCluster, launcher: Any) -> None:
    cluster.trainjob_backoff_limit = 0
    stopped = launch(small_job(tmp_path), small(tmp_path), launcher, program("once('up'); time.sleep(60)"))
    wait_for(lambda: (tmp_path / "store" / "f0" / "up").exists())
    stopped.send_signal(signal.SIGTERM)  # which has the job deleted, once the step knows that it is not moved
    stopped.communicate(timeout=60)
    with pytest.raises(TrainingError):  # a failed job is marked as reported
        run_on_cluster(small_job(tmp_path, "f1"), small(tmp_path, restarts=0), launcher, program("sys.exit(1)"))
    delete_leftovers("run-1")
    assert set(cluster.requests) == {(verb, each.resource) for each in rights_of(launcher) for verb in each.verbs}


def test_the_steps_role_grants_what_either_launcher_uses() -> None:
    either = {
        (each.group, each.resource, verb)
        for launcher in ("pytorchjob", "trainjob")
        for each in rights_of(launcher)
        for verb in each.verbs
    }
    assert {(each.group, each.resource, verb) for each in STEPS for verb in each.verbs} == either
    assert rights_of("local") == ()


def test_what_the_preflight_reads_besides_is_the_optional_part_of_the_table(
    cluster: FakeCluster, tmp_path: Path
) -> None:
    cluster.secrets, cluster.configmaps = {"s": {"A": "1"}}, {"c": {"B": "1"}}
    cluster.local_queues, cluster.queue_priorities, cluster.volcano_queues = {"q": ""}, {"p"}, {"v"}
    names = {"queue": "q", "queue_priority": "p", "volcano_queue": "v", "priority_class": "high"}
    names |= {"service_account": "default", "runtime": "torch-distributed"}
    maps = {"secrets": {"s": ["A"]}, "config_maps": {"c": ["B"]}, "volume_claims": {"store": "/store"}}
    list(look_at_cluster(read_situation({}, {"launcher": "trainjob", "cluster": names | maps}, {})))
    assert set(cluster.requests) == {(verb, each.resource) for each in OPTIONAL for verb in each.verbs}
