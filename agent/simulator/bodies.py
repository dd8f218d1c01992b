"""Reads upload bodies from a file, clip by clip: memory holds one clip at most, however large the request is."""

from __future__ import annotations

import base64
import binascii
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import BinaryIO

import ijson  # type: ignore[import-untyped]  # has no type hints of its own

_BRACKETS = re.compile(r"data\[(\d+)\]\[(\w+)\]")


class BodyError(Exception):
    """The body is not of a form that the contract knows."""


@dataclass(slots=True)
class Part:
    """One record of an upload: its fields as they came, and the file's bytes."""

    fields: dict[str, str] = field(default_factory=dict)
    video: bytes | None = None


def read_json(file: BinaryIO, outside: dict[str, str]) -> Iterator[Part]:
    """The records of `{"data": [...]}`; fields beside `data` go into `outside`.

    Raises:
        BodyError: not JSON of that form, or a file that is not base64.
    """
    part: Part | None = None
    try:
        for prefix, event, value in ijson.parse(file):
            if prefix == "data.item" and event == "start_map":
                part = Part()
            elif prefix == "data.item" and event == "end_map" and part is not None:
                yield part
                part = None
            elif part is not None and event in ("string", "number"):
                name = prefix.removeprefix("data.item.")
                if name == "video_file":
                    part.video = base64.b64decode(value, validate=True)
                else:
                    part.fields[name] = str(value)
            elif event == "string":
                outside[prefix] = value
    except (ijson.JSONError, binascii.Error, UnicodeDecodeError) as exc:
        raise BodyError(f"the body is not the JSON of a bulk upload: {exc}") from exc


def read_multipart(file: BinaryIO, content_type: str, outside: dict[str, str]) -> Iterator[Part]:
    """The records of `data[0][registration]=…`, in order; other fields go into `outside`.

    Raises:
        BodyError: not multipart/form-data.
    """
    part, current = Part(), 0
    for name, value in _parts(file, content_type):
        named = _BRACKETS.fullmatch(name)
        if named is None:
            outside[name] = value.decode("utf-8", "replace")
            continue
        if int(named[1]) != current:
            yield part
            part, current = Part(), int(named[1])
        _set(part, named[2], value)
    if part.fields or part.video is not None:
        yield part


def read_single(file: BinaryIO, content_type: str) -> Part:
    """The one record of a single upload.

    Raises:
        BodyError: not multipart/form-data.
    """
    part = Part()
    for name, value in _parts(file, content_type):
        _set(part, name, value)
    return part


def _set(part: Part, name: str, value: bytes) -> None:
    if name == "video_file":
        part.video = value
    else:
        part.fields[name] = value.decode("utf-8", "replace")


def _parts(file: BinaryIO, content_type: str) -> Iterator[tuple[str, bytes]]:
    boundary = _parameters(content_type).get("boundary")
    if not boundary:
        raise BodyError("the content type names no boundary")
    mark = f"--{boundary}".encode()
    try:
        data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as exc:
        raise BodyError("the body is empty") from exc
    with data:
        start = data.find(mark)
        while start >= 0:
            start += len(mark)
            end = data.find(b"\r\n" + mark, start)
            head = data.find(b"\r\n\r\n", start)
            if end < 0 or head < 0:
                break
            header = Message()
            for line in data[start:head].decode("utf-8", "replace").strip().split("\r\n"):
                key, _, value = line.partition(":")
                header[key] = value.strip()
            yield _parameters(str(header["Content-Disposition"])).get("name", ""), data[head + 4 : end]
            start = end + 2
        if start < 0 or data[start : start + 2] != b"--":
            raise BodyError("the body ends before its closing boundary")


def _parameters(header: str) -> Mapping[str, str]:
    message = Message()
    message["Content-Type"] = header
    return {key: str(value) for key, value in message.get_params(failobj=[])}
