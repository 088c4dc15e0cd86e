"""PubMed Central's bucket through the whole pipeline into a real S3 server, and the watch that follows its model."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from pipeline_helpers import QUICK, ROOT, manifests, run

from components.common import storage
from tests.fault_server import FaultServer
from tests.pmc_bucket import PlantedArticle, realistic_bucket

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

COMMERCIAL = {"CC0", "CC BY", "CC BY-SA", "CC BY-ND"}


def test_every_count_is_the_planted_one_and_a_later_retraction_is_found(s3_server: str, tmp_path: Path) -> None:
    bucket = realistic_bucket(tmp_path / "bucket", 90, seed=4)
    bucket.write_inventory("2026-08-25T01-00Z")
    bucket.write_inventory("2026-08-26T01-00Z", corrupt="missing file")
    home, store = tmp_path / "home", storage.join(s3_server, "runs here")
    with FaultServer(bucket.folder) as server:
        env = {"PMC_OA_ENDPOINT_URL": server.endpoint, "PMC_STORE_URI": store}
        settings = (
            *QUICK,
            "download.source=pmc",
            "download.min_shards=1",
            "train.epochs=1",
            "finetune={}",
            "preprocess.deduplicate.jaccard=1.0",
        )
        done = run(home, *settings, env=env)
        assert done.code == 0, done.output

        (corpus,) = manifests(home / "store", "corpus")
        reasons = Counter(_reason(article) for article in bucket.listed())
        fetched = reasons.pop("")
        assert corpus.totals["listed"] == 90
        assert {reason: corpus.dropped[reason] for reason in reasons} == reasons
        assert corpus.totals["kept"] + sum(corpus.dropped.values()) + len(corpus.rejected) == 90
        assert fetched >= corpus.totals["kept"] > 20
        retracted = [f"PMC{article.pmcid}" for article in bucket.listed() if article.retracted]
        assert corpus.extra["retracted"] == sorted(retracted)
        assert corpus.extra["origins"] == [{"inventory": "2026-08-25T01-00Z", "source": "pmc"}]

        keys = [storage.relative(entry.uri, store) for entry in storage.list_files(store)]
        for part in ("raw/pmc/", "clean/", "tokens", "benchmarks/", "model.safetensors", "summary.json"):
            assert any(part in key for key in keys), part
        assert not (home / "store").exists()

        trained = [name for shard in corpus.shards if shard.stats["split"] == "train" for name in _ids(shard.uri)]
        victim = trained[0]
        bucket.update(int(victim.removeprefix("PMC")), retracted=True)
        bucket.write_inventory("2026-08-27T01-00Z")
        command = [sys.executable, "-m", "pipelines", "retractions", "--model", "pmc-llama-tiny", "--home", str(home)]
        watch = subprocess.run(command, cwd=ROOT, env=_environment(env), capture_output=True, text=True)
        assert watch.returncode == 3, watch.stderr
        assert victim in watch.stdout


def _reason(article: PlantedArticle) -> str:
    if article.retracted:
        return "retracted"
    if not article.open_access:
        return "not-open-access"
    if article.licence not in COMMERCIAL:
        return "licence"
    return "historical-ocr" if article.historical_ocr else ""


def _ids(uri: str) -> list[str]:
    names: list[str] = json.loads(storage.read(uri.removesuffix(".bin") + ".ids.json"))
    return names


def _environment(more: dict[str, str]) -> dict[str, str]:
    return {**os.environ, "COLUMNS": "160", **more}
