"""The contract once more, in the same run, as a user without any rights over cgroups or other users."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from support import NOBODY

# All that this user keeps of root: reading the interpreter and the tests, wherever they lie.
DROP = [
    "setpriv",
    f"--reuid={NOBODY}",
    f"--regid={NOBODY}",
    "--clear-groups",
    "--bounding-set=-all,+dac_read_search",
    "--inh-caps=-all,+dac_read_search",
    "--ambient-caps=-all,+dac_read_search",
]


@pytest.mark.root
@pytest.mark.skipif(not shutil.which("setpriv"), reason="setpriv (util-linux) is not installed")
def test_the_contract_without_rights(tmp_path_factory: pytest.TempPathFactory) -> None:
    here = pathlib.Path(__file__).parent
    # Not below pytest's own directory, which is its owner's alone.
    scratch = pathlib.Path("/tmp") / f"pysup-nobody-{os.getpid()}"
    scratch.mkdir(mode=0o700)
    os.chown(scratch, NOBODY, NOBODY)
    try:
        run = subprocess.run(
            [*DROP, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]  # noqa: RUF005
            + [f"--basetemp={scratch}/t", "-k", "auto or not mode", str(here / "test_supervisor.py")],
            cwd=here.parent,
            env={**os.environ, "HOME": str(scratch), "PYTHONDONTWRITEBYTECODE": "1"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=1200,
        )
    finally:
        shutil.rmtree(scratch)
    print(run.stdout)
    assert run.returncode == 0, run.stdout + run.stderr
    assert int(re.findall(r"(\d+) passed", run.stdout)[-1]) > 50
    assert "needs root" in run.stdout  # among the reasons for what was skipped: it was not root
