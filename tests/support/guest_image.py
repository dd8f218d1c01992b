"""A small Debian with the agent that boots in an emulator within seconds, made from Debian's packages.

Needs no root: packages are unpacked, not installed, and the file system is made from a directory. apt verifies the
signatures, with a state directory of its own.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from tests.support.kept import KEPT, alone

ROOT = Path(__file__).parents[2]
SOURCES = Path(__file__).parent / "guest_files"
# The camera of the guest is the simulator's.
PACKAGES = ("agent", "simulator")
PROGRAMS = ("python3", "busybox-static")
KERNEL = "linux-image-cloud-amd64"
DRIVERS = ("virtio_pci", "virtio_blk", "virtio_net", "ext4")
ATTEMPTS = 3
# Another checkout may be using an image of its own.
KEPT_SECONDS = 2 * 86_400


@dataclass(frozen=True, slots=True)
class GuestImage:
    """The files that an emulator boots."""

    kernel: Path
    initrd: Path
    root: Path


def guest_image() -> GuestImage:
    """The guest for the current source; created at first use, kept for later runs."""
    done = KEPT / f"guest-{_key()}"
    with alone("lock"):
        for old in KEPT.glob("guest-*"):
            if time.time() - old.stat().st_mtime > KEPT_SECONDS:
                shutil.rmtree(old)
        for attempt in range(ATTEMPTS):
            if done.exists():
                break
            with tempfile.TemporaryDirectory(prefix="building-", dir=KEPT) as fresh:
                try:
                    _build(Path(fresh))
                except subprocess.CalledProcessError as exc:
                    said = f"{' '.join(map(str, exc.cmd))}:\n{exc.stdout}\n{exc.stderr}"
                    print(said, file=sys.stderr)
                    if attempt == ATTEMPTS - 1:
                        raise RuntimeError(f"the guest could not be built: {said}") from exc
                else:
                    (Path(fresh) / "image").rename(done)
        os.utime(done)
    return GuestImage(done / "kernel", done / "initrd", done / "root.ext4")


def dependencies(name: str = "vision-ingest") -> dict[str, metadata.Distribution]:
    """The installed runtime dependencies of the agent, by name."""
    found: dict[str, metadata.Distribution] = {}
    names = [name]
    while names:
        for requirement in metadata.requires(names.pop()) or []:
            wanted = re.match(r"[A-Za-z0-9._-]+", requirement)
            assert wanted is not None
            if wanted[0] in found or ";" in requirement:
                continue
            found[wanted[0]] = metadata.distribution(wanted[0])
            names.append(wanted[0])
    return found


def _key() -> str:
    """A digest of everything in the image."""
    digest = hashlib.sha256(platform.freedesktop_os_release()["PRETTY_NAME"].encode())
    for name, library in sorted(dependencies().items()):
        digest.update(f"{name} {library.version}".encode())
    ours = [file for package in PACKAGES for file in (ROOT / package).rglob("*.py")]
    for file in sorted([Path(__file__), *SOURCES.iterdir(), *ours]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _build(place: Path) -> None:
    packages = _fetch(place / "apt")
    tree, image = place / "tree", place / "image"
    image.mkdir()
    for directory in ("usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "dev", "proc", "run", "tmp", "data", "card"):
        (tree / directory).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib64"):
        (tree / name).symlink_to(f"usr/{name}")
    for package in packages:
        _unpack(package, tree)
    (kernel,) = (tree / "boot").glob("vmlinuz-*")
    kernel.rename(image / "kernel")
    busybox = tree / "usr/bin/busybox"
    (image / "initrd").write_bytes(_initrd(busybox.read_bytes(), next((tree / "usr/lib/modules").iterdir())))
    for superfluous in ("boot", "usr/lib/modules", "usr/share", "usr/lib/python3.11/test"):
        shutil.rmtree(tree / superfluous, ignore_errors=True)
    for command in ("cat", "ip", "mkdir", "mount", "poweroff", "sh", "sync", "touch"):
        if not (tree / "usr/bin" / command).exists():
            (tree / "usr/bin" / command).symlink_to("busybox")
    _install(tree)
    _run("mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", tree, image / "root.ext4", "160M")


def _fetch(state: Path) -> list[Path]:
    """Download the kernel, the programs and their dependencies."""
    (state / "lists/partial").mkdir(parents=True)
    (state / "archives/partial").mkdir(parents=True)
    (state / "status").touch()
    places = {
        "Dir::State": state,
        "Dir::State::status": state / "status",
        "Dir::Cache": state,
        "APT::Install-Recommends": "false",
        "Acquire::Retries": "3",
        "Debug::NoLocking": "true",
    }
    options = [f"-o{name}={value}" for name, value in places.items()]
    _run("apt-get", *options, "-q", "update")
    said = _run("apt-cache", *options, "depends", KERNEL)
    kernel = re.search(r"Depends: (linux-image-\d\S+)", said)
    assert kernel is not None, said
    _run("apt-get", *options, "-q", "-y", "install", "--download-only", *PROGRAMS)
    # Not "install": that would need a generator of initial ramdisks.
    _run("apt-get", *options, "-q", "download", kernel[1], cwd=state / "archives")
    return sorted((state / "archives").glob("*.deb"))


def _unpack(package: Path, tree: Path) -> None:
    """Unpack without running maintainer scripts; links such as /bin -> /usr/bin are kept."""
    archive = subprocess.run(["dpkg-deb", "--fsys-tarfile", package], capture_output=True, check=True).stdout
    options = ["--keep-directory-symlink", "--no-same-owner", "--exclude=./usr/share/doc", "--exclude=./usr/share/man"]
    subprocess.run(["tar", "-x", "-C", tree, *options], input=archive, capture_output=True, check=True)


def _install(tree: Path) -> None:
    """Install the agent, its libraries and the scripts of the guest; compiled, because the emulator is slow."""
    program = tree / "opt/vision-ingest"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, program / package, ignore=shutil.ignore_patterns("__pycache__"))
    for library in dependencies().values():
        for file in library.files or []:
            # Compiled modules were made for the Python that runs the tests; each has a sibling in plain Python.
            if file.parts[0] != ".." and file.suffix not in (".so", ".pyc"):
                target = program / file
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(Path(str(library.locate_file(file))), target)
    (tree / "opt/guest").mkdir()
    for script in ("camera.py", "report.py"):
        shutil.copy(SOURCES / script, tree / "opt/guest")
    (tree / "usr/sbin/init").write_bytes((SOURCES / "init").read_bytes())
    (tree / "usr/sbin/init").chmod(0o755)
    libraries = tree / f"usr/lib/{platform.machine()}-linux-gnu"
    python = [tree / "usr/lib64/ld-linux-x86-64.so.2", "--library-path", libraries, tree / "usr/bin/python3"]
    modules = next((tree / "usr/lib").glob("python3.*"))
    compile = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", tree]
    _run(*python, *compile, modules, program, environ={"PYTHONHOME": str(tree / "usr")})


def _initrd(busybox: bytes, modules: Path) -> bytes:
    """A ramdisk with busybox and the drivers, in order of their dependencies."""
    files = {path.name.split(".ko")[0].replace("-", "_"): path for path in modules.rglob("*.ko*")}
    order: list[str] = []
    for driver in DRIVERS:
        _add_with_needs(driver, files, order)
    archive = Cpio()
    for directory in ("bin", "dev", "proc", "root", "modules"):
        archive.add(directory, b"", 0o040755)
    archive.add("bin/busybox", busybox, 0o100755)
    archive.add("init", (SOURCES / "initrd-init").read_bytes(), 0o100755)
    archive.add("modules/order", "\n".join(order).encode(), 0o100644)
    for name in order:
        archive.add(f"modules/{name}", _module(files[name]), 0o100644)
    return archive.ended()


def _add_with_needs(name: str, files: dict[str, Path], order: list[str]) -> None:
    if name in order or name not in files:  # what is no module is in the kernel itself
        return
    said = re.search(rb"\0depends=([^\0]*)\0", _module(files[name]))
    soft = re.findall(rb"\0softdep=pre: ([^\0]*)\0", _module(files[name]))
    needs = (said[1].decode().split(",") if said else []) + [word.decode() for words in soft for word in words.split()]
    for needed in needs:
        _add_with_needs(needed.replace("-", "_"), files, order)
    order.append(name)


def _module(file: Path) -> bytes:
    return lzma.decompress(file.read_bytes()) if file.suffix == ".xz" else file.read_bytes()


class Cpio:
    """An archive in the format that the kernel unpacks (cpio, "newc")."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._count = 0

    def add(self, name: str, content: bytes, mode: int) -> None:
        self._count += 1
        encoded = name.encode() + b"\0"
        numbers = (self._count, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % number for number in numbers)
        self._parts += [_padded(header + encoded), _padded(content)]

    def ended(self) -> bytes:
        self.add("TRAILER!!!", b"", 0)
        return b"".join(self._parts)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 4)


def _run(*command: object, cwd: Path | None = None, environ: dict[str, str] | None = None) -> str:
    words = [str(word) for word in command]
    surroundings = os.environ | (environ or {}) | {"LC_ALL": "C"}
    return subprocess.run(words, capture_output=True, text=True, check=True, cwd=cwd, env=surroundings).stdout
