"""Reproducible randomness: each random test prints its seed, and $SEED sets it."""

from __future__ import annotations

import os
import random


def chance(name: str) -> random.Random:
    """A random generator for one test, reproducible with the seed that it prints.

    Args:
        name: makes tests with the same seed differ from each other.
    """
    seed = os.environ.get("SEED") or str(random.SystemRandom().randrange(1_000_000))
    print(f"To repeat what happened: SEED={seed}")
    return random.Random(f"{seed} {name}")
