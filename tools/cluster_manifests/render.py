"""k8s/ as one list of objects, for one installation: kustomize does the merging, over a kustomization made for it."""

import os
import subprocess
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from components.common.errors import InputError
from tools.cluster_manifests.installation import ROOT, STEPS_ACCOUNT, Installation
from tools.cluster_manifests.s3_annotations import s3_annotations

# Those that use S3; a database of the overlay `dev` needs no identity in the cloud.
_IN_THE_CLOUD = (STEPS_ACCOUNT, "pmc-llama-trainer", "pmc-llama-mlflow", "pmc-llama-serving")
_CLUSTER_WIDE = {"ClusterRole", "ClusterRoleBinding", "ResourceFlavor", "ClusterQueue"}
_MLFLOW = "pmc-llama-mlflow"
_CALLERS_OF_S3 = ("pmc-llama-trainer-s3", "pmc-llama-mlflow-stores", "pmc-llama-serving")
_ORIGINAL_HOSTS = ("docker.io/", "index.docker.io/")


def render(installation: Installation, kubectl: str, folder: Path | None = None) -> list[dict[str, Any]]:
    """The objects of an installation.

    Args:
        installation: Which one.
        kubectl: The program, which carries kustomize.
        folder: Where the kustomization made for it is kept; none: in build/.

    Raises:
        InputError: kustomize refuses.
    """
    folder = folder or ROOT / "build" / "kustomize" / installation.overlay.name
    folder.mkdir(parents=True, exist_ok=True)
    plain = _parse(_kustomize(kubectl, installation.overlay))
    path = folder / "kustomization.yaml"
    path.write_text(yaml.safe_dump(kustomization(installation, plain, folder), sort_keys=False), encoding="utf-8")
    objects = _parse(_kustomize(kubectl, folder))
    for each in objects:
        if each["kind"] in _CLUSTER_WIDE:
            each["metadata"].pop("namespace", None)  # kustomize does not know which kinds of others have none
    return objects


def as_yaml(objects: list[dict[str, Any]]) -> str:
    """The objects as one file."""
    return yaml.safe_dump_all(objects, sort_keys=False, width=120)


def kustomization(installation: Installation, plain: list[dict[str, Any]], folder: Path) -> dict[str, Any]:
    """The kustomization over the overlay.

    Args:
        installation: What it says.
        plain: The overlay's objects as they are without it.
        folder: Where it will lie: kustomize takes relative paths.
    """
    there = {(each["kind"], each["metadata"]["name"]): each for each in plain}
    made: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": installation.namespace,
        "resources": [os.path.relpath(installation.overlay, folder)],
        "images": _images(installation, plain),
        "patches": [],
    }
    if installation.components:
        made["components"] = [os.path.relpath(each, folder) for each in installation.components]
    for kind, name in there:
        for operations in _patches(installation, kind, name, there[kind, name]):
            text = yaml.safe_dump(operations, sort_keys=False)
            made["patches"].append({"target": {"kind": kind, "name": f"^{name}$"}, "patch": text})
    return made


def _patches(installation: Installation, kind: str, name: str, found: dict[str, Any]) -> list[list[dict[str, Any]]]:
    if kind == "ConfigMap" and name == "pmc-llama-endpoints":
        return [_data(found, _endpoints(installation))]
    if kind == "ConfigMap" and name == _MLFLOW:
        return [_data(found, _server(installation, found))]
    if kind == "ServiceAccount":
        return [patch for patch in (_account(installation, found),) if patch]
    if kind == "RoleBinding" and installation.runner != STEPS_ACCOUNT:
        subject = {"kind": "ServiceAccount", "name": installation.runner, "namespace": installation.namespace}
        return [[{"op": "add", "path": "/subjects/-", "value": subject}]]
    if kind == "NetworkPolicy" and (port := _unusual_port(installation)) and name in _CALLERS_OF_S3:
        return [[{"op": "add", "path": "/spec/egress/-", "value": {"ports": [{"protocol": "TCP", "port": port}]}}]]
    return []


def _data(found: dict[str, Any], values: dict[str, str]) -> list[dict[str, Any]]:
    return [{"op": "add", "path": "/data", "value": (found.get("data") or {}) | values}]


def _endpoints(installation: Installation) -> dict[str, str]:
    given = {
        "PMC_STORE_URI": installation.store_uri,
        "AWS_ENDPOINT_URL": installation.endpoint,
        "AWS_REGION": installation.region,
    }
    return {key: value for key, value in given.items() if value}


def _server(installation: Installation, found: dict[str, Any]) -> dict[str, str]:
    inside = f"{_MLFLOW}.{installation.namespace}"
    names = [f"{each}:5000" for each in (inside, f"{inside}.svc", f"{inside}.svc.cluster.local")]
    hosts = [*found["data"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(","), *names, *installation.mlflow_hosts]
    root = {"MLFLOW_DEFAULT_ARTIFACT_ROOT": installation.artifacts_uri} if installation.artifacts_uri else {}
    return root | {"MLFLOW_SERVER_ALLOWED_HOSTS": ",".join(hosts)}


def _account(installation: Installation, found: dict[str, Any]) -> list[dict[str, Any]]:
    made: list[dict[str, Any]] = []
    is_ours = found["metadata"]["name"] in _IN_THE_CLOUD
    annotations = dict([installation.identity] if installation.identity and is_ours else [])
    if installation.is_serving:
        annotations |= s3_annotations(installation.endpoint, installation.region)
    if annotations:
        present = found["metadata"].get("annotations") or {}
        made.append({"op": "add", "path": "/metadata/annotations", "value": present | annotations})
    if installation.pull_secret:
        made.append({"op": "add", "path": "/imagePullSecrets", "value": [{"name": installation.pull_secret}]})
    return made


def _unusual_port(installation: Installation) -> int | None:
    parts = urlsplit(installation.endpoint)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return None if port == 443 else port


def _images(installation: Installation, plain: list[dict[str, Any]]) -> list[dict[str, str]]:
    made = [_image(f"pmc-llama-{name}", full) for name, full in installation.images.items()]
    if installation.mirror:
        theirs = sorted(_used(plain) - {each["name"] for each in made})
        made += [{"name": name, "newName": f"{installation.mirror}/{_without_host(name)}"} for name in theirs]
    return made


def _image(name: str, full: str) -> dict[str, str]:
    if "@" in full:
        base, _, digest = full.partition("@")
        return {"name": name, "newName": _without_tag(base), "digest": digest}
    base = _without_tag(full)
    if base == full:
        raise InputError(f"The image {full!r} has no tag; say which one, as in {full}:0.1.0.")
    return {"name": name, "newName": base, "newTag": full[len(base) + 1 :]}


def _without_tag(name: str) -> str:
    last = name.rpartition("/")[2]
    return name[: -len(last)] + last.partition(":")[0] if ":" in last else name


def _without_host(name: str) -> str:
    for host in _ORIGINAL_HOSTS:
        name = name.removeprefix(host)
    return name


def _used(objects: list[dict[str, Any]]) -> set[str]:
    found: set[str] = set()

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(value.get("image"), str):
                found.add(_without_tag(value["image"].partition("@")[0]))
            for each in value.values():
                look(each)
        elif isinstance(value, list):
            for each in value:
                look(each)

    look(objects)
    return found


def _kustomize(kubectl: str, folder: Path) -> str:
    made = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True)
    if made.returncode:
        raise InputError(f"kustomize cannot build {folder}: {made.stderr.strip()[:2000]}")
    return made.stdout


def _parse(text: str) -> list[dict[str, Any]]:
    return [each for each in yaml.safe_load_all(text) if each]
