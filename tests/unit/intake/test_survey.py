"""Scan after scan of one folder, as the intake does them, with a real spool."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from agent.config import SpoolSettings
from agent.device.warn_once import News
from agent.intake.survey import Survey
from agent.model import Footage
from agent.spool import Spool
from tests.unit.intake.test_intake import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pieces of footage the ledger was asked for, question by question."""
    questions: list[int] = []
    original = Spool.states_of

    def counted(spool: Spool, footage: list[Footage]) -> object:
        if footage:
            questions.append(len(footage))
        return original(spool, footage)

    monkeypatch.setattr(Spool, "states_of", counted)
    return questions


def found(survey: Survey) -> list[str]:
    return sorted(footage.path.name for footage in survey.scan(lambda: None, lambda: False))


def survey_of(bench: Bench) -> Survey:
    return Survey(bench.folder, bench.spool, News(), lambda: bench.wall)


def take_all(bench: Bench) -> None:
    intake = bench.intake()
    intake.step()
    bench.pass_time(intake, 60.0, step=5.0)


@pytest.mark.parametrize("after_delivery", ["keep", "delete"])
def test_an_idle_scan_asks_the_ledger_nothing(bench: Bench, asked: list[int], after_delivery: str) -> None:
    bench.folder = replace(bench.folder, after_delivery=after_delivery)  # type: ignore[arg-type]
    for second in range(10):
        bench.record(second)
    bench.record(name="no time in it.mp4")
    take_all(bench)
    survey = survey_of(bench)
    asked.clear()
    assert found(survey) == []
    assert asked == [11]
    for _ in range(5):
        assert found(survey) == []
    assert asked == [11]
    bench.record(20)
    assert len(found(survey)) == 1
    assert asked == [11, 1]


def test_many_files_are_asked_for_in_groups(bench: Bench, asked: list[int]) -> None:
    for number in range(1001):
        (bench.card / f"{number}.mp4").touch()
    assert len(found(survey_of(bench))) == 1001
    assert asked == [500, 500, 1]


def test_a_delivery_lets_the_next_scan_delete_what_is_to_go(bench: Bench) -> None:
    bench.folder = replace(bench.folder, after_delivery="delete")
    path = bench.record()
    take_all(bench)
    survey = survey_of(bench)
    assert found(survey) == []
    bench.deliver_all()
    assert path.exists()
    assert found(survey) == []
    assert not path.exists()


def test_a_refusal_that_lapses_is_seen_by_the_next_scan(bench: Bench) -> None:
    path = bench.record()
    bench.spool.refuse(Footage.from_stat(path, path.stat()), "the card may be failing", "rules", 600)
    survey = survey_of(bench)
    assert found(survey) == []
    bench.wall += 599
    assert found(survey) == []
    bench.wall += 1
    assert found(survey) == [path.name]


def test_footage_that_a_person_wants_retried_is_seen_by_the_next_scan(bench: Bench) -> None:
    path = bench.record(name="no time in it.mp4")
    take_all(bench)
    survey = survey_of(bench)
    assert found(survey) == []
    bench.spool.retry([1])
    survey.revise()
    assert found(survey) == [path.name]


def test_a_scan_that_is_stopped_forgets_nothing(bench: Bench, asked: list[int]) -> None:
    for second in range(10):
        bench.record(second)
    take_all(bench)
    survey = survey_of(bench)
    assert found(survey) == []
    (bench.card / "new.mp4").touch()
    assert list(survey.scan(lambda: None, lambda: True)) == []
    asked.clear()
    assert found(survey) == ["new.mp4"]
    assert asked == [1]


def test_a_folder_that_comes_and_goes_is_told_each_time_once(bench: Bench) -> None:
    survey = survey_of(bench)
    with capture_logs() as logged:
        for _ in range(2):
            assert found(survey) == []
            assert survey.is_there
            bench.card.rmdir()
            assert found(survey) == []
            assert found(survey) == []
            assert not survey.is_there
            bench.card.mkdir()
    assert [entry["event"] for entry in logged] == ["folder_missing", "folder_back", "folder_missing"]


def test_a_card_counts_as_in_its_reader_only_while_footage_was_seen_on_it(bench: Bench) -> None:
    survey = survey_of(bench)
    found(survey)
    assert not survey.has_footage
    path = bench.record()
    found(survey)
    assert survey.has_footage
    path.unlink()
    found(survey)
    assert survey.has_footage
    bench.card.rmdir()
    found(survey)
    assert not survey.has_footage


def test_delivered_footage_is_remembered_while_its_card_is_away(bench: Bench) -> None:
    bench.record(41, name="trip/ABC1234X_1_20260728_141441.mp4")
    take_all(bench)
    bench.deliver_all()
    bench.wall += 86_400 * (SpoolSettings(bench.card).remember_days + 1)
    bench.card.rename(bench.card.with_name("pulled"))
    bench.card.mkdir()  # the empty folder that a card is mounted over
    take_all(bench)
    bench.card.rmdir()
    bench.card.with_name("pulled").rename(bench.card)
    take_all(bench)
    assert bench.taken == 1
    assert len(bench.states()) == 1


def test_footage_whose_card_is_pulled_while_it_is_inspected_is_not_refused(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = bench.record(content=b"\0\0\0\x0cftypisom" + b"x" * 100)
    pulled = path.with_name("pulled")
    original = os.open

    def pull(asked: object, *arguments: int, **options: int) -> int:
        descriptor = original(asked, *arguments, **options)  # type: ignore[arg-type]
        if asked == path:
            path.rename(pulled)
        return descriptor

    intake = bench.intake()
    intake.step()
    bench.seconds += 60
    monkeypatch.setattr("agent.intake.intake.is_being_written", lambda path: False)
    monkeypatch.setattr(os, "open", pull)
    intake.step()
    monkeypatch.undo()
    assert bench.states() == []
    pulled.rename(path)
    bench.pass_time(intake, 120.0, step=5.0)
    assert len(bench.states()) == 1


def test_without_any_notification_the_scan_takes_everything_in(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_instance() -> object:
        raise OSError(24, "inotify instance limit reached")

    monkeypatch.setattr("agent.intake.watcher.Observer", no_instance)
    intake = bench.intake()
    intake.step()
    for second in range(10):
        bench.record(second, name=f"trip-{second}/ABC1234X_1_20260728_1414{second:02d}.mp4")
    bench.pass_time(intake, 70.0)
    assert len(bench.states()) == 10
