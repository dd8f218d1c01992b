from __future__ import annotations

import ctypes
import os
from pathlib import Path

from agent.device.inotify import Inode, watched

IN_CREATE = 0x100


def test_a_watched_directory_is_listed_until_its_watch_ends(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None)
    descriptor = libc.inotify_init()
    try:
        inode = Inode.of(tmp_path / "card")
        assert inode is None
        (tmp_path / "card").mkdir()
        inode = Inode.of(tmp_path / "card")
        assert inode not in watched()
        libc.inotify_add_watch(descriptor, os.fsencode(tmp_path / "card"), IN_CREATE)
        assert inode in watched()
        assert Inode.of(tmp_path) not in watched()
        (tmp_path / "card").rmdir()
        assert inode not in watched()
    finally:
        os.close(descriptor)


def test_a_process_that_does_not_exist_watches_nothing() -> None:
    assert watched("no such process") == frozenset()
