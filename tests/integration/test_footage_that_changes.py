"""Footage that the recorder writes to while its clip waits or is sent: no changed content is sent as the clip.

A clip is a hard link where that is possible: what the recorder writes in place reaches the stored file too.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.model import Clip, Footage, State
from simulator.faults import Fault
from simulator.recorder import recording
from simulator.server import Simulator
from tests.conftest import Figure
from tests.support.daemon import DaemonProcess, await_until
from tests.support.delivery_bench import Bench, bench
from tests.support.link_cases import PATIENT
from tests.support.scripted_server import Peer, Script, ScriptedApi, scripted_api
from tests.support.spooling import take
from tests.support.vision_cases import api

pytestmark = pytest.mark.daemon

# More than all buffers between the file and the server hold, so that the end is read after the change.
SIZE_BYTES = 40_000_000
READ_BYTES = 1_000_000


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def overwrite_the_end(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(-1000, os.SEEK_END)
        file.write(b"x" * 1000)


def overwrite_the_beginning(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"x" * 1000)


def truncate_by_half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def truncate_to_nothing(path: Path) -> None:
    os.truncate(path, 0)


def truncate_and_fill_again(path: Path) -> None:
    size_bytes = path.stat().st_size
    os.truncate(path, 0)
    os.truncate(path, size_bytes)


WRITES = [
    append,
    overwrite_the_end,
    overwrite_the_beginning,
    truncate_by_half,
    truncate_to_nothing,
    truncate_and_fill_again,
]


def remove(path: Path) -> None:
    path.unlink()


def replace_by_another(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(b"another recording")
    other.replace(path)


def footage_of(device: Bench, id: int) -> Path:
    return device.record(id).footage.path


def large(device: Bench, number: int) -> tuple[int, str]:
    """A sparse clip, which takes no disk space: its id and the SHA-256 of its bytes."""
    id = device.take(number, hole_to_bytes=SIZE_BYTES)
    content = footage_of(device, id).read_bytes()
    assert len(content) == SIZE_BYTES
    return id, hashlib.sha256(content).hexdigest()


def changing(server: ScriptedApi, change: Callable[[], None], *, after_bytes: int = READ_BYTES) -> Script:
    """Reads a part of the body, changes the footage, reads the rest, and accepts complete uploads."""

    def script(peer: Peer) -> None:
        whole_bytes = peer.pending_bytes()
        while whole_bytes - peer.pending_bytes() < after_bytes:
            peer.take(65_536)
        change()
        server.well(peer)

    return script


@pytest.mark.parametrize("encoding", ["json", pytest.param("multipart", marks=pytest.mark.slow)])
@pytest.mark.parametrize("write", WRITES)
def test_footage_that_is_written_to_while_it_is_sent_never_makes_a_whole_request(
    tmp_path: Path, figure: Figure, write: Callable[[Path], None], encoding: str
) -> None:
    with (
        scripted_api(receive_buffer_bytes=32_768) as server,
        bench(tmp_path, api(server.url, tmp_path, **PATIENT), encoding=encoding) as device,
    ):
        id, _ = large(device, 1)
        server.uploads.append(changing(server, lambda: write(footage_of(device, id))))
        device.step()
        assert server.uploads_begun == 1
        assert device.record(id).state is State.LOST
        assert "its stored file" in device.record(id).reason
        device.step()
        assert (server.uploads_begun, server.videos) == (1, [])
        assert not list((tmp_path / "spool" / "clips").iterdir())
        figure("faults survived: footage written to while it is sent", 1)


@pytest.mark.parametrize("change", [remove, replace_by_another])
def test_footage_that_is_removed_or_replaced_while_it_is_sent_arrives_as_it_was(
    tmp_path: Path, figure: Figure, change: Callable[[Path], None]
) -> None:
    with (
        scripted_api(receive_buffer_bytes=32_768) as server,
        bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device,
    ):
        id, sha256 = large(device, 1)
        server.uploads.append(changing(server, lambda: change(footage_of(device, id))))
        device.step()
        assert device.record(id).state is State.DELIVERED
        assert [video.sha256 for video in server.videos] == [sha256]
        figure("faults survived: footage removed while it is sent", 1)


def test_a_clip_whose_bytes_have_all_left_already_arrives_as_it_was(tmp_path: Path) -> None:
    """The second clip of the batch is being sent when the recorder writes to the footage of the first."""
    with (
        scripted_api(receive_buffer_bytes=32_768) as server,
        bench(tmp_path, api(server.url, tmp_path, **PATIENT), request_seconds=600.0) as device,
    ):
        first = device.take(0)
        before = hashlib.sha256(footage_of(device, first).read_bytes()).hexdigest()
        _, second = large(device, 1)
        server.uploads.append(changing(server, lambda: append(footage_of(device, first))))
        device.step()
        assert device.states() == {State.DELIVERED: 2}
        assert [video.sha256 for video in server.videos] == [before, second]


@pytest.mark.parametrize("write", WRITES)
def test_footage_that_is_written_to_while_it_waits_is_not_sent_and_the_others_are(
    tmp_path: Path, figure: Figure, write: Callable[[Path], None]
) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        ids = [device.take(number) for number in range(3)]
        write(footage_of(device, ids[1]))
        device.go_on_until(lambda: device.states() == {State.DELIVERED: 2, State.LOST: 1})
        assert device.record(ids[1]).state is State.LOST
        assert "was written to after it was stored" in device.record(ids[1]).reason
        assert len(server.videos) == 2
        figure("faults survived: footage written to while it waits", 1)


def touch(path: Path) -> None:
    os.utime(path)


@pytest.mark.parametrize("write", [touch, overwrite_the_beginning, append])
def test_overwritten_footage_is_a_new_clip_and_no_conflict_with_the_spoiled_one(
    tmp_path: Path, write: Callable[[Path], None]
) -> None:
    with scripted_api() as server, bench(tmp_path, api(server.url, tmp_path, **PATIENT)) as device:
        old = device.take(1)
        path, video = footage_of(device, old), device.record(old).key
        assert video is not None
        write(path)
        taken = take(device.spool, Clip(Footage.from_stat(path, path.stat()), video))
        assert (taken.state, taken.again) == (State.WAITING, False)
        device.go_on_until(lambda: device.states() == {State.LOST: 1, State.DELIVERED: 1})
        assert device.record(old).state is State.LOST
        assert [clip.sha256 for clip in server.videos] == [hashlib.sha256(path.read_bytes()).hexdigest()]


NAME = "ABC1234X_1_20260728_140000.mp4"


def held_back(simulator: Simulator, daemon: DaemonProcess, content: bytes) -> Path:
    """Footage that is in the spool while the API fails all preflight requests."""
    simulator.faults.add(Fault("answer", times=0, path="videos/status", status=500))
    path = daemon.footage / NAME
    path.write_bytes(content)
    daemon.await_records(1, State.WAITING, seconds=120)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [1.0, 3.0], ids=["of the same times", "that goes on longer"])
def test_what_the_recorder_made_of_footage_that_waited_is_delivered_in_its_place(
    tmp_path: Path, figure: Figure, seconds: float
) -> None:
    with Simulator() as simulator, DaemonProcess(tmp_path, simulator.base_url) as daemon:
        path = held_back(simulator, daemon, recording(1.0, seed="before", size_bytes=30_000))
        after = recording(seconds, seed="after", size_bytes=60_000)
        path.write_bytes(after)
        daemon.await_records(2, State.WAITING, seconds=120)
        simulator.faults.clear()
        (delivered,) = daemon.await_records(1, State.DELIVERED, seconds=180)
        assert delivered.footage.size_bytes == len(after)
        (lost,) = daemon.await_records(1, State.LOST, seconds=180)
        assert "was written to after it was stored" in lost.reason
        assert [video.sha256 for video in simulator.received] == [hashlib.sha256(after).hexdigest()]
        assert simulator.received[0].updates == 0
        figure("faults survived: footage written to while it waits", 1)


@pytest.mark.slow
def test_footage_that_was_cut_off_while_it_waited_is_lost_and_says_so(tmp_path: Path, figure: Figure) -> None:
    with Simulator() as simulator, DaemonProcess(tmp_path, simulator.base_url) as daemon:
        path = held_back(simulator, daemon, recording(1.0, seed="before", size_bytes=30_000))
        truncate_by_half(path)
        simulator.faults.clear()
        (lost,) = daemon.await_records(1, State.LOST, seconds=180)
        assert "was written to after it was stored" in lost.reason
        await_until(lambda: not list((daemon.spool / "clips").iterdir()), "the stored file to go", 60)
        assert simulator.received == []
        figure("faults survived: footage written to while it waits", 1)
