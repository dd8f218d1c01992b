"""What keeps the daemon small on a device with little memory: parts of libraries that it never uses stay out."""

from __future__ import annotations

import ctypes
import importlib
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import ModuleType

# mallopt(3)
_M_ARENA_MAX = -8


def import_with_stubs(absent: Iterable[str], unused: Iterable[str], modules: Iterable[str]) -> None:
    """Import modules, but not all that they would import along.

    Args:
        absent: packages that they can do without, as if these were not installed.
        unused: modules that they cannot be imported without, but of which nothing is used; if something is after all,
            it is there.
        modules: imported in this order.
    """
    stand_ins: dict[str, ModuleType | None] = dict.fromkeys(absent)  # None is what import takes for «not there»
    stand_ins |= {name: _placeholder(name) for name in unused}
    with _standing_in(stand_ins), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `requests` says that it cannot guess the encoding of texts
        for module in modules:
            importlib.import_module(module)


def limit_malloc_arenas() -> None:
    """Let all threads share one pool of freed memory: by default glibc gives each its own, and keeps them all.

    A C library without `mallopt` (musl) has no such pools.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def _placeholder(name: str) -> ModuleType:
    """A module that imports the real one when something in it is looked up (PEP 562)."""
    module = ModuleType(name)
    module.__getattr__ = lambda attribute: getattr(importlib.import_module(name), attribute)  # type: ignore[method-assign]
    return module


@contextmanager
def _standing_in(stand_ins: Mapping[str, ModuleType | None]) -> Iterator[None]:
    mine = {name: module for name, module in stand_ins.items() if name not in sys.modules}
    sys.modules.update(mine)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in mine:
            del sys.modules[name]
