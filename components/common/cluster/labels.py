"""What tells the objects of a pipeline run from all others on a cluster."""

import re

from components.common.errors import InputError

MANAGER_LABEL = "app.kubernetes.io/managed-by"
MANAGER = "pmc-llama-pipeline"
RUN_LABEL = "pmc-llama/run"
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def checked_run_id(run_id: str) -> str:
    """The id, if a label can hold it.

    Raises:
        InputError: It cannot.
    """
    if not _LABEL_VALUE.fullmatch(run_id):
        raise InputError(
            f"A job on a cluster is known by its pipeline run, but the run's id is {run_id!r}; set PMC_RUN_ID to up to "
            "63 letters, digits and -_. (Kubeflow sets KFP_RUN_ID)."
        )
    return run_id


def run_selector(run_id: str) -> str:
    """Label selector of everything that a pipeline run made."""
    return f"{MANAGER_LABEL}={MANAGER},{RUN_LABEL}={checked_run_id(run_id)}"
