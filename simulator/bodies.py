"""Parses upload bodies from disk: fields at once, embedded files only on demand, so that memory stays small."""

from __future__ import annotations

import base64
import binascii
import json
import mmap
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.message import Message
from typing import Any, BinaryIO

_BRACKETS = re.compile(r"data\[(\d+)\]\[(\w+)\]")
_JSON_FILE = re.compile(rb'"video_file"\s*:\s*"')
_FILE = "video_file"


class BodyError(Exception):
    """The body has none of the formats of the contract."""


@dataclass(frozen=True, slots=True)
class EmbeddedFile:
    """A file inside a request body.

    Args:
        body: the whole body.
        start, end: offsets of the file in the body, in bytes.
        is_base64: whether the file is base64 in a JSON string.
    """

    body: mmap.mmap
    start: int
    end: int
    is_base64: bool

    def read(self) -> bytes:
        """The decoded bytes of the file.

        Raises:
            BodyError: it is not valid base64.
        """
        content = self.body[self.start : self.end]
        if not self.is_base64:
            return content
        try:
            # JSON allows "\/" for a slash, and PHP writes it so.
            return base64.b64decode(content.replace(b"\\/", b"/"), validate=True)
        except binascii.Error as exc:
            raise BodyError(f"the file is not base64: {exc}") from exc


@dataclass(slots=True)
class Part:
    """One record of an upload: its fields as strings, and its file."""

    fields: dict[str, str] = field(default_factory=dict)
    video: EmbeddedFile | None = None


@dataclass(slots=True)
class Bulk:
    """A bulk upload.

    Args:
        parts: the records, in order.
        other_fields: the top-level fields other than `data`.
    """

    parts: list[Part] = field(default_factory=list)
    other_fields: dict[str, str] = field(default_factory=dict)


def read_bulk(file: BinaryIO, content_type: str) -> Bulk:
    """Parse a bulk upload in either encoding. The caller may close the file afterwards.

    Raises:
        BodyError: neither JSON of the form `{"data": [...]}` nor multipart/form-data.
    """
    body = _map(file)
    return _read_json(body) if content_type.startswith("application/json") else _read_multipart(body, content_type)


def read_single(file: BinaryIO, content_type: str) -> Part:
    """Parse a single upload. The caller may close the file afterwards.

    Raises:
        BodyError: not multipart/form-data.
    """
    part = Part()
    for name, value in _form_fields(_map(file), content_type):
        _assign(part, name, value)
    return part


def _map(file: BinaryIO) -> mmap.mmap:
    try:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError as exc:
        raise BodyError("the body is empty") from exc


def _read_json(body: mmap.mmap) -> Bulk:
    text, files = _extract_files(body)
    try:
        document = json.loads(text)
    except ValueError as exc:
        raise BodyError(f"the body is not JSON: {exc}") from exc
    records = document.get("data") if isinstance(document, dict) else None
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise BodyError('the body is not of the form {"data": [{...}, ...]}')
    bulk = Bulk(other_fields=_as_texts(document))
    for record in records:
        video = files.get(str(record.pop(_FILE, None)))
        bulk.parts.append(Part(_as_texts(record), video))
    return bulk


def _extract_files(body: mmap.mmap) -> tuple[bytes, dict[str, EmbeddedFile]]:
    """Replace each file in the JSON by a placeholder: parsing gigabytes of base64 would take a minute.

    Returns:
        The remaining JSON, and the files by their placeholders.
    """
    files: dict[str, EmbeddedFile] = {}
    left: list[bytes] = []
    done = 0
    while (key := _JSON_FILE.search(body, done)) is not None:
        end = body.find(b'"', key.end())
        if end < 0:
            raise BodyError("the body ends within a file")
        number = f"file {len(files)}"
        files[number] = EmbeddedFile(body, key.end(), end, is_base64=True)
        left += [body[done : key.end()], number.encode()]
        done = end
    left.append(body[done:])
    return b"".join(left), files


def _as_texts(record: Mapping[str, Any]) -> dict[str, str]:
    """The fields that are strings or numbers, as strings."""
    return {
        name: str(value)
        for name, value in record.items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    }


def _read_multipart(body: mmap.mmap, content_type: str) -> Bulk:
    """Parse fields such as `data[0][registration]`; records are in the order of their first fields."""
    other_fields: dict[str, str] = {}
    parts: dict[int, Part] = {}
    for name, value in _form_fields(body, content_type):
        named = _BRACKETS.fullmatch(name)
        if named is None:
            other_fields[name] = _decode(value)
        else:
            _assign(parts.setdefault(int(named[1]), Part()), named[2], value)
    return Bulk(list(parts.values()), other_fields)


def _assign(part: Part, name: str, value: EmbeddedFile) -> None:
    if name == _FILE:
        part.video = value
    else:
        part.fields[name] = _decode(value)


def _decode(value: EmbeddedFile) -> str:
    return value.read().decode("utf-8", "replace")


def _form_fields(body: mmap.mmap, content_type: str) -> Iterator[tuple[str, EmbeddedFile]]:
    """The names and values of multipart/form-data (RFC 7578), in order."""
    boundary = _parameters(content_type).get("boundary")
    if not boundary:
        raise BodyError("the content type names no boundary")
    mark = f"--{boundary}".encode()
    start = body.find(mark)
    while start >= 0:
        start += len(mark)
        head = body.find(b"\r\n\r\n", start)
        end = body.find(b"\r\n" + mark, start)
        if end < 0 or not 0 <= head <= end:
            break
        yield _field_name(body[start:head]), EmbeddedFile(body, head + 4, end, is_base64=False)
        start = end + 2
    if start < 0 or body[start : start + 2] != b"--":
        raise BodyError("the body ends before its closing boundary")


def _field_name(head: bytes) -> str:
    for line in head.decode("utf-8", "replace").strip().split("\r\n"):
        key, _, value = line.partition(":")
        if key.lower() == "content-disposition":
            return _parameters(value.strip()).get("name", "")
    return ""


def _parameters(header: str) -> Mapping[str, str]:
    message = Message()
    message["Content-Type"] = header
    return {key: str(value) for key, value in message.get_params(failobj=[])}
