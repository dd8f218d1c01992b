"""A device whose power can be cut: an emulated computer with two disks, a camera and the daemon."""

from __future__ import annotations

import json
import random
import re
import subprocess
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support.daemon import await_until
from tests.support.guest_image import guest_image
from tests.support.volatile_disk import VolatileDisk

TAKEN = r'"event": "clip_waiting", .*"footage": "([^"]+)"'
UNFINISHED = "<power cut>"
STARTED = '"event": "started"'
TROUBLE = ("GUEST FAILED", "Kernel panic", "Traceback", '"level": "critical"')
# The emulated processor is some twenty times slower than the real one, which other tests use too.
BOOT_SECONDS = 300.0
BATCH_CLIPS = 8

CONFIG = """
[api]
base_url = "https://10.0.2.2:{port}/rest"
username = "bench"
ca_file = "/data/ca.pem"

[[footage]]
path = "/data/footage"
settle_seconds = 0.5
rescan_seconds = 5

[[footage]]
path = "/card/footage"
settle_seconds = 0.5
rescan_seconds = 5

[spool]
directory = "/data/spool"
max_bytes = "1 GB"
min_free_bytes = 0

[upload]
linger_seconds = 0.5
batch_clips = {batch_clips}

[log]
format = "json"
"""


class Guest:
    """The device. One disk holds the spool and half of the footage (hard-linked); a card holds the rest (copied).

    Args:
        place: an empty directory.
        port: loopback port of the API, with TLS; the guest reaches it as 10.0.2.2.
        authority: CA certificate of the server, as PEM.
    """

    def __init__(self, place: Path, port: int, authority: bytes) -> None:
        self._place = place
        self._image = guest_image()
        self._open = ExitStack()
        self._process: subprocess.Popen[bytes] | None = None
        self._console = place / "console.log"
        self._camera = place / "camera.log"
        self._boots = 0
        self._started_before = 0
        content = {name: place / name for name in ("data", "card")}
        for directory in content.values():
            (directory / "footage").mkdir(parents=True)
        (content["data"] / "config.toml").write_text(CONFIG.format(port=port, batch_clips=BATCH_CLIPS))
        (content["data"] / "ca.pem").write_bytes(authority)
        for name, directory in content.items():
            subprocess.run(
                ["mke2fs", "-q", "-t", "ext4", "-d", directory, place / f"{name}.ext4", "256M"],
                check=True,
                capture_output=True,
            )
        self._disks = [VolatileDisk(place / f"{name}.ext4", place / f"{name}.socket") for name in content]

    def __enter__(self) -> Guest:
        for disk in self._disks:
            self._open.enter_context(disk)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._kill()
        self._open.close()

    @property
    def lost_sectors(self) -> int:
        """How many written sectors were lost in power cuts."""
        return sum(disk.lost_sectors for disk in self._disks)

    @property
    def console(self) -> str:
        return self._console.read_text(errors="replace") if self._console.exists() else ""

    @property
    def recorded(self) -> dict[str, str]:
        """The recordings that the camera started: SHA-256 by name."""
        said = (line.split() for line in self._said() if line.startswith("RECORDING "))
        return {name: sha256 for _, name, sha256 in said}

    @property
    def owed(self) -> set[str]:
        """The recordings that must arrive: those that the camera synced, and those that the agent admitted."""
        durable = {line.split()[1] for line in self._said() if line.startswith("DURABLE ")}
        return durable | {Path(path).name for path in re.findall(TAKEN, self.console)}

    def reports(self) -> list[dict[str, Any]]:
        """The state of the spool at each boot before the daemon started, and later reports."""
        return [json.loads(line.removeprefix("REPORT ")) for line in self._said() if line.startswith("REPORT ")]

    def switch_on(self, clips: int) -> None:
        """Start the device.

        Args:
            clips: number of recordings; with 0, the device reports repeatedly instead.
        """
        self._boots += 1
        self._started_before = self.console.count(STARTED)
        words = "console=ttyS0 quiet panic=-1 mitigations=off random.trust_cpu=on"
        command = [
            *("qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-m", "384", "-no-reboot", "-nodefaults"),
            *("-display", "none", "-kernel", self._image.kernel, "-initrd", self._image.initrd),
            *("-append", f"{words} guest.boot={self._boots} guest.clips={clips}"),
            *("-drive", f"file={self._image.root},format=raw,if=virtio,readonly=on"),
            *(word for disk in self._disks for word in ("-drive", f"file={disk.address},format=raw,if=virtio")),
            *("-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=", "-device", "virtio-rng-pci"),
            *("-chardev", f"file,id=console,path={self._console},append=on", "-serial", "chardev:console"),
            *("-chardev", f"file,id=camera,path={self._camera},append=on", "-serial", "chardev:camera"),
        ]
        with (self._place / "emulator.log").open("ab") as log:
            self._process = subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def await_started(self) -> None:
        """Wait until the daemon of the device runs."""
        await_until(
            lambda: self.console.count(STARTED) > self._started_before or self.trouble() != "",
            "the guest's daemon",
            BOOT_SECONDS,
        )
        assert not self.trouble(), self.trouble()

    def cut(self, rng: random.Random) -> None:
        """Cut the power of the device and its disks."""
        self._kill()
        for disk in self._disks:
            disk.cut(rng)

    def trouble(self) -> str:
        """Errors of the device itself; empty if there are none."""
        if self._process is not None and self._process.poll() is not None:
            return f"the emulator ended:\n{(self._place / 'emulator.log').read_text()}\n{self.console[-3000:]}"
        return "\n".join(line for line in self.console.splitlines() if any(word in line for word in TROUBLE))

    def _said(self) -> list[str]:
        """The complete lines of camera and reports; lines that a power cut truncated are ignored."""
        if not self._camera.exists():
            return []
        lines = self._camera.read_text(errors="replace").replace("\r", "").split("\n")
        return [line for line in lines[:-1] if not line.endswith(UNFINISHED)]

    def _kill(self) -> None:
        if self._process is None:
            return
        self._process.kill()
        self._process.wait()
        self._process = None
        for file in (self._console, self._camera):
            with file.open("a") as log:
                log.write(f"{UNFINISHED}\n")
