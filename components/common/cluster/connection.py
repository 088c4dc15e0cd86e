"""The Kubernetes API as this room needs it: a few verbs on a few kinds, patient with a server that comes back."""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

import tenacity
import urllib3
from kubernetes import client
from kubernetes import config as kubernetes_config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException
from kubernetes.utils.quantity import parse_quantity
from kubernetes.watch.watch import iter_resp_lines

from components.common.errors import ClusterError

log = logging.getLogger(__name__)

_NAMESPACE_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/namespace"
_ANSWER_SECONDS = (10, 60)  # to connect, and between two packets of an answer
# A watch that says nothing for so long is taken for dead and resumed: half-open connections look just like it.
_SILENT_SECONDS = (10, 90)
_WATCH_SECONDS = 300
_PASSING = {408, 429, 500, 502, 503, 504}
_MERGE_PATCH = "application/merge-patch+json"
GONE = 410
_T = TypeVar("_T")


@dataclass(frozen=True)
class Kind:
    """A kind of objects: where the API has them."""

    name: str
    plural: str
    group: str = ""
    version: str = "v1"
    namespaced: bool = True

    @property
    def prefix(self) -> str:
        """Path of the API group."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


PYTORCHJOBS = Kind("PyTorchJob", "pytorchjobs", "kubeflow.org")
TRAINJOBS = Kind("TrainJob", "trainjobs", "trainer.kubeflow.org", "v1alpha1")
PODS = Kind("Pod", "pods")
EVENTS = Kind("Event", "events")
_REVIEWS = Kind("SelfSubjectAccessReview", "selfsubjectaccessreviews", "authorization.k8s.io", namespaced=False)
_IDENTITIES = Kind("SelfSubjectReview", "selfsubjectreviews", "authentication.k8s.io", namespaced=False)


class NotAllowed(ClusterError):
    """The cluster knows us, and we have no right to that."""


class Stream:
    """Lines of an answer that goes on; another thread may end it."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        """Bind the open answer."""
        self._response = response

    def __iter__(self) -> Iterator[str]:
        """Yield whole lines; a line that is cut off by the end is left out."""
        try:
            yield from iter_resp_lines(self._response)
        finally:
            self._response.close()

    def shut(self) -> None:
        """End it, from any thread."""
        with contextlib.suppress(Exception):  # it may have ended by itself, in any state
            self._response.shutdown()  # type: ignore[attr-defined]


class Cluster:
    """One namespace of a cluster.

    Attributes:
        namespace: Where the job and its pods are.
        patience: Seconds for which a server that does not answer is asked again.
    """

    def __init__(self, api: client.ApiClient, namespace: str, patience: float) -> None:
        """Bind a client; :func:`connect` makes one."""
        self._api = api
        self.namespace = namespace
        self.patience = patience

    def get(self, kind: Kind, name: str) -> dict[str, Any] | None:
        """An object, or None if there is none of that name."""
        try:
            return self._patiently("get", kind, lambda: self._call(kind, "GET", name))
        except ApiException as error:
            if error.status == 404:
                return None
            raise explained("get", kind, self.namespace, error) from error

    def create(self, kind: Kind, manifest: dict[str, Any]) -> dict[str, Any] | None:
        """The object as it was made, or None if there is one of its name.

        Raises:
            ClusterError: The cluster refuses it.
        """
        # Strict: the server names a field that it does not know, instead of dropping it.
        query = [("fieldValidation", "Strict")]
        try:
            return self._patiently("create", kind, lambda: self._call(kind, "POST", query=query, body=manifest))
        except ApiException as error:
            if error.status == 409 and _reason(error) == "AlreadyExists":
                return None
            raise explained("create", kind, self.namespace, error) from error

    def annotate(self, kind: Kind, name: str, annotations: dict[str, str]) -> None:
        """Add annotations to an object; nothing happens if it is gone."""
        body = {"metadata": {"annotations": annotations}}
        try:
            self._patiently("patch", kind, lambda: self._call(kind, "PATCH", name, body=body))
        except ApiException as error:
            if error.status != 404:
                raise explained("patch", kind, self.namespace, error) from error

    def delete(self, kind: Kind, name: str, uid: str) -> None:
        """Have this very object deleted, once what it owns is gone; if it is gone, or is another, nothing happens."""
        body = {"propagationPolicy": "Foreground", "preconditions": {"uid": uid}}
        try:
            self._patiently("delete", kind, lambda: self._call(kind, "DELETE", name, body=body))
        except ApiException as error:
            if error.status not in (404, 409):
                raise explained("delete", kind, self.namespace, error) from error

    def find(self, kind: Kind, **selectors: str) -> tuple[list[dict[str, Any]], str]:
        """The objects and the version of the world they belong to; a cluster without the kind has none.

        Args:
            kind: Of the objects.
            selectors: `labelSelector`, `fieldSelector`.
        """
        try:
            found = self._patiently("list", kind, lambda: self._call(kind, "GET", query=list(selectors.items())))
        except ApiException as error:
            if error.status == 404:
                return [], ""
            raise explained("list", kind, self.namespace, error) from error
        return found["items"], found["metadata"]["resourceVersion"]

    def can_i(self, verb: str, group: str, resource: str) -> bool:
        """Whether we have a right in the namespace; everybody may ask that of himself.

        Args:
            verb: Such as `create`.
            group: API group; empty for the core group.
            resource: In the plural, with its subresource if there is one, such as `pods/log`.
        """
        plural, _, subresource = resource.partition("/")
        wanted = {"namespace": self.namespace, "verb": verb, "group": group, "resource": plural}
        wanted |= {"subresource": subresource} if subresource else {}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": _REVIEWS.name,
            "spec": {"resourceAttributes": wanted},
        }
        answer = self.create(_REVIEWS, review) or {}
        return bool((answer.get("status") or {}).get("allowed"))

    def who_am_i(self) -> str:
        """Our user name; empty where the cluster is too old to tell it (before Kubernetes 1.28)."""
        review = {"apiVersion": "authentication.k8s.io/v1", "kind": _IDENTITIES.name}
        try:
            answer = self.create(_IDENTITIES, review) or {}
        except ClusterError as error:
            if isinstance(error.__cause__, ApiException) and error.__cause__.status in (403, 404):
                return ""
            raise
        return str(((answer.get("status") or {}).get("userInfo") or {}).get("username", ""))

    def server_version(self) -> str:
        """Of Kubernetes, such as v1.33.1."""
        return str((self._document("/version") or {}).get("gitVersion", ""))

    def versions(self, group: str) -> list[str]:
        """Versions of an API group that the cluster serves, its preferred one first; a group it has not has none."""
        found = self._document(f"/apis/{group}") or {}
        versions = [each["version"] for each in found.get("versions") or []]
        preferred = (found.get("preferredVersion") or {}).get("version")
        return sorted(versions, key=lambda each: each != preferred)

    def serves(self, kind: Kind) -> bool:
        """Whether the cluster has this kind of objects, in this version."""
        found = self._document(kind.prefix) or {}
        return any(each["name"] == kind.plural for each in found.get("resources") or [])

    def watch(self, kind: Kind, version: str, **selectors: str) -> Stream:
        """Changes since a version of the world, a JSON document in a line; once, and without patience.

        Raises:
            ApiException: The server refuses.
            HTTPError: It does not answer.
        """
        query = [("watch", "true"), ("resourceVersion", version), ("allowWatchBookmarks", "true")]
        query += [("timeoutSeconds", str(_WATCH_SECONDS)), *selectors.items()]
        return Stream(self._open(f"{kind.prefix}/namespaces/{{namespace}}/{kind.plural}", query))

    def log(self, pod: str, container: str, since: str | None, follow: bool, previous: bool) -> Stream:
        """Lines of a container, each with its time in front; once, and without patience.

        Args:
            pod: Its name.
            container: Its name.
            since: RFC 3339; the node rounds it down to the second. None: from the start.
            follow: Go on until the container ends.
            previous: Of the container before its last restart.

        Raises:
            ApiException: The server refuses.
            HTTPError: It does not answer.
        """
        query = [("container", container), ("timestamps", "true")]
        query += [("sinceTime", since)] if since else []
        query += [("follow", "true")] if follow else []
        query += [("previous", "true")] if previous else []
        return Stream(self._open(f"/api/v1/namespaces/{{namespace}}/pods/{pod}/log", query))

    def _open(self, path: str, query: list[tuple[str, str]]) -> Any:
        return self._api.call_api(
            path,
            "GET",
            {"namespace": self.namespace},
            query,
            {"Accept": "*/*"},
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _preload_content=False,
            _request_timeout=_SILENT_SECONDS,
        )

    def _call(
        self, kind: Kind, method: str, name: str = "", query: list[tuple[str, str]] | None = None, body: Any = None
    ) -> Any:
        place = f"{kind.prefix}/namespaces/{{namespace}}" if kind.namespaced else kind.prefix
        return self._request(
            f"{place}/{kind.plural}" + (f"/{name}" if name else ""),
            method,
            {"namespace": self.namespace} if kind.namespaced else {},
            query or [],
            body,
        )

    def _document(self, path: str) -> Any:
        """What the API says of itself, which everybody may read; None if it has no such path."""
        kind = Kind("document", path, namespaced=False)
        try:
            return self._patiently("get", kind, lambda: self._request(path, "GET"))
        except ApiException as error:
            if error.status == 404:
                return None
            raise explained("get", kind, self.namespace, error) from error

    def _request(
        self,
        path: str,
        method: str,
        parts: dict[str, str] | None = None,
        query: list[tuple[str, str]] | None = None,
        body: Any = None,
    ) -> Any:
        content = _MERGE_PATCH if method == "PATCH" else "application/json"
        return self._api.call_api(
            path,
            method,
            parts or {},
            query or [],
            {"Accept": "application/json", "Content-Type": content},
            body=body,
            response_type="object",
            auth_settings=["BearerToken"],
            _return_http_data_only=True,
            _request_timeout=_ANSWER_SECONDS,
        )

    def _patiently(self, verb: str, kind: Kind, action: Callable[[], _T]) -> _T:
        attempts = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_passing),
            wait=tenacity.wait_exponential_jitter(initial=0.1, max=10, jitter=0.1),
            stop=tenacity.stop_after_delay(self.patience),
            before_sleep=lambda state: _tell_retry(verb, kind, state),
            reraise=True,
        )
        try:
            return attempts(action)
        except (urllib3.exceptions.HTTPError, ApiException) as error:
            if isinstance(error, ApiException) and not is_passing(error):
                raise
            raise unreachable(self.patience, error) from error


def connect(namespace: str | None = None, patience_minutes: float = 30) -> Cluster:
    """The cluster that this step runs in, or the one that kubectl would use here.

    Args:
        namespace: Of all that is asked for; none: the step's own, or kubectl's.
        patience_minutes: For how long a server that does not answer is asked again.

    Raises:
        ClusterError: Neither is there.
    """
    configuration = client.Configuration()
    try:
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            kubernetes_config.load_incluster_config(client_configuration=configuration)
        else:
            kubernetes_config.load_kube_config(os.environ.get("KUBECONFIG"), client_configuration=configuration)
    except ConfigException as error:
        raise ClusterError(
            f"There is no Kubernetes cluster to train on: {error}; run the step in one, set KUBECONFIG, or set "
            "launcher to local."
        ) from error
    configuration.retries = False  # the patience is ours: it tells what it waits for
    return Cluster(client.ApiClient(configuration), namespace or _own_namespace(), patience_minutes * 60)


def is_passing(error: BaseException) -> bool:
    """Whether asking again may help."""
    if isinstance(error, ApiException):
        return error.status in _PASSING
    passing = isinstance(error, urllib3.exceptions.HTTPError)
    return passing and not isinstance(error, urllib3.exceptions.SSLError)  # a wrong certificate stays wrong


def explained(verb: str, kind: Kind, namespace: str, error: ApiException) -> ClusterError:
    """A refusal as one sentence."""
    message = _message(error)
    what = f"{kind.plural}{'.' + kind.group if kind.group else ''}"
    what += f" in namespace {namespace}" if kind.namespaced else ""
    if error.status in (401, 403):
        # 401: the token is not accepted at all, which no right mends.
        kind_of_error = NotAllowed if error.status == 403 else ClusterError
        return kind_of_error(f"The step may not {verb} {what}: {message}. Give its service account that right.")
    if error.status == 404:
        return ClusterError(
            f"The cluster knows no {kind.name} ({kind.group}/{kind.version}), or no namespace {namespace}: install the "
            "operator, or choose another launcher or namespace."
        )
    return ClusterError(f"The cluster refuses to {verb} {what}: {message}.")


def unreachable(seconds: float, error: BaseException) -> ClusterError:
    """Patience has run out."""
    return ClusterError(
        f"The Kubernetes API has not answered for {seconds / 60:g} minutes ({cause(error)}). The job, if there is one, "
        "goes on; the step adopts it when it is run again."
    )


def amount(text: object) -> Decimal:
    """The number that a quantity stands for, in any form in which an API server writes one: `63800m`, `1e3`, `2Ei`."""
    return Decimal(parse_quantity(str(text)))


def cause(error: BaseException) -> str:
    """An error of the API in few words."""
    return _message(error) if isinstance(error, ApiException) else f"{type(error).__name__}: {error}"[:300]


def _own_namespace() -> str:
    try:
        with open(_NAMESPACE_FILE, encoding="utf-8") as file:  # noqa: PTH123
            return file.read().strip()
    except FileNotFoundError:
        _, active = kubernetes_config.list_kube_config_contexts(os.environ.get("KUBECONFIG"))
        return str(active["context"].get("namespace", "default"))


def _tell_retry(verb: str, kind: Kind, state: tenacity.RetryCallState) -> None:
    error = state.outcome.exception() if state.outcome else None
    if state.attempt_number == 1 and error is not None:
        log.warning("The Kubernetes API does not %s %s (%s); asking again.", verb, kind.plural, cause(error))


def _status(error: ApiException) -> dict[str, Any]:
    try:
        found = json.loads(error.body or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _reason(error: ApiException) -> str:
    return str(_status(error).get("reason", ""))


def _message(error: ApiException) -> str:
    return str(_status(error).get("message") or f"{error.status} {error.reason}").rstrip(".")[:1000]
