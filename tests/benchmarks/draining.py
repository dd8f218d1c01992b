"""Draining 10,000 waiting clips of 20 KB, twenty in a request, against curl sending the same in the same batches."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from agent.clip import State
from agent.spool.ledger import open_ledger
from tests.benchmarks import curl
from tests.benchmarks.daemon import MeasuredDaemon
from tests.benchmarks.figures import Figure, at_least, ratio
from tests.benchmarks.sink import Served, Sink, sink
from tests.benchmarks.stock import Stock
from tests.support.daemon import await_until

CLIPS = 10_000
CLIPS_A_REQUEST = 20


def measure(rounds: int) -> Iterable[Figure]:
    clips = CLIPS if rounds > 1 else CLIPS // 5
    ours, script, bare = [], [], []
    for _ in range(rounds):
        with sink() as api, tempfile.TemporaryDirectory(prefix="vision-ingest-draining-") as directory:
            batches = _drain(Path(directory), api, clips)
            sent = len(api.uploads())
            ours.append(_rate(api.uploads(), clips))
            curl.send_forms(api, batches)
            bare.append(_rate(api.uploads()[sent:], clips))
            sent = len(api.uploads())
            few = batches[: len(batches) // 5]  # it is slow, and equally so from the first to the last
            curl.send_forms(api, few, one_process=False)
            script.append(_rate(api.uploads()[sent:], len(few) * CLIPS_A_REQUEST))
    goal = at_least(0.8)
    yield ratio(
        f"drain of {clips:,} clips of 20 KB", ours, script, unit="clips/s", peer="one curl a request", goal=goal
    )
    yield ratio(
        "the same against one connection",
        ours,
        bare,
        unit="clips/s",
        peer="one curl without a queue",
        goal=goal,
    )


def _drain(place: Path, api: Sink, clips: int) -> list[list[Path]]:
    """Lets the daemon deliver everything.

    Returns:
        The same files, in the same batches.
    """
    daemon = MeasuredDaemon(place, api)
    Stock(daemon.spool, daemon.footage).waiting(clips)
    kept = place / "kept"
    shutil.copytree(daemon.spool / "clips", kept, copy_function=os.link)
    with daemon:
        await_until(lambda: _is_empty(daemon.spool), "all clips have left", 600)
    files = sorted(kept.iterdir())
    return [files[at : at + CLIPS_A_REQUEST] for at in range(0, len(files), CLIPS_A_REQUEST)]


def _is_empty(spool: Path) -> bool:
    with open_ledger(spool) as ledger:
        tallies = ledger.tallies()
    return not tallies[State.WAITING].clips and not tallies[State.SENDING].clips


def _rate(uploads: Sequence[Served], clips: int) -> float:
    """Clips a second, from the first byte of the first upload of a drain to the end of the last."""
    return clips / (uploads[-1].ended - uploads[0].began)
