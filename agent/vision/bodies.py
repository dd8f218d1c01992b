"""Request bodies, streamed from the stored files: memory use depends on neither clip size nor batch size.

A body can be iterated again; each time it opens the files again. If a file is incomplete, it raises, and never ends as
if it were complete.
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
    """Ignores the progress."""


def never_stop() -> bool:
    """For callers that cannot be stopped."""
    return False


class _Body:
    """Frames of text with a stored file between each two.

    Args:
        uploads: the clips, in order.
        frames: what comes before each file, and what comes after the last.
        progress: called with the bytes of the body sent so far and the position of the current clip, from 0.
        stopping: called before each chunk.

    Raises, while it is iterated:
        ClipUnreadable: a stored file is missing, is not the one that was stored, or cannot be read.
        Cancelled: the daemon is to stop.
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
            # Open all before the first byte is sent: a missing file must not cost mobile data.
            files = [opened.enter_context(_open(upload)) for upload in self._uploads]
            sent_bytes = 0
            for position, chunk in _coalesce(self._chunks(files)):
                if self._stopping():
                    raise Cancelled("asked to stop while sending")
                yield chunk
                sent_bytes += len(chunk)
                self._progress(sent_bytes, position)

    def _chunks(self, files: Sequence[BinaryIO]) -> Iterator[tuple[int, bytes]]:
        for position, upload in enumerate(self._uploads):
            yield position, self._frames[position]
            for chunk in _read_chunks(upload, files[position], self._raw_chunk_bytes):
                yield position, self._encode(chunk)
        yield len(self._uploads) - 1, self._frames[-1]

    def _encode(self, chunk: bytes) -> bytes:
        return chunk

    def _encoded_bytes(self, size_bytes: int) -> int:
        return size_bytes


class JsonBulkBody(_Body):
    """`{"data": [{…, "video_file": "<base64>"}, …], "webhook_url": "…"}`; each chunk encodes to CHUNK_BYTES."""

    content_type = "application/json"
    # A multiple of 3, so that the chunks can be encoded one by one.
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

    def _encode(self, chunk: bytes) -> bytes:
        return _base64_encoder()(chunk)

    def _encoded_bytes(self, size_bytes: int) -> int:
        return (size_bytes + 2) // 3 * 4


class _MultipartBody(_Body):
    """multipart/form-data (RFC 7578). No header contains text of a user, so that none can inject headers."""

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
            fields = "".join(
                f"{part(name.format(key))}{value}\r\n" for key, value in record_fields(upload, zone).items()
            )
            file = part(name.format(FILE), f'; filename="{upload.id}.mp4"\r\nContent-Type: video/mp4')
            frames.append(f"{line_end}{fields}{file}".encode())
            line_end = "\r\n"
        closing = "".join(f"{part(key)}{value}\r\n" for key, value in others.items())
        super().__init__(uploads, [*frames, f"\r\n{closing}--{boundary}--\r\n".encode()], progress, stopping)


class MultipartBulkBody(_MultipartBody):
    """The records with field names in bracket form, `data[0][registration]`."""

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
    """pybase64 (the extra `fast`) if installed: it takes a twentieth of the time of the standard library."""
    try:
        encode: Callable[[bytes], bytes] = importlib.import_module("pybase64").b64encode
    except ImportError:
        return base64.b64encode
    return encode


def _coalesce(chunks: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Joins small chunks to chunks of up to CHUNK_BYTES, to save system calls.

    Each is paired with the position of the clip that its last byte belongs to.
    """
    pending: list[bytes] = []
    size_bytes = last = 0
    for position, chunk in chunks:
        if pending and size_bytes + len(chunk) > CHUNK_BYTES:
            yield last, b"".join(pending)
            pending, size_bytes = [], 0
        pending.append(chunk)
        size_bytes += len(chunk)
        last = position
    yield last, b"".join(pending)


def _read_chunks(upload: Upload, file: BinaryIO, chunk_bytes: int) -> Iterator[bytes]:
    """The stored file in chunks, with exactly as many bytes as when it was stored."""
    left_bytes = upload.size_bytes
    while left_bytes:
        try:
            chunk = file.read(min(chunk_bytes, left_bytes))
        except OSError as exc:
            raise ClipUnreadable(upload.file, f"cannot be read: {exc.strerror}", is_transient=True) from exc
        if not chunk:
            raise ClipUnreadable(upload.file, "became shorter while it was sent: the recorder wrote to it")
        left_bytes -= len(chunk)
        if not left_bytes:
            _check_unchanged(file, upload)
        yield chunk


def _open(upload: Upload) -> BinaryIO:
    """Opens the stored file, if it is still the one that was stored."""
    try:
        # O_NONBLOCK: a named pipe in the place of the file must not block the daemon.
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
