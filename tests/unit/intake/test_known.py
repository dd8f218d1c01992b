from __future__ import annotations

from pathlib import Path

from agent.intake.known import Known
from agent.model import Footage

A = Footage(Path("/card/a.mp4"), 1_000, 1)
B = Footage(Path("/card/b.mp4"), 1_000, 1)


def meets(known: Known, footage: Footage) -> bool:
    return known.meets(str(footage.path), footage.size_bytes, footage.modified_ns)


def test_footage_is_known_by_its_path_size_and_time() -> None:
    known = Known()
    assert not meets(known, A)
    known.add(A, lasting=True)
    assert meets(known, A)
    assert not known.meets("/card/a.mp4", 1_001, 1)
    assert not known.meets("/card/a.mp4", 1_000, 2)
    assert not meets(known, B)


def test_what_a_whole_scan_did_not_meet_is_forgotten() -> None:
    known = Known()
    known.add(A, lasting=True)
    known.add(B, lasting=False)
    assert known.end() == 2
    known.begin()
    assert meets(known, A)
    assert known.end() == 1
    assert not meets(known, B)


def test_a_scan_that_did_not_end_forgets_nothing() -> None:
    known = Known()
    known.add(A, lasting=True)
    known.begin()
    known.begin()
    assert meets(known, A)


def test_only_what_lasts_stays_known_when_the_ledger_changes() -> None:
    known = Known()
    known.add(A, lasting=True)
    known.add(B, lasting=False)
    assert meets(known, B)
    known.revise()
    assert meets(known, A)
    assert not meets(known, B)
