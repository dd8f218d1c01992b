"""A real daemon process for integration tests, and what they query."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from agent.errors import SpoolError
from agent.model import State
from agent.spool.queries import open_ledger
from agent.spool.records import Record

PASSWORD = "bench"

# More than a busy machine needs, and less than a test may take at most.
PATIENCE_SECONDS = 100.0

Self = TypeVar("Self", bound="DaemonProcess")  # typing.Self is not in Python 3.10


def await_until(condition: Callable[[], bool], what: str, seconds: float = PATIENCE_SECONDS) -> None:
    """Wait until a condition holds; fail the test with a description of the condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds:g} s in vain for: {what}")
        time.sleep(0.02)


def await_records(
    find: Callable[[], list[Record]], count: int, *states: State, seconds: float = PATIENCE_SECONDS
) -> list[Record]:
    """Wait until at least `count` clips are found; return them as they were then."""
    found: list[Record] = []

    def are_there() -> bool:
        found[:] = find()
        return len(found) >= count

    await_until(are_there, f"{count} clips that are {', '.join(state.value for state in states)}", seconds)
    return found


class DaemonProcess:
    """`vision-ingest run` as a process.

    Args:
        place: an empty directory for everything.
        base_url: of the API.
        more: TOML lines by section; they replace defaults with the same key.
    """

    def __init__(self, place: Path, base_url: str, more: dict[str, str] | None = None) -> None:
        self.place = place
        self.footage = place / "footage"
        self.spool = place / "spool"
        self.log_file = place / "daemon.log"
        self.config = place / "config.toml"
        self.program = ["-m", "agent.cli", "run", "--config", str(self.config)]
        self.footage.mkdir(exist_ok=True)
        self.environ = os.environ | {"VISION_INGEST_PASSWORD": PASSWORD}
        # A command that a test puts before the program's own.
        self.launcher: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self.write_config(base_url, more or {})

    def write_config(self, base_url: str, more: dict[str, str]) -> None:
        sections = {
            "api": f'base_url = "{base_url}"\nusername = "bench"',
            "[footage]": f'path = "{self.footage}"\nsettle_seconds = 0.5\nrescan_seconds = 2',
            "spool": f'directory = "{self.spool}"\nmax_bytes = "4 GB"\nmin_free_bytes = 0',
            "upload": "linger_seconds = 0.2",
            # The test machine's clock need not be synchronised; what that means for clips has tests of its own.
            "clock": 'trust = "always"',
            "log": 'format = "json"\nlevel = "debug"',
        }
        sections |= {name: _overridden(sections.get(name, ""), lines) for name, lines in more.items()}
        text = "\n\n".join(f"[{name}]\n{lines}" for name, lines in sections.items())
        self.config.write_text(text)

    def __enter__(self: Self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None and self._process.poll() is None:
            self.stop()

    @property
    def process(self) -> subprocess.Popen[bytes]:
        assert self._process is not None
        return self._process

    def start(self) -> None:
        started = self._starts()
        with self.log_file.open("ab") as log:
            command = [*self.launcher, sys.executable, *self.program]
            self._process = subprocess.Popen(command, stderr=log, env=self.environ)
        await_until(
            lambda: self._starts() > started or self.process.poll() is not None,
            "the start-up line",
        )
        assert self.process.poll() is None, self.log

    def stop(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait(timeout=PATIENCE_SECONDS)

    def _starts(self) -> int:
        """How often it has started according to the log, in any format."""
        return len(re.findall(r'"event": "started"|(?:<6>|\] )started ', self.log))

    @property
    def log(self) -> str:
        return self.log_file.read_text() if self.log_file.exists() else ""

    def records(self, *states: State) -> list[Record]:
        try:
            with open_ledger(self.spool) as ledger:
                return list(ledger.records(states))
        except SpoolError:
            return []

    def await_records(self, count: int, *states: State, seconds: float = PATIENCE_SECONDS) -> list[Record]:
        """Wait until at least `count` clips are in these states; return them as they were then."""
        return await_records(lambda: self.records(*states), count, *states, seconds=seconds)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run another command with the same configuration."""
        return subprocess.run(
            [sys.executable, "-m", "agent.cli", arguments[0], "--config", str(self.config), *arguments[1:]],
            capture_output=True,
            text=True,
            env=self.environ,
            timeout=PATIENCE_SECONDS,
            check=False,
        )

    def peak_memory_bytes(self) -> int:
        """The process's largest resident set so far (VmHWM, proc(5))."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _overridden(lines: str, by: str) -> str:
    """TOML lines; later lines replace earlier ones with the same key."""
    keys = {line.split(" = ")[0]: line for line in [*lines.splitlines(), *by.splitlines()] if line}
    return "\n".join(keys.values())
