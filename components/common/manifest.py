"""Manifests: what a stage hands to the next one.

A manifest is a small JSON file that names shards by URI, with their rows, bytes and hashes, the totals, what was left
out and why, and the fingerprints of the inputs. The data itself never travels as a KFP artifact.
"""

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from components.common import storage
from components.common.errors import InputError


class Rejected(BaseModel):
    """An article that was left out: which, why, and what exactly was seen."""

    model_config = ConfigDict(frozen=True)

    id: str
    reason: str
    detail: str = ""


class Shard(BaseModel):
    """A finished piece of data in the store."""

    model_config = ConfigDict(frozen=True)

    name: str
    uri: str
    rows: int
    bytes: int
    sha256: str
    stats: dict[str, Any] = Field(default_factory=dict)


class Manifest(BaseModel):
    """Names the shards of an output and everything they were made from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: str
    fingerprint: str
    inputs: dict[str, str]
    settings: dict[str, Any]
    shards: list[Shard]
    totals: dict[str, int | float]
    dropped: dict[str, int] = Field(default_factory=dict)
    rejected: list[Rejected] = Field(default_factory=list)
    extra: dict[str, Any] = Field(default_factory=dict)

    @classmethod
    def load(cls, path: str | Path) -> "Manifest":
        """Read a manifest from a local file.

        Raises:
            InputError: The file is missing or no manifest.
        """
        try:
            return cls.model_validate_json(Path(path).read_bytes())
        except (OSError, ValidationError) as error:
            raise InputError(
                f"{path} is no manifest of this pipeline ({_first_line(error)}); rerun its step."
            ) from error

    @classmethod
    def load_uri(cls, uri: str) -> "Manifest":
        """Read a manifest from the store; raises like :meth:`load`, and StorageError when nothing is there."""
        try:
            return cls.model_validate_json(storage.read(uri))
        except ValidationError as error:
            raise InputError(
                f"{uri} is no manifest of this pipeline ({_first_line(error)}); rerun its step."
            ) from error

    def save(self, path: str | Path) -> None:
        """Write the manifest to a local file."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(self.to_json(), encoding="utf-8")

    def save_uri(self, uri: str) -> None:
        """Write the manifest to the store."""
        storage.write(uri, self.to_json().encode())

    def to_json(self) -> str:
        """Return the manifest as indented JSON, the same for the same content."""
        return self.model_dump_json(indent=1) + "\n"

    def shard(self, name: str) -> Shard:
        """Return the shard of that name.

        Raises:
            InputError: There is none.
        """
        for shard in self.shards:
            if shard.name == name:
                return shard
        known = ", ".join(shard.name for shard in self.shards[:5])
        raise InputError(f"There is no shard {name!r} in the {self.kind} manifest {self.fingerprint}; it has {known}.")

    def metadata(self) -> dict[str, Any]:
        """Return what the Kubeflow UI shows beside the artifact: flat numbers and strings."""
        return {
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "shards": len(self.shards),
            "bytes": sum(shard.bytes for shard in self.shards),
            **self.totals,
            **{f"dropped_{reason}": count for reason, count in sorted(self.dropped.items())},
            "rejected": len(self.rejected),
        }


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
