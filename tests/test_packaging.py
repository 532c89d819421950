"""What is installed: one version everywhere, and a core that other programs can embed."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import pathlib
import re
import shutil
import subprocess

import pytest

import pysup

ROOT = pathlib.Path(__file__).resolve().parent.parent


def test_version_has_one_source() -> None:
    header = (ROOT / "csrc/include/pysup.h").read_text()
    match = re.search(r'#define PSUP_VERSION "([^"]+)"', header)
    assert match
    assert pysup.__version__ == match[1]
    assert importlib.metadata.version("libpysup") == match[1]


def test_build_group_is_what_the_build_system_requires() -> None:
    tomllib = pytest.importorskip("tomllib", reason="tomllib is in Python 3.11 and later")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["dependency-groups"]["build"] == project["build-system"]["requires"]


EMBEDDER = """
#include <pysup.h>
#include <string.h>
int main(void) { return strcmp(psup_version(), PSUP_VERSION) != 0; }
"""


def test_wheel_has_header_and_static_library_to_embed(tmp_path: pathlib.Path) -> None:
    package = importlib.resources.files("pysup")
    header, library = package / "include/pysup.h", package / "lib/libpysup.a"
    assert header.is_file()
    assert library.is_file()
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None:
        pytest.skip("no C compiler")
    if "PYSUP_SANITIZED" in os.environ:
        pytest.skip("the static library is instrumented")
    (tmp_path / "main.c").write_text(EMBEDDER)
    command = [compiler, "main.c", f"-I{package / 'include'}", str(library), "-pthread", "-o", "main"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "main"], check=True)
