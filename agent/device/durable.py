"""Directories and files that survive a power cut once the function returns.

fsync of a file does not save its directory entry (fsync(2)): the directory needs one of its own.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def make_directory(directory: Path, mode: int = 0o700) -> None:
    """Make a directory with its missing parents; what exists already stays as it is.

    Args:
        mode: permission bits of each directory that is made; by default only the owner may enter.

    Raises:
        OSError: the parent is not writable, or something else has that name.
    """
    if directory.is_dir():
        return
    make_directory(directory.parent, mode)
    directory.mkdir(mode)
    sync_directory(directory.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in a directory durable.

    Raises:
        OSError: the disk failed.
    """
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(file: Path, content: str, mode: int) -> None:
    """Write a file in one step: after a power cut it holds either its old content or the new one, whole.

    Args:
        file: made if it does not exist, with its parent directories (mode 0755).
        content: written as UTF-8.
        mode: permission bits, set before any content can be read.

    Raises:
        OSError: the directory is not writable, or the disk failed.
    """
    make_directory(file.parent, 0o755)
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=file.parent, prefix=".", delete=False) as new:
        try:
            new.write(content)
            new.flush()
            os.fchmod(new.fileno(), mode)
            os.fsync(new.fileno())
            Path(new.name).replace(file)
        except OSError:
            Path(new.name).unlink(missing_ok=True)
            raise
    sync_directory(file.parent)
