"""Everything that a run needs, looked at in one go, before anything is done."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from components.common.errors import InputError
from components.preflight.checks import Check, run_all
from components.preflight.findings import Finding, failed
from components.preflight.image import look_at_steps_image, look_at_trainer_image
from components.preflight.machine import look_at_disk, look_at_memory
from components.preflight.places import look_at_articles, look_at_base_model, look_at_benchmarks
from components.preflight.settings import Situation, read_situation
from components.preflight.store import look_at_store
from components.preflight.tracking_server import look_at_mlflow

log = logging.getLogger(__name__)

_STORE_REMEDY = "Check PMC_STORE_URI, AWS_ENDPOINT_URL and what lies between here and there."
_MLFLOW_REMEDY = "Check MLFLOW_TRACKING_URI and what lies between here and there."
_PATIENT_SECONDS = 60.0  # a server that has just been started is slow at first
_CLUSTER_SECONDS = 75.0  # its checks run one stage after another


def examine(
    download: dict[str, Any],
    train: dict[str, Any],
    steps: dict[str, Any] | None = None,
    submitting: bool = False,
) -> list[Finding]:
    """Look at everything that a run with this recipe needs.

    Args:
        download: The recipe's download section as plain data.
        train: The recipe's train section as plain data.
        steps: Its section on the steps' pods; only read when submitting: a step that runs has what it names.
        submitting: Whether the steps will run in a cluster while this process does not: what only they can see is
            `unknown` then, and not `failed`.

    Returns:
        A finding for each thing, in a fixed order.
    """
    try:
        situation = read_situation(download, train, steps or {}, submitting)
    except InputError as error:
        return [failed("Recipe", str(error), "Correct it.")]
    return run_all(list(_checks(situation)))


def tell(findings: Sequence[Finding]) -> None:
    """Log what a person should know although the run goes on."""
    for each in findings:
        if each.state == "warning":
            log.warning("%s: %s %s", each.subject, each.found, each.remedy)
        elif each.state == "unknown":
            log.info("%s: %s %s", each.subject, each.found, each.remedy)
    fine = sum(each.state == "ok" for each in findings)
    log.info("%d of %d things that this run needs are as they should be.", fine, len(findings))


def _checks(situation: Situation) -> Iterator[Check]:
    def check(subject: str, look: Callable[[Situation], Iterator[Finding]], **more: Any) -> Check:
        return Check(subject, partial(look, situation), **more)

    yield check("Store", look_at_store, seconds=_PATIENT_SECONDS, remedy=_STORE_REMEDY)
    yield check("MLflow", look_at_mlflow, seconds=_PATIENT_SECONDS, remedy=_MLFLOW_REMEDY)
    yield check("Disk", look_at_disk, silent="unknown")
    yield check("Memory", look_at_memory, silent="unknown")
    yield check("Articles", look_at_articles)
    yield check("Benchmarks", look_at_benchmarks)
    yield check("Base model", look_at_base_model)
    if situation.submitting:
        yield check("Image of the steps", look_at_steps_image, silent="unknown")
    if situation.job_on_cluster:
        yield check("Image of the trainer", look_at_trainer_image, silent="unknown")
    if situation.job_on_cluster or situation.submitting:
        # A laptop's run needs no client of Kubernetes.
        from components.preflight.cluster.api import look_at_cluster

        yield check("Kubernetes API", look_at_cluster, seconds=_CLUSTER_SECONDS)
