from __future__ import annotations

import io
import shutil
import struct
import subprocess
import tracemalloc
from datetime import datetime, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.media import mp4
from simulator.recorder import recording

CREATED_2026 = 3_868_000_000  # Seconds since 1904.
FTYP = struct.pack(">I4s4sI4s", 20, b"ftyp", b"isom", 512, b"avc1")


def box(kind: str, *content: bytes, large: bool = False) -> bytes:
    payload = b"".join(content)
    if large:
        return struct.pack(">I4sQ", 1, kind.encode(), 16 + len(payload)) + payload
    return struct.pack(">I4s", 8 + len(payload), kind.encode("latin-1")) + payload


def clock(kind: str, *, created: int = 0, timescale: int = 1000, ticks: int = 0, version: int = 0) -> bytes:
    layout = ">IQQIQ" if version else ">IIIII"
    return box(kind, struct.pack(layout, version << 24, created, created, timescale, ticks), bytes(80))


def track(
    number: int = 1,
    kind: str = "vide",
    codec: str = "avc1",
    *,
    timescale: int = 1000,
    ticks: int = 0,
    version: int = 0,
    described: bool = True,
) -> bytes:
    before_id, after_id = (20, 64) if version else (12, 60)
    description = struct.pack(">II", 0, 1) + box(codec, bytes(78)) if described else bytes(8)
    return box(
        "trak",
        box(
            "tkhd",
            bytes([version]).ljust(before_id, b"\0"),
            struct.pack(">I", number),
            bytes(after_id),
            struct.pack(">H2xH2x", 640, 360),
        ),
        box(
            "mdia",
            clock("mdhd", timescale=timescale, ticks=ticks, version=version),
            box("hdlr", bytes(8), kind.encode(), bytes(13)),
            box("minf", box("vmhd", bytes(12)), box("stbl", box("stsd", description), box("stsz", bytes(12)))),
        ),
    )


def movie(*, ticks: int = 60_000) -> bytes:
    return box("moov", clock("mvhd", ticks=ticks), track(ticks=ticks))


def fragment(
    *,
    number: int = 1,
    begin: int | None = None,
    begin_version: int = 0,
    own_ticks: tuple[int, ...] | None = None,
    count: int = 0,
    default_ticks: int | None = None,
) -> bytes:
    tfhd = struct.pack(">II", 0 if default_ticks is None else 0x9, number)
    if default_ticks is not None:
        tfhd += struct.pack(">QI", 0, default_ticks)
    tfdt = b""
    if begin is not None:
        tfdt = box("tfdt", struct.pack(">IQ" if begin_version else ">II", begin_version << 24, begin))
    if own_ticks is None:
        trun = struct.pack(">III", 0x1, count, 0)
    else:
        trun = struct.pack(">IIII", 0x305, len(own_ticks), 0, 0) + b"".join(
            struct.pack(">II", ticks, 7) for ticks in own_ticks
        )
    return box("moof", box("mfhd", bytes(8)), box("traf", box("tfhd", tfhd), tfdt, box("trun", trun))) + MDAT


def fragmented(*extends: bytes, ticks: int = 0) -> bytes:
    return FTYP + box(
        "moov", clock("mvhd", timescale=1000), track(timescale=90_000, ticks=ticks), box("mvex", *extends)
    )


MDAT = box("mdat", b"pictures")


def read(content: bytes) -> mp4.Movie:
    return mp4.read(io.BytesIO(content))


def test_a_recording_tells_its_duration_and_codec() -> None:
    found = read(recording(61.5))
    assert found.duration_seconds == 61.5
    assert found.brand == "isom"
    assert found.video is not None
    assert found.video.codec == "avc1"


@pytest.mark.parametrize("content", [FTYP + movie() + MDAT, FTYP + MDAT + movie()], ids=["index first", "index last"])
def test_the_index_may_stand_before_or_after_the_pictures(content: bytes) -> None:
    assert read(content).duration_seconds == 60.0


@pytest.mark.parametrize("extra", ["free", "skip", "wide", "uuid", "\xa9cam"])
def test_boxes_that_are_not_needed_are_passed_over(extra: str) -> None:
    other = box(extra, b"0123456789abcdef private")
    moov = box("moov", other, clock("mvhd", ticks=60_000), other, track(ticks=60_000), other)
    assert read(FTYP + other + MDAT + other + moov + other).duration_seconds == 60.0


def test_boxes_with_64_bit_sizes_are_read() -> None:
    moov = box("moov", clock("mvhd", ticks=60_000), track(ticks=60_000), large=True)
    assert read(FTYP + box("mdat", b"pictures", large=True) + moov).duration_seconds == 60.0


def test_a_last_box_of_size_zero_reaches_to_the_end_of_the_file() -> None:
    assert read(FTYP + movie() + struct.pack(">I4s", 0, b"mdat") + b"pictures").duration_seconds == 60.0


def test_headers_of_version_1_hold_long_durations_and_dates() -> None:
    moov = box(
        "moov",
        clock("mvhd", created=CREATED_2026, version=1),
        track(number=7, timescale=10, ticks=2**33, version=1),
    )
    found = read(FTYP + moov + MDAT)
    assert found.duration_seconds == 2**33 / 10
    assert found.created == datetime(2026, 7, 27, 12, 26, 40, tzinfo=timezone.utc)
    assert found.video is not None
    assert found.video.id == 7


@pytest.mark.parametrize(
    "created", [0, 64, 0xFFFFFFFF, 2**63], ids=["unset", "1904", "all ones", "beyond any calendar"]
)
def test_a_creation_date_that_was_never_set_is_none(created: int) -> None:
    moov = box("moov", clock("mvhd", created=created, version=1), track(ticks=1000))
    assert read(FTYP + moov + MDAT).created is None


def test_the_duration_is_that_of_the_video_and_not_of_a_longer_sound_track() -> None:
    moov = box("moov", clock("mvhd", ticks=9000), track(1, "soun", "mp4a", ticks=9000), track(2, ticks=7300))
    found = read(FTYP + MDAT + moov)
    assert found.duration_seconds == 7.3
    assert [entry.kind for entry in found.tracks] == ["soun", "vide"]


@pytest.mark.parametrize("ticks", [0, 0xFFFFFFFF], ids=["zero", "unknown"])
def test_the_movie_header_gives_the_duration_when_the_track_does_not(ticks: int) -> None:
    moov = box("moov", clock("mvhd", ticks=5000), track(ticks=ticks))
    assert read(FTYP + MDAT + moov).duration_seconds == 5.0


def test_a_timescale_of_zero_gives_no_duration_and_no_crash() -> None:
    moov = box("moov", clock("mvhd", timescale=0, ticks=5000), track(timescale=0, ticks=5000))
    assert read(FTYP + MDAT + moov).duration_seconds == 0.0


def test_a_file_without_video_is_read_all_the_same() -> None:
    found = read(FTYP + MDAT + box("moov", clock("mvhd", ticks=5000), track(1, "soun", "mp4a", ticks=5000)))
    assert found.video is None
    assert found.duration_seconds == 5.0


def test_a_track_without_a_sample_description_has_no_codec() -> None:
    found = read(
        FTYP + MDAT + box("moov", clock("mvhd"), track(described=False), box("trak", box("mdia", box("minf"))))
    )
    assert [entry.codec for entry in found.tracks] == ["", ""]


def test_the_first_of_two_indexes_counts() -> None:
    assert read(FTYP + movie() + MDAT + movie(ticks=99_000)).duration_seconds == 60.0


def test_zeros_after_a_whole_recording_are_tolerated() -> None:
    assert read(FTYP + MDAT + movie() + bytes(100_000)).duration_seconds == 60.0


@pytest.mark.parametrize("trailer", [b"GPS", b"\xff" * 20, struct.pack(">I4s", 500, b"gps ") + b"short"])
def test_data_of_the_camera_after_a_whole_recording_is_tolerated(trailer: bytes) -> None:
    assert read(FTYP + MDAT + movie() + trailer).duration_seconds == 60.0


class TestFragments:
    def test_an_announced_duration_is_taken(self) -> None:
        mehd = box("mehd", struct.pack(">II", 0, 12_500))
        assert read(fragmented(mehd) + fragment(count=30)).duration_seconds == 12.5

    def test_a_long_announced_duration_is_taken(self) -> None:
        assert read(fragmented(box("mehd", struct.pack(">IQ", 1 << 24, 2**33))) + MDAT).duration_seconds == 2**33 / 1000

    @pytest.mark.parametrize("announced", [0, 0xFFFFFFFF], ids=["zero", "unknown"])
    def test_a_duration_that_was_not_known_beforehand_is_summed(self, announced: int) -> None:
        mehd = box("mehd", struct.pack(">II", 0, announced))
        assert read(fragmented(mehd) + fragment(count=30, default_ticks=3000)).duration_seconds == 1.0

    def test_durations_of_single_pictures_are_summed(self) -> None:
        content = fragmented() + fragment(own_ticks=(9000, 9000)) + fragment(own_ticks=(4500,) * 10_000)
        assert read(content).duration_seconds == (18_000 + 45_000_000) / 90_000

    def test_pictures_without_durations_last_as_the_track_fragment_says(self) -> None:
        assert read(fragmented() + fragment(count=30, default_ticks=3000) * 5).duration_seconds == 5.0

    def test_pictures_without_durations_last_as_the_index_says(self) -> None:
        trex = box("trex", struct.pack(">IIIIII", 0, 1, 1, 3000, 0, 0))
        assert read(fragmented(trex) + fragment(count=30) * 5).duration_seconds == 5.0

    def test_a_span_counts_from_where_the_first_fragment_begins(self) -> None:
        parts = [
            fragment(begin=begin * 90_000, begin_version=1, count=30, default_ticks=3000) for begin in (5000, 5009)
        ]
        assert read(fragmented() + b"".join(parts)).duration_seconds == 10.0

    def test_pictures_in_the_index_come_before_those_in_fragments(self) -> None:
        content = fragmented(ticks=180_000) + fragment(begin=180_000, count=30, default_ticks=3000)
        assert read(content).duration_seconds == 3.0

    def test_fragments_of_other_tracks_do_not_count(self) -> None:
        content = (
            fragmented() + fragment(count=30, default_ticks=3000) + fragment(number=2, count=300, default_ticks=9000)
        )
        assert read(content).duration_seconds == 1.0

    def test_without_video_fragments_the_movie_header_gives_the_duration(self) -> None:
        sound = box("moov", clock("mvhd", ticks=4000), track(1, "soun", "mp4a"), box("mvex"))
        assert read(FTYP + sound + fragment(count=30, default_ticks=3000)).duration_seconds == 4.0

    def test_more_pictures_than_the_box_holds_are_malformed(self) -> None:
        content = (fragmented() + fragment(own_ticks=(9000, 9000))).replace(
            struct.pack(">II", 0x305, 2), struct.pack(">II", 0x305, 4_000_000_000)
        )
        with pytest.raises(mp4.Mp4Malformed, match="claims 4,000,000,000 pictures"):
            read(content)


class TestIncomplete:
    def test_an_empty_file_is_reported(self) -> None:
        with pytest.raises(mp4.Mp4Incomplete, match="is empty"):
            read(b"")

    def test_a_few_bytes_are_reported(self) -> None:
        with pytest.raises(mp4.Mp4Incomplete, match="has only 5 bytes"):
            read(FTYP[:5])

    def test_a_recording_cut_before_its_index_is_reported_with_the_cause(self) -> None:
        with pytest.raises(mp4.Mp4Incomplete, match=r"ends at byte 30, inside its mdat box .*cut by a power loss"):
            read((FTYP + MDAT + movie())[:30])

    def test_a_missing_index_is_reported_with_the_likely_cause(self) -> None:
        with pytest.raises(mp4.Mp4Incomplete, match=r"index \(moov\) is missing: .*still being written"):
            read(FTYP + MDAT)

    def test_a_file_whose_media_box_is_still_open_lacks_the_index(self) -> None:
        with pytest.raises(mp4.Mp4Incomplete, match="index"):
            read(FTYP + struct.pack(">I4s", 0, b"mdat") + b"pictures" * 100)

    def test_reserved_space_behind_a_cut_recording_is_reported(self) -> None:
        with pytest.raises(mp4.Mp4Incomplete, match=r"only zeros from byte 36 on"):
            read(FTYP + MDAT + bytes(500))

    def test_garbage_where_the_index_should_be_is_reported(self) -> None:
        with pytest.raises(mp4.Mp4Incomplete, match=r"no box from byte 36 on"):
            read(FTYP + MDAT + b"\xff" * 500)

    @pytest.mark.parametrize("header", [struct.pack(">I4s", 1, b"mdat"), struct.pack(">I4sQ", 1, b"mdat", 3)])
    def test_a_64_bit_size_that_is_cut_or_too_small_is_no_box(self, header: bytes) -> None:
        with pytest.raises(mp4.Mp4Incomplete, match="index"):
            read(FTYP + header)

    def test_frames_cut_behind_a_whole_index_are_reported(self) -> None:
        with pytest.raises(mp4.Mp4Incomplete, match="inside its mdat box"):
            read((FTYP + movie() + box("mdat", bytes(5000)))[:-1000])

    def test_an_index_without_frames_is_reported(self) -> None:
        with pytest.raises(mp4.Mp4Incomplete, match=r"no pictures \(mdat\)"):
            read(FTYP + movie())

    def test_a_file_of_zeros_is_reserved_space(self) -> None:
        with pytest.raises(mp4.Mp4Incomplete, match="begins with zeros"):
            read(bytes(4096))

    def test_a_file_that_shrinks_while_it_is_read_is_reported(self) -> None:
        class Shrinking(io.BytesIO):
            def read(self, size: int | None = -1) -> bytes:
                content = super().read(size)
                self.truncate(30)
                return content

        with pytest.raises(mp4.Mp4Incomplete, match="became shorter"):
            mp4.read(Shrinking(FTYP + MDAT + movie()))


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"G" + bytes(187) + b"G" + bytes(187) + b"G" + bytes(187), "transport stream"),
        (b"\x00\x00\x01\x00G" + bytes(191) + b"G" + bytes(191) + b"G" + bytes(187), "MPEG stream"),
        (b"\x01\x02\x03\x04G" + bytes(191) + b"G" + bytes(191) + b"G" + bytes(187), "transport stream"),
        (b"RIFF\x00\x10\x00\x00AVI LIST", "AVI"),
        (b"RIFF\x00\x10\x00\x00WAVEfmt ", "a RIFF file"),
        (b"\x1aE\xdf\xa3\x01\x00\x00\x00\x00", "Matroska"),
        (b"IMKH\x01\x02\x00\x00", "Hikvision"),
        (b"\x00\x00\x01\xba\x44\x00\x04\x00", "MPEG program stream"),
        (b"DHAV\xfd\x00\x00\x00", "Dahua"),
        (b"\x00\x00\x00\x01\x67\x42\x00\x1f", "bare H.264"),
        (b"\xff\xd8\xff\xe0\x00\x10JFIF", "JPEG"),
        (b"<html><body>Not found</body>", "text"),
        (b"\x90\x91\x92\x93\x94\x95\x96\x97", "first bytes are 90 91 92"),
        (box("ftyp", b"heic", bytes(8)), "HEIC"),
    ],
)
def test_a_file_of_another_kind_is_named(content: bytes, name: str) -> None:
    with pytest.raises(mp4.NotMp4, match=name):
        read(content)


class TestHostileInput:
    def test_an_index_without_a_movie_header_is_malformed(self) -> None:
        with pytest.raises(mp4.Mp4Malformed, match="mvhd"):
            read(FTYP + MDAT + box("moov", track()))

    def test_a_box_that_reaches_out_of_its_parent_is_malformed(self) -> None:
        with pytest.raises(mp4.Mp4Malformed, match="reaches out of the moov box"):
            read(FTYP + MDAT + box("moov", struct.pack(">I4s", 5000, b"trak")) + MDAT)

    def test_a_header_that_is_too_short_is_malformed(self) -> None:
        with pytest.raises(mp4.Mp4Malformed, match="mvhd box is too short"):
            read(FTYP + MDAT + box("moov", box("mvhd", bytes(4))))

    def test_millions_of_tiny_boxes_end_the_reading_early(self) -> None:
        with pytest.raises(mp4.Mp4Malformed, match="more than 65,536 boxes"):
            read(FTYP + box("free") * (mp4.MAX_BOXES + 1))

    def test_headers_larger_than_any_recording_needs_end_the_reading_early(self) -> None:
        run = fragment(own_ticks=(1,) * 200_000)
        with pytest.raises(mp4.Mp4Malformed, match="headers are larger"):
            read(fragmented() + run * 5)

    def test_a_box_that_claims_a_billion_entries_costs_no_memory_or_time(self, tmp_path: Path) -> None:
        path = tmp_path / "large.mp4"
        size = 9_000_000_000
        with path.open("wb") as file:
            file.write(FTYP + MDAT + struct.pack(">I4sQ", 1, b"moov", size - len(FTYP + MDAT)))
            file.write(clock("mvhd", ticks=60_000) + track(ticks=60_000))
            file.write(struct.pack(">I4sQ", 1, b"stts", 8_000_000_000) + struct.pack(">II", 0, 1_000_000_000))
            file.truncate(size)
        tracemalloc.start()
        with path.open("rb") as opened:
            found = mp4.read(opened)
        _, peak_bytes = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.duration_seconds == 60.0
        assert peak_bytes < 100_000

    @pytest.mark.parametrize("kind", ["free", "moov", "mdat"])
    @pytest.mark.parametrize("size", [16 + 1000, 2**32, 2**63 - 1, 2**63, 2**64 - 1])
    def test_a_64_bit_size_beyond_the_end_of_the_file_is_a_cut_recording(self, kind: str, size: int) -> None:
        with pytest.raises(mp4.Mp4Incomplete, match=f"inside its {kind} box which goes to byte"):
            read(FTYP + MDAT + struct.pack(">I4sQ", 1, kind.encode(), size) + bytes(100))

    def test_boxes_that_overlap_the_end_of_their_parents_are_malformed(self) -> None:
        inner = struct.pack(">I4s", 30, b"mdia") + struct.pack(">I4s", 40, b"minf")
        with pytest.raises(mp4.Mp4Malformed, match="reaches out of"):
            read(FTYP + MDAT + box("moov", clock("mvhd"), box("trak", inner, bytes(50))) + MDAT)

    def test_boxes_nested_ten_thousand_deep_are_not_followed(self) -> None:
        nested = b""
        for _ in range(10_000):
            nested = struct.pack(">I4s", len(nested) + 8, b"trak") + nested
        assert read(FTYP + MDAT + box("moov", clock("mvhd", ticks=5000), nested)).duration_seconds == 5.0

    def test_huge_frame_counts_and_durations_do_not_overflow(self) -> None:
        content = fragmented() + fragment(count=2**32 - 1, default_ticks=2**32 - 1) * 3
        assert read(content).duration_seconds == 3 * (2**32 - 1) ** 2 / 90_000

    @settings(max_examples=150)
    @given(st.binary(max_size=400), st.integers(0, 1200), st.booleans())
    def test_any_bytes_raise_nothing_but_an_mp4_error(self, noise: bytes, at: int, cut: bool) -> None:
        whole = fragmented() + fragment(begin=0, own_ticks=(9000, 9000)) + movie()
        content = whole[:at] + noise + (b"" if cut else whole[at + len(noise) :])
        try:
            found = read(content)
        except mp4.Mp4Error:
            return
        assert found.duration_seconds >= 0


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
@pytest.mark.parametrize(
    "options",
    [
        "-movflags +faststart",
        "-movflags +frag_keyframe+empty_moov",
        "-movflags +frag_keyframe",
        "-movflags +dash+frag_keyframe",
        "-movflags +frag_every_frame+empty_moov+default_base_moof",
    ],
)
def test_the_duration_of_files_of_a_real_muxer_is_right(options: str, tmp_path: Path) -> None:
    source, made = tmp_path / "source.mp4", tmp_path / "made.mp4"
    source.write_bytes(recording(7.3))
    subprocess.run(["ffmpeg", "-v", "error", "-i", source, "-c", "copy", *options.split(), made], check=True)
    with made.open("rb") as file:
        found = mp4.read(file)
    assert found.duration_seconds == pytest.approx(7.3, abs=0.05)
    assert found.video is not None
    assert found.video.codec == "avc1"
