"""The artifact store: a file is written, listed, read and deleted, as every step does."""

import uuid
from collections.abc import Iterator

from components.common import storage
from components.common.errors import StorageError
from components.common.settings import get_settings
from components.preflight.findings import Finding, failed, ok, unknown, warning
from components.preflight.settings import Situation

SUBJECT = "Store"
_CONTENT = b"preflight"
_RIGHTS = "s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket"


def look_at_store(situation: Situation) -> Iterator[Finding]:
    """Say whether the steps, and the training job's pods, can use the store."""
    if source := situation.given_to_steps("PMC_STORE_URI"):
        yield unknown(SUBJECT, f"The steps take PMC_STORE_URI from {source}.", "The pipeline's first step looks at it.")
        return
    uri = storage.to_uri(get_settings().store_uri)
    local = uri.startswith(storage.FILE_SCHEME)
    if local and situation.on_cluster and not _on_shared_disk(uri, situation):
        yield failed(
            SUBJECT,
            f"{uri} is a disk that not every step and pod of the run sees.",
            "Set PMC_STORE_URI to s3://bucket/prefix, or mount a shared disk there and name it in "
            "train.cluster.volume_claims.",
        )
        return
    if local and situation.submitting:
        yield unknown(
            SUBJECT,
            f"{uri} is a shared disk of the cluster, which this machine does not see.",
            "The pipeline's first step looks at it.",
        )
        return
    endpoint = get_settings().s3_endpoint
    if not local and situation.unseen(endpoint):
        yield unknown(
            SUBJECT, f"{endpoint} is an address within the cluster.", "The pipeline's first step looks at it."
        )
    else:
        yield round_trip(SUBJECT, uri)
    if not local and situation.job_on_cluster:
        yield _identity_of_pods(situation)


def round_trip(subject: str, uri: str) -> Finding:
    """Write, list, read and delete a file below an address.

    Args:
        subject: Of the finding.
        uri: A folder or prefix.
    """
    local = uri.startswith(storage.FILE_SCHEME)
    remedy = (
        "Set PMC_STORE_URI to a folder that can be written."
        if local
        else f"Check the address, AWS_ENDPOINT_URL and the credentials; they need {_RIGHTS} there."
    )
    # A name of its own: two runs may look at the same time.
    folder = storage.join(uri, f".preflight-{uuid.uuid4().hex}")
    probe = storage.join(folder, "probe")
    try:
        storage.write(probe, _CONTENT)
        listed = [entry.uri for entry in storage.list_files(folder)]
        content = storage.read(probe)
        storage.delete(probe)
        left = storage.exists(probe)
        if local:
            storage.delete_prefix(folder)
    except StorageError as error:
        return failed(subject, str(error), remedy)
    if listed != [probe] or content != _CONTENT or left:
        wrong = "list" if listed != [probe] else "give back" if content != _CONTENT else "delete"
        return failed(subject, f"{uri} does not {wrong} what is written to it.", "See what stands behind that address.")
    return ok(subject, f"{uri} can be written, listed, read and deleted{_credentials(local)}.")


def _on_shared_disk(uri: str, situation: Situation) -> bool:
    path = storage.local_path(uri)
    mounts = situation.train.cluster.volume_claims.values()
    return situation.job_on_cluster and any(path.is_relative_to(mount) for mount in mounts)


def _identity_of_pods(situation: Situation) -> Finding:
    """The pods sign their requests themselves: no key of this step is handed on to them."""
    cluster = situation.train.cluster
    given = {key for keys in [*cluster.secrets.values(), *cluster.config_maps.values()] for key in keys}
    subject = "Store, from the job's pods"
    if {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"} <= given:
        return ok(subject, "They take their keys from a secret.")
    if cluster.service_account:
        return ok(subject, f"They are service account {cluster.service_account} towards the store.")
    return warning(
        subject,
        "They are given neither keys nor a service account.",
        "Name a secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in train.cluster.secrets, or an identity in "
        "train.cluster.service_account; leave both out only where the nodes themselves may use the store.",
    )


def _credentials(local: bool) -> str:
    if local:
        return ""
    from boto3.session import Session

    found = Session(region_name=get_settings().s3_region).get_credentials()
    return f", with credentials from {_METHODS.get(found.method, found.method)}" if found else ""


_METHODS = {
    "env": "the environment",
    "shared-credentials-file": "AWS's credentials file",
    "config-file": "AWS's configuration file",
    "assume-role-with-web-identity": "the service account's role",
    "container-role": "the pod's role",
    "iam-role": "the node's role",
    "sso": "single sign-on",
}
