"""A real Debian with systemd, booted in a container, to install the package in.

Needs root, debootstrap and systemd-nspawn. Trees are kept; each machine writes to an overlay in memory.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tests.support.daemon import await_until
from tests.support.kept import KEPT, alone

PACKAGES = ("systemd", "systemd-sysv", "python3", "ca-certificates", "procps", "man-db", "ffmpeg")
ATTEMPTS = 3


def debian_tree(suite: str) -> Path:
    """The root directory of this Debian suite; created at first use, kept for later runs.

    Raises:
        RuntimeError: debootstrap failed; with its output.
    """
    done = KEPT / f"debian-{suite}-{'+'.join(PACKAGES)}"
    with alone(f"debian-{suite}.lock"):
        said = ""
        for _ in range(ATTEMPTS):
            if done.exists():
                return done
            # Each attempt in a directory of its own: debootstrap does not go on where it stopped.
            fresh = Path(tempfile.mkdtemp(prefix=f"building-{suite}-", dir=KEPT))
            include = f"--include={','.join(PACKAGES)}"
            made = subprocess.run(
                ["debootstrap", "--variant=minbase", include, suite, fresh / "tree"],
                capture_output=True,
                text=True,
                check=False,
            )
            if made.returncode == 0:
                (fresh / "tree").rename(done)
            else:
                said = "\n".join((made.stdout + made.stderr).splitlines()[-15:])
            shutil.rmtree(fresh)
        if not done.exists():
            raise RuntimeError(f"debootstrap could not make a Debian {suite}: {said}")
    return done


class DebianMachine:
    """A booted machine; it shares the host's network, so that the simulator is on its loopback.

    Args:
        suite: code name of the release: "bookworm", "trixie".
        shared: a directory that is mounted as /shared.
    """

    def __init__(self, suite: str, shared: Path) -> None:
        self._tree = debian_tree(suite)
        self._shared = shared
        self._console = (shared / "console.log").open("wb")
        self._nspawn: subprocess.Popen[bytes] | None = None
        self._init = 0

    def __enter__(self) -> DebianMachine:
        self._nspawn = subprocess.Popen(
            [
                *("systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--volatile=overlay", "--boot"),
                *(f"--directory={self._tree}", f"--machine=vi-{os.getpid()}-{time.monotonic_ns()}"),
                *(f"--bind={self._shared}:/shared", "--resolv-conf=off", "--console=pipe"),
            ],
            env=os.environ | {"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1"},
            stdin=subprocess.DEVNULL,
            stdout=self._console,
            stderr=self._console,
        )
        try:
            await_until(self._has_booted, "the machine to boot", seconds=180)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._nspawn is not None
        self._nspawn.terminate()
        try:
            self._nspawn.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self._nspawn.kill()
            self._nspawn.wait()
        self._console.close()

    def run(self, *command: str, check: bool = True, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command as root in the machine; on failure, show its output and the journal."""
        done = self._run(*command, **environ)
        if check and done.returncode != 0:
            journal = self._run("journalctl", "--no-pager", "-n", "40", "-o", "cat").stdout
            raise AssertionError(
                f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}\n--- journal\n{journal}"
            )
        return done

    def output(self, *command: str, **environ: str) -> str:
        """The output of a command that may fail."""
        done = self._run(*command, **environ)
        return done.stdout + done.stderr

    def property(self, name: str, unit: str = "vision-ingest.service") -> str:
        return self._run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def journal(self) -> str:
        return self._run("journalctl", "--no-pager", "-u", "vision-ingest", "-o", "cat").stdout

    def host_pid(self, pid: int) -> int:
        """The PID on the host of a process of the machine."""
        namespace = Path(f"/proc/{self._init}/ns/pid").readlink()
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if (process / "ns/pid").readlink() != namespace:
                    continue
                inside = (process / "status").read_text().partition("NSpid:")[2].split("\n")[0].split()[-1]
            except OSError:
                continue  # it ended meanwhile
            if int(inside) == pid:
                return int(process.name)
        raise AssertionError(f"the machine has no process {pid}")

    def _run(self, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
        variables = [f"{name}={value}" for name, value in {"PATH": "/usr/sbin:/usr/bin", **environ}.items()]
        return subprocess.run(
            ["nsenter", f"--target={self._init}", "--all", "env", "-i", *variables, *command],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def _has_booted(self) -> bool:
        assert self._nspawn is not None
        assert self._nspawn.poll() is None, (self._shared / "console.log").read_text(errors="replace")
        children = Path(f"/proc/{self._nspawn.pid}/task/{self._nspawn.pid}/children").read_text().split()
        if not children:
            return False
        self._init = int(children[0])
        state = self._run("systemctl", "is-system-running").stdout.strip()
        return state in ("running", "degraded")
