"""Figures: what slow tests measured is printed as one table when they have ended, whichever process ran them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import pytest

PROPERTY = "figure"


class Figure(Protocol):
    """Adds a figure to the table at the end of the run.

    Figures of one name are added up, or with `most` the largest is shown.
    """

    def __call__(self, name: str, value: float, *, most: bool = False) -> None: ...


@pytest.fixture
def figure(record_property: object) -> Figure:
    """What a test measured, for the table at the end: figure("kill rounds", 300)."""

    def add(name: str, value: float, *, most: bool = False) -> None:
        assert callable(record_property)
        record_property(PROPERTY, [name, value, most])

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    figures: dict[str, float] = {}
    for name, value, most in sorted(_reported(terminalreporter)):
        before = figures.get(name)
        figures[name] = value if before is None else max(before, value) if most else before + value
    if not figures:
        return
    width = max(map(len, figures))
    terminalreporter.section("figures")
    for name, value in figures.items():
        shown = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.2f}"
        terminalreporter.write_line(f"{name:<{width}}  {shown:>12}")


def _reported(reporter: pytest.TerminalReporter) -> Iterator[tuple[str, float, bool]]:
    for outcome in ("passed", "failed"):
        for report in reporter.stats.get(outcome, []):
            for key, value in report.user_properties if report.when == "call" else ():
                if key == PROPERTY:
                    yield tuple(value)
