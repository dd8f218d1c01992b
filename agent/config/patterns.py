"""The regular expression that a user writes to read the names of a recorder."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator

from agent.config.values import WrongValueError, as_toml, closest_match, non_empty

GROUPS = ("registration", "camera", "start", "Y", "y", "m", "d", "H", "M", "S", "event")
"""What a group may be called: values by name, and the parts of the start as `strftime` letters them."""

LONGEST = 1_000

_CLOCK = {"Y", "y", "m", "d", "H", "M", "S"}
_EXAMPLE = r"for example '(?P<camera>\d)_(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)_(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)'"

# Repeating a group whose inside can be cut in several ways takes twice as long with each character of a name that does
# not fit in the end. What is harmless takes less than a millisecond for this many.
_PROBE_LENGTH = 32
_PROBE_SECONDS = 0.1
_PROBES = ("0", "a", "_", "-", ".", " ", "/")
_QUANTIFIER = re.compile(r"[*+]|\{\d*,\d*\}")


def pattern(value: object) -> re.Pattern[str]:
    """A regular expression with at least one of GROUPS. It ignores case: recorders and FAT change it at will."""
    expression = non_empty(value)
    if len(expression) > LONGEST:
        raise WrongValueError(f"it has {len(expression):,} characters", f"allowed are {LONGEST:,}: write it simpler")
    compiled = _compiled(expression)
    groups = set(compiled.groupindex)
    if not groups:
        raise WrongValueError(
            "it has no named group, so nothing would be read from a name", f"{_allowed_groups()}; {_EXAMPLE}"
        )
    for group in compiled.groupindex:
        if group not in GROUPS:
            near = closest_match(group, GROUPS)
            meant = f"did you mean {near}? " if near else ""
            raise WrongValueError(f"the group {as_toml(group)} is not known", f"{meant}{_allowed_groups()}")
    _check_the_start_is_whole(groups & _CLOCK)
    for group in _repeated_groups(compiled.pattern):
        if _is_catastrophic(group):
            raise WrongValueError(
                f"the repeated group {as_toml(group)} would take years on some names, and nothing could be delivered "
                "meanwhile",
                "do not repeat what is repeated inside: write \\d+ instead of (\\d+)+",
            )
    return compiled


def _compiled(expression: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            # Python warns of what it reads differently from what was meant, such as [[:digit:]]: that is a mistake too.
            warnings.simplefilter("error")
            return re.compile(expression, re.IGNORECASE)
    except re.error as error:
        start = error.pos or 0
        place = f"at character {start + 1}, where it reads {as_toml(expression[start : start + 20])}"
        raise WrongValueError(f"it is not a regular expression: {error.msg} {place}", "correct it there") from error
    except (Warning, OverflowError, RecursionError) as error:
        raise WrongValueError(f"it is not a usable regular expression: {error}", "write it simpler") from error


def _repeated_groups(expression: str) -> Iterator[str]:
    """The parts of an expression that stand in parentheses and may be repeated, the inner before the outer."""
    opened: list[int] = []
    for token in re.finditer(r"\\.|\[\^?\]?(?:\\.|[^]\\])*\]|[()]", expression, re.DOTALL):
        if token[0] == "(":
            opened.append(token.start())
        elif token[0] == ")" and opened:
            begin = opened.pop()
            if repeated := _QUANTIFIER.match(expression, token.end()):
                yield expression[begin : repeated.end()]


def _is_catastrophic(group: str) -> bool:
    """Whether this group takes exponential time when what follows it never fits; tried on lengthening names."""
    try:
        doomed = re.compile(f"{group}(?!)", re.IGNORECASE)
    except (re.error, Warning):
        return False  # it refers to what stands outside of it
    for piece in sorted({*_PROBES, *group, *re.findall(r"\w{2,}", group)}):
        for length in range(1, _PROBE_LENGTH):
            begin = time.thread_time()
            doomed.match(piece * length)
            if time.thread_time() - begin > _PROBE_SECONDS:
                return True
    return False


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
