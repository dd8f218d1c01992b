"""Failures of cards, folders, inotify limits and watchdog's threads: each clip arrives exactly once.

File events are only hints. Each test makes them fail in one way that happens on devices; a real daemon must deliver all
the same, and log the failure as often as it happened.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import textwrap
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from watchdog.observers import inotify_c

from agent.device.inotify import Inode, watched
from agent.model import ClipKey, Footage, State
from agent.spool.clip_queue import ClipQueue
from agent.spool.records import Record
from simulator.recorder import recording
from simulator.server import Simulator
from tests.conftest import Figure
from tests.support.daemon import DaemonProcess, await_until
from tests.support.mounts import Cards, cards
from tests.support.spooling import add_records

pytestmark = pytest.mark.daemon

__all__ = ["cards"]  # a fixture of this module's tests

START = datetime(2026, 7, 28, 14, 0, 0, tzinfo=timezone.utc)
NO_RESCAN = "rescan_seconds = 3600"
OFTEN = "rescan_seconds = 0.5"
PATIENCE = 120.0


def record(folder: Path, number: int) -> Path:
    """Writes a clip as a recorder does: first its folders, then the file, without a pause."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"ABC1234X_1_{START + timedelta(seconds=2 * number):%Y%m%d_%H%M%S}.mp4"
    path.write_bytes(recording(1.0, seed=str(number)))
    return path


class Bench:
    """A daemon and the API that it delivers to."""

    def __init__(self, place: Path, simulator: Simulator, footage: str) -> None:
        self.simulator = simulator
        self.daemon = DaemonProcess(place, simulator.base_url, {"[footage]": footage})
        self.card = self.daemon.footage

    def limited(self, limit: str, number: int) -> None:
        """Makes the daemon start in its own user namespace, where alone a limit of the kernel is low."""
        lower = f'echo {number} > /proc/sys/user/{limit} && exec "$0" "$@"'
        self.daemon.launcher = ["unshare", "--user", "--map-root-user", "sh", "-c", lower]
        probe = subprocess.run([*self.daemon.launcher, "true"], check=False, capture_output=True, text=True)
        if probe.returncode != 0:
            pytest.skip(f"a user namespace with a limit of its own is not allowed here: {probe.stderr}")

    def raise_limit(self, limit: str, number: int) -> None:
        user = f"--user=/proc/{self.daemon.process.pid}/ns/user"
        lift = f"echo {number} > /proc/sys/user/{limit}"
        subprocess.run(["nsenter", user, "sh", "-c", lift], check=True, capture_output=True)

    def await_delivered(self, count: int) -> None:
        self.daemon.await_records(count, State.DELIVERED, seconds=PATIENCE)

    def assert_each_arrived_once(self, count: int) -> None:
        assert len({video.sha256 for video in self.simulator.received}) == count
        assert len(self.simulator.received) == count
        assert sum(video.updates for video in self.simulator.received) == 0
        assert len(self.daemon.records()) == count

    def told(self, event: str) -> list[dict[str, object]]:
        # The last line may be half written.
        whole = self.daemon.log.rpartition("\n")[0].split("\n")
        lines = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    def await_told(self, event: str, count: int) -> None:
        await_until(lambda: len(self.told(event)) >= count, f"{event} in the log, {count} times", PATIENCE)

    def await_watched(self, directory: Path) -> None:
        """Waits until the kernel lists the directory now at a path as watched by the daemon."""
        process = str(self.daemon.process.pid)
        await_until(lambda: Inode.of(directory) in watched(process), f"a watch on {directory.name}", PATIENCE)


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    """Makes a bench; its daemon is started with `with bench.daemon`."""

    def make(simulator: Simulator, footage: str = OFTEN) -> Bench:
        return Bench(tmp_path, simulator, footage)

    return make


@pytest.mark.slow
def test_an_overflow_of_notifications_makes_the_daemon_scan_and_is_told_once(
    bench: Callable[..., Bench], figure: Figure
) -> None:
    with Simulator() as simulator:
        made = bench(simulator, NO_RESCAN)
        with made.daemon:
            record(made.card, 0)
            made.await_delivered(1)
            # While it is stopped, nothing reads the kernel's queue of events. The files alternate, since the kernel
            # merges an event with an equal one right before it.
            made.daemon.process.send_signal(signal.SIGSTOP)
            await_until(lambda: is_stopped(made.daemon.process.pid), "the daemon to stop", PATIENCE)
            most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
            for number in range(most + 1000):
                with (made.card / f"{number % 2}.tmp").open("wb"):
                    pass
            for number in range(1, 21):
                record(made.card / f"trip-{number % 4}", number)
            made.daemon.process.send_signal(signal.SIGCONT)
            made.await_told("notifications_lost", 1)
            made.await_delivered(21)
        made.assert_each_arrived_once(21)
        assert len(made.told("notifications_lost")) == 1
        assert made.told("library_message") == []
    figure("faults survived: watching, notifications lost by overflow", 1)


@pytest.mark.slow
def test_a_watch_limit_that_is_too_low_at_the_start_is_told_once_with_the_remedy(
    bench: Callable[..., Bench], figure: Figure
) -> None:
    with Simulator() as simulator:
        made = bench(simulator)
        made.limited("max_inotify_watches", 8)
        for number in range(20):
            record(made.card / f"trip-{number}", number)
        with made.daemon:
            made.await_told("folder_not_watched", 1)
            for number in range(20, 40):
                record(made.card / f"trip-{number - 20}", number)
            made.await_delivered(40)
            (told,) = made.told("folder_not_watched")
            assert "fs.inotify.max_user_watches" in str(told["remedy"])
            assert "found by the scan" in str(told["effect"])
            made.raise_limit("max_inotify_watches", 1000)
            made.await_told("folder_watched", 1)
            made.await_watched(made.card / "trip-19")
        made.assert_each_arrived_once(40)
        assert len(made.told("folder_not_watched")) == 1
    figure("faults survived: watching, watch limit at the start", 1)


@pytest.mark.slow
def test_a_watch_limit_reached_at_runtime_is_told_once_and_again_when_it_comes_back(
    bench: Callable[..., Bench], figure: Figure
) -> None:
    with Simulator() as simulator:
        made = bench(simulator)
        made.limited("max_inotify_watches", 8)
        with made.daemon:
            made.await_watched(made.card)
            for number in range(20):
                record(made.card / f"trip-{number}" / "front", number)
            made.await_delivered(20)
            made.await_told("folder_not_watched", 1)
            made.raise_limit("max_inotify_watches", 60)
            made.await_told("folder_watched", 1)
            assert len(made.told("folder_not_watched")) == 1
            for number in range(20, 60):
                record(made.card / f"trip-{number}" / "front", number)
            made.await_delivered(60)
            made.await_told("folder_not_watched", 2)
        made.assert_each_arrived_once(60)
        assert len(made.told("folder_not_watched")) == 2
    figure("faults survived: watching, watch limit at runtime", 2)


@pytest.mark.slow
def test_without_a_single_notification_the_scan_delivers_everything(
    bench: Callable[..., Bench], figure: Figure
) -> None:
    with Simulator() as simulator:
        made = bench(simulator)
        made.limited("max_inotify_instances", 0)
        with made.daemon:
            made.await_told("folder_not_watched", 1)
            for number in range(10):
                record(made.card / f"trip-{number % 3}", number)
            made.await_delivered(10)
            assert watched(str(made.daemon.process.pid)) == frozenset()
        made.assert_each_arrived_once(10)
        assert len(made.told("folder_not_watched")) == 1
    figure("faults survived: watching, no notification at all", 1)


@pytest.mark.slow
def test_a_reinserted_card_is_watched_again_and_nothing_is_sent_twice(
    bench: Callable[..., Bench], cards: Cards, tmp_path: Path, figure: Figure
) -> None:
    with Simulator() as simulator:
        made = bench(simulator)
        cards.put_in(made.card)
        kept = tmp_path / "kept"
        with made.daemon:
            record(made.card / "trip", 1)
            made.await_delivered(1)
            for number in range(2, 6):
                record(made.card / "trip", number)
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(made.card, kept)
                # Pulled at an arbitrary moment of the intake of its last clip.
                cards.pull(made.card)
                if number % 2:
                    made.await_watched(made.card)
                cards.put_in(made.card)
                shutil.copytree(kept, made.card, dirs_exist_ok=True)
                made.await_watched(made.card)
                made.await_watched(made.card / "trip")
                made.await_delivered(number)
        made.assert_each_arrived_once(5)
        assert not made.told("footage_refused")
        assert not made.told("watching_failed")
        assert 4 <= len(made.told("folder_changed")) <= 8
    figure("faults survived: watching, card pulled and put in again", 4)


@pytest.mark.slow
@pytest.mark.parametrize("below", ["", "slot-1"], ids=["over the folder", "over a folder in it"])
def test_a_card_mounted_late_is_watched(bench: Callable[..., Bench], cards: Cards, below: str, figure: Figure) -> None:
    with Simulator() as simulator:
        made = bench(simulator)
        place = made.card / below
        place.mkdir(exist_ok=True)
        with made.daemon:
            record(place, 0)
            made.await_delivered(1)
            cards.put_in(place)
            for number in range(1, 6):
                record(place / "trip", number)
            made.await_watched(place)
            made.await_watched(place / "trip")
            record(place / "trip", 6)
            made.await_delivered(7)
            cards.pull(place)
            made.await_watched(place)
            record(place, 7)
            made.await_delivered(8)
        made.assert_each_arrived_once(8)
        assert not made.told("folder_not_watched")
    figure("faults survived: watching, card mounted late", 1)


@pytest.mark.slow
def test_a_folder_that_is_missing_is_told_once_each_time(bench: Callable[..., Bench], figure: Figure) -> None:
    with Simulator() as simulator:
        made = bench(simulator)
        made.card.rmdir()
        with made.daemon:
            for times in range(1, 4):
                made.await_told("folder_missing", times)
                time.sleep(2.0)  # some scans, each of which finds it missing
                assert len(made.told("folder_missing")) == times
                record(made.card / "trip", times)
                made.await_told("folder_back", times)
                made.await_watched(made.card / "trip")
                made.await_delivered(times)
                shutil.rmtree(made.card)
            made.await_told("folder_missing", 4)
        made.assert_each_arrived_once(3)
        assert len(made.told("folder_back")) == 3
    figure("faults survived: watching, folder deleted or made later", 3)


@pytest.mark.slow
def test_a_folder_renamed_or_replaced_is_watched_at_its_configured_path(
    bench: Callable[..., Bench], figure: Figure
) -> None:
    with Simulator() as simulator:
        made = bench(simulator)
        with made.daemon:
            record(made.card / "trip", 1)
            made.await_delivered(1)
            made.card.rename(made.card.with_name("elsewhere"))
            made.card.mkdir()
            record(made.card.with_name("elsewhere"), 100)
            record(made.card, 2)
            made.await_watched(made.card)
            made.await_delivered(2)
            shutil.rmtree(made.card)
            record(made.card, 3)
            made.await_watched(made.card)
            made.await_delivered(3)
        made.assert_each_arrived_once(3)
    figure("faults survived: watching, folder renamed or replaced", 2)


# The thread that reads from the kernel, in watchdog 7 and 6.
READER = "InotifyFD" if hasattr(inotify_c, "InotifyFD") else "InotifyBuffer"
# Stops the thread of watchdog that a file is named after, when the file is created; not also when it is closed, which
# may be reported only after the thread was replaced. The thread of the kernel's events then lives on for longer than
# the next scan takes to come: watches that it has removed are not watches that the kernel has ended.
KILLERS = """
    import sys, threading, time
    from watchdog.observers import inotify_c
    from agent import cli
    from agent.intake import watcher

    told = watcher._Handler.on_any_event
    reader = getattr(inotify_c, "InotifyFD", None)
    if reader:
        run = reader.run
        reader.run = lambda thread: (run(thread), time.sleep(1.0))

    def on_any_event(handler, event):
        appears = event.event_type == "created"
        if appears and event.src_path.endswith("handler.kill"):
            raise RuntimeError("the handler failed")
        for thread in threading.enumerate():
            if appears and event.src_path.endswith(f"{type(thread).__name__}.kill"):
                thread.stop()
        told(handler, event)

    watcher._Handler.on_any_event = on_any_event
    sys.exit(cli.main())
"""


@pytest.mark.slow
@pytest.mark.parametrize("thread", ["handler", "InotifyObserver", "InotifyEmitter", READER])
def test_a_thread_of_the_watcher_that_dies_is_replaced(
    bench: Callable[..., Bench], thread: str, figure: Figure
) -> None:
    with Simulator() as simulator:
        made = bench(simulator)
        made.daemon.program = ["-c", textwrap.dedent(KILLERS), *made.daemon.program[2:]]
        with made.daemon:
            made.await_watched(made.card)
            for times in range(1, 3):
                (made.card / f"{thread}.kill").touch()
                record(made.card, times)
                made.await_told("watching_failed", times)
                made.await_watched(made.card)
                made.await_delivered(times)
                (made.card / f"{thread}.kill").unlink()
                made.await_told("watching_again", times)
        made.assert_each_arrived_once(2)
        assert len(made.told("watching_failed")) == 2
    figure("faults survived: watching, a thread died", 2)


@pytest.mark.slow
def test_each_clip_of_a_burst_of_new_folders_is_delivered_once(bench: Callable[..., Bench], figure: Figure) -> None:
    with Simulator() as simulator:
        made = bench(simulator, NO_RESCAN)
        with made.daemon:
            made.await_watched(made.card)
            for number in range(200):
                record(made.card / f"2026-07-{number % 28}" / f"trip-{number}" / "front", number)
            made.await_delivered(200)
        made.assert_each_arrived_once(200)
    figure("faults survived: watching, clips written into new folders at once", 200)


@pytest.mark.slow
def test_a_minute_with_20000_known_files_costs_less_than_6_plain_walks(
    bench: Callable[..., Bench], figure: Figure
) -> None:
    """On a developer's computer, 6 walks take a hundredth of a core."""
    seconds, files = 60.0, 20_000
    with Simulator() as simulator:
        made = bench(simulator, "rescan_seconds = 60")
        fill(made, files)
        with made.daemon:
            await_until(lambda: is_idle(made.daemon.process.pid), "the end of the first scan", PATIENCE)
            memory = made.daemon.peak_memory_bytes()
            before = cpu_seconds(made.daemon.process.pid)
            time.sleep(seconds)
            used = cpu_seconds(made.daemon.process.pid) - before
        assert simulator.received == []
        assert len(made.daemon.records(State.DELIVERED)) == files
    figure("idle: files watched", files, most=True)
    figure("idle: % of one core over 60 s", 100 * used / seconds, most=True)
    figure("idle: peak memory in MB", memory / 1e6, most=True)
    assert used < 6 * min(seconds_of_a_walk(made.card) for _ in range(3))


def seconds_of_a_walk(folder: Path) -> float:
    """The CPU time of this process for walking a folder and reading the attributes of each file."""
    before = time.process_time()
    for place, _, names in os.walk(folder):
        for name in names:
            os.stat(os.path.join(place, name))  # noqa: PTH116, PTH118  # as cheap as it can be
    return time.process_time() - before


def fill(bench: Bench, files: int) -> None:
    """Writes footage, and a ledger in which all of it is delivered."""
    (bench.daemon.spool / "clips").mkdir(parents=True, mode=0o700)
    records = []
    for number in range(files):
        folder = bench.card / f"trip-{number // 100}"
        folder.mkdir(exist_ok=True)
        start = START + timedelta(seconds=2 * number)
        path = folder / f"ABC1234X_1_{start:%Y%m%d_%H%M%S}.mp4"
        path.write_bytes(b"footage")
        video = ClipKey("ABC1234X", 1, start, start + timedelta(seconds=1))
        footage = Footage.from_stat(path, path.stat())
        records.append(Record(0, State.DELIVERED, footage, video, None, due=time.time()))
    queue = ClipQueue(bench.daemon.spool, bench.daemon.spool / "clips", time.time)
    add_records(queue, records)
    queue.close()


def cpu_seconds(pid: int) -> float:
    """User and system CPU time of a process (proc(5), /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def is_idle(pid: int) -> bool:
    before = cpu_seconds(pid)
    time.sleep(2.0)
    return cpu_seconds(pid) - before < 0.02


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped each of its threads (proc(5), state T)."""
    states = [
        task.joinpath("stat").read_text().rpartition(")")[2].split()[0] for task in Path(f"/proc/{pid}/task").iterdir()
    ]
    return set(states) == {"T"}
