"""Write the summary of a pipeline run: its outcome, the steps that ran, their numbers, and the cause of a failure."""

import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.common import storage, tracking
from components.common.settings import get_settings
from components.common.step import records_of_run
from components.summary.clean_up import CleanUp


def summarise(recipe: str, state: str, error: str, cleaned: CleanUp) -> dict[str, Any]:
    """Collect what the steps recorded and end the run in MLflow.

    Args:
        recipe: The recipe's name.
        state: KFP's final state of the pipeline, such as ``SUCCEEDED``.
        error: KFP's error message; often empty, since the cause is in the step's own record.
        cleaned: What became of the run's training jobs.

    Returns:
        The summary, which is also stored as ``runs/<run id>/summary.json``.
    """
    records = records_of_run()
    failed = state != "SUCCEEDED"
    causes = [f"{r['step']}: {_cause(r)}" for r in records if r["status"] != "SUCCEEDED"]
    summary = {
        "run_id": get_settings().run_id,
        "recipe": recipe,
        "state": state,
        "cause": "; ".join(causes) or (error if failed else ""),
        "steps_executed": len(records),
        "seconds_in_steps": round(sum(r["seconds"] for r in records), 1),
        "deleted_jobs": list(cleaned.deleted),
        "clean_up_problem": cleaned.problem,
        "steps": records,
    }
    if get_settings().run_id:
        uri = storage.join(storage.to_uri(get_settings().store_uri), "runs", get_settings().run_id, "summary.json")
        storage.write(uri, json.dumps(summary, indent=1).encode())
    summary["mlflow_run"] = _end_mlflow_run(summary, failed)
    return summary


def to_html(summary: dict[str, Any]) -> str:
    """Return the summary as a self-contained page for the Kubeflow UI; every text is escaped."""
    templates = FileSystemLoader(Path(__file__).parent / "templates")
    environment = Environment(loader=templates, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    return environment.get_template("summary.html.j2").render(summary)


def _cause(record: dict[str, Any]) -> str:
    return record.get("error") or "the step was killed or is still running"


def _end_mlflow_run(summary: dict[str, Any], failed: bool) -> str:
    tags = {
        "pipeline.recipe": summary["recipe"],
        "pipeline.state": summary["state"],
        "pipeline.cause": summary["cause"][:5000],
        "pipeline.git_revision": get_settings().git_revision,
        "pipeline.image": get_settings().image,
    }
    numbers = {"steps_executed": summary["steps_executed"], "seconds_in_steps": summary["seconds_in_steps"]}
    for record in summary["steps"]:
        if "(" not in record["step"]:  # a shard's numbers are summed up by the step that follows
            numbers |= {f"{record['step']}/{key}": value for key, value in record.get("numbers", {}).items()}
    return tracking.finish_pipeline_run(failed, tags, numbers)
