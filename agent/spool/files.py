"""The stored files: hard links, or copies where links are impossible, durable before anything relies on them.

The name of a stored file contains all that delivery needs, so that the queue can be rebuilt from the files alone: if
the database is lost, or the power goes between storing the file and writing its row, nothing else is lost.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote, unquote

from agent.device.durable import make_directory, sync_directory
from agent.device.safe_open import RETRY_REFUSED_SECONDS, OpenFootage, open_footage
from agent.errors import FootageGone, FootageRefused, SpoolFull
from agent.model import Clip, ClipKey, Footage, UntrustedClock
from agent.spool.records import Stored

COPY_CHUNK_BYTES = 1 << 20
SAMPLE_BYTES = 64 << 10
# link(2): another filesystem, one without hard links (FAT: EPERM), a foreign owner (fs.protected_hardlinks: EPERM),
# too many links, or a filesystem that does not know the call.
LINK_IMPOSSIBLE = {errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS}
# What an open file can be linked from, while /proc is mounted.
DESCRIPTORS = Path("/proc/self/fd")
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}

_NAME = re.compile(
    r"(?P<start>\d{8}T\d{6}Z)_(?P<end>\d{8}T\d{6}Z)_(?P<registration>[^_]+)_(?P<camera>\d{1,9})"
    r"_p(?P<priority>-?\d{1,9})(?:_b(?P<boot>[0-9a-f]{32}),(?P<began>-?\d{1,12}),(?P<lag>-?\d{1,12}))?"
    r"_(?P<identity>[0-9a-f]{32})-(?P<piece>\d{1,9})\.mp4",
    re.ASCII,
)
_STAMP = "%Y%m%dT%H%M%SZ"
_MULTI_PART_SUFFIX = ".set"


@dataclass(frozen=True, slots=True)
class StoredName:
    """The content of a stored file's name."""

    key: ClipKey
    priority: int
    identity: str
    piece: int
    clock: UntrustedClock | None = None

    @property
    def text(self) -> str:
        """The name itself."""
        key, clock = self.key, self.clock
        return (
            f"{key.start:{_STAMP}}_{key.end:{_STAMP}}_{_quoted(key.registration)}"
            f"_{key.camera}_p{self.priority}"
            + (f"_b{clock.boot_id},{clock.boot_time},{clock.lag_seconds}" if clock else "")
            + f"_{self.identity}-{self.piece}.mp4"
        )


def name_for(clip: Clip) -> str:
    """The stored file's name. The same footage always gets the same one: a repeated intake leaves no second file."""
    return StoredName(clip.key, clip.priority, clip.footage.identity, clip.piece, clip.clock).text


def _quoted(registration: str) -> str:
    """Letters of other scripts stay as they are: quoted, twenty would exceed the length of a file name (255 bytes)."""
    return "".join(c if c > "\x7f" and c.isalnum() else quote(c, safe="").replace("_", "%5F") for c in registration)


def read_name(name: str) -> StoredName | None:
    """Parses the name of a file in the clips directory; None if it is not a stored clip."""
    match = _NAME.fullmatch(name)
    if match is None:
        return None
    try:
        start, end = (
            datetime.strptime(match[group], _STAMP).replace(tzinfo=timezone.utc) for group in ("start", "end")
        )
    except ValueError:
        return None
    key = ClipKey(unquote(match["registration"]), int(match["camera"]), start, end)
    clock = UntrustedClock(match["boot"], int(match["began"]), int(match["lag"])) if match["boot"] else None
    return StoredName(key, int(match["priority"]), match["identity"], int(match["piece"]), clock)


def piece_of(name: str) -> tuple[str, int] | None:
    """The identity and the piece in a stored file's name, without parsing the rest of it; None for other files."""
    identity, _, piece = name.removesuffix(".mp4").rpartition("_")[2].partition("-")
    return (identity, int(piece)) if piece.isascii() and piece.isdigit() else None


class ClipFiles:
    """The directory of stored clips. Keeps no state in memory, and may be used from any thread.

    Args:
        directory: where the files are; it is made, durably, if need be.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        make_directory(directory)
        for leftover in self._ending(".part"):
            leftover.unlink()

    def store(self, clip: Clip, source: OpenFootage | Path, *, max_copy_bytes: int) -> bool:
        """Links or copies the bytes of a clip. They are durable after `examine`, their name after `sync`.

        Args:
            clip: determines the name.
            source: the footage itself, or a piece that was cut from it.
            max_copy_bytes: space for a copy; a hard link needs none.

        Returns:
            Whether they had to be copied.

        Raises:
            FootageGone: the source has no name any more, or changed since it was opened.
            FootageRefused: the source cannot be read.
            SpoolFull: a copy is needed and there is no space for it.
            OSError: the disk failed.
        """
        target = self.directory / name_for(clip)
        if isinstance(source, OpenFootage):
            return _store(source, target, max_copy_bytes)
        with open_footage(source) as opened:
            return _store(opened, target, max_copy_bytes)

    def sync(self) -> None:
        """Makes the names of stored files durable."""
        sync_directory(self.directory)

    def begin_multi_part(self, footage: Footage) -> None:
        """Notes durably that several pieces of this footage are being stored, all or none."""
        note = self._note_of(footage.identity)
        with note.open("w") as file:
            json.dump([str(footage.path), footage.size_bytes, footage.modified_ns], file)
            file.flush()
            os.fsync(file.fileno())
        self.sync()

    def end_multi_part(self, identity: str) -> None:
        """Removes that note: the pieces are all in the queue, or all removed."""
        self._note_of(identity).unlink(missing_ok=True)

    def unfinished_multi_parts(self) -> dict[str, Footage | None]:
        """The footage whose pieces were being stored when the power went, by identity; None if its note is damaged."""
        found: dict[str, Footage | None] = {}
        for note in self._ending(_MULTI_PART_SUFFIX):
            try:
                path, size_bytes, modified_ns = json.loads(note.read_text())
                found[note.stem] = Footage(Path(path), size_bytes, modified_ns)
            except (ValueError, TypeError):
                found[note.stem] = None
        return found

    def _ending(self, suffix: str) -> list[Path]:
        """The files whose names end so. Unlike a glob, this needs no memory for all others."""
        return [self.directory / name for name in self.names() if name.endswith(suffix)]

    def _note_of(self, identity: str) -> Path:
        return self.directory / f"{identity}{_MULTI_PART_SUFFIX}"

    def remove(self, name: str) -> None:
        """Removes a stored file, if it exists."""
        (self.directory / name).unlink(missing_ok=True)

    def rename(self, name: str, to: str) -> None:
        """Renames a stored file durably. If it has that name already, it was renamed before a power cut.

        Raises:
            OSError: it does not exist, or the disk failed.
        """
        try:
            (self.directory / name).rename(self.directory / to)
        except FileNotFoundError:
            if not self.has(to):
                raise
        self.sync()

    def has(self, name: str) -> bool:
        return (self.directory / name).is_file()

    def was_written_to(self, stored: Stored) -> bool:
        """Whether a stored file exists and was written to since it was stored."""
        try:
            found = (self.directory / stored.name).lstat()
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) != (stored.size_bytes, stored.modified_ns)

    def names(self) -> Iterator[str]:
        """The names of all files in the directory."""
        with os.scandir(self.directory) as entries:
            for entry in entries:
                yield entry.name

    def examine(self, name: str, linked_from: OpenFootage | None = None, *, is_durable: bool = False) -> Stored:
        """The stored file as it is on disk now. Its data is made durable first: recorders need not have done that.

        Args:
            linked_from: the same file, open already.
            is_durable: it has been made durable already.

        Raises:
            OSError: it does not exist or cannot be read.
        """
        if linked_from is not None:
            return _examine(linked_from.file.fileno(), name, is_durable=is_durable)
        fd = os.open(self.directory / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            return _examine(fd, name, is_durable=is_durable)
        finally:
            os.close(fd)


def _store(source: OpenFootage, target: Path, max_copy_bytes: int) -> bool:
    """Returns whether the bytes had to be copied."""
    try:
        try:
            _link(source, target)
        except FileExistsError:
            # Left by an intake that the power cut short: its row was never written.
            target.unlink()
            _link(source, target)
    except FileNotFoundError as exc:
        raise FootageGone(f"{source.footage.path.name} is no longer there") from exc
    except OSError as exc:
        if exc.errno not in LINK_IMPOSSIBLE:
            raise
        _copy(source, target, max_copy_bytes)
        return True
    return False


def _link(source: OpenFootage, target: Path) -> None:
    """Links the file that was inspected, whatever its name stands for by now.

    Raises:
        FootageGone: without /proc: its name stands for another file.
        FileNotFoundError: its last name is gone.
    """
    descriptor = source.file.fileno()
    try:
        # The directory's descriptor is not used, since the path is absolute, but makes Python call linkat(2):
        # link(2) would link the symbolic link in /proc itself.
        os.link(DESCRIPTORS / str(descriptor), target, src_dir_fd=descriptor, follow_symlinks=True)
    except FileNotFoundError:
        if os.fstat(descriptor).st_nlink == 0:
            raise
        # /proc is not mounted. The name may stand for another file by now.
        os.link(source.footage.path, target, follow_symlinks=False)
        found = target.lstat()
        if (found.st_dev, found.st_ino) != (source.device, source.inode):
            target.unlink()
            raise FootageGone(f"{source.footage.path.name} is another file now") from None


def _copy(source: OpenFootage, target: Path, max_bytes: int) -> None:
    part = target.with_suffix(".part")
    name, size_bytes = source.footage.path.name, source.footage.size_bytes
    if size_bytes > max_bytes:
        raise SpoolFull(f"no room for a copy of {name} ({size_bytes:,} bytes)")
    try:
        before = os.fstat(source.file.fileno())
        if before.st_nlink == 0:
            raise FootageGone(f"{name} is no longer there")
        with part.open("wb", buffering=0) as writing:
            _pump(source.file.fileno(), writing.fileno(), size_bytes)
            os.utime(writing.fileno(), ns=(before.st_atime_ns, source.footage.modified_ns))
            os.fsync(writing.fileno())
        source.check_unchanged()
        part.replace(target)
    except OSError as exc:
        if exc.errno in NO_SPACE:
            raise SpoolFull(f"the card is full: no room for a copy of {name}") from exc
        if exc.errno == errno.EIO:
            # A bad sector of the card. If it is the spool's own disk that fails, its next fsync tells.
            reason = f"it cannot be read ({exc.strerror}): the card may be failing"
            raise FootageRefused(reason, RETRY_REFUSED_SECONDS) from exc
        raise
    finally:
        part.unlink(missing_ok=True)


def _pump(reading: int, writing: int, size_bytes: int) -> None:
    """Copies inside the kernel. Ends early if the file shrank, which the caller notices."""
    copied = 0
    while copied < size_bytes:
        sent = os.sendfile(writing, reading, copied, min(COPY_CHUNK_BYTES, size_bytes - copied))
        if sent == 0:
            return
        copied += sent


def _examine(fd: int, name: str, *, is_durable: bool) -> Stored:
    if not is_durable:
        os.fsync(fd)
    stat = os.fstat(fd)
    digest = hashlib.blake2b(os.pread(fd, SAMPLE_BYTES, 0), digest_size=16)
    digest.update(os.pread(fd, SAMPLE_BYTES, max(SAMPLE_BYTES, stat.st_size - SAMPLE_BYTES)))
    return Stored(name, stat.st_size, stat.st_mtime_ns, digest.hexdigest())
