"""The Kubeflow Pipelines server: where it is, the login, and what it answers, in sentences."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import kfp_server_api
import tenacity
import urllib3
from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from components.common.errors import ClusterError, InputError

_IN_CLUSTER = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
_THROUGH_KUBERNETES = "/api/v1/namespaces/kubeflow/services/ml-pipeline:http/proxy"
_PROJECTED_TOKEN = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105 - a path
_OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_KFP_CONTEXT = Path("~/.config/kfp/context.json")
_ANSWER_SECONDS = (10, 60)
_PASSING = {408, 429, 500, 502, 503, 504}
_REDIRECTIONS = {301, 302, 303, 307, 308}
_T = TypeVar("_T")


class KubeflowSettings(BaseSettings):
    """Address of and login at the server, from the environment; `.env.example` documents each variable."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    endpoint: str = Field(default="", validation_alias=AliasChoices("KFP_ENDPOINT", "KF_PIPELINES_ENDPOINT"))
    ui: str = Field(default="", validation_alias=AliasChoices("KFP_UI_URL", "KF_PIPELINES_UI_ENDPOINT"))
    namespace: str = Field(default="", validation_alias="KFP_NAMESPACE")
    token: SecretStr = Field(default=SecretStr(""), validation_alias="KFP_TOKEN")
    token_file: str = Field(default="", validation_alias=AliasChoices("KFP_TOKEN_FILE", "KF_PIPELINES_SA_TOKEN_PATH"))
    cookie: SecretStr = Field(default=SecretStr(""), validation_alias="KFP_COOKIE")
    ca_file: str = Field(default="", validation_alias="KFP_CA_FILE")


class Conflict(ClusterError):
    """There is something of that name already."""


class Unanswered(ClusterError):
    """The server did not answer, so nobody knows whether it has done what it was asked for."""


class Kubeflow:
    """A server, its API, and the namespace that is worked in.

    Attributes:
        namespace: Of pipelines, experiments and runs; empty in an installation for a single user.
        runs, experiments, pipelines, uploads, recurring: KFP's own API, to be called through :meth:`ask`.
    """

    def __init__(self, client: kfp_server_api.ApiClient, namespace: str, ui: str, patience: float) -> None:
        """Bind a client; :func:`connect` makes one."""
        self.runs = kfp_server_api.RunServiceApi(client)
        self.experiments = kfp_server_api.ExperimentServiceApi(client)
        self.pipelines = kfp_server_api.PipelineServiceApi(client)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(client)
        self.recurring = kfp_server_api.RecurringRunServiceApi(client)
        self._health = kfp_server_api.HealthzServiceApi(client)
        self.namespace = namespace
        self.address = client.configuration.host
        self.patience = patience
        self._ui = ui or client.configuration.host

    def ask(self, what: str, call: Callable[..., _T], *arguments: Any, once: bool = False, **options: Any) -> _T:
        """Call the API; a server that does not answer is asked again.

        Args:
            what: For sentences, such as ``list the runs``.
            call: A method of one of the APIs.
            arguments: Its arguments.
            once: Do not ask again: what makes something could make it twice.
            options: Its named arguments.

        Raises:
            Conflict: There is something of that name already.
            Unanswered: There was no answer, or only that the server has failed.
            ClusterError: The server refuses, or is none of Kubeflow Pipelines.
        """
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Unanswered),
            wait=tenacity.wait_exponential_jitter(initial=0.2, max=10, jitter=0.2),
            stop=tenacity.stop_after_attempt(1) if once else tenacity.stop_after_delay(self.patience),
            reraise=True,
        )
        return attempts(self._ask_once, what, call, *arguments, **options)

    def check(self) -> None:
        """Make sure that this is a server of Kubeflow Pipelines that we can talk to, and that we are let in.

        Raises:
            ClusterError: It is not, or we are not.
        """
        try:
            health = self.ask("say how it is", self._health.healthz_service_get_healthz)
        except _NotFoundError as error:
            raise ClusterError(
                f"At {self.address} there is no Kubeflow Pipelines with the API v2beta1 (2.0 or newer): correct "
                "KFP_ENDPOINT (the address of its pages, often with /pipeline at its end), or upgrade the server."
            ) from error
        if getattr(health, "multi_user", False) and not self.namespace:
            raise InputError(
                f"The Kubeflow at {self.address} is for several users: set KFP_NAMESPACE to your profile's namespace."
            )

    def page(self, *path: str) -> str:
        """Address of a page of the Kubeflow UI, such as ``runs/details/<id>``."""
        return f"{self._ui.rstrip('/')}/#/{'/'.join(path)}"

    def _ask_once(self, what: str, call: Callable[..., _T], *arguments: Any, **options: Any) -> _T:
        try:
            return call(*arguments, _request_timeout=_ANSWER_SECONDS, **options)
        except kfp_server_api.ApiException as error:
            raise self._explained(what, error) from error
        except urllib3.exceptions.HTTPError as error:
            raise Unanswered(
                f"The Kubeflow Pipelines server at {self.address} does not answer ({_cause(error)}): check "
                "KFP_ENDPOINT and the network, or wait until it is back."
            ) from error

    def _explained(self, what: str, error: kfp_server_api.ApiException) -> ClusterError:
        message = _message(error)
        where = f"in namespace {self.namespace}" if self.namespace else "(no KFP_NAMESPACE is set)"
        if error.status == 0:
            return ClusterError(
                f"The certificate of {self.address} is not trusted: {message}; set KFP_CA_FILE to its authority's."
            )
        if error.status == 401 or error.status in _REDIRECTIONS or _is_page(error):
            return ClusterError(
                f"The Kubeflow at {self.address} asks for a login ({error.status}): KFP_TOKEN or KFP_COOKIE is missing "
                "or has expired, get a new one (docs/cluster.md)."
            )
        if error.status == 403:
            return ClusterError(
                f"You may not {what} {where}: {message}. Correct KFP_NAMESPACE, or have its owner add you to it."
            )
        if error.status == 200:
            return ClusterError(f"What answers at {self.address} is no Kubeflow Pipelines: correct KFP_ENDPOINT.")
        if error.status == 404:
            return _NotFoundError(f"The Kubeflow at {self.address} cannot {what} {where}: {message}.")
        if error.status == 409 or (error.status == 500 and "already exist" in _text(error).lower()):
            return Conflict(f"The Kubeflow at {self.address} cannot {what} {where}: {message}.")
        if error.status in _PASSING:
            return Unanswered(f"The Kubeflow at {self.address} fails to {what} ({error.status}): {message}.")
        return ClusterError(f"The Kubeflow at {self.address} refuses to {what} {where}: {message}.")


def connect(patience: float = 60) -> Kubeflow:
    """The server that the environment names, the one of the cluster that this runs in, or of kubectl's.

    Args:
        patience: Seconds for which a server that does not answer is asked again.

    Raises:
        InputError: The environment names none, or holds something that is no address or file.
        ClusterError: It does not answer, does not let us in, or is too old.
    """
    settings = KubeflowSettings()
    context = _kfp_context()
    configuration = kfp_server_api.Configuration()
    configuration.retries = False  # neither follow to a login page, nor make something twice
    configuration.host = _address(settings, configuration)
    _log_in(settings, configuration)
    if settings.ca_file:
        configuration.ssl_ca_cert = _readable(settings.ca_file, "KFP_CA_FILE")
    client = _Client(
        configuration,
        header_name=context.get("client_authentication_header_name"),
        header_value=context.get("client_authentication_header_value"),
        cookie=settings.cookie.get_secret_value() or context.get("client_authentication_cookie"),
    )
    namespace = settings.namespace or context.get("namespace", "") or _own_namespace(settings)
    server = Kubeflow(client, namespace, settings.ui, patience)
    server.check()
    return server


class _NotFoundError(ClusterError):
    """There is no such thing."""


class _Client(kfp_server_api.ApiClient):  # type: ignore[misc]
    """KFP's client, which takes a login page for an answer and trips over a certificate it does not trust."""

    def request(self, *arguments: Any, **options: Any) -> Any:
        try:
            response = super().request(*arguments, **options)
        except kfp_server_api.ApiException as error:
            error.body = error.body or b""
            raise
        try:
            json.loads(response.data)
        except ValueError as error:
            raise kfp_server_api.ApiException(http_resp=response) from error
        return response


def _address(settings: KubeflowSettings, configuration: Any) -> str:
    if settings.endpoint:
        if not re.match(r"https?://[^/]", settings.endpoint):
            raise InputError(f"KFP_ENDPOINT={settings.endpoint} is no address: it begins with https:// or http://.")
        return settings.endpoint.rstrip("/").removesuffix("/#")
    if os.environ.get("KUBERNETES_SERVICE_HOST"):
        return _IN_CLUSTER
    from kubernetes import config
    from kubernetes.config.config_exception import ConfigException

    try:
        config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=configuration)
    except ConfigException as error:
        raise InputError(
            "Nobody says where Kubeflow Pipelines is: set KFP_ENDPOINT to its address, such as "
            "https://kubeflow.example.org/pipeline, or KUBECONFIG (docs/cluster.md)."
        ) from error
    return str(configuration.host).rstrip("/") + _THROUGH_KUBERNETES


def _log_in(settings: KubeflowSettings, configuration: Any) -> None:
    """Give the token; one in a file is read anew for each request, since it is replaced while it is used."""
    file = settings.token_file or (_PROJECTED_TOKEN if Path(_PROJECTED_TOKEN).exists() else "")
    if settings.token.get_secret_value():
        configuration.api_key["authorization"] = settings.token.get_secret_value()
    elif file:
        _readable(file, "KFP_TOKEN_FILE")

        def renew(each: Any) -> None:
            each.api_key["authorization"] = Path(file).read_text(encoding="utf-8").strip()

        renew(configuration)
        configuration.refresh_api_key_hook = renew
    else:
        return
    configuration.api_key_prefix["authorization"] = "Bearer"


def _readable(file: str, variable: str) -> str:
    try:
        with Path(file).open("rb"):
            return file
    except OSError as error:
        raise InputError(f"{variable}={file} cannot be read: {error.strerror}; correct it.") from error


def _kfp_context() -> dict[str, str]:
    """What `kfp` itself keeps of a login, if anything."""
    try:
        found = json.loads(_KFP_CONTEXT.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _own_namespace(settings: KubeflowSettings) -> str:
    try:
        return "" if settings.endpoint else _OWN_NAMESPACE.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _is_page(error: kfp_server_api.ApiException) -> bool:
    return _text(error).lstrip()[:1] == "<"


def _message(error: kfp_server_api.ApiException) -> str:
    try:
        body = json.loads(_text(error))
        found = body.get("message") or body.get("error_message") or body.get("error") or ""
    except (ValueError, AttributeError):
        found = ""
    return " ".join(str(found or error.reason).split()).rstrip(".")[:600]


def _text(error: kfp_server_api.ApiException) -> str:
    body = error.body or ""
    return body.decode(errors="replace") if isinstance(body, bytes) else str(body)


def _cause(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or error
    return re.sub(r"<[^>]*>\)?:? ?", "", str(reason)).strip("( )")[:200] or type(error).__name__
