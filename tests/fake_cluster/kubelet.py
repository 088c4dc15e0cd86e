"""A node's agent: runs a pod's container as a process, keeps its log, restarts it, ends it."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

from components.common.cluster.settings import quantity
from tests.fake_cluster.store import Object, now

if TYPE_CHECKING:
    from tests.fake_cluster.cluster import FakeCluster

_ROOT = Path(__file__).parents[2]
_LOOK_SECONDS = 0.03


@dataclass
class Log:
    """What one start of a container wrote: lines with their times, whole seconds last."""

    lines: list[bytes] = field(default_factory=list)
    ended: bool = False


class Container(threading.Thread):
    """A pod's life on a node, from its placement to its end."""

    def __init__(self, cluster: "FakeCluster", pod: Object, folder: Path) -> None:
        super().__init__(daemon=True, name=f"kubelet-{pod['metadata']['name']}")
        self.cluster, self.pod, self.folder = cluster, pod, folder
        self.name_of_pod, self.uid = pod["metadata"]["name"], pod["metadata"]["uid"]
        self.spec = pod["spec"]["containers"][0]
        self.logs: list[Log] = []
        self.process: subprocess.Popen[bytes] | None = None
        self.ending = threading.Event()  # the pod is deleted or evicted
        self.restarts = 0
        self.waiting = False  # between two starts
        self.last: Object = {}

    def run(self) -> None:
        try:
            self._live()
        finally:
            self._kill()

    def _live(self) -> None:
        while not self.ending.is_set():
            if problem := self._cannot_start():
                self._waits(*problem)
                self.ending.wait(_LOOK_SECONDS * 3)
                continue
            self._start()
            code, reason = self._watch_process()
            if self.ending.is_set() and self.pod_reason:
                return
            self._ended(code, reason)
            policy = self.pod["spec"]["restartPolicy"]
            if self.ending.is_set() or policy == "Never" or (policy == "OnFailure" and code == 0):
                return
            self.waiting = True
            self._waits("CrashLoopBackOff", "back-off restarting failed container", lastState=self.last)
            self.ending.wait(self.cluster.restart_seconds)
            self.restarts += 1

    pod_reason = ""

    def evict(self, reason: str, message: str) -> None:
        """As a node in need does: the pod fails at once."""
        self.pod_reason = reason
        condition = {"type": "DisruptionTarget", "status": "True", "reason": "TerminationByKubelet", "message": message}
        self.ending.set()
        self._kill()

        def change(pod: Object) -> None:
            pod["status"] |= {"phase": "Failed", "reason": reason, "message": message}
            pod["status"].setdefault("conditions", []).append(condition)
            pod["status"]["containerStatuses"] = [self._status({"terminated": self._terminated(137, "Error", "")})]

        self.cluster.store.change("pods", self.name_of_pod, change)

    def _cannot_start(self) -> tuple[str, str] | None:
        image = self.spec["image"]
        if image in self.cluster.missing_images:
            message = f'Failed to pull image "{image}": not found'
            self.cluster.say("Pod", self.pod, "Warning", "Failed", message)
            return "ImagePullBackOff", f'Back-off pulling image "{image}"'
        for each in self.spec.get("env", []):
            for source, name in (("secretKeyRef", "secrets"), ("configMapKeyRef", "configmaps")):
                if reference := each.get("valueFrom", {}).get(source):
                    kind = source.removesuffix("KeyRef")
                    found = getattr(self.cluster, name).get(reference["name"])
                    if found is None:
                        return "CreateContainerConfigError", f'{kind} "{reference["name"]}" not found'
                    if reference["key"] not in found:
                        return "CreateContainerConfigError", f"couldn't find key {reference['key']} in {kind}"
        return None

    def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.message_file = self.folder / f"termination-{self.restarts}"
        self.message_file.touch()
        log = Log()
        with self.cluster.store.changed:
            self.logs.append(log)
            self.waiting = False
        self.started = now()
        self.process = subprocess.Popen(
            [self._inside(each) for each in self.spec["command"]],
            env=self._environment(),
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.reader = threading.Thread(target=self._read, args=(self.process, log), daemon=True)
        self.reader.start()
        self._set({"running": {"startedAt": self.started}}, "Running", {"lastState": self.last} if self.last else {})

    def _environment(self) -> dict[str, str]:
        found = {"PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])}
        found |= {"PYTHONPATH": str(_ROOT), "OMP_NUM_THREADS": "1"}
        for each in self.spec.get("env", []):
            source = each.get("valueFrom", {})
            if reference := source.get("secretKeyRef"):
                found[each["name"]] = self.cluster.secrets[reference["name"]][reference["key"]]
            elif reference := source.get("configMapKeyRef"):
                found[each["name"]] = self.cluster.configmaps[reference["name"]][reference["key"]]
            else:
                found[each["name"]] = self._inside(each.get("value", ""))
        return found

    def _inside(self, text: str) -> str:
        """Paths that the container would see mounted, as they are on this machine: a poor man's chroot."""
        places = {self.spec.get("terminationMessagePath", "/dev/termination-log"): self.message_file}
        volumes = {each["name"]: each for each in self.pod["spec"].get("volumes", [])}
        for mount in self.spec.get("volumeMounts", []):
            path, volume = mount["mountPath"], volumes[mount["name"]]
            if claim := volume.get("persistentVolumeClaim"):
                assert str(self.cluster.claims[claim["claimName"]]) == path, "a claim is mounted where it really is"
            elif path not in ("/tmp", "/dev/shm"):
                places[path] = self.folder / mount["name"]
                places[path].mkdir(exist_ok=True)
        for path, place in places.items():
            text = re.sub(rf"(?<![\w/.-]){re.escape(path)}(?=$|[/:])", str(place), text)
        return text

    def _read(self, process: "subprocess.Popen[bytes]", log: Log) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            stamp = time.time_ns()
            text = datetime.fromtimestamp(stamp // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            with self.cluster.store.changed:
                log.lines.append(f"{text}.{stamp % 10**9:09d}Z ".encode() + line.rstrip(b"\n") + b"\n")
                self.cluster.store.changed.notify_all()

    def _watch_process(self) -> tuple[int, str]:
        """Wait for the end of the process; ends it at its memory limit, and when the pod is deleted."""
        assert self.process is not None
        limit = int(quantity(self.spec.get("resources", {}).get("limits", {}).get("memory", "1000Gi")))
        oom = False
        while self.process.poll() is None:
            if self.ending.is_set():
                self._terminate()
            elif self._memory() > limit:
                oom = True
                self._kill()
            else:
                time.sleep(_LOOK_SECONDS)
        self.reader.join(5)
        with self.cluster.store.changed:
            self.logs[-1].ended = True
            self.cluster.store.changed.notify_all()
        code = self.process.returncode
        code = 128 - code if code < 0 else code
        return code, "OOMKilled" if oom else ("Completed" if code == 0 else "Error")

    def _memory(self) -> int:
        assert self.process is not None
        with contextlib.suppress(psutil.Error):
            own = psutil.Process(self.process.pid)
            return sum(each.memory_info().rss for each in [own, *own.children(recursive=True)])
        return 0

    def _terminate(self) -> None:
        assert self.process is not None
        self.process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(self.pod["spec"].get("terminationGracePeriodSeconds", 30))
        self._kill()

    def _kill(self) -> None:
        if self.process is not None and self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    def _ended(self, code: int, reason: str) -> None:
        message = self.message_file.read_text()[:4096]
        if not message and code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError":
            text = b"".join(line.partition(b" ")[2] for line in self.logs[-1].lines[-80:])
            message = text[-2048:].decode(errors="replace")
        self.last = {"terminated": self._terminated(code, reason, message)}
        policy = self.pod["spec"]["restartPolicy"]
        phase = "Succeeded" if code == 0 else "Failed" if policy == "Never" or self.ending.is_set() else "Running"
        self._set(self.last, phase)

    def _terminated(self, code: int, reason: str, message: str) -> Object:
        times = {"startedAt": getattr(self, "started", now()), "finishedAt": now()}
        return {"exitCode": code, "reason": reason, **({"message": message} if message else {}), **times}

    def _waits(self, reason: str, message: str, **more: Any) -> None:
        self._set({"waiting": {"reason": reason, "message": message}}, None, more)

    def _set(self, state: Object, phase: str | None, more: Object | None = None) -> None:
        def change(pod: Object) -> None:
            if pod["metadata"]["uid"] == self.uid and not self.pod_reason:
                pod["status"]["containerStatuses"] = [self._status(state) | (more or {})]
                pod["status"]["phase"] = phase or pod["status"]["phase"]

        self.cluster.store.change("pods", self.name_of_pod, change)

    def _status(self, state: Object) -> Object:
        return {"name": self.spec["name"], "image": self.spec["image"], "restartCount": self.restarts, "state": state}
