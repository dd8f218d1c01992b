"""The table of failures names existing tests and misses no failure; names of tests are short enough to read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PLACE = TESTS / "integration"
ROWS = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", (PLACE / "README.md").read_text(), re.MULTILINE)
NAMED = sorted({name for _, tests in ROWS for name in re.findall(r"`([\w./]+\.py::\w+)`", tests)})


def test_each_of_the_27_failures_has_a_row_with_a_test() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 28))
    assert [number for number, tests in ROWS if "`" not in tests] == []


@pytest.mark.parametrize("named", NAMED)
def test_a_test_named_in_the_table_exists(named: str) -> None:
    file, name = named.split("::")
    assert re.search(rf"^(?:async )?def {name}\(", (PLACE / file).read_text(), re.MULTILINE)


def test_names_of_tests_have_at_most_80_characters() -> None:
    found = [name for file in TESTS.rglob("test_*.py") for name in re.findall(r"def (test_\w+)", file.read_text())]
    assert [name for name in found if len(name) > 80] == []
