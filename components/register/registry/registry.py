"""MLflow's model registry: versions by reference to their weights in the store, aliases, tags."""

import contextlib
import logging
import re
import uuid
from collections.abc import Mapping

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from components.common import storage
from components.common.errors import PipelineError
from components.common.fingerprint import fingerprint as digest
from components.common.lock import StoreLock
from components.common.model_registry import CHAMPION, DESCRIPTION_LIMIT, TAG_LIMIT, explained, get_model
from components.register.registry.layout import to_source

log = logging.getLogger(__name__)

FINGERPRINT_TAG = "model_fingerprint"
LOCK_TAG = "lock_uri"
JOURNAL_TAG = "promotion_in_progress"
_REQUEST_TAG = "registration_request"


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

    def lock(self, store_uri: str) -> StoreLock:
        """Return the lock of this model; whoever changes versions or aliases holds it.

        The model is made if there is none. Where its lock lies is said once, by a tag that is written together with
        the model, so that processes with other stores take the same lock.

        Raises:
            PipelineError: The registry refuses, or the lock lies where this process cannot share it.
        """
        place = self._lock_place(storage.join(storage.to_uri(store_uri), "registry", _segment(self.name), "lock"))
        if place.startswith(storage.FILE_SCHEME) and not storage.to_uri(store_uri).startswith(storage.FILE_SCHEME):
            raise PipelineError(
                f"The lock of the model {self.name} lies on a disk ({place}), which processes that store in "
                f"{store_uri} do not share; set the registered model's tag {LOCK_TAG} to a folder of the common store."
            )
        return StoreLock(place, f"the model {self.name}")

    def aliases(self) -> dict[str, str]:
        """Return the version that each alias stands for; none for a model that is not registered."""
        with self._explained(f"give the aliases of {self.name}"):
            model = get_model(self._client, self.name)
            return {alias: str(version) for alias, version in model.aliases.items()} if model else {}

    def champion(self) -> ModelVersion | None:
        """Return the version that holds the alias ``champion``."""
        number = self.aliases().get(CHAMPION)
        return self.version(number) if number else None

    def version(self, number: str) -> ModelVersion:
        """Return a version by its number."""
        with self._explained(f"give version {number} of {self.name}"):
            return self._client.get_model_version(self.name, number)

    def versions_of(self, fingerprint: str) -> list[ModelVersion]:
        """Return the versions of the model with that fingerprint, oldest first."""
        with self._explained(f"look for versions of {self.name}"):
            query = f"name = '{self.name}' and tags.{FINGERPRINT_TAG} = '{fingerprint}'"
            return sorted(self._client.search_model_versions(query), key=lambda version: int(version.version))

    def add_version(
        self, model_uri: str, fingerprint: str, tags: Mapping[str, str], description: str, run_id: str = ""
    ) -> ModelVersion:
        """Register the model of that fingerprint, or update the version that it already has.

        Hold the lock: MLflow itself would make two versions for two that ask at once.

        Args:
            model_uri: Folder of the store that :func:`layout.add_mlflow_files` made an MLflow model.
            fingerprint: Of the model: what a version is found by.
            tags: What to know about it; one that is empty is removed.
            description: Markdown for the registry's page.
            run_id: MLflow run that made it, if any.

        Raises:
            PipelineError: The registry refuses.
        """
        description = description[:DESCRIPTION_LIMIT]
        found = self.versions_of(fingerprint)
        if not found:
            return self._create(model_uri, {FINGERPRINT_TAG: fingerprint, **tags}, description, run_id)
        version = found[0]
        self.tag(str(version.version), tags)
        with self._explained(f"update version {version.version} of {self.name}"):
            self._client.update_model_version(self.name, version.version, description=description)
        return self.version(str(version.version))

    def tag(self, number: str, tags: Mapping[str, str]) -> None:
        """Set tags of a version; one that is empty is removed."""
        with self._explained(f"tag version {number} of {self.name}"):
            there = self._client.get_model_version(self.name, number).tags
            for key, value in tags.items():
                if value:
                    self._client.set_model_version_tag(self.name, number, key, value[:TAG_LIMIT])
                elif key in there:
                    self._client.delete_model_version_tag(self.name, number, key)

    def set_alias(self, alias: str, number: str | None) -> None:
        """Let an alias stand for a version, or for none."""
        with self._explained(f"set the alias {alias} of {self.name}"):
            if number is None:
                self._client.delete_registered_model_alias(self.name, alias)
            else:
                self._client.set_registered_model_alias(self.name, alias, number)

    def journal(self) -> str:
        """Return what was noted before a promotion; empty when none was interrupted."""
        with self._explained(f"read the tags of {self.name}"):
            model = get_model(self._client, self.name)
            return model.tags.get(JOURNAL_TAG, "") if model else ""

    def write_journal(self, text: str) -> None:
        """Note what a promotion is about to do; empty: it is done."""
        with self._explained(f"tag {self.name}"):
            if text:
                self._client.set_registered_model_tag(self.name, JOURNAL_TAG, text)
            else:
                self._client.delete_registered_model_tag(self.name, JOURNAL_TAG)

    def _lock_place(self, wanted: str) -> str:
        """Return where the model's lock lies: as whoever made the model, or first tagged it, has said."""
        with self._explained(f"register {self.name}"):
            model = get_model(self._client, self.name)
            if model is None:
                self._make_model({LOCK_TAG: wanted})
                model = self._client.get_registered_model(self.name)
            if LOCK_TAG not in model.tags:
                self._client.set_registered_model_tag(self.name, LOCK_TAG, wanted)
                model = self._client.get_registered_model(self.name)
            return str(model.tags[LOCK_TAG])

    def _make_model(self, tags: Mapping[str, str]) -> None:
        try:
            self._client.create_registered_model(self.name, tags=dict(tags))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":  # a parallel run made it between our two calls
                raise

    def _create(self, model_uri: str, tags: Mapping[str, str], description: str, run_id: str) -> ModelVersion:
        """Make a version. MLflow's client repeats a request whose answer was lost: what that makes twice is removed."""
        request = uuid.uuid4().hex
        every = {key: value[:TAG_LIMIT] for key, value in tags.items() if value} | {_REQUEST_TAG: request}
        with self._explained(f"register {self.name}"):
            self._client.create_model_version(
                self.name, to_source(model_uri), run_id=run_id or None, tags=every, description=description
            )
            version, *repeated = [
                v for v in self.versions_of(tags[FINGERPRINT_TAG]) if v.tags.get(_REQUEST_TAG) == request
            ]
            for each in repeated:
                self._client.delete_model_version(self.name, each.version)
            return version

    def _explained(self, what: str) -> contextlib.AbstractContextManager[None]:
        return explained(self._uri, what)


def _segment(name: str) -> str:
    """Make a model's name a folder's, a different one for each: MLflow allows nearly any character."""
    return name if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,100}", name) else digest(name)
