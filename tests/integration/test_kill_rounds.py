"""SIGKILL at random and at exact instants: every clip is delivered, and only clips in flight are sent twice."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from simulator.server import Simulator
from tests.conftest import Figure
from tests.support.chance import chance
from tests.support.kill_rounds import WRITES, KillRounds
from tests.support.requirements import needs

pytestmark = pytest.mark.daemon

RANDOM_ROUNDS = int(os.environ.get("KILL_ROUNDS", "240"))
# At most so many calls of one kind are tried. One clip causes fewer of all kinds but pwrite64.
MOST_CALLS = 40


@pytest.fixture(params=["linked", "copied"])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A spool on the file system of the footage, and one on another, to which footage must be copied."""
    if request.param == "linked":
        yield tmp_path / "spool"
        return
    other = Path(tempfile.mkdtemp(prefix="vision-ingest-test-", dir="/dev/shm"))
    assert other.stat().st_dev != tmp_path.stat().st_dev
    yield other / "spool"
    shutil.rmtree(other)


@pytest.mark.slow
@pytest.mark.parametrize("part", [1, 2])
def test_kills_at_random_instants_lose_nothing_and_repeat_only_what_was_in_flight(
    tmp_path: Path, spool: Path, part: int, figure: Figure, request: pytest.FixtureRequest
) -> None:
    with Simulator() as simulator, KillRounds(tmp_path, spool, simulator, chance(request.node.name)) as rounds:
        for number in range(RANDOM_ROUNDS // 4):
            rounds.random_round()
            if number % 10 == 0:
                rounds.status_while_dead()
        rounds.finish()
        tell(rounds, figure)


@pytest.mark.slow
def test_kills_at_every_writing_call_lose_nothing_and_repeat_only_clips_in_flight(
    tmp_path: Path, spool: Path, figure: Figure
) -> None:
    needs("strace")
    with Simulator() as simulator, KillRounds(tmp_path, spool, simulator, chance("system calls")) as rounds:
        for call in WRITES.split(","):
            for count in range(1, MOST_CALLS + 1):
                if not rounds.system_call_round(call, count):
                    break
        rounds.finish()
        tell(rounds, figure)


def tell(rounds: KillRounds, figure: Figure) -> None:
    figure("kill rounds", sum(rounds.kills.values()))
    figure("clips recorded and sent", rounds.clips)
    figure("clips lost", rounds.lost)
    figure("clips sent again after a kill or power cut", rounds.sent_again)
    for how, count in rounds.kills.items():
        figure(f"kill rounds: {how}", count)
