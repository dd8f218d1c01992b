"""curl as a peer: the same requests as the agent's, over one connection, in one process."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from pathlib import Path

from tests.benchmarks.sender import START, Cost
from tests.benchmarks.sink import Sink

PATH = "/vision/video/bulk-upload"


def send_forms(sink: Sink, batches: list[list[Path]], *, one_process: bool = True) -> Cost:
    """`curl -F`: each batch as multipart/form-data with the fields that the API requires.

    Args:
        one_process: start curl once, with one connection; otherwise once per batch, as a script does.
    """
    requests = [_form(batch) for batch in batches]
    if one_process:
        return _run(sink, requests)
    costs = [_run(sink, [request]) for request in requests]
    return Cost(sum(cost.seconds for cost in costs), sum(cost.cpu_seconds for cost in costs))


def send_prepared(sink: Sink, bodies: list[Path]) -> Cost:
    """JSON bodies prepared as files, so that curl does not encode base64."""
    header = ['header = "Content-Type: application/json"', "request = POST"]
    return _run(sink, [[*header, f'upload-file = "{body}"'] for body in bodies])


def _form(batch: list[Path]) -> list[str]:
    lines = []
    for number, file in enumerate(batch):
        fields = {
            "registration": "ABC1234X",
            "camera": "1",
            "start_timestamp": f"{START:%Y-%m-%d %H}:{number:02}:00",
            "end_timestamp": f"{START:%Y-%m-%d %H}:{number + 1:02}:00",
        }
        for name, value in fields.items():
            lines.append(f'form = "data[{number}][{name}]={value}"')
        lines.append(f'form = "data[{number}][video_file]=@{file};type=video/mp4"')
    return lines


def _run(sink: Sink, requests: list[list[str]]) -> Cost:
    """One process for all; hundreds of requests would exceed the length of a command line."""
    common = ["silent", "show-error", "fail", f'cacert = "{sink.ca_file}"', 'user = "bench:bench"']
    common += [f'output = "{os.devnull}"', 'write-out = "%{time_total}\\n"', f'url = "{sink.base_url}{PATH}"']
    config = "\nnext\n".join("\n".join([*common, *request]) for request in requests)
    with tempfile.NamedTemporaryFile("w", suffix=".curl") as file:
        file.write(config)
        file.flush()
        output, cpu_seconds = _cpu_seconds("--config", file.name)
    return Cost(sum(map(float, output.split())), max(0.0, cpu_seconds - _start_cpu_seconds()))


@functools.cache
def _start_cpu_seconds() -> float:
    """CPU time to start curl, which is subtracted; opening its connection is not."""
    return _cpu_seconds("--version")[1]


def _cpu_seconds(*arguments: str) -> tuple[str, float]:
    """Runs curl.

    Returns:
        What it printed, and the processor time it took.
    """
    with subprocess.Popen(["curl", *arguments], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"curl ended with {process.returncode}"
    return output, usage.ru_utime + usage.ru_stime
