"""Two builds measured in one run: real processes, real counts, and a build that is really slower."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

import inferd
from bench.micro import child, record
from bench.micro.builds import Checkout
from bench.micro.child import Timing
from bench.micro.command import compare, micro
from bench.micro.verdict import Verdict
from inferd.errors import StartError

INSTALLED = Path(inferd.__file__).resolve().parents[1]
QUICK = Timing(repeats=2, sample_ns=1000)

# As the compiled one, with a few lines of Python in between.
SLOW_DOORBELL = """
class Doorbell:
    rung = False

    def ring(self):
        self.rung = bool(list(range(1000)))

    def wait(self, until_ns=-1):
        return self.rung
"""

with_valgrind = pytest.mark.skipif(not child.has_valgrind(), reason="valgrind is not installed")


@pytest.fixture
def slow_build(tmp_path: Path) -> Path:
    """What is installed, with a slow doorbell and without statistics."""
    shutil.copytree(INSTALLED / "inferd", tmp_path / "lib" / "inferd", ignore=shutil.ignore_patterns("__pycache__"))
    native = tmp_path / "lib" / "inferd" / "_native"
    for path in [*native.glob("doorbell.*.so"), *native.glob("stats.*.so")]:
        path.unlink()
    (native / "doorbell.py").write_text(SLOW_DOORBELL)
    return tmp_path / "lib"


@with_valgrind
def test_a_slower_build_a_missing_case_and_nothing_at_all_are_told_apart(slow_build: Path) -> None:
    found = {one.name: one for one in compare(INSTALLED, slow_build, ["ring", "count", "output view"], 2, True)}
    assert {one.decided_by for one in found.values() if one.ratio} == {"instructions"}
    assert found["ring, wait: no thread asleep"].verdict is Verdict.DEARER
    assert found["count: a request"].verdict is Verdict.BROKEN
    assert found["output view: tiny"].ratio == pytest.approx(1, abs=0.02)


def test_a_slower_build_is_found_out_without_valgrind(slow_build: Path) -> None:
    [change] = compare(INSTALLED, slow_build, ["ring"], 3, False)
    assert (change.verdict, change.decided_by) == (Verdict.DEARER, "time")


def test_a_build_that_is_not_the_one_imported_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartError, match=r"inferd is imported from .* nothing was measured"):
        child.times(tmp_path, ["decode: tiny"], QUICK)


def test_the_figures_are_printed_and_written(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    done = CliRunner().invoke(
        micro, ["decode", "gather: image", "--repeats=2", "--sample-ms=0.001", f"--json={path}"], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    found = {one["name"]: one for one in json.loads(path.read_text())["figures"]}
    assert set(found) >= {"decode: tiny", "decode: image, typed", "gather: image"}
    assert found["gather: image"]["bytes_per_op"] == 602_112
    assert found["decode: tiny"]["min_ns"] <= found["decode: tiny"]["median_ns"]
    assert all(name in done.output for name in found)
    read = record.stored(path)
    assert read is not None
    assert read.commit is None


def test_a_name_that_no_case_has_is_an_error() -> None:
    with pytest.raises(StartError, match="no case has a name that begins with 'dekode'"):
        CliRunner().invoke(micro, ["dekode"], catch_exceptions=False, standalone_mode=False)


def test_stored_figures_that_are_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "baseline.json"
    assert record.stored(path) is None
    path.write_text('{"schema": "inferd-micro/2"}')
    with pytest.raises(StartError, match="write it anew"):
        record.stored(path)


# --- what is compared with what ------------------------------------------------------------------------------


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A git repository with two commits to setup.py."""
    git(tmp_path, "init", "--quiet", "--initial-branch=main")
    for content in ("1", "2"):
        (tmp_path / "setup.py").write_text(content)
        git(tmp_path, "add", "setup.py")
        git(tmp_path, "commit", "--quiet", "--message", content)
    return tmp_path


def git(folder: Path, *arguments: str) -> str:
    author = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *author, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_the_base_is_the_commit_of_the_stored_figures(repository: Path) -> None:
    first = git(repository, "rev-parse", "HEAD~1")
    assert Checkout(repository).default_base(first) == first
    assert Checkout(repository).default_base(first[:10]) == first
    with pytest.raises(StartError, match="commit 0123abc of the stored figures is not here"):
        Checkout(repository).default_base("0123abc")


def test_without_stored_figures_the_base_is_what_the_work_started_from(repository: Path) -> None:
    head, first = git(repository, "rev-parse", "HEAD"), git(repository, "rev-parse", "HEAD~1")
    checkout = Checkout(repository)
    assert checkout.default_base(None) == first
    (repository / "setup.py").write_text("3")
    assert checkout.default_base(None) == head
    git(repository, "update-ref", "refs/remotes/origin/main", first)
    assert checkout.default_base(None) == first


def test_files_that_are_built_from_count_as_changes_and_others_do_not(repository: Path) -> None:
    checkout = Checkout(repository)
    (repository / "notes").write_text("")
    assert not checkout.has_changes()
    (repository / "ext").mkdir()
    (repository / "ext" / "new.pyx").write_text("")
    assert checkout.has_changes()


def test_a_build_is_kept_and_made_anew_when_its_sources_change(repository: Path) -> None:
    # A setup.py that answers for the real one: it writes where it was told to, what it was built from.
    script = "import pathlib, sys\n[lib] = [a.split('=')[1] for a in sys.argv if a.startswith('--build-lib=')]\n"
    script += (
        "pathlib.Path(lib).mkdir(parents=True)\n(pathlib.Path(lib) / 'made').write_text(open('ext/a.pyx').read())\n"
    )
    (repository / "setup.py").write_text(script)
    (repository / "ext").mkdir()
    (repository / "ext" / "a.pyx").write_text("one")
    git(repository, "add", ".")
    git(repository, "commit", "--quiet", "--message", "3")
    (repository / "ext" / "a.pyx").write_text("two")
    checkout = Checkout(repository)
    base, head = checkout.base(git(repository, "rev-parse", "HEAD")), checkout.head()
    assert ((base / "made").read_text(), (head / "made").read_text()) == ("one", "two")
    (head / "kept").touch()
    assert (checkout.head() / "kept").exists()
    (repository / "ext" / "a.pyx").write_text("three")
    assert (checkout.head() / "made").read_text() == "three"
    assert not head.exists()


def test_a_build_that_fails_says_where_and_why_and_is_not_kept(repository: Path) -> None:
    (repository / "setup.py").write_text("raise SystemExit('no compiler')")
    for _ in range(2):
        with pytest.raises(StartError, match=r"the head could not be built in .*: no compiler"):
            Checkout(repository).head()
