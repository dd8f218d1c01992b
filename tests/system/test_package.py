"""The package: its contents, that its build is reproducible, and that it runs on the oldest supported Python."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent import __version__
from simulator.recorder import recording
from simulator.server import Simulator
from tests.support.daemon import await_until
from tests.support.package import ROOT, build

pytestmark = pytest.mark.slow
PROGRAM = "usr/share/vision-ingest"


@pytest.fixture(scope="module")
def unpacked(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("unpacked")
    subprocess.run(["dpkg-deb", "--extract", package, tree], check=True)
    return tree


def oldest_python() -> str:
    """Python 3.10, as in Ubuntu 22.04; if it is missing, the next later one, which the test prints."""
    pyenv = Path.home() / ".pyenv/versions"
    for name in ("3.10", "3.11", "3.12", "3"):
        for place in (shutil.which(f"python{name}"), *pyenv.glob(f"{name}.*/bin/python3")):
            if place and subprocess.run([place, "-c", "pass"], check=False, capture_output=True).returncode == 0:
                return str(place)
    raise AssertionError("no Python at all")


def test_built_twice_it_is_the_same_bit_for_bit(package: Path, tmp_path: Path) -> None:
    again = build(tmp_path)
    assert again.read_bytes() == package.read_bytes()


def test_lintian_finds_no_error_and_no_warning(package: Path) -> None:
    checked = subprocess.run(
        ["lintian", "--fail-on", "error,warning", "--allow-root", package], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_it_offers_no_simulator(unpacked: Path) -> None:
    assert not (unpacked / PROGRAM / "simulator").exists()
    completion = (unpacked / "usr/share/bash-completion/completions/vision-ingest").read_text()
    assert "livestream" in completion
    assert "simulate" not in completion


def test_nothing_in_it_was_compiled_and_every_dependency_is_of_the_lock(unpacked: Path) -> None:
    files = [path for path in (unpacked / PROGRAM).rglob("*") if path.is_file()]
    compiled = [path for path in files if path.suffix in (".so", ".pyc", ".pyd") or path.read_bytes()[:4] == b"\x7fELF"]
    assert compiled == []
    lock = (ROOT / "requirements/package.txt").read_text()
    locked = {name.replace("-", "_") + f"-{version}" for name, version in re.findall(r"(?m)^([a-z0-9-]+)==(\S+)", lock)}
    assert {path.stem for path in (unpacked / PROGRAM).glob("*.dist-info")} == locked


def test_the_manual_names_every_command_and_every_key(unpacked: Path) -> None:
    from agent.cli import COMMANDS

    def page(name: str) -> str:
        shown = ["man", "--local-file", str(unpacked / "usr/share/man" / f"man{name[-1]}" / f"{name}.gz")]
        env = os.environ | {"MANWIDTH": "200", "LC_ALL": "C.UTF-8"}
        return subprocess.run(shown, check=True, capture_output=True, text=True, env=env).stdout

    commands = page("vision-ingest.1")
    assert [name for name in COMMANDS if f"{name} - " not in commands] == []
    configuration = page("vision-ingest.toml.5")
    keys = [line.split(" = ")[0].removeprefix("# ") for line in _key_lines()]
    assert [key for key in keys if f"{key} = " not in configuration] == []


def test_the_completion_completes_commands_and_options(unpacked: Path) -> None:
    script = (
        f"source {unpacked}/usr/share/bash-completion/completions/vision-ingest;"
        "COMP_WORDS=(vision-ingest st); COMP_CWORD=1; _vision_ingest; echo ${COMPREPLY[@]};"
        "COMP_WORDS=(vision-ingest setup --reg); COMP_CWORD=2; _vision_ingest; echo ${COMPREPLY[@]}"
    )
    said = subprocess.run(["bash", "-c", script], check=True, capture_output=True, text=True).stdout.splitlines()
    assert said[0] == "status"
    assert set(said[1].split()) == {"--region", "--registration"}


def test_what_it_carries_delivers_a_clip_on_the_oldest_python(unpacked: Path, tmp_path: Path) -> None:
    python = oldest_python()
    version = subprocess.run([python, "--version"], check=True, capture_output=True, text=True).stdout.strip()
    print(f"the package's own tree runs under {version}")
    start = f"import sys; sys.path.insert(0, {str(unpacked / PROGRAM)!r}); from agent.cli import main; sys.exit(main())"
    command = [python, "-I", "-c", start]
    said = subprocess.run([*command, "--version"], check=True, capture_output=True, text=True).stdout
    assert __version__ in said
    footage = tmp_path / "footage"
    footage.mkdir()
    with Simulator() as simulator:
        config = tmp_path / "config.toml"
        config.write_text(
            f'[api]\nbase_url = "{simulator.base_url}"\nusername = "bench"\n[[footage]]\npath = "{footage}"\n'
            f'settle_seconds = 0.5\n[spool]\ndirectory = "{tmp_path}/spool"\nmin_free_bytes = 0\n'
            '[upload]\nlinger_seconds = 0\n[clock]\ntrust = "always"\n'
        )
        environ = {"VISION_INGEST_PASSWORD": "bench", "PATH": "/usr/bin"}
        daemon = subprocess.Popen([*command, "run", "--config", str(config)], env=environ, stderr=subprocess.PIPE)
        try:
            (footage / "ABC1234X_1_20260728_141441.mp4").write_bytes(recording(1.0, seed="oldest"))
            await_until(lambda: len(simulator.received) == 1, "the clip", seconds=120)
            shown = [*command, "status", "--json", "--config", str(config)]

            def delivered() -> bool:
                status = subprocess.run(shown, env=environ, capture_output=True, text=True, check=False).stdout
                return bool(json.loads(status)["clips"]["delivered"]["clips"] == 1)

            await_until(delivered, "the ledger", seconds=60)
        finally:
            daemon.terminate()
            daemon.communicate(timeout=60)
    assert daemon.returncode == 0


def test_pip_installs_the_same_commands_and_says_how_to_get_the_simulator(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    pip = [str(tmp_path / "venv/bin/python"), "-m", "pip", "install", "-q", "--no-warn-script-location"]
    installed = subprocess.run([*pip, str(ROOT)], capture_output=True, text=True, check=False)
    assert installed.returncode == 0, installed.stderr
    said = subprocess.run([tmp_path / "venv/bin/vision-ingest", "--help"], check=True, capture_output=True, text=True)
    built_in = "from agent.cli import build_parser; print(build_parser().format_help(), end='')"
    ours = subprocess.run([sys.executable, "-c", built_in], check=True, capture_output=True, text=True, cwd=ROOT)
    assert said.stdout == ours.stdout
    demo = subprocess.run([tmp_path / "venv/bin/vision-ingest", "demo"], check=False, capture_output=True, text=True)
    assert demo.returncode == 2
    assert "pip install 'vision-ingest[simulator]'" in demo.stderr


def _key_lines() -> list[str]:
    text = (ROOT / "config/vision-ingest.toml").read_text()
    return re.findall(r"^# [a-z_]+ = .*$", text, re.MULTILINE)
