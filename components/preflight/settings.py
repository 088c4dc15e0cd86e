"""The parts of a recipe's sections that the preflight reads, and where the steps run."""

import os
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, ValidationError

from components.common.cluster.settings import ClusterSettings
from components.common.errors import InputError
from components.common.pmc.settings import PmcSettings, TransportSettings
from components.common.section import Section

_IN_CLUSTER_NAMES = (".svc", ".cluster.local")


class _Part(Section):
    model_config = ConfigDict(extra="ignore", frozen=True)


class TrainPart(_Part):
    """Of the `train` section: where the training job runs and what it takes."""

    launcher: Literal["local", "pytorchjob", "trainjob"] = "local"
    processes_per_node: int = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    keep_checkpoints: int = 2
    cluster: ClusterSettings = Field(default_factory=lambda: ClusterSettings.model_validate({}))


class DownloadPart(_Part):
    """Of the `download` section: where things come from."""

    source: str = "sample"
    articles: str = ""
    benchmarks: str = "sample"
    hub: dict[str, str] = Field(default_factory=dict)
    base_model: str = "sample"
    base_model_revision: str = "main"
    pmc: PmcSettings = Field(default_factory=PmcSettings)
    transport: TransportSettings = Field(default_factory=TransportSettings)


class StepsPart(_Part):
    """Of the `steps` section: what the steps' pods take from the cluster."""

    service_account: str | None = None
    secrets: dict[str, list[str]] = Field(default_factory=dict)
    config_maps: dict[str, list[str]] = Field(default_factory=dict)
    optional_variables: list[str] = Field(default_factory=list)
    image_pull_secrets: list[str] = Field(default_factory=list)


@dataclass(frozen=True)
class Situation:
    """What is to run, and where its steps will.

    Attributes:
        download: Where things come from.
        train: Where the training job runs.
        steps: What the steps' pods take from the cluster.
        submitting: Whether the steps will run in a cluster while this process does not.
    """

    download: DownloadPart
    train: TrainPart
    steps: StepsPart
    submitting: bool = False

    def given_to_steps(self, variable: str) -> str:
        """Where the steps of a run that is submitted take a variable from, if not from this machine; or empty."""
        sources = {f"secret {name}": keys for name, keys in self.steps.secrets.items()}
        sources |= {f"config map {name}": keys for name, keys in self.steps.config_maps.items()}
        return next((source for source, keys in sources.items() if self.submitting and variable in keys), "")

    @property
    def job_on_cluster(self) -> bool:
        """Whether the training job runs in pods of its own."""
        return self.train.launcher != "local"

    @property
    def on_cluster(self) -> bool:
        """Whether a part of the run does not see this machine's disk."""
        return self.submitting or self.job_on_cluster or in_cluster()

    def unseen(self, address: str) -> bool:
        """Whether an address has a meaning in the cluster only, and this process is outside."""
        host = urlsplit(address).hostname or ""
        inner = host.endswith(_IN_CLUSTER_NAMES) or ("." not in host and host not in ("", "localhost"))
        return self.submitting and not in_cluster() and inner and not _is_ipv6(host)


def read_situation(
    download: dict[str, Any], train: dict[str, Any], steps: dict[str, Any], submitting: bool = False
) -> Situation:
    """Read a recipe's sections as they travel through KFP.

    Raises:
        InputError: A value is not one that the stage would take.
    """
    try:
        parts = DownloadPart.model_validate(download), TrainPart.model_validate(train), StepsPart.model_validate(steps)
        return Situation(*parts, submitting)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise InputError(f"The recipe is not valid: {problems}; correct it.") from error


def in_cluster() -> bool:
    """Whether this process runs in a pod."""
    return bool(os.environ.get("KUBERNETES_SERVICE_HOST"))


def _is_ipv6(host: str) -> bool:
    return ":" in host
