"""One installation: which overlay, where, with which images and addresses, read from the environment."""

import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from components.common.errors import InputError

ROOT = Path(__file__).resolve().parent.parent.parent
IMAGES = {"pipeline": "PMC_IMAGE", "mlflow": "PMC_MLFLOW_IMAGE"}
STEPS_ACCOUNT = "pmc-llama-steps"
_NAMESPACE = "kubeflow-user-example-com"  # what Kubeflow's own installation calls its first profile
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_ANNOTATION = re.compile(r"([A-Za-z0-9./_-]+)=(\S+)")
# A host, with a port or without, as MLflow's --allowed-hosts takes it; no star, which would let every name in.
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*(:\d+)?")


@dataclass(frozen=True)
class Installation:
    """What differs from one cluster to the next.

    Attributes:
        overlay: Folder of the kustomization.
        namespace: Where Kubeflow runs the pipeline.
        images: Full names of our images, by `pipeline` and `mlflow`.
        store_uri: Of the steps; empty: as the overlay has it.
        endpoint: Address of an S3 server other than Amazon's.
        region: Of S3.
        artifacts_uri: Where MLflow keeps artifacts.
        mlflow_hosts: More names under which MLflow is called.
        identity: Annotation of the service accounts that gives them an identity in the cloud.
        pull_secret: Secret of the images' registry.
        runner: Service account that Kubeflow runs the steps under.
        components: Folders below k8s/components.
        mirror: Registry that holds copies of other people's images.
    """

    overlay: Path
    namespace: str
    images: dict[str, str]
    store_uri: str = ""
    endpoint: str = ""
    region: str = ""
    artifacts_uri: str = ""
    mlflow_hosts: tuple[str, ...] = ()
    identity: tuple[str, str] | None = None
    pull_secret: str = ""
    runner: str = STEPS_ACCOUNT
    components: tuple[Path, ...] = field(default=())
    mirror: str = ""

    @property
    def is_dev(self) -> bool:
        """Whether it brings its own S3 server and database, and so may make their passwords."""
        return self.overlay == ROOT / "k8s" / "overlays" / "dev"

    @property
    def is_serving(self) -> bool:
        """Whether it is about model servers alone."""
        return self.overlay == ROOT / "k8s" / "serving"


def read_installation(overlay: str, environment: Mapping[str, str]) -> Installation:
    """The installation that the environment describes.

    Args:
        overlay: `dev`, `production`, `serving`, or a folder with a kustomization of your own.
        environment: Such as os.environ; docs/cluster.md names the variables.

    Raises:
        InputError: A value cannot be used.
    """
    folder = _overlay(overlay)
    given = {key: value.strip() for key, value in environment.items()}
    namespace = given.get("NAMESPACE") or given.get("KFP_NAMESPACE") or _NAMESPACE
    return Installation(
        overlay=folder,
        namespace=_checked(namespace, _NAME, "NAMESPACE", "lower-case letters, digits and -"),
        images={image: _image(image, variable, given) for image, variable in IMAGES.items()},
        mlflow_hosts=tuple(
            _checked(host, _HOST, "MLFLOW_HOSTS", "names of hosts, with commas between them")
            for host in given.get("MLFLOW_HOSTS", "").split(",")
            if host
        ),
        identity=_identity(given.get("CLOUD_IDENTITY", "")),
        pull_secret=_name(given, "IMAGE_PULL_SECRET", ""),
        runner=_name(given, "RUNNER", STEPS_ACCOUNT),
        components=tuple(_component(name) for name in given.get("COMPONENTS", "").split(",") if name),
        mirror=given.get("MIRROR", "").rstrip("/"),
        **_addresses(folder, given),
    )


def _overlay(name: str) -> Path:
    places = {each.name: each for each in sorted((ROOT / "k8s" / "overlays").iterdir())}
    places["serving"] = ROOT / "k8s" / "serving"
    folder = places.get(name, Path(name).resolve())
    if not (folder / "kustomization.yaml").is_file():
        raise InputError(
            f"There is no overlay {name!r}; give {', '.join(places)}, or a folder with a kustomization.yaml."
        )
    return folder


def _component(name: str) -> Path:
    folder = ROOT / "k8s" / "components" / name
    if not (folder / "kustomization.yaml").is_file():
        known = sorted(each.name for each in folder.parent.iterdir())
        raise InputError(f"COMPONENTS names {name!r}; there are {', '.join(known)}.")
    return folder


def _image(image: str, variable: str, given: Mapping[str, str]) -> str:
    """A tag that is asked for wins; else what was pushed, by its digest; else the name that `make images` gives."""
    if not given.get("TAG") and (pushed := given.get(variable)):
        return pushed
    script = f". images/names.sh && name {image}"
    environment = {key: given[key] for key in ("PATH", "HOME", "REGISTRY", "TAG") if given.get(key)}
    made = subprocess.run(
        ["bash", "-euc", script], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return made.stdout.strip()


def _addresses(folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Of S3; the overlay `dev` has its own server and store."""
    if folder == ROOT / "k8s" / "overlays" / "dev":
        return {}
    endpoint = given.get("AWS_ENDPOINT_URL", "")
    parts = urlsplit(endpoint)
    if endpoint and (parts.scheme not in ("http", "https") or not parts.hostname or parts.username):
        raise InputError("AWS_ENDPOINT_URL is no address such as https://s3.example.org, without a password in it.")
    found = {"endpoint": endpoint.rstrip("/"), "region": given.get("AWS_REGION", "")}
    if folder == ROOT / "k8s" / "serving":
        return found
    store = given.get("PMC_STORE_URI", "").rstrip("/")
    if not store.startswith("s3://") or not urlsplit(store).netloc:
        raise InputError(f"PMC_STORE_URI is {store!r}; the steps of a cluster share a store on S3: s3://bucket/prefix.")
    return found | {"store_uri": store, "artifacts_uri": given.get("MLFLOW_ARTIFACTS_URI") or f"{store}/mlflow"}


def _identity(text: str) -> tuple[str, str] | None:
    if not text:
        return None
    match = _ANNOTATION.fullmatch(text)
    if match is None:
        raise InputError(
            f"CLOUD_IDENTITY is {text!r}; it takes an annotation, such as "
            "eks.amazonaws.com/role-arn=arn:aws:iam::123456789012:role/pmc-llama."
        )
    return match[1], match[2]


def _name(given: Mapping[str, str], variable: str, default: str) -> str:
    value = given.get(variable) or default
    return _checked(value, _NAME, variable, "lower-case letters, digits and -") if value else ""


def _checked(value: str, pattern: re.Pattern[str], variable: str, form: str) -> str:
    if not pattern.fullmatch(value):
        raise InputError(f"{variable} is {value!r}; it takes {form}.")
    return value
