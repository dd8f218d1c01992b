"""Unused parts of libraries are not imported, and are still there if something uses them."""

from __future__ import annotations

import subprocess
import sys

from agent.cli.run import limit_malloc_arenas


def in_a_new_process(program: str) -> str:
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_optional_dependencies_are_treated_as_not_installed() -> None:
    program = """
import sys
from agent.cli.run import import_with_stubs
import_with_stubs(absent=["rich", "charset_normalizer"], unused=["asyncio"], modules=["structlog", "requests"])
print([name for name in ("rich", "charset_normalizer", "asyncio") if name in sys.modules])
import rich
print(rich.__name__)
"""
    assert in_a_new_process(program).splitlines() == ["[]", "rich"]


def test_a_stub_imports_the_real_module_on_first_use() -> None:
    program = """
from agent.cli.run import import_with_stubs
import_with_stubs(absent=[], unused=["asyncio"], modules=["structlog"])
import structlog, asyncio
structlog.configure(processors=[lambda _logger, _name, event: event["event"]])
async def say():
    await structlog.get_logger().ainfo("heard")
asyncio.run(say())
"""
    assert in_a_new_process(program) == "heard"


def test_modules_already_imported_are_left_alone() -> None:
    program = """
import sys, rich
from agent.cli.run import import_with_stubs
import_with_stubs(absent=["rich"], unused=[], modules=["structlog"])
print(sys.modules["rich"] is rich)
"""
    assert in_a_new_process(program) == "True"


def test_malloc_arenas_can_be_limited() -> None:
    limit_malloc_arenas()


def test_the_daemon_does_not_import_what_only_other_commands_need() -> None:
    program = """
import sys
from agent.cli import main
code = main(["run", "--config", "/nonexistent/config.toml"])
print(code, [name for name in ("rich", "charset_normalizer", "asyncio", "difflib", "aiohttp") if name in sys.modules])
"""
    assert in_a_new_process(program) == "2 []"
