"""docs/log-events.md lists every log event of the agent with its level and its fields: monitoring relies on them."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "log-events.md"
LEVELS = ("debug", "info", "warning", "error", "critical")
# The only module that logs an event by the name that its caller passes: its callers' names are collected instead.
WARN_ONCE = ROOT / "agent" / "device" / "warn_once.py"
WARN_ONCE_FIELDS = {"path", "reason"}
# The bridge for the log records of libraries takes the level from the record.
BRIDGE = ("library_message", {"library", "message", "exception"})


@dataclass
class Event:
    levels: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)


def calls_on_the_log(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    """Every call of a method of `log`, and every `warn` of a `WarnOnce`, with the level."""
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "log":
            assert id(node) in called, f"line {node.lineno}: a method of the log is passed on instead of called"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            owner, method = ast.unparse(node.func.value), node.func.attr
            if owner == "log":
                yield ("error" if method == "exception" else method), node
            elif owner.endswith("_warnings") and method == "warn":
                yield "warning", node


def events_in(source: str, module: str) -> Iterator[tuple[str, str, set[str]]]:
    """Name, level and fields of each event that a module logs."""
    for level, call in calls_on_the_log(ast.parse(source)):
        place = f"{module}:{call.lineno}"
        name = call.args[0] if call.args else None
        assert isinstance(name, ast.Constant), f"{place}: the name of the event is not a literal"
        assert isinstance(name.value, str), f"{place}: the name of the event is not a string"
        assert level in LEVELS, f"{place}: the level is not in the name of the method"
        names = [keyword.arg for keyword in call.keywords]
        assert None not in names, f"{place}: fields are passed as a mapping instead of by their names"
        fields = {"exception" if name == "exc_info" else str(name) for name in names}
        if ast.unparse(call.func).endswith("_warnings.warn"):
            fields |= WARN_ONCE_FIELDS
        if ast.unparse(call.func) == "log.exception":
            fields.add("exception")
        yield name.value, level, fields


def logged() -> Mapping[str, Event]:
    events: dict[str, Event] = defaultdict(Event)
    for file in sorted((ROOT / "agent").rglob("*.py")):
        if file != WARN_ONCE:
            for name, level, fields in events_in(file.read_text(), str(file.relative_to(ROOT))):
                events[name].levels.add(level)
                events[name].fields |= fields
    return events


def documented() -> Mapping[str, Event]:
    rows = re.findall(r"^\| `(\w+)` \| ([\w, ]+) \| (.*?) \| .+ \|$", PAGE.read_text(), re.MULTILINE)
    assert len(rows) == len({name for name, _, _ in rows}), "an event has two rows"
    return {name: Event(set(levels.split(", ")), set(re.findall(r"`(\w+)`", fields))) for name, levels, fields in rows}


def test_every_event_is_documented_with_its_levels_and_fields() -> None:
    page = dict(documented())
    library, library_fields = BRIDGE
    assert page.pop(library).fields == library_fields
    assert page == dict(logged())


@pytest.mark.parametrize(
    "line",
    [
        'log.info(f"clip_{state}", clip=1)',
        "log.info(event, clip=1)",
        'log.info("clip_waiting", **fields)',
        'log.log(level, "clip_waiting")',
        'write = log.debug if quiet else log.warning\nwrite("clip_waiting")',
        "self._warnings.warn(event, path, reason)",
    ],
)
def test_an_event_that_a_search_for_its_name_would_miss_is_noticed(line: str) -> None:
    with pytest.raises(AssertionError):
        list(events_in(line, "example.py"))


def test_no_event_uses_a_word_for_two_things() -> None:
    """A folder is always `folder`, a file of the recorder `footage`, a clip's number `clip`."""
    for name, event in logged().items():
        if name.startswith("folder_"):
            assert "folder" in event.fields, name
        if name.startswith("footage_") and name != "footage_copied":
            assert "footage" in event.fields, name
        if name.startswith("clip_"):
            assert {"clip", "footage"} <= event.fields, name
