"""Reduces the daemon's memory: does not import unused parts of libraries, and shares one malloc arena."""

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
    """Import modules without some of their dependencies.

    Args:
        absent: optional dependencies, treated as not installed.
        unused: required dependencies that are never used: replaced by stubs that import the real module on the first
            access to an attribute.
        modules: imported in this order.
    """
    stubs: dict[str, ModuleType | None] = dict.fromkeys(absent)  # None in sys.modules makes the import fail
    stubs |= {name: _lazy_module(name) for name in unused}
    with _installed(stubs), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `requests` warns that no charset detection is installed
        for module in modules:
            importlib.import_module(module)


def limit_malloc_arenas() -> None:
    """Make all threads share one malloc arena: by default glibc gives each thread its own and never releases it.

    Does nothing with a C library without `mallopt` (musl), which has no arenas.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)


def _lazy_module(name: str) -> ModuleType:
    """A stub that imports the real module on the first access to an attribute (PEP 562)."""
    module = ModuleType(name)
    module.__getattr__ = lambda attribute: getattr(importlib.import_module(name), attribute)  # type: ignore[method-assign]
    return module


@contextmanager
def _installed(stubs: Mapping[str, ModuleType | None]) -> Iterator[None]:
    added = {name: module for name, module in stubs.items() if name not in sys.modules}
    sys.modules.update(added)  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in added:
            del sys.modules[name]
