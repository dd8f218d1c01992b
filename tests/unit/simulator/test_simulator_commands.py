"""The commands `simulate` and `demo`, which are listed where the simulator is installed."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys

import pytest

from agent.cli import COMMANDS, build_parser, main, plugins
from tests.support.daemon import PATIENCE_SECONDS

PLUGINS = ("demo", "simulate")


def test_the_overview_lists_them_after_the_built_in_commands() -> None:
    overview = build_parser(plugins=plugins()).format_help()
    listed = re.findall(r"^    ([a-z]+)\s+\w", overview, re.MULTILINE)
    assert listed[: len(COMMANDS)] == list(COMMANDS)
    assert sorted(listed[len(COMMANDS) :]) == sorted(PLUGINS)


@pytest.mark.parametrize("command", PLUGINS)
def test_each_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit:
        main([command, "--help"])
    assert exit.value.code == 0
    assert str(plugins()[command].__doc__).splitlines()[0] in capsys.readouterr().out


def test_without_its_libraries_the_overview_does_not_list_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert plugins() == {}


@pytest.mark.parametrize("command", PLUGINS)
def test_without_its_libraries_the_command_says_how_to_get_them(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert main([command]) == 2
    assert "pip install 'vision-ingest[simulator]'" in capsys.readouterr().err


def test_simulate_prints_the_lines_for_the_configuration_and_stops_on_sigterm() -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "agent.cli", "simulate", "--port", "0"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as shown:
        assert shown.readline() == "[api]\n"
        assert re.fullmatch(r'base_url = "http://127\.0\.0\.1:\d+/rest"\n', shown.readline())
        process.terminate()
        assert process.wait(timeout=PATIENCE_SECONDS) == 0
