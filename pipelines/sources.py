"""The state of a recipe's sources, so that one that changed is not served from the cache."""

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint
from components.download.sources import require_place, source_version
from pipelines.recipe import Recipe


def with_version(recipe: Recipe) -> Recipe:
    """Return the recipe with ``download.version`` set to a hash of the sources' state.

    That is the names, sizes and times of files, PubMed Central's newest inventory, or S2ORC's newest release.

    A version that the recipe gives itself stays.

    Raises:
        InputError: A place that the recipe names, or needs, is not there.
    """
    download = recipe.download
    require_place(download)
    if download.version:
        return recipe
    states = {
        "articles": _state(download.articles) or source_version(download),
        "benchmarks": _state(download.benchmarks),
        "base_model": _state(download.base_model),
    }
    version = fingerprint(states) if any(states.values()) else ""
    return recipe.model_copy(update={"download": download.model_copy(update={"version": version})})


def _state(place: str) -> list[list[str | int]]:
    """List what lies at a place; nothing for the bundled sample, for an empty setting and for a hub id."""
    if place in ("", "sample", "hub"):
        return []
    uri = storage.to_uri(place)
    if uri.startswith(storage.FILE_SCHEME):
        path = storage.local_path(uri)
        if path.is_file():
            stat = path.stat()
            return [[path.name, stat.st_size, stat.st_mtime_ns]]
        if not path.exists():
            if place.count("/") == 1 and not place.startswith((".", "/", "~")):
                return []  # owner/name on the Hugging Face hub
            raise InputError(f"There is nothing at {place}; check the recipe's download section.")
    return [[entry.uri, entry.size, entry.etag] for entry in storage.list_files(uri)]
