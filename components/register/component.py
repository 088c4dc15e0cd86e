"""KFP interface of the register stage."""

from kfp import dsl

from components.common.kfp_step import kfp_step


@kfp_step
def register_model(
    recipe: str,
    register: dict,
    model: dsl.Input[dsl.Model],
    corpus: dsl.Input[dsl.Dataset],
    base_evaluation: dsl.Input[dsl.Dataset],
    candidate_evaluation: dsl.Input[dsl.Dataset],
    registration: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
):
    """Compare the candidate with the base (and the champion), register it, and promote it if it passes the gate."""
    import json
    from pathlib import Path

    from components.common.manifest import Manifest
    from components.common.settings import get_settings
    from components.common.step import step
    from components.register.register import register as logic
    from components.register.settings import RegisterSettings

    with step("Register the model") as current:
        settings = RegisterSettings(**register)
        current.run.log_params({"register": settings.model_dump(mode="json")})
        place, trained = get_settings(), Manifest.load(model.path)
        result = logic(
            trained,
            Manifest.load(corpus.path),
            Manifest.load(base_evaluation.path),
            Manifest.load(candidate_evaluation.path),
            settings,
            {
                "recipe": recipe,
                "pipeline_run_id": place.run_id,
                "git_revision": place.git_revision,
                "image": place.image,
                "mlflow_run_id": current.run.run_id,
            },
        )
        Path(registration.path).write_text(json.dumps(result.summary, indent=1), encoding="utf-8")
        registration.metadata.update(result.summary)
        registration.metadata.update({"aliases": result.aliases, "model_uri": trained.extra["model_uri"]})
        Path(report.path).write_text(result.html, encoding="utf-8")
        current.run.log_page(report.path, "report.html")
        current.report({"gate_passed": int(result.verdict.passed), "version": int(result.version)})
