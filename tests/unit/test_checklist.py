"""The table of failures and tests names tests that there are, and misses no failure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

PLACE = Path(__file__).parents[1] / "integration"
ROWS = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", (PLACE / "README.md").read_text(), re.MULTILINE)
NAMED = sorted({name for _, tests in ROWS for name in re.findall(r"`([\w./]+\.py::\w+)`", tests)})


def test_each_of_the_26_failures_has_a_row_with_a_test() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 27))
    assert [number for number, tests in ROWS if "`" not in tests] == []


@pytest.mark.parametrize("named", NAMED)
def test_a_test_that_the_table_names_is_there(named: str) -> None:
    file, name = named.split("::")
    assert re.search(rf"^(?:async )?def {name}\(", (PLACE / file).read_text(), re.MULTILINE)
