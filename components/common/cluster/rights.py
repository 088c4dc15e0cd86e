"""Every right on a cluster that the pipeline uses: the one table behind the Roles, the preflight and the docs."""

from dataclasses import dataclass

_JOB_VERBS = ("get", "list", "watch", "create", "patch", "delete")


@dataclass(frozen=True)
class Right:
    """Verbs on a resource, as a Role's rule has them.

    Attributes:
        group: API group; empty for the core group.
        resource: In the plural, with its subresource if there is one, such as `pods/log`.
        verbs: What may be done with it.
        purpose: What for.
        namespaced: Whether a Role can grant it; otherwise it takes a ClusterRole.
    """

    group: str
    resource: str
    verbs: tuple[str, ...]
    purpose: str
    namespaced: bool = True

    @property
    def name(self) -> str:
        """Such as pytorchjobs.kubeflow.org."""
        return f"{self.resource}.{self.group}" if self.group else self.resource


# What the service account of the pipeline's steps needs in the namespace of the training job. The pods of the job need
# none at all.
STEPS = (
    Right("kubeflow.org", "pytorchjobs", _JOB_VERBS, "make, follow and end the training job; delete what a run left"),
    Right("trainer.kubeflow.org", "trainjobs", _JOB_VERBS, "the same with Trainer v2"),
    Right("", "pods", ("get", "list", "watch"), "tell what the job waits for, why it failed, why the step is stopped"),
    Right("", "pods/log", ("get",), "show the ranks' logs in the step's log"),
    Right("", "events", ("list", "watch"), "tell why a pod is not placed, or an image is not pulled"),
)

# What only lets the preflight say more: without it a finding is `unknown`, and nothing else changes. Of secrets, grant
# `get` by resourceNames or not at all.
OPTIONAL = (
    Right("", "secrets", ("get",), "see that the named secrets have the keys that the job reads"),
    Right("", "configmaps", ("get",), "see that the named config maps have the keys that the job reads"),
    Right("", "serviceaccounts", ("get",), "see that the job's service account is there"),
    Right("", "persistentvolumeclaims", ("get",), "see that the shared disks are there"),
    Right("", "resourcequotas", ("list",), "see that the job fits into the namespace's quota"),
    Right("kueue.x-k8s.io", "localqueues", ("get",), "see that the queue is there and open"),
    Right("kueue.x-k8s.io", "workloadpriorityclasses", ("get",), "see that the queue's priority is there", False),
    Right("scheduling.volcano.sh", "queues", ("get",), "see that Volcano's queue is there", False),
    Right("trainer.kubeflow.org", "clustertrainingruntimes", ("get",), "see that a TrainJob's runtime fits", False),
    Right("scheduling.k8s.io", "priorityclasses", ("get",), "see that the pods' priority class is there", False),
    Right("", "nodes", ("list",), "see that some nodes are large enough for the job's pods", False),
    Right("", "namespaces", ("get",), "see that the job's namespace is there", False),
)

_KINDS = {"pytorchjob": "pytorchjobs", "trainjob": "trainjobs"}
# A run makes jobs of one kind; the exit task looks for both, since it deletes what a label finds.
_OF_EXIT_TASK = ("list",)


def rights_of(launcher: str) -> tuple[Right, ...]:
    """What the steps of a pipeline with this launcher use.

    That is all about its own kind of job, its pods and events; of the other kind, what the exit task needs to look for
    leftovers. All launchers together use what :data:`STEPS` says.

    Args:
        launcher: `local`, `pytorchjob` or `trainjob`.
    """
    if launcher == "local":
        return ()
    others = {plural for name, plural in _KINDS.items() if name != launcher}
    return tuple(
        Right(each.group, each.resource, _OF_EXIT_TASK, "look for what a run left") if each.resource in others else each
        for each in STEPS
    )
