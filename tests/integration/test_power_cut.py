"""Power cuts: an emulated device loses its power while it works, and all data that its disks had not flushed."""

from __future__ import annotations

import os
import random
import ssl
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import trustme

from simulator.faults import Fault
from simulator.server import Simulator
from tests.conftest import Figure
from tests.support.chance import chance
from tests.support.daemon import await_until
from tests.support.guest import BATCH_CLIPS, Guest
from tests.support.nbd_client import NbdClient
from tests.support.requirements import needs
from tests.support.volatile_disk import SECTOR_BYTES, VolatileDisk

pytestmark = pytest.mark.daemon

CUTS = int(os.environ.get("POWER_CUTS", "10"))
CLIPS_A_BOOT = 40
LONGEST_WORK_SECONDS = 10.0
LONGEST_BOOT_SECONDS = 12.0


@pytest.mark.slow
@pytest.mark.xdist_group("guest")
@pytest.mark.timeout(600 + 90 * CUTS)
def test_power_cuts_lose_no_recording_and_every_reported_delivery_happened(tmp_path: Path, figure: Figure) -> None:
    needs("qemu-system-x86_64", "mke2fs", "apt-get", "dpkg-deb")
    rng = chance("power cuts")
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("10.0.2.2").configure_cert(tls)
    with Simulator(tls=tls) as simulator:
        port = urlsplit(simulator.base_url).port or 0
        with Guest(tmp_path, port, authority.cert_pem.bytes()) as guest:
            for _ in range(CUTS):
                _work_until_a_cut(guest, simulator, rng)
                _check_reports(guest, simulator)
            simulator.faults.clear()
            guest.switch_on(clips=0)
            guest.await_started()
            await_until(lambda: not _missing(guest, simulator), "every recording that is owed to arrive", 300.0)
            await_until(lambda: _is_settled(guest), "the last batch to be settled", 120.0)
            _check_reports(guest, simulator)
    again = sum(video.updates for video in simulator.received)
    assert again <= BATCH_CLIPS * CUTS
    figure("power cuts", CUTS)
    figure("power cuts: disk sectors lost", guest.lost_sectors)
    figure("clips recorded and sent", len(guest.owed))
    figure("clips lost", len(_missing(guest, simulator)))
    figure("clips sent again after a kill or power cut", again)


def _work_until_a_cut(guest: Guest, simulator: Simulator, rng: random.Random) -> None:
    """One life of the device; one in five ends while it boots, one in three uploads so slowly that it is cut in one."""
    simulator.faults.clear()
    if rng.random() < 1 / 3:
        simulator.faults.add(
            Fault("slow", times=0, path="bulk-upload", bytes_per_second=rng.randrange(50_000, 500_000))
        )
    guest.switch_on(CLIPS_A_BOOT)
    if rng.random() < 1 / 5:
        time.sleep(rng.uniform(1.0, LONGEST_BOOT_SECONDS))
    else:
        guest.await_started()
        time.sleep(rng.uniform(0.0, LONGEST_WORK_SECONDS))
    guest.cut(rng)


def _check_reports(guest: Guest, simulator: Simulator) -> None:
    """The ledger after each cut agrees with what the API has received."""
    received = {video.start for video in simulator.received}
    for report in guest.reports():
        assert report["integrity"] in ("ok", "none yet")
        delivered = {start.removesuffix("+00:00") for start in report["clips"].get("delivered", [])}
        assert delivered - received == set()


def _is_settled(guest: Guest) -> bool:
    """Whether every clip is settled and the spool has no files; footage that a cut left incomplete is refused."""
    report = guest.reports()[-1]
    states = {state for state, names in report["clips"].items() if names}
    assert not set(report["clips"]["refused"]) & guest.owed
    return states <= {"delivered", "refused"} and report["stored"] == []


def _missing(guest: Guest, simulator: Simulator) -> set[str]:
    """The recordings that must arrive and have not arrived."""
    received = {video.sha256 for video in simulator.received}
    recorded = guest.recorded
    return {name for name in guest.owed if recorded.get(name) not in received}


def test_a_disk_that_loses_power_forgets_what_was_not_flushed_and_nothing_else(tmp_path: Path) -> None:
    content = tmp_path / "disk"
    content.write_bytes(bytes(64 * SECTOR_BYTES))
    old, new = b"o" * SECTOR_BYTES, b"n" * SECTOR_BYTES
    forgotten = 0
    with VolatileDisk(content, tmp_path / "socket") as disk:
        for seed in range(20):
            with NbdClient(tmp_path / "socket") as client:
                client.write(0, old * 64)
                client.flush()
                client.write(0, new * 32)
                assert client.read(16, 32) == new * 16 + old * 16
                client.write(32, new, durable=True)
            disk.cut(random.Random(seed))
            sectors = [content.read_bytes()[at : at + SECTOR_BYTES] for at in range(0, 64 * SECTOR_BYTES, SECTOR_BYTES)]
            assert set(sectors[:32]) <= {old, new}
            assert sectors[32:] == [new] + [old] * 31
            forgotten += sectors.count(old) - 31
        assert forgotten == disk.lost_sectors
    assert 0 < forgotten < 20 * 32
