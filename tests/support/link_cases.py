"""Shared by tests of bad links and refusals: two waiting clips, and a server that has recovered."""

from __future__ import annotations

import pytest

from agent.model import State
from tests.support.delivery_bench import Bench
from tests.support.scripted_server import ScriptedApi
from tests.support.vision_cases import api

# For a server that behaves, on a machine that has much else to do.
PATIENT = {"connect_timeout_seconds": 60.0, "stall_timeout_seconds": 60.0}
both = pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])


def two_clips(device: Bench) -> list[int]:
    """Admit two clips that are larger than the buffers of the kernel; return their ids."""
    return [device.take(number, hole_to_bytes=600_000) for number in range(2)]


def all_arrive_once(device: Bench, server: ScriptedApi) -> None:
    """Let the server recover, and deliver everything without a time limit."""
    server.uploads.clear()
    server.questions.clear()
    device.connect(api(server.url, device.place, **PATIENT))
    device.deliver_all()
    received = server.times_received()
    assert len(received) == len(device.records())
    assert set(received.values()) == {1}


def assert_nothing_is_held_against_a_clip(device: Bench) -> None:
    assert {(record.state, record.attempts) for record in device.records()} == {(State.WAITING, 0)}
