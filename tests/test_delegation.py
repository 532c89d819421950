"""Where a supervisor makes its cgroups: below its own, beside no one, or where it is told to."""

from __future__ import annotations

import contextlib
import os
import pathlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import pytest
from support import cgroup_directories, providers_of, until

import pysup
from pysup.model import StartRequest

pytestmark = [pytest.mark.kernel, pytest.mark.root]

PREAMBLE = """
import pathlib, sys
import pysup
from pysup.model import *
def own():
    return next(l for l in pathlib.Path("/proc/self/cgroup").read_text().splitlines() if l.startswith("0::"))[3:]
def limits(supervisor):
    return {p.need: p for p in supervisor.providers()}["memory_limit"]
"""


def v2_mount() -> pathlib.Path:
    if providers_of("v2")["freeze"] != "cgroup v2":
        pytest.skip("cgroup v2 cannot be had here")
    for line in pathlib.Path("/proc/self/mountinfo").read_text().splitlines():
        if " - cgroup2 " in line:
            return pathlib.Path(line.split()[4])
    raise AssertionError("cgroup v2 was picked, but is not mounted")


@pytest.fixture
def delegated() -> Iterator[pathlib.Path]:
    """A cgroup v2 with the cpu and memory controllers, and nobody in it."""
    mount = v2_mount()
    if not {"cpu", "memory"} <= set((mount / "cgroup.controllers").read_text().split()):
        pytest.skip("the cpu and memory controllers are not on cgroup v2 here")
    (mount / "cgroup.subtree_control").write_text("+cpu +memory")
    path = mount / f"delegated-{os.getpid()}"
    path.mkdir()
    yield path
    until(lambda: remove(path))


def remove(path: pathlib.Path) -> bool:
    with contextlib.suppress(OSError):
        path.rmdir()
    return not path.exists()


def run_inside(cgroup: pathlib.Path, program: str) -> str:
    """A Python program that stands in the cgroup from its beginning."""
    code = f"import os; open({str(cgroup / 'cgroup.procs')!r}, 'w').write(str(os.getpid()))\n"
    code += PREAMBLE + textwrap.dedent(program)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_supervisor_alone_in_its_cgroup_makes_room(delegated: pathlib.Path) -> None:
    out = run_inside(
        delegated,
        """
        before = own()
        with pysup.LocalSupervisor() as supervisor:
            print(limits(supervisor).choice, own().startswith(before + "/pysup-"))
            profile = CgroupProfileConfig(0.5, 64 << 20)
            supervisor.configure(
                ConfigureRequest("d", cgroup_profiles=CgroupProfiles(profile, profile), start_profile="throttled")
            )
            supervisor.start(StartRequest("d"))
            print(*supervisor.limits("d"))
        print(own() == before)
        """,
    )
    assert out.splitlines() == ["cgroup v2 True", f"0.5 {64 << 20}", "True"]
    assert [entry.name for entry in delegated.iterdir() if entry.is_dir()] == []


def test_a_supervisor_among_others_says_what_helps(delegated: pathlib.Path) -> None:
    with subprocess.Popen(["/bin/sleep", "600"]) as other:
        (delegated / "cgroup.procs").write_text(str(other.pid))
        out = run_inside(
            delegated,
            """
            before = own()
            with pysup.LocalSupervisor() as supervisor:
                print(limits(supervisor).choice, own() == before)
                print(limits(supervisor).reason)
                supervisor.start(StartRequest("d"))
                supervisor.freeze(FreezeRequest("d"))
            """,
        )
        other.kill()
    assert out.splitlines()[0] == "none True"
    assert "other processes" in out
    assert "Delegate=yes" in out


def test_a_named_parent_is_made_and_used() -> None:
    mount = v2_mount()
    parent = mount / f"slice-{os.getpid()}"
    with pysup.LocalSupervisor(cgroups="v2", cgroup_parent=f"/{parent.name}/inner") as supervisor:
        supervisor.start(StartRequest("d"))
        made = {path for path in cgroup_directories() if path.startswith(f"{parent}/inner/pysup-")}
        assert len(made) == 1
    assert not made & cgroup_directories()
    # What the user has named is the user's to remove.
    until(lambda: remove(parent / "inner"))
    until(lambda: remove(parent))


def test_a_parent_that_is_no_path_is_refused() -> None:
    for parent in ("relative", "/a/../b"):
        with pytest.raises(pysup.FailureError, match="cgroup_parent"):
            pysup.LocalSupervisor(cgroup_parent=parent)
