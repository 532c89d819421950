"""The version and the build requirements, each the same in every place where it shows."""

from __future__ import annotations

import importlib.metadata
import pathlib
import re

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
