"""Draining 10,000 waiting clips of 20 KB, 20 and 100 per request, compared with curl sending the same requests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.model import State
from agent.spool.queries import open_ledger
from tests.benchmarks import curl
from tests.benchmarks.daemon import MeasuredDaemon
from tests.benchmarks.figures import Figure, at_least, ratio
from tests.benchmarks.sink import Served, Sink, sink
from tests.benchmarks.stock import Stock
from tests.support.daemon import await_until

CLIPS = 10_000
# The default of upload.batch_clips, and the most that the API takes.
CLIPS_A_REQUEST = (20, 100)


@dataclass(frozen=True, slots=True)
class Rates:
    """Clips per second in one round: the daemon, a script that starts curl for each request, and bare curl.

    Bare curl is one process that knows all requests beforehand, keeps one connection, and records nothing.
    """

    daemon: float
    script: float
    bare: float


def measure(rounds: int) -> Iterable[Figure]:
    clips = CLIPS if rounds > 1 else CLIPS // 5
    goal = at_least(0.8)
    for size in CLIPS_A_REQUEST:
        found = [_round(clips, size) for _ in range(rounds)]
        ours = [rates.daemon for rates in found]
        script = [rates.script for rates in found]
        bare = [rates.bare for rates in found]
        name = f"drain of {clips:,} clips of 20 KB, {size} a request"
        yield ratio(name, ours, script, unit="clips/s", peer="one curl a request", goal=goal)
        yield ratio("the same", ours, bare, unit="clips/s", peer="one curl without a queue", goal=goal)


def _round(clips: int, size: int) -> Rates:
    with sink() as api, tempfile.TemporaryDirectory(prefix="vision-ingest-draining-") as directory:
        batches = _drain(Path(directory), api, clips, size)
        sent = len(api.uploads())
        daemon = _rate(api.uploads(), clips)
        curl.send_forms(api, batches)
        bare = _rate(api.uploads()[sent:], clips)
        sent = len(api.uploads())
        few = batches[: len(batches) // 5]  # it is slow, and equally so from the first to the last
        curl.send_forms(api, few, one_process=False)
        return Rates(daemon, _rate(api.uploads()[sent:], len(few) * size), bare)


def _drain(place: Path, api: Sink, clips: int, size: int) -> list[list[Path]]:
    """Let the daemon deliver everything.

    Returns:
        The same files, in the same batches.
    """
    daemon = MeasuredDaemon(place, api, {"upload": f"batch_clips = {size}"})
    Stock(daemon.spool, daemon.footage).waiting(clips)
    kept = place / "kept"
    shutil.copytree(daemon.spool / "clips", kept, copy_function=os.link)
    with daemon:
        # To ask the queue itself all the time would take a part of the machine from the daemon, and not from curl.
        await_until(lambda: len(api.uploads()) >= clips // size, "all clips have been sent", 600)
        await_until(lambda: _is_empty(daemon.spool), "all clips have left", 60)
    assert len(api.uploads()) == clips // size
    files = sorted(kept.iterdir())
    return [files[at : at + size] for at in range(0, len(files), size)]


def _is_empty(spool: Path) -> bool:
    with open_ledger(spool) as ledger:
        tallies = ledger.counts()
    return not tallies[State.WAITING].clips and not tallies[State.SENDING].clips


def _rate(uploads: Sequence[Served], clips: int) -> float:
    """Clips per second, from the first byte of the first upload to the end of the last."""
    return clips / (uploads[-1].ended - uploads[0].began)
