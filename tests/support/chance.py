"""Chance that can be had again: each random test prints its seed, and $SEED sets it."""

from __future__ import annotations

import os
import random


def chance(name: str) -> random.Random:
    """A source of chance for one test, the same again with the seed that it prints.

    Args:
        name: makes tests that run in one process differ from each other under one seed.
    """
    seed = os.environ.get("SEED") or str(random.SystemRandom().randrange(1_000_000))
    print(f"To repeat what happened: SEED={seed}")
    return random.Random(f"{seed} {name}")
