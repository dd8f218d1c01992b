from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

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
from agent.device.safe_open import OpenFootage
from agent.errors import Cancelled, SpoolError
from agent.intake.handover import MAX_FILES
from agent.intake.identify.reader import FootageReader
from agent.intake.intake import Intake
from agent.model import Footage, State, Verdict
from agent.spool import NotTaken, Spool, Taken
from agent.spool.admission import Pieces
from simulator.recorder import recording
from tests.support.clocks import FixedClock
from tests.support.daemon import PATIENCE_SECONDS, await_until

NOW = 1_790_000_000.0  # 2026-09-21, after the times in the names
WHOLE = recording(2, size_bytes=20_000, seed="clip")
Logged = list[MutableMapping[str, Any]]


class Bench:
    """An intake with a real spool, a card, and clocks that only the test advances."""

    def __init__(self, place: Path) -> None:
        self.card = place / "card"
        self.card.mkdir()
        self.seconds = 1000.0
        self.wall = NOW
        self.stop = threading.Event()
        self.taken = 0
        self.settings = SpoolSettings(place / "spool", min_free_bytes=0)
        self.folder = FootageFolder(self.card)
        self.vehicle = Vehicle()
        self.limits = Limits()
        # These tests are about the intake alone; what the conformer does is in test_conforming.py.
        self.conform = Conform(enabled=False)
        self.spool = Spool(self.settings, lambda: self.wall)
        self._intakes: list[Intake] = []

    @property
    def config(self) -> Config:
        return Config(
            file=Path("config.toml"),
            api=Api("https://127.0.0.1:1/rest", "fleet", Secret("secret")),
            vehicle=self.vehicle,
            footage=(self.folder,),
            limits=self.limits,
            conform=self.conform,
            spool=self.settings,
            upload=UploadSettings(),
            log=LogSettings(),
        )

    def intake(self) -> Intake:
        def count() -> None:
            self.taken += 1

        clock = Clock("always", FixedClock(lambda: self.wall))
        made = Intake(self.config, self.spool, self.stop, clock, on_taken=count, monotonic=lambda: self.seconds)
        self._intakes.append(made)
        return made

    def close(self) -> None:
        for intake in self._intakes:
            intake._watcher.stop()
        self.spool.close()

    def record(self, second: int = 41, content: bytes = b"", name: str = "") -> Path:
        path = self.card / (name or f"ABC1234X_1_20260728_1414{second:02d}.mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content or recording(2, size_bytes=20_000, seed=str(second)))
        return path

    def states(self) -> list[State]:
        return [record.state for record in self.spool.ledger.records()]

    def names(self) -> list[str]:
        return sorted(record.footage.path.name for record in self.spool.ledger.records())

    def pass_time(self, intake: Intake, seconds: float, step: float = 1.0) -> None:
        """Runs the loop's steps, second by second."""
        end = self.seconds + seconds
        while self.seconds < end:
            self.seconds += step
            intake.step()

    def deliver_all(self) -> None:
        batch = self.spool.claim(list)
        self.spool.settle({upload.id: Verdict(State.DELIVERED) for upload in batch})


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@contextmanager
def running(intake: Intake, stop: threading.Event, alive: Callable[[], None] = lambda: None) -> Iterator[None]:
    thread = threading.Thread(target=intake.run, args=(alive,))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        intake.wake()
        thread.join(PATIENCE_SECONDS)
    assert not thread.is_alive()


def await_watch(intake: Intake, folder: FootageFolder) -> None:
    """Waits until the running intake receives events for files below a folder."""
    await_until(lambda: intake._watcher._watches[folder].inode is not None, f"a watch on {folder.path}")


def events(logged: Logged, name: str) -> Logged:
    return [entry for entry in logged if entry["event"] == name]


def test_footage_that_does_not_change_is_taken_in(bench: Bench) -> None:
    path = bench.record()
    intake = bench.intake()
    assert intake.step() == 5.0
    bench.pass_time(intake, 4.0)
    assert bench.states() == []
    bench.pass_time(intake, 1.0)
    (record,) = bench.spool.ledger.records()
    assert (record.state, record.footage.path) == (State.WAITING, path)
    assert bench.taken == 1


def test_footage_in_the_spool_is_not_taken_again_by_a_later_scan_or_start(bench: Bench) -> None:
    bench.record()
    for intake in (bench.intake(), bench.intake()):
        intake.step()
        bench.pass_time(intake, 200.0, step=5.0)
    bench.deliver_all()
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 200.0, step=5.0)
    assert bench.states() == [State.DELIVERED]
    assert bench.taken == 1


def test_a_growing_file_is_not_taken(bench: Bench) -> None:
    path = bench.record(content=WHOLE)
    intake = bench.intake()
    intake.step()
    for size in range(40):
        path.write_bytes(WHOLE + b"\0\0\0\x08free" * (size + 1))
        bench.pass_time(intake, 4.0)
    assert bench.states() == []
    bench.pass_time(intake, 5.0)
    assert bench.states() == [State.WAITING]


def test_a_file_still_open_for_writing_waits_although_it_does_not_change(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.record()
    intake = bench.intake()
    open_for_writing = True
    monkeypatch.setattr(OpenFootage, "is_being_written", lambda opened: open_for_writing)
    intake.step()
    bench.pass_time(intake, 300.0, step=5.0)
    assert bench.states() == []
    open_for_writing = False
    bench.pass_time(intake, 5.0)
    assert bench.states() == [State.WAITING]


def test_a_file_that_changes_between_settling_and_inspection_is_left_for_later(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.record()

    def written_just_now(opened: OpenFootage) -> bool:
        os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
        return False

    monkeypatch.setattr(OpenFootage, "is_being_written", written_just_now)
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 10.0)
    assert bench.states() == []


def test_footage_that_vanishes_while_it_settles_is_not_tracked_any_more(bench: Bench) -> None:
    path = bench.record()
    intake = bench.intake()
    intake.step()
    path.unlink()
    bench.pass_time(intake, 10.0)
    assert bench.states() == []
    assert intake.step() > 5.0


def test_an_incomplete_file_counts_as_damaged_only_after_the_grace(bench: Bench) -> None:
    bench.record(content=WHOLE[: len(WHOLE) // 2])
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 29.0)
    assert bench.states() == []
    bench.pass_time(intake, 6.0)
    assert bench.states() == [State.REFUSED]


def test_an_incomplete_file_that_is_completed_in_time_is_taken(bench: Bench) -> None:
    path = bench.record(content=WHOLE[: len(WHOLE) // 2])
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 20.0)
    path.write_bytes(WHOLE)
    bench.pass_time(intake, 60.0)
    assert bench.states() == [State.WAITING]


def test_refused_footage_is_listed_and_logged_once_and_stays_on_disk(bench: Bench) -> None:
    path = bench.record(name="no time in it.mp4")
    bench.record(42, content=b"\0\0\0\x0cftypisom" + b"x" * 100)
    bench.limits = Limits(max_seconds=1)
    big = bench.record(43)
    intake = bench.intake()
    with capture_logs() as logged:
        intake.step()
        bench.pass_time(intake, 400.0, step=5.0)
    assert bench.states() == [State.REFUSED] * 3
    refused = [entry["footage"] for entry in events(logged, "footage_refused")]
    assert refused.count(str(big)) == 1
    assert len(refused) == 3
    assert path.exists()


def test_footage_refused_under_other_settings_is_inspected_again_at_start(bench: Bench) -> None:
    bench.record()
    bench.limits = Limits(max_seconds=1)
    stopped = threading.Event()
    stopped.set()
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 10.0)
    assert bench.states() == [State.REFUSED]
    bench.stop = stopped
    bench.intake().run()
    assert bench.states() == [State.REFUSED]
    bench.limits = Limits()
    bench.intake().run()
    assert bench.states() == []
    bench.stop = threading.Event()
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 10.0)
    assert bench.states() == [State.WAITING]


def test_footage_rewritten_under_the_same_name_is_new(bench: Bench) -> None:
    path = bench.record()
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 10.0)
    bench.deliver_all()
    path.unlink()
    path.write_bytes(recording(5, size_bytes=30_000, seed="second"))
    bench.pass_time(intake, 70.0, step=5.0)
    assert bench.states() == [State.DELIVERED, State.WAITING]


def test_only_delivered_footage_that_is_unchanged_is_deleted(bench: Bench) -> None:
    bench.folder = replace(bench.folder, after_delivery="delete")
    delivered, rewritten = bench.record(41), bench.record(42)
    refused = bench.record(name="no time in it.mp4")
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 120.0, step=5.0)
    assert delivered.exists()
    bench.deliver_all()
    waiting = bench.record(43)
    rewritten.unlink()
    rewritten.write_bytes(recording(7, seed="rewritten"))
    with capture_logs() as logged:
        bench.pass_time(intake, 120.0, step=5.0)
    assert [entry["footage"] for entry in events(logged, "footage_deleted")] == [str(delivered)]
    assert not delivered.exists()
    assert all(path.exists() for path in (rewritten, refused, waiting))


def test_footage_that_changes_at_the_last_moment_is_not_deleted(bench: Bench) -> None:
    path = bench.record()
    intake = bench.intake()
    intake._scanners[bench.folder]._delete_delivered(Footage(path, path.stat().st_size, path.stat().st_mtime_ns - 1))
    assert path.exists()


def test_delivered_footage_that_cannot_be_deleted_is_logged_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.folder = replace(bench.folder, after_delivery="delete")
    bench.record()
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 10.0)
    bench.deliver_all()

    def read_only(path: Path, missing_ok: bool = False) -> None:
        raise OSError(30, "Read-only file system")

    with capture_logs() as logged:
        monkeypatch.setattr(Path, "unlink", read_only)
        bench.pass_time(intake, 200.0, step=5.0)
        monkeypatch.undo()
    assert [entry["reason"] for entry in events(logged, "footage_not_deleted")] == ["Read-only file system"]


def test_a_full_spool_leaves_footage_where_it_is_and_is_logged_once(bench: Bench) -> None:
    bench.spool.close()
    bench.settings = replace(bench.settings, max_bytes=30_000)
    bench.spool = Spool(bench.settings, lambda: bench.wall)
    bench.record(41)
    bench.record(45)
    intake = bench.intake()
    with capture_logs() as logged:
        intake.step()
        bench.pass_time(intake, 300.0, step=5.0)
    assert bench.states() == [State.WAITING]
    assert len(events(logged, "spool_full")) == 1
    bench.deliver_all()
    bench.pass_time(intake, 70.0, step=5.0)
    assert bench.states() == [State.DELIVERED, State.WAITING]


def test_a_file_that_vanishes_on_its_way_into_the_spool_does_not_stop_its_batch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [bench.record(second) for second in range(5)]
    content = paths[2].read_bytes()
    take_in_group = bench.spool.take_in_group
    groups: list[int] = []

    def overwritten(group: Sequence[Pieces], alive: Callable[[], None]) -> Sequence[list[Taken] | NotTaken]:
        groups.append(len(group))
        paths[2].unlink(missing_ok=True)
        return take_in_group(group, alive)

    intake = bench.intake()
    with monkeypatch.context() as patch:
        patch.setattr(bench.spool, "take_in_group", overwritten)
        intake.step()
        bench.pass_time(intake, 5.0)
    assert groups == [5]
    assert bench.names() == [path.name for path in paths if path != paths[2]]
    assert bench.taken == 4
    paths[2].write_bytes(content)
    bench.pass_time(intake, 100.0, step=5.0)
    assert bench.names() == [path.name for path in paths]


def test_files_of_a_batch_without_room_are_taken_in_when_there_is_room(bench: Bench) -> None:
    bench.settings = replace(bench.settings, max_bytes=50_000)
    bench.spool.close()
    bench.spool = Spool(bench.settings, lambda: bench.wall)
    for second in range(5):
        bench.record(second)
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 5.0)
    assert bench.states() == [State.WAITING] * 2
    for _ in range(2):
        bench.deliver_all()
        bench.pass_time(intake, 100.0, step=5.0)
    assert bench.states() == [State.DELIVERED] * 4 + [State.WAITING]


@pytest.mark.parametrize("linkable", [True, False])
def test_copying_instead_of_linking_is_logged_once_for_each_folder(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, linkable: bool
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    if not linkable:
        monkeypatch.setattr(os, "link", refuse)
    intake = bench.intake()
    with capture_logs() as logged:
        for number in range(3):
            bench.record(number)
            bench.pass_time(intake, 100.0, step=5.0)
    assert bench.states() == [State.WAITING] * 3
    assert [entry["folder"] for entry in events(logged, "footage_copied")] == ([] if linkable else [str(bench.card)])


def test_an_evicted_copy_is_taken_in_again_when_there_is_room(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    free = 10_000_000_000
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=free))
    monkeypatch.setattr(os, "link", refuse)
    bench.spool.close()
    bench.settings = replace(bench.settings, min_free_bytes=1_000_000)
    bench.spool = Spool(bench.settings, lambda: bench.wall)
    bench.record()
    intake = bench.intake()
    bench.pass_time(intake, 200.0, step=5.0)
    assert bench.states() == [State.WAITING]
    free = 999_999
    with capture_logs() as logged:
        bench.pass_time(intake, 200.0, step=5.0)
    assert bench.states() == []
    assert [entry["lost"] for entry in events(logged, "clip_given_up")] == [False]
    assert len(events(logged, "spool_full")) == 1
    free = 10_000_000_000
    bench.pass_time(intake, 200.0, step=5.0)
    assert bench.states() == [State.WAITING]


def test_files_that_cannot_be_footage_are_logged_once(bench: Bench) -> None:
    (bench.card / "link.mp4").symlink_to("/etc/passwd")
    os.mkfifo(bench.card / "pipe.mp4")
    intake = bench.intake()
    with capture_logs() as logged:
        intake.step()
        bench.pass_time(intake, 200.0, step=5.0)
    assert len(events(logged, "footage_skipped")) == 2
    assert bench.states() == []


def test_names_of_any_bytes_reach_the_ledger(bench: Bench) -> None:
    bench.record(41, name="line\nbreak \udcff/ABC1234X_1_20260728_141441.mp4")
    bench.record(42, name="odd \udcff\n.mp4")
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 10.0)
    assert sorted(bench.states()) == [State.REFUSED, State.WAITING]
    assert bench.names() == ["ABC1234X_1_20260728_141441.mp4", "odd \udcff\n.mp4"]


def test_a_missing_folder_is_logged_once_and_scanned_when_it_appears(bench: Bench) -> None:
    bench.card.rmdir()
    intake = bench.intake()
    with capture_logs() as logged:
        intake.step()
        bench.pass_time(intake, 200.0, step=5.0)
    assert len(events(logged, "folder_missing")) == 1
    bench.record()
    bench.pass_time(intake, 70.0, step=5.0)
    assert bench.states() == [State.WAITING]


def test_waking_the_loop_scans_at_once(bench: Bench) -> None:
    intake = bench.intake()
    intake.step()
    intake._watcher.stop()
    bench.record()
    intake.wake()
    intake._drain_events(0.0)
    intake.step()
    bench.pass_time(intake, 5.0)
    assert bench.states() == [State.WAITING]


def test_the_loop_sends_a_heartbeat_with_each_file(bench: Bench) -> None:
    for second in range(10):
        bench.record(second)
    intake = bench.intake()
    heartbeats: list[int] = []
    intake.step(lambda: heartbeats.append(1))
    assert len(heartbeats) > 10
    heartbeats.clear()
    bench.seconds += 5.0
    intake.step(lambda: heartbeats.append(1))
    assert len(bench.states()) == 10
    assert len(heartbeats) > 10


def test_a_stop_ends_a_scan_early(bench: Bench) -> None:
    for second in range(10):
        bench.record(second)
    intake = bench.intake()
    heartbeats: list[int] = []

    def stop_soon() -> None:
        heartbeats.append(1)
        if len(heartbeats) == 4:
            bench.stop.set()

    intake.run(stop_soon)
    assert len(heartbeats) == 4
    assert bench.states() == []


def test_a_stop_between_batches_ends_the_intake(bench: Bench) -> None:
    for second in range(MAX_FILES + 10):
        bench.record(second)
    intake = bench.intake()
    intake.step()
    bench.seconds += 5.0
    intake._handover.on_taken = bench.stop.set
    intake.step()
    assert len(bench.states()) == MAX_FILES


def open_footage_of(bench: Bench) -> list[Path]:
    """The files on the card that this process has open."""
    places: list[Path] = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            places.append(descriptor.readlink())
    return [place for place in places if place.suffix == ".mp4" and place.is_relative_to(bench.card)]


def test_a_batch_holds_its_files_open_until_it_is_spooled(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    for second in range(MAX_FILES + 10):
        bench.record(second)
    take_in_group = bench.spool.take_in_group
    open_files: list[int] = []

    def count_open(group: Sequence[Pieces], alive: Callable[[], None]) -> Sequence[list[Taken] | NotTaken]:
        open_files.append(len(open_footage_of(bench)))
        return take_in_group(group, alive)

    monkeypatch.setattr(bench.spool, "take_in_group", count_open)
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 5.0)
    assert open_files == [MAX_FILES, 10]
    assert open_footage_of(bench) == []


def test_files_that_are_not_taken_in_are_closed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.record(41, content=WHOLE[: len(WHOLE) // 2])
    bench.record(name="no time in it.mp4")
    writing = bench.record(42)
    is_being_written = OpenFootage.is_being_written
    monkeypatch.setattr(
        OpenFootage, "is_being_written", lambda opened: opened.footage.path == writing or is_being_written(opened)
    )
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 20.0)
    assert bench.states() == [State.REFUSED]
    assert open_footage_of(bench) == []


@pytest.mark.parametrize("ending", [None, SpoolError("the disk failed"), Cancelled()])
def test_files_in_the_batch_are_closed_when_the_intake_ends(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, ending: Exception | None
) -> None:
    for second in range(3):
        bench.record(second)
    intake = bench.intake()
    intake.step()
    bench.seconds += 5.0
    read = FootageReader.read

    def end_at_the_second(reader: FootageReader, *arguments: Any, **options: Any) -> object:
        if len(open_footage_of(bench)) == 2:
            bench.stop.set()
            if ending is not None:
                raise ending
        return read(reader, *arguments, **options)

    monkeypatch.setattr(FootageReader, "read", end_at_the_second)
    with suppress(SpoolError, Cancelled):
        intake.step()
    assert bench.stop.is_set()
    assert bench.states() == []
    assert open_footage_of(bench) == []


def test_a_closed_file_is_taken_at_once(bench: Bench) -> None:
    bench.folder = replace(bench.folder, settle_seconds=3600.0, rescan_seconds=3600.0)
    intake = bench.intake()
    with running(intake, bench.stop):
        await_watch(intake, bench.folder)
        bench.record(content=WHOLE)
        await_until(lambda: bench.states() != [], "the clip")
    assert bench.states() == [State.WAITING]


def test_a_closed_file_that_is_no_whole_mp4_is_refused_at_once(bench: Bench) -> None:
    bench.folder = replace(bench.folder, settle_seconds=3600.0, rescan_seconds=3600.0)
    intake = bench.intake()
    with running(intake, bench.stop):
        await_watch(intake, bench.folder)
        bench.record(content=WHOLE[:10_000])
        await_until(lambda: bench.states() != [], "the refusal")
    assert bench.states() == [State.REFUSED]


def test_an_event_from_a_hidden_folder_is_ignored(bench: Bench) -> None:
    intake = bench.intake()
    intake.step()
    bench.record(41, name=".Trash/ABC1234X_1_20260728_141441.mp4")
    recorded = bench.record(42)

    def tracked_paths() -> list[Path]:
        intake._drain_events(0.0)
        return [footage.path for footage in intake._tracked]

    # Events arrive in order, and this file was recorded last.
    await_until(lambda: recorded in tracked_paths(), "the event of the file that is not hidden")
    assert tracked_paths() == [recorded]


def test_a_burst_of_files_in_new_folders_is_found_completely(bench: Bench) -> None:
    bench.folder = replace(bench.folder, settle_seconds=0.2, rescan_seconds=3600.0)
    stop = bench.stop
    intake = Intake(bench.config, bench.spool, stop, Clock("always", FixedClock(lambda: NOW)))
    with running(intake, stop):
        for second in range(100):
            name = f"trip {second}/cam/ABC1234X_1_20260728_14{second // 60:02d}{second % 60:02d}.mp4"
            bench.record(name=name, content=recording(1, seed=name))
        await_until(lambda: len(bench.states()) == 100, "100 clips")
    assert bench.states() == [State.WAITING] * 100
