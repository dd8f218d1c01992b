"""Safe open: no symlinks, no blocking on FIFOs; OS errors become FootageGone or FootageRefused."""

from __future__ import annotations

import errno
import fcntl
import grp
import os
import pwd
import signal
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from agent.errors import FootageGone, FootageRefused, printable
from agent.model import Footage

# Permissions, a bad contact or a missing sidecar can be mended without a change to the footage itself, so no event
# would announce it: the file is inspected again after this time.
RETRY_REFUSED_SECONDS = 600.0

# ENAMETOOLONG: the sidecar of footage whose own name is as long as names may be. Such a file cannot exist.
_GONE = frozenset((errno.ENOENT, errno.ENOTDIR, errno.ESTALE, errno.ENAMETOOLONG))
_FORBIDDEN = frozenset((errno.EACCES, errno.EPERM))


class OpenFootage:
    """A settled file of footage, opened once: every later stage reads this descriptor instead of the name.

    A recorder may replace the name at any instant; the descriptor stays the file that was inspected. Not safe for use
    by several threads at once: they would share one read position.

    Args:
        footage: size and modification time when the file was opened.
        device, inode: identify the file itself, whatever happens to its name.
        file: the file, positioned anywhere; whoever reads it seeks first.
    """

    def __init__(self, footage: Footage, device: int, inode: int, file: BinaryIO) -> None:
        self.footage = footage
        self.device = device
        self.inode = inode
        self.file = file

    def __enter__(self) -> OpenFootage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the descriptor; closing twice is allowed."""
        self.file.close()

    def check_unchanged(self) -> None:
        """Call it after reading: data or errors from a file that changed meanwhile are worthless.

        Raises:
            FootageGone: its size or modification time is no longer that of `footage`.
            FootageRefused: the card does not answer.
        """
        path = self.footage.path
        with translated_errors(path):
            if Footage.from_stat(path, os.fstat(self.file.fileno())) != self.footage:
                raise FootageGone("it changed while it was read")

    def is_being_written(self) -> bool:
        """Whether some process has the file open for writing, as far as the kernel may tell us.

        The kernel grants a read lease only on a file that nobody has open for writing (fcntl(2), F_SETLEASE), and only
        to the file's owner or root, and not on every filesystem: where it will not say, the answer is False.
        """
        descriptor = self.file.fileno()
        try:
            # A writer that comes while we hold the lease makes the kernel signal us. Its own choice, SIGIO, ends the
            # process; SIGURG is ignored unless someone handles it.
            fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError as error:
            return error.errno == errno.EAGAIN
        return False


def open_footage(path: Path) -> OpenFootage:
    """Opens a file of footage for reading. The caller closes it.

    Raises:
        FootageGone: it is not there.
        FootageRefused: it is not a regular file, or the system does not let it be opened.
    """
    with translated_errors(path):
        descriptor = _open(path)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            os.close(descriptor)
            raise FootageRefused("it is not a regular file but a folder, a pipe or a device")
        return OpenFootage(Footage.from_stat(path, found), found.st_dev, found.st_ino, os.fdopen(descriptor, "rb"))


@contextmanager
def open_regular_file(path: Path) -> Iterator[BinaryIO]:
    """A regular file that lies beside footage, open for reading.

    Raises:
        FootageGone, FootageRefused: as `open_footage`, and also for errors of the system within the context.
    """
    with translated_errors(path), open_footage(path) as opened:
        yield opened.file


@contextmanager
def translated_errors(path: Path) -> Iterator[None]:
    """Around whatever reads footage: raises the system's errors as FootageGone or FootageRefused.

    Args:
        path: the file that is read.
    """
    try:
        yield
    except OSError as error:
        raise _translated(error, path) from error


def _open(path: Path) -> int:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        # Reading footage should not cost the card a write of the access time. Only the owner may ask for that.
        return os.open(path, flags | os.O_NOATIME)
    except PermissionError:
        return os.open(path, flags)


def _translated(error: OSError, path: Path) -> FootageGone | FootageRefused:
    if error.errno in _GONE:
        return FootageGone("it is no longer there")
    if error.errno == errno.ELOOP:
        return FootageRefused("it is a symbolic link, and links are never followed")
    if error.errno == errno.ENXIO and _is_special(path):
        return FootageRefused("it is not a regular file but a socket or a device")
    if error.errno in _FORBIDDEN:
        return FootageRefused(_forbidden(path), retry_after_seconds=RETRY_REFUSED_SECONDS)
    return FootageRefused(
        f"it cannot be read ({error.strerror}): the card or its reader may be failing; retried in 10 minutes",
        retry_after_seconds=RETRY_REFUSED_SECONDS,
    )


def _is_special(path: Path) -> bool:
    """Whether the path is a socket or a device. A card that was pulled answers ENXIO for regular files too."""
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
    """The name of a user or a group: the first field of both kinds of entry."""
    try:
        return str(look_up(number)[0])
    except KeyError:
        return str(number)
