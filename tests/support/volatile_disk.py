"""A disk with a volatile write cache, served to an emulator over the NBD protocol.

At a power cut, each sector written since the last flush is lost or kept at random: a real disk may have stored any part
of them, in any order. Writes with FUA and everything before a flush survive.
"""

from __future__ import annotations

import os
import random
import socket
import struct
import threading
from pathlib import Path
from types import TracebackType

SECTOR_BYTES = 512

# From the protocol's description, doc/proto.md of github.com/NetworkBlockDevice/nbd.
GREETING, OPTION = b"NBDMAGIC", b"IHAVEOPT"
REQUEST_MAGIC, REPLY_MAGIC, OPTION_REPLY_MAGIC = 0x25609513, 0x67446698, 0x3E889045565A9
FIXED_NEWSTYLE, NO_ZEROES = 1, 2
EXPORT_NAME, ABORT, GO = 1, 2, 7
ACKNOWLEDGED, INFORMATION, UNSUPPORTED = 1, 3, (1 << 31) + 1
HAS_FLAGS, SENDS_FLUSH, SENDS_FUA = 1, 4, 8
READ, WRITE, DISCONNECT, FLUSH = 0, 1, 2, 3
FUA = 1


class VolatileDisk:
    """Serves one file as a disk within the context; `cut` is the power cut.

    Args:
        file: content of the disk; exists and has the size of the disk.
        socket_file: the emulator connects to it; a path shorter than 100 bytes.
    """

    def __init__(self, file: Path, socket_file: Path) -> None:
        self.address = f"nbd:unix:{socket_file}"
        self.lost_sectors = 0
        self._fd = os.open(file, os.O_RDWR)
        self._size = os.fstat(self._fd).st_size
        # What each sector held at the last flush, of those that were written since.
        self._unflushed: dict[int, bytes] = {}
        self._lock = threading.Lock()
        self._server = socket.socket(socket.AF_UNIX)
        self._server.bind(str(socket_file))
        self._server.listen()
        self._thread = threading.Thread(target=self._accept, name=f"disk {file.name}", daemon=True)

    def __enter__(self) -> VolatileDisk:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self._thread.join()
        os.close(self._fd)

    def cut(self, rng: random.Random) -> None:
        """Cut the power: each sector that was not flushed has its new or its old content, at random.

        The emulator must have ended.
        """
        with self._lock:
            kept = rng.random()
            for sector, old in self._unflushed.items():
                if rng.random() >= kept:
                    os.pwrite(self._fd, old, sector * SECTOR_BYTES)
                    self.lost_sectors += 1
            self._unflushed.clear()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
            except OSError:
                return
            with connection:
                try:
                    if self._negotiate(connection):
                        self._serve(connection)
                except (ConnectionError, EOFError):
                    continue  # the emulator was killed: that is what this disk is for

    def _negotiate(self, connection: socket.socket) -> bool:
        connection.sendall(GREETING + OPTION + struct.pack(">H", FIXED_NEWSTYLE | NO_ZEROES))
        receive(connection, 4)
        export = struct.pack(">QH", self._size, HAS_FLAGS | SENDS_FLUSH | SENDS_FUA)
        while True:
            _, option, length = struct.unpack(">8sII", receive(connection, 16))
            receive(connection, length)
            if option == EXPORT_NAME:
                connection.sendall(export)
                return True
            if option == GO:
                _reply(connection, option, INFORMATION, struct.pack(">H", 0) + export)
                _reply(connection, option, ACKNOWLEDGED)
                return True
            _reply(connection, option, ACKNOWLEDGED if option == ABORT else UNSUPPORTED)
            if option == ABORT:
                return False

    def _serve(self, connection: socket.socket) -> None:
        while True:
            magic, flags, kind, handle, offset, length = struct.unpack(">IHHQQI", receive(connection, 28))
            assert magic == REQUEST_MAGIC
            answer = b""
            if kind == DISCONNECT:
                return
            with self._lock:
                if kind == READ:
                    answer = os.pread(self._fd, length, offset)
                elif kind == WRITE:
                    self._write(offset, receive(connection, length), durable=bool(flags & FUA))
                else:
                    assert kind == FLUSH
                    self._unflushed.clear()
            connection.sendall(struct.pack(">IIQ", REPLY_MAGIC, 0, handle) + answer)

    def _write(self, offset: int, data: bytes, *, durable: bool) -> None:
        first, after = offset // SECTOR_BYTES, (offset + len(data)) // SECTOR_BYTES
        if durable:
            for sector in range(first, after):
                self._unflushed.pop(sector, None)
        elif any(sector not in self._unflushed for sector in range(first, after)):
            before = os.pread(self._fd, len(data), offset)
            for sector in range(first, after):
                at = sector * SECTOR_BYTES - offset
                self._unflushed.setdefault(sector, before[at : at + SECTOR_BYTES])
        os.pwrite(self._fd, data, offset)


def _reply(connection: socket.socket, option: int, kind: int, content: bytes = b"") -> None:
    connection.sendall(struct.pack(">QIII", OPTION_REPLY_MAGIC, option, kind, len(content)) + content)


def receive(connection: socket.socket, count: int) -> bytes:
    """Receive exactly `count` bytes.

    Raises:
        EOFError: the peer has disconnected.
    """
    parts = []
    while count:
        part = connection.recv(min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
