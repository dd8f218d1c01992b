"""The regular expression with which a user has file names parsed."""

from __future__ import annotations

import re
import time
import warnings
from collections.abc import Iterator

from agent.config.values import WrongValueError, as_toml, non_empty, suggestion

GROUPS = ("registration", "camera", "start", "Y", "y", "m", "d", "H", "M", "S", "event")
"""The allowed names of groups: values, and the parts of the start time by their letters in `strftime`."""

MAX_LENGTH = 1_000

_TIME_GROUPS = {"Y", "y", "m", "d", "H", "M", "S"}
_ALLOWED_GROUPS = f"groups such as (?P<camera>…), named {', '.join(GROUPS)}"
_EXAMPLE = r"for example '(?P<camera>\d)_(?P<Y>\d{4})(?P<m>\d\d)(?P<d>\d\d)_(?P<H>\d\d)(?P<M>\d\d)(?P<S>\d\d)'"

# Catastrophic backtracking: if the inside of a repeated group can match the same text in several ways, each further
# character of a name that does not match in the end doubles the time. A harmless expression takes less than a
# millisecond for a name of this length.
_PROBE_LENGTH = 32
_PROBE_SECONDS = 0.1
_PROBES = ("0", "a", "_", "-", ".", " ", "/")
_QUANTIFIER = re.compile(r"[*+]|\{\d*,\d*\}")


def pattern(value: object) -> re.Pattern[str]:
    """A regular expression with at least one of GROUPS. It ignores case, which recorders and FAT do not preserve."""
    expression = non_empty(value)
    if len(expression) > MAX_LENGTH:
        raise WrongValueError(f"it has {len(expression):,} characters", f"allowed: {MAX_LENGTH:,}")
    compiled = _compiled(expression)
    groups = set(compiled.groupindex)
    if not groups:
        raise WrongValueError(
            "it has no named group, so it would find nothing in a name", f"allowed: {_ALLOWED_GROUPS}; {_EXAMPLE}"
        )
    for group in compiled.groupindex:
        if group not in GROUPS:
            raise WrongValueError(f"the group {as_toml(group)} is unknown", suggestion(group, GROUPS, _ALLOWED_GROUPS))
    _check_time_is_complete(groups & _TIME_GROUPS)
    for group in _repeated_groups(compiled.pattern):
        if _is_catastrophic(group):
            raise WrongValueError(
                f"the repeated group {as_toml(group)} would take years on some names (catastrophic backtracking)",
                "repeat either the group or what is in it: \\d+ instead of (\\d+)+",
            )
    return compiled


def _compiled(expression: str) -> re.Pattern[str]:
    try:
        with warnings.catch_warnings():
            # A warning means that Python reads it differently than intended, such as [[:digit:]]: a mistake too.
            warnings.simplefilter("error")
            return re.compile(expression, re.IGNORECASE)
    except re.error as error:
        start = error.pos or 0
        place = f"at character {start + 1}, {as_toml(expression[start : start + 20])}"
        raise WrongValueError(f"it is not a regular expression: {error.msg} {place}", "correct it there") from error
    except (Warning, OverflowError, RecursionError) as error:
        raise WrongValueError(f"it is not a usable regular expression: {error}", "write it simpler") from error


def _repeated_groups(expression: str) -> Iterator[str]:
    """The groups of an expression that have a quantifier, inner ones first."""
    opened: list[int] = []
    for token in re.finditer(r"\\.|\[\^?\]?(?:\\.|[^]\\])*\]|[()]", expression, re.DOTALL):
        if token[0] == "(":
            opened.append(token.start())
        elif token[0] == ")" and opened:
            begin = opened.pop()
            if repeated := _QUANTIFIER.match(expression, token.end()):
                yield expression[begin : repeated.end()]


def _is_catastrophic(group: str) -> bool:
    """Whether this group takes exponential time if what follows never matches: measured on texts of growing length."""
    try:
        never_matching = re.compile(f"{group}(?!)", re.IGNORECASE)
    except (re.error, Warning):
        return False  # it refers to a group outside of it
    for piece in sorted({*_PROBES, *group, *re.findall(r"\w{2,}", group)}):
        for length in range(1, _PROBE_LENGTH):
            begin = time.thread_time()
            never_matching.match(piece * length)
            if time.thread_time() - begin > _PROBE_SECONDS:
                return True
    return False


def _check_time_is_complete(clock: set[str]) -> None:
    """A start time needs at least year, month, day, hour and minute."""
    if not clock:
        return
    missing = [group for group in "mdHM" if group not in clock]
    if not clock & {"Y", "y"}:
        missing.insert(0, "Y")
    if missing:
        raise WrongValueError(
            f"it has the groups {', '.join(sorted(clock))} but not {', '.join(missing)}: not a complete time",
            "name Y (or y, two digits), m, d, H and M, and S if the name has seconds; or none of them",
        )
