"""The pieces of one recording are in the spool all or none, whenever the power goes."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.config import SpoolSettings
from agent.errors import VisionIngestError
from agent.model import Clip, ClipKey, Footage, State, Verdict
from agent.spool import Recovery, Spool
from tests.support.spooling import take_in

START = datetime(2026, 7, 28, 14, 0, tzinfo=timezone.utc)


class PowerCut(BaseException):
    """Not an Exception: nothing that handles errors gets a chance to clean up."""


def cut_into(place: Path, count: int) -> list[tuple[Clip, Path]]:
    """A recording in some pieces, as the conformer hands them over."""
    recording = place / "recording.mp4"
    recording.write_bytes(b"recording")
    footage = Footage.from_stat(recording, recording.stat())
    pieces = []
    for number in range(count):
        file = place / f"piece{number}.mp4"
        file.write_bytes(b"piece %d" % number)
        start = START + timedelta(minutes=number)
        video = ClipKey("ABC1234X", 1, start, start + timedelta(minutes=1))
        pieces.append((Clip(footage, video, piece=number, pieces=count), file))
    return pieces


def opened(place: Path) -> Spool:
    return Spool(SpoolSettings(place / "spool", min_free_bytes=0), time.time)


def take_in_with_power_cut(place: Path, pieces: list[tuple[Clip, Path]], step: str, after: int) -> Spool:
    """The power goes before the given step of the admission, after so many calls of it, and comes back."""
    spool = opened(place)
    with pytest.MonkeyPatch.context() as patch:
        owner = spool._admission if step == "_write_rows" else spool._files
        original: Callable[..., object] = getattr(owner, step)
        calls: list[int] = []

        def fail(*arguments: object, **named: object) -> object:
            calls.append(1)
            if len(calls) > after:
                raise PowerCut
            return original(*arguments, **named)

        patch.setattr(owner, step, fail)
        with pytest.raises(PowerCut):
            take_in(spool, pieces)
    spool.close()
    return opened(place)


@pytest.mark.parametrize(("step", "after"), [("store", 1), ("store", 2), ("_write_rows", 0)])
def test_pieces_that_were_stored_only_in_part_are_removed_and_cut_again(tmp_path: Path, step: str, after: int) -> None:
    pieces = cut_into(tmp_path, 3)
    spool = take_in_with_power_cut(tmp_path, pieces, step, after)
    recovery = spool.recover()
    assert recovery == Recovery(removed=3 if step == "_write_rows" else after)
    assert spool.state_of(pieces[0][0].footage) is None
    assert list((tmp_path / "spool" / "clips").iterdir()) == []
    taken = take_in(spool, pieces)
    assert [one.state for one in taken] == [State.WAITING] * 3
    spool.close()


def test_stored_pieces_whose_recording_is_gone_are_adopted(tmp_path: Path) -> None:
    pieces = cut_into(tmp_path, 3)
    spool = take_in_with_power_cut(tmp_path, pieces, "store", 2)
    pieces[0][0].footage.path.unlink()
    assert spool.recover() == Recovery(adopted=2)
    assert sorted(record.piece for record in spool.ledger.records([State.WAITING])) == [0, 1]
    spool.close()


def test_a_power_cut_right_after_the_commit_loses_and_repeats_nothing(tmp_path: Path) -> None:
    pieces = cut_into(tmp_path, 3)
    spool = take_in_with_power_cut(tmp_path, pieces, "end_multi_part", 0)
    assert spool.recover() == Recovery()
    assert [record.piece for record in spool.ledger.records()] == [0, 1, 2]
    assert len(list((tmp_path / "spool" / "clips").iterdir())) == 3
    spool.close()


def test_with_a_damaged_note_the_stored_pieces_are_adopted(tmp_path: Path) -> None:
    pieces = cut_into(tmp_path, 2)
    spool = take_in_with_power_cut(tmp_path, pieces, "_write_rows", 0)
    (note,) = (tmp_path / "spool" / "clips").glob("*.set")
    note.write_bytes(b"\xff[")
    assert spool.recover() == Recovery(adopted=2)
    assert not note.exists()
    spool.close()


def test_a_stored_piece_that_vanished_is_lost_and_the_others_stay(tmp_path: Path) -> None:
    pieces = cut_into(tmp_path, 3)
    spool = opened(tmp_path)
    take_in(spool, pieces)
    spool.close()
    next((tmp_path / "spool" / "clips").glob("*-1.mp4")).unlink()
    spool = opened(tmp_path)
    assert spool.recover() == Recovery(lost=1)
    assert {record.piece: record.state for record in spool.ledger.records()} == {
        0: State.WAITING,
        1: State.LOST,
        2: State.WAITING,
    }
    spool.close()


def deliver(spool: Spool, ids: set[int]) -> None:
    spool.claim(lambda ready: [upload for upload in ready if upload.id in ids])
    spool.settle({id: Verdict(State.DELIVERED) for id in ids})


def test_footage_is_fully_delivered_only_with_all_its_pieces(tmp_path: Path) -> None:
    """With after_delivery = "delete", the only copy of an evicted piece would be deleted."""
    pieces = cut_into(tmp_path, 3)
    footage = pieces[0][0].footage
    spool = opened(tmp_path)
    ids = [taken.id for taken in take_in(spool, pieces)]
    assert not spool.is_fully_delivered(footage)
    deliver(spool, {ids[1], ids[2]})
    spool.claim(list)
    spool.settle({ids[0]: Verdict(State.LOST, "given up for space")})
    assert not spool.is_fully_delivered(footage)


def test_moved_footage_is_fully_delivered_only_with_all_its_pieces(tmp_path: Path) -> None:
    spool = opened(tmp_path)
    pieces = cut_into(tmp_path, 3)
    ids = [taken.id for taken in take_in(spool, pieces)]
    (tmp_path / "RO").mkdir()
    path = pieces[0][0].footage.path.rename(tmp_path / "RO" / "recording.mp4")
    footage = Footage.from_stat(path, path.stat())
    moved = [(replace(clip, footage=footage), file) for clip, file in pieces]
    assert all(taken.again for taken in take_in(spool, moved))
    deliver(spool, {ids[2]})
    assert not spool.is_fully_delivered(footage)
    deliver(spool, {ids[0], ids[1]})
    assert spool.is_fully_delivered(footage)


def test_aliases_of_known_pieces_are_written_only_with_the_new_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the missing piece would count as known when its row could not be written."""
    spool = opened(tmp_path)
    pieces = cut_into(tmp_path, 3)
    take_in(spool, pieces[1:])
    (tmp_path / "RO").mkdir()
    path = pieces[0][0].footage.path.rename(tmp_path / "RO" / "recording.mp4")
    footage = Footage.from_stat(path, path.stat())
    moved = [(replace(clip, footage=footage), file) for clip, file in pieces]

    def full(*_: object, **__: object) -> int:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(spool._queue, "insert", full)
        with pytest.raises(VisionIngestError):
            take_in(spool, moved)
    assert spool.state_of(footage) is None
    spool.evict()  # the disk has room again
    assert [taken.again for taken in take_in(spool, moved)] == [False, True, True]
