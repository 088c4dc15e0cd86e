"""KFP interface of the preflight, the pipeline's first step."""

from kfp import dsl

from components.common.kfp_step import kfp_step


@kfp_step
def run_preflight(recipe: str, download: dict, train: dict, page: dsl.Output[dsl.HTML]):
    """Look whether everything that the run needs is there; fails with all that is missing, and what to do about it."""
    from components.common import logs
    from components.common.step import step
    from components.preflight.findings import counted, require
    from components.preflight.page import to_html
    from components.preflight.preflight import examine, tell

    logs.configure()
    # Before the step's frame, which needs the store and MLflow itself.
    findings = examine(download, train)
    with open(page.path, "w", encoding="utf-8") as file:
        file.write(to_html(recipe, findings))
    page.metadata.update(counted(findings))
    tracked = not any(each.subject == "MLflow" and each.state == "failed" for each in findings)
    with step("Look whether all is there", tracked=tracked) as current:
        current.report(counted(findings))
        tell(findings)
        require(findings)
