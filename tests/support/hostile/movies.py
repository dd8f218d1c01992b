"""MP4 structures and damage to them."""

from __future__ import annotations

import random
import struct
from functools import cache

from simulator.recorder import recording


def box(kind: bytes, *content: bytes) -> bytes:
    payload = b"".join(content)
    return struct.pack(">I4s", 8 + len(payload), kind) + payload


@cache
def movies() -> tuple[bytes, ...]:
    """Real structures: a minimal recording, a fragmented one, and one with each version of headers."""
    sample = recording(61.5)
    index_at = sample.rindex(b"moov") - 4
    first_box = struct.unpack(">I", sample[:4])[0]
    small = sample[:first_box] + box(b"mdat", b"pictures") + sample[index_at:]
    extends = box(b"mvex", box(b"mehd", bytes(8)), box(b"trex", struct.pack(">IIIIII", 0, 1, 1, 3000, 0, 0)))
    runs = b"".join(
        box(
            b"moof",
            box(b"mfhd", bytes(8)),
            box(
                b"traf",
                box(b"tfhd", struct.pack(">IIQI", 0x9, 1, 0, 3000)),
                box(b"tfdt", struct.pack(">IQ", 1 << 24, 9000 * number)),
                box(b"trun", struct.pack(">IIII", 0x305, 2, 0, 0), struct.pack(">IIII", 9000, 7, 9000, 7)),
            ),
        )
        + box(b"mdat", b"pictures")
        for number in range(3)
    )
    moov = sample[index_at:]
    fragmented = sample[:first_box] + box(b"moov", moov[8:], extends) + runs
    long_times = box(b"mvhd", struct.pack(">IQQIQ", 1 << 24, 3_868_000_000, 0, 1000, 60_000), bytes(80))
    return small, fragmented, sample[:first_box] + box(b"moov", long_times, moov[116:]) + box(b"mdat", b"pictures")


SIZES = (0, 1, 2, 7, 8, 9, 15, 16, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
LONG_SIZES = (0, 1, 15, 16, 17, 2**32, 2**63 - 1, 2**63, 2**64 - 1)
KINDS = (
    *(
        b"moov",
        b"trak",
        b"mdia",
        b"minf",
        b"stbl",
        b"stsd",
        b"mvhd",
        b"mdhd",
        b"tkhd",
        b"hdlr",
        b"mvex",
        b"trex",
        b"mehd",
    ),
    *(b"moof", b"traf", b"tfhd", b"tfdt", b"trun", b"mdat", b"ftyp", b"free"),
)


def mutated(source: bytes, rng: random.Random) -> bytes:
    """Damaged boxes: wrong sizes and counts; overlapping, repeated, nested, missing or truncated boxes."""
    data = bytearray(source)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        found = [place for place in map(data.find, rng.sample(KINDS, 6)) if place >= 4]
        rng.choice(DAMAGES)(data, rng.choice(found) - 4 if found else 0, rng)
    return bytes(data)


def _lie_about_a_size(data: bytearray, at: int, rng: random.Random) -> None:
    data[at : at + 4] = struct.pack(">I", rng.choice(SIZES) if rng.random() < 0.5 else rng.randrange(2 * len(data) + 1))


def _claim_a_64_bit_size(data: bytearray, at: int, rng: random.Random) -> None:
    data[at : at + 4] = struct.pack(">I", 1)
    data[at + 8 : at + 8 + rng.choice((0, 8))] = struct.pack(">Q", rng.choice(LONG_SIZES))


def _lie_in_a_header(data: bytearray, at: int, rng: random.Random) -> None:
    field_at = at + 8 + 4 * rng.randrange(8)
    data[field_at : field_at + 4] = struct.pack(">I", rng.choice(SIZES))


def _change_a_byte(data: bytearray, _at: int, rng: random.Random) -> None:
    place = rng.randrange(len(data) + 1)
    data[place : place + 1] = rng.randbytes(1)


def _cut(data: bytearray, _at: int, rng: random.Random) -> None:
    place = rng.randrange(len(data) + 1)
    del data[place : place + rng.choice((1, 4, 8, 100, len(data)))]


def _put_in_a_box(data: bytearray, at: int, rng: random.Random) -> None:
    data[at:at] = box(rng.choice(KINDS), rng.randbytes(rng.choice((0, 4, 8, 20, 100))))


def _put_in_a_part(data: bytearray, at: int, rng: random.Random) -> None:
    other = rng.choice(movies())
    begin = rng.randrange(len(other))
    data[at:at] = other[begin : begin + rng.randrange(1000)]


def _rename(data: bytearray, at: int, rng: random.Random) -> None:
    data[at + 4 : at + 8] = rng.choice(KINDS)


def _nest(data: bytearray, at: int, rng: random.Random) -> None:
    inner = box(rng.choice(KINDS))
    for _ in range(rng.choice((1, 10, 200))):
        inner = box(rng.choice(KINDS), inner) if rng.random() < 0.9 or len(inner) > 20_000 else inner * 2
    data[at:at] = inner


DAMAGES = (
    _lie_about_a_size,
    _lie_about_a_size,
    _claim_a_64_bit_size,
    _lie_in_a_header,
    _change_a_byte,
    _cut,
    _put_in_a_box,
    _put_in_a_part,
    _rename,
    _nest,
)
