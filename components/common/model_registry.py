"""Finding a model version in MLflow's registry by what a person calls it."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException

from components.common import storage
from components.common.errors import InputError, PipelineError

CANDIDATE = "candidate"
"""Alias of the version that was put to the gate last."""
CHAMPION = "champion"
"""Alias of the version in use."""
PREVIOUS = "previous"
"""Alias of the champion before this one."""
TAG_LIMIT = 5000
"""Characters of a tag's value that every MLflow server takes."""
DESCRIPTION_LIMIT = 5000
"""Characters of a version's description that every MLflow server takes."""

_WANTED = re.compile(r"(?:models:/+)?(?P<name>[^/:]+?)(?:/(?P<version>\d+)|@(?P<alias>[^/@]+))?/?")
_SHOWN = 10
_SQLITE = "sqlite:///"
_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"


def find_version(tracking_uri: str, wanted: str) -> ModelVersion:
    """Return the model version that is meant.

    Args:
        tracking_uri: Address of MLflow.
        wanted: ``name`` (its champion, or without one its newest version), ``name/3``, ``name@alias``, either with
            ``models:/`` before it, or a version's number alone when exactly one model is registered.

    Raises:
        InputError: There is no such version; says which there are.
        PipelineError: MLflow does not answer.
    """
    if not tracking_uri:
        raise InputError("There is no registry to look into; set MLFLOW_TRACKING_URI.")
    _require_database(tracking_uri)
    with explained(tracking_uri, f"find the model {wanted}"), _impatient():
        client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)
        return _find(client, wanted.strip())


@contextlib.contextmanager
def explained(tracking_uri: str, what: str) -> Iterator[None]:
    """Turn MLflow's own error into one sentence.

    Args:
        tracking_uri: Address of MLflow; a password in it is not shown.
        what: What was to be done, such as ``register pmc-llama``.

    Raises:
        PipelineError: In place of MLflow's error.
    """
    try:
        yield
    except MlflowException as error:
        address = tracking_uri.rpartition("@")[2]  # without a password
        text = str(error).replace(tracking_uri, address).splitlines()[0][:500]
        raise PipelineError(f"MLflow at {address} cannot {what}: {text}") from error


def from_source(source: str) -> str:
    """Return the folder of the store that a version's source means: MLflow's file URIs have ``%20`` for a space."""
    if source.startswith(storage.FILE_SCHEME):
        return storage.FILE_SCHEME + unquote(source.removeprefix(storage.FILE_SCHEME))
    return source


def get_model(client: MlflowClient, name: str) -> RegisteredModel | None:
    """Return a registered model, or None when there is none of that name."""
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """Say at once that a server is not there; by itself MLflow would try for four minutes."""
    before = os.environ.get(_RETRIES)
    os.environ[_RETRIES] = "1"
    try:
        yield
    finally:
        os.environ.pop(_RETRIES) if before is None else os.environ.update({_RETRIES: before})


def _require_database(tracking_uri: str) -> None:
    """Refuse a database that is not there: MLflow would make an empty one, and then find nothing in it."""
    path = tracking_uri.removeprefix(_SQLITE)
    if tracking_uri.startswith(_SQLITE) and not Path(path).is_file():
        raise InputError(
            f"There is no MLflow database {path}, so no model is registered there; give the --home of the run that "
            "registered it, or set MLFLOW_TRACKING_URI."
        )


def _find(client: MlflowClient, wanted: str) -> ModelVersion:
    parts = _WANTED.fullmatch(wanted)
    if parts is None:
        raise InputError(f"{wanted!r} names no model; give name, name/3, name@alias or a version's number.")
    name, number, alias = parts["name"], parts["version"], parts["alias"]
    # A model may be called by a number, or have an @ in its name: what exists under the whole name is meant.
    model = get_model(client, f"{name}@{alias}") if alias else None
    if model is not None:
        name, alias = model.name, None
    elif (model := get_model(client, name)) is None and name.isdecimal() and not number and not alias:
        model, number = _only_model(client, name), name
    if model is None:
        raise InputError(f"No model {name!r} is registered; {_models(client)}.")
    if number:
        return _version(client, model, str(int(number)))
    if alias and alias not in model.aliases:
        raise InputError(f"The model {model.name!r} has no alias {alias!r}; {_versions(client, model)}.")
    return _version(client, model, model.aliases.get(alias or CHAMPION) or _newest(client, model))


def _only_model(client: MlflowClient, number: str) -> RegisteredModel:
    found = client.search_registered_models(max_results=2)
    if len(found) != 1:
        raise InputError(f"Version {number} of which model? Give name/{number}; {_models(client)}.")
    return client.get_registered_model(found[0].name)


def _version(client: MlflowClient, model: RegisteredModel, number: str) -> ModelVersion:
    try:
        return client.get_model_version(model.name, number)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise InputError(f"The model {model.name!r} has no version {number}; {_versions(client, model)}.") from error


def _newest(client: MlflowClient, model: RegisteredModel) -> str:
    numbers = _numbers(client, model)
    if not numbers:
        raise InputError(f"The model {model.name!r} has no version; run the pipeline to register one.")
    return str(numbers[-1])


def _numbers(client: MlflowClient, model: RegisteredModel) -> list[int]:
    quote = '"' if "'" in model.name else "'"
    found: list[int] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = {quote}{model.name}{quote}", page_token=token)
        found += [int(version.version) for version in page]
        token = page.token
        if not token:
            return sorted(found)


def _models(client: MlflowClient) -> str:
    names = [model.name for model in client.search_registered_models(max_results=_SHOWN + 1)]
    if not names:
        return "none is: run the pipeline to register one"
    return f"there are {', '.join(names[:_SHOWN])}{' and more' if len(names) > _SHOWN else ''}"


def _versions(client: MlflowClient, model: RegisteredModel) -> str:
    numbers = _numbers(client, model)
    if not numbers:
        return "it has none"
    shown = ("... " if len(numbers) > _SHOWN else "") + ", ".join(map(str, numbers[-_SHOWN:]))
    aliases = ", ".join(f"{alias} ({number})" for alias, number in sorted(model.aliases.items()))
    return f"it has versions {shown} and {f'aliases {aliases}' if aliases else 'no alias'}"
