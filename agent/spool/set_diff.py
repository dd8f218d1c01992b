"""Two large sets of names are compared without keeping either."""

from __future__ import annotations

from collections.abc import Iterable

GROUPS = 1024


class SetDigest:
    """The sums of the names' hashes, in groups: where two sets have the same sum, they have the same names.

    Hashes are made with a secret of this process: no one can choose names that add up alike.

    Args:
        names: read once.
    """

    def __init__(self, names: Iterable[str]) -> None:
        self._sums = [0] * GROUPS
        self._counts = [0] * GROUPS
        for name in names:
            number = hash(name)
            self._sums[number % GROUPS] += number
            self._counts[number % GROUPS] += 1

    def agreeing(self, other: SetDigest) -> int:
        """How many names lie in groups in which the sets agree."""
        return sum(count for group, count in enumerate(self._counts) if self._agrees(other, group))

    def differing(self, other: SetDigest, names: Iterable[str]) -> Iterable[str]:
        """Of these names those that lie in other groups: few, unless the sets differ much."""
        differing = [not self._agrees(other, group) for group in range(GROUPS)]
        return (name for name in names if differing[hash(name) % GROUPS]) if any(differing) else ()

    def _agrees(self, other: SetDigest, group: int) -> bool:
        return (self._sums[group], self._counts[group]) == (other._sums[group], other._counts[group])
