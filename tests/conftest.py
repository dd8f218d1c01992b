"""Shared by all tests: reproducible random examples, and figures.

Figures are the measurements of slow tests, printed as one table at the end of the run, whichever process measured them.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any, Protocol

import pytest
from hypothesis import HealthCheck, settings

PROPERTY = "figure"

# The same examples in each run, and none judged by the time it takes: the machine may have much else to do.
settings.register_profile(
    "certain", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("certain")


class Figure(Protocol):
    """Adds a figure to the table at the end of the run.

    Figures of the same name are added up; with `most`, the largest is shown.
    """

    def __call__(self, name: str, value: float, *, most: bool = False) -> None: ...


@pytest.fixture
def figure(record_property: object) -> Figure:
    """Record a measurement for the table at the end: figure("kill rounds", 300)."""

    def add(name: str, value: float, *, most: bool = False) -> None:
        assert callable(record_property)
        record_property(PROPERTY, [name, value, most])

    return add


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resolve names in `.invalid` to an error at once: a real resolver may take long, or even resolve them."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *more: Any, **named: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


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
