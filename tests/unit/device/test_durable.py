"""Durable writes are complete, have the requested mode, and leave no temporary files."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from agent.device.durable import make_directory, replace_file


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_is_made_with_its_parents_and_only_for_its_owner(tmp_path: Path) -> None:
    make_directory(tmp_path / "a" / "b")
    make_directory(tmp_path / "a" / "b")
    assert [mode_of(tmp_path / "a"), mode_of(tmp_path / "a" / "b")] == [0o700, 0o700]


def test_an_existing_directory_keeps_its_mode(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    make_directory(tmp_path)
    assert mode_of(tmp_path) == 0o755


def test_a_file_is_replaced_with_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    file = tmp_path / "etc" / "api-password"
    before = os.umask(0o027)
    try:
        replace_file(file, "first\n", 0o644)
        assert mode_of(file) == 0o644
        replace_file(file, "second\n", 0o600)
    finally:
        os.umask(before)
    assert (file.read_text(), mode_of(file)) == ("second\n", 0o600)
    assert [entry.name for entry in file.parent.iterdir()] == ["api-password"]


def test_a_replacement_that_fails_leaves_no_temporary_file(tmp_path: Path) -> None:
    occupied = tmp_path / "name"
    occupied.mkdir()
    with pytest.raises(IsADirectoryError):
        replace_file(occupied, "content", 0o600)
    assert [entry.name for entry in tmp_path.iterdir()] == ["name"]
