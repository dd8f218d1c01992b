"""Footage that is taken in as a group: each piece has the outcome that it would have had alone, for fewer syncs."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config import SpoolSettings
from agent.device.safe_open import open_footage
from agent.errors import FootageGone, FootageRefused, SpoolError, SpoolFull
from agent.model import Clip, State
from agent.spool import NotTaken, Spool, Taken
from agent.spool.admission import Pieces
from tests.support.spooling import Clock, make_clip, reopen, stored, take_all

Outcome = list[Taken] | NotTaken


def opened(clips: Sequence[Clip], files: ExitStack) -> list[Pieces]:
    return [[(clip, files.enter_context(open_footage(clip.footage.path)))] for clip in clips]


def one_by_one(spool: Spool, group: Sequence[Pieces]) -> list[Outcome]:
    return [outcome for pieces in group for outcome in spool.take_in_group([pieces])]


def all_kinds(folder: Path, files: ExitStack) -> list[Pieces]:
    """Good footage, a duplicate, a conflicting recording, and what vanished or was written to after it was opened."""
    good = make_clip(folder, 1, b"recording")
    duplicate = replace(make_clip(folder, 2, b"recording"), key=good.key)
    conflicting = replace(make_clip(folder, 3, b"another one"), key=good.key)
    gone = make_clip(folder, 4)
    changed = make_clip(folder, 5)
    pieces = opened([good, duplicate, conflicting, gone, changed], files)
    gone.footage.path.unlink()
    changed.footage.path.write_bytes(b"overwritten")
    return pieces


def comparable(outcome: Outcome) -> object:
    return outcome if isinstance(outcome, list) else (type(outcome), str(outcome))


@pytest.mark.parametrize("first", range(5))
def test_a_group_has_the_same_outcome_as_one_by_one(tmp_path: Path, clock: Clock, first: int) -> None:
    with ExitStack() as stack:
        kinds = all_kinds(tmp_path / "footage", stack)
        for number, rest in enumerate(itertools.permutations(set(range(5)) - {first})):
            group = [kinds[place] for place in (first, *rest)]
            outcomes, ledgers, files = [], [], []
            for name, admit in (("together", Spool.take_in_group), ("alone", one_by_one)):
                settings = SpoolSettings(tmp_path / f"{name}{number}", min_free_bytes=0)
                spool = Spool(settings, clock)
                outcomes.append([comparable(outcome) for outcome in admit(spool, group)])
                ledgers.append(list(spool.ledger.records()))
                files.append([path.name for path in stored(settings)])
                spool.close()
            assert outcomes[0] == outcomes[1]
            assert ledgers[0] == ledgers[1]
            assert files[0] == files[1]
            assert len(ledgers[0]) == 2


def test_pieces_of_a_recording_are_all_or_none_whatever_else_is_in_the_group(
    spool: Spool, settings: SpoolSettings, tmp_path: Path
) -> None:
    pieces = [make_clip(tmp_path / "work", number) for number in range(3)]
    footage = make_clip(tmp_path / "footage", 9).footage
    cut = [
        (replace(clip, footage=footage, piece=number, pieces=3), clip.footage.path)
        for number, clip in enumerate(pieces)
    ]
    pieces[1].footage.path.unlink()
    before, after = make_clip(tmp_path / "footage", 10), make_clip(tmp_path / "footage", 11)
    with ExitStack() as files:
        outcomes = spool.take_in_group([*opened([before], files), cut, *opened([after], files)])
    assert [type(outcome) for outcome in outcomes] == [list, FootageGone, list]
    assert [record.footage for record in spool.ledger.records()] == [before.footage, after.footage]
    assert len(stored(settings)) == 2


def test_what_exceeds_the_budget_is_left_and_the_rest_is_taken(spool: Spool, tmp_path: Path) -> None:
    """The budget is 10,000 bytes."""
    sizes = (4_000, 5_000, 2_000, 1_000)
    clips = [make_clip(tmp_path / "footage", number, b"x" * size) for number, size in enumerate(sizes)]
    assert [type(outcome) for outcome in take_all(spool, clips)] == [list, list, SpoolFull, list]


def failing_at(clip: Clip, number: int, call: Callable[..., object]) -> Callable[..., object]:
    """A system call that fails for the one file."""
    inode = clip.footage.path.stat().st_ino

    def fail(*arguments: int) -> object:
        if any(os.fstat(fd).st_ino == inode for fd in arguments[:2]):
            raise OSError(number, os.strerror(number))
        return call(*arguments)

    return fail


def test_no_space_to_sync_one_file_affects_only_that_one(
    spool: Spool, settings: SpoolSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [make_clip(tmp_path / "footage", number) for number in range(6)]
    monkeypatch.setattr(os, "fsync", failing_at(clips[3], errno.ENOSPC, os.fsync))
    outcomes = take_all(spool, clips)
    assert [type(outcome) for outcome in outcomes] == [list, list, list, SpoolFull, list, list]
    assert len(stored(settings)) == 5


def test_one_file_that_cannot_be_copied_is_refused_and_the_rest_is_taken(
    spool: Spool, settings: SpoolSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [make_clip(tmp_path / "footage", number) for number in range(4)]

    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(os, "sendfile", failing_at(clips[2], errno.EIO, os.sendfile))
    outcomes = take_all(spool, clips)
    assert [type(outcome) for outcome in outcomes] == [list, list, FootageRefused, list]
    assert len(stored(settings)) == 3


def test_without_space_for_the_rows_nothing_is_taken_and_later_everything(
    spool: Spool, settings: SpoolSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [make_clip(tmp_path / "footage", number) for number in range(5)]
    enter = spool._queue.enter

    def full(*arguments: object, **named: object) -> int:
        if len(list(spool._queue._connection.execute("SELECT 1 FROM spool_clips"))) == 3:
            raise SpoolFull("the disk of the spool is full")
        return enter(*arguments, **named)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(spool._queue, "enter", full)
        assert {type(outcome) for outcome in take_all(spool, clips)} == {SpoolFull}
    assert list(spool.ledger.records()) == []
    assert stored(settings) == []
    spool.evict()  # the disk has room again
    assert {type(outcome) for outcome in take_all(spool, clips)} == {list}


def test_a_failed_sync_is_fatal_and_the_next_start_adopts_what_was_stored(
    settings: SpoolSettings, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(settings, clock)
    clips = [make_clip(tmp_path / "footage", number, b"%d" % number) for number in range(5)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing_at(clips[2], errno.EIO, os.fsync))
        with pytest.raises(SpoolError):
            take_all(spool, clips)
    assert list(spool.ledger.records()) == []
    spool = reopen(spool, settings, clock)
    assert spool.recover().adopted == 5
    assert [record.state for record in spool.ledger.records()] == [State.WAITING] * 5
    spool.close()


@pytest.mark.parametrize("linked", [True, False])
def test_a_group_costs_a_sync_for_each_file_one_for_names_and_one_commit(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, linked: bool
) -> None:
    clips = [make_clip(tmp_path / "footage", number) for number in range(20)]
    syncs: list[int] = []
    statements: list[str] = []
    fsync = os.fsync

    def counted(fd: int) -> None:
        syncs.append(fd)
        fsync(fd)

    def no_link(*_: object, **__: object) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    if not linked:
        monkeypatch.setattr(os, "link", no_link)
    monkeypatch.setattr(os, "fsync", counted)
    spool._queue._connection.set_trace_callback(statements.append)
    assert {type(outcome) for outcome in take_all(spool, clips)} == {list}
    assert len(syncs) == 20 + 1
    assert statements.count("COMMIT") == 1


def test_each_file_gives_a_heartbeat(spool: Spool, tmp_path: Path) -> None:
    signs: list[int] = []
    clips = [make_clip(tmp_path / "footage", number) for number in range(10)]
    with ExitStack() as files:
        spool.take_in_group(opened(clips, files), lambda: signs.append(1))
    assert len(signs) >= 2 * len(clips)


def test_an_empty_group_takes_nothing(spool: Spool) -> None:
    assert spool.take_in_group([]) == []
