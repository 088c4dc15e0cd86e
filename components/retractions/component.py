"""KFP interface of the retraction watch."""

from kfp import dsl

from components.common.kfp_step import kfp_step


@kfp_step
def watch_retractions(
    model: str, pmc: dict, transport: dict, report: dsl.Output[dsl.HTML], metrics: dsl.Output[dsl.Metrics]
):
    """Report which articles that a registered model was trained on have been retracted or withdrawn since."""
    import json
    from pathlib import Path

    from components.common.pmc.settings import PmcSettings, TransportSettings
    from components.common.step import step
    from components.retractions.report import render
    from components.retractions.watch import watch_model as logic

    with step("Look for retractions") as current:
        settings = PmcSettings(**pmc)
        current.run.log_params({"model": model, "pmc": settings.model_dump(mode="json")})
        found = logic(model, settings, TransportSettings(**transport))
        Path(report.path).write_text(render(found), encoding="utf-8")
        current.run.log_page(report.path, "retractions.html")
        report.metadata.update({"model": found.model, "version": found.version, "inventory": found.inventory})
        # A metrics artifact without a file counts as missing.
        Path(metrics.path).write_text(json.dumps(found.numbers()), encoding="utf-8")
        for key, value in found.numbers().items():
            metrics.log_metric(key, value)
        current.report(found.numbers())
