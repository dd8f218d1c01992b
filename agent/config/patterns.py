"""The regular expression that a user writes to read the names of a recorder."""

from __future__ import annotations

import re
import warnings

from agent.config.values import WrongValueError, characters, nearest, notation

GROUPS = ("registration", "camera", "start", "Y", "y", "m", "d", "H", "M", "S", "event")
"""What a group may be called: values by name, and the parts of the start as `strftime` letters them."""

_CLOCK = {"Y", "y", "m", "d", "H", "M", "S"}
_EXAMPLE = r"for example '(?P<camera>\d)_(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)_(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)'"


def pattern(value: object) -> re.Pattern[str]:
    """A regular expression with at least one of GROUPS. It ignores case: recorders and FAT change it at will."""
    compiled = _compiled(characters(value))
    groups = set(compiled.groupindex)
    if not groups:
        raise WrongValueError(
            "it has no named group, so nothing would be read from a name", f"{_allowed_groups()}; {_EXAMPLE}"
        )
    for group in compiled.groupindex:
        if group not in GROUPS:
            near = nearest(group, GROUPS)
            meant = f"did you mean {near}? " if near else ""
            raise WrongValueError(f"the group {notation(group)} is not known", f"{meant}{_allowed_groups()}")
    _check_the_start_is_whole(groups & _CLOCK)
    return compiled


def _compiled(expression: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            # Python warns of what it reads differently from what was meant, such as [[:digit:]]: that is a mistake too.
            warnings.simplefilter("error")
            return re.compile(expression, re.IGNORECASE)
    except re.error as error:
        start = error.pos or 0
        place = f"at character {start + 1}, where it reads {notation(expression[start : start + 20])}"
        raise WrongValueError(f"it is not a regular expression: {error.msg} {place}", "correct it there") from error
    except (Warning, OverflowError, RecursionError) as error:
        raise WrongValueError(f"it is not a usable regular expression: {error}", "write it simpler") from error


def _check_the_start_is_whole(clock: set[str]) -> None:
    """A date and time needs at least year, month, day, hour and minute."""
    if not clock:
        return
    missing = [group for group in "mdHM" if group not in clock]
    if not clock & {"Y", "y"}:
        missing.insert(0, "Y")
    if missing:
        raise WrongValueError(
            f"it reads {', '.join(sorted(clock))} but not {', '.join(missing)}: no start can be made of that",
            "name Y (or y, two digits), m, d, H and M, and S if the name has seconds; or none of them",
        )


def _allowed_groups() -> str:
    return f"allowed are groups such as (?P<camera>…), named {', '.join(GROUPS)}"
