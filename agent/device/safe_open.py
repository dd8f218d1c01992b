"""Reading what a recorder wrote without being led astray or kept waiting, and with the system's errors decided."""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from agent.errors import FootageGone, FootageRefused, printable

# What keeps a file from being read (permissions, a bad contact, a missing sidecar) can be mended without a change to
# the file itself: only time can bring it back.
RETRY_REFUSED_SECONDS = 600.0

# No file can have a name that is too long: the sidecar of footage whose own name is as long as names may be.
_GONE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENAMETOOLONG))
_FORBIDDEN = frozenset((errno.EACCES, errno.EPERM))


@contextmanager
def open_regular_file(path: Path) -> Iterator[BinaryIO]:
    """A regular file, open for reading: links are not followed, and a pipe without a writer does not block.

    Raises:
        FootageGone: it is not there.
        FootageRefused: it is no regular file, or the system would not let it be opened, or read within the context.
    """
    try:
        descriptor = _open(path)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise FootageRefused("it is not a regular file but a folder, a pipe or a device")
        with os.fdopen(descriptor, "rb") as file:
            yield file
    except OSError as error:
        raise _decided(error, path) from error


def _open(path: Path) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        # Looking at footage should not cost a write to the card. Only the file's owner may ask for that.
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)


def _decided(error: OSError, path: Path) -> FootageGone | FootageRefused:
    if error.errno in _GONE:
        return FootageGone("it is no longer there")
    if error.errno == errno.ELOOP:
        return FootageRefused("it is a symbolic link, and links are never followed")
    if error.errno == errno.ENXIO and _is_special(path):
        return FootageRefused("it is not a regular file but a socket or a device")
    if error.errno in _FORBIDDEN:
        return FootageRefused(_forbidden(path), retry_after_seconds=RETRY_REFUSED_SECONDS)
    return FootageRefused(
        f"it cannot be read ({error.strerror}): the card or its reader may be failing; looked at again in 10 minutes",
        retry_after_seconds=RETRY_REFUSED_SECONDS,
    )


def _is_special(path: Path) -> bool:
    """Whether a socket or a device stands there. A card that was pulled answers ENXIO for its files too."""
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _forbidden(path: Path) -> str:
    user = _name_of(pwd.getpwuid, os.geteuid())
    try:
        found = path.lstat()
    except OSError:
        return f"user {user} may not enter {printable(str(path.parent))}: allow it (chmod o+rx on that folder)"
    owner, group = _name_of(pwd.getpwuid, found.st_uid), _name_of(grp.getgrgid, found.st_gid)
    return (
        f"user {user} may not read it: it belongs to {owner}, group {group}, mode {stat.S_IMODE(found.st_mode):04o}. "
        f"Let the recorder write files that all may read, or that group {group} may read, and add {user} to that group "
        f"(usermod -aG {group} {user})"
    )


def _name_of(look_up: Callable[[int], Sequence[object]], number: int) -> str:
    """The name of a user or a group, which is the first field in both kinds of entry."""
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)
