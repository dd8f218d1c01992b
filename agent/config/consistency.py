"""What no single key can tell: values that are good by themselves and wrong together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

from agent.config.mistakes import ErrorCollector
from agent.config.settings import FootageFolder, Limits, SpoolSettings, UploadSettings


def check_sizes(limits: Limits, spool: SpoolSettings, upload: UploadSettings, errors: ErrorCollector) -> None:
    """The largest clip must fit into a batch and into the spool: otherwise it would wait forever."""
    for key, max_bytes in (("upload.batch_bytes", upload.batch_bytes), ("spool.max_bytes", spool.max_bytes)):
        if max_bytes < limits.max_bytes:
            errors.add(
                key,
                f"{max_bytes} is less than one clip may have",
                f"allowed is at least limits.max_bytes, {limits.max_bytes}",
            )


def check_folders(folders: Mapping[int, FootageFolder], spool: SpoolSettings, errors: ErrorCollector) -> None:
    """No file may be taken twice, and no clip may be taken from the spool again.

    Args:
        folders: the footage folders by their place in the file.
    """
    for (first, outer), (second, inner) in combinations(folders.items(), 2):
        if _real(outer.path) == _real(inner.path):
            errors.add(
                f"footage[{second}].path", f"is the same folder as that of footage[{first}]", "remove one of the two"
            )
        elif _takes(outer, inner.path):
            _report_nested(second, first, outer, errors)
        elif _takes(inner, outer.path):
            _report_nested(first, second, inner, errors)
    for index, folder in folders.items():
        if _takes(folder, spool.directory):
            errors.add(
                "spool.directory",
                f"{spool.directory} lies inside footage[{index}] ({folder.path}): its clips would be taken again "
                "without end",
                "choose a directory outside of all footage",
            )
        elif _real(spool.directory) in _real(folder.path).parents:
            errors.add(
                f"footage[{index}].path",
                f"{folder.path} lies inside the spool ({spool.directory}), which the service keeps for itself",
                "choose a folder outside of the spool",
            )


def _report_nested(inner: int, outer: int, folder: FootageFolder, errors: ErrorCollector) -> None:
    errors.add(
        f"footage[{inner}].path",
        f"lies inside footage[{outer}] ({folder.path}): its files would be taken twice",
        f"remove one of the two, or set recursive = false in footage[{outer}]",
    )


def _takes(folder: FootageFolder, path: Path) -> bool:
    outer, inner = _real(folder.path), _real(path)
    return outer == inner or (folder.recursive and outer in inner.parents)


def _real(path: Path) -> Path:
    """The path without symbolic links, as far as it exists (Path.resolve raises on a loop of links, this does not)."""
    return Path(os.path.realpath(path))
