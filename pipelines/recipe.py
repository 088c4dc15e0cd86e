"""Recipes: every setting of a run, in one YAML file, validated.

A recipe's sections are the pipeline's parameters, so the Kubeflow UI shows and changes the same fields as ``--set``.
"""

import difflib
from collections.abc import Iterable, Iterator
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError

from components.common.errors import InputError
from components.common.section import Section, without_nulls
from components.download.settings import DownloadSettings
from components.evaluate.settings import EvaluateSettings
from components.preprocess.settings import PreprocessSettings
from components.register.settings import RegisterSettings
from components.train.settings import TrainSettings

RECIPES = resources.files("pipelines") / "recipes"


class Recipe(Section):
    """A whole run: one section per stage."""

    recipe: str = Field(description="Name that runs, model versions and reports carry")
    description: str = Field("", description="What this recipe is for")
    download: DownloadSettings
    preprocess: PreprocessSettings
    train: TrainSettings
    evaluate: EvaluateSettings
    register_: RegisterSettings = Field(alias="register")

    def arguments(self) -> dict[str, Any]:
        """Return the pipeline's arguments: the recipe's name and its sections as plain data."""
        data: dict[str, Any] = without_nulls(self.model_dump(mode="json", by_alias=True, exclude={"description"}))
        return data


def load_recipe(name: str, overrides: Iterable[str] = ()) -> Recipe:
    """Read a recipe by its name or its path and apply ``key=value`` overrides.

    Args:
        name: A bundled recipe's name (``tiny``, ``paper``) or a path to a YAML file.
        overrides: Such as ``train.epochs=3``; the value is read as YAML.

    Raises:
        InputError: There is no such recipe, a key is unknown (the nearest is named), or a value is not valid.
    """
    data = _read(name)
    for override in overrides:
        _apply(data, override)
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        problems = "; ".join(_explain(problem) for problem in error.errors())
        raise InputError(f"The recipe {name} is not valid: {problems}.") from error


def recipe_names() -> list[str]:
    """Return the names of the bundled recipes."""
    return sorted(entry.name.removesuffix(".yaml") for entry in RECIPES.iterdir() if entry.name.endswith(".yaml"))


def setting_keys() -> list[str]:
    """Return every key that ``--set`` takes, such as ``train.learning_rate``."""
    return [key for key, _, _ in _described(Recipe)]


def describe_settings() -> list[tuple[str, Any, str]]:
    """Return (key, default, meaning) of every setting."""
    return list(_described(Recipe))


def _read(name: str) -> dict[str, Any]:
    file: Traversable | Path = RECIPES / f"{name}.yaml"
    if name.endswith((".yaml", ".yml")):
        file = Path(name)
    if not file.is_file():
        nearest = _nearest(name, recipe_names())
        raise InputError(f"There is no recipe {name!r}{nearest}; there are {', '.join(recipe_names())}.")
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise InputError(f"The recipe {name} is no YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(data, dict):
        raise InputError(f"The recipe {name} holds no settings; compare it with a bundled one.")
    return data


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override!r} has not the form key=value, such as train.epochs=3.")
    path = key.strip()
    if path not in setting_keys():
        raise InputError(f"There is no setting {path!r}{_nearest(path, setting_keys())}.")
    *sections, last = path.split(".")
    for section in sections:
        data = data.setdefault(section, {})
    try:
        data[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        data[last] = text
    # YAML 1.1 reads 2e-5 as a string; people mean the number.
    if isinstance(data[last], str):
        data[last] = _number(data[last])


def _number(text: str) -> str | float:
    try:
        return float(text) if "e" in text.lower() and text[0] in "+-.0123456789" else text
    except (ValueError, IndexError):
        return text


def _described(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any, str]]:
    for name, field in model.model_fields.items():
        key = prefix + (field.alias or name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _described(field.annotation, f"{key}.")
        else:
            default = "(required)" if field.is_required() else field.get_default(call_default_factory=True)
            yield key, default, field.description or ""


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"there is no setting {where!r}{_nearest(where, setting_keys())}"
    message = problem["msg"].removeprefix("Value error, ")
    shown = problem["input"]
    if problem["type"] == "missing" or isinstance(shown, dict):
        return f"{where}: {message}"
    return f"{where}: {message}, not {shown!r}"


def _nearest(word: str, known: list[str]) -> str:
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if not found and "." in word:
        found = difflib.get_close_matches(word.rpartition(".")[2], [key.rpartition(".")[2] for key in known], n=1)
        found = [key for key in known if found and key.endswith("." + found[0])][:1]
    return f" (did you mean {found[0]!r}?)" if found else ""
