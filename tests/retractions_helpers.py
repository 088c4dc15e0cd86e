"""A model that was trained on articles of a planted bucket, as the pipeline's own stages leave it behind."""

import json
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from pmc_bucket import SAMPLE, PlantedArticle, PmcBucket

from components.common import storage
from components.common.manifest import Manifest
from components.common.pmc.settings import TransportSettings
from components.common.settings import get_settings
from components.common.shards import write_shard
from components.download.fetch import fetch_shard
from components.download.plan import plan_download
from components.download.settings import DownloadSettings

MODEL = "pmc-llama-test"
FIRST, SECOND = "2026-08-25T01-00Z", "2026-08-26T01-00Z"
TRAINED = range(101, 113)
HELD_OUT = 113
XML = (SAMPLE / "PMC999900001.xml").read_bytes()
QUICK = TransportSettings(concurrency=8, attempts=2, longest_backoff_seconds=0.05)


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """An empty MLflow database: made once, its migrations take seconds."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}").search_registered_models()
    return path.read_bytes()


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, migrated_database: bytes) -> MlflowClient:
    """MLflow on a database of this test, and a store beside it."""
    (tmp_path / "mlflow.db").write_bytes(migrated_database)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("PMC_STORE_URI", f"file://{tmp_path}/store")
    get_settings.cache_clear()
    return MlflowClient(uri)


@pytest.fixture
def bucket(tmp_path: Path) -> PmcBucket:
    """Twelve articles to train on and one to hold out, in one inventory."""
    planted = PmcBucket(tmp_path / "bucket")
    for pmcid in [*TRAINED, HELD_OUT]:
        planted.add(PlantedArticle(pmcid, XML, title=f"Article {pmcid}", doi=f"10.5555/{pmcid}"))
    planted.write_inventory(FIRST)
    return planted


def train(bucket: PmcBucket, client: MlflowClient, store: Path, name: str = MODEL, **policy: Any) -> Manifest:
    """Download the bucket as it is now, make a corpus of it, and register a model that was trained on that."""
    raws = download(bucket, store, **policy)
    ids = sorted(each for raw in raws for each in _article_ids(raw))
    corpus = write_corpus(
        store,
        [each for each in ids if each != f"PMC{HELD_OUT}"],
        raw_shards=[raw.shards[0].uri for raw in raws],
        retracted=[each for raw in raws for each in raw.extra["retracted"]],
    )
    register(client, corpus.fingerprint, name)
    return corpus


def download(bucket: PmcBucket, store: Path, articles_per_shard: int = 4, **policy: Any) -> list[Manifest]:
    """Download the bucket with the newest inventory, in several shards."""
    settings = DownloadSettings(
        source="pmc",
        pmc={"bucket": str(bucket.folder)},
        policy=policy,
        transport=QUICK,
        articles_per_shard=articles_per_shard,
    )
    plan = plan_download(settings, f"file://{store}")
    raws = [fetch_shard(plan, shard.name, settings) for shard in plan.shards]
    assert not any(raw.rejected for raw in raws)
    return raws


def write_corpus(store: Path, train_ids: list[str], **extra: Any) -> Manifest:
    """Store token shards with their ids, as the tokenise step does, and the manifest that names them."""
    half = (len(train_ids) + 1) // 2
    parts = {"train-a": train_ids[:half], "train-b": train_ids[half:], "validation-a": [f"PMC{HELD_OUT}"]}
    shards = []
    for name, ids in parts.items():
        files = {".bin": b"\0\0" * len(ids), ".idx": b"", ".ids.json": json.dumps(ids).encode()}
        stats = {"split": name.partition("-")[0]}
        shards.append(write_shard(f"file://{store}/tokens/0", name, files, len(ids), stats))
    corpus = Manifest(
        kind="corpus", fingerprint="c0ffee", inputs={}, settings={}, shards=shards, totals={}, extra=extra
    )
    corpus.save_uri(storage.join(f"file://{store}", "corpus", corpus.fingerprint, "manifest.json"))
    return corpus


def register(client: MlflowClient, corpus: str, name: str = MODEL) -> str:
    """Add a version to a registered model; returns its number."""
    if all(model.name != name for model in client.search_registered_models()):
        client.create_registered_model(name)
    tags = {"corpus_fingerprint": corpus} if corpus else {}
    return str(client.create_model_version(name, "file:///nowhere", tags=tags).version)


def _article_ids(raw: Manifest) -> list[str]:
    import pyarrow.parquet as pq

    return pq.read_table(storage.local_path(raw.shards[0].uri), columns=["article_id"])["article_id"].to_pylist()
