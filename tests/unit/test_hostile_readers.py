"""A few hundred hostile inputs for every parser of external data; the slow suite has hundreds of thousands."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.hostile.readers import READERS


@pytest.mark.parametrize("reader", READERS)
def test_a_reader_raises_nothing_but_what_it_documents(reader: str, tmp_path: Path) -> None:
    with READERS[reader](tmp_path) as feed:

        @settings(max_examples=200)
        @given(st.randoms(use_true_random=True))
        def try_one(rng: random.Random) -> None:
            assert feed(rng)

        try_one()
