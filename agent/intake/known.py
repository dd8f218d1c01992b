"""A memory of the footage that the ledger knows: without it, each scan would ask the database for each file."""

from __future__ import annotations

from agent.clip import Footage


class Known:
    """Hashes of the files of one folder that need no further question: some hundred bytes for each."""

    def __init__(self) -> None:
        self._lasting: set[int] = set()
        self._revisable: set[int] = set()
        self._met: set[int] = set()

    def meets(self, path: str, size_bytes: int, modified_ns: int) -> bool:
        """Whether the scan need not look closer at what it met."""
        mark = hash((path, size_bytes, modified_ns))
        if mark in self._lasting or mark in self._revisable:
            self._met.add(mark)
            return True
        return False

    def add(self, footage: Footage, *, lasting: bool) -> None:
        """Remembers footage that was met.

        Args:
            lasting: whatever happens, the ledger will not let go of it while it is there and unchanged.
        """
        mark = hash((str(footage.path), footage.size_bytes, footage.modified_ns))
        (self._lasting if lasting else self._revisable).add(mark)
        self._met.add(mark)

    def revise(self) -> None:
        """Something happened in the ledger that can concern footage which was not added as lasting."""
        self._revisable.clear()

    def begin(self) -> None:
        """A scan begins."""
        self._met.clear()

    def end(self) -> int:
        """A scan has seen everything: what it did not meet is no longer there.

        Returns:
            How many are remembered.
        """
        self._lasting &= self._met
        self._revisable &= self._met
        self._met.clear()
        return len(self._lasting) + len(self._revisable)
