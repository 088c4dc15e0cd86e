"""Where a step runs on Kubernetes: its settings, as KFP takes them, applied to a task of the pipeline in one call."""

import functools
import inspect
import re
from collections.abc import Callable, Iterable
from types import SimpleNamespace
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl import pipeline_task

from components.common.logs import without_credentials
from components.common.section import Section
from components.common.settings import get_settings
from pipelines.step_settings import STEPS, StepSettings, StepsSettings

_AT_RUN_TIME = ("cpu", "cpu_limit", "memory", "memory_limit", "node_selector", "tolerations")
_TMP, _SHARED_MEMORY = "/tmp", "/dev/shm"  # noqa: S108 - the pod's own
# They look at the world as it is, not as it was.
_NEVER_CACHED = {"preflight", "retractions", "summary"}
# What tells the pods of a run from all others, and from each other; KFP itself sets KFP_POD_NAME and KFP_POD_UID.
_FROM_THE_POD = {
    "PMC_RUN_ID": "metadata.labels['pipeline/runid']",
    "PMC_RUN_NAME": "metadata.labels['workflows.argoproj.io/workflow']",
}


def _callers() -> list[tuple[Any, str, int, str]]:
    """The calling frames as :func:`inspect.stack` begins them, without their sources."""
    found, frame = [], inspect.currentframe()
    while frame := frame and frame.f_back:
        found.append((frame, frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))
    return found


# Before each setting of a task, KFP wants its caller's name and asks for the whole stack with every frame's source.
# Where many modules are loaded, as in a notebook, that takes 20 s a compilation; without the sources, none.
pipeline_task.inspect = SimpleNamespace(stack=_callers)


class Placing:
    """The tasks of one pipeline and their pods.

    Called with each task; :meth:`parameters` decorates the pipeline's function.
    """

    def __init__(
        self, steps: StepsSettings, on_cluster: bool, used: Iterable[str] = STEPS, trains_here: Iterable[str] = ()
    ) -> None:
        """Bind the recipe's section.

        Args:
            steps: The section.
            on_cluster: Whether there are pods; KFP's local runner has none, but would retry what a person is to mend.
            used: The steps that the pipeline has; others get no parameters.
            trains_here: The steps that train themselves, instead of launching a job.
        """
        self._steps = steps
        self._on_cluster = on_cluster
        self._used = list(used) if on_cluster else []
        self._trains_here = set(trains_here)
        self._channels: dict[str, Any] = {}

    def __call__(self, task: dsl.PipelineTask, step: str, display_name: str) -> dsl.PipelineTask:
        """Give a task its pod's settings, and the name that the Kubeflow UI and the run's summary show.

        Args:
            task: As the component made it.
            step: A step among :data:`STEPS`.
            display_name: Such as ``Evaluate the base model``.
        """
        settings = self._steps.of(step)
        task.set_display_name(display_name)
        if not self._steps.caching or step in _NEVER_CACHED:
            task.set_caching_options(False)
        self._set_image(task, step, settings)
        if self._on_cluster:
            self._place(task, step)
            self._set_environment(task)
            _set_resources(task, settings, self._value(step, "cpu"), self._value(step, "memory"), self._limits(step))
            _set_patience(task, settings)
            _set_disks(task, settings)
        return task

    def parameters(self, pipeline: Callable[..., None]) -> Callable[..., None]:
        """Add what may be changed when a run starts to a pipeline's parameters; goes below ``@dsl.pipeline``.

        Of the pipeline's own, one whose default is None belongs to boxes that are left out, and is left out too.
        """
        signature = inspect.signature(pipeline)
        own = [each for each in signature.parameters.values() if each.default is not None]
        added = [
            inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=value, annotation=type(value))
            for name, value in self.defaults().items()
        ]

        @functools.wraps(pipeline)
        def with_parameters(*arguments: Any) -> None:
            given = {each.name: argument for each, argument in zip(own, arguments, strict=False)}
            self._channels = dict(zip(self.defaults(), arguments[len(own) :], strict=True))
            pipeline(**given)

        with_parameters.__signature__ = signature.replace(  # type: ignore[attr-defined]
            parameters=[*own, *added]
        )
        return with_parameters

    def defaults(self) -> dict[str, Any]:
        """The parameters that :meth:`parameters` adds, with the recipe's values, in the order of the UI."""
        steps = self._steps
        if not self._on_cluster:
            return {}
        found: dict[str, Any] = {_parameter("secret", name): name for name in steps.secrets}
        found |= {_parameter("config_map", name): name for name in steps.config_maps}
        found |= {_parameter("pull_secret", name): name for name in steps.image_pull_secrets}
        for name in _AT_RUN_TIME:
            if getattr(steps.default, name) is not None:
                found[f"default_{name}"] = _plain(getattr(steps.default, name))
        for step in self._used:
            for name in _AT_RUN_TIME:
                if name in steps.own(step) and getattr(steps.of(step), name) is not None:
                    found[f"{step}_{name}"] = _plain(getattr(steps.of(step), name))
        return found

    def _value(self, step: str, name: str) -> Any:
        """The parameter that decides a setting of a step; None where the setting is none."""
        if getattr(self._steps.of(step), name) is None:
            return None
        return self._channels[f"{step if name in self._steps.own(step) else 'default'}_{name}"]

    def _limits(self, step: str) -> tuple[Any, Any]:
        memory = self._value(step, "memory_limit")
        return self._value(step, "cpu_limit"), self._value(step, "memory") if memory is None else memory

    def _set_image(self, task: dsl.PipelineTask, step: str, settings: StepSettings) -> None:
        places = get_settings()
        on_gpu = settings.gpus or step in self._trains_here
        image = settings.image or (places.trainer_image if on_gpu else places.image)
        task.set_container_image(image)
        task.set_env_variable("PMC_IMAGE", image)  # for the lineage
        task.set_env_variable("PMC_TRAINER_IMAGE", places.trainer_image)

    def _place(self, task: dsl.PipelineTask, step: str) -> None:
        kubernetes.add_node_selector_json(task, self._value(step, "node_selector"))
        kubernetes.add_toleration_json(task, self._value(step, "tolerations"))
        pull_secrets = [self._channels[_parameter("pull_secret", name)] for name in self._steps.image_pull_secrets]
        if pull_secrets:
            kubernetes.set_image_pull_secrets(task, pull_secrets)
        if self._steps.user is not None:
            kubernetes.set_security_context(task, run_as_user=self._steps.user, run_as_non_root=True)

    def _set_environment(self, task: dsl.PipelineTask) -> None:
        for name, path in _FROM_THE_POD.items():
            kubernetes.use_field_path_as_env(task, name, path)
        if address := without_credentials(get_settings().kfp_ui):
            task.set_env_variable("KFP_UI_URL", address)  # for the lineage
        for kind, use, sources in (
            ("secret", kubernetes.use_secret_as_env, self._steps.secrets),
            ("config_map", kubernetes.use_config_map_as_env, self._steps.config_maps),
        ):
            for name, keys in sources.items():
                for optional in (False, True):
                    chosen = {key: key for key in keys if (key in self._steps.optional_variables) is optional}
                    if chosen:
                        use(task, self._channels[_parameter(kind, name)], chosen, optional=optional)


def _set_resources(task: dsl.PipelineTask, settings: StepSettings, cpu: Any, memory: Any, limits: Any) -> None:
    cpu_limit, memory_limit = limits
    task.set_cpu_request(cpu).set_memory_request(memory).set_memory_limit(memory_limit)
    if cpu_limit is not None:
        task.set_cpu_limit(cpu_limit)
    # KFP 2.17 hands a parameter on through loops and exit handlers only if the task says that it reads it.
    task.register_pipeline_channels([each for each in (cpu, memory, *limits) if each is not None])
    if settings.gpus:
        task.set_accelerator_type(settings.gpu_resource).set_accelerator_limit(settings.gpus)


def _set_patience(task: dsl.PipelineTask, settings: StepSettings) -> None:
    if settings.retries:
        task.set_retry(
            settings.retries,
            backoff_duration=f"{settings.backoff_seconds}s",
            backoff_factor=settings.backoff_factor,
            backoff_max_duration=f"{settings.deadline_seconds()}s",
        )
    timeout = settings.timeout_seconds()
    if timeout is not None:
        kubernetes.set_timeout(task, timeout)


def _set_disks(task: dsl.PipelineTask, settings: StepSettings) -> None:
    if settings.scratch is not None:
        kubernetes.empty_dir_mount(task, "scratch", _TMP, size_limit=settings.scratch)
    if settings.shared_memory is not None:
        kubernetes.empty_dir_mount(
            task, "shared-memory", _SHARED_MEMORY, medium="Memory", size_limit=settings.shared_memory
        )


def _parameter(kind: str, name: str) -> str:
    return f"{kind}_{re.sub('[^a-z0-9]', '_', name)}"


def _plain(value: Any) -> Any:
    """A setting as Kubernetes writes it."""
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if not isinstance(value, Section):
        return value
    fields = value.model_dump(mode="json", exclude_none=True)
    return {("tolerationSeconds" if key == "toleration_seconds" else key): each for key, each in fields.items()}
