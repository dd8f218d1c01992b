"""What a test needs of the machine that it runs on."""

from __future__ import annotations

import os
import shutil

import pytest


def needs(*programs: str, root: bool = False) -> None:
    """Skips a test on a developer's machine that lacks something; where root could have put it there, fails it.

    Args:
        programs: commands that must be installed; `.ci/run` installs them.
        root: whether only root can do what the test does, such as to mount.
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
