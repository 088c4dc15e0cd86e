"""Settings of the pods that the steps run in on a cluster: the `steps` section of a recipe.

KFP takes some of them when a run starts (names of secrets and config maps, node selectors, tolerations, CPU, memory):
those are parameters of the compiled pipeline. The others are compiled in: KFP's format has no place for a parameter in
retries, time-outs, volumes and users. A local run has no pods and leaves the whole section aside.
"""

from typing import Annotated, Any, Self

from pydantic import (
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from components.common.cluster.settings import Name, Quantity, Toleration, Variable, as_text, quantity
from components.common.section import Section

# KFP's own forms, narrower than Kubernetes'.
Cpu = Annotated[str, BeforeValidator(as_text), StringConstraints(pattern=r"^(\d*\.)?\d+m?$")]
Memory = Annotated[str, BeforeValidator(as_text), StringConstraints(pattern=r"^\d+([KMGTPE]i?)?$")]

# A training takes as long as it takes: its job has a deadline of its own. What is missing stays missing.
_OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "preflight": {"retries": 0},
    "train": {"timeout_hours": None},
    "finetune": {"timeout_hours": None},
}
_DAYS_WITHOUT_TIMEOUT = 30
_HOURS_TO_FIND_A_NODE = 24  # for each attempt


class StepSettings(Section):
    """The pod of a step; a step takes what it does not say from `default`."""

    image: str | None = Field(
        None, min_length=1, description="none: PMC_TRAINER_IMAGE for steps with a GPU, PMC_IMAGE for all others."
    )
    cpu: Cpu = Field("1", description="CPU cores that the step's node must have left: 2, 0.5 or 500m.")
    cpu_limit: Cpu | None = Field(None, description="CPU cores that it may use; none: all that are idle.")
    memory: Memory = Field("2Gi", description="Memory that the step's node must have left, in whole units.")
    memory_limit: Memory | None = Field(None, description="Memory beyond which it is killed; none: the same as memory.")
    gpus: int = Field(0, ge=0, le=16, description="GPUs of the step.")
    gpu_resource: str = Field("nvidia.com/gpu", min_length=1, description="What a GPU is called.")
    scratch: Quantity | None = Field(
        "10Gi", description="Size of /tmp, on the node's disk; a step that takes more is evicted. none: no limit."
    )
    shared_memory: Quantity | None = Field(
        None, description="Size of /dev/shm, which counts towards memory; none: the container runtime's 64 MB."
    )

    node_selector: dict[str, str] = Field(default_factory=dict, description="Labels that the nodes must have.")
    tolerations: list[Toleration] = Field(
        default_factory=list, description="Taints that do not keep the step away, such as those of spot instances."
    )

    retries: int = Field(2, ge=0, le=20, description="Times that a failed step is run again; it goes on at its shard.")
    backoff_seconds: int = Field(60, ge=1, description="Wait before the first retry.")
    backoff_factor: float = Field(2.0, ge=1, description="Each further wait is so many times the one before.")
    timeout_hours: float | None = Field(24, gt=0, description="How long an attempt may take; none: without end.")
    deadline_hours: float | None = Field(
        None,
        gt=0,
        description="How long all attempts may take, with waits for a node and before retries: an attempt that runs "
        "then is ended. none: what timeout_hours, retries and waits add up to, and a day for each to find a node.",
    )

    def waits_seconds(self) -> list[float]:
        """The wait before each retry."""
        return [self.backoff_seconds * self.backoff_factor**n for n in range(self.retries)]

    def timeout_seconds(self) -> int | None:
        """Seconds of an attempt; None: without end."""
        return None if self.timeout_hours is None else max(1, round(self.timeout_hours * 3600))

    def deadline_seconds(self) -> int:
        """Seconds of all attempts together.

        KFP's own default is one hour, and Argo kills the attempt that is running when it ends
        (argoproj/argo-workflows#13044, kubeflow/pipelines#13452).
        """
        if self.deadline_hours is not None:
            return max(1, round(self.deadline_hours * 3600))
        attempt = self.timeout_hours or _DAYS_WITHOUT_TIMEOUT * 24
        return round((attempt + _HOURS_TO_FIND_A_NODE) * 3600 * (self.retries + 1) + sum(self.waits_seconds()))

    def check(self) -> None:
        """Raise ValueError where two settings do not fit together."""
        if self.memory_limit is not None and quantity(self.memory_limit) < quantity(self.memory):
            raise ValueError(f"memory_limit {self.memory_limit} is less than memory {self.memory}")
        if self.cpu_limit is not None and _cores(self.cpu_limit) < _cores(self.cpu):
            raise ValueError(f"cpu_limit {self.cpu_limit} is less than cpu {self.cpu}")
        memory = self.memory_limit or self.memory
        if self.shared_memory is not None and quantity(self.shared_memory) >= quantity(memory):
            raise ValueError(f"shared_memory {self.shared_memory} must be less than memory {memory}: it is part of it")
        if self.deadline_hours is not None and self.deadline_hours < (self.timeout_hours or 0):
            raise ValueError(
                f"deadline_hours {self.deadline_hours:g} is less than timeout_hours {self.timeout_hours:g}"
            )


def _block(description: str) -> Any:
    return Field(default_factory=lambda: StepSettings.model_validate({}), description=description)


class StepsSettings(Section):
    """Where and how the steps run on Kubernetes."""

    service_account: Name | None = Field(
        None, description="The pods' identity towards the cluster and the cloud; none: Kubeflow's pipeline-runner."
    )
    secrets: dict[Name, list[Variable]] = Field(
        default_factory=dict,
        description="Environment variables from secrets: name of a secret to the keys taken from it.",
    )
    config_maps: dict[Name, list[Variable]] = Field(
        default_factory=dict, description="Environment variables from config maps: name of one to the keys taken."
    )
    optional_variables: list[Variable] = Field(
        default_factory=list, description="Those of them that may be missing; without any other the step cannot start."
    )
    image_pull_secrets: list[Name] = Field(default_factory=list, description="Secrets of the images' registry.")
    user: int | None = Field(
        1000, ge=1, description="User id of the processes; none: the image's or the namespace's (OpenShift)."
    )
    caching: bool = Field(True, description="Whether a step whose inputs are the same as before is left out.")

    default: StepSettings = _block("What a step takes that it does not say itself.")
    preflight: StepSettings = _block("The look whether all is there.")
    plan: StepSettings = _block("The plan of the download.")
    benchmarks: StepSettings = _block("The fetch of the benchmarks.")
    base_model: StepSettings = _block("The fetch of the base model.")
    download: StepSettings = _block("The fetch of a shard of articles.")
    extract: StepSettings = _block("The extraction of a shard's text.")
    duplicates: StepSettings = _block("The search for near-duplicates among all articles.")
    tokenize: StepSettings = _block("The tokens of a shard.")
    corpus: StepSettings = _block("The assembly of the corpus.")
    train: StepSettings = _block("The training, or what launches and watches its job.")
    finetune: StepSettings = _block("The fine-tuning for a task, or what launches and watches its job.")
    evaluate: StepSettings = _block("The evaluation of a model.")
    register_: StepSettings = Field(
        alias="register",
        default_factory=lambda: StepSettings.model_validate({}),
        description="The comparison of the models and the registration.",
    )
    retractions: StepSettings = _block("The watch for retractions.")
    summary: StepSettings = _block("The summary, and the end of what is left on the cluster.")

    def of(self, step: str) -> StepSettings:
        """The settings of a step's pod.

        Args:
            step: Its name among the fields, such as `evaluate`.
        """
        own: StepSettings = getattr(self, _field_of(step))
        given = {name: getattr(own, name) for name in own.model_fields_set}
        return self.default.model_copy(update=given)

    def own(self, step: str) -> set[str]:
        """Names of the settings that a step gives itself."""
        block: StepSettings = getattr(self, _field_of(step))
        return set(block.model_fields_set)

    @model_validator(mode="before")
    @classmethod
    def _with_own_defaults(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        own = {step: {**given, **(data.get(step) or {})} for step, given in _OWN_DEFAULTS.items()}
        return data | own

    @model_serializer(mode="wrap")
    def _only_what_a_step_says(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what a step takes from the default: read back, it must not become the step's own."""
        data: dict[str, Any] = handler(self)
        for step in STEPS:
            name = step if step in data else _field_of(step)
            if name not in data:  # model_dump(include=...)
                continue
            data[name] = {key: value for key, value in data[name].items() if key in self.own(step)}
        return data

    @model_validator(mode="after")
    def _blocks_fit(self) -> Self:
        for step in STEPS:
            try:
                self.of(step).check()
            except ValueError as error:
                raise ValueError(f"{step}: {error}") from error
        return self

    @model_validator(mode="after")
    def _variables_have_one_source(self) -> Self:
        seen: dict[str, str] = {}
        for source, names in [*self.secrets.items(), *self.config_maps.items()]:
            for name in names:
                if name in seen:
                    raise ValueError(f"variable {name} comes from {seen[name]} and from {source}: leave one out")
                seen[name] = source
        for names in (list(self.secrets), list(self.config_maps), self.image_pull_secrets):
            if len({name.replace(".", "-") for name in names}) < len(names):
                raise ValueError(f"two of {', '.join(names)} would be the same parameter: rename one of them")
        if unknown := sorted(set(self.optional_variables) - set(seen)):
            raise ValueError(f"optional variable {unknown[0]} comes from no secret or config map: name it there")
        return self


def _field_of(step: str) -> str:
    return "register_" if step == "register" else step


def _cores(cpu: str) -> float:
    return float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)


STEPS = [
    field.alias or name
    for name, field in StepsSettings.model_fields.items()
    if field.annotation is StepSettings and name != "default"
]
