from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from agent.errors import Cancelled, FootageRefused
from agent.media.ffmpeg import STDERR_TAIL_BYTES, CancelToken, ToolFailed, ToolProcess, is_installed, last_line
from tests.support.daemon import await_until

FOREVER = "echo $$; exec sleep 1000"


def shell(script: str, cancel: CancelToken | None = None, **options: float) -> ToolProcess:
    return ToolProcess(("sh", "-c", script), cancel or CancelToken(threading.Event()), **options)  # type: ignore[arg-type]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_stdout_comes_line_by_line_and_stderr_apart() -> None:
    with shell("echo one; echo trouble >&2; printf 'two\nthree'") as tool:
        assert list(tool.lines()) == ["one", "two", "three"]
    assert (tool.stderr_tail, tool.stderr_bytes) == ("trouble\n", 8)


def test_it_has_the_lowest_priority_for_processor_and_disk() -> None:
    with shell("nice; ionice") as tool:
        assert list(tool.lines()) == ["19", "idle"]


def test_endless_stderr_is_read_but_not_kept() -> None:
    with shell("yes | head -c 3000000 >&2") as tool:
        tool.finish()
    assert tool.stderr_bytes == 3_000_000
    assert len(tool.stderr_tail) == STDERR_TAIL_BYTES


def test_a_failure_is_reported_in_the_words_of_the_tool() -> None:
    with pytest.raises(ToolFailed, match="no such codec"), shell("echo no such codec >&2; exit 3") as tool:
        tool.finish()


def test_an_endless_line_is_an_error_before_it_fills_memory() -> None:
    with pytest.raises(ToolFailed, match="without end"), shell("head -c 9000000 /dev/zero") as tool:
        tool.finish()


def test_a_missing_tool_is_an_error() -> None:
    cancel = CancelToken(threading.Event())
    with pytest.raises(ToolFailed, match="no-such-tool"), ToolProcess(["no-such-tool"], cancel) as tool:
        tool.finish()


def test_a_tool_that_the_kernel_killed_is_retried_later() -> None:
    with pytest.raises(FootageRefused, match="ended by signal 9") as refused, shell("kill -9 $$") as tool:
        tool.finish()
    assert refused.value.retry_after_seconds


def test_cancellation_ends_it_at_once() -> None:
    stop = threading.Event()
    with pytest.raises(Cancelled), shell(FOREVER, CancelToken(stop)) as tool:  # noqa: PT012  # the stop comes in between
        lines = tool.lines()
        pid = int(next(lines))
        stop.set()
        next(lines)
    assert not is_running(pid)


def test_a_stalled_tool_is_given_up() -> None:
    with (
        pytest.raises(FootageRefused, match="sh read nothing of it for") as refused,
        shell(FOREVER, stall_seconds=0.5) as tool,
    ):
        tool.finish()
    assert refused.value.retry_after_seconds


def test_it_reports_that_it_is_alive(tmp_path: Path) -> None:
    """The child ends when there were three."""
    signs: list[None] = []

    def alive() -> None:
        signs.append(None)
        if len(signs) == 3:
            (tmp_path / "three").touch()

    cancel = CancelToken(threading.Event(), alive)
    with shell(f"while [ ! -e '{tmp_path}/three' ]; do sleep 0.05; done", cancel) as tool:
        tool.finish()
    assert len(signs) >= 3


def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    """A daemon that is killed must leave no ffmpeg behind."""
    script = (
        "import threading; from agent.media.ffmpeg import *\n"
        f"with ToolProcess(('sh', '-c', {FOREVER!r}), CancelToken(threading.Event())) as child:\n"
        "    for line in child.lines(): print(line, flush=True)\n"
    )
    environ = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, env=environ)
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        assert is_running(pid)
        parent.send_signal(signal.SIGKILL)
        parent.wait(60)
        await_until(lambda: not is_running(pid), "the end of the child", 60)


def test_both_tools_must_be_there(tmp_path: Path) -> None:
    assert not is_installed(str(tmp_path))
    for name in ("ffmpeg", "ffprobe"):
        assert not is_installed(str(tmp_path))
        (tmp_path / name).touch(mode=0o755)
    assert is_installed(str(tmp_path))


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("[mov @ 0x55] moov atom not found\n/dev/fd/3: Invalid data\n\n", "/dev/fd/3: Invalid data"),
        ("[segment @ 0x1] No space left on device", "No space left on device"),
        (" \n", "it does not say why"),
    ],
)
def test_the_last_line_names_the_cause(said: str, words: str) -> None:
    assert last_line(said) == words
