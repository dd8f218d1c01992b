"""The camera of the guest: announces each recording on the serial line and writes it.

It syncs every other recording, and reports that. The rest may be lost in a power cut, unless the agent has reported
that it admitted them.
"""

import hashlib
import os
import random
import sys
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from simulator.recorder import recording

PIECE_BYTES = 20_000
FOLDERS = (Path("/data/footage"), Path("/card/footage"))


def main(boot: int, clips: int) -> None:
    rng = random.Random(boot)
    for number in range(clips):
        # A minute for each clip of the run, so that no two have the same name.
        start = datetime(2026, 7, 1, tzinfo=timezone.utc) + timedelta(minutes=1000 * boot + number)
        file = FOLDERS[number % 2] / f"day-{boot}" / f"ABC1234X_1_{start:%Y%m%d_%H%M%S}.mp4"
        data = recording(10.0, size_bytes=rng.randrange(20_000, 120_000), seed=file.name)
        durable = number % 4 < 2
        print("RECORDING", file.name, hashlib.sha256(data).hexdigest(), flush=True)
        write(file, data, rng, durable=durable)
        if durable:
            print("DURABLE", file.name, flush=True)
        time.sleep(rng.uniform(0.0, 0.3))


def write(file: Path, data: bytes, rng: random.Random, *, durable: bool) -> None:
    file.parent.mkdir(exist_ok=True)
    with file.open("wb", buffering=0) as writing:
        for at in range(0, len(data), PIECE_BYTES):
            writing.write(data[at : at + PIECE_BYTES])
            time.sleep(rng.uniform(0.0, 0.1))
        if durable:
            os.fsync(writing.fileno())
    if durable:
        sync(file.parent)
        sync(file.parent.parent)


def sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


main(int(sys.argv[1]), int(sys.argv[2]))
