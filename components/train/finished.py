"""Whether a run was finished before."""

from components.common import storage
from components.common.manifest import Manifest


def finished_run(manifest_uri: str) -> Manifest | None:
    """The manifest of a finished run whose files are all there; a run without some exports them again."""
    if not storage.exists(manifest_uri):
        return None
    manifest = Manifest.load_uri(manifest_uri)
    return manifest if all(storage.exists(shard.uri) for shard in manifest.shards) else None
