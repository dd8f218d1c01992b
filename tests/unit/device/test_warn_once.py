from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from agent.device.warn_once import News

CARD = Path("/card")


def test_what_stays_true_is_told_once_and_again_when_it_had_ended_and_came_back() -> None:
    news = News()
    with capture_logs() as logged:
        for _ in range(3):
            news.tell("folder_missing", CARD, "No such file", remedy="put it in")
        assert news.over("folder_missing", CARD)
        assert not news.over("folder_missing", CARD)
        news.tell("folder_missing", CARD, "Input/output error")
    assert [entry["reason"] for entry in logged] == ["No such file", "Input/output error"]
    assert logged[0]["remedy"] == "put it in"


def test_what_a_scan_no_longer_finds_can_be_news_again() -> None:
    news = News()
    with capture_logs() as logged:
        for path in (CARD / "a.mp4", CARD / "b.mp4", Path("/other/c.mp4")):
            news.tell("footage_skipped", path, "a link")
        news.only("footage_skipped", {CARD / "a.mp4"}, CARD)
        for path in (CARD / "a.mp4", CARD / "b.mp4", Path("/other/c.mp4")):
            news.tell("footage_skipped", path, "a link")
    assert [entry["path"] for entry in logged] == ["/card/a.mp4", "/card/b.mp4", "/other/c.mp4", "/card/b.mp4"]
