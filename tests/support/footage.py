"""Recordings with details that the simulated camera does not write."""

from __future__ import annotations

from datetime import datetime


def created(content: bytes, at: datetime) -> bytes:
    """The recording with this creation time in its header, which cameras write as if it were UTC."""
    seconds = int((at - datetime(1904, 1, 1)).total_seconds())
    patched = bytearray(content)
    field_at = patched.index(b"mvhd") + 8
    patched[field_at : field_at + 4] = seconds.to_bytes(4, "big")
    return bytes(patched)
