"""Requirements of tests on the machine."""

from __future__ import annotations

import os
import shutil

import pytest


def needs(*programs: str, root: bool = False) -> None:
    """Skip a test if a program is missing; fail it instead if root could have installed it.

    Args:
        programs: commands that must be installed; `.ci/run` installs them.
        root: whether the test requires root, for example to mount.
    """
    missing = [program for program in programs if shutil.which(program) is None]
    if missing:
        _stop(f"this test needs {', '.join(missing)}: see install_tools in .ci/run")
    if root and os.geteuid() != 0:
        _stop("this test needs root, because it mounts file systems or changes system limits")


def _stop(sentence: str) -> None:
    if os.geteuid() == 0 or os.environ.get("CI"):
        pytest.fail(sentence, pytrace=False)
    pytest.skip(sentence)
