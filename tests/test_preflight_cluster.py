"""The preflight asks a cluster over HTTP, and says of each thing what is wrong and what to do."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from components.common.cluster.connection import NotAllowed, amount, connect
from components.preflight.cluster.api import look_at_cluster
from components.preflight.cluster.capacity import per_pod
from components.preflight.cluster.objects import SECRETS
from components.preflight.findings import Finding
from components.preflight.settings import Situation, read_situation
from components.train.launching.cluster import pod_template
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.catalogue import PULL_SECRET_KEY
from tests.fake_cluster.helpers import running_cluster, small_job

BOTH = pytest.mark.parametrize("launcher", ["pytorchjob", "trainjob"])
SMALL = {"cpu": "4", "memory": "16Gi", "shared_memory": "1Gi", "scratch": "100Gi"}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    with running_cluster(tmp_path, monkeypatch) as running:
        yield running


def situation(launcher: str = "pytorchjob", submitting: bool = False, steps: Any = None, **changes: Any) -> Situation:
    train = {"launcher": launcher, "processes_per_node": 8, "epochs": 5, "cluster": SMALL | changes}
    return read_situation({}, train, steps or {}, submitting)


def look(*arguments: Any, **changes: Any) -> dict[str, Finding]:
    found = list(look_at_cluster(situation(*arguments, **changes)))
    assert len({each.subject for each in found}) == len(found)
    for each in found:
        assert bool(each.remedy) == (each.state != "ok"), each
        assert each.found.endswith("."), each
    return {each.subject: each for each in found}


def not_ok(found: dict[str, Finding]) -> dict[str, str]:
    return {subject: each.state for subject, each in found.items() if each.state != "ok"}


@BOTH
def test_a_cluster_that_has_everything_leaves_nothing_to_do(cluster: FakeCluster, launcher: str) -> None:
    found = look(launcher)
    assert not_ok(found) == {}
    api = found["Kubernetes API"].found
    assert api == "Kubernetes v1.33.1 answers, as step; the job's namespace is team-a."
    assert found["Nodes"].found.startswith("1 of 1 are large enough for a pod (4 cpu, 16.0 GiB memory")
    assert found["Rights on pods"].found == "get, list, watch in namespace team-a."


def test_a_missing_operator_is_named_with_the_one_that_is_there(cluster: FakeCluster) -> None:
    del cluster.served["kubeflow.org"]
    found = look("pytorchjob")["PyTorchJob (kubeflow.org)"]
    assert found.state == "failed"
    assert found.remedy.startswith("Install the Kubeflow Training Operator 1.9")
    assert found.remedy.endswith("or set train.launcher to trainjob, which the cluster has.")
    cluster.served["kubeflow.org"] = ["v1"]  # as Katib and notebooks have it
    cluster.absent.add("pytorchjobs")
    assert not_ok(look("pytorchjob")) == {"PyTorchJob (kubeflow.org)": "failed"}


def test_an_operator_of_another_version_is_named_with_the_versions(cluster: FakeCluster) -> None:
    cluster.served["trainer.kubeflow.org"] = ["v1beta7"]
    found = look("trainjob")
    problem = found["TrainJob (trainer.kubeflow.org)"]
    assert problem.state == "failed"
    assert problem.found == "The cluster serves it in v1beta7, and this pipeline speaks v1alpha1."


def test_missing_rights_are_told_all_at_once_with_the_rule_that_grants_them(cluster: FakeCluster) -> None:
    cluster.denied |= {
        ("create", "pytorchjobs"),
        ("patch", "pytorchjobs"),
        ("get", "pods/log"),
        ("list", "trainjobs"),
    }
    found = look("pytorchjob")
    assert not_ok(found) == {
        f"Rights on {name}": "failed"
        for name in ("pytorchjobs.kubeflow.org", "trainjobs.trainer.kubeflow.org", "pods/log")
    }
    jobs = found["Rights on pytorchjobs.kubeflow.org"]
    assert jobs.found.startswith("create, patch is not allowed in namespace team-a")
    assert 'apiGroups: ["kubeflow.org"], resources: ["pytorchjobs"], verbs: [create, patch]' in jobs.remedy


def test_who_submits_needs_no_rights_of_the_steps(cluster: FakeCluster) -> None:
    cluster.denied.add(("create", "pytorchjobs"))
    found = look("pytorchjob", True)["Rights on pytorchjobs.kubeflow.org"]
    assert found.state == "unknown"
    assert "kubectl auth can-i create pytorchjobs.kubeflow.org -n team-a --as=system:serviceaccount:" in found.remedy


def test_secrets_and_config_maps_must_have_the_keys_that_are_read(cluster: FakeCluster) -> None:
    cluster.secrets = {"s3": {"AWS_ACCESS_KEY_ID": "the-key", "OTHER": "x"}, "hub": {"HF_TOKEN": "hf_x"}}
    cluster.configmaps = {"nccl": {"NCCL_SOCKET_IFNAME": "eth0"}}
    found = look(
        secrets={"s3": ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"], "hub": ["HF_TOKEN"], "none-such": ["KEY"]},
        config_maps={"nccl": ["NCCL_SOCKET_IFNAME"], "gone": ["A"]},
    )
    assert not_ok(found) == {"Secret s3": "failed", "Secret none-such": "failed", "ConfigMap gone": "failed"}
    assert found["Secret s3"].found == "It has no AWS_SECRET_ACCESS_KEY."
    assert found["Secret none-such"].found == "There is none of that name in namespace team-a."
    assert found["Secret none-such"].remedy.startswith("Make it, with KEY, in namespace team-a")
    assert "the-key" not in repr(found) and "hf_x" not in repr(found)


def test_what_may_not_be_read_is_unknown_and_says_how_to_look(cluster: FakeCluster) -> None:
    cluster.denied |= {("get", "secrets"), ("list", "resourcequotas"), ("list", "nodes"), ("get", "priorityclasses")}
    cluster.denied |= {("get", "clustertrainingruntimes"), ("get", "namespaces"), ("get", "configmaps")}
    found = look("trainjob", secrets={"s3": ["A"]}, config_maps={"c": ["B"]}, image_pull_secrets=["pull"])
    unseen = ["Secret s3", "ConfigMap c", "Secret pull, for the image", "Quota", "Nodes"]
    unseen.append("ClusterTrainingRuntime torch-distributed")
    assert not_ok(found) == dict.fromkeys(unseen, "unknown")
    assert found["Secret s3"].remedy == "Look by hand: kubectl get secrets s3 -n team-a."
    assert found["Nodes"].remedy == "Look by hand: kubectl describe nodes."


def test_a_pull_secret_must_be_one(cluster: FakeCluster) -> None:
    cluster.secrets = {"pull": {PULL_SECRET_KEY: "{}"}, "plain": {"user": "x"}}
    found = look(image_pull_secrets=["pull", "plain"])
    assert not_ok(found) == {"Secret plain, for the image": "failed"}
    assert "of type Opaque" in found["Secret plain, for the image"].found


def test_accounts_priorities_and_disks_must_be_there(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.accounts.add("trainer")
    cluster.claims = {"shared": tmp_path, "single": tmp_path}
    cluster.claim_modes["single"] = "ReadWriteOnce"
    named: dict[str, Any] = {"service_account": "trainer", "priority_class": "high"}
    found = look(volume_claims={"shared": "/a", "single": "/b", "gone": "/c"}, **named)
    assert not_ok(found) == {"PriorityClass high": "failed", "PersistentVolumeClaim gone": "failed"}
    assert found["PriorityClass high"].found == "There is none of that name in the cluster."
    several = look(nodes=2, volume_claims={"shared": "/a", "single": "/b"}, service_account="other")
    assert not_ok(several) == {
        "PersistentVolumeClaim single": "failed",
        "ServiceAccount other": "failed",
        "Nodes": "warning",
    }


def test_queues_must_be_there_and_open(cluster: FakeCluster) -> None:
    cluster.local_queues = {"open": "", "shut": "Can't submit new workloads to clusterQueue"}
    cluster.queue_priorities.add("night")
    assert not_ok(look(queue="open", queue_priority="night")) == {}
    shut = look(queue="shut", queue_priority="day")
    assert not_ok(shut) == {"LocalQueue shut": "failed", "WorkloadPriorityClass day": "failed"}
    assert shut["LocalQueue shut"].found == "It takes no jobs: Can't submit new workloads to clusterQueue."
    del cluster.served["kueue.x-k8s.io"]
    found = look(queue="open", volcano_queue="batch")
    assert found["LocalQueue open"].found == "The cluster has no kueue.x-k8s.io."
    assert not_ok(found) == {"LocalQueue open": "failed", "Queue batch": "failed"}


def test_a_runtime_must_be_made_for_pytorch(cluster: FakeCluster) -> None:
    cluster.runtimes["mpi"] = "launcher"
    assert "a replicated job node" in look("trainjob", runtime="mpi")["ClusterTrainingRuntime mpi"].found
    assert not_ok(look("trainjob", runtime="gone")) == {"ClusterTrainingRuntime gone": "failed"}


def test_quotas_are_compared_with_the_whole_job(cluster: FakeCluster) -> None:
    def quota(**amounts: str) -> dict[str, Any]:
        hard = {"requests.nvidia.com/gpu": "16", "limits.memory": "64Gi", "count/secrets": "9"}
        return {"spec": {"hard": hard}, "status": {"hard": hard, "used": amounts}}

    cluster.nodes |= {f"node-{n}": cluster.nodes["node-a"] for n in "bc"}
    cluster.quotas["team"] = quota(**{"requests.nvidia.com/gpu": "4", "limits.memory": "0"})
    assert look()["Quota team"].found == (
        "The job fits: requests.nvidia.com/gpu 8 of 16, 12 left; limits.memory 16.0 GiB of 64Gi, 64.0 GiB left."
    )
    assert look(nodes=2)["Quota team"].state == "warning"
    too_large = look(nodes=3)["Quota team"]
    assert too_large.state == "failed"
    assert too_large.found == "The job is larger than the whole quota: requests.nvidia.com/gpu 24 of 16, 12 left."


def test_quotas_that_do_not_concern_the_job_are_left_aside(cluster: FakeCluster) -> None:
    hard = {"requests.nvidia.com/gpu": "0"}
    term = {"scopeName": "PriorityClass", "operator": "In", "values": ["night"]}
    cluster.quotas["night"] = {"spec": {"hard": hard, "scopeSelector": {"matchExpressions": [term]}}}
    cluster.quotas["ending"] = {"spec": {"hard": hard, "scopes": ["Terminating"]}}
    cluster.priority_classes.add("night")
    assert "none that concerns the job" in look()["Quota"].found
    assert not_ok(look(priority_class="night")) == {"Quota night": "failed"}


def test_nodes_that_cannot_take_a_pod_say_why(cluster: FakeCluster) -> None:
    large = cluster.nodes.pop("node-a") | {"ephemeral-storage": "1Ti"}
    cluster.nodes = {name: dict(large) for name in ("fits", "lame", "small", "tainted", "unlabelled")}
    cluster.nodes["small"]["nvidia.com/gpu"] = "4"
    cluster.unready_nodes.add("lame")
    for name in cluster.nodes:
        cluster.node_labels[name] = {} if name == "unlabelled" else {"gpu": "a100"}
        cluster.node_taints[name] = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    cluster.node_taints["tainted"].append({"key": "team", "value": "b", "effect": "NoExecute"})
    assert look(node_selector={"gpu": "a100"})["Nodes"].state == "ok"
    found = look(node_selector={"gpu": "a100"}, nodes=2)["Nodes"]
    assert found.state == "warning"
    assert found.found.partition(" 2: ")[2] == (
        "lame is not ready; small has 4 nvidia.com/gpu; tainted has the taint team=b:NoExecute; "
        "unlabelled has not the label gpu=a100."
    )


def test_what_a_pod_asks_for_is_what_the_launcher_writes(tmp_path: Path) -> None:
    asked = situation(scratch="7Gi", extra_resources={"rdma/hca": "2"})
    job = small_job(tmp_path, global_batch_size=128, processes_per_node=8)
    job = job.model_copy(update={"settings": job.settings.model_copy(update={"device": "cuda"})})
    written = pod_template.resources(job, asked.train.cluster)["requests"]
    assert per_pod(asked.train).keys() == written.keys()
    for name, number in per_pod(asked.train).items():
        assert abs(number - amount(written[name])) < 1


def test_the_steps_own_objects_are_looked_up_before_there_are_steps(cluster: FakeCluster) -> None:
    cluster.configmaps["endpoints"] = {"PMC_STORE_URI": "s3://b/p"}
    steps = {
        "service_account": "steps",
        "config_maps": {"endpoints": ["PMC_STORE_URI", "AWS_ENDPOINT_URL"]},
        "optional_variables": ["AWS_ENDPOINT_URL"],
        "secrets": {"s3": ["AWS_ACCESS_KEY_ID"]},
        "retries": 2,
    }
    found = look("local", True, steps)
    assert not_ok(found) == {"ServiceAccount steps": "failed", "Secret s3": "failed"}


def test_a_cluster_that_cannot_be_asked_is_one_finding(
    cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not_ok(look(namespace="team-b"))  # a namespace that is not ours
    cluster.fault("GET", "/version", 401)
    found = look()
    assert not_ok(found) == {"Kubernetes API": "failed"} and len(found) == 1
    assert found["Kubernetes API"].found == "It cannot be asked: the fake was asked to fail."
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert not_ok(look()) == {"Kubernetes API": "failed"}
    assert not_ok(look("pytorchjob", True)) == {"Kubernetes API": "unknown"}


def test_a_namespace_that_is_not_there_is_the_first_thing_to_mend(cluster: FakeCluster) -> None:
    found = look(namespace="team-z")
    assert found["Kubernetes API"].state == "failed"
    assert found["Kubernetes API"].found == "There is no namespace team-z."
    assert len(found) == 1


def test_a_refusal_is_told_apart_from_an_absence(cluster: FakeCluster) -> None:
    asked = connect(None, 0.1)
    assert asked.get(SECRETS, "none") is None
    cluster.denied.add(("get", "secrets"))
    with pytest.raises(NotAllowed, match=r"may not get secrets in namespace team-a"):
        asked.get(SECRETS, "none")
