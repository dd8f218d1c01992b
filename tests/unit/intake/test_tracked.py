"""The states of a file on its way into the spool; no file, no clock."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.config import FootageFolder
from agent.errors import FootageGone, FootageRefused, SpoolFull
from agent.intake.conformer import ConformResult
from agent.intake.tracked import NEVER, FileState, Tracked
from agent.model import Footage

FOOTAGE = Footage(Path("/card/a.mp4"), 1_000, 1)
FOLDER = FootageFolder(Path("/card"), settle_seconds=5.0, rescan_seconds=60.0)


def found(*, closed: bool = False, settle_seconds: float = 5.0) -> Tracked:
    return Tracked.found(replace(FOLDER, settle_seconds=settle_seconds), FOOTAGE, closed=closed, now=100.0)


def conform_result(trouble: FootageRefused | FootageGone | SpoolFull | None = None) -> ConformResult:
    return ConformResult(FOOTAGE, (), trouble, Path("/spool/work/a"))


def test_a_file_is_due_after_settle_seconds_without_a_change() -> None:
    assert (found().state, found().check_at) == (FileState.SETTLING, 105.0)


def test_seeing_it_unchanged_does_not_prolong_the_wait() -> None:
    assert found().observe(closed=False, now=103.0) == found()


def test_a_closed_file_is_due_at_once() -> None:
    assert found(closed=True).check_at == 100.0
    assert found().observe(closed=True, now=101.0).check_at == 101.0


def test_a_scan_does_not_take_back_a_close() -> None:
    assert found(closed=True).observe(closed=False, now=101.0).closed


def test_a_file_that_is_not_finished_is_checked_again_as_if_never_closed() -> None:
    postponed = found(closed=True).postpone(now=110.0)
    assert not postponed.closed
    assert postponed.check_at == 115.0
    assert postponed.observe(closed=True, now=111.0).check_at == 111.0


def test_an_incomplete_file_is_abandoned_after_the_grace_or_when_closed() -> None:
    assert not found().is_abandoned(now=129.9)
    assert found().is_abandoned(now=130.0)
    assert found(closed=True).is_abandoned(now=100.0)


def test_postponing_does_not_start_the_grace_again() -> None:
    assert found().postpone(now=129.0).is_abandoned(now=130.0)


def test_without_a_settling_time_an_unfinished_file_still_gets_time_and_no_busy_loop() -> None:
    postponed = found(closed=True, settle_seconds=0.0).postpone(now=100.0)
    assert postponed.check_at == 101.0
    assert not postponed.is_abandoned(now=105.9)


@pytest.mark.parametrize("tracked", [found().ready(), found().conforming()])
def test_no_event_makes_a_file_due_while_somebody_else_has_it(tracked: Tracked) -> None:
    assert tracked.check_at == NEVER
    assert tracked.observe(closed=True, now=101.0) == tracked


def test_the_result_of_the_conformer_is_due_at_once() -> None:
    done = found().conforming().conform_done(conform_result(), now=200.0)
    assert (done.state, done.check_at) == (FileState.READY, 200.0)


def test_without_room_a_file_as_it_is_settles_again() -> None:
    waiting = found().ready().wait_for_room(now=200.0)
    assert (waiting.state, waiting.check_at) == (FileState.SETTLING, 260.0)


@pytest.mark.parametrize("trouble", [None, FootageRefused("no room even to list this")])
def test_without_room_for_its_result_the_conformer_is_not_asked_again(trouble: FootageRefused | None) -> None:
    done = found().conforming().conform_done(conform_result(trouble), now=200.0)
    waiting = done.ready().wait_for_room(now=201.0)
    assert (waiting.state, waiting.conformed, waiting.check_at) == (FileState.READY, done.conformed, 261.0)


def test_without_room_to_conform_it_the_conformer_is_asked_again_later() -> None:
    done = found().conforming().conform_done(conform_result(SpoolFull("the disk is full")), now=200.0)
    waiting = done.wait_for_room(now=200.0)
    assert (waiting.state, waiting.conformed, waiting.check_at) == (FileState.SETTLING, None, 260.0)


def test_waiting_for_room_does_not_start_the_grace_of_an_incomplete_file_again() -> None:
    assert found(closed=True).ready().wait_for_room(now=101.0).is_abandoned(now=161.0)
    assert found().ready().wait_for_room(now=131.0).is_abandoned(now=191.0)
