"""A new simulator and a client for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simulator.server import Simulator
from tests.support.simulated_account import Account


@pytest.fixture
def simulator() -> Iterator[Simulator]:
    with Simulator() as simulator:
        yield simulator


@pytest.fixture
def account(simulator: Simulator) -> Iterator[Account]:
    account = Account(simulator)
    yield account
    account.session.close()
