"""The fake API refuses what a real one refuses, to the official client."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client, config

from components.common.cluster.settings import ClusterSettings
from components.train.launching.cluster.naming import identify
from components.train.launching.cluster.run import OPERATORS
from tests.fake_cluster import FakeCluster
from tests.fake_cluster.helpers import running_cluster, small_job

PLACE = ("kubeflow.org", "v1", "team-a", "pytorchjobs")


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCluster]:
    with running_cluster(tmp_path, monkeypatch) as running:
        running.operators_work = False
        yield running


@pytest.fixture
def api(cluster: FakeCluster) -> client.ApiClient:
    configuration = client.Configuration()
    config.load_kube_config(str(cluster.folder / "kubeconfig"), client_configuration=configuration)
    return client.ApiClient(configuration)


@pytest.fixture
def job(tmp_path: Path) -> dict[str, Any]:
    description = small_job(tmp_path)
    identity = identify("run-1", description)
    return OPERATORS["pytorchjob"].manifest(identity, description, ClusterSettings(), ["python"])


def refusal(action: Any, *arguments: Any, **named: Any) -> tuple[int, str]:
    with pytest.raises(client.exceptions.ApiException) as refused:
        action(*arguments, **named)
    return refused.value.status, refused.value.body


def test_it_refuses_objects_that_are_wrong(api: client.ApiClient, job: dict[str, Any]) -> None:
    create = client.CustomObjectsApi(api).create_namespaced_custom_object

    def wrong(**changes: Any) -> tuple[int, str]:
        return refusal(create, *PLACE, job | changes, field_validation="Strict")

    assert wrong(kind="TrainJob")[0] == 400
    status, body = wrong(spec=job["spec"] | {"nprocPerNod": "8"})
    assert status == 400 and 'unknown field \\"spec.nprocPerNod\\"' in body
    assert wrong(spec=job["spec"] | {"nprocPerNode": 8})[0] == 422  # the CRD wants text
    assert wrong(metadata={"name": "Bad_Name"})[0] == 422
    assert wrong(metadata={"name": "good", "labels": {"a": "not allowed!"}})[0] == 422
    assert wrong(metadata={"name": "good", "resourceVersion": "1"})[0] == 400


def test_it_refuses_changes_of_what_is_not_the_latest(api: client.ApiClient, job: dict[str, Any]) -> None:
    custom = client.CustomObjectsApi(api)
    made = custom.create_namespaced_custom_object(*PLACE, job)
    name = job["metadata"]["name"]
    assert refusal(custom.create_namespaced_custom_object, *PLACE, job)[0] == 409
    assert refusal(custom.replace_namespaced_custom_object, *PLACE, name, job)[0] == 422
    custom.replace_namespaced_custom_object(*PLACE, name, made)
    made["metadata"]["labels"]["a"] = "b"
    custom.replace_namespaced_custom_object(*PLACE, name, made)
    assert refusal(custom.replace_namespaced_custom_object, *PLACE, name, made)[0] == 409
    wrong_one = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="another"))
    assert refusal(custom.delete_namespaced_custom_object, *PLACE, name, body=wrong_one)[0] == 409
    custom.delete_namespaced_custom_object(*PLACE, name)


def test_it_knows_rights_and_tokens(cluster: FakeCluster, api: client.ApiClient) -> None:
    cluster.denied.add(("list", "pods"))
    assert refusal(client.CoreV1Api(api).list_namespaced_pod, "team-a")[0] == 403
    assert refusal(client.CoreV1Api(api).list_namespaced_event, "team-b")[0] == 403
    for verb, allowed in (("list", False), ("watch", True)):
        attributes = client.V1ResourceAttributes(namespace="team-a", verb=verb, resource="pods")
        review = client.V1SelfSubjectAccessReview(
            spec=client.V1SelfSubjectAccessReviewSpec(resource_attributes=attributes)
        )
        answer = client.AuthorizationV1Api(api).create_self_subject_access_review(review)
        assert answer.status.allowed is allowed
    api.configuration.refresh_api_key_hook = None  # it would read the right one again
    api.configuration.api_key["authorization"] = "Bearer wrong"
    assert refusal(client.CoreV1Api(api).list_namespaced_event, "team-a")[0] == 401
