"""The intake and the conformer together: footage that does not fit becomes clips in the spool."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.config import (
    Api,
    Config,
    Conform,
    FootageFolder,
    Limits,
    LogSettings,
    Secret,
    SpoolSettings,
    UploadSettings,
    Vehicle,
)
from agent.device.clock import Clock
from agent.intake import tracked
from agent.intake.intake import Intake
from agent.media import damage
from agent.model import Footage, State, Verdict
from agent.spool import Spool
from agent.spool.records import Record
from simulator.recorder import recording
from tests.support.clocks import FixedClock
from tests.support.daemon import await_records, await_until
from tests.support.ffmpeg import SECONDS, needs_ffmpeg, payloads
from tests.unit.conftest import Footages

NAME = "ABC1234X_1_20260728_140000"
START = datetime(2026, 7, 28, 14, 0, tzinfo=timezone.utc)
LATER = START.timestamp() + 86_400


class Bench:
    """A running intake and conformer, a card, and a spool."""

    def __init__(self, place: Path) -> None:
        self.card = place / "card"
        self.card.mkdir()
        folder = FootageFolder(
            self.card, settle_seconds=0.0, rescan_seconds=0.2, include=("*.mp4", "*.mov", "*.ts", "*.avi", "*.mkv")
        )
        self.config = Config(
            file=Path("config.toml"),
            api=Api("https://127.0.0.1:1/rest", "fleet", Secret("secret")),
            vehicle=Vehicle(),
            footage=(folder,),
            limits=Limits(250_000, 300),
            conform=Conform(),
            spool=SpoolSettings(place / "spool", min_free_bytes=0),
            upload=UploadSettings(),
            log=LogSettings(),
        )
        self.spool = Spool(self.config.spool, lambda: LATER)
        self.signs: list[float] = []
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        self._stop = threading.Event()
        self.intake = Intake(self.config, self.spool, self._stop, Clock("always", FixedClock(lambda: LATER)))
        works = (self.intake.run, lambda: self.intake.conformer.run(lambda: self.signs.append(time.monotonic())))
        self._threads = [threading.Thread(target=work) for work in works]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        self.intake.wake()
        self.intake.conformer.wake()
        for thread in self._threads:
            thread.join(60.0)
            assert not thread.is_alive()

    def close(self) -> None:
        if self._threads:
            self.stop()
        self.spool.close()

    def put(self, source: Path, name: str = "") -> Path:
        """A recording appears on the card as a whole."""
        target = self.card / (name or f"{NAME}{source.suffix}")
        shutil.copy(source, self.card / "copy.tmp")
        return (self.card / "copy.tmp").rename(target)

    def records(self, *states: State) -> list[Record]:
        return list(self.spool.ledger.records(states))

    def await_records(self, count: int, *states: State) -> list[Record]:
        """Waits until so many clips are in these states; they are returned as they were then."""
        return await_records(lambda: self.records(*states), count, *states, seconds=120.0)

    def deliver_all(self) -> None:
        batch = self.spool.claim(list)
        self.spool.settle({upload.id: Verdict(State.DELIVERED) for upload in batch})

    @property
    def work(self) -> Path:
        return self.config.spool.directory / "work"

    def stored(self) -> list[Path]:
        return sorted((self.config.spool.directory / "clips").glob("*.mp4"))


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    # A file that is not whole gets six times this before it is given up.
    monkeypatch.setattr(tracked, "MIN_INTERVAL_SECONDS", 0.1)
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def gate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Makes ffmpeg wait at its start until the returned function is called; `started` appears when it waits."""
    tools = tmp_path / "tools"
    tools.mkdir()
    real = shutil.which("ffmpeg")
    waits = f"touch {tools}/started; while [ ! -e {tools}/open ]; do sleep 0.05; done"
    (tools / "ffmpeg").write_text(f'#!/bin/sh\n{waits}\nexec {real} "$@"\n')
    (tools / "ffmpeg").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    return (tools / "open").touch


def await_ffmpeg(place: Path) -> None:
    await_until((place / "tools" / "started").exists, "ffmpeg to start", 120.0)


@needs_ffmpeg
def test_footage_that_is_too_large_is_spooled_as_clips_that_fit(bench: Bench, footage: Footages) -> None:
    path = bench.put(footage("constant.mp4"))
    bench.start()
    records = bench.await_records(4, State.WAITING)
    assert {record.footage.path for record in records} == {path}
    assert [record.piece for record in records] == list(range(len(records)))
    videos = [record.key for record in records if record.key]
    assert (videos[0].start, videos[-1].end) == (START, START + timedelta(seconds=SECONDS))
    assert payloads(*bench.stored()) == payloads(path)
    await_until(lambda: list(bench.work.iterdir()) == [], "an empty work folder", 60.0)


@needs_ffmpeg
@pytest.mark.slow
def test_the_intake_goes_on_while_something_is_cut(
    bench: Bench, footage: Footages, tmp_path: Path, gate: Callable[[], None]
) -> None:
    bench.put(footage("constant.mp4"))
    bench.start()
    await_ffmpeg(tmp_path)
    (bench.card / "ABC1234X_2_20260728_140000.mp4").write_bytes(recording(5.0, size_bytes=20_000))
    (record,) = bench.await_records(1, State.WAITING)
    assert record.key is not None
    assert record.key.camera == 2
    gate()
    bench.await_records(5, State.WAITING)


@needs_ffmpeg
@pytest.mark.slow
def test_new_footage_under_the_name_of_one_being_cut_is_spooled_too(
    bench: Bench, footage: Footages, tmp_path: Path, gate: Callable[[], None]
) -> None:
    path = bench.put(footage("constant.mp4"))
    bench.start()
    await_ffmpeg(tmp_path)
    (bench.card / "new").write_bytes(recording(5.0, size_bytes=20_000))
    (bench.card / "new").rename(path)
    (new,) = bench.await_records(1, State.WAITING)
    assert new.footage == Footage.from_stat(path, path.stat())
    gate()
    records = bench.await_records(5, State.WAITING, State.REFUSED)
    assert len({record.footage.size_bytes for record in records}) == 2


@needs_ffmpeg
def test_a_stop_interrupts_the_cutting_and_the_next_start_repeats_it(
    bench: Bench, footage: Footages, tmp_path: Path, gate: Callable[[], None]
) -> None:
    path = bench.put(footage("constant.mp4"))
    bench.start()
    await_ffmpeg(tmp_path)
    bench.stop()
    assert bench.records() == []
    gate()
    bench.start()
    bench.await_records(4, State.WAITING)
    assert payloads(*bench.stored()) == payloads(path)


@needs_ffmpeg
@pytest.mark.slow
def test_the_conformer_reports_that_it_is_alive(
    bench: Bench, footage: Footages, tmp_path: Path, gate: Callable[[], None]
) -> None:
    bench.put(footage("constant.mp4"))
    bench.start()
    await_ffmpeg(tmp_path)
    before = len(bench.signs)
    await_until(lambda: len(bench.signs) > before + 3, "signs of life", 60.0)
    gate()


@needs_ffmpeg
@pytest.mark.slow
def test_events_are_cut_first(bench: Bench, footage: Footages, tmp_path: Path, gate: Callable[[], None]) -> None:
    bench.put(footage("constant.mp4"), "ABC1234X_1_20260728_140000.mp4")
    bench.start()
    await_ffmpeg(tmp_path)
    bench.put(footage("constant.mp4"), "ABC1234X_1_20260728_141000.mp4")
    bench.put(footage("constant.mp4"), "ABC1234X_1_20260728_142000_event.mp4")
    await_until(lambda: bench.intake.conformer._jobs.qsize() == 2, "both to be queued", 60.0)
    gate()
    records = bench.await_records(12, State.WAITING)
    order = [record.footage.path.name for record in sorted(records, key=lambda record: record.id)]
    assert list(dict.fromkeys(order)) == [
        "ABC1234X_1_20260728_140000.mp4",
        "ABC1234X_1_20260728_142000_event.mp4",
        "ABC1234X_1_20260728_141000.mp4",
    ]


@needs_ffmpeg
@pytest.mark.slow
def test_footage_is_deleted_only_when_all_its_clips_are_delivered(bench: Bench, footage: Footages) -> None:
    (folder,) = bench.config.footage
    bench.config = replace(bench.config, footage=(replace(folder, after_delivery="delete"),))
    path = bench.put(footage("constant.mp4"))
    bench.start()
    records = bench.await_records(4, State.WAITING)
    first, *others = bench.spool.claim(list)
    bench.spool.settle({upload.id: Verdict(State.DELIVERED) for upload in others})
    bench.spool.release([first.id])
    bench.intake.wake()
    other = bench.card / "ABC1234X_2_20260728_140000.mp4"
    other.write_bytes(recording(5.0, size_bytes=20_000))
    bench.await_records(len(others), State.DELIVERED)
    bench.await_records(2, State.WAITING)
    # Scans have passed since: the newer file was found by one.
    assert path.exists()
    bench.deliver_all()
    await_until(lambda: not path.exists(), "the deletion", 60.0)
    assert len(records) == len(others) + 1


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "words"),
    [("hevc.mp4", "switch the camera from H.265/HEVC to H.264"), ("jpeg.avi", "its video is Motion JPEG")],
)
def test_what_cannot_be_made_to_fit_is_listed_with_the_reason(
    bench: Bench, footage: Footages, name: str, words: str
) -> None:
    path = bench.put(footage(name))
    bench.start()
    (record,) = bench.await_records(1, State.REFUSED)
    assert words in record.reason
    assert path.exists()


@needs_ffmpeg
@pytest.mark.slow
def test_a_recording_cut_by_power_loss_is_saved_once_it_is_abandoned(
    bench: Bench, footage: Footages, tmp_path: Path
) -> None:
    data = footage("faststart.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    bench.put(tmp_path / "cut.mp4")
    bench.start()
    records = bench.await_records(2, State.WAITING)
    assert "could be saved" in records[0].sources["damage"]
    assert "Damaged: the recording was cut by power loss" in records[0].comments


@needs_ffmpeg
@pytest.mark.slow
def test_a_full_spool_keeps_the_segments_until_there_is_room(bench: Bench, footage: Footages, tmp_path: Path) -> None:
    bench.spool.close()
    bench.config = replace(bench.config, spool=replace(bench.config.spool, max_bytes=1_000_000))
    bench.spool = Spool(bench.config.spool, lambda: LATER)
    (bench.card / "ABC1234X_2_20260728_140000.mp4").write_bytes(recording(5.0, size_bytes=200_000))
    with capture_logs() as logged:
        bench.start()
        bench.await_records(1, State.WAITING)
        bench.put(footage("constant.mp4"))
        await_until(lambda: any(entry["event"] == "spool_full" for entry in logged), "the full spool", 120.0)
        (folder,) = bench.work.iterdir()
        bench.deliver_all()
        bench.await_records(4, State.WAITING)
    assert len([entry for entry in logged if entry["event"] == "spool_full"]) == 1
    assert len([entry for entry in logged if entry["event"] == "conforming"]) == 1
    await_until(lambda: not folder.exists(), "an empty work folder", 60.0)


@needs_ffmpeg
@pytest.mark.slow
def test_a_full_disk_lets_footage_wait_and_is_logged_once(
    bench: Bench, footage: Footages, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = True
    usage = shutil.disk_usage

    def disk_usage(path: Path) -> object:
        found = usage(path)
        return found._replace(free=1000) if full else found

    monkeypatch.setattr(shutil, "disk_usage", disk_usage)
    bench.put(footage("camera.mkv"))
    with capture_logs() as logged:
        bench.start()
        await_until(lambda: [e["event"] for e in logged].count("conforming") >= 3, "three attempts", 120.0)
        full = False
        bench.await_records(4, State.WAITING)
    assert len([entry for entry in logged if entry["event"] == "spool_full"]) == 1


def test_leftovers_of_an_earlier_run_are_deleted_at_the_start(bench: Bench) -> None:
    left = bench.work / "tmp123" / "piece00000.mp4"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half")
    bench.start()
    await_until(lambda: bench.work.is_dir() and not left.parent.exists(), "an empty work folder", 60.0)


# --- without ffmpeg -------------------------------------------------------------------------------------------------


@pytest.fixture
def without_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Takes ffmpeg away; the returned function puts it back."""
    path = os.environ["PATH"]
    monkeypatch.setenv("PATH", str(tmp_path))
    return lambda: monkeypatch.setenv("PATH", path)


@needs_ffmpeg
def test_without_ffmpeg_only_what_fits_is_taken(
    bench: Bench, footage: Footages, without_ffmpeg: Callable[[], None]
) -> None:
    bench.put(footage("constant.mp4"))
    bench.put(footage("camera.mkv"), "ABC1234X_3_20260728_140000.mkv")
    cut = bench.put(footage("faststart.mp4"), "ABC1234X_4_20260728_140000.mp4")
    os.truncate(cut, 400_000)
    (bench.card / "ABC1234X_2_20260728_140000.mp4").write_bytes(recording(5.0, size_bytes=20_000))
    bench.start()
    bench.await_records(1, State.WAITING)
    refused = bench.await_records(3, State.REFUSED)
    assert all("the agent needs ffmpeg: sudo apt install ffmpeg" in record.reason for record in refused)
    assert len({record.reason.split(":")[0] for record in refused}) == 3
    assert all(record.due > LATER for record in refused)


@needs_ffmpeg
@pytest.mark.slow
def test_footage_refused_for_lack_of_ffmpeg_is_retried_once_installed(
    bench: Bench, footage: Footages, without_ffmpeg: Callable[[], None]
) -> None:
    bench.put(footage("constant.mp4"))
    bench.start()
    bench.await_records(1, State.REFUSED)
    bench.stop()
    without_ffmpeg()
    bench.start()
    bench.await_records(4, State.WAITING)
    assert bench.records(State.REFUSED) == []


@needs_ffmpeg
def test_without_conforming_what_does_not_fit_is_refused(bench: Bench, footage: Footages) -> None:
    bench.config = replace(bench.config, conform=Conform(enabled=False))
    bench.put(footage("constant.mp4"))
    bench.put(footage("camera.mkv"), "ABC1234X_3_20260728_140000.mkv")
    cut = bench.put(footage("faststart.mp4"), "ABC1234X_4_20260728_140000.mp4")
    os.truncate(cut, 400_000)
    bench.start()
    reasons = " | ".join(record.reason for record in bench.await_records(3, State.REFUSED))
    assert "limits.max_bytes" in reasons
    assert "Matroska" in reasons
    assert "conform.enabled = true" in reasons


def test_zeros_without_ffmpeg_are_delivered_with_a_warning(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether they matter cannot be told without it, and footage is too precious to be kept back for a doubt."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(damage, "holds_zeros", lambda file: True)
    (bench.card / f"{NAME}.mp4").write_bytes(recording(5.0, size_bytes=20_000))
    with capture_logs() as logged:
        bench.start()
        bench.await_records(1, State.WAITING)
    assert [entry["event"] for entry in logged if entry["event"] == "footage_doubtful"] == ["footage_doubtful"]
