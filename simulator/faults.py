"""Fault injection: broken links, failing servers, rejected clips."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from types import UnionType
from typing import Any, Literal, get_args

Action = Literal["reset", "stall", "slow", "answer", "reject", "omit_result", "withhold", "truncate", "drop"]
ACTIONS: tuple[Action, ...] = get_args(Action)
# Still accepted from callers of the HTTP interface.
_FORMER_NAMES: Mapping[str, Action] = {"complain": "reject", "silence": "omit_result"}

_TYPES: Mapping[str, type | UnionType] = {
    "action": str,
    "times": int,
    "path": str,
    "clip": str,
    "after_bytes": int | None,
    "seconds": int | float,
    "bytes_per_second": int,
    "status": int,
    "content": str,
    "content_type": str,
    "headers": Mapping,
}


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault that is injected into the next matching requests.

    Args:
        action: "reset": reset the connection; "stall": stop for `seconds`, then reset; "slow": read at
            `bytes_per_second`; "answer": respond with `status`, `headers` and `content`; "reject": reject clips with
            the error `content`; "omit_result": store clips, but leave them out of the response; "withhold": process
            the request, send no response for `seconds`, then reset; "truncate": the same, but send all of the response
            except its last byte; "drop": reset this and all further connections for `seconds`.
        times: number of requests ("reject" and "omit_result": of clips) to affect; 0 for no limit.
        path: match only requests whose path contains this.
        clip: match only requests with a clip whose "registration camera start" contains this, which is known only
            after the body was read.
        after_bytes: reset, stall or answer after this many bytes of an upload; None: after the whole body. Requests
            that upload nothing are affected at once.
    """

    action: Action
    times: int = 1
    path: str = ""
    clip: str = ""
    after_bytes: int | None = None
    seconds: float = 0.0
    bytes_per_second: int = 0
    status: int = 500
    content: str = '{"error": {"code": 500, "message": "Server error"}}'
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, value: Any) -> Fault:
        """A fault posted over HTTP.

        Raises:
            TypeError, ValueError: what is wrong, and what is allowed.
        """
        if not isinstance(value, Mapping):
            raise TypeError('a fault is a JSON object such as {"action": "reset"}')
        known = {item.name for item in fields(cls)}
        unknown = set(value) - known
        if unknown:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
        action = value.get("action")
        value = {**value, "action": _FORMER_NAMES.get(str(action), action)}
        if value["action"] not in ACTIONS:
            raise ValueError(f"action must be one of: {', '.join(ACTIONS)}")
        for name, given in value.items():
            if not isinstance(given, _TYPES[name]) or isinstance(given, bool):
                raise TypeError(f"{name} has a value of the wrong type: {given!r}")
        fault = cls(**value)
        if fault.action == "slow" and fault.bytes_per_second <= 0:
            raise ValueError("slow needs bytes_per_second, a number above 0")
        return fault


class Faults:
    """The armed faults, in order. Thread-safe: `_lock` guards `_armed`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._armed: list[Fault] = []

    def add(self, fault: Fault) -> None:
        with self._lock:
            self._armed.append(fault)

    def clear(self) -> None:
        with self._lock:
            self._armed.clear()

    def take(self, actions: Iterable[Action], path: str, clips: Iterable[str] | None) -> Fault | None:
        """Take one use of the first armed fault that matches a request; None if none does.

        Args:
            actions: only faults with one of these actions.
            path: the path of the request.
            clips: "registration camera start" of each clip in the request; None before the body was read.
        """
        names = list(clips) if clips is not None else None
        with self._lock:
            for position, fault in enumerate(self._armed):
                if fault.action not in actions or fault.path not in path:
                    continue
                if fault.clip and (names is None or not any(fault.clip in name for name in names)):
                    continue
                if fault.times == 1:
                    del self._armed[position]
                elif fault.times > 1:
                    self._armed[position] = replace(fault, times=fault.times - 1)
                return fault
        return None
