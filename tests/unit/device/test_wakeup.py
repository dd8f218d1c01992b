"""No signal and no wake-up is missed, whenever it arrives."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from agent.device.wakeup import Waker

# A missed wake-up would last this long: the time limit of the test fails it first.
FOREVER_SECONDS = 3600.0


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
    waker.wait(FOREVER_SECONDS)
    thread.join()


def test_wakes_before_the_wait_are_kept_and_coalesced(waker: Waker) -> None:
    for _ in range(3):
        waker.wake()
    waker.wait(FOREVER_SECONDS)
    waker.wake()
    waker.wait(FOREVER_SECONDS)
    waker.wait(0.0)


def test_wake_never_blocks_when_the_buffer_is_full(waker: Waker) -> None:
    for _ in range(100_000):
        waker.wake()
    waker.wait(FOREVER_SECONDS)


def test_a_signal_handled_just_before_the_wait_ends_it(waker: Waker) -> None:
    """The race that `set_wakeup_fd` closes: a signal that arrives just before the thread enters the wait."""
    os.kill(os.getpid(), signal.SIGHUP)
    waker.wait(FOREVER_SECONDS)


def test_a_signal_ends_the_wait(waker: Waker) -> None:
    thread = threading.Thread(target=os.kill, args=(os.getpid(), signal.SIGHUP))
    thread.start()
    waker.wait(FOREVER_SECONDS)
    thread.join()
