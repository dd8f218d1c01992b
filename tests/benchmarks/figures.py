"""Figures with their goals: values of several rounds, printed as a table and written as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """A goal for the median of a figure.

    Args:
        kind: whether the limit is the least or the most.
        limit: in the figure's unit.
    """

    kind: Literal["≥", "≤"]
    limit: float

    def is_met(self, value: float) -> bool:
        return value >= self.limit if self.kind == "≥" else value <= self.limit


def at_least(limit: float) -> Goal:
    return Goal("≥", limit)


def at_most(limit: float) -> Goal:
    return Goal("≤", limit)


@dataclass(frozen=True, slots=True)
class Figure:
    """One row of the table.

    Args:
        name: what was measured.
        unit: "×" for a ratio to a peer.
        values: one per round.
        goal: None for a figure that is only informative.
        detail: the measurements behind the figure, such as both sides of a ratio.
    """

    name: str
    unit: str
    values: Sequence[float]
    goal: Goal | None = None
    detail: str = ""

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def is_met(self) -> bool:
        return self.goal is None or self.goal.is_met(self.median)


def ratio(
    name: str, ours: Sequence[float], theirs: Sequence[float], *, unit: str, peer: str, goal: Goal | None = None
) -> Figure:
    """Ours divided by theirs, round by round: a disturbance affects both sides of a round.

    Args:
        unit: of `ours` and `theirs`, for the detail.
        peer: what they were measured with.
    """
    detail = f"{_short(median(ours))} against {_short(median(theirs))} {unit} by {peer}"
    return Figure(name, "×", [our / their for our, their in zip(ours, theirs, strict=True)], goal, detail)


def table(figures: Iterable[Figure]) -> str:
    """All figures: median, minimum and maximum of the rounds, the goal, and whether the median meets it."""
    rows = [("figure", "median", "min", "max", "goal", "", "")]
    for figure in figures:
        values = (figure.median, min(figure.values), max(figure.values))
        goal = f"{figure.goal.kind} {_short(figure.goal.limit)}" if figure.goal else ""
        met = ("met" if figure.is_met else "MISSED") if figure.goal else ""
        numbers = [_short(value) for value in values]
        numbers[0] += f" {figure.unit}"
        rows.append((figure.name, *numbers, goal, met, figure.detail))  # type: ignore[arg-type]
    widths = [max(len(row[column]) for row in rows) for column in range(7)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column in (0, 4, 5, 6) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def write_json(figures: Iterable[Figure], file: Path) -> None:
    """Write the figures with a description of the machine."""
    document = {
        "machine": {"cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version()},
        "figures": [
            {
                "name": figure.name,
                "unit": figure.unit,
                "median": figure.median,
                "min": min(figure.values),
                "max": max(figure.values),
                "values": list(figure.values),
                "goal": f"{figure.goal.kind} {figure.goal.limit:g}" if figure.goal else None,
                "met": figure.is_met if figure.goal else None,
                "detail": figure.detail,
            }
            for figure in figures
        ],
    }
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n")


def _short(value: float) -> str:
    """Three significant digits, without an exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.001 or value == 0 else f"{value:.5f}"
