"""KFP interface of the run's summary, the pipeline's exit task."""

from kfp import dsl

from components.common.kfp_step import kfp_step


@kfp_step
def summarise_run(recipe: str, status: dsl.PipelineTaskFinalStatus, page: dsl.Output[dsl.HTML]):
    """Write what the run did, whether it succeeded or not, and end its MLflow run."""
    from components.common import logs
    from components.summary.summarise import summarise, to_html

    logs.configure()
    summary = summarise(recipe, status.state, status.error_message or "")
    with open(page.path, "w", encoding="utf-8") as file:
        file.write(to_html(summary))
    page.metadata.update({"state": summary["state"], "steps_executed": summary["steps_executed"]})
