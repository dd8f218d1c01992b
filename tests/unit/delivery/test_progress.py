"""Changes of what delivery is doing are reported, and only changes."""

from __future__ import annotations

import threading
from pathlib import Path

from agent.delivery.dispatcher import Dispatcher
from agent.delivery.progress import Activity
from simulator.server import Simulator
from tests.support.delivery_bench import bench, simulated


def test_each_clip_of_a_batch_is_reported_and_an_idle_turn_is_not(tmp_path: Path) -> None:
    reported: list[Activity] = []
    with Simulator() as simulator, bench(tmp_path, simulated(simulator.base_url)) as there:
        dispatcher = Dispatcher(
            there.spool,
            there.client,
            there.settings,
            threading.Event(),
            on_change=lambda: reported.append(dispatcher.activity),
        )
        dispatcher.step()
        assert [activity.doing for activity in reported] == ["idle"]
        dispatcher.step()
        assert len(reported) == 1
        for number in range(3):  # each larger than one chunk
            there.take(number, hole_to_bytes=600_000)
        dispatcher.step()
        sent = [activity.batch_position for activity in reported if activity.batch_clips == 3]
        assert sent == sorted(sent)
        assert set(sent) >= {1, 2, 3}
        assert reported[-1] == dispatcher.activity
        assert (reported[-1].doing, reported[-1].link) == ("idle", "ok")
