"""Recipes: every setting of a run, in one YAML file, validated.

A recipe's sections are the pipeline's parameters, so the Kubeflow UI shows and changes the same fields as ``--set``.
"""

import difflib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import yaml
from pydantic import BaseModel, Field, StringConstraints, ValidationError, field_validator, model_validator

from components.common.errors import InputError
from components.common.section import Section, without_nulls
from components.download.settings import DownloadSettings
from components.evaluate.settings import EvaluateSettings
from components.preprocess.settings import PreprocessSettings
from components.register.settings import RegisterSettings
from components.train.settings import FinetuneSettings, TrainSettings
from pipelines.step_settings import StepsSettings

RECIPES = resources.files("pipelines") / "recipes"
_ANY_NAME = "<name>"  # in the keys of a section that holds several parts by name

RunName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]


class Recipe(Section):
    """A whole run: one section per stage."""

    recipe: str = Field(description="Name that runs, model versions and reports carry")
    description: str = Field("", description="What this recipe is for")
    download: DownloadSettings
    preprocess: PreprocessSettings
    train: TrainSettings
    finetune: dict[RunName, FinetuneSettings] = Field(
        default_factory=dict,
        description="Fine-tuning runs by name, each of the base and of the candidate, compared under the same settings "
        "as in the paper; one with objective: instruct is of the candidate alone, and registered as "
        "<register.model_name>-<name>. {} or null: none; "
        "`finetune.NAME=null` leaves one out.",
    )
    evaluate: EvaluateSettings
    register_: RegisterSettings = Field(alias="register")
    steps: StepsSettings = Field(
        default_factory=lambda: StepsSettings.model_validate({}), description="The pods of the steps on a cluster."
    )

    @model_validator(mode="after")
    def _jobs_share_a_cluster(self) -> "Recipe":
        """The preflight and the exit task look where the training's own job runs."""
        for name, run in self.finetune.items():
            if run.launcher == "local":
                continue
            if self.train.launcher == "local" or run.cluster.namespace != self.train.cluster.namespace:
                raise ValueError(
                    f"finetune.{name}.launcher is {run.launcher}, so train must run on the same cluster, in the same "
                    f"namespace; set train.launcher (now {self.train.launcher}) and train.cluster.namespace alike"
                )
        return self

    @model_validator(mode="after")
    def _documents_end_once(self) -> "Recipe":
        """The training would refuse the corpus, after the preprocessing."""
        if self.train.sampling == "packed" and self.preprocess.tokenize.add_eos:
            raise ValueError(
                "preprocess.tokenize.add_eos and train.sampling: packed would put two end tokens between documents; "
                "set add_eos to false"
            )
        return self

    @model_validator(mode="after")
    def _what_answers_can_be_taught_and_registered(self) -> "Recipe":
        """Both would else be found out by a step after the training."""
        for name, run in self.finetune.items():
            if run.objective != "instruct":
                continue
            if not self.download.instructions:
                raise ValueError(
                    f"finetune.{name}.objective is instruct, but download.instructions is empty; name an instruction "
                    "set there (sample, a folder, an s3:// prefix, or owner/name@commit on the hub)"
                )
            if run.method == "lora" and not run.merge_adapter:
                raise ValueError(
                    f"finetune.{name}.objective is instruct, but finetune.{name}.merge_adapter is false, and an "
                    "adapter alone is not registered; set it"
                )
        return self

    @model_validator(mode="after")
    def _every_benchmark_is_fetched(self) -> "Recipe":
        missing = [name for name in self.evaluate.benchmarks if name not in self.download.fetched_benchmarks]
        if missing and self.download.benchmarks in ("hub", "sample"):
            raise ValueError(
                f"evaluate.benchmarks has {', '.join(missing)}, which download.benchmarks={self.download.benchmarks} "
                "does not fetch; add to download.more_benchmarks what is on the hub, or name a folder with the files"
            )
        return self

    @model_validator(mode="after")
    def _the_gate_will_have_what_it_asks_for(self) -> "Recipe":
        """It refuses what is not there; that would be said after the training."""
        missing = [name for name in self.register_.benchmarks if name not in self.evaluate.benchmarks]
        if missing:
            raise ValueError(
                f"register.benchmarks decide by {', '.join(missing)}, which evaluate.benchmarks leaves out; name the "
                "same in both"
            )
        compared = [name for name, run in self.finetune.items() if run.objective == "finetune"]
        if self.register_.judged_on == "fine_tuned" and not compared:
            raise ValueError(
                "register.judged_on is fine_tuned, but there is no fine-tuning run to compare by; add one to finetune, "
                "or set register.judged_on to as_is"
            )
        return self

    def arguments(self) -> dict[str, Any]:
        """Return the pipeline's arguments: the recipe's name and its sections as plain data.

        The section `steps` is for KFP rather than for the steps; see :mod:`pipelines.placing`. The runs of
        `finetune` become lists of settings with their `name`, for KFP to loop over: `finetune` has those of the
        comparison and `instruct` those of that objective; an empty one is left out.
        """
        left_out = {"description", "steps"}
        data: dict[str, Any] = without_nulls(self.model_dump(mode="json", by_alias=True, exclude=left_out))
        runs = [{"name": name, **settings} for name, settings in data.pop("finetune").items()]
        for objective in ("finetune", "instruct"):
            if chosen := [run for run in runs if run["objective"] == objective]:
                data[objective] = chosen
        return data

    @field_validator("finetune", mode="before")
    @classmethod
    def _without_those_left_out(cls, runs: Any) -> Any:
        given = {} if runs is None else runs
        return {name: run for name, run in given.items() if run is not None} if isinstance(given, dict) else given


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
    """Return every key that ``--set`` takes, such as ``train.learning_rate`` or ``finetune.<name>.epochs``."""
    return [key for key, _, _ in _described(Recipe)]


def describe_settings() -> list[tuple[str, Any, str]]:
    """Return (key, default, meaning) of every setting; what several sections share is told once."""
    told: list[tuple[str, Any, str]] = []
    for key, default, meaning in _described(Recipe):
        block = key.rpartition(".")[0]
        if (shared := _told_elsewhere(block)) is None:
            told.append((key, default, meaning))
        elif told[-1][0] != f"{block}.*":
            told.append((f"{block}.*", "", shared))
    return told


def _told_elsewhere(block: str) -> str | None:
    if block.startswith("steps.") and block != "steps.default":
        return "As steps.default.*, for this step alone."
    return "As train.cluster.*, for this run's jobs." if block == f"finetune.{_ANY_NAME}.cluster" else None


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
    return {key: _unshared(value) for key, value in data.items()}


def _unshared(data: Any) -> Any:
    """Copy what YAML's anchors let several sections share, so that an override of one leaves the others alone."""
    if isinstance(data, dict):
        return {key: _unshared(value) for key, value in data.items()}
    return [_unshared(value) for value in data] if isinstance(data, list) else data


def _apply(data: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set {override!r} has not the form key=value, such as train.epochs=3.")
    path = key.strip()
    _check_key(path, data)
    *sections, last = path.split(".")
    for section in sections:
        data[section] = data.get(section) or {}
        data = data[section]
    try:
        data[last] = yaml.safe_load(text)
    except yaml.YAMLError:
        data[last] = text
    # YAML 1.1 reads 2e-5 as a string; people mean the number.
    if isinstance(data[last], str):
        data[last] = _number(data[last])


def _check_key(path: str, data: Mapping[str, Any]) -> None:
    general = _general(path)
    if general not in setting_keys() and general != f"finetune.{_ANY_NAME}":
        raise InputError(f"There is no setting {path!r}{_nearest_setting(path)}.")
    # A setting of a run that is not there would make one, out of a slip of the pen.
    runs = data.get("finetune") or {}
    if general.startswith(f"finetune.{_ANY_NAME}.") and path.split(".")[1] not in runs:
        name = path.split(".")[1]
        raise InputError(
            f"There is no fine-tuning run {name!r}{_nearest(name, list(runs))}; to add one: "
            f"--set 'finetune.{name}={{tasks: [medqa]}}'."
        )


def _general(path: str) -> str:
    """Put the placeholder for the name of a fine-tuning run."""
    section, _, rest = path.partition(".")
    name, dot, rest = rest.partition(".")
    return f"{section}.{_ANY_NAME}{dot}{rest}" if section == "finetune" and name else path


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
            continue
        default = "(required)" if field.is_required() else field.get_default(call_default_factory=True)
        yield key, default, field.description or ""
        if part := _named_part(field.annotation):
            yield from _described(part, f"{key}.{_ANY_NAME}.")


def _named_part(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds several of, by name."""
    part = get_args(annotation)[1] if get_origin(annotation) is dict else None
    return part if isinstance(part, type) and issubclass(part, BaseModel) else None


def _explain(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        return f"there is no setting {where!r}{_nearest_setting(where)}"
    message = problem["msg"].removeprefix("Value error, ")
    shown = problem["input"]
    if not where:  # what several sections have to agree on
        return message
    if problem["type"] == "missing" or isinstance(shown, dict):
        return f"{where}: {message}"
    return f"{where}: {message}, not {shown!r}"


def _nearest_setting(path: str) -> str:
    found = _nearest(_general(path), setting_keys())
    return found.replace(_ANY_NAME, path.split(".")[1]) if path.startswith("finetune.") else found


def _nearest(word: str, known: list[str]) -> str:
    found = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if not found and "." in word:
        found = difflib.get_close_matches(word.rpartition(".")[2], [key.rpartition(".")[2] for key in known], n=1)
        found = [key for key in known if found and key.endswith("." + found[0])][:1]
    return f" (did you mean {found[0]!r}?)" if found else ""
