"""Settings of the training job on a cluster: the `cluster` part of a training section of a recipe."""

import re
from decimal import Decimal
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from components.common.section import Section

_FACTORS = {"": 1, "m": Decimal("0.001"), **{unit: 1000**n for n, unit in enumerate("kMGTP", start=1)}}
_FACTORS |= {f"{unit}i": 1024**n for n, unit in enumerate("KMGTP", start=1)}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(m|[kMGTP]|[KMGTP]i)?")
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"SECRET|PASSWORD|TOKEN|CREDENTIAL|ACCESS_KEY|API_KEY", re.IGNORECASE)
# What the launcher, the operators and torchrun set themselves.
_RESERVED = re.compile(r"PET_.*|(MASTER|WORLD|LOCAL)_.*|(GROUP_)?RANK|TRAIN_.*|HOME|TMPDIR")


def quantity(value: str) -> Decimal:
    """The number that a Kubernetes quantity such as `1.5Gi` or `500m` stands for.

    Raises:
        ValueError: It is none.
    """
    match = _QUANTITY.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is no quantity of Kubernetes; write a number, with a unit as in 64, 500m or 512Gi")
    return Decimal(match[1]) * _FACTORS[match[2] or ""]


def as_text(value: Any) -> Any:
    """Write a plain number as Kubernetes does: YAML makes one of 32, and KFP makes 32.0 of that."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return value
    return str(int(value)) if float(value).is_integer() else str(value)


def _checked_quantity(value: str) -> str:
    quantity(value)
    return value


def _checked_name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(f"{value!r} is no name of a Kubernetes object; use lower-case letters, digits and -")
    return value


def _checked_variable(value: str) -> str:
    if not _VARIABLE.fullmatch(value):
        raise ValueError(f"{value!r} is no name of an environment variable")
    return value


def _checked_mount(value: str) -> str:
    if not PurePosixPath(value).is_absolute() or ".." in PurePosixPath(value).parts:
        raise ValueError(f"{value!r} is no absolute path")
    return value


Quantity = Annotated[str, BeforeValidator(as_text), AfterValidator(_checked_quantity)]
Name = Annotated[str, AfterValidator(_checked_name)]
Variable = Annotated[str, AfterValidator(_checked_variable)]
Mount = Annotated[str, AfterValidator(_checked_mount)]


class Toleration(Section):
    """A taint that the training pods may be placed on."""

    key: str | None = Field(None, description="Of the taint; none with Exists means every taint.")
    operator: Literal["Exists", "Equal"] = Field("Exists", description="Whether the value must be equal.")
    value: str | None = Field(None, description="Of the taint, for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        None, description="none: all effects."
    )
    toleration_seconds: int | None = Field(None, ge=0, description="For NoExecute: how long; none for ever.")

    @model_validator(mode="after")
    def _fits_its_operator(self) -> "Toleration":
        if self.operator == "Exists" and self.value is not None:
            raise ValueError(f"toleration of {self.key}: operator Exists takes no value, but {self.value!r} is given")
        if self.operator == "Equal" and not self.key:
            raise ValueError("a toleration with operator Equal needs a key")
        return self


class ClusterSettings(Section):
    """Where and how the training job runs on Kubernetes; the defaults are one node of 8 A100 80GB."""

    namespace: Name | None = Field(None, description="Of the job; none: the step's own.")
    image: str | None = Field(None, min_length=1, description="The trainer's; none: the image in PMC_TRAINER_IMAGE.")
    image_pull_secrets: list[Name] = Field(default_factory=list, description="Secrets of the image's registry.")
    nodes: int = Field(1, ge=1, le=512, description="Pods of processes_per_node workers each.")

    gpu_resource: str | None = Field(
        "nvidia.com/gpu", description="What a GPU is called; one is asked for per process. none: none is."
    )
    extra_resources: dict[str, Quantity] = Field(
        default_factory=dict,
        description="More of a node for each pod, such as rdma/hca: 1 or vpc.amazonaws.com/efa: 4.",
    )
    cpu: Quantity = Field("64", description="CPU cores of a pod.")
    memory: Quantity = Field("512Gi", description="Memory of a pod; its shared memory counts towards it.")
    shared_memory: Quantity = Field("64Gi", description="Size of /dev/shm, through which NCCL talks within a node.")
    scratch: Quantity = Field("500Gi", description="The node's disk for copies of the base model and the corpus.")

    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels that the nodes must have.")
    tolerations: list[Toleration] = Field(
        default_factory=lambda: [Toleration.model_validate({"key": "nvidia.com/gpu", "effect": "NoSchedule"})],
        description="Taints that do not keep the pods away.",
    )
    priority_class: Name | None = Field(None, description="Of the pods; PyTorchJob only.")
    queue: Name | None = Field(None, description="Kueue's LocalQueue; none: the job is not queued.")
    queue_priority: Name | None = Field(None, description="Kueue's WorkloadPriorityClass.")
    volcano_queue: Name | None = Field(
        None, description="Volcano's queue, all pods of the job at once or none; PyTorchJob only."
    )

    service_account: Name | None = Field(
        None, description="The pods' identity towards the cloud (IRSA, Workload Identity); it needs no rights here."
    )
    secrets: dict[Name, list[Variable]] = Field(
        default_factory=dict,
        description="Environment variables from secrets: name of a secret to the keys taken from it.",
    )
    config_maps: dict[Name, list[Variable]] = Field(
        default_factory=dict, description="Environment variables from config maps: name of one to the keys taken."
    )
    environment: dict[Variable, str] = Field(
        default_factory=lambda: {"NCCL_DEBUG": "WARN"}, description="More environment variables: NCCL_*, FI_*."
    )
    volume_claims: dict[Name, Mount] = Field(
        default_factory=dict, description="Shared disks: name of a claim to the path where it is mounted."
    )

    user: int = Field(1000, ge=1, description="User and group id of the processes; never root.")
    read_only_root: bool = Field(True, description="Only the scratch disk, /tmp and shared memory can be written.")
    pod_labels: dict[str, str] = Field(default_factory=dict, description="More labels of the pods.")
    pod_annotations: dict[str, str] = Field(
        # A sidecar of the service mesh never ends, and so no job of its pods would.
        default_factory=lambda: {"sidecar.istio.io/inject": "false"},
        description="Annotations of the pods.",
    )

    restarts: int = Field(3, ge=0, description="Times that each pod's worker is started again after a crash.")
    deadline_hours: float = Field(
        336,
        gt=0,
        description="Hours after which the cluster ends the job whatever it does: the backstop against leaks.",
    )
    keep_hours: float = Field(24, ge=0, description="Hours after which a finished job is deleted; PyTorchJob only.")
    wait_minutes: float | None = Field(
        720, gt=0, description="How long pods may be without a node before the step gives up; a queue's wait is free."
    )
    broken_minutes: float = Field(
        15,
        ge=0,
        description="How long a pod may fail to start (no such image, no such secret) before the step gives up.",
    )
    api_minutes: float = Field(
        30, gt=0, description="How long the Kubernetes API may be away before the step gives up."
    )
    runtime: Name = Field("torch-distributed", description="ClusterTrainingRuntime of a TrainJob.")

    @model_validator(mode="after")
    def _variables_have_one_source(self) -> "ClusterSettings":
        seen: dict[str, str] = {}
        for source, names in self.variables().items():
            for name in names:
                if name in seen:
                    raise ValueError(f"variable {name} comes from {seen[name]} and from {source}: leave one out")
                if _RESERVED.fullmatch(name):
                    raise ValueError(f"variable {name} in {source} is set by the launcher itself: leave it out")
                seen[name] = source
        return self

    @model_validator(mode="after")
    def _no_secret_in_the_recipe(self) -> "ClusterSettings":
        if named := [name for name in self.environment if _SECRET.search(name)]:
            raise ValueError(f"{named[0]} in environment looks like a secret: keep it in one, and name it in secrets")
        return self

    @model_validator(mode="after")
    def _shared_memory_fits(self) -> "ClusterSettings":
        if quantity(self.shared_memory) >= quantity(self.memory):
            raise ValueError(
                f"shared_memory {self.shared_memory} must be less than memory {self.memory}: it is part of it"
            )
        return self

    def variables(self) -> dict[str, list[str]]:
        """Names of the environment variables by where they come from."""
        sources = {f"secret {name}": keys for name, keys in self.secrets.items()}
        sources |= {f"config map {name}": keys for name, keys in self.config_maps.items()}
        return sources | {"environment": list(self.environment)}
