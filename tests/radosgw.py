"""A real second implementation of S3: Ceph's radosgw over a cluster of one monitor and one store in memory.

    with start_radosgw(tmp_path) as gateway:
        boto3.client("s3", endpoint_url=gateway.endpoint, ...)

Needs Debian's packages ``ceph-mon``, ``ceph-osd`` and ``radosgw``; everything lies in the folder that is given, runs as
the current user, listens on loopback, and is gone at the end. It is up in a few seconds.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import textwrap
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from botocore.config import Config

from tests.ports import free_ports

PROGRAMS = ("ceph", "ceph-authtool", "ceph-mon", "ceph-osd", "monmaptool", "radosgw", "radosgw-admin")
_PATH = os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/bin", "/usr/sbin"))


@dataclass(frozen=True)
class Gateway:
    """Where the server is, and who may use it."""

    endpoint: str
    bucket: str
    key: str = "test-key"
    secret: str = "test-secret"

    def client(self) -> Any:
        """Return a boto3 client of the bucket's owner."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            config=Config(s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=30),
        )

    def make_public(self) -> None:
        """Let anyone read and list the bucket, as NLM does."""
        names = [f"arn:aws:s3:::{self.bucket}", f"arn:aws:s3:::{self.bucket}/*"]
        actions = ["s3:GetObject", "s3:ListBucket"]
        rule = {"Effect": "Allow", "Principal": "*", "Action": actions, "Resource": names}
        policy = {"Version": "2012-10-17", "Statement": [rule]}
        self.client().put_bucket_policy(Bucket=self.bucket, Policy=json.dumps(policy))


def why_not() -> str:
    """Say what is missing for a radosgw; empty if nothing is."""
    missing = [name for name in PROGRAMS if shutil.which(name, path=_PATH) is None]
    packages = "ceph-mon ceph-osd ceph-common radosgw"
    return f"{', '.join(missing)} missing: apt-get install {packages}" if missing else ""


@contextlib.contextmanager
def start_radosgw(folder: Path, bucket: str = "articles") -> Iterator[Gateway]:
    """Run a radosgw with one bucket; its cluster's files go below ``folder``."""
    assert not why_not(), why_not()
    cluster = _Cluster(folder / "ceph")
    try:
        cluster.start()
        gateway = Gateway(f"http://127.0.0.1:{cluster.http_port}", bucket)
        cluster.add_user(gateway)
        cluster.serve()
        gateway.client().create_bucket(Bucket=bucket)
        yield gateway
    finally:
        cluster.stop()


class _Cluster:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.http_port, self._new_port, self._old_port = free_ports(3)
        self._daemons: list[subprocess.Popen[bytes]] = []
        self._id = str(uuid.uuid4())
        (folder / "mon").mkdir(parents=True)
        (folder / "osd").mkdir()
        (folder / "ceph.conf").write_text(self._configuration())

    def start(self) -> None:
        """Make and run the monitor and the store."""
        keyring, addresses = str(self.folder / "keyring"), self._addresses()
        everything = ("--cap", "mon", "allow *", "--cap", "osd", "allow *")
        self._run("ceph-authtool", keyring, "--create-keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
        self._run("ceph-authtool", keyring, "--gen-key", "-n", "client.admin", *everything)
        self._run("ceph-authtool", keyring, "--gen-key", "-n", "osd.0", "--cap", "mon", "allow profile osd",
                  "--cap", "osd", "allow *")  # fmt: skip
        monmap, store = str(self.folder / "monmap"), str(uuid.uuid4())
        self._run("monmaptool", "--create", "--fsid", self._id, "--addv", "a", addresses, monmap)
        self._run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
        self._daemon("ceph-mon", "-f", "-i", "a")
        self._run("ceph", "osd", "new", store)
        self._run("ceph-osd", "--mkfs", "-i", "0", "--osd-uuid", store)
        self._daemon("ceph-osd", "-f", "-i", "0")

    def add_user(self, gateway: Gateway) -> None:
        keys = ("--access-key", gateway.key, "--secret-key", gateway.secret)
        self._run("radosgw-admin", "user", "create", "--uid", "tester", "--display-name", "tester", *keys)

    def serve(self) -> None:
        """Run the gateway and wait until it answers."""
        daemon = self._daemon("radosgw", "-f", "-n", "client.admin")
        deadline = time.monotonic() + 60
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.http_port), timeout=1).close()
                return
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"radosgw did not come up: {self._log('radosgw')}")
            time.sleep(0.05)

    def stop(self) -> None:
        # Killed, as its data is thrown away anyway, and the gateway first, as it waits for the others.
        for daemon in reversed(self._daemons):
            daemon.kill()
            daemon.wait()

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(shutil.which(program, path=_PATH)), *arguments]
        ended = subprocess.run(command, env=self._environment(), capture_output=True, text=True, timeout=60)
        if ended.returncode:
            raise RuntimeError(f"{' '.join(command)} failed: {ended.stderr[-2000:]} {self._log('ceph-mon')}")

    def _daemon(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        with (self.folder / f"{program}.out").open("wb") as log:
            command = [str(shutil.which(program, path=_PATH)), *arguments]
            daemon = subprocess.Popen(command, env=self._environment(), stdout=log, stderr=subprocess.STDOUT)
        self._daemons.append(daemon)
        return daemon

    def _environment(self) -> dict[str, str]:
        return os.environ | {"CEPH_CONF": str(self.folder / "ceph.conf")}

    def _log(self, program: str) -> str:
        log = self.folder / f"{program}.out"
        return log.read_text(errors="replace")[-2000:] if log.exists() else ""

    def _addresses(self) -> str:
        return f"[v2:127.0.0.1:{self._new_port},v1:127.0.0.1:{self._old_port}]"

    def _configuration(self) -> str:
        # radosgw insists on authentication (cephx), so the whole cluster has it. A monitor gathers changes for a
        # second before it agrees on them, which would make the gateway's first start, of many changes, a slow one.
        lines = f"""
            [global]
            fsid = {self._id}
            mon host = {self._addresses()}
            public addr = 127.0.0.1
            keyring = {self.folder}/keyring
            run dir = {self.folder}
            admin socket =
            log file =
            log to stderr = true
            mon data = {self.folder}/mon
            mon data avail crit = 1
            mon allow pool size one = true
            mon max pg per osd = 1000
            paxos propose interval = 0.02
            paxos min wait = 0.01
            osd data = {self.folder}/osd
            osd objectstore = memstore
            memstore device bytes = 4294967296
            osd crush chooseleaf type = 0
            osd pool default size = 1
            osd pool default min size = 1
            osd pool default pg num = 4
            osd pool default pgp num = 4
            osd pool default pg autoscale mode = off
            rgw frontends = beast endpoint=127.0.0.1:{self.http_port}
            rgw thread pool size = 64
        """
        return textwrap.dedent(lines).lstrip()
