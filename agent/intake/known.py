"""A memory of the footage that the ledger knows: without it, each scan would ask the database for each file."""

from __future__ import annotations

from agent.model import Footage


class Known:
    """Hashes of the files of one folder that need no further question: some hundred bytes for each."""

    def __init__(self) -> None:
        # Whether each lasts, by its hash: dictionaries, which are a third of the size of such sets.
        self._before: dict[int, bool] = {}
        # What this scan has met: after it, this is all that is remembered.
        self._met: dict[int, bool] = {}

    def meets(self, path: str, size_bytes: int, modified_ns: int) -> bool:
        """Whether the scan need not look closer at what it met."""
        mark = hash((path, size_bytes, modified_ns))
        lasting = self._before.get(mark)
        if lasting is None:
            return mark in self._met
        self._met[mark] = lasting
        return True

    def add(self, footage: Footage, *, lasting: bool) -> None:
        """Remembers footage that was met.

        Args:
            lasting: whatever happens, the ledger will not let go of it while it is there and unchanged.
        """
        self._met[hash((str(footage.path), footage.size_bytes, footage.modified_ns))] = lasting

    def revise(self) -> None:
        """Something happened in the ledger that can concern footage which was not added as lasting."""
        self._before = {mark: True for mark, lasting in self._before.items() if lasting}
        self._met = {mark: True for mark, lasting in self._met.items() if lasting}

    def begin(self) -> None:
        """A scan begins. What one that ended early had met is not forgotten."""
        self._before |= self._met
        self._met = {}

    def end(self) -> int:
        """A scan has seen everything: what it did not meet is no longer there.

        Returns:
            How many are remembered.
        """
        self._before, self._met = self._met, {}
        return len(self._before)
