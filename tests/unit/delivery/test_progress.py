"""What delivery is doing is told when it changes, and not when nothing does."""

from __future__ import annotations

import threading
from pathlib import Path

from agent.delivery.dispatcher import Dispatcher
from agent.delivery.progress import Activity
from simulator.server import Simulator
from tests.support.delivery_bench import bench, simulated


def test_each_clip_of_a_batch_is_told_of_and_an_idle_turn_is_not(tmp_path: Path) -> None:
    told: list[Activity] = []
    with Simulator() as simulator, bench(tmp_path, simulated(simulator.base_url)) as there:
        dispatcher = Dispatcher(
            there.spool,
            there.client,
            there.settings,
            threading.Event(),
            on_change=lambda: told.append(dispatcher.activity),
        )
        dispatcher.step()
        assert [activity.doing for activity in told] == ["idle"]
        dispatcher.step()
        assert len(told) == 1
        for number in range(3):  # each more than goes out at once
            there.take(number, hole_to_bytes=600_000)
        dispatcher.step()
        sent = [activity.batch_position for activity in told if activity.batch_clips == 3]
        assert sent == sorted(sent)
        assert set(sent) >= {1, 2, 3}
        assert told[-1] == dispatcher.activity
        assert (told[-1].doing, told[-1].link) == ("idle", "ok")
