"""Run a pipeline on Kubeflow: look whether all is there, upload, start exactly one run, follow it."""

import secrets
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import kfp_server_api

from components.common.errors import ClusterError, InputError
from components.common.settings import get_settings
from components.preflight.findings import Finding
from pipelines.kubeflow import Kubeflow, Unanswered
from pipelines.recipe import Recipe
from pipelines.upload import Version, equals, experiment_id, upload_version

SUCCEEDED = "SUCCEEDED"
_ENDED_BADLY = {"FAILED", "CANCELED"}
_ENDED = {SUCCEEDED, "SKIPPED"} | _ENDED_BADLY
_STOPPING = _ENDED_BADLY | {"CANCELING"}
_OUR_OWN_TASKS = ("-driver",)  # how KFP calls what is none of the pipeline's steps
_TRIES = 4


@dataclass(frozen=True)
class Order:
    """What is asked for.

    Attributes:
        pipeline: One of :data:`pipelines.compile.PIPELINES`.
        experiment: Of the run; empty: the pipeline's name.
        run_name: Of the run; empty: the recipe's name and the time.
    """

    pipeline: str = "pmc-llama"
    experiment: str = ""
    run_name: str = ""


@dataclass(frozen=True)
class Submitted:
    """A run on the server.

    Attributes:
        name: As the pages show it.
        run_id: KFP's id.
        version: Of the pipeline.
        is_new: Whether it was started just now; otherwise the same run was there already.
        address: Of its page.
    """

    name: str
    run_id: str
    version: Version
    is_new: bool
    address: str


def require_fit(findings: list[Finding]) -> None:
    """Refuse to submit what cannot succeed.

    Raises:
        InputError: A finding of the preflight is `failed`.
    """
    failed = [f"{each.subject}: {each.found} {each.remedy}".strip() for each in findings if each.state == "failed"]
    if failed:
        raise InputError(
            f"Nothing was submitted, since the run would fail: {' '.join(failed)} Submit it all the same with --force."
        )


def submit(server: Kubeflow, recipe: Recipe, order: Order) -> Submitted:
    """Start a run of a recipe, once.

    A name that is given makes it repeatable: if a run of that name with the same pipeline and parameters is going on or
    has succeeded, it is taken and none is started.

    Args:
        server: Where to.
        recipe: What to run.
        order: How to call it.

    Raises:
        InputError: There is another run of that name.
        ClusterError: The server refuses.
    """
    version = upload_version(server, recipe, order.pipeline)
    experiment = experiment_id(server, order.experiment or order.pipeline)
    name = order.run_name or f"{recipe.recipe}-{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    body = _run(recipe, version, experiment, name)
    run = _same(server, body) if order.run_name else None
    is_new = run is None
    if run is None:
        run = _create(server, body)
    address = server.page("runs", "details", run.run_id)
    return Submitted(name, run.run_id, version, is_new, address)


def follow(server: Kubeflow, run_id: str, tell: Callable[[str], None], pause: float = 10) -> str:
    """Wait for the end of a run and tell how its steps go on.

    Args:
        server: Where it is.
        run_id: Of the run.
        tell: Gets a line whenever something has changed.
        pause: Seconds between two looks.

    Returns:
        The state in which it ended, such as ``SUCCEEDED``.

    Raises:
        ClusterError: The server does not answer any more, or the run was deleted.
    """
    told: dict[str, str] = {}
    while True:
        run = server.ask("look at the run", server.runs.run_service_get_run, run_id)
        for name, progress in {**_progress(run), "Run": str(run.state)}.items():
            if told.get(name) != progress:
                tell(f"{name}: {progress}")
                told[name] = progress
        if run.state in _ENDED:
            return str(run.state)
        time.sleep(pause)


def created_once(server: Kubeflow, create: Callable[[], Any], find: Callable[[], Any]) -> Any:
    """Make something that a second request would make twice.

    Args:
        server: How long it is waited for.
        create: The request.
        find: What an earlier request has made, if it has.

    Raises:
        Unanswered: Nobody knows whether it was made.
    """
    for tried in range(_TRIES):
        try:
            return create()
        except Unanswered as error:
            problem = error
        # The request may still be at work: look more than once, and only then ask again.
        for wait in (0.5, 1.0, 2.0):
            time.sleep(min(wait * (tried + 1), server.patience / 10))
            found = find()
            if found is not None:
                return found
    raise problem


def _run(recipe: Recipe, version: Version, experiment: str, name: str) -> kfp_server_api.V2beta1Run:
    return kfp_server_api.V2beta1Run(
        experiment_id=experiment,
        display_name=name,
        description=description(recipe, version),
        pipeline_version_reference=version.reference,
        runtime_config=kfp_server_api.V2beta1RuntimeConfig(parameters=version.arguments),
        service_account=recipe.steps.service_account,
        plugins_input=plugins(),
    )


def description(recipe: Recipe, version: Version) -> str:
    """Of a run or a schedule; the last word is its own, so that a request whose answer was lost can be found again."""
    return f"Recipe {recipe.recipe}, version {version.name}, submission {secrets.token_hex(8)}"


def plugins() -> dict[str, Any] | None:
    """What KFP's MLflow plugin is told, where the server has it: the experiment that the environment names."""
    settings = get_settings()
    named = "experiment" in settings.model_fields_set
    return {"mlflow": {"experiment_name": settings.experiment}} if named else None


def _create(server: Kubeflow, body: kfp_server_api.V2beta1Run) -> Any:
    def find() -> Any:
        return next((each for each in _called(server, body) if each.description == body.description), None)

    def create() -> Any:
        return server.ask("create the run", server.runs.run_service_create_run, run=body, once=True)

    return created_once(server, create, find)


def _same(server: Kubeflow, body: kfp_server_api.V2beta1Run) -> Any:
    """A run of the name that does, or has done, the very same."""
    for run in _called(server, body):
        reference = run.pipeline_version_reference
        version = reference.pipeline_version_id if reference else ""
        parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
        same = version == body.pipeline_version_reference.pipeline_version_id
        if same and parameters == body.runtime_config.parameters and run.state not in _STOPPING:
            return run
        if run.state not in _ENDED:
            raise InputError(
                f"A run named {body.display_name} is going on already, with another version or other parameters: "
                f"choose another name, or end it first ({server.page('runs', 'details', run.run_id)})."
            )
    return None


def _called(server: Kubeflow, body: kfp_server_api.V2beta1Run) -> list[Any]:
    return list(
        server.ask(
            "list the runs",
            server.runs.run_service_list_runs,
            experiment_id=body.experiment_id,
            filter=equals("display_name", body.display_name),
            sort_by="created_at desc",
            page_size=50,
        ).runs
        or []
    )


def _progress(run: Any) -> dict[str, str]:
    """How many tasks of each name are in which state."""
    tasks = (run.run_details.task_details if run.run_details else None) or []
    states: dict[str, Counter[str]] = {}
    for task in tasks:
        if " " in (task.display_name or "") and not task.display_name.endswith(_OUR_OWN_TASKS):
            states.setdefault(task.display_name, Counter())[str(task.state)] += 1
    return {name: _counted(counts) for name, counts in states.items()}


def _counted(states: Counter[str]) -> str:
    if sum(states.values()) == 1:
        return next(iter(states)).lower()
    return ", ".join(f"{count} {state.lower()}" for state, count in sorted(states.items()))


def failure(server: Kubeflow, run_id: str, state: str) -> ClusterError:
    """Why a run ended as it did, as one sentence."""
    run = server.ask("look at the run", server.runs.run_service_get_run, run_id)
    tasks = (run.run_details.task_details if run.run_details else None) or []
    failed = sorted({t.display_name for t in tasks if t.state == "FAILED" and " " in (t.display_name or "")})
    cause = f": {', '.join(failed)}" if failed else ""
    message = f" ({run.error.message})" if run.error and run.error.message else ""
    return ClusterError(f"The run ended as {state}{cause}{message}; see {server.page('runs', 'details', run_id)}.")
