"""Measure the planning of a full-scale download: ``python -m benchmarks.inventory [--rows 8000000] [--repetitions 3]``.

Makes an S3 Inventory of as many rows as PubMed Central's has, serves it from a local nginx, and lets this downloader
read it and plan its shards, each time in a process of its own, whose seconds and peak memory are reported.
Needs Debian's nginx on the PATH.
"""

import argparse
import gzip
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from rich.console import Console
from rich.table import Table

from benchmarks.download import INVENTORY, cpu_seconds, nginx, peak_mb, working_folder
from tests.pmc_bucket import BUCKET, INVENTORIES, SCHEMA

FILES = 40
# Of ten articles seven have one version, so that 8 million rows name 5.6 million articles.
DISTINCT = 0.7
LARGEST_ID = 13_000_000


def main() -> None:
    """Measure and print the table."""
    options = _options()
    if options.endpoint:
        print(json.dumps(_plan(options.endpoint, options.folder)))
        return
    with working_folder(options.folder) as folder:
        articles = make_inventory(folder, options.rows)
        with nginx(folder / "bucket") as endpoint:
            results = [_in_own_process(endpoint, folder, articles) for _ in range(options.repetitions)]
    _show(results, options.rows)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=8_000_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="where the inventory is kept between runs (default: thrown away)")
    parser.add_argument("--json", type=Path, help="write the results there too")
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)
    return parser.parse_args()


def _plan(endpoint: str, folder: Path) -> dict[str, float]:
    """Read the inventory, then plan the whole download; the second includes reading it again."""
    os.environ["PMC_OA_ENDPOINT_URL"] = endpoint
    from components.common import storage
    from components.common.pmc.bucket import Bucket
    from components.common.pmc.inventory import newest_inventory
    from components.download.plan import plan_download
    from components.download.settings import DownloadSettings

    # Nothing will be fetched: that the disk has no room for the articles is no obstacle.
    storage.check_room = lambda *_: None
    settings = DownloadSettings(source="pmc")
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    began, cpu = time.perf_counter(), cpu_seconds()
    plan = plan_download(settings, storage.to_uri(store))
    seconds, cpu, peak = time.perf_counter() - began, cpu_seconds() - cpu, peak_mb()
    began = time.perf_counter()
    newest_inventory(Bucket(settings.pmc, settings.transport))
    reading = time.perf_counter() - began
    return {
        "articles": plan.totals["articles"],
        "shards": len(plan.shards),
        "seconds": seconds,
        "seconds_reading": reading,
        "cpu_seconds": cpu,
        "peak_mb": peak,
    }


def _in_own_process(endpoint: str, folder: Path, articles: int) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.inventory", "--endpoint", endpoint, "--folder", str(folder)]
    ended = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    if found["articles"] != articles:
        raise SystemExit(f"{found['articles']:,} articles were planned, but {articles:,} are in the inventory.")
    return found


def _show(results: list[dict[str, float]], rows: int) -> None:
    first = results[0]
    title = f"{rows:,} rows, {first['articles']:,} articles, {first['shards']:,} shards; {os.cpu_count()} cores"
    table = Table(title=title)
    table.add_column("What")
    for column in ("Median", "Lowest", "Highest"):
        table.add_column(column, justify="right")
    for label, name in (
        ("read and plan, seconds", "seconds"),
        ("of which reading, seconds", "seconds_reading"),
        ("read and plan, CPU seconds", "cpu_seconds"),
        ("peak memory, MB", "peak_mb"),
    ):
        values = [each[name] for each in results]
        table.add_row(label, *(f"{each:,.1f}" for each in (statistics.median(values), min(values), max(values))))
    Console(width=110).print(table)


def make_inventory(folder: Path, rows: int) -> int:
    """Write the inventory below ``folder``, unless it is there already; returns how many articles it names."""
    mark = folder / "inventory.json"
    if mark.exists() and (known := json.loads(mark.read_text()))["rows"] == rows:
        return int(known["articles"])
    draw = np.random.default_rng(0)
    distinct = int(rows * DISTINCT)
    ids = np.sort(draw.choice(np.arange(10_000, max(LARGEST_ID, 2 * rows)), distinct, replace=False))
    # Every article has a first version; the further ones go to articles at random.
    numbers = np.sort(np.concatenate([ids, draw.choice(ids, rows - distinct)]))
    starts = np.flatnonzero(np.append(True, numbers[1:] != numbers[:-1]))
    versions = np.arange(rows) - np.repeat(starts, np.diff(np.append(starts, rows))) + 1
    order = draw.permutation(rows)
    parts = np.array_split(order, FILES)
    seeds = draw.integers(0, 2**63, FILES)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        entries = list(
            pool.map(lambda i: _write_file(folder / "bucket", i, numbers[parts[i]], versions[parts[i]], int(seeds[i])),
                     range(FILES))
        )  # fmt: skip
    manifest = {
        "sourceBucket": BUCKET,
        "destinationBucket": f"arn:aws:s3:::{BUCKET}",
        "version": "2016-11-30",
        "creationTimestamp": "1787619600000",
        "fileFormat": "CSV",
        "fileSchema": SCHEMA,
        "files": entries,
    }
    path = folder / "bucket" / INVENTORIES / INVENTORY / "manifest.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(manifest))
    mark.write_text(json.dumps({"rows": rows, "articles": distinct}))
    return distinct


def _write_file(bucket: Path, index: int, ids: np.ndarray, versions: np.ndarray, seed: int) -> dict[str, str | int]:
    draw = np.random.default_rng(seed)
    count = len(ids)
    key = pc.binary_join_element_wise(
        "metadata/PMC", pc.cast(pa.array(ids), pa.string()), ".", pc.cast(pa.array(versions), pa.string()), ".json", ""
    )
    seconds = pa.array(draw.integers(1_735_689_600, 1_787_000_000, count) * 1000, pa.timestamp("ms"))
    modified = pc.strftime(seconds, format="%Y-%m-%dT%H:%M:%SZ")
    hexadecimal = draw.bytes(16 * count).hex().encode()
    offsets = pa.py_buffer(np.arange(0, 32 * count + 1, 32, dtype=np.int32))
    etag = pa.StringArray.from_buffers(count, offsets, pa.py_buffer(hexadecimal))
    bucket_column = pa.array([BUCKET] * count)
    table = pa.table([bucket_column, key, modified, etag], names=[name.strip() for name in SCHEMA.split(",")])
    text = pa.BufferOutputStream()
    pa.csv.write_csv(table, text, pa.csv.WriteOptions(include_header=False, quoting_style="all_valid"))
    content = gzip.compress(text.getvalue(), 4)
    name = f"{INVENTORIES}/data/{index:08d}-0000-4000-8000-000000000000.csv.gz"
    path = bucket / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return {"key": name, "size": len(content), "MD5checksum": hashlib.md5(content).hexdigest()}


if __name__ == "__main__":
    main()
