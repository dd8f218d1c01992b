"""A client of the NBD protocol, to test a disk without an emulator."""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from types import TracebackType

from tests.support.volatile_disk import (
    DISCONNECT,
    EXPORT_NAME,
    FLUSH,
    FUA,
    OPTION,
    READ,
    REQUEST_MAGIC,
    SECTOR_BYTES,
    WRITE,
    receive,
)


class NbdClient:
    """Reads and writes a disk in sectors."""

    def __init__(self, socket_file: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(str(socket_file))
        receive(self._socket, 18)
        self._socket.sendall(struct.pack(">I8sII", 3, OPTION, EXPORT_NAME, 0))
        receive(self._socket, 10)

    def __enter__(self) -> NbdClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.sendall(struct.pack(">IHHQQI", REQUEST_MAGIC, 0, DISCONNECT, 0, 0, 0))
        self._socket.close()

    def read(self, sector: int, count: int) -> bytes:
        self._request(READ, sector, count * SECTOR_BYTES)
        return receive(self._socket, count * SECTOR_BYTES)

    def write(self, sector: int, data: bytes, *, durable: bool = False) -> None:
        self._request(WRITE, sector, len(data), data, FUA if durable else 0)

    def flush(self) -> None:
        self._request(FLUSH, 0, 0)

    def _request(self, kind: int, sector: int, length: int, data: bytes = b"", flags: int = 0) -> None:
        offset = sector * SECTOR_BYTES
        self._socket.sendall(struct.pack(">IHHQQI", REQUEST_MAGIC, flags, kind, 7, offset, length) + data)
        _, error, handle = struct.unpack(">IIQ", receive(self._socket, 16))
        assert (error, handle) == (0, 7)
