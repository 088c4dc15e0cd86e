"""Retraction watch: what became, since the training, of the articles that a registered model learned from."""

import logging
import re
from collections import Counter

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from components.common import storage
from components.common.errors import InputError
from components.common.fingerprint import fingerprint
from components.common.manifest import Manifest
from components.common.model_registry import TAG_LIMIT, explained, find_version
from components.common.pmc.bucket import Bucket
from components.common.pmc.inventory import newest_inventory
from components.common.pmc.settings import PmcSettings, TransportSettings
from components.common.progress import track
from components.common.settings import get_settings
from components.retractions import report as reports
from components.retractions.articles import articles_to_look_at, trained_articles
from components.retractions.examine import examine
from components.retractions.findings import RELICENSED, RETRACTED, UNCHANGED, UNKNOWN, WITHDRAWN, Report

log = logging.getLogger(__name__)

CORPUS_TAG = "corpus_fingerprint"
CHECKED_TAG = "retractions_checked"
REPORT_TAG = "retractions_report"
IDS_TAG = "retracted_ids"

_LOOKS_AT_A_TIME = 8  # per thread


def watch_model(wanted: str, pmc: PmcSettings, transport: TransportSettings) -> Report:
    """Compare a registered model's articles with the newest inventory, keep the report, and tag the version with it.

    The report is stored as ``retractions/<model>/<version>/<inventory>.json``; running again replaces it.

    Args:
        wanted: The model version; see :func:`model_registry.find_version`.
        pmc: Where PubMed Central's articles are listed.
        transport: How hard to pull.

    Raises:
        InputError: There is no such model, its corpus is not in the store, or its articles have no PMCIDs.
        PipelineError: MLflow does not answer.
        StorageError: The bucket or the store cannot be read, or the store cannot be written.
    """
    place = get_settings()
    version = find_version(place.tracking_uri, wanted)
    store = storage.to_uri(place.store_uri)
    corpus = _corpus(version, store)
    storage.check_writable(store)
    report = check(corpus, pmc, transport, version.name, str(version.version))
    uri = storage.join(store, "retractions", _segment(version.name), report.version, f"{report.inventory}.json")
    storage.write(uri, reports.to_json(report).encode())
    _tag(version, _tags(report, uri))
    log.info("%s", reports.sentence(report))
    return report


def check(corpus: Manifest, pmc: PmcSettings, transport: TransportSettings, model: str, version: str) -> Report:
    """Compare a corpus's articles with the newest inventory; nothing is written.

    Args:
        corpus: What the model was trained on.
        pmc: Where PubMed Central's articles are listed.
        transport: How hard to pull.
        model: The model's name, for the report.
        version: Its version, for the report.

    Raises:
        InputError: No article has a PMCID, or there is no complete inventory.
        StorageError: The bucket or the store cannot be read.
    """
    bucket = Bucket(pmc, transport)
    trained = trained_articles(corpus, bucket.transport)
    inventory = newest_inventory(bucket, pmc.inventory)
    report = Report(
        model, version, corpus.fingerprint, inventory.date, len(trained.numbers) + trained.foreign, trained.foreign
    )
    looks = articles_to_look_at(trained, corpus, inventory, bucket.transport)
    examined = bucket.transport.map(lambda look: (look, examine(look, bucket)), looks, batch=_LOOKS_AT_A_TIME)
    for look, finding in track(examined, label="Looking up", unit="articles"):
        report.looked_up += look.needs_metadata
        report.add(finding)
    report.counts[UNCHANGED] += len(trained.numbers) - report.counts.total()
    report.sort()
    return report


def _corpus(version: ModelVersion, store: str) -> Manifest:
    """Load the corpus that a model version names in its tags."""
    corpus = version.tags.get(CORPUS_TAG, "")
    if not re.fullmatch(r"[0-9A-Za-z]+", corpus):
        raise InputError(
            f"{version.name} version {version.version} does not say what it was trained on (its tag {CORPUS_TAG} is "
            f"{corpus!r}); only models that this pipeline registered can be watched."
        )
    uri = storage.join(store, "corpus", corpus, "manifest.json")
    if not storage.exists(uri):
        raise InputError(
            f"The corpus {corpus}, which {version.name} version {version.version} was trained on, is not in the "
            f"store ({uri}); set PMC_STORE_URI to the store of the run that registered it."
        )
    return Manifest.load_uri(uri)


def _tags(report: Report, uri: str) -> dict[str, str]:
    """What the version says of its articles; an empty tag is removed."""
    unknown = Counter(each.reason for each in report.of_kind(UNKNOWN))
    tags = {
        CHECKED_TAG: report.inventory,
        "retracted_articles": str(report.counts[RETRACTED]),
        "withdrawn_articles": str(report.counts[WITHDRAWN]),
        "relicensed_articles": str(report.counts[RELICENSED]),
        "unknown_articles": str(report.counts[UNKNOWN]),
        "unknown_reasons": ", ".join(f"{reason} {count}" for reason, count in unknown.most_common()),
        IDS_TAG: _some([each.id for each in report.of_kind(RETRACTED)]),
        REPORT_TAG: uri,
    }
    return {key: value[:TAG_LIMIT] for key, value in tags.items()}


def _some(ids: list[str]) -> str:
    """Join as many ids as a tag can hold."""
    text = ", ".join(ids)
    if len(text) <= TAG_LIMIT:
        return text
    most = text[: TAG_LIMIT - 40].count(",")
    return f"{', '.join(ids[:most])} and {len(ids) - most} more"


def _tag(version: ModelVersion, tags: dict[str, str]) -> None:
    uri = get_settings().tracking_uri
    with explained(uri, f"tag {version.name} version {version.version}"):
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        for key, value in tags.items():
            if value:
                client.set_model_version_tag(version.name, version.version, key, value)
            elif key in version.tags:
                client.delete_model_version_tag(version.name, version.version, key)


def _segment(name: str) -> str:
    """Make a model's name a folder's, a different one for each: MLflow allows nearly any character."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".")
    return plain if plain == name else f"{plain}-{fingerprint(name)}"
