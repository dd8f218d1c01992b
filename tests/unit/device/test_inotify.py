from __future__ import annotations

import ctypes
import os
from pathlib import Path

from agent.device.inotify import Inode, watched

IN_CREATE = 0x100


def test_what_the_kernel_watches_is_told_until_the_watch_ends(tmp_path: Path) -> None:
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


def test_of_a_process_that_is_not_there_nothing_is_watched() -> None:
    assert watched("no such process") == frozenset()
