"""Whether objects are what a Kubernetes API server takes: every field known, of its type, nothing missing."""

import functools
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import yaml

OLDEST, NEWEST = "1.29", "1.37"
"""The versions of Kubernetes that every object is checked against."""

_CORE_POD_KIND = "Pod"


def schema_problems(found: dict[str, Any]) -> list[str]:
    """What an API server would refuse of an object, or silently drop.

    Args:
        found: The object.

    Returns:
        A sentence for each problem, with the object's kind and name in front.
    """
    about = f"{found.get('kind')} {(found.get('metadata') or {}).get('name')}"
    key = f"{found.get('apiVersion')}/{found.get('kind')}"
    if key in _custom():
        return [f"{about}: {each}" for each in _custom_problems(found, key)]
    problems = []
    for version in (OLDEST, NEWEST):
        try:
            kubernetes_validate.validate(found, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            place = ".".join(map(str, error.path))
            problems.append(f"{about}: {place}: {error.message[:500]} (Kubernetes {version})")
        except kubernetes_validate.SchemaNotFoundError:
            problems.append(f"{about}: Kubernetes {version} knows no {key}")
    return problems


def _custom_problems(found: dict[str, Any], key: str) -> list[str]:
    own = _custom()[key]
    schema = {
        "type": "object",
        "additionalProperties": False,
        "required": ["apiVersion", "kind", "metadata", *own.get("required", [])],
        "properties": {
            "apiVersion": True,
            "kind": True,
            "metadata": {"$ref": "#/$defs/metadata"},
            "spec": own["spec"],
        },
        "$defs": _document()["$defs"],
    }
    checked = jsonschema.Draft202012Validator(schema)
    problems = [f"{'.'.join(map(str, each.path))}: {each.message[:500]}" for each in checked.iter_errors(found)]
    # What such a kind says of its pods is Kubernetes' own form.
    spec = found.get("spec") or {}
    if "containers" in spec and not problems:
        pod = {key: spec[key] for key in ("containers", "volumes", "tolerations", "nodeSelector") if key in spec}
        about = {"apiVersion": "v1", "kind": _CORE_POD_KIND, "metadata": {"name": "pod"}, "spec": pod}
        problems += [each.partition(": ")[2] for each in schema_problems(about)]
    return problems


@functools.cache
def _document() -> dict[str, Any]:
    text = (Path(__file__).parent / "custom_kinds.yaml").read_text(encoding="utf-8")
    document: dict[str, Any] = yaml.safe_load(text)
    return document


def _custom() -> dict[str, Any]:
    kinds: dict[str, Any] = _document()["kinds"]
    return kinds
