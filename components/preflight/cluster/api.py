"""The cluster as a whole: it answers, it has the operator, and we have the rights that the steps use."""

import os
from collections.abc import Iterator
from functools import partial

from components.common.cluster.connection import PYTORCHJOBS, TRAINJOBS, Cluster, Kind, NotAllowed, cause, connect
from components.common.cluster.rights import Right, rights_of
from components.common.errors import ClusterError
from components.preflight.checks import Check, run_all
from components.preflight.cluster.capacity import look_at_nodes, look_at_quota
from components.preflight.cluster.objects import look_at_objects, look_at_objects_of_steps
from components.preflight.cluster.queues import look_at_queues, look_at_runtime
from components.preflight.findings import Finding, failed, ok, unknown
from components.preflight.settings import Situation, in_cluster

SUBJECT = "Kubernetes API"
_PATIENCE_MINUTES = 0.1
_SECONDS = 30
_NAMESPACES = Kind("Namespace", "namespaces", namespaced=False)
_KINDS = {"pytorchjob": PYTORCHJOBS, "trainjob": TRAINJOBS}
_OPERATORS = {
    "pytorchjob": "the Kubeflow Training Operator 1.9 (https://www.kubeflow.org/docs/components/trainer/legacy-v1/)",
    "trainjob": "Kubeflow Trainer 2 (https://www.kubeflow.org/docs/components/trainer/)",
}


def look_at_cluster(situation: Situation) -> Iterator[Finding]:
    """Say whether the training job can be made, followed and deleted, and whether its pods will start."""
    try:
        cluster = connect(_namespace(situation), _PATIENCE_MINUTES)
        reached = _answer(cluster)
    except ClusterError as error:
        yield _away(error, situation)
        return
    yield reached
    if reached.state != "failed":
        yield from run_all(list(_checks(cluster, situation)))


def _checks(cluster: Cluster, situation: Situation) -> Iterator[Check]:
    if situation.submitting:
        yield Check("Objects that the steps name", partial(look_at_objects_of_steps, cluster, situation), _SECONDS)
    if not situation.job_on_cluster:
        return
    yield Check("Operator", partial(_operator, cluster, situation), _SECONDS)
    for right in rights_of(situation.train.launcher):
        look = partial(_rights, cluster, right, situation)
        yield Check(f"Rights on {right.name}", look, _SECONDS)
    yield Check("Objects that the job names", partial(look_at_objects, cluster, situation), _SECONDS)
    yield Check("Queue", partial(look_at_queues, cluster, situation), _SECONDS)
    yield Check("Runtime", partial(look_at_runtime, cluster, situation), _SECONDS)
    yield Check("Quota", partial(look_at_quota, cluster, situation), _SECONDS, silent="unknown")
    yield Check("Nodes", partial(look_at_nodes, cluster, situation), _SECONDS, silent="unknown")


def _namespace(situation: Situation) -> str | None:
    """Of the job: its own setting, or that of the steps, which is ours once we are one of them."""
    return situation.train.cluster.namespace or (os.environ.get("KFP_NAMESPACE") if situation.submitting else None)


def _away(error: ClusterError, situation: Situation) -> Finding:
    said = f"{cause(error.__cause__ or error).strip().rstrip('.')}."
    if situation.submitting and not in_cluster():
        return unknown(SUBJECT, f"It cannot be asked from here: {said}", "The pipeline's first step asks it.")
    remedy = "Run the step in the cluster, or see that kubectl works here and KUBECONFIG is right."
    return failed(SUBJECT, f"It cannot be asked: {said}", remedy)


def _answer(cluster: Cluster) -> Finding:
    version, user = cluster.server_version(), cluster.who_am_i()
    try:
        missing = cluster.get(_NAMESPACES, cluster.namespace) is None
    except NotAllowed:
        missing = False  # the other findings will tell
    if missing:
        return failed(
            SUBJECT,
            f"There is no namespace {cluster.namespace}.",
            "Correct train.cluster.namespace, or make a Kubeflow profile of that name.",
        )
    who = f", as {user}" if user else ""
    return ok(SUBJECT, f"Kubernetes {version} answers{who}; the job's namespace is {cluster.namespace}.")


def _operator(cluster: Cluster, situation: Situation) -> Iterator[Finding]:
    launcher = situation.train.launcher
    kind, operator = _KINDS[launcher], _OPERATORS[launcher]
    subject = f"{kind.name} ({kind.group})"
    versions = cluster.versions(kind.group)
    if kind.version in versions and cluster.serves(kind):
        yield ok(subject, f"The cluster serves {kind.group}/{kind.version}.")
        return
    others = [each for each in versions if each != kind.version and cluster.serves(_in_version(kind, each))]
    if others:
        yield failed(
            subject,
            f"The cluster serves it in {', '.join(others)}, and this pipeline speaks {kind.version}.",
            f"Install a version of the operator that serves {kind.version}: {operator}.",
        )
        return
    installed = [name for name, each in _KINDS.items() if name != launcher and cluster.serves(each)]
    choice = f", or set train.launcher to {installed[0]}, which the cluster has" if installed else ""
    yield failed(
        subject, f"The cluster has no such kind: {launcher} needs its operator.", f"Install {operator}{choice}."
    )


def _in_version(kind: Kind, version: str) -> Kind:
    return Kind(kind.name, kind.plural, kind.group, version)


def _rights(cluster: Cluster, right: Right, situation: Situation) -> Iterator[Finding]:
    """One finding per resource: who lacks one verb mostly lacks the others too."""
    subject = f"Rights on {right.name}"
    denied = [verb for verb in right.verbs if not cluster.can_i(verb, right.group, right.resource)]
    if not denied:
        yield ok(subject, f"{', '.join(right.verbs)} in namespace {cluster.namespace}.")
        return
    verbs = ", ".join(denied)
    rule = f'apiGroups: ["{right.group}"], resources: ["{right.resource}"], verbs: [{verbs}]'
    if situation.submitting and not in_cluster():
        yield unknown(
            subject,
            f"You yourself may not {verbs} them in namespace {cluster.namespace}; the steps are somebody else.",
            "The pipeline's first step asks for its own rights; by hand: kubectl auth can-i "
            f"{denied[0]} {right.name} -n {cluster.namespace} --as=system:serviceaccount:NAMESPACE:ACCOUNT",
        )
        return
    yield failed(
        subject,
        f"{verbs} is not allowed in namespace {cluster.namespace}, and is needed to {right.purpose}.",
        f"Give the steps' service account a Role there with {rule} (k8s/ has one).",
    )
