from __future__ import annotations

import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.media import damage, mp4
from agent.media.ffmpeg import container_of
from agent.media.segments import Packet


@contextmanager
def file_of(content: bytes) -> Iterator[BinaryIO]:
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.flush()
        yield file


def box(kind: bytes, payload: bytes = b"", length: int | None = None) -> bytes:
    return struct.pack(">I4s", len(payload) + 8 if length is None else length, kind) + payload


def large(kind: bytes, length: int) -> bytes:
    return struct.pack(">I4sQ", 1, kind, length)


PICTURES = b"\x01" * 40_000
GARBAGE = st.one_of(
    st.binary(max_size=200),
    st.lists(
        st.one_of(
            st.builds(box, st.sampled_from((b"moov", b"mdat", b"ftyp", b"\xff\0\0\0")), st.binary(max_size=40)),
            st.builds(box, st.just(b"mdat"), st.binary(max_size=9), st.integers(0, 2**32 - 1)),
            st.builds(large, st.just(b"mdat"), st.integers(0, 2**64 - 1)),
        ),
        max_size=6,
    ).map(b"".join),
)


@given(GARBAGE)
def test_any_bytes_are_diagnosed_without_an_error(content: bytes) -> None:
    with file_of(content) as file:
        assert sum(1 for _ in mp4.top_level_boxes(file)) <= len(content) // 8
        assert damage.diagnose(file)
        damage.has_index(file)
        damage.holds_zeros(file)
        damage.is_cut_short(file, "AVI")
        container_of(file)


def test_boxes_of_every_kind_of_length_are_walked() -> None:
    content = box(b"ftyp", b"isom") + large(b"free", 24) + bytes(8) + box(b"mdat", b"x" * 10, length=0)
    with file_of(content) as file:
        assert [(found.kind, found.end - found.payload) for found in mp4.top_level_boxes(file)] == [
            ("ftyp", 4),
            ("free", 8),
            ("mdat", 10),
        ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (bytes(100_000), "nothing but zeros"),
        (box(b"ftyp") + box(b"mdat", bytes(100_000)), "index was never written"),
        (bytes(1000) + b"\x01" * 100_000, "index was never written"),
    ],
)
def test_the_likely_cause_is_named(content: bytes, words: str) -> None:
    with file_of(content) as file:
        assert words in damage.diagnose(file)


@pytest.mark.parametrize(
    ("content", "known"),
    [
        (box(b"moov", b"x" * 30) + box(b"mdat", b"x", length=900), True),
        (box(b"mdat", b"x") + box(b"moov", b"x", length=900), False),
        (box(b"mdat", b"x", length=900) + box(b"moov"), False),
    ],
)
def test_only_a_whole_index_allows_salvage(content: bytes, known: bool) -> None:
    with file_of(content) as file:
        assert damage.has_index(file) is known


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (lambda pictures: pictures, False),
        (lambda pictures: pictures[:30_000] + bytes(10_000), True),
        (lambda pictures: pictures[:15_000] + bytes(5_000) + pictures[20_000:], True),
        (lambda pictures: pictures[:1000] + bytes(100) + pictures[1100:], False),
    ],
)
def test_zeros_instead_of_frames_are_detected(change: Callable[[bytes], bytes], seen: bool) -> None:
    with file_of(box(b"ftyp") + box(b"mdat", change(PICTURES)) + box(b"moov") + bytes(100_000)) as file:
        assert damage.holds_zeros(file) is seen


def test_zeroed_frames_are_flagged_and_audio_never_is() -> None:
    packets = [
        Packet(True, 0.0, 0.1, 4, is_key=True, position=0),
        Packet(True, 0.1, 0.1, 4, is_key=False, position=4),
        Packet(False, 0.1, 0.1, 4, is_key=True, position=4),
        Packet(True, 0.2, 0.1, 4, is_key=False, position=None),
    ]
    with file_of(b"\0\0\0\x04" + bytes(8)) as file:
        assert [packet.is_intact for packet in damage.flag_zeroed(packets, file.fileno())] == [True, False, True, True]


@pytest.mark.parametrize(
    ("content", "container"),
    [
        (b"\x1a\x45\xdf\xa3" + bytes(50), "MKV"),
        (b"RIFF\0\0\0\0AVI LIST", "AVI"),
        (b"RIFF\0\0\0\0WAVEfmt ", None),
        ((b"\x47" + bytes(187)) * 3, "TS"),
        (bytes(4) + (b"\x47" + bytes(191)) * 3, "TS"),
        (b"\x47" + bytes(400), None),
        (box(b"ftyp", b"isom"), None),
        (b"", None),
    ],
)
def test_the_container_is_recognised_by_its_first_bytes(content: bytes, container: str | None) -> None:
    with file_of(content) as file:
        assert container_of(file) == container
