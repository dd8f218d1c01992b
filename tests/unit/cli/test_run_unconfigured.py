"""The service without a valid configuration: it runs, tells what is missing, and does not crash in a loop."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.daemon import PATIENCE_SECONDS

pytestmark = pytest.mark.daemon

ROOT = Path(__file__).parents[3]


class Service:
    def __init__(self, place: Path, *program: str) -> None:
        self.config = place / "config.toml"
        self.config.write_text("# nothing yet\n")
        self.manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.manager.bind(str(place / "notify"))
        self.manager.settimeout(PATIENCE_SECONDS)
        self.process = subprocess.Popen(
            [sys.executable, *(program or ("-m", "agent.cli")), "run", "--config", str(self.config)],
            env=os.environ | {"NOTIFY_SOCKET": str(place / "notify")},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )

    def told(self, beginning: str) -> str:
        """Wait for a message that starts with this."""
        while True:
            message = self.manager.recv(4096).decode()
            if message.startswith(beginning):
                return message

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()
        self.manager.close()


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with closing(Service(tmp_path)) as service:
        yield service


def test_without_a_configuration_it_is_ready_and_tells_what_to_do(service: Service) -> None:
    service.told("READY=1")
    assert "sudo vision-ingest setup" in service.told("STATUS=")
    service.told("WATCHDOG=1")
    assert service.process.poll() is None
    service.process.send_signal(signal.SIGTERM)
    _, log = service.process.communicate(timeout=PATIENCE_SECONDS)
    assert service.process.returncode == 0
    assert log.count("not_configured") == 1
    assert "api.username" in log


def test_it_exits_when_the_configuration_changes(service: Service) -> None:
    service.told("WATCHDOG=1")
    drop_ins = service.config.with_suffix(".d")
    drop_ins.mkdir()
    (drop_ins / "setup.toml").write_text('[api]\nregion = "za"\n')
    service.told("STOPPING=1")
    assert service.process.wait(timeout=PATIENCE_SECONDS) == 0


CHANGED_WHILE_IT_IS_READ = """
import sys
from agent import cli
from agent import daemon

read = daemon.read_config

def read_config(file):
    try:
        return read(file)
    finally:
        file.chmod(0o640)

daemon.read_config = read_config
sys.exit(cli.main())
"""


def test_a_change_while_the_configuration_is_read_is_not_missed(tmp_path: Path) -> None:
    with closing(Service(tmp_path, "-c", CHANGED_WHILE_IT_IS_READ)) as service:
        service.told("STOPPING=1")
        assert service.process.wait(timeout=PATIENCE_SECONDS) == 0


def test_started_by_hand_it_exits_with_the_code_for_configuration(service: Service) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "agent.cli", "run", "--config", str(service.config)],
        env={key: value for key, value in os.environ.items() if key != "NOTIFY_SOCKET"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE_SECONDS,
    )
    assert ended.returncode == 2
    assert "sudo vision-ingest setup" in ended.stderr


def test_a_changed_permission_counts_as_a_change(service: Service) -> None:
    service.told("WATCHDOG=1")
    service.config.chmod(0o640)
    service.told("STOPPING=1")
    assert service.process.wait(timeout=PATIENCE_SECONDS) == 0
