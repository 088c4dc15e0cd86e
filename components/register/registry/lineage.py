"""Where a registered model comes from: run, data, base, results and decisions, as its tags tell it."""

import json
from datetime import UTC, datetime
from typing import Any

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from rich.text import Text
from rich.tree import Tree

from components.common.errors import PipelineError
from components.common.model_registry import explained, find_version, get_model
from components.register.registry import tags as names
from components.register.registry.layout import missing_files

_JSON = frozenset({"licences", "sources", "datasets", "evaluation"})
_SECTIONS = {
    "verdict": (names.VERDICT, names.REASON, names.JUDGED_AGAINST),
    "promotion": (*names.PROMOTED, *names.ROLLED_BACK),
    "run": ("pipeline_run_id", "pipeline_run_url", "mlflow_run_id", "recipe"),
    "corpus": ("corpus_fingerprint", "articles", "licences", "sources"),
    "instructions": (names.TAUGHT_FROM, *names.TAUGHT_WITH),
    "base model": ("base_model", "base_model_commit", "base_fingerprint", "base_model_uri"),
    "evaluation": ("evaluation", "evaluation_uri", "base_evaluation_uri", "comparison_uri", "report_uri"),
    "data sets": ("datasets",),
    "code": ("git_revision", "image", "trainer_image"),
    "retractions": (
        *("retractions_checked", "retracted_articles", "withdrawn_articles", "relicensed_articles"),
        *("unknown_articles", "retractions_report"),
    ),
    "files": ("model_uri", "model_manifest_uri", "card_uri"),
}


def lineage(tracking_uri: str, wanted: str) -> dict[str, Any]:
    """Return where a model version comes from, as plain data.

    Args:
        tracking_uri: Address of MLflow.
        wanted: The version; see :func:`model_registry.find_version`.

    Returns:
        ``model``, ``version``, ``aliases``, ``created``, ``weights`` (``uri``, and ``missing`` files or the ``problem``
        of looking for them), and a section for each of verdict, promotion, run, corpus, base model, evaluation, data
        sets, code, retractions and files; other tags are in ``other``. What a version does not tell is left out.

    Raises:
        InputError: There is no such version.
        PipelineError: MLflow does not answer.
    """
    version = find_version(tracking_uri, wanted)
    told = {key: _value(key, value) for key, value in version.tags.items()}
    known = {key for keys in _SECTIONS.values() for key in keys}
    sections = {title: {key: told[key] for key in keys if key in told} for title, keys in _SECTIONS.items()}
    return {
        "model": version.name,
        "version": str(version.version),
        "aliases": _aliases(tracking_uri, version),
        "created": datetime.fromtimestamp(version.creation_timestamp / 1000, UTC).isoformat(timespec="seconds"),
        "weights": _weights(version),
        **{title: section for title, section in sections.items() if section},
        "other": {key: value for key, value in sorted(told.items()) if key not in known},
    }


def lineage_tree(found: dict[str, Any]) -> Tree:
    """Return what :func:`lineage` found as a tree for a terminal; nothing in it is taken for markup."""
    title = f"{found['model']} version {found['version']}"
    tree = Tree(Text(f"{title} ({', '.join(found['aliases'])})" if found["aliases"] else title, style="bold"))
    tree.add(Text(f"registered {found['created']}"))
    _add_weights(tree, found["weights"])
    for section in _SECTIONS:
        if section in found:
            _add(tree.add(Text(section, style="bold")), found[section])
    if found["other"]:
        _add(tree.add(Text("other tags", style="bold")), found["other"])
    return tree


def _aliases(tracking_uri: str, version: ModelVersion) -> list[str]:
    """Return the version's aliases; MLflow itself leaves them out of a version that is asked for by number."""
    with explained(tracking_uri, f"give the aliases of {version.name}"):
        model = get_model(MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri), version.name)
    found = model.aliases if model else {}
    return sorted(alias for alias, number in found.items() if str(number) == str(version.version))


def _weights(version: ModelVersion) -> dict[str, Any]:
    place = {"uri": version.source}
    try:
        return place | {"missing": missing_files(version.source)}
    except PipelineError as error:  # what MLflow tells is worth showing without the store
        return place | {"problem": str(error)}


def _value(key: str, value: str) -> Any:
    if key not in _JSON:
        return value
    try:
        return json.loads(value)
    except ValueError:  # somebody changed it by hand
        return value


def _add_weights(tree: Tree, weights: dict[str, Any]) -> None:
    branch = tree.add(Text("weights", style="bold"))
    branch.add(Text(weights["uri"]))
    if "problem" in weights:
        branch.add(Text(f"cannot be looked at: {weights['problem']}", style="yellow"))
    elif weights["missing"]:
        branch.add(Text(f"gone: {', '.join(weights['missing'])}", style="red"))


def _add(branch: Tree, data: dict[str, Any]) -> None:
    for key, value in data.items():
        label = key.replace("_", " ")
        if isinstance(value, dict):
            _add(branch.add(Text(label)), value)
        elif isinstance(value, list) and value and all(isinstance(each, dict) for each in value):
            below = branch.add(Text(label))
            for each in value:
                below.add(Text(", ".join(f"{name} {one}" for name, one in each.items())))
        elif isinstance(value, list):
            branch.add(Text(f"{label}: {_numbers(value)}"))
        else:
            branch.add(Text(f"{label}: {value}"))


def _numbers(values: list[Any]) -> str:
    """Show an estimate with its interval, and other lists as they are."""
    if len(values) == 3 and all(isinstance(each, int | float) for each in values):
        return f"{values[0]:.4g} ({values[1]:.4g} to {values[2]:.4g})"
    return ", ".join(map(str, values))
