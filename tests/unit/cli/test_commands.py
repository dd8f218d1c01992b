"""The commands as a technician types them, on a real spool and a simulated API."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
import structlog

from agent.cli import COMMANDS, build_parser, main
from agent.cli.requests import wait_for
from agent.config import load
from agent.delivery.dispatcher import Dispatcher
from agent.device.clock import SystemClocks
from agent.device.control import ControlServer
from agent.model import Clip, ClipKey, Footage, State, UntrustedClock, Verdict
from agent.spool import Spool
from agent.vision.client import VisionClient
from simulator.recorder import recording
from simulator.server import Simulator
from simulator.settings import Settings, Status, StatusTimeline
from tests.support import spooling

START = datetime(2026, 7, 28, 14, 0, tzinfo=timezone.utc)


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def account(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    simulator.settings = Settings()
    monkeypatch.setenv("VISION_INGEST_PASSWORD", "bench")
    monkeypatch.setenv("COLUMNS", "200")
    yield
    structlog.reset_defaults()


@pytest.fixture
def config(tmp_path: Path, simulator: Simulator) -> Path:
    (tmp_path / "footage").mkdir()
    file = tmp_path / "config.toml"
    file.write_text(
        f'[api]\nbase_url = "{simulator.base_url}"\nusername = "bench"\n'
        f'[[footage]]\npath = "footage"\n[spool]\ndirectory = "spool"\nmin_free_bytes = 0\n'
        f'[upload]\nlinger_seconds = 0\n[clock]\ntrust = "always"\n[log]\nformat = "json"\n'
    )
    return file


@pytest.fixture
def spool(config: Path) -> Iterator[Spool]:
    spool = Spool(load(config).spool, time.time)
    yield spool
    spool.close()


def take(spool: Spool, config: Path, number: int, name: str | None = None) -> int:
    path = config.parent / "footage" / (name or f"clip-{number}.mp4")
    path.write_bytes(recording(1.0, seed=f"{config} {number}"))
    start = START + timedelta(minutes=number)
    video = ClipKey("CLI123X", 1, start, start + timedelta(seconds=1))
    clip = Clip(Footage.from_stat(path, path.stat()), video, sources={"start": "file name"})
    taken = spooling.take(spool, clip)
    return taken.id


def settle(spool: Spool, verdict: Verdict) -> None:
    (upload,) = spool.claim(lambda ready: [next(ready)])
    spool.settle({upload.id: verdict})


def run(config: Path, *words: str) -> int:
    return main([words[0], "--config", str(config), *words[1:]])


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    shown = capsys.readouterr().out
    module = importlib.import_module(f"agent.cli.{command}")
    assert str(module.__doc__).splitlines()[0] in shown
    assert "--config FILE" in shown


def test_the_overview_describes_every_command() -> None:
    overview = build_parser().format_help()
    assert [command for command in COMMANDS if not re.search(rf"^    {command}\s+\w", overview, re.MULTILINE)] == []


def test_a_missing_configuration_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none.toml", "run") == 2
    assert "none.toml" in capsys.readouterr().err


def test_status_reports_that_the_daemon_is_not_running(
    spool: Spool, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    take(spool, config, 1)
    assert run(config, "status") == 1
    shown = capsys.readouterr().out
    assert "not running" in shown
    assert re.search(r"waiting +1 ", shown)
    assert run(config, "status", "--json") == 1
    assert json.loads(capsys.readouterr().out)["clips"]["waiting"]["clips"] == 1


def test_status_points_to_clips_that_need_attention(
    spool: Spool, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    take(spool, config, 1)
    settle(spool, Verdict(State.HELD, "no contract", retry_in_seconds=60))
    run(config, "status")
    assert "vision-ingest clips --state refused --state held" in capsys.readouterr().out


def test_commands_report_a_spool_that_does_not_exist_yet(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "clips") == 1
    assert "never run" in capsys.readouterr().err


def test_clips_are_listed_by_state(spool: Spool, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    take(spool, config, 1)
    settle(spool, Verdict(State.REFUSED, "wrong format"))
    take(spool, config, 2)
    assert run(config, "clips") == 0
    shown = capsys.readouterr().out
    assert "clip-1.mp4" in shown
    assert "wrong format" in shown
    run(config, "clips", "--state", "waiting", "--json")
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["state"], row["registration"]) for row in rows] == [("waiting", "CLI123X")]
    run(config, "clips", "--state", "lost")
    assert capsys.readouterr().out == "No clips that are lost.\n"


def test_a_file_name_cannot_forge_output(spool: Spool, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    take(spool, config, 1, "evil\x1b[31m\n[red]x.mp4")
    run(config, "clips")
    run(config, "why", "1")
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "[red]x.mp4" in shown
    assert "evil\\x1b[31m\\n" in shown


def test_why_shows_the_history_and_what_to_do(spool: Spool, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    take(spool, config, 1)
    settle(spool, Verdict(State.WAITING, "the API said: try again", retry_in_seconds=60, attempts=1))
    assert run(config, "why", "clip-1.mp4") == 0
    shown = capsys.readouterr().out
    assert "start from  file name" in shown
    assert "the API said: try again" in shown
    assert "next try" in shown
    assert "Nothing to do" in shown
    assert run(config, "why", "1", "--json") == 0
    assert json.loads(capsys.readouterr().out)["attempts"] == 1
    assert run(config, "why", "nothing.mp4") == 1
    assert '"nothing.mp4"' in capsys.readouterr().err


def test_retry_changes_the_queue_itself_without_a_daemon(
    spool: Spool, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    take(spool, config, 1)
    settle(spool, Verdict(State.REFUSED, "gave up"))
    assert run(config, "retry", "1") == 1
    assert "cannot be changed without it" in capsys.readouterr().err
    spool.close()
    assert run(config, "retry", "--all-refused") == 0
    assert capsys.readouterr().out == "1 of 1 will be tried again.\n"
    run(config, "clips", "--state", "waiting")
    assert "clip-1.mp4" in capsys.readouterr().out


def test_retry_reports_that_a_delivered_clip_is_unchanged(
    spool: Spool, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    take(spool, config, 1)
    settle(spool, Verdict(State.DELIVERED))
    spool.close()
    assert run(config, "retry", "1") == 1
    assert "Not changed" in capsys.readouterr().out


def test_drain_delivers_all_waiting_clips(
    spool: Spool, config: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = [take(spool, config, number) for number in range(3)]
    spool.close()
    before = len(simulator.received)
    assert run(config, "drain") == 0
    assert "No clip is waiting any more." in capsys.readouterr().out
    assert len(simulator.received) - before == len(numbers)


def test_drain_ends_when_delivery_is_blocked(
    spool: Spool, config: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    take(spool, config, 50)
    spool.close()
    simulator.settings = replace(simulator.settings, option_active=False)
    assert run(config, "drain") == 1
    assert "Clips still waiting: 1 (" in capsys.readouterr().out


def test_drain_ends_with_the_error_that_ended_its_delivery(
    spool: Spool, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError("the disk failed")

    take(spool, config, 1)
    spool.close()
    monkeypatch.setattr(Dispatcher, "run", fail)
    with pytest.raises(OSError, match="the disk failed"):
        run(config, "drain")


def test_check_succeeds_without_problems(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(config, "check") == 0
    assert "FIX" not in capsys.readouterr().out
    assert run(config, "check", "--json", "--offline") == 0
    assert {finding["ok"] for finding in json.loads(capsys.readouterr().out)} == {True}


def test_check_shows_all_mistakes_at_once(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text() + 'levl = "info"\n[uplod]\n')
    assert run(config, "check") == 2
    shown = capsys.readouterr().out
    assert 'did you mean "level"' in shown
    assert shown.count("FIX") == 2


def test_check_reports_a_missing_folder_and_an_inactive_option(
    config: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.settings = replace(simulator.settings, option_active=False)
    assert run(config, "check") == 1
    assert "Vision API option" in capsys.readouterr().out
    (config.parent / "footage").rmdir()
    assert run(config, "check") == 2
    assert "footage[0].path" in capsys.readouterr().out


@pytest.mark.parametrize("synchronised", [True, False])
def test_check_reports_whether_the_clock_is_trusted(
    config: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, synchronised: bool
) -> None:
    monkeypatch.setattr(SystemClocks, "kernel_synchronised", lambda _: synchronised)
    monkeypatch.setattr(SystemClocks, "timesyncd_synchronised", lambda _: False)
    monkeypatch.setattr(SystemClocks, "rtc_seconds", lambda _: None)
    config.write_text(config.read_text().replace('trust = "always"', 'trust = "auto"'))
    assert run(config, "check", "--offline") == (0 if synchronised else 2)
    shown = " ".join(capsys.readouterr().out.split())
    assert ("FIX clock" in shown) is not synchronised
    assert ("time server (NTP)" in shown) is not synchronised


def test_why_explains_a_clip_held_for_the_clock(spool: Spool, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = config.parent / "footage" / "clip.mp4"
    path.write_bytes(recording(1.0))
    start = datetime(2026, 1, 1, 0, 1, tzinfo=timezone.utc)
    video = ClipKey("ABC1234X", 1, start, start + timedelta(seconds=1))
    clock = UntrustedClock("b" * 32, round(start.timestamp()) - 60, 2)
    spooling.take(spool, Clip(Footage.from_stat(path, path.stat()), video, clock=clock))
    assert run(config, "why", "clip.mp4") == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "is held" in shown
    assert "clock not yet trusted" in shown
    assert "booted at 2026-01-01 00:00:00 UTC" in shown
    assert "every hour" not in shown


def test_requests_can_be_created_listed_and_awaited(
    config: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.settings = replace(simulator.settings, request_timeline=StatusTimeline(0.0))
    arguments = [
        "requests",
        "create",
        "REQ1",
        "2026-07-28T14:14:41+02:00",
        "60",
        "--camera",
        "2",
        "--config",
        str(config),
    ]
    assert main(arguments) == 0
    (id,) = capsys.readouterr().out.split()
    assert main(["requests", "list", "--config", str(config), "--registration", "REQ1", "--json"]) == 0
    (listed,) = json.loads(capsys.readouterr().out)
    assert (listed["request_id"], listed["camera"]) == (id, 2)
    assert "2026-07-28 12:14:41" in listed["start"]
    assert main(["requests", "list", "--config", str(config)]) == 0
    assert "complete" in capsys.readouterr().out
    assert main(["requests", "wait", id, "--config", str(config)]) == 0
    assert f"{id}: complete https://" in capsys.readouterr().out


def test_wait_polls_every_30_seconds_and_fails_with_the_request(
    config: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.settings = replace(simulator.settings, request_timeline=StatusTimeline(3600.0, Status.DOES_NOT_EXIST))
    client = VisionClient(load(config).api)
    (id,) = client.create_request("REQ2", START, 60, [1])
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        simulator.settings = replace(simulator.settings, request_timeline=StatusTimeline(0.0, Status.DOES_NOT_EXIST))
        client.create_request("REQ2", START, 60, [1])

    assert wait_for(client, [id], pause) == 1
    assert pauses == [30.0]
    assert "does not exist" in capsys.readouterr().out
    client.close()


def test_an_invalid_time_is_rejected_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["requests", "create", "REQ1", "yesterday", "60"])
    assert "2026-07-28T14:14:41" in capsys.readouterr().err


def test_livestream_shows_links_or_that_the_camera_is_offline(
    config: Path, simulator: Simulator, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator.settings = replace(simulator.settings, offline=frozenset({"OFF 1"}))
    assert run(config, "livestream", "ABC1234X", "--camera", "1", "--camera", "2") == 0
    assert len(capsys.readouterr().out.splitlines()) == 2
    assert run(config, "livestream", "ABC1234X", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 1
    asked = len(simulator.requests)
    assert run(config, "livestream", "OFF 1") == 1
    assert "camera is offline" in capsys.readouterr().err
    assert len(simulator.requests) == asked + 1


def test_an_unknown_command_is_a_usage_error() -> None:
    with pytest.raises(SystemExit) as exit:
        main(["fly"])
    assert exit.value.code == 2
    assert isinstance(build_parser(), argparse.ArgumentParser)


def test_an_argument_cannot_inject_escape_sequences(
    config: Path, spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["why", "--config", str(config), "\x1b[2J\nevil.mp4"]) == 1
    error = capsys.readouterr().err
    assert '"\\x1b[2J\\nevil.mp4"' in error


def test_markup_and_emoji_codes_in_a_name_are_shown_verbatim(
    config: Path, spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    take(spool, config, 1, ":bomb:[red]x.mp4")
    assert main(["why", "--config", str(config), "1"]) == 0
    assert ":bomb:[red]x.mp4" in capsys.readouterr().out


def test_server_text_in_the_status_cannot_inject_escape_sequences(
    config: Path, spool: Spool, capsys: pytest.CaptureFixture[str]
) -> None:
    sentence = "0 waiting, idle, link down: \x1b[2J\n:bomb:"
    server = ControlServer(config.parent / "spool", lambda _: {"pid": 1, "version": "1", "sentence": sentence})
    try:
        assert main(["status", "--config", str(config)]) == 0
    finally:
        server.close()
    assert "link down: \\x1b[2J\\n:bomb:" in capsys.readouterr().out
