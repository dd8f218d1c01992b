"""An audit hook cannot be removed again: the intake runs in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
from pathlib import Path
from tests.unit.intake.test_intake import Bench

bench = Bench(Path(sys.argv[1]))
path = bench.record()
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == "open" and str(args[0]) == str(path) else None)
bench.pass_time(bench.intake(), 10)
print([state.value for state in bench.states()], len(opened))
bench.close()
"""


def test_a_file_that_fits_is_opened_once_from_settling_to_spooling(tmp_path: Path) -> None:
    root = Path(__file__).parents[3]
    command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
    done = subprocess.run(command, cwd=root, env=os.environ, check=True, capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "['waiting'] 1"
