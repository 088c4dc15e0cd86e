"""A wrong variable is refused by its name before anything is rendered."""

import os
from pathlib import Path

import pytest
import yaml

from components.common.errors import InputError
from tests.k8s_helpers import ENVIRONMENT, find
from tools.cluster_manifests.installation import ROOT, read_installation
from tools.cluster_manifests.render import render
from tools.manifests import find_kubectl, main, make


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("PMC_STORE_URI", "", "PMC_STORE_URI is ''; the steps of a cluster share a store on S3"),
        ("PMC_STORE_URI", "file:///data", "PMC_STORE_URI is 'file:///data'"),
        ("AWS_ENDPOINT_URL", "s3.example.org", "AWS_ENDPOINT_URL is no address"),
        ("AWS_ENDPOINT_URL", "https://user:key@s3.example.org", "without a password in it"),
        ("NAMESPACE", "Team_A", "NAMESPACE is 'Team_A'; it takes lower-case letters"),
        ("RUNNER", "-x", "RUNNER is '-x'"),
        ("MLFLOW_HOSTS", "*", "MLFLOW_HOSTS is '*'; it takes names of hosts"),
        ("CLOUD_IDENTITY", "arn:aws:iam::1:role/x", "it takes an annotation"),
        ("COMPONENTS", "queue", "COMPONENTS names 'queue'; there are cluster-view, kueue."),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_its_name(variable: str, value: str, sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        read_installation("production", ENVIRONMENT | {variable: value})
    assert sentence in str(caught.value)
    assert "key@" not in str(caught.value)


def test_an_unknown_overlay_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="no overlay 'prod'; give dev, production, serving, or a folder"):
        read_installation("prod", ENVIRONMENT)


def test_the_namespace_is_the_one_of_submitting_unless_said_otherwise() -> None:
    said = {**ENVIRONMENT, "KFP_NAMESPACE": "team-b"}
    assert read_installation("dev", said).namespace == "team-a"
    assert read_installation("dev", {**said, "NAMESPACE": ""}).namespace == "team-b"
    assert read_installation("dev", {**ENVIRONMENT, "NAMESPACE": ""}).namespace == "kubeflow-user-example-com"


def test_images_have_the_names_that_make_images_gives_them() -> None:
    made = read_installation("dev", {"PATH": ENVIRONMENT["PATH"], "REGISTRY": "registry.example.org/x/", "TAG": "7"})
    assert made.images == {
        "pipeline": "registry.example.org/x/pmc-llama-pipeline:7",
        "mlflow": "registry.example.org/x/pmc-llama-mlflow:7",
    }


def test_an_overlay_of_ones_own_stands_on_ours(tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    patch = '[{"op": "replace", "path": "/spec/replicas", "value": 3}]'
    ours = os.path.relpath(ROOT / "k8s" / "overlays" / "production", own)  # kustomize takes relative paths only
    made = {"resources": [ours], "patches": [{"target": {"kind": "Deployment"}, "patch": patch}]}
    (own / "kustomization.yaml").write_text(yaml.safe_dump(made))
    objects = render(read_installation(str(own), ENVIRONMENT), find_kubectl(), tmp_path / "made")
    deployment = find(objects, "Deployment", "pmc-llama-mlflow")
    assert (deployment["spec"]["replicas"], deployment["metadata"]["namespace"]) == (3, "team-a")


def test_an_overlay_that_breaks_a_rule_is_not_written(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [map.yaml, secret.yaml]\n")
    (tmp_path / "map.yaml").write_text("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndatum: {}\n")
    (tmp_path / "secret.yaml").write_text("apiVersion: v1\nkind: Secret\nmetadata: {name: b}\n")
    output = tmp_path / "out.yaml"
    with pytest.raises(InputError) as caught:
        make(read_installation(str(tmp_path), ENVIRONMENT), find_kubectl(), output)
    text = str(caught.value)
    assert "ConfigMap a" in text and "'datum' was unexpected" in text
    assert "Secret b: a manifest holds no secret" in text
    assert not output.exists()


def test_what_kustomize_cannot_build_is_told_in_its_words(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: [missing.yaml]\n")
    with pytest.raises(InputError, match=r"kustomize cannot build .*missing\.yaml"):
        render(read_installation(str(tmp_path), ENVIRONMENT), find_kubectl(), tmp_path / "made")


def test_without_kubectl_it_is_said_how_to_get_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = read_installation("dev", ENVIRONMENT)
    monkeypatch.setattr("tools.manifests.read_installation", lambda *_: read)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("KUBECTL", raising=False)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert main(["render", "dev"]) == 1
    assert "There is no kubectl here; `make setup` brings one" in capsys.readouterr().err
