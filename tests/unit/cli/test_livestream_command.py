"""`livestream` against scripted responses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli import main
from tests.support.scripted_server import scripted_server
from tests.support.vision_cases import answering

LINKS = ["https://live.example/1", "https://live.example/\x1b[31m2"]
OFFLINE = {"error": {"code": 503, "message": "Digital Video Recorder is not online"}}


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISION_INGEST_PASSWORD", "secret")


def livestream(folder: Path, status: int, payload: object, *arguments: str) -> int:
    """Run the command and return its exit code; asserts that it sends exactly one request."""
    with scripted_server(answering(status, payload)) as server:
        (folder / "footage").mkdir()
        file = folder / "config.toml"
        file.write_text(
            f'[api]\nbase_url = "{server.url}"\nusername = "account"\n[[footage]]\npath = "footage"\n'
            f'[spool]\ndirectory = "spool"\n'
        )
        code = main(["livestream", "ABC 1", *arguments, "--config", str(file)])
        assert [request.target for request in server.requests] == ["/rest/vision/livestream/ABC%201"]
        return code


def test_links_are_printed_one_per_line_and_sanitized(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert livestream(tmp_path, 200, {"data": LINKS}, "--camera", "1", "--camera", "2") == 0
    assert capsys.readouterr().out == "https://live.example/1\nhttps://live.example/\\x1b[31m2\n"


def test_links_as_json_are_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert livestream(tmp_path, 200, {"data": LINKS}, "--json") == 0
    assert json.loads(capsys.readouterr().out) == LINKS


def test_an_offline_camera_is_reported_without_a_retry(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert livestream(tmp_path, 503, OFFLINE) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "The camera is offline: ABC 1 (Digital Video Recorder is not online)\n"


def test_a_response_without_links_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert livestream(tmp_path, 200, {"data": []}) == 1
    assert "no link for ABC 1" in capsys.readouterr().err


def test_a_link_that_is_down_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert livestream(tmp_path, 503, "<html>busy</html>") == 1
    assert "the server is in trouble: HTTP 503" in capsys.readouterr().err
