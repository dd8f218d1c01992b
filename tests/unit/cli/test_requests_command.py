"""`requests` against scripted responses that the simulator cannot produce."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from agent.cli import main
from agent.cli.requests import POLL_SECONDS, wait_for
from agent.vision.client import VisionClient
from tests.support.scripted_server import Peer, ScriptedServer, scripted_server
from tests.support.vision_cases import API_ERROR, answering, api

ITEM = {"request_id": 7, "registration": "ABC1234X", "camera": 1, "status_id": 2, "duration": 60}
DONE = ITEM | {"status_id": 3, "url": "https://videos.example/7"}
Command = Callable[..., int]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[ScriptedServer], Command]:
    """Run `vision-ingest requests` with a configuration for this server."""
    monkeypatch.setenv("VISION_INGEST_PASSWORD", "secret")
    monkeypatch.setenv("COLUMNS", "160")

    def made(server: ScriptedServer) -> Command:
        (tmp_path / "footage").mkdir()
        file = tmp_path / "config.toml"
        file.write_text(
            f'[api]\nbase_url = "{server.url}"\nusername = "account"\n[[footage]]\npath = "footage"\n'
            f'[spool]\ndirectory = "spool"\n'
        )
        return lambda *arguments: main(["requests", *arguments, "--config", str(file)])

    return made


def one_after_the_other(*answers: tuple[int, object, dict[str, str]]) -> Callable[[Peer], None]:
    def script(peer: Peer) -> None:
        for status, payload, headers in answers:
            peer.read_request()
            peer.answer(status, payload, headers)
        peer.receive()

    return script


@contextmanager
def polled(folder: Path, *answers: tuple[int, object, dict[str, str]]) -> Iterator[VisionClient]:
    with (
        scripted_server(one_after_the_other(*answers)) as server,
        closing(VisionClient(api(server.url, folder))) as client,
    ):
        yield client


def found(*items: Any) -> tuple[int, object, dict[str, str]]:
    return 200, {"data": list(items)}, {}


def test_list_shows_a_table(command: Callable[[ScriptedServer], Command], capsys: pytest.CaptureFixture[str]) -> None:
    meta = {"current_page": 2, "last_page": 3, "total": 31}
    hostile = {"request_id": "\x1b[31m8", "status_id": 9}
    with scripted_server(answering(200, {"data": [DONE, hostile], "meta": meta})) as server:
        assert command(server)("list", "--registration", "ABC1234X", "--status", "3", "--page", "2") == 0
        target = server.requests[0].target
    shown = capsys.readouterr().out
    assert "complete" in shown
    assert "https://videos.example/7" in shown
    assert "status 9" in shown
    assert "\x1b[31m" not in shown
    assert "Page 2 of 3, 31 in all." in shown
    assert target.endswith("filter%5Bregistration%5D=ABC1234X&filter%5Bstatus_id%5D=3&page=2&limit=15")


def test_list_accepts_a_time_range(command: Callable[[ScriptedServer], Command]) -> None:
    with scripted_server(answering(200, {"data": []})) as server:
        assert command(server)("list", "--from", "2026-07-28", "--to", "2026-07-28T23:59:59+02:00", "--json") == 0
        assert "from%5D=2026-07-28+00%3A00%3A00" in server.requests[0].target
        assert "to%5D=2026-07-28+21%3A59%3A59" in server.requests[0].target


def test_create_accepts_a_local_time_with_a_time_zone(
    command: Callable[[ScriptedServer], Command], capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_server(answering(200, {"data": [{"request_id": 7}, {"request_id": 8}]})) as server:
        zone = ("--timezone", "Africa/Johannesburg")
        assert command(server)("create", "A", "2026-07-28T14:14:41", "60", "--camera", "1", "--camera", "2", *zone) == 0
        sent = json.loads(server.requests[0].body)
    assert (sent["start_timestamp"], sent["duration"], sent["camera"]) == ("2026-07-28 12:14:41", 60, [1, 2])
    captured = capsys.readouterr()
    assert captured.out == "7\n8\n"
    assert "requests wait 7 8" in captured.err


def test_create_tells_where_to_look_if_the_response_has_no_number(
    command: Callable[[ScriptedServer], Command], capsys: pytest.CaptureFixture[str]
) -> None:
    with scripted_server(answering(200, {"data": {}})) as server:
        assert command(server)("create", "A", "2026-07-28T14:14:41+02:00", "60") == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "requests list" in captured.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "A", "yesterday", "60"), '"yesterday" is not a time such as 2026-07-28T14:14:41'),
        (("create", "A", "2026-07-28", "0"), '"0" is not a whole number of at least 1'),
        (("create", "A", "2026-07-28", "60", "--timezone", "Mars"), '"Mars" is not a time zone'),
        (("create", "A", "2026-07-28", "60", "--timezone", "../etc"), '"../etc" is not a time zone'),
        (("list", "--page", "-1"), '"-1" is not a whole number of at least 1'),
    ],
)
def test_invalid_arguments_are_rejected(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["requests", *arguments])
    assert caught.value.code == 2
    assert said in capsys.readouterr().err


def test_wait_prints_the_link_once_the_footage_is_available(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pauses: list[float] = []
    with polled(tmp_path, found(ITEM), found(DONE)) as client:
        assert wait_for(client, ["7"], pauses.append) == 0
    assert pauses == [POLL_SECONDS]
    assert capsys.readouterr().out == "7: complete https://videos.example/7\n"


def test_wait_waits_for_all_and_fails_with_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {"request_id": "8", "status_id": 6}
    with polled(tmp_path, found(ITEM, other), found(DONE, other)) as client:
        assert wait_for(client, ["7", "8"], lambda _seconds: None) == 1
    assert capsys.readouterr().out == "7: complete https://videos.example/7\n8: timeout\n"


def test_wait_gives_up_on_a_number_that_is_never_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pauses: list[float] = []
    with polled(tmp_path, found(), found(), found()) as client:
        assert wait_for(client, ["70"], pauses.append) == 1
    assert len(pauses) == 2
    assert capsys.readouterr().out == "70: not listed\n"


def test_wait_survives_a_link_that_is_down_and_a_rate_limit(tmp_path: Path) -> None:
    pauses: list[float] = []
    limited = (429, API_ERROR, {"Retry-After": "90"})
    with polled(tmp_path, (502, "<html>", {}), limited, found(DONE)) as client:
        assert wait_for(client, ["7"], pauses.append) == 0
    assert pauses == [POLL_SECONDS, 90.0]
