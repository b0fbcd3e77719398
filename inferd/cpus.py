"""How many CPUs this process may really use, and how to share them out.

A container sees every core of its host; what it may use is in its cgroup's quota. Threads beyond the quota
make a model slower, not faster: the kernel stops all of them until the next period.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from inferd.cgroup import CGROUPS, PROC, folders, text


def usable_cpus(proc_root: Path = PROC, cgroup_root: Path = CGROUPS) -> float:
    """Give the CPUs this process may use: the smallest of its affinity and all its cgroup quotas."""
    return min([_affinity_cpus(), *_quotas(proc_root, cgroup_root)])


def split_threads(cpus: float, instances: int) -> int:
    """Give each of ``instances`` equal parties its whole number of threads, at least one.

    A fraction is rounded down: a thread too many is paid for by every thread when the quota runs out.
    """
    if instances < 1:
        raise ValueError(f"cannot split threads among {instances} instances")
    return max(1, int(cpus / instances))


def _affinity_cpus() -> float:
    # macOS has no affinity.
    if hasattr(os, "sched_getaffinity"):
        return float(len(os.sched_getaffinity(0)))
    return float(os.cpu_count() or 1)


def _quotas(proc_root: Path, cgroup_root: Path) -> Iterator[float]:
    for version, folder in folders("cpu", proc_root, cgroup_root):
        quota = _quota_v2(folder) if version == 2 else _quota_v1(folder)
        if quota is not None:
            yield quota


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = text(folder / "cpu.max").strip().partition(" ")
    return _ratio(quota, period)


def _quota_v1(folder: Path) -> float | None:
    return _ratio(text(folder / "cpu.cfs_quota_us").strip(), text(folder / "cpu.cfs_period_us").strip())


def _ratio(quota_us: str, period_us: str) -> float | None:
    # "max" and -1 both mean no quota; neither passes isdecimal().
    if not (quota_us.isdecimal() and period_us.isdecimal() and int(quota_us) and int(period_us)):
        return None
    return int(quota_us) / int(period_us)
