"""Run the pipeline on this machine with every step in its image, as on a cluster: KFP's Docker runner.

Nothing of this machine reaches the steps but the folder of KFP's outputs, the environment of the run, and what is
mounted on purpose: store and MLflow are servers, as they are on a cluster. The containers are as narrow as a cluster's
pods: not root, no capabilities, a root file system that cannot be written, scratch space in /tmp.
"""

import contextlib
import hashlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from components.common.errors import InputError, PipelineError
from components.common.parent import RUNNER_VARIABLE
from components.common.settings import get_settings
from pipelines.local import Place, run_locally
from pipelines.recipe import Recipe

log = logging.getLogger(__name__)

HOME_LABEL = "pmc-llama/home"
REVISION_LABEL = "org.opencontainers.image.revision"
# Of the images; a container's files belong to it unless the user of this machine is another one.
IMAGE_USER = 1000
_PASSED_ON = ("PMC_", "AWS_", "MLFLOW_", "HF_", "S2_", "OMP_", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
# What only this machine's processes can use, and what each image says of itself.
_KEPT_HERE = {
    RUNNER_VARIABLE, "PMC_HOME", "PMC_IMAGE", "PMC_TRAINER_IMAGE", "PMC_GIT_REVISION",
    "AWS_PROFILE", "AWS_DEFAULT_PROFILE", "AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE",
}  # fmt: skip
_CREDENTIALS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def run_in_containers(recipe: Recipe, home: Path, mounts: list[Path] | None = None, gpus: bool = False) -> bool:
    """Run the pipeline with a recipe, every step in a container of its image, and print what came of it.

    Args:
        recipe: What to run; its training must not need a cluster.
        home: Folder for KFP's outputs, caches and logs.
        mounts: Files and folders of this machine that the steps may read, under the same path.
        gpus: Whether the containers see this machine's GPUs.

    Returns:
        Whether the run succeeded.

    Raises:
        PipelineError: The run could not start: Docker does not answer, an image is missing, the store or MLflow is
            none that a container reaches.
    """
    if recipe.train.launcher != "local":
        raise InputError(
            f"train.launcher is {recipe.train.launcher}, which needs a cluster; for a run in containers set "
            "train.launcher=local, and for a run on the cluster submit the pipeline."
        )
    return run_locally(recipe, home, Containers(mounts or [], gpus))


@dataclass
class Containers:
    """Starts each step in a container of its image."""

    mounts: list[Path]
    gpus: bool = False

    def check(self, place: Place) -> None:
        """Raise PipelineError where something is missing that every step needs; end what a killed run left behind."""
        for path in self.mounts:
            if not path.exists():
                raise InputError(f"There is no {path} to mount.")
        settings = get_settings()
        if not settings.store_uri.startswith("s3://"):
            raise InputError(
                f"The steps' containers cannot see {settings.store_uri}; set PMC_STORE_URI to s3://bucket/prefix, and "
                "AWS_ENDPOINT_URL where S3 is another server than Amazon's."
            )
        if not settings.tracking_uri.startswith(("http://", "https://")):
            raise InputError("The steps' containers need an MLflow server; set MLFLOW_TRACKING_URI to its address.")
        with _docker() as client:
            _remove_all(client, place.home)
            for name, (image, _) in self._images(client).items():
                _compare_revisions(name, image.labels.get(REVISION_LABEL, ""), settings.git_revision)

    def identity(self) -> list[str]:
        """What decides the steps' outputs beside their inputs: the images' contents."""
        with _docker() as client:
            return sorted(identity for _, identity in self._images(client).values())

    @contextlib.contextmanager
    def opened(self, place: Place) -> Iterator[Any]:
        """Yield KFP's runner; no container of this home is left when it ends."""
        from kfp import local
        from kfp.local import docker_task_handler

        if os.getuid() == 0:
            os.chown(place.kfp_root, IMAGE_USER, IMAGE_USER)
        with _docker() as client, _ended_by_signals(client, place.home) as ending:
            identities = {name: identity for name, (_, identity) in self._images(client).items()}
            # KFP's own loses the exit code of a container that is gone before it asks, and takes that for success; and
            # it stumbles over characters of several bytes at the edge of a chunk of the log.
            docker_task_handler.run_docker_container = _ContainerStep(place.home, identities, ending)
            yield local.DockerRunner(
                environment=environment(os.environ), user=_user(), **self._rights(), mounts=self._docker_mounts()
            )

    def _rights(self) -> dict[str, Any]:
        rights: dict[str, Any] = {
            "network_mode": os.environ.get("PMC_CONTAINER_NETWORK", "host"),
            "read_only": True,
            "cap_drop": ["ALL"],
            "security_opt": ["no-new-privileges"],
            # Workers of torch hand each other data there; Docker's own 64 MB are too few.
            "shm_size": "1g",
            "init": True,
        }
        if self.gpus:
            rights["device_requests"] = [_sdk().types.DeviceRequest(count=-1, capabilities=[["gpu"]])]
        return rights

    def _docker_mounts(self) -> list[Any]:
        mount = _sdk().types.Mount
        # A volume without a name: on disk, with the rights that the image gives /tmp, and gone with its container.
        scratch = mount(target="/tmp", source=None, type="volume")  # noqa: S108 - the container's own
        shared = [mount(str(path.resolve()), str(path.resolve()), type="bind", read_only=True) for path in self.mounts]
        return [scratch, *shared]

    def _images(self, client: Any) -> dict[str, tuple[Any, str]]:
        """The images by the names that the pipeline gives them, with what tells their contents."""
        settings = get_settings()
        found = {}
        for variable, name in (("PMC_IMAGE", settings.image), ("PMC_TRAINER_IMAGE", settings.trainer_image)):
            image = _image(client, name, variable)
            found[name] = (image, _identity(name, image))
        return found


class _ContainerStep:
    """Runs one step in a container, in place of KFP's function of the same arguments."""

    def __init__(self, home: Path, identities: Mapping[str, str], ending: threading.Event) -> None:
        self._labels = {HOME_LABEL: _home_label(home)}
        self._identities, self._ending = identities, ending

    def __call__(self, client: Any, image: str, command: list[str], volumes: dict[str, Any], **arguments: Any) -> int:
        """Run a command in a container to its end, print what it says, and return its exit status."""
        # The lineage tells what ran, even where a tag was moved since.
        arguments["environment"] = arguments.get("environment", {}) | {"PMC_IMAGE": self._identities.get(image, image)}
        if self._ending.is_set():
            return 1
        try:
            container = client.containers.create(
                image=image, command=command, volumes=volumes, labels=self._labels, **arguments
            )
            try:
                return self._follow(container)
            finally:
                _remove(container)
        except _sdk().errors.APIError as error:
            if not self._ending.is_set():
                _say_error(f"Docker lost a step in {image}: {error.explanation or error}")
            return 1

    def _follow(self, container: Any) -> int:
        container.start()
        for line in _lines(container.logs(stream=True, follow=True)):
            # KFP indents what a step prints by replacing print.
            print(line)  # noqa: T201
        code = int(container.wait()["StatusCode"])
        container.reload()
        if container.attrs["State"].get("OOMKilled"):
            _say_error("The step's container ran out of memory.")
        return code


def _say_error(text: str) -> None:
    """Write a line as a step would, which the runner takes for the cause of the failure."""
    print(f"{time.strftime('%H:%M:%S')} ERROR: {text}")  # noqa: T201


def environment(variables: Mapping[str, str]) -> dict[str, str]:
    """What a container gets to know of this machine's environment: the run's places and credentials, and no more.

    A profile or a single sign-on becomes the key it stands for now, as its files stay here.

    Args:
        variables: Of this process.
    """
    passed = {
        name: value
        for name, value in variables.items()
        if name.upper().startswith(_PASSED_ON) and name not in _KEPT_HERE and value
    }
    return passed | _credentials(passed)


def _credentials(passed: Mapping[str, str]) -> dict[str, str]:
    if _CREDENTIALS[0] in passed:
        return {}
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        found = boto3.Session().get_credentials()
        frozen = found.get_frozen_credentials() if found is not None else None
    except BotoCoreError as error:
        raise InputError(f"The credentials of S3 cannot be had: {error}") from error
    if frozen is None:
        return {}
    values = zip(_CREDENTIALS, (frozen.access_key, frozen.secret_key, frozen.token), strict=True)
    return {name: value for name, value in values if value}


def _user() -> str:
    """Whom the steps' files belong to: to who runs this, or to the images' user where that would be root."""
    return f"{IMAGE_USER}:{IMAGE_USER}" if os.getuid() == 0 else f"{os.getuid()}:{os.getgid()}"


def _sdk() -> Any:
    try:
        import docker  # type: ignore[import-untyped]
    except ImportError as error:
        raise PipelineError("A run in containers needs Python's package docker: pip install docker") from error
    return docker


@contextlib.contextmanager
def _docker() -> Iterator[Any]:
    sdk = _sdk()
    try:
        client = sdk.from_env()
    except sdk.errors.DockerException as error:
        raise PipelineError(
            f"Docker does not answer ({error}); start it, or set DOCKER_HOST to where it listens."
        ) from error
    try:
        yield client
    finally:
        client.close()


def _image(client: Any, name: str, variable: str) -> Any:
    """An image that is here, or that can be pulled."""
    errors = _sdk().errors
    try:
        return client.images.get(name)
    except errors.ImageNotFound:
        pass
    try:
        return client.images.pull(name)
    except errors.APIError as error:
        raise InputError(
            f"There is no image {name} here, nor can it be pulled ({error.explanation or error}); build it with "
            f"`make images`, or name another one with {variable}."
        ) from error


def _compare_revisions(name: str, built: str, here: str) -> None:
    """Say when an image holds other code than this checkout, whose steps' interfaces are compiled in."""
    if built and here and built.removesuffix("-dirty") != here.removesuffix("-dirty"):
        log.warning(
            "%s was built from commit %.12s, this checkout is at %.12s: a step that changed in between may fail. "
            "`make images` builds it anew.", name, built, here,
        )  # fmt: skip


def _identity(name: str, image: Any) -> str:
    """An image's digest in its registry, or its id where it was never pushed."""
    repository = name.partition("@")[0]
    if ":" in repository.rpartition("/")[2]:
        repository = repository.rpartition(":")[0]
    digests = [each for each in image.attrs.get("RepoDigests") or [] if each.startswith(f"{repository}@")]
    return digests[0] if digests else f"{name.partition('@')[0]}@{image.id}"


def _lines(chunks: Iterator[bytes]) -> Iterator[str]:
    """Whole lines of a stream that is cut anywhere."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r")
    if rest:
        yield rest.decode(errors="replace")


@contextlib.contextmanager
def _ended_by_signals(client: Any, home: Path) -> Iterator[threading.Event]:
    """End the home's containers when the run is over, and on SIGINT or SIGTERM at once, as nothing else would."""
    ending = threading.Event()

    def end(number: int, _frame: FrameType | None) -> None:
        ending.set()
        with _docker() as another:  # the other client may be in the middle of a question
            _remove_all(another, home)
        if number == signal.SIGTERM:
            sys.exit(128 + number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield ending
    finally:
        _remove_all(client, home)
        for number, handler in before.items():
            signal.signal(number, handler)


def _remove_all(client: Any, home: Path) -> None:
    label = f"{HOME_LABEL}={_home_label(home)}"
    for container in client.containers.list(all=True, filters={"label": label}, ignore_removed=True):
        _remove(container)


def _remove(container: Any) -> None:
    try:
        container.remove(force=True, v=True)
    except _sdk().errors.APIError as error:
        # Gone, or going: a signal's handler and the step itself may both be at it.
        if error.status_code not in (404, 409):
            raise


def _home_label(home: Path) -> str:
    return hashlib.sha256(str(home.resolve()).encode()).hexdigest()[:16]
