"""The agent's client in a process of its own, which sends batches and reports their cost.

Reads and writes one line of JSON per batch list, until the input ends. Starting the process is not measured.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import TracebackType
from typing import Literal

from agent.config import Api, Secret
from agent.model import ClipKey, Upload
from agent.vision.client import VisionClient

Encoding = Literal["json", "multipart"]
START = datetime(2026, 7, 28, 12, tzinfo=timezone.utc)


@dataclass(frozen=True, slots=True)
class Cost:
    """The cost of sending: wall-clock seconds, and CPU seconds of the sending process."""

    seconds: float
    cpu_seconds: float


def uploads(files: list[Path]) -> list[Upload]:
    """The files as consecutive clips of one camera."""
    made = []
    for number, file in enumerate(files):
        start = START + timedelta(minutes=number)
        stat = file.stat()
        video = ClipKey("ABC1234X", 1, start, start + timedelta(minutes=1))
        made.append(Upload(number + 1, video, "", file, stat.st_size, stat.st_mtime_ns))
    return made


class Sender:
    """The process, seen from the benchmark.

    Args:
        base_url, ca_file: of the sink.
    """

    def __init__(self, base_url: str, ca_file: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.sender", base_url, str(ca_file)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.communicate()

    def send(self, batches: list[list[Path]], encoding: Encoding) -> Cost:
        """Send each batch in one request, all over one new connection."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"batches": [[str(file) for file in batch] for batch in batches], "encoding": encoding}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the sender ended"
        return Cost(**json.loads(answer))


def main() -> None:
    base_url, ca_file = sys.argv[1:]
    client = VisionClient(Api(base_url, "bench", Secret("bench"), ca_file=Path(ca_file)))
    for line in sys.stdin:
        order = json.loads(line)
        batches = [uploads([Path(file) for file in batch]) for batch in order["batches"]]
        started, before = time.monotonic(), os.times()
        for batch in batches:
            client.upload_bulk(batch, encoding=order["encoding"])
        after = os.times()
        cpu_seconds = after.user + after.system - before.user - before.system
        print(json.dumps({"seconds": time.monotonic() - started, "cpu_seconds": cpu_seconds}), flush=True)
        client.close()


if __name__ == "__main__":
    main()
