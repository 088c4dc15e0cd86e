"""Passwords of the S3 server and the database that the overlay `dev` brings: drawn once, kept by the cluster alone."""

import secrets
from typing import Any

from tools.cluster_manifests.s3_annotations import s3_annotations

_BYTES = 24


def dev_secrets(namespace: str) -> list[dict[str, Any]]:
    """The secrets of the overlay `dev`, with new random values; they are piped to kubectl and written nowhere.

    Args:
        namespace: Where they belong.
    """
    password = secrets.token_hex(_BYTES)
    return [
        _secret(
            "pmc-llama-s3",
            namespace,
            {"AWS_ACCESS_KEY_ID": secrets.token_hex(10), "AWS_SECRET_ACCESS_KEY": secrets.token_hex(_BYTES)},
            s3_annotations("http://pmc-llama-s3:8333", "us-east-1"),
        ),
        _secret(
            "pmc-llama-mlflow-database",
            namespace,
            {"password": password, "uri": f"postgresql://mlflow:{password}@pmc-llama-postgresql:5432/mlflow"},
        ),
    ]


def _secret(
    name: str, namespace: str, values: dict[str, str], annotations: dict[str, str] | None = None
) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": name,
            "namespace": namespace,
            "labels": {"app.kubernetes.io/part-of": "pmc-llama"},
            "annotations": annotations or {},
        },
        "stringData": values,
    }
