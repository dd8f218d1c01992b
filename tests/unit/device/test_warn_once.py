from __future__ import annotations

from pathlib import Path

from structlog.testing import capture_logs

from agent.device.warn_once import WarnOnce

CARD = Path("/card")


def test_a_warning_is_logged_once_until_its_cause_clears() -> None:
    warnings = WarnOnce()
    with capture_logs() as logged:
        for _ in range(3):
            warnings.warn("folder_missing", CARD, "No such file", remedy="put it in")
        assert warnings.clear("folder_missing", CARD)
        assert not warnings.clear("folder_missing", CARD)
        warnings.warn("folder_missing", CARD, "Input/output error")
    assert [entry["reason"] for entry in logged] == ["No such file", "Input/output error"]
    assert logged[0]["remedy"] == "put it in"


def test_warnings_that_a_scan_no_longer_finds_are_cleared() -> None:
    warnings = WarnOnce()
    with capture_logs() as logged:
        for path in (CARD / "a.mp4", CARD / "b.mp4", Path("/other/c.mp4")):
            warnings.warn("footage_skipped", path, "a link")
        warnings.clear_except("footage_skipped", {CARD / "a.mp4"}, CARD)
        for path in (CARD / "a.mp4", CARD / "b.mp4", Path("/other/c.mp4")):
            warnings.warn("footage_skipped", path, "a link")
    assert [entry["path"] for entry in logged] == ["/card/a.mp4", "/card/b.mp4", "/other/c.mp4", "/card/b.mp4"]
