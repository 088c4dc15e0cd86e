"""MLflow: one parent run per pipeline run, one nested run per step.

Where KFP's MLflow plugin injects ``MLFLOW_RUN_ID``, that run is the step's own. Elsewhere the parent is found (or made)
by the tag ``pipeline.run_id`` and the step's run by ``pipeline.step``, so that retries and parallel steps share one
tree. Without a tracking address nothing is tracked and the work goes on.
"""

import contextlib
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.common.errors import PipelineError
from components.common.logs import without_credentials
from components.common.manifest import Manifest
from components.common.settings import get_settings

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)

TAG_RUN_ID = "pipeline.run_id"
TAG_STEP = "pipeline.step"
STEP_RUN_VARIABLE = "PMC_STEP_RUN_ID"
_RETRIES_VARIABLE = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_PARAMS_PER_CALL = 90
_METRICS_PER_CALL = 900


class Run:
    """An MLflow run of one step; without a client it swallows nothing and records nothing."""

    def __init__(self, client: "MlflowClient | None", run_id: str) -> None:
        """Bind a run to a client; both empty when nothing is tracked."""
        self.client = client
        self.run_id = run_id

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Record numbers at a step of training (0 for those that are no series)."""
        self.log_metric_points([(step, metrics)])

    def log_metric_points(self, points: list[tuple[int, Mapping[str, float]]]) -> None:
        """Record many (step, metrics) at once: one request for hundreds of numbers."""
        if self.client is None:
            return
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        batch: list[Metric] = []
        for step, metrics in points:
            # A step's numbers travel together: whoever finds one of them at a step finds all.
            if batch and len(batch) + len(metrics) > _METRICS_PER_CALL:
                self.client.log_batch(self.run_id, metrics=batch)
                batch = []
            batch += [Metric(key, float(value), now, step) for key, value in metrics.items()]
        if batch:
            self.client.log_batch(self.run_id, metrics=batch)

    def last_step(self, name: str) -> int:
        """The last step at which the run has a metric of this name; -1 when it has none or nothing is tracked."""
        if self.client is None:
            return -1
        # The run itself carries only the newest value of each metric, in one request, however long the series is.
        newest = self.client.get_run(self.run_id).data.to_proto().metrics
        return max((int(metric.step) for metric in newest if metric.key == name), default=-1)

    def log_params(self, params: Mapping[str, Any]) -> None:
        """Record settings; nested ones as ``section.field``."""
        if self.client is None:
            return
        from mlflow.entities import Param

        flat = [Param(key, str(value)[:5000]) for key, value in _flatten(params).items()]
        for start in range(0, len(flat), _PARAMS_PER_CALL):
            self.client.log_batch(self.run_id, params=flat[start : start + _PARAMS_PER_CALL])

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Set tags on the run."""
        for key, value in tags.items():
            if self.client is not None:
                self.client.set_tag(self.run_id, key, value)

    def log_artifact(self, path: str | Path, folder: str | None = None) -> None:
        """Keep a small file (a report, a manifest) with the run."""
        if self.client is not None:
            self.client.log_artifact(self.run_id, str(path), folder)

    def log_page(self, path: str | Path, name: str) -> None:
        """Keep an HTML page (a report, a data card) with the run, under a name that browsers take for one."""
        self.log_text(Path(path).read_text(encoding="utf-8"), name)

    def log_text(self, text: str, name: str) -> None:
        """Keep a text (JSON, Markdown) with the run as a file of that name."""
        if self.client is not None:
            self.client.log_text(self.run_id, text, name)

    def log_dataset(self, manifest: Manifest, context: str) -> None:
        """Record a manifest as a data set that the run used.

        Args:
            manifest: What was used; its fingerprint is the data set's digest.
            context: What for, such as ``training``.
        """
        if self.client is None:
            return
        from mlflow.data.dataset_source_registry import resolve_dataset_source
        from mlflow.entities import Dataset, DatasetInput, InputTag

        source = resolve_dataset_source(manifest.shards[0].uri if manifest.shards else manifest.fingerprint)
        dataset = Dataset(
            name=f"{manifest.kind}-{manifest.fingerprint}",
            digest=manifest.fingerprint,
            source_type=source._get_source_type(),
            source=source.to_json(),
            profile=json.dumps(manifest.totals),
        )
        self.client.log_inputs(
            self.run_id, datasets=[DatasetInput(dataset, [InputTag("mlflow.data.context", context)])]
        )


@contextlib.contextmanager
def step(name: str) -> Iterator[Run]:
    """Open the nested run of a step; it ends as FINISHED or, when the body raises, as FAILED.

    Args:
        name: The step's display name; a retried step goes on in the same run.

    Raises:
        PipelineError: The tracking server does not answer.
    """
    if not get_settings().tracking_uri:
        yield Run(None, "")
        return
    client = _client()
    injected = os.environ.get("MLFLOW_RUN_ID", "")
    run_id = injected or _get_or_create(client, name, parent=pipeline_run(client))
    os.environ[STEP_RUN_VARIABLE] = run_id
    try:
        yield Run(client, run_id)
    except BaseException:
        client.set_terminated(run_id, "FAILED")
        raise
    else:
        client.set_terminated(run_id, "FINISHED")
    finally:
        os.environ.pop(STEP_RUN_VARIABLE, None)


@contextlib.contextmanager
def worker_run(system_metrics: bool = True) -> Iterator[Run]:
    """Give a worker process the run of the step that launched it, with CPU, memory, disk and GPU metrics.

    The run's id comes from ``PMC_STEP_RUN_ID`` (or ``MLFLOW_RUN_ID``); without one nothing is tracked.
    """
    run_id = os.environ.get(STEP_RUN_VARIABLE) or os.environ.get("MLFLOW_RUN_ID", "")
    if not run_id or not get_settings().tracking_uri:
        yield Run(None, "")
        return
    client = _client()
    with _system_metrics(run_id) if system_metrics else contextlib.nullcontext():
        yield Run(client, run_id)


@contextlib.contextmanager
def _system_metrics(run_id: str) -> Iterator[None]:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

    uri = get_settings().tracking_uri
    monitor = SystemMetricsMonitor(
        run_id, sampling_interval=5, samples_before_logging=2, resume_logging=True, tracking_uri=uri
    )
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
        # What was sampled since the last publication, which is all there is of a short run.
        monitor.publish_metrics(monitor.aggregate_metrics())
        monitor.mlflow_logger.flush()


def pipeline_run(client: "MlflowClient | None" = None) -> str:
    """Return the id of the pipeline run's parent run, made on first use."""
    client = client or _client()
    settings = get_settings()
    name = settings.run_name or settings.run_id or "pipeline"
    return _get_or_create(client, name, parent="")


def finish_pipeline_run(failed: bool, tags: Mapping[str, str], metrics: Mapping[str, float]) -> str:
    """End the parent run with its outcome; returns its id, or an empty string when nothing is tracked."""
    if not get_settings().tracking_uri:
        return ""
    client = _client()
    run = Run(client, pipeline_run(client))
    run.set_tags(tags)
    run.log_metrics(metrics)
    client.set_terminated(run.run_id, "FAILED" if failed else "FINISHED")
    return run.run_id


def close_killed_run(run_id: str) -> None:
    """Mark what a killed pipeline run left open; MLflow would show it as running for ever."""
    if not get_settings().tracking_uri:
        return
    client = _client()
    for each in _find(client, _experiment_id(client), {TAG_RUN_ID: run_id}):
        if client.get_run(each).info.status == "RUNNING":
            client.set_terminated(each, "KILLED")


def initialise() -> None:
    """Make the experiment (and a local database) before parallel steps race for it.

    Raises:
        PipelineError: The tracking server does not answer.
    """
    if not get_settings().tracking_uri:
        return
    # A step may wait out a restart of the server; a run that has not begun should say at once that it is not there.
    patience = os.environ.get(_RETRIES_VARIABLE)
    os.environ[_RETRIES_VARIABLE] = "1"
    try:
        _experiment_id(_client())
    finally:
        os.environ.pop(_RETRIES_VARIABLE) if patience is None else os.environ.update({_RETRIES_VARIABLE: patience})


def _client() -> "MlflowClient":
    from mlflow import MlflowClient

    _require_sqlite_folder(get_settings().tracking_uri)

    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    return MlflowClient(tracking_uri=get_settings().tracking_uri)


def _require_sqlite_folder(tracking_uri: str) -> None:
    """Fail at once where MLflow would retry for minutes: SQLite cannot make its file in a missing folder."""
    if not tracking_uri.startswith("sqlite:///"):
        return
    folder = Path(tracking_uri.removeprefix("sqlite:///")).parent
    if not folder.is_dir() or not os.access(folder, os.W_OK):
        raise PipelineError(
            f"{folder} is no writable folder for MLflow's database; make it or set MLFLOW_TRACKING_URI."
        )


def _experiment_id(client: "MlflowClient") -> str:
    from mlflow.exceptions import MlflowException

    settings = get_settings()
    try:
        experiment = client.get_experiment_by_name(settings.experiment)
        if experiment is None:
            return str(client.create_experiment(settings.experiment))
    except MlflowException as error:
        # A parallel step may have made it between our two calls.
        experiment = client.get_experiment_by_name(settings.experiment) if "already exists" in str(error) else None
        if experiment is None:
            address, problem = without_credentials(get_settings().tracking_uri), without_credentials(str(error))
            raise PipelineError(
                f"MLflow at {address} does not answer as it should ({problem[:300]}); "
                "start it, or correct MLFLOW_TRACKING_URI."
            ) from error
    if experiment.lifecycle_stage == "deleted":
        raise PipelineError(f"The MLflow experiment {settings.experiment!r} is deleted; restore it or choose another.")
    return str(experiment.experiment_id)


def _get_or_create(client: "MlflowClient", name: str, parent: str) -> str:
    """Find a run by its tags or make it; of two that were made at once the older one stays."""
    experiment = _experiment_id(client)
    tags = {TAG_RUN_ID: get_settings().run_id or "local", TAG_STEP: name if parent else ""}
    found = _find(client, experiment, tags)
    if not found:
        extra = {"mlflow.parentRunId": parent} if parent else {}
        created = client.create_run(experiment, tags={**tags, **extra}, run_name=name).info.run_id
        found = _find(client, experiment, tags) or [created]
        if found[0] != created:
            client.delete_run(created)
    elif parent:
        client.update_run(found[0], status="RUNNING")
    return found[0]


def _find(client: "MlflowClient", experiment: str, tags: Mapping[str, str]) -> list[str]:
    query = " and ".join(f"tags.`{key}` = '{value}'" for key, value in tags.items())
    runs = client.search_runs([experiment], query, order_by=["attributes.start_time ASC", "attributes.run_id ASC"])
    return [run.info.run_id for run in runs]


def _flatten(params: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in params.items():
        # Keys that are data, such as addresses and labels, are no names that MLflow takes.
        if isinstance(value, Mapping) and value and all(name.isidentifier() for name in value):
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat
