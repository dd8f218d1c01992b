"""No signal and no ring is missed, whenever it comes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from agent.device.wakeup import Waker

# A wait that is missed lasts so long: the test's own time limit ends it.
FOR_EVER_SECONDS = 3600.0


@pytest.fixture
def waker() -> Iterator[Waker]:
    before = signal.signal(signal.SIGHUP, lambda *_: None)
    waker = Waker()
    yield waker
    waker.close()
    signal.signal(signal.SIGHUP, before)


def test_wake_from_another_thread_ends_the_wait(waker: Waker) -> None:
    thread = threading.Thread(target=waker.wake)
    thread.start()
    waker.wait(FOR_EVER_SECONDS)
    thread.join()


def test_wakes_before_the_wait_are_kept_and_coalesced(waker: Waker) -> None:
    for _ in range(3):
        waker.wake()
    waker.wait(FOR_EVER_SECONDS)
    waker.wake()
    waker.wait(FOR_EVER_SECONDS)
    waker.wait(0.0)


def test_wake_never_blocks_when_the_buffer_is_full(waker: Waker) -> None:
    for _ in range(100_000):
        waker.wake()
    waker.wait(FOR_EVER_SECONDS)


def test_a_signal_handled_just_before_the_wait_ends_it(waker: Waker) -> None:
    """As one does that comes when the thread is on its way into the wait."""
    os.kill(os.getpid(), signal.SIGHUP)
    waker.wait(FOR_EVER_SECONDS)


def test_a_signal_ends_the_wait(waker: Waker) -> None:
    thread = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGHUP))
    thread.start()
    waker.wait(FOR_EVER_SECONDS)
    thread.join()
