"""A registered version becomes an InferenceService that KServe takes, or a sentence that says why not."""

import pytest
import yaml
from mlflow import MlflowClient
from typer.testing import CliRunner

from components.common.errors import InputError
from pipelines.cli import app
from pipelines.serving import RUNTIME, SERVICE_ACCOUNT, ServingSettings, serving_manifest
from tests.k8s_helpers import find, rendered
from tests.retractions_helpers import client, migrated_database
from tools.cluster_manifests.schemas import schema_problems

__all__ = ["client", "migrated_database"]

SOURCE = "s3://bucket/store/models/abc123"


@pytest.fixture
def registry(client: MlflowClient, monkeypatch: pytest.MonkeyPatch) -> str:
    """A model of two versions on S3, the first of which is champion; yields MLflow's address."""
    client.create_registered_model("pmc-llama-7b")
    for number in (1, 2):
        tags = {"model_fingerprint": f"print-{number}"}
        client.create_model_version("pmc-llama-7b", f"{SOURCE}{number}/", tags=tags)
    client.set_registered_model_alias("pmc-llama-7b", "champion", "1")
    return client.tracking_uri


def test_the_champion_is_served_from_its_own_weights_and_scaled_to_zero(registry: str) -> None:
    made = yaml.safe_load(serving_manifest(registry, "models:/pmc-llama-7b@champion", ServingSettings()))
    assert schema_problems(made) == []
    assert made["metadata"]["name"] == "pmc-llama-7b"
    assert made["metadata"]["annotations"] == {
        "serving.kserve.io/deploymentMode": "Knative",
        "pmc-llama/model": "pmc-llama-7b/1",
        "pmc-llama/fingerprint": "print-1",
    }
    predictor = made["spec"]["predictor"]
    assert predictor["minReplicas"] == 0 and predictor["automountServiceAccountToken"] is False
    assert predictor["model"] == {
        "modelFormat": {"name": "huggingface"},
        "runtime": RUNTIME,
        "storageUri": f"{SOURCE}1",
    }


def test_another_version_on_two_gpus_is_spread_over_both(registry: str) -> None:
    settings = ServingSettings(gpus=2, most=3, name="trial")
    made = yaml.safe_load(serving_manifest(registry, "pmc-llama-7b/2", settings))
    assert schema_problems(made) == []
    predictor = made["spec"]["predictor"]
    assert (made["metadata"]["name"], predictor["maxReplicas"]) == ("trial", 3)
    assert predictor["model"]["args"] == ["--tensor-parallel-size=2"]
    assert predictor["model"]["resources"]["limits"] == {"nvidia.com/gpu": "2"}
    assert predictor["model"]["storageUri"] == f"{SOURCE}2"


def test_what_it_names_is_what_the_overlay_deploys(registry: str) -> None:
    objects = rendered("serving", AWS_ENDPOINT_URL="http://pmc-llama-s3:8333")
    made = yaml.safe_load(serving_manifest(registry, "pmc-llama-7b", ServingSettings()))
    predictor, labels = made["spec"]["predictor"], made["metadata"]["labels"]
    runtime = find(objects, "ServingRuntime", predictor["model"]["runtime"])
    formats = [each["name"] for each in runtime["spec"]["supportedModelFormats"]]
    assert predictor["model"]["modelFormat"]["name"] in formats
    account = find(objects, "ServiceAccount", predictor["serviceAccountName"])
    assert account["metadata"]["annotations"] == {
        "serving.kserve.io/s3-endpoint": "pmc-llama-s3:8333",
        "serving.kserve.io/s3-region": "eu-central-1",
        "serving.kserve.io/s3-usehttps": "0",
    }
    policy = find(objects, "NetworkPolicy", SERVICE_ACCOUNT)["spec"]["podSelector"]["matchLabels"]
    assert policy.items() <= labels.items()


def test_weights_on_a_disk_cannot_be_served(client: MlflowClient) -> None:
    client.create_registered_model("local")
    client.create_model_version("local", "file:///home/me/model")
    with pytest.raises(InputError, match="Version 1 of local lies in file:///home/me/model, which no cluster"):
        serving_manifest(client.tracking_uri, "local", ServingSettings())


@pytest.mark.parametrize("name", ["7b", "x" * 41, "---"])
def test_a_name_that_no_service_can_have_is_refused(registry: str, name: str) -> None:
    with pytest.raises(InputError, match="makes no name of a service; give one"):
        serving_manifest(registry, "pmc-llama-7b", ServingSettings(name=name))


def test_the_command_prints_yaml_and_nothing_else(registry: str) -> None:
    done = CliRunner().invoke(app, ["serving-manifest", "pmc-llama-7b@champion"])
    assert done.exit_code == 0, done.output
    assert yaml.safe_load(done.stdout)["kind"] == "InferenceService"
