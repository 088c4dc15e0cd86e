"""What a real server refuses: bodies that its models do not know, packages that are no pipelines, wrong filters."""

import json
import re
from collections.abc import Callable
from typing import Any

import kfp_server_api
import yaml
from google.protobuf import json_format
from kfp.kubernetes import kubernetes_executor_config_pb2
from kfp.pipeline_spec import pipeline_spec_pb2

_CRON_FIELD = r"(\*|\?|[0-9A-Z]+)([/,-][0-9A-Z*]+)*"
_PYTHON_TYPES: dict[str, type | tuple[type, ...]] = {
    "str": str,
    "bool": bool,
    "int": int,
    "datetime": str,
    "object": (dict, list, str, int, float, bool),
}
_PARAMETER_TYPES: dict[str, type | tuple[type, ...]] = {
    "STRING": str,
    "NUMBER_INTEGER": int,
    "NUMBER_DOUBLE": (int, float),
    "BOOLEAN": bool,
    "STRUCT": dict,
    "LIST": list,
}


class Refused(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def check_body(data: Any, model: str, where: str = "body") -> None:
    """Refuse what KFP's own model of a request has no field for, or holds in another type."""
    kind = getattr(kfp_server_api, model)
    if hasattr(kind, "allowable_values"):
        if data not in kind.allowable_values:
            raise Refused(400, f"{where}: {data!r} is none of {kind.allowable_values}")
        return
    if not isinstance(data, dict):
        raise Refused(400, f"{where}: {type(data).__name__} instead of an object")
    fields = {kind.attribute_map[name]: of for name, of in kind.openapi_types.items()}
    for key, value in data.items():
        if key not in fields:
            raise Refused(400, f"{where}: unknown field {key!r}")
        _check_value(value, fields[key], f"{where}.{key}")


def parsed_package(text: str) -> dict[str, Any]:
    """The pipeline's specification, if KFP's own formats can read all of it."""
    try:
        documents = list(yaml.load_all(text, Loader=yaml.CSafeLoader))
        spec = json_format.ParseDict(documents[0], pipeline_spec_pb2.PipelineSpec())
        for document in documents[1:]:
            json_format.ParseDict(document, pipeline_spec_pb2.PlatformSpec())
            for executor in document["platforms"]["kubernetes"]["deploymentSpec"]["executors"].values():
                json_format.ParseDict(executor, kubernetes_executor_config_pb2.KubernetesExecutorConfig())
    except (yaml.YAMLError, json_format.ParseError, KeyError, IndexError) as error:
        raise Refused(400, f"Failed to parse the pipeline: {error}") from error
    if not spec.pipeline_info.name or not spec.root.dag.tasks:
        raise Refused(400, "Invalid input error: the pipeline has no name or no tasks")
    return dict(documents[0])


def check_parameters(spec: dict[str, Any], given: dict[str, Any]) -> None:
    """Refuse arguments that the pipeline does not take, or in another type."""
    known = spec["root"].get("inputDefinitions", {}).get("parameters", {})
    for name, value in given.items():
        if name not in known:
            raise Refused(400, f"Invalid input error: the pipeline has no parameter {name!r}")
        if not isinstance(value, _PARAMETER_TYPES[known[name]["parameterType"]]):
            raise Refused(400, f"Invalid input error: parameter {name!r} is no {known[name]['parameterType']}")
    for name, definition in known.items():
        if name not in given and not definition.get("isOptional") and "defaultValue" not in definition:
            raise Refused(400, f"Invalid input error: parameter {name!r} is missing")


def check_cron(text: str) -> None:
    """Refuse what the scheduler cannot read: six fields, the second first."""
    if not re.fullmatch(rf"({_CRON_FIELD} ){{5}}{_CRON_FIELD}|@(yearly|monthly|weekly|daily|hourly)", text):
        raise Refused(400, f"Invalid input error: Schedule cron is not supported: {text!r}")


def filter_of(text: str, keys: set[str]) -> Callable[[dict[str, Any]], bool]:
    """The predicate that a filter stands for."""
    if not text:
        return lambda _: True
    try:
        predicates = json.loads(text)["predicates"]
        tests = [(each["operation"], each["key"], each["stringValue"]) for each in predicates]
    except (ValueError, KeyError, TypeError) as error:
        raise Refused(400, f"Invalid input error: failed to parse the filter {text!r}") from error
    for operation, key, _ in tests:
        if operation not in ("EQUALS", "IS_SUBSTRING") or key not in keys:
            raise Refused(400, f"Invalid input error: no filter {operation} on {key!r}")
    return lambda row: all(
        row.get(key) == value if operation == "EQUALS" else value in row.get(key, "") for operation, key, value in tests
    )


def _check_value(value: Any, of: str, where: str) -> None:
    if inner := re.fullmatch(r"list\[(.*)\]", of):
        if not isinstance(value, list):
            raise Refused(400, f"{where}: no list")
        for number, each in enumerate(value):
            _check_value(each, inner[1], f"{where}[{number}]")
    elif inner := re.fullmatch(r"dict\(str, (.*)\)", of):
        if not isinstance(value, dict):
            raise Refused(400, f"{where}: no object")
        for key, each in value.items():
            _check_value(each, inner[1], f"{where}.{key}")
    elif of in _PYTHON_TYPES:
        if not isinstance(value, _PYTHON_TYPES[of]):
            raise Refused(400, f"{where}: {value!r} is no {of}")
    else:
        check_body(value, of, where)
