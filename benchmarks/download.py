"""Measure the downloader: ``python -m benchmarks.download [--articles 20000] [--repetitions 3]``.

Serves articles of 40 to 160 KB, laid out as the PMC Cloud Service lays them out, from a local nginx, and fetches each
one's metadata and XML by this downloader, by boto3 in a thread pool, and by bare obstore loops that keep nothing.
Every contender runs in turn with the others, each time in a process of its own, whose CPU time and peak memory are
reported; importing is not counted, nginx's own time is not either (but it shares the machine's cores).
Needs Debian's nginx on the PATH.
"""

import argparse
import asyncio
import contextlib
import getpass
import hashlib
import json
import os
import random
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from lxml import etree
from rich.console import Console
from rich.table import Table

from tests.pmc_bucket import BUCKET, INVENTORIES, PlantedArticle, PmcBucket, sample_articles

INVENTORY = "2026-08-25T01-00Z"
SMALLEST, LARGEST = 40_000, 160_000
CONCURRENCY = 64


def main() -> None:
    """Measure every contender and print the table."""
    options = _options()
    if options.contender:
        print(json.dumps(_measure(options)))
        return
    with working_folder(options.folder) as folder:
        plant(folder, options.articles, options.source)
        with nginx(folder / "bucket") as endpoint:
            results = _alternate(options, folder, endpoint)
    _show(results, options)
    if options.json:
        options.json.write_text(json.dumps(results, indent=2))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--articles", type=int, default=20_000)
    parser.add_argument("--boto3-articles", type=int, default=5_000, help="fewer for boto3, which takes far longer")
    parser.add_argument("--per-shard", type=int, default=10_000, help="this downloader's articles_per_shard")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", choices=[*CONTENDERS], default=[*CONTENDERS])
    parser.add_argument("--source", type=Path, help="archive of JATS articles to make texts of (default: the sample)")
    parser.add_argument("--folder", type=Path, help="where articles are kept between runs (default: thrown away)")
    parser.add_argument("--json", type=Path, help="write the results there too")
    parser.add_argument("--contender", choices=[*CONTENDERS], help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)
    return parser.parse_args()


# The contenders: each makes ready, and returns what then fetches metadata and XML of every article and says how many.

Fetch = Callable[[], int]


def ours(endpoint: str, _names: Sequence[str], folder: Path, per_shard: int) -> Fetch:
    """This downloader: its plan is made; its shards are fetched into Parquet files in a store beside the bucket."""
    os.environ["PMC_OA_ENDPOINT_URL"] = endpoint
    from components.common import storage
    from components.download.fetch import fetch_shard
    from components.download.plan import plan_download
    from components.download.settings import DownloadSettings

    settings = DownloadSettings(source="pmc", articles_per_shard=per_shard)
    store = folder / "store"
    shutil.rmtree(store, ignore_errors=True)
    plan = plan_download(settings, storage.to_uri(store))

    def fetch() -> int:
        return sum(int(fetch_shard(plan, shard.name, settings).totals["articles"]) for shard in plan.shards)

    return fetch


def with_boto3(endpoint: str, names: Sequence[str], threads: int) -> Fetch:
    """boto3 as one would write it: a client, a thread pool, the checksum verified."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    config = Config(signature_version=UNSIGNED, max_pool_connections=threads, s3={"addressing_style": "path"})
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)

    def read(name: str) -> None:
        metadata = json.loads(client.get_object(Bucket=BUCKET, Key=f"metadata/{name}.json")["Body"].read())
        address, _, md5 = metadata["xml_url"].partition("?md5=")
        xml = client.get_object(Bucket=BUCKET, Key=address.removeprefix(f"s3://{BUCKET}/"))["Body"].read()
        if hashlib.md5(xml).hexdigest() != md5:
            raise ValueError(f"{address} has another checksum than its metadata says")

    def fetch() -> int:
        with ThreadPoolExecutor(threads) as pool:
            return sum(1 for _ in pool.map(read, names))

    return fetch


def bare_loop(endpoint: str, names: Sequence[str]) -> Fetch:
    """The coroutines of obstore, keeping nothing: no JSON is read, no checksum verified."""
    import obstore

    store = _store(endpoint)

    async def read(name: str, turn: asyncio.Semaphore) -> None:
        async with turn:
            for key in (f"metadata/{name}.json", f"{name}/{name}.xml"):
                await (await obstore.get_async(store, key)).bytes_async()

    async def read_all() -> int:
        turn = asyncio.Semaphore(CONCURRENCY)
        return len(await asyncio.gather(*(read(name, turn) for name in names)))

    return lambda: asyncio.run(read_all())


def bare_threads(endpoint: str, names: Sequence[str]) -> Fetch:
    """The blocking calls of obstore in threads, keeping nothing either."""
    import obstore

    store = _store(endpoint)

    def read(name: str) -> None:
        for key in (f"metadata/{name}.json", f"{name}/{name}.xml"):
            obstore.get(store, key).bytes()

    def fetch() -> int:
        with ThreadPoolExecutor(CONCURRENCY) as pool:
            return sum(1 for _ in pool.map(read, names))

    return fetch


def _store(endpoint: str) -> Any:
    from obstore.store import S3Store

    return S3Store(
        BUCKET,
        endpoint=endpoint,
        region="us-east-1",
        skip_signature=True,
        virtual_hosted_style_request=False,
        client_options={"allow_http": True},
    )


CONTENDERS: dict[str, Callable[[str, Sequence[str], argparse.Namespace], Fetch]] = {
    "this downloader": lambda endpoint, names, options: ours(endpoint, names, options.folder, options.per_shard),
    "boto3, 64 threads": lambda endpoint, names, _: with_boto3(endpoint, names, 64),
    "boto3, 16 threads": lambda endpoint, names, _: with_boto3(endpoint, names, 16),
    "bare obstore loop": lambda endpoint, names, _: bare_loop(endpoint, names),
    "bare obstore, 64 threads": lambda endpoint, names, _: bare_threads(endpoint, names),
}


# One measurement, in a process of its own.


def _measure(options: argparse.Namespace) -> dict[str, float]:
    names = _names(options.folder)[: options.articles]
    fetch = CONTENDERS[options.contender](options.endpoint, names, options)
    began, cpu = time.perf_counter(), cpu_seconds()
    fetched = fetch()
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    if fetched != len(names):
        raise SystemExit(f"{options.contender} fetched {fetched} of {len(names)} articles.")
    return {
        "articles": fetched,
        "articles_per_second": fetched / seconds,
        "cpu_seconds_per_1000": cpu / fetched * 1000,
        "peak_mb": peak_mb(),
    }


def cpu_seconds() -> float:
    """Return the CPU seconds of this process so far, in user and kernel."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def peak_mb() -> float:
    """Return the most memory that this process has held, in millions of bytes."""
    # Not ru_maxrss, which a process takes over from the one that started it.
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) * 1024 / 1e6


def _alternate(options: argparse.Namespace, folder: Path, endpoint: str) -> dict[str, list[dict[str, float]]]:
    results: dict[str, list[dict[str, float]]] = {name: [] for name in options.contenders}
    for repetition in range(options.repetitions):
        for name in options.contenders:
            articles = min(options.articles, options.boto3_articles) if "boto3" in name else options.articles
            found = _in_own_process(name, endpoint, folder, articles, options.per_shard)
            results[name].append(found)
            speed, cpu = found["articles_per_second"], found["cpu_seconds_per_1000"]
            note = f"{repetition + 1}/{options.repetitions} {name}: {speed:.0f} articles/s, {cpu:.2f} CPU s per 1,000"
            print(note, file=sys.stderr, flush=True)
    return results


def _in_own_process(name: str, endpoint: str, folder: Path, articles: int, per_shard: int) -> dict[str, float]:
    arguments = ["--contender", name, "--endpoint", endpoint, "--folder", str(folder), "--articles", str(articles)]
    arguments += ["--per-shard", str(per_shard)]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.download", *arguments], stdout=subprocess.PIPE, text=True, check=True
    )
    found: dict[str, float] = json.loads(ended.stdout.splitlines()[-1])
    return found


def _show(results: dict[str, list[dict[str, float]]], options: argparse.Namespace) -> None:
    table = Table(title=f"{options.articles:,} articles of 40 to 160 KB, metadata and XML; {os.cpu_count()} cores")
    table.add_column("What")
    for column in ("Articles/s", "Lowest", "Highest", "CPU s per 1,000", "Peak MB"):
        table.add_column(column, justify="right")
    for name, found in results.items():
        speeds = [each["articles_per_second"] for each in found]
        table.add_row(
            name,
            *(f"{value:,.0f}" for value in (statistics.median(speeds), min(speeds), max(speeds))),
            f"{statistics.median(each['cpu_seconds_per_1000'] for each in found):.2f}",
            f"{max(each['peak_mb'] for each in found):,.0f}",
        )
    Console(width=110).print(table)


# The articles, and the server.


def plant(folder: Path, articles: int, source: Path | None) -> None:
    """Lay out the bucket below ``folder``, with an inventory, unless it is there already."""
    mark = folder / "planted.json"
    wanted: dict[str, Any] = {"articles": articles, "source": str(source), "sizes": [SMALLEST, LARGEST]}
    if mark.exists() and json.loads(mark.read_text()) == wanted:
        return
    shutil.rmtree(folder / "bucket", ignore_errors=True)
    mark.unlink(missing_ok=True)
    bucket = PmcBucket(folder / "bucket")
    texts = _compose(_paragraphs(_read(source) if source else sample_articles()))
    for pmcid in range(7_000_001, 7_000_001 + articles):
        bucket.add(PlantedArticle(pmcid, next(texts), doi=f"10.5555/{pmcid}", citation="J Synth Med. 2020; 1(1):1"))
        bucket.articles.clear()  # gigabytes, which nobody asks for again
    bucket.write_inventory(INVENTORY, files=8)
    mark.write_text(json.dumps(wanted))


def _names(folder: Path) -> list[str]:
    return sorted(path.stem for path in (folder / "bucket" / "metadata").iterdir())


def _read(archive: Path) -> list[bytes]:
    with tarfile.open(archive) as tar:
        members = [tar.extractfile(member) for member in tar if member.name.endswith(("xml", "nxml"))]
        return [handle.read() for handle in members if handle is not None]


_PARAGRAPH = re.compile(rb"<p(?:\s[^>]*)?>(?:(?!<p[\s>]).)*?</p>", re.DOTALL)
_ROOT = b'<article xmlns:xlink="http://www.w3.org/1999/xlink" xmlns:mml="http://www.w3.org/1998/Math/MathML">'


def _paragraphs(articles: Sequence[bytes]) -> list[bytes]:
    """Return the paragraphs that can stand in another article: well-formed, no namespaces of their own."""
    found = []
    for article in articles:
        for paragraph in _PARAGRAPH.findall(article):
            with contextlib.suppress(etree.XMLSyntaxError):
                etree.fromstring(_ROOT + paragraph + b"</article>", etree.XMLParser(resolve_entities=False))
                found.append(paragraph)
    return found


def _compose(paragraphs: Sequence[bytes]) -> Iterator[bytes]:
    """Yield articles of random size, of paragraphs at random: text that compresses as articles do."""
    draw = random.Random(0)
    for number in range(7_000_001, sys.maxsize):
        size, parts = draw.randint(SMALLEST, LARGEST - 5_000), []
        while size > 0:
            part = draw.choice(paragraphs)
            parts.append(part if len(part) < 5_000 else b"<p>and so on</p>")
            size -= len(parts[-1])
        meta = b'<article-meta><article-id pub-id-type="pmc">%d</article-id></article-meta>' % number
        yield _ROOT + b"<front>" + meta + b"</front><body>" + b"".join(parts) + b"</body></article>"


@contextlib.contextmanager
def nginx(bucket: Path) -> Iterator[str]:
    """Serve a bucket's folder by path-style keys on loopback; yields the endpoint."""
    program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if program is None:
        raise SystemExit("nginx is missing: apt-get install nginx-light")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory() as scratch:
        Path(scratch, "nginx.conf").write_text(_configuration(bucket, port, Path(scratch)))
        process = subprocess.Popen([program, "-p", scratch, "-c", "nginx.conf", "-e", f"{scratch}/error.log"])
        try:
            _wait_for(f"http://127.0.0.1:{port}/ready", process, Path(scratch, "error.log"))
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait()


_LISTING = (
    '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    f"<Name>{BUCKET}</Name><IsTruncated>false</IsTruncated><KeyCount>1</KeyCount>"
    f"<CommonPrefixes><Prefix>{INVENTORIES}/{INVENTORY}/</Prefix></CommonPrefixes></ListBucketResult>"
)


def _configuration(bucket: Path, port: int, scratch: Path) -> str:
    # Started by root, its workers would be "nobody", who may not read the folder.
    user = f"user {getpass.getuser()};" if os.geteuid() == 0 else ""
    temporary = "".join(f"{each}_temp_path {scratch}/{each};" for each in ("proxy", "fastcgi", "uwsgi", "scgi"))
    return f"""
        {user}
        daemon off;
        worker_processes 2;
        pid {scratch}/nginx.pid;
        error_log {scratch}/error.log;
        worker_rlimit_nofile 20000;
        events {{ worker_connections 4096; }}
        http {{
            access_log off;
            client_body_temp_path {scratch}/body;
            {temporary}
            sendfile on;
            tcp_nopush on;
            keepalive_requests 10000000;
            keepalive_timeout 600;
            open_file_cache max=10000 inactive=600s;
            open_file_cache_valid 600s;
            default_type application/octet-stream;
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                location = /ready {{ return 200; }}
                # The one listing that is asked for: the inventories. ListObjectsV2's answer.
                location = /{BUCKET} {{ default_type application/xml; return 200 '{_LISTING}'; }}
                location /{BUCKET}/ {{ alias {bucket.resolve()}/; }}
            }}
        }}
    """


def _wait_for(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        with contextlib.suppress(OSError):
            urllib.request.urlopen(address, timeout=5).close()
            return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise SystemExit(f"nginx did not come up: {log.read_text() if log.exists() else ''}")


@contextlib.contextmanager
def working_folder(given: Path | None) -> Iterator[Path]:
    """Give the folder to use: in memory where there is room, so that no disk is measured."""
    if given is not None:
        given.mkdir(parents=True, exist_ok=True)
        yield given
        return
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > 6e9
    with tempfile.TemporaryDirectory(dir=memory if roomy else None) as folder:
        yield Path(folder)


if __name__ == "__main__":
    main()
