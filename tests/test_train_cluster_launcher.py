"""The launcher against a Kubernetes API over HTTP whose containers really run: a job's whole life, and its ends."""

import contextlib
import json
import logging
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from components.common.cluster.leftovers import delete_leftovers
from components.common.errors import ClusterError, InputError, TrainingError
from components.train.launching.cluster.naming import identify
from components.train.launching.cluster.run import run_on_cluster
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.helpers import launch, program, running_cluster, small, small_job, wait_for

pytestmark = pytest.mark.timeout(60)
BOTH = pytest.mark.parametrize("launcher", ["pytorchjob", "trainjob"])
FIRST = {"pytorchjob": "master-0", "trainjob": "node-0"}
SECOND = {"pytorchjob": "worker-0", "trainjob": "node-1"}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    with running_cluster(tmp_path, monkeypatch) as running:
        yield running


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO)
    return caplog


def lines(told: pytest.LogCaptureFixture, pattern: str) -> list[str]:
    return [message for message in told.messages if re.search(pattern, message)]


@contextlib.contextmanager
def when(condition: Callable[[], object], then: Callable[[], object]) -> Iterator[None]:
    """Do something as soon as a condition holds, while the body goes on."""

    def wait() -> None:
        wait_for(condition, seconds=40)
        then()

    thread = threading.Thread(target=wait)
    thread.start()
    yield
    thread.join()


@BOTH
def test_a_job_runs_on_two_nodes_with_the_variables_of_torchrun_and_its_logs_are_shown(
    tmp_path: Path, cluster: FakeCluster, told: pytest.LogCaptureFixture, launcher: Any
) -> None:
    cluster.secrets["s3"] = {"AWS_SECRET_ACCESS_KEY": "hush"}
    cluster.configmaps["places"] = {"MLFLOW_TRACKING_URI": "http://mlflow"}
    names = ["PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "MLFLOW_TRACKING_URI", "PMC_RUN_ID", "NCCL_DEBUG"]
    body = f"say([os.environ[name] for name in {names}] + [len(os.environ['AWS_SECRET_ACCESS_KEY'])])\n"
    body += "finish() if rank == 0 else None"
    settings = small(
        tmp_path,
        nodes=2,
        secrets={"s3": ["AWS_SECRET_ACCESS_KEY"]},
        config_maps={"places": ["MLFLOW_TRACKING_URI"]},
    )
    run_on_cluster(small_job(tmp_path, processes_per_node=2), settings, launcher, program(body))
    shown = sorted(lines(told, r" \| "))
    assert shown == [
        f"{replica} | ['2', '2', '{rank}', 'http://mlflow', 'run-1', 'WARN', 4]"
        for rank, replica in enumerate([FIRST[launcher], SECOND[launcher]])
    ]
    assert "hush" not in (tmp_path / "store" / "f0" / "job.json").read_text() + json.dumps(cluster.jobs())
    assert len(cluster.jobs()) == 1


@BOTH
def test_a_crash_is_restarted_and_then_explained(
    tmp_path: Path, cluster: FakeCluster, told: pytest.LogCaptureFixture, launcher: Any
) -> None:
    body = "say(f'start of {rank}')\nif rank == 1: raise ValueError('no such thing')\ntime.sleep(60)"
    settings = small(tmp_path, nodes=2, restarts=0 if launcher == "pytorchjob" else 1)
    with pytest.raises(TrainingError) as failure:
        run_on_cluster(small_job(tmp_path), settings, launcher, program(body))
    first, *details = str(failure.value).splitlines()
    assert first == f"Training failed: {SECOND[launcher]} ended with exit code 1: ValueError: no such thing."
    assert any(re.match(rf"  {SECOND[launcher]} ended with exit code 1 at 20\d\d-", line) for line in details)
    assert f"  last lines of {SECOND[launcher]}:" in details
    assert any("the job: " in line for line in details)
    assert any(line == f"{SECOND[launcher]} ended with exit code 1 and is started again." for line in told.messages)


@BOTH
def test_a_workers_own_words_come_first_and_what_cannot_succeed_is_not_repeated(
    tmp_path: Path, cluster: FakeCluster, launcher: Any
) -> None:
    message = "Token shard train-00000 is corrupt; run preprocessing again."
    failure = {"rank": 3, "message": message, "clear": True, "time": 5.0, "error": "InputError"}
    body = f"Path(arguments['--termination-message']).write_text({json.dumps(failure)!r}); sys.exit(1)"
    body = f"(output / f'start-{{time.time_ns()}}').touch()\n{body}"
    cluster.restart_seconds = 1
    with pytest.raises(TrainingError, match=r"^Token shard train-00000 is corrupt; run preprocessing again\.\n"):
        run_on_cluster(small_job(tmp_path), small(tmp_path, restarts=9), launcher, program(body))
    assert len(list((tmp_path / "store" / "f0").glob("start-*"))) == 1
    wait_for(lambda: not cluster.jobs() and not cluster.pods())


@BOTH
def test_a_worker_that_uses_too_much_memory_is_told_as_such(
    tmp_path: Path, cluster: FakeCluster, launcher: Any
) -> None:
    settings = small(tmp_path, memory="100Mi", shared_memory="1Mi", restarts=0)
    cluster.trainjob_backoff_limit = 0
    body = "say('growing')\nhoard = [bytearray(8 << 20) for _ in range(64) if not time.sleep(0.01)]\ntime.sleep(60)"
    with pytest.raises(TrainingError) as failure:
        run_on_cluster(small_job(tmp_path), settings, launcher, program(body))
    expected = f"Training failed: {FIRST[launcher]} used more memory than its limit of 100Mi (OOMKilled); raise "
    assert str(failure.value).startswith(expected)
    assert f"{FIRST[launcher]} ended with exit code 137, SIGKILL (OOMKilled)" in str(failure.value)


@BOTH
def test_a_pod_that_no_node_takes_is_told_at_once_and_given_up_after_the_time_of_the_settings(
    tmp_path: Path, cluster: FakeCluster, told: pytest.LogCaptureFixture, launcher: Any
) -> None:
    settings = small(tmp_path, extra_resources={"rdma/hca": "1"}, wait_minutes=0.01)
    cluster.nodes["node-a"]["rdma/hca"] = "0"
    with pytest.raises(TrainingError) as failure:
        run_on_cluster(small_job(tmp_path), settings, launcher, program("finish()"))
    reason = f"{FIRST[launcher]} waits for a node: 0/1 nodes are available: 1 Insufficient"
    assert len(lines(told, re.escape(reason))) == 1
    assert "did not get its pods running within 0.01 minutes; " + reason in str(failure.value).splitlines()[0]
    assert "FailedScheduling" in str(failure.value)
    wait_for(lambda: not cluster.jobs() and not cluster.pods())


@BOTH
@pytest.mark.parametrize("what", ["image", "secret"])
def test_a_pod_that_cannot_start_is_told_and_given_up(
    tmp_path: Path, cluster: FakeCluster, told: pytest.LogCaptureFixture, launcher: Any, what: str
) -> None:
    if what == "image":
        cluster.missing_images.add("trainer:1")
        reason = 'cannot start: ImagePullBackOff: Back-off pulling image "trainer:1"'
    else:
        reason = 'cannot start: CreateContainerConfigError: secret "s3" not found'
    settings = small(
        tmp_path, broken_minutes=0.01, secrets={"s3": ["AWS_SECRET_ACCESS_KEY"]} if what != "image" else {}
    )
    with pytest.raises(TrainingError) as failure:
        run_on_cluster(small_job(tmp_path), settings, launcher, program("finish()"))
    assert len(lines(told, f"^{FIRST[launcher]} {reason}$")) == 1
    assert f"could not be started for 0.01 minutes; {FIRST[launcher]} {reason}." in str(failure.value).splitlines()[0]
    wait_for(lambda: not cluster.jobs() and not cluster.pods())


def evict_when_started(tmp_path: Path, cluster: FakeCluster) -> threading.Thread:
    def evict() -> None:
        wait_for(lambda: started(tmp_path))
        cluster.evict(cluster.pods()[0], "The node was low on resource: ephemeral-storage.")

    thread = threading.Thread(target=evict)
    thread.start()
    return thread


@BOTH
def test_an_evicted_pod_is_explained(tmp_path: Path, cluster: FakeCluster, launcher: Any) -> None:
    thread = evict_when_started(tmp_path, cluster)
    with pytest.raises(TrainingError) as failure:
        run_on_cluster(small_job(tmp_path), small(tmp_path), launcher, program("once('up'); time.sleep(60)"))
    thread.join()
    first = str(failure.value).splitlines()[0]
    assert first.startswith(f"Training failed: {FIRST[launcher]} was taken away by the cluster: ")
    assert first.endswith(
        "low on resource: ephemeral-storage.; run the step again, and it goes on from the last checkpoint."
    )


def test_an_eviction_is_explained_even_when_the_job_is_told_to_have_failed_before_its_pods(
    tmp_path: Path, cluster: FakeCluster
) -> None:
    cluster.fault("GET", r"/pods\?.*watch=true", 503, times=1_000_000)
    thread = evict_when_started(tmp_path, cluster)
    with pytest.raises(TrainingError, match=r"was taken away by the cluster: .*low on resource: ephemeral-storage"):
        run_on_cluster(small_job(tmp_path), small(tmp_path), "trainjob", program("once('up'); time.sleep(60)"))
    thread.join()


@BOTH
def test_a_job_that_waits_in_a_queue_is_told_and_does_not_fail(
    tmp_path: Path, cluster: FakeCluster, told: pytest.LogCaptureFixture, launcher: Any
) -> None:
    cluster.queue_open = False
    minutes = 0.03
    settings = small(tmp_path, queue="gpus", wait_minutes=minutes)
    reason = re.escape(
        "is queued: couldn't assign flavors to pod set master: insufficient unused quota for nvidia.com/gpu in gpus"
    )

    def let_it_in_after_its_patience() -> None:
        time.sleep(minutes * 60)
        cluster.queue_open = True

    with when(lambda: lines(told, reason), let_it_in_after_its_patience):
        run_on_cluster(small_job(tmp_path), settings, launcher, program("finish()"))
    assert len(lines(told, reason)) == 1
    assert lines(told, "ended with exit code 0")


def test_a_quota_that_leaves_no_pod_is_told(
    tmp_path: Path, cluster: FakeCluster, told: pytest.LogCaptureFixture
) -> None:
    cluster.quota["cpu"] = "1"
    reason = "waits for its pods, 1 of 2 are there: FailedCreatePod: .*exceeded quota"
    body = "finish() if rank == 0 else None"
    with when(lambda: lines(told, reason), cluster.quota.clear):
        run_on_cluster(small_job(tmp_path), small(tmp_path, nodes=2), "pytorchjob", program(body))
    assert len(lines(told, reason)) == 1


def test_an_operator_that_does_not_run_is_told(
    tmp_path: Path, cluster: FakeCluster, told: pytest.LogCaptureFixture
) -> None:
    cluster.operators_work = False
    with pytest.raises(TrainingError, match=r"within 0.005 minutes; Job pmc-.* waits for its operator"):
        run_on_cluster(small_job(tmp_path), small(tmp_path, wait_minutes=0.005), "pytorchjob", program("finish()"))
    assert len(lines(told, "waits for its operator")) == 1


def test_a_run_that_is_stopped_while_an_old_job_goes_makes_no_new_one(tmp_path: Path, cluster: FakeCluster) -> None:
    job, worker = small_job(tmp_path), program("finish()")
    cluster.operators_work = False
    process = launch(job, small(tmp_path), "pytorchjob", worker)
    wait_for(lambda: cluster.jobs())
    process.kill()
    process.communicate()
    pod = {"metadata": {"name": "old", "ownerReferences": [{"uid": cluster.jobs()[0]["metadata"]["uid"]}]}}
    busy = {"spec": {"nodeName": "node-a", "containers": [{}]}, "status": {"phase": "Running"}}
    cluster.containers[cluster.store.add("pods", pod | busy)["metadata"]["uid"]] = Stubborn()  # type: ignore[assignment]
    cluster.delete_job("pytorchjobs", cluster.jobs()[0]["metadata"]["name"])
    process = launch(job, small(tmp_path), "pytorchjob", worker)
    assert process.stderr is not None
    assert "is being deleted; waiting for that" in process.stderr.readline()
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert "The run was stopped before its training job was made" in errors
    assert ("create", "pytorchjobs") not in cluster.requests[cluster.requests.index(("create", "pytorchjobs")) + 1 :]


class Stubborn(threading.Thread):
    """A container that takes its time."""

    def __init__(self) -> None:
        super().__init__()
        self.ending = threading.Event()

    def is_alive(self) -> bool:
        return True

    def _kill(self) -> None:
        pass


@BOTH
def test_the_deadline_ends_a_job(tmp_path: Path, cluster: FakeCluster, launcher: Any) -> None:
    settings = small(tmp_path, deadline_hours=1 / 3600)
    with pytest.raises(TrainingError, match="active longer than specified"):
        run_on_cluster(small_job(tmp_path), settings, launcher, program("time.sleep(60)"))
    wait_for(lambda: not cluster.pods())


@BOTH
def test_broken_streams_and_forgotten_versions_lose_no_line_double_none_and_keep_their_order(
    tmp_path: Path, cluster: FakeCluster, told: pytest.LogCaptureFixture, launcher: Any
) -> None:
    cluster.stream_seconds = 0.4  # every watch, every log
    cluster.restart_seconds = 0.0
    cluster.trainjob_backoff_limit = 9
    body = """
start = next(n for n in range(9) if once(f"start-{n}"))
for number in range(300):
    say(f"line {start}.{number}")
    time.sleep(0.003)
if start == 1: wait_for("read")  # a node keeps one earlier log only: time to read that of start 0
if start < 2: sys.exit(1)
finish()
"""
    for _ in range(3):
        cluster.fault("GET", "watch=true", 500, times=1)
        cluster.fault("GET", "/log", 0, times=1)
    cluster.fault("GET", "previous", 503)

    timers = [threading.Timer(seconds, cluster.store.compact) for seconds in (0.6, 1.1, 1.7, 2.3)]
    for timer in timers:
        timer.start()
    with when(lambda: "line 0.299" in told.messages, (tmp_path / "store" / "f0" / "read").touch):
        run_on_cluster(small_job(tmp_path), small(tmp_path, restarts=5), launcher, program(body))
    for timer in timers:
        timer.join()
    assert lines(told, r"^line \d\.") == [f"line {start}.{number}" for start in range(3) for number in range(300)]


def started(tmp_path: Path, name: str = "up") -> bool:
    return (tmp_path / "store" / "f0" / name).exists()


@BOTH
@pytest.mark.parametrize("stage", ["queued", "pending", "running", "restarting", "finished", "failed"])
def test_a_launcher_that_is_killed_and_started_again_adopts_its_job(
    tmp_path: Path, cluster: FakeCluster, told: pytest.LogCaptureFixture, launcher: Any, stage: str
) -> None:
    job, settings = small_job(tmp_path), small(tmp_path, queue="gpus", restarts=1)
    worker = program(f"""
once(f"start-{{time.time_ns()}}")
say("working")
once("up")
if {stage == "restarting"} and once("crashed"): sys.exit(1)
if {stage == "failed"}: sys.exit(7)
if {stage != "finished"}: wait_for("go")
finish()
say("done")
""")
    cluster.queue_open = stage != "queued"
    if stage == "pending":
        cluster.missing_images.add("trainer:1")
    if stage == "restarting":
        cluster.restart_seconds = 1.5
    if stage == "failed":
        settings = small(tmp_path, restarts=0)
        cluster.trainjob_backoff_limit = 0
    killed = launch(job, settings, launcher, worker)
    reached = {
        "queued": lambda: cluster.jobs(),
        "pending": lambda: cluster.pods(),
        "running": lambda: started(tmp_path),
        "restarting": lambda: started(tmp_path, "crashed"),
        "finished": lambda: cluster.jobs() and is_finished(cluster),
        "failed": lambda: cluster.jobs() and is_finished(cluster),
    }
    if stage in ("finished", "failed"):
        wait_for(lambda: cluster.jobs())
        killed.kill()
    wait_for(reached[stage])
    killed.kill()
    killed.communicate()
    before = cluster.jobs()[0]["metadata"]["uid"]

    cluster.queue_open = True
    cluster.missing_images.clear()
    cluster.restart_seconds = 0.1
    (tmp_path / "store" / "f0" / "go").touch()
    if stage == "failed":
        with pytest.raises(TrainingError, match="Training failed: "):
            run_on_cluster(job, settings, launcher, worker)
    else:
        run_on_cluster(job, settings, launcher, worker)
    assert [found["metadata"]["uid"] for found in cluster.jobs()] == [before]
    assert lines(told, "of an earlier attempt of this step; following it")
    if stage != "failed":
        starts = len(list((tmp_path / "store" / "f0").glob("start-*")))
        assert starts == (2 if stage == "restarting" else 1)
        # The log of all that was before is shown again, once.
        assert len(lines(told, "^working$")) == starts
        assert len(lines(told, "^done$")) == 1


def is_finished(cluster: FakeCluster) -> bool:
    conditions = cluster.jobs()[0].get("status", {}).get("conditions", [])
    return any(each["type"] in ("Succeeded", "Complete", "Failed") and each["status"] == "True" for each in conditions)


@BOTH
def test_a_step_that_is_run_again_after_its_failure_was_told_makes_a_new_job(
    tmp_path: Path, cluster: FakeCluster, launcher: Any
) -> None:
    cluster.trainjob_backoff_limit = 0
    settings, worker = small(tmp_path, restarts=0), program("sys.exit(1) if once('first') else finish()")
    # The second start, which the restart brings, must fail too: only a new job may succeed.
    worker = program("once(f'try-{time.time_ns()}')\nif len(list(output.glob('try-*'))) < 3: sys.exit(1)\nfinish()")
    with pytest.raises(TrainingError):
        run_on_cluster(small_job(tmp_path), settings, launcher, worker)
    failed = cluster.jobs()[0]["metadata"]["uid"]
    for number in range(3):
        (tmp_path / "store" / "f0" / f"try-{number}").touch()
    run_on_cluster(small_job(tmp_path), settings, launcher, worker)
    assert [job["metadata"]["uid"] for job in cluster.jobs()] != [failed]


@BOTH
def test_a_run_that_is_terminated_leaves_nothing(tmp_path: Path, cluster: FakeCluster, launcher: Any) -> None:
    worker = program("import signal\nsignal.signal(signal.SIGTERM, lambda *_: (once('saved'), sys.exit(143)))\n"
                     "once('up'); time.sleep(60)")  # fmt: skip
    process = launch(small_job(tmp_path), small(tmp_path), launcher, worker)
    wait_for(lambda: started(tmp_path))
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "The run was stopped, and " in errors and " is deleted" in errors
    wait_for(lambda: not cluster.jobs() and not cluster.pods())
    assert started(tmp_path, "saved")  # the worker had its time


def test_a_step_that_is_only_moved_leaves_its_job_running(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    disrupted = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
    pod = {"metadata": {"name": "step-pod"}, "spec": {"nodeName": "node-a", "containers": [{}]}}
    monkeypatch.setenv("KFP_POD_NAME", "step-pod")
    process = launch(
        small_job(tmp_path), small(tmp_path), "pytorchjob", program("once('up'); wait_for('go'); finish()")
    )
    wait_for(lambda: started(tmp_path))
    cluster.store.add("pods", pod | {"status": {"phase": "Running", "conditions": [disrupted]}})
    process.terminate()
    _, errors = process.communicate(timeout=60)
    assert "This step is moved by the cluster" in errors
    (tmp_path / "store" / "f0" / "go").touch()
    run_on_cluster(small_job(tmp_path), small(tmp_path), "pytorchjob", program(""))
    assert len(cluster.jobs()) == 1


def test_two_runs_do_not_touch_each_other_and_what_is_left_of_one_is_deleted(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {"run-1": small_job(tmp_path, "f0"), "run-2": small_job(tmp_path, "f1")}
    worker = program("once('up'); wait_for('go'); finish()")
    processes: list[subprocess.Popen[str]] = []
    for run, job in jobs.items():
        monkeypatch.setenv("PMC_RUN_ID", run)
        processes.append(launch(job, small(tmp_path), "pytorchjob" if run == "run-1" else "trainjob", worker))
    wait_for(lambda: started(tmp_path) and (tmp_path / "store" / "f1" / "up").exists())
    processes[0].kill()
    processes[0].communicate()
    deleted = delete_leftovers("run-1")
    assert deleted == [identify("run-1", jobs["run-1"]).name]
    wait_for(lambda: len(cluster.jobs()) == 1)
    assert delete_leftovers("run-1") == []
    (tmp_path / "store" / "f1" / "go").touch()
    processes[1].communicate(timeout=60)
    assert processes[1].returncode == 0
    assert [job["metadata"]["labels"]["pmc-llama/run"] for job in cluster.jobs()] == ["run-2"]


def test_a_job_of_its_name_that_is_not_ours_is_refused(tmp_path: Path, cluster: FakeCluster) -> None:
    job = small_job(tmp_path)
    name = identify("run-1", job).name
    foreign = {
        "metadata": {"name": name, "labels": {"pmc-llama/run": "run-0"}},
        "spec": {"runPolicy": {"suspend": True}},
    }
    cluster.store.add("pytorchjobs", foreign | {"kind": "PyTorchJob", "apiVersion": "kubeflow.org/v1"})
    with pytest.raises(
        TrainingError, match=f"PyTorchJob {name} in namespace team-a is not this step's: its labels are"
    ):
        run_on_cluster(job, small(tmp_path), "pytorchjob", program("finish()"))
    assert len(cluster.jobs()) == 1


def test_a_job_that_another_deletes_ends_the_step(tmp_path: Path, cluster: FakeCluster) -> None:
    def delete() -> None:
        wait_for(lambda: started(tmp_path))
        cluster.delete_job("pytorchjobs", cluster.jobs()[0]["metadata"]["name"])

    threading.Thread(target=delete).start()
    with pytest.raises(TrainingError, match="was deleted while this step followed it"):
        run_on_cluster(small_job(tmp_path), small(tmp_path), "pytorchjob", program("once('up'); time.sleep(60)"))


@BOTH
def test_an_answer_that_gets_lost_makes_no_second_job_and_errors_pass(
    tmp_path: Path, cluster: FakeCluster, told: pytest.LogCaptureFixture, launcher: Any
) -> None:
    cluster.fault("GET", f"/{launcher}s/", 503, times=2)
    cluster.fault("POST", f"/{launcher}s", -1)  # it is made, but the answer does not arrive
    cluster.fault("GET", f"/{launcher}s", 500, times=2)
    cluster.fault("GET", "/pods", 429, times=2)
    cluster.fault("GET", "/events", 0, seconds=0.3)
    run_on_cluster(small_job(tmp_path), small(tmp_path), launcher, program("finish()"))
    assert len(cluster.jobs()) == 1
    assert lines(told, f"The Kubernetes API does not create {launcher}s .*; asking again")


def test_an_api_that_stays_away_ends_the_step_but_not_the_job(tmp_path: Path, cluster: FakeCluster) -> None:
    def break_down() -> None:
        wait_for(lambda: started(tmp_path))
        cluster.stream_seconds = 0.1
        cluster.fault("GET", ".", 503, times=10**6)

    threading.Thread(target=break_down).start()
    settings = small(tmp_path, api_minutes=0.02)
    started_at = time.monotonic()
    with pytest.raises(
        ClusterError, match=r"has not answered for 0.02 minutes \(.*\)\. The job, if there is one, goes"
    ):
        run_on_cluster(small_job(tmp_path), settings, "pytorchjob", program("once('up'); time.sleep(60)"))
    assert time.monotonic() - started_at < 45
    assert len(cluster.pods()) == 1


def test_missing_rights_and_missing_operators_are_named(tmp_path: Path, cluster: FakeCluster) -> None:
    cluster.denied.add(("create", "trainjobs"))
    with pytest.raises(ClusterError, match=r"may not create trainjobs.trainer.kubeflow.org in namespace team-a"):
        run_on_cluster(small_job(tmp_path), small(tmp_path), "trainjob", program(""))
    cluster.fault("POST", "/pytorchjobs", 404)
    with pytest.raises(ClusterError, match="knows no PyTorchJob"):
        run_on_cluster(small_job(tmp_path), small(tmp_path), "pytorchjob", program(""))
    cluster.denied.add(("watch", "pods"))
    with pytest.raises(ClusterError, match="may not watch pods in namespace team-a: pods is forbidden"):
        run_on_cluster(small_job(tmp_path), small(tmp_path), "pytorchjob", program("time.sleep(60)"))


def test_a_refused_job_says_what_the_server_says(tmp_path: Path, cluster: FakeCluster) -> None:
    settings = small(tmp_path, pod_labels={"team": "a"})
    settings = settings.model_copy(update={"tolerations": [], "node_selector": {"zone": 5}})
    with pytest.raises(ClusterError, match=r"refuses to create pytorchjobs.*nodeSelector.zone.*must be of type string"):
        run_on_cluster(small_job(tmp_path), settings, "pytorchjob", program(""))


def test_a_job_that_succeeds_without_a_model_fails_the_step(tmp_path: Path, cluster: FakeCluster) -> None:
    with pytest.raises(TrainingError, match=r"succeeded, but left no result.json at file://"):
        run_on_cluster(small_job(tmp_path), small(tmp_path), "pytorchjob", program(""))


def test_what_cannot_work_is_refused_before_anything_is_made(
    tmp_path: Path, cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="is this machine's disk, which no pod sees"):
        run_on_cluster(small_job(tmp_path), small(tmp_path, volume_claims={}), "pytorchjob")
    with pytest.raises(
        InputError, match="global_batch_size 128 is not a multiple of micro_batch_size 16 x 3 processes"
    ):
        run_on_cluster(small_job(tmp_path), small(tmp_path, nodes=3), "pytorchjob")
    with pytest.raises(InputError, match=r"cluster.priority_class is high, but a TrainJob has no place for it"):
        run_on_cluster(small_job(tmp_path), small(tmp_path, priority_class="high"), "trainjob")
    monkeypatch.setenv("PMC_RUN_ID", "not a label!")
    from components.common.settings import get_settings

    get_settings.cache_clear()
    with pytest.raises(InputError, match="the run's id is 'not a label!'"):
        run_on_cluster(small_job(tmp_path), small(tmp_path), "pytorchjob")
    assert cluster.requests == []


def test_the_verbs_that_the_launcher_uses_are_those_of_its_role(tmp_path: Path, cluster: FakeCluster) -> None:
    process = launch(small_job(tmp_path), small(tmp_path), "pytorchjob", program("once('up'); time.sleep(60)"))
    watches = {("watch", "pytorchjobs"), ("watch", "pods"), ("watch", "events"), ("get", "pods/log")}
    wait_for(lambda: watches <= set(cluster.requests))
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    cluster.trainjob_backoff_limit = 0

    def go_on_when_it_is_watched() -> None:
        wait_for(lambda: ("watch", "trainjobs") in cluster.requests)
        (tmp_path / "store" / "f0" / "go").touch()

    watcher = threading.Thread(target=go_on_when_it_is_watched)
    watcher.start()
    with pytest.raises(TrainingError):
        run_on_cluster(small_job(tmp_path), small(tmp_path), "trainjob", program("wait_for('go'); sys.exit(1)"))
    watcher.join()
    used = {f"{verb} {resource}" for verb, resource in cluster.requests}
    assert used == {
        *(f"{verb} pytorchjobs" for verb in ("get", "create", "list", "watch", "delete")),
        *(f"{verb} trainjobs" for verb in ("get", "create", "list", "watch", "patch")),
        *("get pods", "list pods", "watch pods", "get pods/log", "list events", "watch events"),
    }
