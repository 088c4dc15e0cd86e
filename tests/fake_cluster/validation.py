"""What an API server refuses: names, labels, unknown and missing fields, wrong types."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.fake_cluster.store import Refused

CRDS = Path(__file__).parents[3] / "shared" / "crds"
FILES = {"pytorchjobs": "kubeflow.org_pytorchjobs.yaml", "trainjobs": "trainer.kubeflow.org_trainjobs.yaml"}
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL_NAME = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_QUANTITY = re.compile(r"\d+(\.\d+)?(m|[kMGTP]|[KMGTP]i)?")
_TYPES = {"object": dict, "array": list, "string": str, "boolean": bool}


def check_object(found: dict[str, Any], plural: str, api_version: str, kind: str, strict: bool) -> None:
    """Raise Refused as the API server does."""
    if (found.get("apiVersion"), found.get("kind")) != (api_version, kind):
        given = f"{found.get('apiVersion')}/{found.get('kind')}"
        raise Refused(400, "BadRequest", f"the object provided is {given}, but {api_version}/{kind} is expected")
    name = found.get("metadata", {}).get("name", "")
    if not _NAME.fullmatch(name):
        raise Refused(422, "Invalid", f'{kind} "{name}" is invalid: metadata.name: Invalid value: "{name}"')
    if plural == "trainjobs" and not re.fullmatch(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?", name):
        raise Refused(422, "Invalid", f'{kind} "{name}" is invalid: metadata.name must match RFC 1035 DNS label format')
    _check_labels(found["metadata"].get("labels") or {}, kind, name)
    problems = list(_problems({k: v for k, v in found.items() if k == "spec"}, schema_of(plural), ""))
    unknown = [f'unknown field "{place}"' for place, problem in problems if problem == "unknown"]
    wrong = [f"{place}: {problem}" for place, problem in problems if problem != "unknown"]
    if unknown and strict:
        raise Refused(400, "BadRequest", f"{kind} in version is strict decoding error: {', '.join(unknown)}")
    if wrong:
        raise Refused(422, "Invalid", f'{kind}.{plural} "{name}" is invalid: {", ".join(wrong)}')


@cache
def schema_of(plural: str) -> dict[str, Any]:
    """The real CRD's schema where it is at hand, or that of the fields that we write."""
    file = CRDS / FILES[plural]
    if file.exists():
        found = yaml.load(file.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        return found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return {"type": "object", "properties": {"spec": _SMALL[plural]}}


def _problems(value: Any, schema: dict[str, Any], place: str) -> Any:
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, int | str) or isinstance(value, bool):
            yield place, f"{value!r} is neither integer nor string"
        elif "pattern" in schema and isinstance(value, str) and not _QUANTITY.fullmatch(value):
            yield place, f"{value!r} is no quantity"
        return
    wanted = schema.get("type")
    if wanted == "integer":
        right = isinstance(value, int) and not isinstance(value, bool)
    else:
        right = wanted is None or isinstance(value, _TYPES.get(wanted, object))
    if not right:
        yield place, f"Invalid value: {value!r}: must be of type {wanted}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield place, f"Unsupported value: {value!r}"
    if "minimum" in schema and value < schema["minimum"]:
        yield place, f"Invalid value: {value!r}: should be greater than or equal to {schema['minimum']}"
    if isinstance(value, dict):
        yield from _object_problems(value, schema, place)
    if isinstance(value, list):
        yield from _list_problems(value, schema, place)


def _object_problems(value: dict[str, Any], schema: dict[str, Any], place: str) -> Any:
    for name in schema.get("required", []):
        if name not in value:
            yield f"{place}.{name}".lstrip("."), "Required value"
    for name, each in value.items():
        inner = schema.get("properties", {}).get(name, schema.get("additionalProperties"))
        at = f"{place}.{name}".lstrip(".")
        if isinstance(inner, dict):
            yield from _problems(each, inner, at)
        elif not inner and not schema.get("x-kubernetes-preserve-unknown-fields") and at.count(".metadata") == 0:
            yield at, "unknown"  # a template's metadata is a bare object in these CRDs


def _list_problems(value: list[Any], schema: dict[str, Any], place: str) -> Any:
    for index, each in enumerate(value):
        yield from _problems(each, schema.get("items", {}), f"{place}[{index}]")
    if keys := schema.get("x-kubernetes-list-map-keys"):
        found = [tuple(each.get(key) for key in keys) for each in value]
        for each in {each for each in found if found.count(each) > 1}:
            yield place, f"Duplicate value: {each}"
    if len(value) > schema.get("maxItems", len(value)):
        yield place, f"Too many: {len(value)}"


def _check_labels(labels: dict[str, str], kind: str, name: str) -> None:
    for key, value in labels.items():
        if not _LABEL_NAME.fullmatch(key) or not _LABEL_VALUE.fullmatch(value):
            raise Refused(422, "Invalid", f'{kind} "{name}" is invalid: metadata.labels: Invalid value: {key}={value}')


def _fields(**properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties}


def _list(items: dict[str, Any], key: str | None = None) -> dict[str, Any]:
    return {"type": "array", "items": items} | ({"x-kubernetes-list-map-keys": [key]} if key else {})


_TEXT, _NUMBER, _FLAG = {"type": "string"}, {"type": "integer"}, {"type": "boolean"}
_AMOUNT = {"x-kubernetes-int-or-string": True, "pattern": "quantity"}
_TEXTS = {"type": "object", "additionalProperties": _TEXT}
_AMOUNTS = {"type": "object", "additionalProperties": _AMOUNT}
_KEY = _fields(name=_TEXT, key=_TEXT)
_ENV = _list(_fields(name=_TEXT, value=_TEXT, valueFrom=_fields(secretKeyRef=_KEY, configMapKeyRef=_KEY)), "name")
_RESOURCES = _fields(limits=_AMOUNTS, requests=_AMOUNTS)
_CONTAINER = {
    "name": _TEXT,
    "volumeMounts": _list(_fields(name=_TEXT, mountPath=_TEXT), "mountPath"),
    "securityContext": _fields(
        allowPrivilegeEscalation=_FLAG,
        capabilities=_fields(drop=_list(_TEXT)),
        readOnlyRootFilesystem=_FLAG,
        runAsNonRoot=_FLAG,
    ),
}
_PLACEMENT = {
    "nodeSelector": _TEXTS,
    "tolerations": _list(_fields(key=_TEXT, operator=_TEXT, value=_TEXT, effect=_TEXT, tolerationSeconds=_NUMBER)),
    "imagePullSecrets": _list(_fields(name=_TEXT), "name"),
    "serviceAccountName": _TEXT,
    "terminationGracePeriodSeconds": _NUMBER,
    "securityContext": _fields(
        runAsNonRoot=_FLAG, runAsUser=_NUMBER, runAsGroup=_NUMBER, fsGroup=_NUMBER, seccompProfile=_fields(type=_TEXT)
    ),
    "volumes": _list(
        _fields(
            name=_TEXT,
            emptyDir=_fields(sizeLimit=_AMOUNT, medium=_TEXT),
            persistentVolumeClaim=_fields(claimName=_TEXT),
        ),
        "name",
    ),
}
_METADATA = _fields(labels=_TEXTS, annotations=_TEXTS)
_POD = _fields(
    **_PLACEMENT,
    containers=_list(
        _fields(
            **_CONTAINER,
            image=_TEXT,
            command=_list(_TEXT),
            env=_ENV,
            resources=_RESOURCES,
            terminationMessagePath=_TEXT,
            terminationMessagePolicy=_TEXT,
        ),
        "name",
    ),
    automountServiceAccountToken=_FLAG,
    enableServiceLinks=_FLAG,
    priorityClassName=_TEXT,
)
_SCHEDULING = _fields(queue=_TEXT, minAvailable=_NUMBER, priorityClass=_TEXT)
_SMALL: dict[str, dict[str, Any]] = {
    "pytorchjobs": _fields(
        nprocPerNode=_TEXT,
        runPolicy=_fields(
            cleanPodPolicy=_TEXT,
            backoffLimit=_NUMBER,
            activeDeadlineSeconds=_NUMBER,
            ttlSecondsAfterFinished=_NUMBER,
            suspend=_FLAG,
            schedulingPolicy=_SCHEDULING,
        ),
        pytorchReplicaSpecs={
            "type": "object",
            "additionalProperties": _fields(
                replicas=_NUMBER, restartPolicy=_TEXT, template=_fields(metadata=_METADATA, spec=_POD)
            ),
        },
    ),
    "trainjobs": _fields(
        runtimeRef=_fields(name=_TEXT),
        activeDeadlineSeconds=_NUMBER,
        suspend=_FLAG,
        trainer=_fields(
            image=_TEXT,
            command=_list(_TEXT),
            env=_ENV,
            numNodes=_NUMBER,
            numProcPerNode={"x-kubernetes-int-or-string": True},
            resourcesPerNode=_RESOURCES,
        ),
        runtimePatches=_list(
            _fields(
                manager=_TEXT,
                trainingRuntimeSpec=_fields(
                    template=_fields(
                        spec=_fields(
                            replicatedJobs=_list(
                                _fields(
                                    name=_TEXT,
                                    template=_fields(
                                        spec=_fields(
                                            template=_fields(
                                                metadata=_METADATA,
                                                spec=_fields(**_PLACEMENT, containers=_list(_fields(**_CONTAINER))),
                                            )
                                        )
                                    ),
                                ),
                                "name",
                            )
                        )
                    )
                ),
            ),
            "manager",
        ),
    ),
}
