"""A disk that is full or fails: a real small filesystem, and each system call that can fail."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.config import SpoolSettings
from agent.device.safe_open import open_footage
from agent.errors import SpoolError, SpoolFull
from agent.model import State, Verdict
from agent.spool import Spool
from tests.support.faults import fill, small_disk
from tests.support.spooling import Clock, claim, make_clip, stored, take, take_all, take_in


def failing(number: int) -> Callable[..., int]:
    def call(*_: object, **__: object) -> int:
        raise OSError(number, os.strerror(number))

    return call


@pytest.mark.parametrize("call", ["link", "fsync", "open"])
def test_no_space_for_a_link_or_its_sync_is_spool_full_not_a_failure(
    spool: Spool, settings: SpoolSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    clip = make_clip(tmp_path / "footage", 1)
    with open_footage(clip.footage.path) as opened:
        monkeypatch.setattr(os, call, failing(errno.ENOSPC))
        with pytest.raises(SpoolFull):
            take_in(spool, [(clip, opened)])
    monkeypatch.undo()
    assert list(spool.ledger.records()) == []
    assert take(spool, clip).state is State.WAITING
    assert len(stored(settings)) == 1


@pytest.mark.parametrize("call", ["sendfile", "fsync", "utime"])
def test_no_space_for_a_copy_is_spool_full_not_a_failure(
    spool: Spool, settings: SpoolSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    clip = make_clip(tmp_path / "footage", 1)
    monkeypatch.setattr(os, "link", failing(errno.EXDEV))
    monkeypatch.setattr(os, call, failing(errno.ENOSPC))
    with pytest.raises(SpoolFull):
        take(spool, clip)
    assert stored(settings) == []


def test_a_failed_sync_is_fatal_and_keeps_the_stored_file(
    spool: Spool, settings: SpoolSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a failed fsync the next one may falsely succeed (fsync(2)), so that retrying would lose data."""
    clip = make_clip(tmp_path / "footage", 1)
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(SpoolError):
        take(spool, clip)
    assert list(spool.ledger.records()) == []
    assert len(stored(settings)) == 1


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", 48_000_000) as disk:
        yield disk


@pytest.mark.slow
def test_everything_can_be_settled_on_a_completely_full_disk(disk: Path, clock: Clock) -> None:
    """The reserve is for that: what was delivered must be recorded, or it would be sent again."""
    settings = SpoolSettings(disk / "spool", min_free_bytes=0)
    spool = Spool(settings, clock)
    take_all(spool, [make_clip(disk / "footage", number, b"%3d" % number * 1000) for number in range(300)])
    spool.close()
    spool = Spool(settings, clock)
    fill(disk)
    failures = 0
    delivered: set[int] = set()
    while len(delivered) < 300:
        try:
            batch = claim(spool, 10)
            spool.settle({upload.id: Verdict(State.WAITING, "why " * 200, attempts=1) for upload in batch[:5]})
            spool.settle({upload.id: Verdict(State.DELIVERED, "so " * 100) for upload in batch})
        except SpoolFull:
            failures += 1
            spool.release_all()
            assert failures < 5
            continue
        delivered |= {upload.id for upload in batch}
    assert failures > 0
    assert spool.ledger.counts()[State.DELIVERED].clips == 300
    spool.close()


@pytest.mark.slow
def test_a_full_disk_takes_nothing_in_and_everything_once_there_is_space(disk: Path, clock: Clock) -> None:
    spool = Spool(SpoolSettings(disk / "spool", min_free_bytes=0), clock)
    clips = [make_clip(disk / "footage", number, b"%3d" % number * 1000) for number in range(200)]
    ballast = fill(disk)
    refused = 0
    for clip in clips:
        try:
            take(spool, clip)
        except SpoolFull:
            refused += 1
    assert refused > 0
    ballast.unlink()
    spool.evict()
    for clip in clips:
        if spool.state_of(clip.footage) is None:
            take(spool, clip)
    assert spool.ledger.counts()[State.WAITING].clips == 200
    assert len(list((disk / "spool" / "clips").iterdir())) == 200
    spool.close()


@pytest.mark.slow
def test_a_spool_opens_and_recovers_on_a_full_disk(disk: Path, clock: Clock) -> None:
    settings = SpoolSettings(disk / "spool", min_free_bytes=0)
    spool = Spool(settings, clock)
    take_all(spool, [make_clip(disk / "footage", number, b"%3d" % number * 1000) for number in range(50)])
    spool.close()
    (disk / "spool" / "clips.db").unlink()
    fill(disk)
    spool = Spool(settings, clock)
    assert spool.recover().adopted == 50
    spool.settle({upload.id: Verdict(State.DELIVERED) for upload in claim(spool)})
    assert spool.ledger.counts()[State.DELIVERED].clips == 50
    spool.close()
