"""Kills the real daemon repeatedly while footage keeps arriving, and compares its ledger with what the API received."""

from __future__ import annotations

import collections
import hashlib
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType

from agent.model import State
from agent.spool.queries import DATABASE
from agent.spool.records import Record
from simulator.faults import Fault
from simulator.recorder import recording
from simulator.server import Simulator
from tests.support.daemon import DaemonProcess, await_until

# The system calls that change what a power cut or a kill can leave behind.
WRITES = "fsync,fdatasync,rename,link,linkat,mkdir,unlink,pwrite64,ftruncate,sendfile"
EVENTS = ("started", "clip_waiting", "clip_delivered", "batch_sent")
BATCH_CLIPS = 6
START = datetime(2026, 7, 1, tzinfo=timezone.utc)
# How long a daemon may take, on a busy machine, to come to the instant at which it is to be killed.
PATIENCE_SECONDS = 120.0


class KilledDaemon(DaemonProcess):
    """A daemon that may be killed before it has started."""

    def launch(self, *tracer: str) -> None:
        """Starts it.

        Args:
            tracer: a command that runs the daemon.
        """
        command = [*tracer, sys.executable, *self.program]
        with self.log_file.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log, env=self.environ)


class KillRounds:
    """A spool, a camera, an API, and a daemon that is killed at the end of each round.

    Args:
        place: an empty directory for footage and log.
        spool: the spool's directory; on another file system than `place`, footage is copied instead of linked.
        rng: chooses footage and times.
    """

    def __init__(self, place: Path, spool: Path, simulator: Simulator, rng: random.Random) -> None:
        self._simulator = simulator
        self._rng = rng
        self._daemon = KilledDaemon(
            place,
            simulator.base_url,
            {
                "spool": f'directory = "{spool}"',
                "[footage]": "settle_seconds = 0.1",
                "upload": f"batch_clips = {BATCH_CLIPS}\nlinger_seconds = 0.05",
            },
        )
        self._daemon.spool = spool
        # By the clips' start: a row that was made anew from a stored file knows no other name.
        self._sums: dict[datetime, str] = {}
        self._kills_in_flight: collections.Counter[datetime] = collections.Counter()
        self.kills: collections.Counter[str] = collections.Counter()

    def __enter__(self) -> KillRounds:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._daemon.__exit__(kind, error, trace)

    @property
    def clips(self) -> int:
        return len(self._sums)

    @property
    def lost(self) -> int:
        """Number of clips that have not arrived."""
        return len(set(self._sums.values()) - {video.sha256 for video in self._simulator.received})

    @property
    def sent_again(self) -> int:
        return sum(video.updates for video in self._simulator.received)

    def random_round(self) -> None:
        """Some footage, possibly a bad link, and a kill of a random kind at a random time."""
        self._simulator.faults.clear()
        self._film(self._rng.randrange(3))
        chance = self._rng.random()
        if chance < 0.3:
            rate = self._rng.randrange(50_000, 1_000_000)
            self._simulator.faults.add(Fault("slow", times=0, path="upload", bytes_per_second=rate))
        elif chance < 0.4:
            self._simulator.faults.add(Fault("drop", seconds=0.3, path="upload"))
        kind = self._rng.choice([self._at_a_time, self._at_an_event, self._in_an_upload])
        self._daemon.launch()
        self._film(self._rng.randrange(1, 5))
        kind()
        self._daemon.stop(signal.SIGKILL)
        assert self._daemon.process.returncode == -signal.SIGKILL, self._daemon.log
        self._killed(kind.__name__.strip("_").replace("_", " "))

    def system_call_round(self, call: str, count: int) -> bool:
        """A kill at the entry of one system call, the same in every run.

        Args:
            call: of WRITES.
            count: which call of that kind in a thread, from 1.

        Returns:
            Whether the daemon reached that call before it had delivered everything.
        """
        self._simulator.faults.clear()
        self._film(1)
        # -D: the tracer is the child and the daemon the process that is started here, for signals to reach it.
        inject = f"{call}:signal=SIGKILL:when={count}"
        self._daemon.launch(
            "strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={inject}"
        )
        process = self._daemon.process
        self._await(lambda: process.poll() is not None or self._is_all_delivered())
        if process.poll() is None and self._is_all_delivered():
            self._daemon.stop()
            return False
        assert process.wait() == -signal.SIGKILL, self._daemon.log
        self._killed("at a system call that writes")
        return True

    def finish(self) -> None:
        """Let the daemon deliver the rest, then check everything."""
        self._simulator.faults.clear()
        self._daemon.start()
        self._await(self._is_all_delivered)
        status = self._daemon.command("status")
        assert status.returncode == 0, status.stdout
        self._daemon.stop()
        self._check()
        assert {record.state for record in self._daemon.records()} == {State.DELIVERED}
        assert len(self._daemon.records()) == self.clips
        assert {video.sha256 for video in self._simulator.received} == set(self._sums.values())
        assert list((self._daemon.spool / "clips").iterdir()) == []

    def status_while_dead(self) -> None:
        """Without a daemon, `status` shows what the ledger holds."""
        if not self._daemon.records():
            return
        status = self._daemon.command("status")
        assert status.returncode == 1
        assert "not running" in status.stdout
        for state, count in collections.Counter(record.state for record in self._daemon.records()).items():
            (line,) = (line for line in status.stdout.splitlines() if line.strip().startswith(state.value))
            assert line.split()[1] == f"{count:,}"

    def _film(self, count: int) -> None:
        for _ in range(count):
            start = START + timedelta(minutes=self.clips)
            name = f"ABC1234X_1_{start:%Y%m%d_%H%M%S}.mp4"
            data = recording(1.0, size_bytes=self._rng.randrange(10_000, 60_000), seed=name)
            folder = self._daemon.footage / f"trip-{self.clips // 20}"
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(data)
            self._sums[start] = hashlib.sha256(data).hexdigest()

    def _at_a_time(self) -> None:
        time.sleep(self._rng.uniform(0.0, 1.5))

    def _at_an_event(self) -> None:
        event, count = self._rng.choice(EVENTS), self._rng.randrange(1, 4)
        words = f'"event": "{event}"'
        # An event that does not come so often in this round is one at which nothing is going on.
        self._await(lambda: self._daemon.log.count(words) >= count or self._is_all_delivered())
        time.sleep(self._rng.uniform(0.0, 0.02))

    def _in_an_upload(self) -> None:
        before = len(self._simulator.requests)
        least = self._rng.randrange(1, 100_000)
        self._await(lambda: self._uploaded_since(before) >= least or self._is_all_delivered())
        time.sleep(self._rng.choice((0.0, 0.0, self._rng.uniform(0.0, 0.02))))

    def _uploaded_since(self, request: int) -> int:
        return sum(logged.body_bytes for logged in self._simulator.requests[request:])

    def _is_all_delivered(self) -> bool:
        return len(self._daemon.records(State.DELIVERED)) == self.clips

    def _await(self, condition: Callable[[], bool]) -> None:
        try:
            await_until(condition, "the instant of the kill, or the delivery", PATIENCE_SECONDS)
        except AssertionError as exc:
            raise AssertionError(f"{exc}\n{self._daemon.log[-4000:]}") from None

    def _killed(self, how: str) -> None:
        self.kills[how] += 1
        self._kills_in_flight.update(_start(record) for record in self._daemon.records(State.SENDING))
        self._check()

    def _check(self) -> None:
        """Check the invariants that hold whenever no daemon runs."""
        database = self._daemon.spool / DATABASE
        if not database.exists():
            return
        connection = sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True)
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        connection.close()
        received = collections.Counter({video.sha256: 1 + video.updates for video in self._simulator.received})
        for record in self._daemon.records():
            assert record.state in (State.WAITING, State.SENDING, State.DELIVERED), record
            if record.state is State.DELIVERED:
                assert received[self._sums[_start(record)]] >= 1, f"delivered, but not received: {record}"
            else:
                assert self._has_bytes(record), f"neither delivered nor there: {record}"
        for start, sha256 in self._sums.items():
            allowed = 1 + self._kills_in_flight[start]
            assert received[sha256] <= allowed, f"{start} came {received[sha256]} times, {allowed} explained"

    def _has_bytes(self, record: Record) -> bool:
        assert record.stored is not None
        stored = self._daemon.spool / "clips" / record.stored.name
        return hashlib.sha256(stored.read_bytes()).hexdigest() == self._sums[_start(record)]


def _start(record: Record) -> datetime:
    assert record.key is not None, record
    return record.key.start
