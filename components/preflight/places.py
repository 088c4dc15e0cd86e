"""The places that articles, benchmarks and the base model come from."""

import os
from collections.abc import Iterator

from components.common import storage
from components.common.errors import PipelineError
from components.preflight.findings import Finding, failed, ok
from components.preflight.settings import Situation

_BUNDLED = ("", "sample")
_DEFAULT_HUB = "https://huggingface.co"
_SECONDS = 10


def look_at_articles(situation: Situation) -> Iterator[Finding]:
    """Say whether the source of articles is there."""
    download = situation.download
    if download.source == "files":
        yield _place("Articles", download.articles, "download.articles", situation)
    elif download.source == "pmc":
        yield _inventory(situation)
    elif download.source == "s2orc":
        key = os.environ.get("S2_API_KEY", "").strip()
        remedy = "Set S2_API_KEY to a key of the Semantic Scholar API, for the steps from a secret."
        given = ok("Articles", "S2_API_KEY is set.")
        yield given if key or situation.submitting else failed("Articles", "S2ORC needs a key, and has none.", remedy)


def look_at_benchmarks(situation: Situation) -> Iterator[Finding]:
    """Say whether the benchmarks are there."""
    download = situation.download
    if download.benchmarks == "hub":
        for name, pin in sorted(download.hub.items()):
            repository, _, revision = pin.partition("@")
            yield _on_hub(f"Benchmark {name}", "dataset", repository, revision or "main", f"download.hub.{name}")
    elif download.benchmarks not in _BUNDLED:
        yield _place("Benchmarks", download.benchmarks, "download.benchmarks", situation)


def look_at_base_model(situation: Situation) -> Iterator[Finding]:
    """Say whether the base model is there."""
    place, revision = situation.download.base_model, situation.download.base_model_revision
    if place in _BUNDLED:
        return
    if is_hub_id(place):
        yield _on_hub("Base model", "model", place, revision, "download.base_model")
    else:
        yield _place("Base model", place, "download.base_model", situation)


def is_hub_id(place: str) -> bool:
    """Whether a model's place is an id of the Hugging Face hub: neither an address nor a folder that is there."""
    if "://" in place or place.startswith(("/", ".", "~")) or place.count("/") > 1:
        return False
    return not storage.local_path(storage.to_uri(place)).exists()


def _place(subject: str, place: str, setting: str, situation: Situation) -> Finding:
    """A folder, an archive, or a prefix of a bucket."""
    remedy = f"Correct {setting}, or put there what it names."
    if not place:
        return failed(subject, f"{setting} is empty.", "Give a folder, an archive or an s3:// prefix.")
    uri = storage.to_uri(place)
    if situation.submitting and uri.startswith(storage.FILE_SCHEME):
        return failed(subject, f"{place} is on this machine, which the steps do not see.", f"Copy it to S3: {setting}.")
    if uri.startswith(storage.FILE_SCHEME):
        path = storage.local_path(uri)
        there = path.is_file() or (path.is_dir() and any(path.iterdir()))
        return ok(subject, f"{place} is there.") if there else failed(subject, f"There is nothing at {place}.", remedy)
    try:
        there = storage.exists(uri) or storage.has_files(uri)
    except PipelineError as error:
        return failed(subject, str(error), f"Correct {setting}, or give credentials that may list and read it.")
    return ok(subject, f"{place} is there.") if there else failed(subject, f"There is nothing at {place}.", remedy)


def _inventory(situation: Situation) -> Finding:
    from components.common.pmc.bucket import Bucket
    from components.common.pmc.inventory import inventory_dates

    download = situation.download
    transport = download.transport.model_copy(update={"attempts": 1})
    try:
        newest = inventory_dates(Bucket(download.pmc, transport), download.pmc.inventory)[0]
    except PipelineError as error:
        return failed("Articles", str(error), "Let the steps through to it, or use a mirror (docs/data-sources.md).")
    return ok("Articles", f"{download.pmc.bucket} is open; inventory {newest}.")


def _on_hub(subject: str, kind: str, name: str, revision: str, setting: str) -> Finding:
    """A repository of the hub at a revision, and one of its files: of a gated one only the page is open."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        remedy = (
            f"Unset HF_HUB_OFFLINE, or set {setting.partition('.hub')[0]} to a folder or s3:// prefix with the files."
        )
        return failed(subject, f"{name} is on the Hugging Face hub, and HF_HUB_OFFLINE is set.", remedy)
    import httpx
    from huggingface_hub import HfApi, get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    endpoint = os.environ.get("HF_ENDPOINT", _DEFAULT_HUB).rstrip("/")
    what = f"{kind} {name} (revision {revision}) on {endpoint}"
    try:
        info = HfApi(endpoint=endpoint).repo_info(name, revision=revision, repo_type=kind, timeout=_SECONDS)
        files = sorted(each.rfilename for each in getattr(info, "siblings", None) or [])
        if files and getattr(info, "gated", False):
            url = hf_hub_url(name, files[0], repo_type=kind, revision=revision, endpoint=endpoint)
            get_hf_file_metadata(url, timeout=_SECONDS, endpoint=endpoint)
    except GatedRepoError:
        remedy = "Ask for access on its page, and set HF_TOKEN to a token of that account, from a secret."
        return failed(subject, f"The {what} is gated.", remedy)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError):
        remedy = f"Correct {setting}; a private one needs HF_TOKEN."
        return failed(subject, f"There is no {what}, or it is private.", remedy)
    except (HfHubHTTPError, httpx.HTTPError, OSError, ValueError) as error:
        text = " ".join(str(error).split())[:200]
        remedy = f"Let the steps through to it (HTTPS_PROXY, HF_ENDPOINT), or copy it to S3 and name it in {setting}."
        return failed(subject, f"{endpoint} cannot be asked for {name}: {text}.", remedy)
    return ok(subject, f"The {what} is open to us.")
