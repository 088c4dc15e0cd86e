"""Where a base model lies: the bundled tiny one, a folder, an S3 prefix or the Hugging Face hub."""

import contextlib
import logging
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import sha256_file
from components.download.remote_file import RemoteFile
from components.download.settings import DownloadSettings

log = logging.getLogger(__name__)

COMMIT = re.compile(r"[0-9a-f]{40}")
_HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class ModelPlace:
    """The files in a model's own folder, and the commit where there is one."""

    files: list[RemoteFile]
    commit: str = ""
    inputs: dict[str, str] = field(default_factory=dict)


@contextlib.contextmanager
def open_place(settings: DownloadSettings) -> Iterator[ModelPlace]:
    """List the files of the base model that the settings name; they can be read within the context.

    Raises:
        InputError: There is no such place.
        StorageError: The bucket cannot be listed.
    """
    place = settings.base_model
    if place == "sample":
        from components.download.sample.tiny_llama import write_tiny_llama

        with tempfile.TemporaryDirectory(prefix="pmc-") as scratch:
            write_tiny_llama(Path(scratch), seed=settings.base_model_seed)
            yield ModelPlace(_stored_files(storage.to_uri(scratch)))
    elif place.startswith(storage.S3_SCHEME) or storage.local_path(storage.to_uri(place)).is_dir():
        yield ModelPlace(_stored_files(storage.to_uri(place)))
    elif _HUB_NAME.fullmatch(place):
        yield _on_hub(settings)
    else:
        raise InputError(f"There is no folder {place}; check download.base_model (a folder, s3:// or owner/name).")


def _stored_files(uri: str) -> list[RemoteFile]:
    entries = [entry for entry in storage.list_files(uri) if "/" not in storage.relative(entry.uri, uri)]
    if not entries:
        raise InputError(f"There is nothing at {uri}; check download.base_model.")
    local = uri.startswith(storage.FILE_SCHEME)
    return [
        RemoteFile(
            name=storage.relative(entry.uri, uri),
            place=entry.uri,
            read=partial(storage.read_stream, entry.uri),
            size=entry.size,
            # A folder's times say little of its content, and reading it is cheap; of a bucket the ETag does.
            sha256=sha256_file(storage.local_path(entry.uri)) if local else "",
            etag=entry.etag,
        )
        for entry in entries
    ]


def _on_hub(settings: DownloadSettings) -> ModelPlace:
    # It takes a third of a second to import, which other places need not pay.
    from components.download.hub import open_repo

    name, revision = settings.base_model, settings.base_model_revision
    repo = open_repo(name, revision, "model", settings.transport)
    if COMMIT.fullmatch(revision) and revision != repo.commit:
        raise InputError(f"The hub answers with commit {repo.commit} of {name} for {revision}; check HF_ENDPOINT.")
    if revision != repo.commit:
        log.warning(
            "The base model %s is taken at %r, which can move; it is %s now: set download.base_model_revision to that.",
            name, revision, repo.commit,
        )  # fmt: skip
    files = [file for file in repo.files.values() if "/" not in file.name]
    return ModelPlace(files, repo.commit, {"repository": repo.pin})
