"""KFP interface of the run's summary, the pipeline's exit task."""

from kfp import dsl

from components.common.kfp_step import kfp_step


@kfp_step
def summarise_run(
    recipe: str,
    status: dsl.PipelineTaskFinalStatus,
    page: dsl.Output[dsl.HTML],
    train: dict = {},  # noqa: B006 - KFP reads it
):
    """Write what the run did, whether it succeeded or not, end its MLflow run, and delete the jobs it has left."""
    import sys

    from components.common import logs
    from components.common.settings import get_settings
    from components.summary.clean_up import clean_up
    from components.summary.summarise import summarise, to_html

    logs.configure()
    cleaned = clean_up(get_settings().run_id, train)
    summary = summarise(recipe, status.state, status.error_message or "", cleaned)
    with open(page.path, "w", encoding="utf-8") as file:
        file.write(to_html(summary))
    page.metadata.update({"state": summary["state"], "steps_executed": summary["steps_executed"]})
    if cleaned.problem:
        sys.exit(cleaned.problem)
