"""A registered model as an InferenceService of KServe: what `kubectl apply` makes a model server of."""

import re
from dataclasses import dataclass
from typing import Any

import yaml
from mlflow.entities.model_registry import ModelVersion

from components.common.errors import InputError
from components.common.model_registry import find_version

RUNTIME = "pmc-llama-vllm"
SERVICE_ACCOUNT = "pmc-llama-serving"
FINGERPRINT_TAG = "model_fingerprint"
_LONGEST_NAME = 40  # KServe and Knative append to it, and a host's label has 63 characters
_REQUESTS_AT_ONCE = 16  # of one server; more of them start another, up to `most`


@dataclass(frozen=True)
class ServingSettings:
    """How a model is served.

    Attributes:
        gpus: Of each server; the model is spread over them.
        most: So many servers at most; none runs while nobody asks.
        name: Of the service; empty: the registered model's.
    """

    gpus: int = 1
    most: int = 1
    name: str = ""


def serving_manifest(tracking_uri: str, wanted: str, settings: ServingSettings) -> str:
    """The InferenceService of a model version, as YAML.

    The version is resolved now: when an alias moves on, the manifest is to be rendered and applied again; KServe starts
    the new model before it ends the old.

    Args:
        tracking_uri: Address of MLflow.
        wanted: The version; see :func:`find_version`.
        settings: How it is served.

    Raises:
        InputError: There is no such version, or no cluster can reach its weights.
        PipelineError: MLflow does not answer.
    """
    return yaml.safe_dump(inference_service(find_version(tracking_uri, wanted), settings), sort_keys=False)


def inference_service(version: ModelVersion, settings: ServingSettings) -> dict[str, Any]:
    """The InferenceService of a model version, scaled to zero.

    Args:
        version: As MLflow has it.
        settings: How it is served.

    Raises:
        InputError: No cluster can reach its weights, or its name is no name of a service.
    """
    source = str(version.source or "")
    if not source.startswith("s3://"):
        raise InputError(
            f"Version {version.version} of {version.name} lies in {source or 'no place at all'}, which no cluster "
            "can reach; run the pipeline with PMC_STORE_URI=s3://..."
        )
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {
            "name": _service_name(settings.name or str(version.name)),
            "labels": {"app.kubernetes.io/name": SERVICE_ACCOUNT, "app.kubernetes.io/part-of": "pmc-llama"},
            "annotations": {
                # Knative ends the last server when nobody asks; KServe's other mode keeps one.
                "serving.kserve.io/deploymentMode": "Knative",
                "pmc-llama/model": f"{version.name}/{version.version}",
                "pmc-llama/fingerprint": version.tags.get(FINGERPRINT_TAG, "unknown"),
            },
        },
        "spec": {
            "predictor": {
                "minReplicas": 0,
                "maxReplicas": settings.most,
                "scaleMetric": "concurrency",
                "scaleTarget": _REQUESTS_AT_ONCE,
                "serviceAccountName": SERVICE_ACCOUNT,
                "automountServiceAccountToken": False,
                "model": {
                    "modelFormat": {"name": "huggingface"},
                    "runtime": RUNTIME,
                    "storageUri": source.rstrip("/"),
                    **_gpus(settings.gpus),
                },
            }
        },
    }


def _gpus(count: int) -> dict[str, Any]:
    if count == 1:
        return {}  # the runtime's own
    amount = {"nvidia.com/gpu": str(count)}
    return {"args": [f"--tensor-parallel-size={count}"], "resources": {"requests": amount, "limits": amount}}


def _service_name(name: str) -> str:
    made = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    if not made or not made[0].isalpha() or len(made) > _LONGEST_NAME:
        raise InputError(
            f"{name!r} makes no name of a service; give one of up to {_LONGEST_NAME} small letters, digits and -, as "
            "--name."
        )
    return made
