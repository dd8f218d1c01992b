"""`vision-ingest setup`, with all options given as for provisioning, and at a terminal."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from agent.cli import main
from agent.config import load
from simulator.server import Simulator


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("VISION_INGEST_PASSWORD", raising=False)
    yield
    structlog.reset_defaults()


@pytest.fixture
def password(tmp_path: Path) -> Path:
    file = tmp_path / "given"
    file.write_text("bench\n")
    return file


def answers(tmp_path: Path, simulator: Simulator, password: Path) -> list[str]:
    (tmp_path / "footage").mkdir(exist_ok=True)
    return [
        *("setup", "--config", str(tmp_path / "etc" / "config.toml"), "--no-restart"),
        *("--base-url", simulator.base_url, "--username", "bench", "--password-file", str(password)),
        *("--registration", "ABC1234X", "--camera", "2", "--footage", str(tmp_path / "footage")),
        *("--timezone", "Africa/Johannesburg", "--vehicles", "2500"),
    ]


def test_with_all_options_it_asks_nothing_and_writes_a_valid_config(
    tmp_path: Path, simulator: Simulator, password: Path
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "config.toml").write_text(
        f'[spool]\ndirectory = "{tmp_path}/spool"\nmin_free_bytes = 0\n[clock]\ntrust = "always"\n', encoding="utf-8"
    )
    assert main(answers(tmp_path, simulator, password)) == 0
    config = load(tmp_path / "etc" / "config.toml")
    assert (config.api.username, config.api.password.reveal()) == ("bench", "bench")
    assert (config.vehicle.registration, config.vehicle.camera) == ("ABC1234X", 2)
    assert [(folder.path, str(folder.timezone)) for folder in config.footage] == [
        (tmp_path / "footage", "Africa/Johannesburg")
    ]
    assert config.spool.directory == tmp_path / "spool"
    assert config.upload.vehicles == 2500


def test_the_password_file_is_readable_only_by_its_owner(tmp_path: Path, simulator: Simulator, password: Path) -> None:
    main(answers(tmp_path, simulator, password))
    kept = tmp_path / "etc" / "api-password"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert kept.read_text() == "bench\n"
    assert "bench" not in (tmp_path / "etc" / "config.d" / "setup.toml").read_text().replace('username = "bench"', "")


def test_run_again_with_one_option_it_keeps_the_other_answers(
    tmp_path: Path, simulator: Simulator, password: Path
) -> None:
    main(answers(tmp_path, simulator, password))
    config_file = tmp_path / "etc" / "config.toml"
    main(["setup", "--config", str(config_file), "--no-restart", "--registration", "XYZ 9"])
    config = load(config_file)
    assert (config.vehicle.registration, config.vehicle.camera) == ("XYZ 9", 2)
    assert config.api.base_url == simulator.base_url
    assert config.api.password.reveal() == "bench"


@pytest.mark.parametrize("option", ["--username", "--footage", "--password-file"])
def test_a_missing_option_is_named_without_a_terminal(
    tmp_path: Path, simulator: Simulator, password: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = answers(tmp_path, simulator, password)
    place = given.index(option)
    assert main(given[:place] + given[place + 2 :]) == 1
    assert f"{option} is missing" in capsys.readouterr().err
    assert not (tmp_path / "etc" / "config.d").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        ("--timezone", "Africa/Joburg", "did you mean"),
        ("--camera", "999", "out of range"),
        ("--username", "a:b", "colon"),
        ("--preset", "viofoo", "is unknown"),
    ],
    ids=lambda wrong: wrong[0],
)
def test_an_invalid_answer_writes_nothing_and_tells_what_is_allowed(
    tmp_path: Path,
    simulator: Simulator,
    password: Path,
    wrong: tuple[str, str, str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    option, value, words = wrong
    assert main([*answers(tmp_path, simulator, password), option, value]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "etc").exists()


def test_the_exit_code_is_that_of_the_check(tmp_path: Path, simulator: Simulator, password: Path) -> None:
    password.write_text("wrong\n")
    assert main(answers(tmp_path, simulator, password)) != 0


def test_at_a_terminal_it_asks_again_after_an_invalid_answer(
    tmp_path: Path, simulator: Simulator, password: Path
) -> None:
    import pty
    import subprocess
    import sys

    given = answers(tmp_path, simulator, password)
    place = given.index("--timezone")
    terminal, its_end = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "agent.cli", *given[:place]],
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        cwd=Path(__file__).parents[3],
    ) as asking:
        os.close(its_end)
        os.write(terminal, b"\nEurope/Berln\nEurope/Berlin\n")
        shown = b""
        while True:
            try:
                piece = os.read(terminal, 4096)
            except OSError:  # EIO: the other end is closed
                break
            shown += piece
        asking.wait(60)
    os.close(terminal)
    assert b"Kind of camera [auto]" in shown
    assert b"did you mean" in shown
    assert str(load(tmp_path / "etc" / "config.toml").footage[0].timezone) == "Europe/Berlin"


def test_an_empty_password_keeps_the_previous_one(
    tmp_path: Path, simulator: Simulator, password: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(answers(tmp_path, simulator, password))
    password.write_text("")
    assert main(answers(tmp_path, simulator, password)) == 1
    assert "the password is empty" in capsys.readouterr().err
    assert (tmp_path / "etc" / "api-password").read_text() == "bench\n"


def test_the_service_is_not_restarted_with_an_invalid_configuration(
    tmp_path: Path, simulator: Simulator, password: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "config.toml").write_text(f'[[footage]]\npath = "{tmp_path}/footage"\n')
    given = [word for word in answers(tmp_path, simulator, password) if word != "--no-restart"]
    assert main(given) == 2
    assert "The service was not restarted" in capsys.readouterr().out
