"""A pipeline on the Kubeflow server: its versions, and the experiment that its runs belong to."""

import hashlib
import json
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kfp_server_api
import yaml

from components.common.errors import ClusterError
from components.common.settings import get_settings
from pipelines.compile import compile_pipeline
from pipelines.kubeflow import Conflict, Kubeflow, Unanswered
from pipelines.recipe import Recipe
from pipelines.revision import git_revision

_DIGEST = 12
_TRIES = 4


@dataclass(frozen=True)
class Version:
    """A version of a pipeline on the server.

    Attributes:
        name: Recipe, git revision and content.
        pipeline_id: Of the pipeline.
        version_id: Of the version.
        arguments: The pipeline's parameters with the recipe's values.
        is_new: Whether it was uploaded just now.
    """

    name: str
    pipeline_id: str
    version_id: str
    arguments: dict[str, Any]
    is_new: bool

    @property
    def reference(self) -> kfp_server_api.V2beta1PipelineVersionReference:
        """What runs and schedules name it by."""
        return kfp_server_api.V2beta1PipelineVersionReference(
            pipeline_id=self.pipeline_id, pipeline_version_id=self.version_id
        )


def upload_version(server: Kubeflow, recipe: Recipe, pipeline: str) -> Version:
    """Compile a pipeline and have it on the server; what is there already is not uploaded again.

    Args:
        server: Where to.
        recipe: Its values become the parameters' defaults.
        pipeline: One of :data:`pipelines.compile.PIPELINES`.

    Raises:
        ClusterError: The server refuses.
    """
    with tempfile.TemporaryDirectory(prefix="pmc-submit-") as folder:
        package = compile_pipeline(recipe, Path(folder) / "pipeline.yaml", pipeline)
        documents = list(yaml.safe_load_all(package.read_text(encoding="utf-8")))
        arguments = _defaults(documents[0])
        digest = content_digest(documents)
        pipeline_id = _pipeline(server, documents[0]["pipelineInfo"])
        found = _version(server, pipeline_id, digest)
        is_new = found is None
        if found is None:
            found = _upload(server, package, pipeline_id, _name(recipe, digest), digest)
    return Version(found.display_name, pipeline_id, found.pipeline_version_id, arguments, is_new)


def content_digest(documents: list[Any]) -> str:
    """The same for the same pipeline, in whatever order KFP has written it."""
    return hashlib.sha256(json.dumps(documents, sort_keys=True).encode()).hexdigest()[:_DIGEST]


def experiment_id(server: Kubeflow, name: str) -> str:
    """The id of an experiment, which is made if there is none of that name.

    Raises:
        ClusterError: The server refuses, or the experiment is archived.
    """
    for _ in range(_TRIES):
        found = server.ask(
            "list the experiments",
            server.experiments.experiment_service_list_experiments,
            filter=equals("display_name", name),
            namespace=server.namespace or None,
        ).experiments
        if found:
            if found[0].storage_state == "ARCHIVED":
                raise ClusterError(f"The experiment {name} is archived: restore it, or choose another.")
            return str(found[0].experiment_id)
        body = kfp_server_api.V2beta1Experiment(display_name=name, namespace=server.namespace or None)
        try:
            made = server.ask(
                "create an experiment",
                server.experiments.experiment_service_create_experiment,
                experiment=body,
                once=True,
            )
        except (Conflict, Unanswered) as error:
            problem = error  # somebody, or our own lost request, made it
            continue
        return str(made.experiment_id)
    raise problem


def equals(key: str, value: str) -> str:
    """KFP's filter for an exact value."""
    return json.dumps({"predicates": [{"operation": "EQUALS", "key": key, "stringValue": value}]})


def _pipeline(server: Kubeflow, info: dict[str, str]) -> str:
    name = info["name"]
    for _ in range(_TRIES):
        found = server.ask(
            "list the pipelines",
            server.pipelines.pipeline_service_list_pipelines,
            filter=equals("display_name", name),
            namespace=server.namespace or None,
        ).pipelines
        if found:
            return str(found[0].pipeline_id)
        body = kfp_server_api.V2beta1Pipeline(
            display_name=name, description=info.get("description"), namespace=server.namespace or None
        )
        try:
            made = server.ask(
                "create a pipeline", server.pipelines.pipeline_service_create_pipeline, pipeline=body, once=True
            )
        except (Conflict, Unanswered) as error:
            problem = error
            continue
        return str(made.pipeline_id)
    if isinstance(problem, Conflict):
        raise ClusterError(
            f"There is a pipeline {name} already that you may not see: {problem} Have it deleted, or set KFP_NAMESPACE "
            "to the namespace that it is in."
        ) from problem
    raise problem


def _version(server: Kubeflow, pipeline_id: str, digest: str) -> Any:
    """The version with that content, whatever recipe and revision it was uploaded from."""
    predicate = {"operation": "IS_SUBSTRING", "key": "display_name", "stringValue": digest}
    found = server.ask(
        "list the pipeline's versions",
        server.pipelines.pipeline_service_list_pipeline_versions,
        pipeline_id,
        filter=json.dumps({"predicates": [predicate]}),
    ).pipeline_versions
    return next((each for each in found or [] if each.display_name.endswith(digest)), None)


def _upload(server: Kubeflow, package: Path, pipeline_id: str, name: str, digest: str) -> Any:
    for _ in range(_TRIES):
        try:
            return server.ask(
                "upload a version of the pipeline",
                server.uploads.upload_pipeline_version,
                str(package),
                name=name,
                pipelineid=pipeline_id,
                description=f"git revision {git_revision() or 'unknown'}, image {get_settings().image}",
                once=True,
            )
        except (Conflict, Unanswered) as error:
            problem = error
            found = _version(server, pipeline_id, digest)
            if found is not None:
                return found
    if isinstance(problem, Conflict):
        raise ClusterError(
            f"There is a version {name} already, but the server does not list it: {problem} Delete it on the page of "
            "the pipeline, and submit again."
        ) from problem
    raise problem


def _name(recipe: Recipe, digest: str) -> str:
    parts = (recipe.recipe, git_revision()[:7], digest)
    return "-".join(re.sub(r"[^a-z0-9]+", "-", part.lower()).strip("-") for part in parts if part)


def _defaults(spec: dict[str, Any]) -> dict[str, Any]:
    parameters = spec["root"]["inputDefinitions"]["parameters"]
    return {name: each["defaultValue"] for name, each in parameters.items()}
