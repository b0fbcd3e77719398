"""CPU quota: real files in the layouts that kernels and containers show."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.cpus import split_threads, usable_cpus

AFFINITY = float(len(os.sched_getaffinity(0)))


class Machine:
    """A /proc and a /sys/fs/cgroup made of plain files."""

    def __init__(self, root: Path, membership: str) -> None:
        self.proc, self.cgroup = root / "proc", root / "cgroup"
        self.write(self.proc / "self" / "cgroup", membership)

    def write(self, file: Path, text: str) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def v2(self, folder: str, text: str) -> None:
        self.write(self.cgroup / folder / "cpu.max", text)

    def v1(self, folder: str, quota_us: int, period_us: int = 100_000) -> None:
        self.write(self.cgroup / folder / "cpu.cfs_quota_us", f"{quota_us}\n")
        self.write(self.cgroup / folder / "cpu.cfs_period_us", f"{period_us}\n")

    def cpus(self) -> float:
        return usable_cpus(self.proc, self.cgroup)


def test_without_any_cgroup_the_affinity_counts(tmp_path: Path) -> None:
    assert usable_cpus(tmp_path / "proc", tmp_path / "cgroup") == AFFINITY


def test_a_quota_of_half_a_cpu_is_half_a_cpu(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/\n")
    machine.v2(".", "50000 100000\n")
    assert machine.cpus() == 0.5


def test_a_quota_above_the_affinity_changes_nothing(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/\n")
    machine.v2(".", "100000000 100000\n")
    assert machine.cpus() == AFFINITY


@pytest.mark.parametrize("text", ["max 100000\n", "", "garbage", "0 100000", "50000 0", "50000", "-1 5"])
def test_what_is_no_quota_is_no_limit(tmp_path: Path, text: str) -> None:
    machine = Machine(tmp_path, "0::/\n")
    machine.v2(".", text)
    assert machine.cpus() == AFFINITY


def test_the_smallest_quota_on_the_way_to_the_root_wins(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/pods/pod/container\n")
    machine.v2("pods/pod/container", "80000 100000")
    machine.v2("pods/pod", "25000 100000")
    machine.v2("pods", "max 100000")
    assert machine.cpus() == 0.25


def test_the_quota_of_another_cgroup_is_not_ours(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/ours\n")
    machine.v2("theirs", "10000 100000")
    assert machine.cpus() == AFFINITY


def test_a_path_that_only_the_host_can_see_leads_to_the_quota_at_the_mount(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/kubepods/pod1234/abcd\n")
    machine.v2(".", "50000 100000")
    assert machine.cpus() == 0.5


def test_a_path_above_the_namespace_does_not_leave_the_mount(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "0::/../../escape\n")
    machine.v2("../escape", "10000 100000")
    machine.v2(".", "50000 100000")
    assert machine.cpus() == 0.5


def test_version_1_quotas_are_read(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "3:cpu,cpuacct:/docker/abc\n2:memory:/docker/abc\n")
    machine.v1("cpu,cpuacct/docker/abc", 50_000)
    assert machine.cpus() == 0.5


def test_version_1_controllers_may_be_mounted_under_the_short_name(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "3:cpu,cpuacct:/docker/abc\n")
    machine.v1("cpu", 30_000)
    assert machine.cpus() == 0.3


def test_version_1_without_a_quota_is_no_limit(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "1:cpu:/\n")
    machine.v1("cpu", -1)
    assert machine.cpus() == AFFINITY


def test_a_cpuset_controller_is_not_taken_for_the_cpu_controller(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "1:cpuset:/\n")
    machine.v1("cpuset", 10_000)
    assert machine.cpus() == AFFINITY


def test_on_a_machine_with_both_versions_both_are_read(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "1:cpu:/a\n0::/a\n")
    machine.v1("cpu/a", 60_000)
    machine.v2("unified/a", "40000 100000")
    assert machine.cpus() == 0.4


def test_a_line_that_is_no_membership_is_skipped(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "garbage\n\n0::/\n")
    machine.v2(".", "50000 100000")
    assert machine.cpus() == 0.5


def test_this_machine_has_some_cpu() -> None:
    assert 0 < usable_cpus() <= AFFINITY


@pytest.mark.parametrize(
    ("cpus", "instances", "threads"), [(8, 1, 8), (8, 3, 2), (2, 4, 1), (0.5, 1, 1), (1.5, 1, 1), (3.0, 3, 1)]
)
def test_threads_are_split_in_whole_numbers(cpus: float, instances: int, threads: int) -> None:
    assert split_threads(cpus, instances) == threads


@given(st.floats(0.01, 4096), st.integers(1, 64))
def test_all_threads_together_exceed_the_cpus_only_where_each_party_has_one(cpus: float, instances: int) -> None:
    threads = split_threads(cpus, instances)
    assert threads == 1 or threads * instances <= cpus


@pytest.mark.parametrize("instances", [0, -1])
def test_threads_cannot_be_split_among_nobody(instances: int) -> None:
    with pytest.raises(ValueError, match="cannot split"):
        split_threads(4, instances)
