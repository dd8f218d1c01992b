"""Sending 20 clips of 48 MB over TLS on loopback, in requests of 192 MB, compared with curl."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from zoneinfo import ZoneInfo

from agent.vision.bodies import JsonBulkBody
from tests.benchmarks import curl
from tests.benchmarks.figures import Figure, at_least, at_most, ratio
from tests.benchmarks.sender import Cost, Sender, uploads
from tests.benchmarks.sink import MEMORY, Sink, sink

CLIPS = 20
CLIP_BYTES = 48_000_000
# As many as the default of upload.batch_bytes allows.
CLIPS_A_REQUEST = 4
GIGABYTES = CLIPS * CLIP_BYTES / 1e9


def measure(rounds: int) -> Iterable[Figure]:
    memory = MEMORY if MEMORY.is_dir() else None
    with tempfile.TemporaryDirectory(prefix="vision-ingest-sending-", dir=memory) as directory:
        place = Path(directory)
        batches = _clips(place)
        body = _prepare(batches[0], place / "body.json")
        with sink() as api, Sender(api.base_url, api.ca_file) as sender:
            yield from _compare(rounds, api, sender, batches, [body] * len(batches))


def _compare(rounds: int, api: Sink, sender: Sender, batches: list[list[Path]], bodies: list[Path]) -> Iterator[Figure]:
    sender.send(batches[:1], "multipart")
    curl.send_forms(api, batches[:1])
    ours_form: list[Cost] = []
    curl_form: list[Cost] = []
    ours_json: list[Cost] = []
    curl_json: list[Cost] = []

    def turn(position: int) -> None:
        match position:
            case 0:
                ours_form.append(sender.send(batches, "multipart"))
            case 1:
                curl_form.append(curl.send_forms(api, batches))
            case 2:
                ours_json.append(sender.send(batches, "json"))
            case 3:
                curl_json.append(curl.send_prepared(api, bodies))

    for number in range(rounds):
        # Whoever goes first in one round goes last in the next.
        for position in range(4) if number % 2 == 0 else reversed(range(4)):
            turn(position)
    yield ratio(
        "upload throughput, multipart",
        _rates(ours_form),
        _rates(curl_form),
        unit="MB/s",
        peer="curl -F",
        goal=at_least(1.0),
    )
    yield ratio(
        "upload throughput, JSON with base64",
        _rates(ours_json),
        _rates(curl_json),
        unit="MB/s of footage",
        peer="curl with a body that is ready",
        goal=at_least(0.6),
    )
    yield ratio(
        "processor time of sending, multipart",
        [cost.cpu_seconds / GIGABYTES for cost in ours_form],
        [cost.cpu_seconds / GIGABYTES for cost in curl_form],
        unit="s/GB",
        peer="curl -F",
        goal=at_most(1.15),
    )


def _rates(costs: list[Cost]) -> list[float]:
    """Megabytes of footage per second."""
    return [1000 * GIGABYTES / cost.seconds for cost in costs]


def _clips(place: Path) -> list[list[Path]]:
    """Twenty hard links to one file, so that both sides read it from memory."""
    first = place / "clip.mp4"
    with first.open("wb") as file:
        for _ in range(CLIP_BYTES // 1_000_000):
            file.write(os.urandom(1_000_000))
    files = []
    for number in range(CLIPS):
        files.append(place / f"{number:02}.mp4")
        files[-1].hardlink_to(first)
    return [files[at : at + CLIPS_A_REQUEST] for at in range(0, CLIPS, CLIPS_A_REQUEST)]


def _prepare(batch: list[Path], file: Path) -> Path:
    with file.open("wb") as body:
        for piece in JsonBulkBody(uploads(batch), ZoneInfo("UTC")):
            body.write(piece)
    return file
