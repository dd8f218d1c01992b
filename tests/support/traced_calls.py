"""The system calls of a daemon in order, as recorded by strace."""

from __future__ import annotations

import re
from pathlib import Path

# Those that make, name, fill, save or remove a file; `write` is the log, `sendto` the network.
CALLS = "mkdir,linkat,link,rename,unlink,openat,sendfile,pwrite64,fsync,fdatasync,write,sendto"
STRACE = ("strace", "-D", "-f", "-y", "-s", "200", "-e", f"trace={CALLS}")


class TracedCalls:
    """The output of `STRACE -o FILE`."""

    def __init__(self, file: Path) -> None:
        self._calls: list[str] = []
        begun: dict[str, str] = {}
        for line in file.read_text(errors="replace").splitlines():
            # Process ids are padded to one width.
            thread, _, call = line.partition(" ")
            call = call.strip()
            resumed = re.match(r"<\.\.\. \w+ resumed>(.*)", call)
            if call.endswith(" <unfinished ...>"):
                # It counts from when it has returned: what is not back has promised nothing.
                begun[thread] = call.removesuffix(" <unfinished ...>")
            elif resumed:
                self._calls.append(begun.pop(thread) + resumed[1])
            else:
                self._calls.append(call)

    def next(self, name: str, *words: str, after: int = -1) -> int:
        """The position of the next successful call of this name that contains all these words."""
        for position, call in enumerate(self._calls[after + 1 :], after + 1):
            fits = call.startswith(f"{name}(") and all(word in call for word in words)
            if fits and " = -1 " not in call:
                return position
        raise AssertionError(f"no {name} with {words} after call {after}:\n" + "\n".join(self._calls))

    def count(self, name: str, *words: str) -> int:
        return sum(call.startswith(f"{name}(") and all(word in call for word in words) for call in self._calls)
