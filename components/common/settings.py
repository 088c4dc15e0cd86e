"""Endpoints, places and names that come from the environment, typed.

What a run does is the recipe's; where it does it is the environment's. Secrets are never fields here: boto3 finds
credentials where it always does (environment, profile, IRSA, SSO).
"""

from functools import lru_cache

from pydantic import AliasChoices, Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """Settings of the place a step runs in; `.env.example` documents each variable."""

    model_config = SettingsConfigDict(extra="ignore", frozen=True, populate_by_name=True)

    store_uri: str = Field(default="file://.pmc/store", validation_alias="PMC_STORE_URI")
    run_id: str = Field(default="", validation_alias=AliasChoices("PMC_RUN_ID", "KFP_RUN_ID"))
    run_name: str = Field(default="", validation_alias="PMC_RUN_NAME")
    image: str = Field(default="pmc-llama-pipeline:latest", validation_alias="PMC_IMAGE")
    trainer_image: str = Field(default="pmc-llama-trainer:latest", validation_alias="PMC_TRAINER_IMAGE")
    git_revision: str = Field(default="", validation_alias="PMC_GIT_REVISION")
    s3_endpoint: str = Field(default="", validation_alias=AliasChoices("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"))
    pmc_endpoint: str = Field(default="", validation_alias="PMC_OA_ENDPOINT_URL")
    s3_region: str = Field(default="us-east-1", validation_alias=AliasChoices("AWS_REGION", "AWS_DEFAULT_REGION"))
    tracking_uri: str = Field(default="", validation_alias="MLFLOW_TRACKING_URI")
    kfp_ui: str = Field(
        default="", validation_alias=AliasChoices("KFP_UI_URL", "KF_PIPELINES_UI_ENDPOINT", "KFP_ENDPOINT")
    )
    experiment: str = Field(default="pmc-llama", validation_alias="MLFLOW_EXPERIMENT_NAME")

    @property
    def run_url(self) -> str:
        """Address of the pipeline run in the Kubeflow UI; empty where it is not known."""
        return f"{self.kfp_ui.rstrip('/')}/#/runs/details/{self.run_id}" if self.kfp_ui and self.run_id else ""


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """Return the settings of this process, read from the environment once."""
    return Settings()
