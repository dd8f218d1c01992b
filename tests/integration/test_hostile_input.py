"""Hostile files and names, foreign responses and damaged rows: nothing crashes, hangs or forges a log line."""

from __future__ import annotations

import io
import json
import os
import random
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest

from agent.media import mp4
from agent.model import State
from simulator.recorder import recording
from simulator.server import Simulator
from tests.conftest import Figure
from tests.support.daemon import DaemonProcess, await_until
from tests.support.hostile.movies import box, movies, mutated

pytestmark = [pytest.mark.daemon, pytest.mark.slow]

SEED = int(os.environ.get("VISION_INGEST_FUZZ_SEED", "20260728"))
START = datetime(2026, 7, 28, 14, 0, 0, tzinfo=timezone.utc)
THAI = "\u0e01" * 20
GOOD = ("ABC1234X", "ABC-1234", "B 7", "\u00c4\u00d6 1", THAI)

INPUTS = {
    "box reader": 200_000,
    "names": 200_000,
    "stored names": 50_000,
    "answers": 100_000,
    "rows of the queue": 50_000,
    "sidecars": 20_000,
    "configurations": 10_000,
    "log lines": 20_000,
    "control requests": 5_000,
}
# CPU time for one input, in units of `reference_seconds`. A few milliseconds, less than one unit, are usual.
MAX_COST = 145

FORGED = '{"event": "delivered", "level": "info", "clip": 1}'
NAMES = (
    b"evil\n" + FORGED.encode() + b"\n_1_20260728_150001.mp4",
    b"evil\n12:00:00 [info     ] delivered clip=1\n_1_20260728_150002.mp4",
    b"evil\n<6>delivered clip=1\n_1_20260728_150003.mp4",
    b"\x1b[2J\x1b[31mred\x1b[0m\x07_1_20260728_150004.mp4",
    b"\xff\xfe\x80_1_20260728_150005.mp4",
    "\u202egpj.4pm_1_20260728_150006.mp4".encode(),
    b'":}]\'"; rm -rf $(HOME) `id`_1_20260728_150007.mp4',
    b"%2e%2e%2f..%2fetc%2fpasswd_1_20260728_150008.mp4",
    b"[red]markup[red]:bomb:_1_20260728_150009.mp4",
    b"x" * 251 + b".mp4",
    b"\r\t\x7f\xc2\x85.mp4",
    b"--help.mp4",
    b"99999999_9_99999999_999999.mp4",
    b"ABC1234X_999_20260728_150010.mp4",
)
CONTROL = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\ud800-\udfff]")


@pytest.mark.parametrize("reader", INPUTS)
def test_readers_are_quick_use_little_memory_and_raise_only_documented_errors(reader: str, figure: Figure) -> None:
    """VISION_INGEST_FUZZ_SEED sets another seed. `python -m tests.support.hostile` runs one reader."""
    print(f"{reader}: {INPUTS[reader]:,} inputs, seed {SEED}")
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.hostile", reader, str(INPUTS[reader]), str(SEED)],
        capture_output=True,
        text=True,
        timeout=800,
        check=False,
    )
    assert done.returncode == 0, f"seed {SEED}:\n{done.stderr[-4000:]}"
    outcome = json.loads(done.stdout)
    assert sum(outcome["outcomes"].values()) == INPUTS[reader]
    assert len(outcome["outcomes"]) > 1, outcome
    assert outcome["slowest_seconds"] < MAX_COST * outcome["reference_seconds"], (
        f"input {outcome['slowest']} of seed {SEED}"
    )
    figure(f"inputs fuzzed: {reader}", INPUTS[reader])
    figure(f"slowest input, CPU ms: {reader}", outcome["slowest_seconds"] * 1000, most=True)
    figure("peak memory while fuzzing, MB", outcome["peak_bytes"] / 1e6, most=True)


def bad_movies() -> Iterator[bytes]:
    """Files with valid names that are no movies, or have impossible sizes."""
    ftyp, mdat = box(b"ftyp", b"isom", bytes(8)), box(b"mdat", b"pictures")
    yield ftyp + box(b"free") * 70_000 + mdat
    yield ftyp + struct.pack(">I4sQ", 1, b"mdat", 2**63)
    yield ftyp + struct.pack(">I4sQ", 1, b"moov", 2**64 - 1) + mdat
    yield ftyp + mdat + struct.pack(">I4s", 0, b"moov")
    nested = b""
    for _ in range(10_000):
        nested = struct.pack(">I4s", len(nested) + 8, b"moov") + nested
    yield ftyp + mdat + nested
    rng = random.Random(SEED)
    found = 0
    while found < 100:
        content = mutated(rng.choice(movies()), rng)
        try:
            mp4.read(io.BytesIO(content))
        except mp4.Mp4Error:
            found += 1
            yield content


def fill_with_hostile_files(folder: Path, outside: Path) -> int:
    """Returns the number of regular files, each of which must be refused."""
    for name in NAMES:
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(recording(1.0, seed=repr(name)))
    contents = list(bad_movies())
    for number, content in enumerate(contents):
        start = START + timedelta(hours=2, seconds=number)
        (folder / f"ABC1234X_1_{start:%Y%m%d_%H%M%S}.mp4").write_bytes(content)
    with (folder / "ABC1234X_1_20260728_170000.mp4").open("wb") as file:
        file.write(movies()[0])
        file.truncate(9_000_000_000)
    sidecars = (
        "[" * 60_000,
        '{"registration": "../../etc/passwd"}',
        '{"camera": ' + "9" * 5000 + "}",
        '{"start": "\\ud800\\n"}',
    )
    for number, said in enumerate(sidecars):
        path = folder / f"ABC1234X_2_20260728_18000{number}.mp4"
        path.with_suffix(".json").write_text(said)
        path.write_bytes(recording(1.0, seed=said))
    (folder / "ABC1234X_1_20260728_190000.mp4").symlink_to(outside)
    (folder / "ABC1234X_1_20260728_190001.mp4").symlink_to("ABC1234X_1_20260728_190001.mp4")
    (folder / "folder").symlink_to("/")
    (folder / "ABC1234X_1_20260728_190002.mp4").mkdir()
    os.mkfifo(folder / "ABC1234X_1_20260728_190003.mp4")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "s.mp4"))
    make_deep(folder)
    return len(NAMES) + len(contents) + 1 + len(sidecars)


def make_deep(folder: Path) -> None:
    """Nested folders, so deep that no path reaches the innermost one, which has footage too."""
    at = os.open(folder, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=at)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = inner
    os.close(os.open("ABC1234X_1_20260728_190004.mp4", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)


LINES = {
    "json": None,
    "console": re.compile(r"\d\d:\d\d:\d\d \[\w+ *\] \w+( |$)"),
    "journal": re.compile(r"<[34567]>\w+( \w+=|$)"),
}


@pytest.mark.parametrize("form", LINES)
def test_good_clips_arrive_from_a_hostile_card_and_no_name_forges_a_log_line(
    form: str, tmp_path: Path, figure: Figure
) -> None:
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(recording(1.0, seed="not footage"))
    log_format = "auto" if form == "journal" else form
    with Simulator() as simulator:
        daemon = DaemonProcess(
            tmp_path, simulator.base_url, {"log": f'format = "{log_format}"', "[footage]": "settle_seconds = 0.1"}
        )
        hostile = fill_with_hostile_files(daemon.footage, secret)
        for number, registration in enumerate(GOOD):
            name = f"{registration}_1_{START + timedelta(minutes=number):%Y%m%d_%H%M%S}.mp4"
            (daemon.footage / name).write_bytes(recording(1.0, seed=registration))
        daemon.log_file.touch()
        status = daemon.log_file.stat()
        daemon.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
        with daemon:
            delivered = daemon.await_records(len(GOOD), State.DELIVERED, seconds=300)
            refused = daemon.await_records(hostile, State.REFUSED, seconds=300)
            await_until(lambda: daemon.log.count("footage_skipped") >= 5, "links and pipes to be skipped", 300)
            asked = [
                daemon.command("status"),
                daemon.command("clips", "--last", "0"),
                daemon.command("clips", "--last", "0", "--json"),
                *(daemon.command("why", os.fsdecode(name)) for name in NAMES[:9]),
                daemon.command("why", "evil\n\x1b[2J\udcff"),
            ]
            memory_bytes = daemon.peak_memory_bytes()
            assert daemon.process.poll() is None
    assert {record.key.registration for record in delivered if record.key} == set(GOOD)
    assert {video.registration for video in simulator.received} == set(GOOD)
    assert len(delivered) == len(simulator.received) == len(GOOD)
    assert len(refused) == hostile
    assert all(len(record.reason) > 10 and record.reason.isprintable() for record in refused)
    for answer in asked:
        assert not CONTROL.search(answer.stdout + answer.stderr), answer
    assert [answer.returncode for answer in asked] == [0] * (len(asked) - 1) + [1]
    check_log(daemon.log_file.read_text(), form)
    assert memory_bytes < 200_000_000
    assert not list((daemon.spool / "clips").iterdir())
    assert secret.exists()
    figure("hostile files beside good ones", hostile)
    figure("peak memory with hostile files, MB", memory_bytes / 1e6, most=True)


def check_log(log: str, form: str) -> None:
    """Each line is one of the daemon's own events, and each event is logged as often as it happened."""
    lines = log.removesuffix("\n").split("\n")
    assert all(line.isprintable() for line in lines)
    if form == "json":
        events = [json.loads(line)["event"] for line in lines]
    else:
        shape = LINES[form]
        assert shape is not None
        assert all(shape.match(line) for line in lines), [line for line in lines if not shape.match(line)]
        events = [re.sub(r"^(<\d>|\S+ \[\w+ *\] )", "", line).split(" ")[0] for line in lines]
    assert events.count("started") == 1
    assert events.count("delivered") == 0, "the daemon has no such event: a file's name forged it"
    assert {"footage_refused", "clip_waiting", "footage_skipped"} <= set(events)
