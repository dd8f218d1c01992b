"""Rows and stored files are compared at each start: in order, without looking up each file's row."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.config import SpoolSettings
from agent.model import ClipKey, State, Verdict
from agent.spool import STORED_STATES, Recovery, Spool, queries
from agent.spool.maintenance import Maintenance
from agent.spool.recovery import SetDigest
from tests.support.spooling import START, Clock, claim, make_clip, reopen, stored, take_all


def test_digests_of_the_same_names_are_equal_in_any_order() -> None:
    names = [f"name {number}" for number in range(5000)]
    one, other = SetDigest(names), SetDigest(reversed(names))
    assert one.count_equal(other) == 5000
    assert list(one.in_other_groups(other, names)) == []


@pytest.mark.parametrize(
    "change",
    [
        lambda names: names[1:],
        lambda names: [*names, "one more"],
        lambda names: [*names, names[-1]],
        lambda names: ["another", *names[1:]],
    ],
    ids=["one less", "one more", "one twice", "another one"],
)
def test_a_name_in_which_two_sets_differ_is_among_the_few_candidates(change: Callable[[list[str]], list[str]]) -> None:
    names = [f"name {number}" for number in range(5000)]
    changed = change(names)
    one, other = SetDigest(names), SetDigest(changed)
    found = list(one.in_other_groups(other, changed))
    differing = set(names) ^ set(changed) or {names[-1]}
    assert differing & set(changed) <= set(found)
    # The group of an added name may have been empty, so that all names are in groups that are equal.
    assert one.count_equal(other) == 5000 - len(list(one.in_other_groups(other, names)))
    assert one.count_equal(other) > 5000 - 200


def test_differences_between_files_and_rows_are_found_among_many_equal(
    spool: Spool, settings: SpoolSettings, clock: Clock, tmp_path: Path
) -> None:
    clips = [make_clip(tmp_path / "footage", number) for number in range(60)]
    clips[7] = replace(clips[7], key=ClipKey("ŻÓŁĆ_7", 1, START, START.replace(minute=1)))
    take_all(spool, clips)
    files = {file.name: file for file in stored(settings)}
    names = {record.footage.path: record.stored.name for record in spool.ledger.records() if record.stored}
    delivered, lost, again = (names[clips[number].footage.path] for number in (10, 20, 30))
    (first,) = [upload.id for upload in claim(spool) if upload.file.name == delivered]
    spool.settle({first: Verdict(State.DELIVERED)})
    os.link(clips[10].footage.path, files[delivered])
    files[lost].unlink()
    clips[20].footage.path.unlink()
    files[again].unlink()
    spool = reopen(spool, settings, clock)
    assert spool.recover() == Recovery(removed=1, lost=1, requeued=1)
    assert spool.recover() == Recovery()
    assert {file.name for file in stored(settings)} == set(files) - {delivered, lost, again}
    spool.close()


def test_only_intact_rows_count_as_owners_of_a_file(spool: Spool, settings: SpoolSettings, tmp_path: Path) -> None:
    take_all(spool, [make_clip(tmp_path / "footage", number) for number in range(6)])
    with spool._queue.transaction() as db:
        for id, damage in enumerate(["identity = 'x'", "piece = 1", "data = 'text'", "data = x'00'", "bytes = 0"], 1):
            db.execute(f"UPDATE {queries.TABLE} SET {damage} WHERE _id = {id}")  # noqa: S608
    names = list(Maintenance(spool._queue).stored_names(STORED_STATES))
    assert len(names) == 1
    assert names[0] in {file.name for file in stored(settings)}


def test_clips_of_chosen_states_come_oldest_first_over_all_pages(
    spool: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "PAGE_ROWS", 2)
    monkeypatch.setattr(queries, "PAGE_IDS", 5)
    take_all(spool, [make_clip(tmp_path / "footage", number, b"x" * (40 - number)) for number in range(23)])
    claim(spool, 23)
    spool.settle({id: Verdict(State.DELIVERED if id % 3 else State.HELD) for id in range(1, 21)})
    assert [record.id for record in spool.ledger.records([State.DELIVERED])] == [n for n in range(1, 21) if n % 3]
    assert [record.id for record in spool.ledger.records([State.HELD, State.SENDING])] == [
        3,
        6,
        9,
        12,
        15,
        18,
        21,
        22,
        23,
    ]
    assert [record.id for record in spool.ledger.records()] == list(range(1, 24))


def test_the_cost_of_reading_a_row_does_not_grow_with_their_number(
    settings: SpoolSettings, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queries, "PAGE_ROWS", 10)
    spool = Spool(replace(settings, max_bytes=1_000_000), clock)

    def steps() -> int:
        """Steps of SQLite's virtual machine: the same on every computer."""
        counted = 0

        def count() -> int:
            nonlocal counted
            counted += 1
            return 0

        spool._queue._connection.set_progress_handler(count, 1)
        assert Maintenance(spool._queue).damaged(STORED_STATES) == []
        spool._queue._connection.set_progress_handler(None, 1)
        return counted

    def fill(numbers: range) -> None:
        take_all(spool, [make_clip(tmp_path / "footage", number) for number in numbers])

    fill(range(200))
    before = steps()
    fill(range(200, 800))
    assert steps() < 5 * before
    spool.close()
