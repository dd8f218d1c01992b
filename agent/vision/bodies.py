"""Request bodies that are streamed from the stored files: their memory depends on neither clip nor batch size.

A body can be iterated again: each time it opens the files anew. It never ends as if it were whole when a file is not.
"""

from __future__ import annotations

import binascii
import json
import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from typing import ClassVar
from zoneinfo import ZoneInfo

from agent.clip import Upload
from agent.errors import ClipUnreadable, Stopped
from agent.vision.readings import FILE_FIELD, fields

# A multiple of 3, so that each piece is whole in base64, and of 4096, so that reads stay aligned.
PIECE_BYTES = 3 * 64 * 1024

Progress = Callable[[int, int], None]
Stopping = Callable[[], bool]


def no_progress(_sent_bytes: int, _position: int) -> None:
    """For callers that do not watch."""


class Body:
    """One request's body.

    Args:
        uploads: the clips, in order.
        zone: of the API's timestamps.
        progress: called with the bytes sent so far and the position of the clip that is being sent, from 0.
        stopping: asked before each piece.

    Iterating raises:
        ClipUnreadable: a stored file is gone, changed, or cannot be read.
        Stopped: the daemon is to stop.
    """

    content_type: str
    base64: ClassVar[bool] = False

    def __init__(
        self,
        uploads: Sequence[Upload],
        zone: ZoneInfo,
        *,
        progress: Progress = no_progress,
        stopping: Stopping = lambda: False,
    ) -> None:
        self._uploads = uploads
        self._zone = zone
        self._progress = progress
        self._stopping = stopping

    def __len__(self) -> int:
        files = sum(_encoded(upload.size_bytes) if self.base64 else upload.size_bytes for upload in self._uploads)
        frame = sum(len(self._before(position)) + len(self._after(position)) for position in range(len(self._uploads)))
        return files + frame + len(self._end())

    def __iter__(self) -> Iterator[bytes]:
        sent = 0
        for position, upload in enumerate(self._uploads):
            for piece in self._of(position, upload):
                if self._stopping():
                    raise Stopped("asked to stop while sending")
                yield piece
                sent += len(piece)
                self._progress(sent, position)
        yield self._end()

    def _of(self, position: int, upload: Upload) -> Iterator[bytes]:
        yield self._before(position)
        for piece in _read(upload):
            yield binascii.b2a_base64(piece, newline=False) if self.base64 else piece
        yield self._after(position)

    def _before(self, position: int) -> bytes:
        raise NotImplementedError

    def _after(self, position: int) -> bytes:
        raise NotImplementedError

    def _end(self) -> bytes:
        raise NotImplementedError


class JsonBulkBody(Body):
    """`{"data": [{…, "video_file": "<base64>"}, …], "webhook_url": "…"}`."""

    content_type = "application/json"
    base64 = True

    def __init__(
        self,
        uploads: Sequence[Upload],
        zone: ZoneInfo,
        webhook_url: str | None = None,
        *,
        progress: Progress = no_progress,
        stopping: Stopping = lambda: False,
    ) -> None:
        super().__init__(uploads, zone, progress=progress, stopping=stopping)
        self._webhook_url = webhook_url

    def _before(self, position: int) -> bytes:
        record = json.dumps(fields(self._uploads[position], self._zone))
        opening = ", " if position else '{"data": ['
        return f'{opening}{record[:-1]}, "{FILE_FIELD}": "'.encode()

    def _after(self, position: int) -> bytes:  # noqa: ARG002
        return b'"}'

    def _end(self) -> bytes:
        webhook = f', "webhook_url": {json.dumps(self._webhook_url)}' if self._webhook_url else ""
        return f"]{webhook}}}".encode()


class _Multipart(Body):
    """multipart/form-data (RFC 7578)."""

    def __init__(
        self,
        uploads: Sequence[Upload],
        zone: ZoneInfo,
        webhook_url: str | None = None,
        *,
        progress: Progress = no_progress,
        stopping: Stopping = lambda: False,
    ) -> None:
        super().__init__(uploads, zone, progress=progress, stopping=stopping)
        self._webhook_url = webhook_url
        self._boundary = f"vision-ingest-{secrets.token_hex(16)}"
        self.content_type = f"multipart/form-data; boundary={self._boundary}"

    def _name(self, position: int, field: str) -> str:
        raise NotImplementedError

    def _field(self, name: str, value: str | int) -> bytes:
        return f'--{self._boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()

    def _before(self, position: int) -> bytes:
        upload = self._uploads[position]
        told = [self._field(self._name(position, name), value) for name, value in fields(upload, self._zone).items()]
        # The stored file's name is of our making: it has nothing in it that could break out of the header.
        header = (
            f'--{self._boundary}\r\nContent-Disposition: form-data; name="{self._name(position, FILE_FIELD)}"; '
            f'filename="{upload.file.name}"\r\nContent-Type: video/mp4\r\n\r\n'
        )
        return b"".join(told) + header.encode()

    def _after(self, position: int) -> bytes:  # noqa: ARG002
        return b"\r\n"

    def _end(self) -> bytes:
        webhook = self._field("webhook_url", self._webhook_url) if self._webhook_url else b""
        return webhook + f"--{self._boundary}--\r\n".encode()


class MultipartBulkBody(_Multipart):
    """The records in bracket form, `data[0][registration]`, as PHP frameworks read them."""

    def _name(self, position: int, field: str) -> str:
        return f"data[{position}][{field}]"


class SingleBody(_Multipart):
    """One clip for the single upload."""

    def _name(self, position: int, field: str) -> str:  # noqa: ARG002
        return field


def _encoded(size_bytes: int) -> int:
    return (size_bytes + 2) // 3 * 4


def _read(upload: Upload) -> Iterator[bytes]:
    """The stored file in pieces, exactly as many bytes as it had when it was stored."""
    try:
        fd = os.open(upload.file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as exc:
        raise ClipUnreadable(upload.file, f"its stored file cannot be opened: {exc.strerror}") from exc
    try:
        _check_unchanged(fd, upload)
        left = upload.size_bytes
        while left > 0:
            piece = os.read(fd, min(PIECE_BYTES, left))
            left -= len(piece)
            if not piece:
                raise ClipUnreadable(upload.file, "its stored file became shorter while it was sent")
            while len(piece) % 3 and left > 0:
                more = os.read(fd, min(3 - len(piece) % 3, left))
                if not more:
                    raise ClipUnreadable(upload.file, "its stored file became shorter while it was sent")
                piece += more
                left -= len(more)
            if left == 0:
                _check_unchanged(fd, upload)
            yield piece
    except OSError as exc:
        raise ClipUnreadable(upload.file, f"its stored file cannot be read: {exc.strerror}") from exc
    finally:
        os.close(fd)


def _check_unchanged(fd: int, upload: Upload) -> None:
    found = os.fstat(fd)
    if (found.st_size, found.st_mtime_ns) != (upload.size_bytes, upload.modified_ns):
        raise ClipUnreadable(upload.file, "the recorder changed the footage before it was sent")
