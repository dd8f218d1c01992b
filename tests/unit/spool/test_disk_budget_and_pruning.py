"""Which clips are evicted when the disk is short of space, and which rows are pruned in the end."""

from __future__ import annotations

import errno
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from agent.config import SpoolSettings
from agent.errors import SpoolFull
from agent.model import EVENT_PRIORITY, Clip, State, Verdict
from agent.spool import Spool
from agent.spool.disk_budget import RESERVE_BYTES, DiskBudget
from agent.spool.queries import PAGE_ROWS
from tests.support.spooling import Clock, claim, make_clip, reopen, stored, take, take_all

FLOOR = 1_000_000
BLOCK = b"x" * 4096


class Disk:
    """The free space that the disk reports: what the test sets, and what the spool has freed since."""

    def __init__(self, settings: SpoolSettings, monkeypatch: pytest.MonkeyPatch) -> None:
        self._settings = settings
        self._free = FLOOR * 1000
        self._held = 0
        monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=self._free + self._freed()))

    def leave_free(self, size_bytes: int) -> None:
        self._held = self._allocated()
        self._free = size_bytes

    def _freed(self) -> int:
        return self._held - self._allocated()

    def _allocated(self) -> int:
        files = [] if not (self._settings.directory / "clips").exists() else stored(self._settings)
        return sum(file.stat().st_blocks * 512 for file in files)


@pytest.fixture
def settings(tmp_path: Path) -> SpoolSettings:
    return SpoolSettings(tmp_path / "spool", max_bytes=10_000_000, min_free_bytes=FLOOR, remember_days=30)


@pytest.fixture
def disk(settings: SpoolSettings, monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(settings, monkeypatch)


@pytest.fixture
def spool(settings: SpoolSettings, clock: Clock, disk: Disk) -> Spool:
    return Spool(settings, clock)


def overwritten(folder: Path, number: int, **changes: object) -> Clip:
    return make_clip(folder, number, b"%4d" % number * 1024, **changes)


def test_links_are_evicted_in_order_and_none_without_need(spool: Spool, disk: Disk, tmp_path: Path) -> None:
    """Refused, held, then what waits: lowest priority and oldest first; last what the API has accepted already."""
    folder = tmp_path / "footage"
    take(spool, overwritten(folder, 1))
    spool.settle({upload.id: Verdict(State.ACCEPTED, "taken", retry_in_seconds=60) for upload in claim(spool)})
    take(spool, overwritten(folder, 2))
    claim(spool)
    clips = [overwritten(folder, 3, priority=EVENT_PRIORITY), *(overwritten(folder, number) for number in range(4, 8))]
    take_all(spool, clips)
    for id, state in ((6, State.HELD), (7, State.REFUSED)):
        spool._queue.claim(lambda ready, id=id: [upload for upload in ready if upload.id == id])  # type: ignore[misc]
        spool.settle({id: Verdict(state, "so it is", retry_in_seconds=60)})
    for path in folder.iterdir():
        path.unlink()
    disk.leave_free(FLOOR)
    assert spool.evict() == []
    order = []
    for _ in range(10):
        disk.leave_free(FLOOR - 1)
        order.append([eviction.id for eviction in spool.evict()])
    assert order == [[7], [6], [4], [5], [3], [1], [], [], [], []]
    assert spool.ledger.counts()[State.LOST].clips == 6
    assert spool.ledger.counts()[State.SENDING].clips == 1
    assert "given up for space" in {r.id: r.reason for r in spool.ledger.records([State.LOST])}[4]
    assert "so it is" in {r.id: r.reason for r in spool.ledger.records([State.LOST])}[7]


def test_only_as_much_is_evicted_as_is_missing(spool: Spool, disk: Disk, tmp_path: Path) -> None:
    take_all(spool, [overwritten(tmp_path / "footage", number) for number in range(10)])
    for path in (tmp_path / "footage").iterdir():
        path.unlink()
    disk.leave_free(FLOOR - 3 * 4096)
    assert len(spool.evict()) == 3
    assert spool.evict() == []


def test_a_link_whose_footage_exists_is_kept_since_it_frees_nothing(
    spool: Spool, settings: SpoolSettings, disk: Disk, tmp_path: Path
) -> None:
    take(spool, overwritten(tmp_path / "footage", 1))
    disk.leave_free(0)
    assert spool.evict() == []
    assert len(stored(settings)) == 1


def test_a_copy_whose_footage_exists_is_evicted_first_and_taken_in_again(
    spool: Spool, settings: SpoolSettings, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    gone, there = overwritten(tmp_path / "footage", 1), overwritten(tmp_path / "footage", 2)
    take_all(spool, [gone, there])
    gone.footage.path.unlink()
    disk.leave_free(FLOOR - 1)
    (eviction,) = spool.evict()
    assert (eviction.footage, eviction.lost) == (there.footage, False)
    assert spool.state_of(there.footage) is None
    with pytest.raises(SpoolFull):
        take(spool, there)
    disk.leave_free(FLOOR * 1000)
    assert take(spool, there).state is State.WAITING


def test_an_evicted_refused_copy_stays_listed_and_is_not_sent_again(
    spool: Spool, settings: SpoolSettings, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    clip = overwritten(tmp_path / "footage", 1)
    take(spool, clip)
    spool.settle({upload.id: Verdict(State.REFUSED, "the API refuses the file") for upload in claim(spool)})
    disk.leave_free(0)
    assert [eviction.lost for eviction in spool.evict()] == [False]
    (record,) = spool.ledger.records()
    assert (record.state, record.reason, record.stored) == (State.REFUSED, "the API refuses the file", None)
    assert spool.state_of(clip.footage) is State.REFUSED
    assert spool.recover().lost == 0
    spool.retry([record.id])
    assert spool.state_of(clip.footage) is None


def test_footage_that_comes_back_after_its_clip_was_evicted_is_taken_in(
    spool: Spool, disk: Disk, tmp_path: Path
) -> None:
    clip = overwritten(tmp_path / "footage", 1)
    take(spool, clip)
    clip.footage.path.unlink()
    disk.leave_free(0)
    assert [eviction.lost for eviction in spool.evict()] == [True]
    clip.footage.path.write_bytes(b"   1" * 1024)
    os.utime(clip.footage.path, ns=(clip.footage.modified_ns, clip.footage.modified_ns))
    assert spool.state_of(clip.footage) is None
    assert take(spool, clip).state is State.WAITING


def test_nothing_new_is_taken_in_while_the_reserve_is_spent(spool: Spool, disk: Disk, tmp_path: Path) -> None:
    clip = overwritten(tmp_path / "footage", 1)
    disk.leave_free(0)
    assert spool._budget.spend_reserve()
    assert not spool._budget.spend_reserve()
    with pytest.raises(SpoolFull, match="disk of the spool is full"):
        take(spool, clip)
    with pytest.raises(SpoolFull):
        spool.refuse(clip.footage, "why", "rules", None)
    disk.leave_free(2 * RESERVE_BYTES)
    spool.evict()
    assert take(spool, clip).state is State.WAITING


def deliver(spool: Spool, clips: list[Clip]) -> None:
    take_all(spool, clips)
    spool.settle({upload.id: Verdict(State.DELIVERED) for upload in claim(spool, len(clips))})


def test_clips_of_an_unplugged_card_are_not_pruned_for_a_year(spool: Spool, clock: Clock, tmp_path: Path) -> None:
    """Its folder is missing or empty, so it is not among those that have footage."""
    card = tmp_path / "card"
    (card / "DCIM").mkdir(parents=True)
    deliver(spool, [make_clip(card / "DCIM", 1)])
    (card / "DCIM" / "1.mp4").unlink()
    (card / "DCIM").rmdir()
    for _ in range(11):
        clock.seconds += 31 * 86_400
        spool.prune([])
        assert len(list(spool.ledger.records())) == 1
    clock.seconds += 31 * 86_400
    spool.prune([])
    assert list(spool.ledger.records()) == []


def test_lost_clips_and_refused_footage_are_pruned_in_the_end(spool: Spool, clock: Clock, tmp_path: Path) -> None:
    folder = tmp_path / "footage"
    deliver(spool, [make_clip(folder, 1)])
    take(spool, make_clip(folder, 2))
    spool.settle({upload.id: Verdict(State.LOST, "unreadable") for upload in claim(spool)})
    refused, kept = make_clip(folder, 3).footage, make_clip(folder, 4).footage
    for footage in (refused, kept):
        spool.refuse(footage, "no H.264", "rules", None)
    for number in (1, 2, 3):
        (folder / f"{number}.mp4").unlink()
    spool.prune([folder])
    assert len(list(spool.ledger.records())) == 4
    clock.seconds += 31 * 86_400
    spool.prune([folder])
    assert [record.footage for record in spool.ledger.records()] == [kept]


def test_each_call_prunes_a_bounded_number_and_says_if_there_may_be_more(
    spool: Spool, clock: Clock, tmp_path: Path
) -> None:
    folder = tmp_path / "footage"
    clip = make_clip(folder, 1)
    rows = PAGE_ROWS + 10
    one = replace(clip.footage, modified_ns=1)
    for number in range(rows):
        spool._queue.refuse_footage(replace(one, modified_ns=number), "old", "rules", None)
    clock.seconds += 31 * 86_400
    assert spool.prune([folder])
    assert len(list(spool.ledger.records())) == 10
    assert not spool.prune([folder])
    assert list(spool.ledger.records()) == []


def test_an_evicted_adopted_clip_is_lost_since_its_footage_is_unknown(
    spool: Spool, settings: SpoolSettings, clock: Clock, disk: Disk, tmp_path: Path
) -> None:
    """Its stored file stands for its footage, and is all that there is."""
    clip = overwritten(tmp_path / "footage", 1)
    taken = take(spool, clip)
    spool._queue.delete(taken.id)
    clip.footage.path.unlink()
    spool = reopen(spool, settings, clock)
    assert spool.recover().adopted == 1
    disk.leave_free(0)
    assert [eviction.lost for eviction in spool.evict()] == [True]
    assert [record.state for record in spool.ledger.records()] == [State.LOST]


def test_refused_clips_do_not_count_against_the_budget(spool: Spool, settings: SpoolSettings, tmp_path: Path) -> None:
    folder = tmp_path / "footage"
    take(spool, make_clip(folder, 1, b"x" * 6_000_000))
    spool.settle({upload.id: Verdict(State.REFUSED, "the API refuses the file") for upload in claim(spool)})
    with pytest.raises(SpoolFull):
        take(spool, make_clip(folder, 2, b"y" * 6_000_000))
    spool.evict()
    assert take(spool, make_clip(folder, 3, b"z" * 6_000_000)).state is State.WAITING


def test_two_threads_that_change_the_stored_bytes_lose_no_update(settings: SpoolSettings) -> None:
    """Intake adds while delivery subtracts."""
    settings.directory.mkdir(parents=True)
    budget = DiskBudget(settings, settings.directory)

    def change(size_bytes: int) -> None:
        for _ in range(20_000):
            budget.change(size_bytes)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(change, (1, -1)))
    finally:
        sys.setswitchinterval(interval)
    assert budget.stored_bytes == 0
