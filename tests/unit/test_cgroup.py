"""Memory limits of cgroups of both versions, in folders made to look like the kernel's, and what is shed near one."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from inferd._native.admission import Admission
from inferd.admission import MemoryGuard
from inferd.cgroup import MemoryLimit, MemoryUse, memory_limit

GIB = 1 << 30


class Kernel:
    """What a process sees under /proc and /sys/fs/cgroup."""

    def __init__(self, root: Path) -> None:
        self.proc, self.cgroups = root / "proc", root / "cgroup"
        (self.proc / "self").mkdir(parents=True)

    def member_of(self, *lines: str) -> None:
        (self.proc / "self" / "cgroup").write_text("".join(f"{line}\n" for line in lines))

    def says(self, path: str, text: object) -> None:
        file = self.cgroups / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{text}\n")

    @property
    def limit(self) -> MemoryLimit | None:
        return memory_limit(self.proc, self.cgroups)


def used(limit: MemoryLimit) -> int:
    use = MemoryUse(limit)
    try:
        return use.used_bytes()
    finally:
        use.close()


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    return Kernel(tmp_path)


def test_no_cgroup_is_no_limit(kernel: Kernel) -> None:
    assert kernel.limit is None


def test_max_is_no_limit(kernel: Kernel) -> None:
    kernel.member_of("0::/pod")
    kernel.says("pod/memory.max", "max")
    assert kernel.limit is None


def test_the_smallest_limit_above_the_process_holds(kernel: Kernel) -> None:
    kernel.member_of("0::/pod/container")
    kernel.says("pod/container/memory.max", "max")
    kernel.says("pod/memory.max", GIB)
    kernel.says("pod/memory.current", GIB // 2)
    kernel.says("memory.max", 4 * GIB)
    limit = kernel.limit
    assert limit is not None
    assert (limit.limit_bytes, used(limit)) == (GIB, GIB // 2)


def test_pages_of_files_that_the_kernel_would_give_up_are_not_in_use(kernel: Kernel) -> None:
    kernel.member_of("0::/")
    kernel.says("memory.max", GIB)
    kernel.says("memory.current", 900)
    kernel.says("memory.stat", "anon 500\nfile 400\ninactive_file 300\nactive_file 100")
    limit = kernel.limit
    assert limit is not None
    assert used(limit) == 600


def test_version_one_says_the_same_in_other_words(kernel: Kernel) -> None:
    kernel.member_of("4:memory:/docker/1", "3:cpu,cpuacct:/docker/1")
    kernel.says("memory/memory.limit_in_bytes", 2 * GIB)
    kernel.says("memory/memory.usage_in_bytes", 900)
    kernel.says("memory/memory.stat", "inactive_file 1\ntotal_inactive_file 300")
    limit = kernel.limit
    assert limit is not None
    assert (limit.version, limit.limit_bytes, used(limit)) == (1, 2 * GIB, 600)


def test_the_number_that_version_one_has_for_no_limit_is_none(kernel: Kernel) -> None:
    kernel.member_of("4:memory:/")
    kernel.says("memory/memory.limit_in_bytes", 9223372036854771712)
    assert kernel.limit is None


def test_large_requests_are_shed_near_the_limit_and_all_of_them_nearer(kernel: Kernel) -> None:
    kernel.member_of("0::/")
    kernel.says("memory.max", 1000)
    limit = kernel.limit
    assert limit is not None
    admission, told = Admission(), list[int]()
    guard = MemoryGuard(limit, 0.9, 64, admission, told.append)
    found = []
    for used in (899, 900, 949, 950, 2000, 949, 0):
        kernel.says("memory.current", used)
        guard.look()
        found.append(admission.spare_bytes)
    assert found == [0, 64, 64, 1, 1, 64, 0]
    # Told of changes only.
    assert told == [64, 1, 64, 0]


def test_pages_of_files_are_looked_at_only_where_it_could_matter(kernel: Kernel) -> None:
    kernel.member_of("0::/")
    kernel.says("memory.max", 1000)
    kernel.says("memory.stat", "inactive_file 300")
    limit = kernel.limit
    assert limit is not None
    use = MemoryUse(limit)
    found = []
    for now in (899, 900, 901):
        kernel.says("memory.current", now)
        found.append(use.used_bytes(exact_from=900))
    use.close()
    assert found == [899, 600, 601]


def test_memory_is_seen_also_when_there_are_no_files_to_be_had(kernel: Kernel) -> None:
    kernel.member_of("0::/")
    kernel.says("memory.max", 1000)
    kernel.says("memory.current", 0)
    kernel.says("memory.stat", "inactive_file 0")
    limit = kernel.limit
    assert limit is not None
    use = MemoryUse(limit)
    assert use.used_bytes() == 0
    kernel.says("memory.current", 950)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        assert use.used_bytes() == 950
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
        use.close()
