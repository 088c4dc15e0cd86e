"""MLflow's model registry: versions by reference to their weights in the store, aliases, tags."""

import contextlib
import logging
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.common import storage
from components.common.model_registry import CHAMPION, TAG_LIMIT, explained, get_model

log = logging.getLogger(__name__)

CANDIDATE = "candidate"
FINGERPRINT_TAG = "model_fingerprint"


class Registry:
    """The versions of one registered model."""

    def __init__(self, tracking_uri: str, name: str) -> None:
        """Connect to a registry.

        Args:
            tracking_uri: Address of MLflow, such as ``sqlite:///mlflow.db`` or ``http://mlflow:5000``.
            name: Of the registered model.
        """
        self.name = name
        self._uri = tracking_uri
        with self._explained("be reached"):
            self._client = MlflowClient(tracking_uri=tracking_uri, registry_uri=tracking_uri)

    def champion(self) -> ModelVersion | None:
        """Return the version that holds the alias ``champion``."""
        with self._explained("give the champion"):
            model = get_model(self._client, self.name)
            version = model.aliases.get(CHAMPION) if model else None
            return self._client.get_model_version(self.name, version) if version else None

    def add_version(
        self, model_uri: str, fingerprint: str, tags: Mapping[str, str], description: str, run_id: str = ""
    ) -> ModelVersion:
        """Register the model of that fingerprint, or update the version that it already has.

        Args:
            model_uri: Folder of the store that :func:`layout.add_mlflow_files` made an MLflow model.
            fingerprint: Of the model: what a version is found by.
            tags: What to know about it.
            description: Markdown for the registry's page.
            run_id: MLflow run that made it, if any.

        Raises:
            PipelineError: The registry refuses.
        """
        every = {FINGERPRINT_TAG: fingerprint, **{key: value[:TAG_LIMIT] for key, value in tags.items()}}
        with self._explained(f"register {self.name}"):
            self._ensure_model()
            found = self._versions_of(fingerprint)
            if not found:
                return self._client.create_model_version(
                    self.name, _source(model_uri), run_id=run_id or None, tags=every, description=description
                )
            version = found[0]
            for key, value in every.items():
                self._client.set_model_version_tag(self.name, version.version, key, value)
            self._client.update_model_version(self.name, version.version, description=description)
            return version

    def set_aliases(self, version: str, champion: bool) -> list[str]:
        """Make a version the candidate, and champion or not; returns the aliases it now has.

        A version that held the place of the champion and no longer passes the gate loses it.
        """
        with self._explained(f"set the aliases of {self.name}"):
            self._client.set_registered_model_alias(self.name, CANDIDATE, version)
            if champion:
                self._client.set_registered_model_alias(self.name, CHAMPION, version)
            elif (holder := self.champion()) is not None and str(holder.version) == str(version):
                log.warning("Version %s of %s no longer passes and is champion no more", version, self.name)
                self._client.delete_registered_model_alias(self.name, CHAMPION)
            aliases = self._client.get_registered_model(self.name).aliases
            return sorted(alias for alias, holder in aliases.items() if str(holder) == str(version))

    def _ensure_model(self) -> None:
        if get_model(self._client, self.name) is None:
            try:
                self._client.create_registered_model(self.name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # a parallel run made it between our two calls
                    raise

    def _versions_of(self, fingerprint: str) -> list[ModelVersion]:
        """Return the versions of a model, oldest first."""
        query = f"name = '{self.name}' and tags.{FINGERPRINT_TAG} = '{fingerprint}'"
        return sorted(self._client.search_model_versions(query), key=lambda version: int(version.version))

    def _explained(self, what: str) -> contextlib.AbstractContextManager[None]:
        return explained(self._uri, what)


def _source(model_uri: str) -> str:
    """MLflow decodes ``%20`` and the like in file URIs, our store does not."""
    return storage.local_path(model_uri).as_uri() if model_uri.startswith(storage.FILE_SCHEME) else model_uri
