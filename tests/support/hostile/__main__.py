"""`python -m tests.support.hostile READER COUNT SEED`: many inputs in a process with limited memory and CPU time.

Prints the outcome as JSON. An error that the reader does not document ends it, with the number of the input.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.support.hostile.readers import READERS, Feed

MEMORY_BYTES = 192 << 20
CPU_SECONDS = 600


@dataclass(slots=True)
class Outcome:
    """The outcome of many inputs.

    Args:
        slowest_seconds: CPU time of the slowest input.
        slowest: the number of that input.
        reference_seconds: CPU time of a fixed piece of work on this machine.
        peak_bytes: peak resident memory.
        outcomes: how many inputs ended in each way.
    """

    slowest_seconds: float = 0.0
    slowest: int = -1
    reference_seconds: float = 0.0
    peak_bytes: int = 0
    outcomes: dict[str, int] = field(default_factory=dict)


def reference_seconds() -> float:
    """CPU time of a fixed piece of work, some 20 ms on the computer of a developer: the unit for limits on CPU time."""

    def work() -> float:
        begin = time.process_time()
        found: dict[int, str] = {}
        for number in range(150_000):
            found[number % 1000] = str(number)
        return time.process_time() - begin

    return min(work() for _ in range(5))


def feed_many(feed: Feed, reader: str, count: int, seed: int) -> Outcome:
    outcome = Outcome(reference_seconds=reference_seconds())
    for number in range(count):
        rng = random.Random(f"{seed} {reader} {number}")
        begin = time.process_time()
        try:
            ended = feed(rng)
        except BaseException:
            print(f"{reader}: input {number} of seed {seed}", file=sys.stderr)
            raise
        took_seconds = time.process_time() - begin
        if took_seconds > outcome.slowest_seconds:
            outcome.slowest_seconds, outcome.slowest = took_seconds, number
        outcome.outcomes[ended] = outcome.outcomes.get(ended, 0) + 1
    outcome.peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return outcome


def main(reader: str, count: int, seed: int) -> None:
    faulthandler.register(signal.SIGXCPU, chain=True)
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    threading.stack_size(1 << 20)  # a thread reserves address space that it never uses
    used_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used_bytes + MEMORY_BYTES, used_bytes + MEMORY_BYTES))
    with tempfile.TemporaryDirectory(prefix="hostile-") as place, READERS[reader](Path(place)) as feed:
        print(json.dumps(asdict(feed_many(feed, reader, count, seed))))


if __name__ == "__main__":
    try:
        main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    except Exception:  # noqa: BLE001  # printed; a thread of a server must not keep the process alive
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
