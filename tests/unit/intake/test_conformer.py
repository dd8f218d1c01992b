"""Recordings as cameras write them become clips that fit: the matrix of containers, and the matrix of damage."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.config import Conform, Limits, SpoolSettings
from agent.device.safe_open import open_footage
from agent.errors import Cancelled, FootageGone, FootageIncomplete, FootageRefused, SpoolFull
from agent.intake import conformer
from agent.intake.conformer import ConformJob, ConformSettings, conform
from agent.intake.identify.reader import read_damaged, read_media
from agent.intake.identify.recording import Recording
from agent.intake.planning import AsIs, PlanSettings, Reject, Salvage, plan
from agent.media import mp4, transcode
from agent.media.ffmpeg import CancelToken
from agent.model import Clip
from tests.support.ffmpeg import SECONDS, ffmpeg, needs_ffmpeg, payloads, pictures, streams
from tests.unit.conftest import Footages

pytestmark = needs_ffmpeg

START = datetime(2026, 7, 28, 14, 0, tzinfo=timezone.utc)
CANCEL = CancelToken(threading.Event())
Pieces = list[tuple[Clip, Path]]


def planned(path: Path, settings: ConformSettings) -> ConformJob:
    """What the intake submits once the file has long stood still; what fits is submitted as if zeros were suspected."""
    with open_footage(path) as opened:
        try:
            media = read_media(opened, settings.conform, CANCEL)
        except FootageIncomplete:
            media = read_damaged(opened, settings.conform, CANCEL)
        found = Recording(opened.footage, media, "ABC1234X", 1, START, comments="trip 7", sources={"start": "test"})
        chosen = plan(found, PlanSettings(settings.limits, settings.conform))
        if isinstance(chosen, Reject):
            raise chosen.error
        return ConformJob.of(found, Salvage("zeros", chosen) if isinstance(chosen, AsIs) else chosen, opened)


class Desk:
    """Makes recordings fit, in a folder of a test."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "work"
        self.folder.mkdir()
        self.settings = ConformSettings(Limits(150_000, 300), Conform(), SpoolSettings(place, min_free_bytes=0))
        self.cancel = CANCEL

    def conform(self, path: Path) -> Pieces:
        return conform(planned(path, self.settings), self.settings, self.folder, self.cancel)

    def refusal(self, path: Path) -> str:
        with pytest.raises(FootageRefused) as refused:
            self.conform(path)
        return refused.value.reason

    def limit(self, max_bytes: int, max_seconds: int = 300) -> None:
        self.settings = replace(self.settings, limits=Limits(max_bytes, max_seconds))

    def allow(self, **settings: object) -> None:
        self.settings = replace(self.settings, conform=replace(self.settings.conform, **settings))  # type: ignore[arg-type]


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def check(made: Pieces, limits: Limits) -> None:
    """What holds for the pieces of every recording."""
    assert [clip.piece for clip, _ in made] == list(range(len(made)))
    for (before, _), (after, _) in itertools.pairwise(made):
        assert before.key.end == after.key.start
    for clip, file in made:
        data = file.read_bytes()
        assert len(data) <= limits.max_bytes
        assert data.index(b"moov") < data.index(b"mdat")
        with file.open("rb") as reading:
            movie = mp4.read(reading)
        assert movie.video is not None
        assert movie.video.codec == "avc1"
        assert movie.duration_seconds <= limits.max_seconds
        assert abs(movie.duration_seconds - clip.key.duration_seconds) < 1.1
        assert movie.created is None


def all_payloads(made: Pieces) -> dict[str, list[str]]:
    return payloads(*(file for _, file in made))


@pytest.mark.parametrize(
    "name",
    [
        "constant.mp4",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("varying.mp4", "long-groups.mp4", "b-frames.mp4", "timecode.mp4", "camera.mkv")
        ),
    ],
)
def test_segments_hold_every_packet_of_the_recording_unchanged(desk: Desk, footage: Footages, name: str) -> None:
    path = footage(name)
    sizes = {"varying.mp4": 700_000}
    desk.limit(sizes.get(name, 250_000))
    made = desk.conform(path)
    check(made, desk.settings.limits)
    assert len(made) >= 3
    assert all_payloads(made) == payloads(path)
    assert made[0][0].key.start == START
    assert made[-1][0].key.end == START + timedelta(seconds=SECONDS)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["late-start.ts", "recorder.avi", "timecode.mov"])
def test_other_containers_are_repacked_without_changing_a_frame(desk: Desk, footage: Footages, name: str) -> None:
    desk.limit(250_000)
    made = desk.conform(footage(name))
    check(made, desk.settings.limits)
    assert [picture for _, file in made for picture in pictures(file)] == pictures(footage(name))
    assert made[0][0].key.start == START
    assert made[-1][0].key.end == START + timedelta(seconds=SECONDS)
    assert all(streams(file) == ["h264", "aac"] for _, file in made)


@pytest.mark.slow
def test_a_recording_that_only_has_the_wrong_container_becomes_one_clip(desk: Desk, footage: Footages) -> None:
    desk.limit(50_000_000)
    ((clip, file),) = desk.conform(footage("camera.mkv"))
    assert (clip.key.start, clip.key.end) == (START, START + timedelta(seconds=SECONDS))
    assert clip.sources["piece"] == "1 of 1, seconds 0.00 to 30.00 of the recording, repacked without encoding"
    assert payloads(file) == payloads(footage("camera.mkv"))


def test_a_long_recording_is_cut_by_time_as_well(desk: Desk, footage: Footages) -> None:
    desk.limit(50_000_000, 12)
    made = desk.conform(footage("constant.mp4"))
    check(made, desk.settings.limits)
    assert [clip.key.duration_seconds for clip, _ in made] == [11, 11, 8]


@pytest.mark.slow
def test_each_clip_keeps_what_is_known_of_the_recording(desk: Desk, footage: Footages) -> None:
    desk.limit(50_000_000, 12)
    clip, _ = desk.conform(footage("constant.mp4"))[1]
    assert (clip.key.registration, clip.key.camera, clip.comments) == ("ABC1234X", 1, "trip 7")
    assert clip.sources["start"] == "test"
    assert clip.sources["piece"] == "2 of 3, seconds 11.00 to 22.00 of the recording, cut without encoding"
    assert "damage" not in clip.sources


@pytest.mark.slow
def test_audio_that_mp4_cannot_hold_is_dropped_if_so_configured(desk: Desk, footage: Footages) -> None:
    desk.allow(audio="drop")
    desk.limit(50_000_000)
    ((_, file),) = desk.conform(footage("recorder.avi"))
    assert streams(file) == ["h264"]
    ((_, file),) = desk.conform(footage("camera.mkv"))
    assert streams(file) == ["h264", "aac"]


def test_a_gop_over_the_limit_of_the_conformer_is_refused_with_a_remedy(desk: Desk, footage: Footages) -> None:
    desk.limit(50_000_000, 5)
    reason = desk.refusal(footage("long-groups.mp4"))
    assert reason.startswith("a single group of pictures (at second 0) lasts 7 s and the limit is 5 s")
    assert "key frames in the camera" in reason


@pytest.mark.slow
def test_a_gop_over_the_limit_is_reencoded_if_allowed(desk: Desk, footage: Footages) -> None:
    desk.limit(50_000_000, 5)
    desk.allow(reencode=True)
    made = desk.conform(footage("long-groups.mp4"))
    check(made, desk.settings.limits)
    assert made[-1][0].key.end == START + timedelta(seconds=SECONDS)
    assert made[0][0].sources["piece"].endswith("re-encoded as H.264")
    assert sorted(desk.folder.iterdir()) == [file for _, file in made]


@pytest.mark.parametrize(
    ("name", "codec", "remedy"),
    [
        ("hevc.mp4", "H.265/HEVC", "switch the camera from H.265/HEVC to H.264"),
        ("jpeg.avi", "Motion JPEG", "switch the camera to H.264"),
    ],
)
def test_other_codecs_are_refused_with_what_to_change_on_the_camera(
    desk: Desk, footage: Footages, name: str, codec: str, remedy: str
) -> None:
    reason = desk.refusal(footage(name))
    assert codec in reason
    assert remedy in reason


@pytest.mark.slow
@pytest.mark.parametrize(("name", "seconds"), [("hevc.mp4", 4), ("jpeg.avi", 2)])
def test_other_codecs_are_reencoded_if_allowed(desk: Desk, footage: Footages, name: str, seconds: int) -> None:
    desk.allow(reencode=True)
    desk.limit(50_000_000)
    made = desk.conform(footage(name))
    check(made, desk.settings.limits)
    assert made[-1][0].key.end == START + timedelta(seconds=seconds)


def test_audio_without_video_is_refused(desk: Desk, footage: Footages) -> None:
    assert desk.refusal(footage("sound-only.mkv")) == "it has no video track"


@pytest.mark.slow
def test_too_large_segments_are_planned_again_with_a_smaller_aim(
    desk: Desk, footage: Footages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conformer, "MARGIN", 1.06)
    desk.limit(250_000)
    made = desk.conform(footage("constant.mp4"))
    check(made, desk.settings.limits)
    assert all_payloads(made) == payloads(footage("constant.mp4"))


@pytest.mark.slow
def test_segments_that_never_fit_are_refused(desk: Desk, footage: Footages, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object, **__: object) -> list[Path]:
        raise transcode.SegmentTooLarge("always")

    monkeypatch.setattr(conformer, "cut", too_large)
    assert "larger than they should be" in desk.refusal(footage("constant.mp4"))


# --- damage -----------------------------------------------------------------------------------------------------------


def kept(part: float) -> Callable[[bytes], bytes]:
    return lambda data: data[: int(len(data) * part)]


def zeroed(begin: float, end: float = 1.0) -> Callable[[bytes], bytes]:
    def damage(data: bytes) -> bytes:
        first, last = int(len(data) * begin), int(len(data) * end)
        return data[:first] + bytes(last - first) + data[last:]

    return damage


def padded(damage: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: damage(data) + bytes(2_000_000)


def without_pictures(data: bytes) -> bytes:
    """An index, and power lost before the first picture was written after it."""
    return data[: data.index(b"mdat") + 24]


@dataclass(frozen=True)
class Damage:
    """One row of the matrix.

    Args:
        name: the whole recording.
        bytes_of: what power loss makes of its bytes.
        words: a pattern for what the technician is told.
        saved: the least and the most seconds that are saved.
    """

    name: str
    bytes_of: Callable[[bytes], bytes]
    words: str
    saved: tuple[int, int] = (0, 0)

    def put(self, place: Path, footage: Footages) -> Path:
        path = place / self.name
        path.write_bytes(self.bytes_of(footage(self.name).read_bytes()))
        return path


NEVER_WRITTEN = "^the recording was cut by power loss: the index was never written"
ZEROS = "it held zeros instead of pictures, which were left out: power was lost"
CUT = "^the recording was cut by power loss: "
SOME = CUT + "1[6-9] of 30 s could be saved$"
LOST = {
    "index at the end, cut": Damage("constant.mp4", kept(0.6), NEVER_WRITTEN),
    "index at the end, cut and padded": Damage("constant.mp4", padded(kept(0.6)), NEVER_WRITTEN),
    "empty": Damage("constant.mp4", kept(0.0), "^the file is empty: power was lost before anything was written$"),
    "only zeros": Damage("constant.mp4", zeroed(0.0), "^the file holds nothing but zeros"),
    "zeros after the index": Damage("faststart.mp4", zeroed(0.02), "^it holds zeros instead of pictures: power"),
    "nothing after the index": Damage("faststart.mp4", without_pictures, "^there is no whole picture in it"),
    "MKV, only its first bytes": Damage("camera.mkv", kept(0.0001), "^no video can be read from it"),
}
SAVED = {
    "complete and padded": Damage("constant.mp4", padded(kept(1.0)), "^$", (30, 30)),
    "index first, cut": Damage("faststart.mp4", kept(0.6), SOME, (16, 20)),
    "index first, cut and padded": Damage(
        "faststart.mp4", padded(kept(0.6)), "^from second 1[6-9] to 30 " + ZEROS, (16, 20)
    ),
    "index first, zeros at the end": Damage(
        "faststart.mp4", zeroed(0.7), "^from second (19|2.) to 30 " + ZEROS, (19, 22)
    ),
    "fragmented, cut": Damage("fragmented.mp4", kept(0.6), CUT + "its last moments are missing$", (16, 20)),
    "TS, cut": Damage("late-start.ts", kept(0.6), "^$", (16, 20)),
    "AVI, cut": Damage("recorder.avi", kept(0.6), CUT, (16, 20)),
    "MKV, cut": Damage("camera.mkv", kept(0.6), SOME, (16, 20)),
}


@pytest.mark.parametrize("damage", LOST.values(), ids=LOST)
def test_damage_that_leaves_nothing_is_refused_with_the_likely_cause(
    desk: Desk, footage: Footages, tmp_path: Path, damage: Damage
) -> None:
    reason = desk.refusal(damage.put(tmp_path, footage))
    assert re.search(damage.words, reason), reason


@pytest.mark.slow
@pytest.mark.parametrize("damage", SAVED.values(), ids=SAVED)
def test_damage_is_cut_away_and_reported(desk: Desk, footage: Footages, tmp_path: Path, damage: Damage) -> None:
    made = desk.conform(damage.put(tmp_path, footage))
    check(made, desk.settings.limits)
    least, most = damage.saved
    assert least <= (made[-1][0].key.end - START).total_seconds() <= most
    whole = pictures(footage(damage.name))
    # The last picture may have been cut in the middle.
    found = [picture for _, file in made for picture in pictures(file)][:-1]
    assert found == whole[: len(found)]
    for clip, _ in made:
        told = clip.sources.get("damage", "")
        assert re.search(damage.words, told), told
        assert told in clip.comments


@pytest.mark.slow
def test_zeros_in_the_middle_leave_both_ends(desk: Desk, footage: Footages, tmp_path: Path) -> None:
    path = tmp_path / "hole.mp4"
    path.write_bytes(zeroed(0.4, 0.6)(footage("faststart.mp4").read_bytes()))
    made = desk.conform(path)
    spans = [(clip.key.start - START, clip.key.end - START) for clip, _ in made]
    gaps = [(before[1], after[0]) for before, after in itertools.pairwise(spans) if before[1] != after[0]]
    assert len(gaps) == 1
    assert timedelta(seconds=5) <= gaps[0][1] - gaps[0][0] <= timedelta(seconds=9)
    assert spans[-1][1] == timedelta(seconds=SECONDS)
    assert [clip.piece for clip, _ in made] == list(range(len(made)))


def test_footage_that_proves_intact_stays_as_it_is(desk: Desk, footage: Footages, tmp_path: Path) -> None:
    desk.limit(50_000_000)
    path = footage("constant.mp4")
    ((clip, file),) = desk.conform(path)
    assert file == path
    assert clip.key.duration_seconds == SECONDS
    assert "piece" not in clip.sources


# --- trouble ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_footage_that_changes_while_it_is_cut_gives_no_clips(
    desk: Desk, footage: Footages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copy(footage("constant.mp4"), tmp_path))
    original = transcode.cut

    def rewritten_meanwhile(*arguments: object, **named: object) -> list[Path]:
        os.utime(path, ns=(1, 1))
        return original(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(conformer, "cut", rewritten_meanwhile)
    with pytest.raises(FootageGone):
        desk.conform(path)


@pytest.mark.slow
def test_footage_deleted_while_it_is_cut_is_still_saved(
    desk: Desk, footage: Footages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path(shutil.copy(footage("constant.mp4"), tmp_path))
    original = transcode.cut

    def deleted_meanwhile(*arguments: object, **named: object) -> list[Path]:
        path.unlink()
        return original(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(conformer, "cut", deleted_meanwhile)
    desk.limit(250_000)
    made = desk.conform(path)
    assert all_payloads(made) == payloads(footage("constant.mp4"))


def test_footage_that_is_gone_before_its_turn_is_gone(desk: Desk, footage: Footages, tmp_path: Path) -> None:
    path = Path(shutil.copy(footage("constant.mp4"), tmp_path))
    job = planned(path, desk.settings)
    path.unlink()
    with pytest.raises(FootageGone):
        conform(job, desk.settings, desk.folder, CANCEL)


def test_another_file_under_the_same_name_is_not_worked_on(desk: Desk, footage: Footages, tmp_path: Path) -> None:
    path = Path(shutil.copy2(footage("constant.mp4"), tmp_path))
    job = planned(path, desk.settings)
    other = Path(shutil.copy2(path, tmp_path / "other.mp4"))
    assert (other.stat().st_size, other.stat().st_mtime_ns) == (path.stat().st_size, path.stat().st_mtime_ns)
    other.replace(path)
    with pytest.raises(FootageGone):
        conform(job, desk.settings, desk.folder, CANCEL)


def test_without_room_on_the_disk_the_footage_waits(desk: Desk, footage: Footages) -> None:
    desk.settings = replace(desk.settings, spool=replace(desk.settings.spool, min_free_bytes=10**15))
    with pytest.raises(SpoolFull, match="no room to cut constant"):
        desk.conform(footage("constant.mp4"))


def test_what_would_never_fit_into_the_spool_is_refused(desk: Desk, footage: Footages) -> None:
    desk.settings = replace(desk.settings, spool=replace(desk.settings.spool, max_bytes=200_000))
    assert "spool.max_bytes" in desk.refusal(footage("constant.mp4"))


def test_a_disk_that_fills_up_while_cutting_is_not_the_fault_of_the_footage(
    desk: Desk, footage: Footages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "ffmpeg").write_text("#!/bin/sh\necho '[mp4 @ 0x1] No space left on device' >&2\nexit 1\n")
    (tools / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    with pytest.raises(SpoolFull, match="the disk became full"):
        desk.conform(footage("constant.mp4"))


def test_cancellation_ends_the_cutting(desk: Desk, footage: Footages) -> None:
    stop = threading.Event()
    job = planned(footage("constant.mp4"), desk.settings)
    stop.set()
    with pytest.raises(Cancelled):
        conform(job, desk.settings, desk.folder, CancelToken(stop))


def test_a_playlist_in_disguise_reads_no_other_file(desk: Desk, footage: Footages, tmp_path: Path) -> None:
    """ffmpeg, left to guess, would take it for a list of files, and deliver those."""
    path = tmp_path / "playlist.mp4"
    path.write_text(f"ffconcat version 1.0\nfile {footage('constant.mp4')}\n")
    assert "it looks like text" in desk.refusal(path)


@pytest.mark.slow
def test_the_name_of_the_footage_may_be_anything(desk: Desk, footage: Footages, tmp_path: Path) -> None:
    path = tmp_path / "-i %03d 'a:b\n\udcff.mkv"
    shutil.copy(footage("camera.mkv"), path)
    desk.limit(250_000)
    assert all_payloads(desk.conform(path)) == payloads(footage("camera.mkv"))


@pytest.mark.slow
def test_an_edit_list_does_not_shift_the_cuts(desk: Desk, footage: Footages, tmp_path: Path) -> None:
    """A recording that was trimmed by another program hides its first pictures in an edit list."""
    path = tmp_path / "trimmed.mp4"
    ffmpeg("-ss", "1.5", "-i", footage("constant.mp4"), "-c", "copy", path)
    desk.limit(250_000)
    made = desk.conform(path)
    check(made, desk.settings.limits)
    assert all_payloads(made) == payloads(path)
