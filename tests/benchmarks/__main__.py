"""`python -m tests.benchmarks`: measures everything, prints a table and writes it as JSON; called by `make bench`."""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from pathlib import Path

from tests.benchmarks.figures import Figure, table, write_json

# Modules beside this one, in the order of the table. Each has `measure(rounds: int) -> Iterable[Figure]`.
PARTS = (
    "sending",
    "draining",
    "spooling",
    "growth",
    "noticing",
    "streaming",
    "idling",
    "starting",
    "cutting",
    "links",
    "fleet",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="how often each comparison is made (default: 5)")
    parser.add_argument("--only", action="append", choices=PARTS, help="only this part; may be given several times")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks/figures.json"), metavar="FILE")
    args = parser.parse_args()
    figures: list[Figure] = []
    for part in args.only or PARTS:
        started = time.monotonic()
        module = importlib.import_module(f"tests.benchmarks.{part}")
        figures.extend(module.measure(args.rounds))
        print(f"{part}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    print(table(figures))
    write_json(figures, args.output)
    # A goal that is missed is news, not an error: machines differ.
    missed = sum(not figure.is_met for figure in figures)
    print(f"\n{missed or 'No'} goals missed of {sum(figure.goal is not None for figure in figures)}; {args.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
