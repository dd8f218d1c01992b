"""Request bodies that are streamed from the stored files: their memory depends on neither clip nor batch size.

A body can be sent again: each time it opens the files anew. It never ends as if it were whole when a file is not.
"""

from __future__ import annotations

import base64
import errno
import functools
import importlib
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from typing import BinaryIO
from zoneinfo import ZoneInfo

from agent.errors import Cancelled, ClipUnreadable, LinkDown
from agent.model import Upload
from agent.vision.assumptions import BULK, FILE, clean, record_fields

CHUNK_BYTES = 256 * 1024

ProgressCallback = Callable[[int, int], None]
ShouldStop = Callable[[], bool]


def no_progress(_sent_bytes: int, _position: int) -> None:
    """For callers that do not watch."""


def never_stop() -> bool:
    """For callers that are not stopped."""
    return False


class _Body:
    """Frames of text with a stored file between each two.

    Args:
        uploads: the clips, in order.
        frames: what stands before each file, and what stands after the last.
        progress: called with the bytes of the body that have left, and the position of the clip they belong to, from 0.
        stopping: asked before each piece.

    Raises, while it is iterated:
        ClipUnreadable: a stored file is gone, is not the one that was stored, or cannot be read.
        Stopped: the daemon is to stop.
    """

    content_type: str
    _raw_chunk_bytes = CHUNK_BYTES

    def __init__(
        self, uploads: Sequence[Upload], frames: Sequence[bytes], progress: ProgressCallback, stopping: ShouldStop
    ) -> None:
        self._uploads = uploads
        self._frames = frames
        self._progress = progress
        self._stopping = stopping

    def __len__(self) -> int:
        files = sum(self._encoded_bytes(upload.size_bytes) for upload in self._uploads)
        return files + sum(len(frame) for frame in self._frames)

    def __iter__(self) -> Iterator[bytes]:
        with ExitStack() as opened:
            # All of them before the first byte is sent: mobile data costs money.
            files = [opened.enter_context(_open(upload)) for upload in self._uploads]
            sent_bytes = 0
            for position, piece in _coalesce(self._chunks(files)):
                if self._stopping():
                    raise Cancelled("asked to stop while sending")
                yield piece
                sent_bytes += len(piece)
                self._progress(sent_bytes, position)

    def _chunks(self, files: Sequence[BinaryIO]) -> Iterator[tuple[int, bytes]]:
        for position, upload in enumerate(self._uploads):
            yield position, self._frames[position]
            for piece in _read_chunks(upload, files[position], self._raw_chunk_bytes):
                yield position, self._encode(piece)
        yield len(self._uploads) - 1, self._frames[-1]

    def _encode(self, piece: bytes) -> bytes:
        return piece

    def _encoded_bytes(self, size_bytes: int) -> int:
        return size_bytes


class JsonBulkBody(_Body):
    """`{"data": [{…, "video_file": "<base64>"}, …], "webhook_url": "…"}`."""

    content_type = "application/json"
    # A multiple of 3, so that each piece is whole in base64; it becomes exactly one piece.
    _raw_chunk_bytes = CHUNK_BYTES // 4 * 3

    def __init__(
        self,
        uploads: Sequence[Upload],
        zone: ZoneInfo,
        webhook_url: str | None = None,
        *,
        progress: ProgressCallback = no_progress,
        stopping: ShouldStop = never_stop,
    ) -> None:
        records = [f'{json.dumps(record_fields(upload, zone))[:-1]}, "{FILE}": "' for upload in uploads]
        webhook = f', "webhook_url": {json.dumps(clean(webhook_url))}' if webhook_url else ""
        opening, between, closing = f'{{"{BULK}": [', '"}, ', f'"}}]{webhook}}}'
        frames = [f"{between if position else opening}{record}".encode() for position, record in enumerate(records)]
        super().__init__(uploads, [*frames, closing.encode()], progress, stopping)

    def _encode(self, piece: bytes) -> bytes:
        return _base64_encoder()(piece)

    def _encoded_bytes(self, size_bytes: int) -> int:
        return (size_bytes + 2) // 3 * 4


class _MultipartBody(_Body):
    """multipart/form-data (RFC 7578). Nothing that a user wrote stands in a header, so it cannot break out of one."""

    def __init__(
        self,
        uploads: Sequence[Upload],
        zone: ZoneInfo,
        *,
        names: Sequence[str],
        others: dict[str, str],
        progress: ProgressCallback,
        stopping: ShouldStop,
    ) -> None:
        boundary = secrets.token_hex(16)
        self.content_type = f"multipart/form-data; boundary={boundary}"

        def part(name: str, more: str = "") -> str:
            return f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'

        frames, line_end = [], ""
        for upload, name in zip(uploads, names, strict=True):
            told = "".join(f"{part(name.format(key))}{value}\r\n" for key, value in record_fields(upload, zone).items())
            file = part(name.format(FILE), f'; filename="{upload.id}.mp4"\r\nContent-Type: video/mp4')
            frames.append(f"{line_end}{told}{file}".encode())
            line_end = "\r\n"
        closing = "".join(f"{part(key)}{value}\r\n" for key, value in others.items())
        super().__init__(uploads, [*frames, f"\r\n{closing}--{boundary}--\r\n".encode()], progress, stopping)


class MultipartBulkBody(_MultipartBody):
    """The records in bracket form, `data[0][registration]`."""

    def __init__(
        self,
        uploads: Sequence[Upload],
        zone: ZoneInfo,
        webhook_url: str | None = None,
        *,
        progress: ProgressCallback = no_progress,
        stopping: ShouldStop = never_stop,
    ) -> None:
        names = [f"{BULK}[{position}][{{}}]" for position in range(len(uploads))]
        others = {"webhook_url": clean(webhook_url)} if webhook_url else {}
        super().__init__(uploads, zone, names=names, others=others, progress=progress, stopping=stopping)


class SingleBody(_MultipartBody):
    """One clip for the single upload."""

    def __init__(
        self,
        upload: Upload,
        zone: ZoneInfo,
        *,
        progress: ProgressCallback = no_progress,
        stopping: ShouldStop = never_stop,
    ) -> None:
        super().__init__([upload], zone, names=["{}"], others={}, progress=progress, stopping=stopping)


@functools.cache
def _base64_encoder() -> Callable[[bytes], bytes]:
    """That of pybase64 (the extra `fast`) where it is installed: it takes a twentieth of the library's own time."""
    try:
        encode: Callable[[bytes], bytes] = importlib.import_module("pybase64").b64encode
    except ImportError:
        return base64.b64encode
    return encode


def _coalesce(pieces: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """The same bytes in as few pieces as PIECE_BYTES allows: each costs system calls, and small clips would have many.

    Each is with the position of the clip that its last byte belongs to.
    """
    gathered: list[bytes] = []
    size_bytes = last = 0
    for position, piece in pieces:
        if gathered and size_bytes + len(piece) > CHUNK_BYTES:
            yield last, b"".join(gathered)
            gathered, size_bytes = [], 0
        gathered.append(piece)
        size_bytes += len(piece)
        last = position
    yield last, b"".join(gathered)


def _read_chunks(upload: Upload, file: BinaryIO, piece_bytes: int) -> Iterator[bytes]:
    """The stored file in pieces, exactly as many bytes as it had when it was stored."""
    left_bytes = upload.size_bytes
    while left_bytes:
        try:
            piece = file.read(min(piece_bytes, left_bytes))
        except OSError as exc:
            raise ClipUnreadable(upload.file, f"cannot be read: {exc.strerror}", is_transient=True) from exc
        if not piece:
            raise ClipUnreadable(upload.file, "became shorter while it was sent: the recorder wrote on it")
        left_bytes -= len(piece)
        if not left_bytes:
            _check_unchanged(file, upload)
        yield piece


def _open(upload: Upload) -> BinaryIO:
    """Open the stored file, if it is still the one that was stored."""
    try:
        # Not blocking: a named pipe in the file's place must not hang the daemon.
        descriptor = os.open(upload.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as exc:
        if exc.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise LinkDown(f"this device is short of resources: {exc.strerror}") from exc  # not the clip's fault
        is_transient = exc.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
        raise ClipUnreadable(upload.file, f"cannot be opened: {exc.strerror}", is_transient=is_transient) from exc
    file = os.fdopen(descriptor, "rb")
    try:
        _check_unchanged(file, upload)
    except ClipUnreadable:
        file.close()
        raise
    return file


def _check_unchanged(file: BinaryIO, upload: Upload) -> None:
    found = os.fstat(file.fileno())
    if not stat.S_ISREG(found.st_mode):
        raise ClipUnreadable(upload.file, "is not a regular file")
    if found.st_size != upload.size_bytes:
        sizes = f"it has {found.st_size} bytes instead of {upload.size_bytes}"
        raise ClipUnreadable(upload.file, f"was written to after it was stored: {sizes}")
    if found.st_mtime_ns != upload.modified_ns:
        raise ClipUnreadable(upload.file, "was written to after it was stored")
