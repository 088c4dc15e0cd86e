"""What of the machine is ours: in a pod the limits of its control group count, not the node."""

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_V1_NO_LIMIT = 1 << 60


def cpus(cgroup: Path = _CGROUP) -> int:
    """Return how many CPUs this process may use, rounded up."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    # "max 100000" or "150000 100000": microseconds of each period (Linux, Documentation/admin-guide/cgroup-v2.rst).
    quota, _, period = _read(cgroup / "cpu.max").partition(" ")
    if not quota:
        quota, period = _read(cgroup / "cpu/cpu.cfs_quota_us"), _read(cgroup / "cpu/cpu.cfs_period_us")
    if quota.isdigit() and period.isdigit():
        return max(1, min(mine, math.ceil(int(quota) / int(period))))
    return mine


def memory_bytes(cgroup: Path = _CGROUP) -> int:
    """Return how much memory this process and its children may use."""
    there = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    limit = _read(cgroup / "memory.max") or _read(cgroup / "memory/memory.limit_in_bytes")
    return min(there, int(limit)) if limit.isdigit() and int(limit) < _V1_NO_LIMIT else there


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # another kind of control group, or none
        return ""
