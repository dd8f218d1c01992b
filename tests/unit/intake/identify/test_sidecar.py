from __future__ import annotations

import json
import os
import socket
from datetime import datetime, timezone
from pathlib import Path

import pytest

from agent.errors import FootageRefused
from agent.intake.identify.presets import EVENT, EventTag
from agent.intake.identify.sidecar import MAX_BYTES, Sidecar, read_sidecar


@pytest.fixture
def footage(tmp_path: Path) -> Path:
    return tmp_path / "clip.mp4"


def write(footage: Path, document: object) -> Path:
    path = footage.with_suffix(".json")
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def test_footage_without_a_sidecar_has_no_values(footage: Path) -> None:
    assert read_sidecar(footage) == Sidecar()


def test_all_its_keys_are_read_and_others_ignored(footage: Path) -> None:
    write(
        footage,
        {
            "registration": " ABC1234X ",
            "camera": 2,
            "start": "2026-07-28T14:41:41",
            "comments": "hard braking",
            "event": "impact",
            "speed_kmh": [50, 51],
        },
    )
    assert read_sidecar(footage) == Sidecar(
        "ABC1234X", 2, datetime(2026, 7, 28, 14, 41, 41), comments="hard braking", event=EventTag("impact")
    )


def test_a_start_with_a_zone_is_aware(footage: Path) -> None:
    write(footage, {"start": "20260728T144141Z"})
    assert read_sidecar(footage).start == datetime(2026, 7, 28, 14, 41, 41, tzinfo=timezone.utc)


@pytest.mark.parametrize(
    ("value", "event"), [(True, EVENT), (False, None), ("", None), (None, None), ("SOS", EventTag("SOS"))]
)
def test_an_event_is_true_or_a_word(footage: Path, value: object, event: EventTag | None) -> None:
    write(footage, {"event": value})
    assert read_sidecar(footage).event == event


def test_a_byte_order_mark_is_accepted(footage: Path) -> None:
    footage.with_suffix(".json").write_bytes(b'\xef\xbb\xbf{"camera": 3}')
    assert read_sidecar(footage).camera == 3


def test_a_lone_surrogate_does_not_reach_the_api(footage: Path) -> None:
    write(footage, '{"comments": "a\\ud800b"}')
    assert read_sidecar(footage).comments == "a?b"


@pytest.mark.parametrize(
    ("document", "sentence"),
    [
        ("", "is not JSON: Expecting value"),
        ('{"camera": 1', "is not JSON"),
        ("[" * 60_000, "is not JSON"),
        ({"registration": 5}, "registration must be text in quotes, not 5"),
        ({"comments": ["a"]}, r'comments must be text in quotes, not \["a"\]'),
        ({"camera": "2"}, 'camera must be a whole number from 0 to 255, not "2"'),
        ({"camera": 1.5}, "camera must be a whole number"),
        ({"camera": True}, "camera must be a whole number from 0 to 255, not true"),
        ({"camera": 256}, "not 256"),
        ({"start": 1785249701}, "start must be text in quotes"),
        ({"start": "noon"}, "start 'noon': not a time such as"),
        ({"start": "2026-02-30T10:00:00"}, "day is out of range"),
        ({"event": 1}, "event must be text in quotes"),
    ],
)
def test_a_wrong_sidecar_refuses_its_footage_until_it_is_corrected(
    footage: Path, document: object, sentence: str
) -> None:
    write(footage, document)
    with pytest.raises(FootageRefused, match=sentence) as refused:
        read_sidecar(footage)
    assert refused.value.reason.startswith("its sidecar clip.json ")
    assert refused.value.retry_after_seconds == 600


def test_undecodable_bytes_are_not_json(footage: Path) -> None:
    footage.with_suffix(".json").write_bytes(b'{"comments": "\xff"}')
    with pytest.raises(FootageRefused, match="is not JSON"):
        read_sidecar(footage)


@pytest.mark.parametrize(
    ("content", "why"),
    [("[1, 2]", "it holds no JSON object"), ('{"gps": "' + "x" * MAX_BYTES + '"}', "larger than 65,536 bytes")],
    ids=["a list", "too large"],
)
def test_a_recorder_log_of_that_name_is_ignored_with_a_note(footage: Path, content: str, why: str) -> None:
    write(footage, content)
    found = read_sidecar(footage)
    assert found.note is not None
    assert why in found.note
    assert found == Sidecar(note=found.note)


def test_a_symbolic_link_is_not_followed(footage: Path) -> None:
    write(footage, {"camera": 3}).rename(footage.with_name("elsewhere.json"))
    footage.with_suffix(".json").symlink_to("elsewhere.json")
    with pytest.raises(FootageRefused, match=r"its sidecar clip\.json cannot be used: it is a symbolic link"):
        read_sidecar(footage)


def test_a_pipe_without_a_writer_does_not_block(footage: Path) -> None:
    os.mkfifo(footage.with_suffix(".json"))
    with pytest.raises(FootageRefused, match="not a regular file but a folder, a pipe"):
        read_sidecar(footage)


def test_a_socket_is_not_read(footage: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(footage.parent)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("clip.json")
        with pytest.raises(FootageRefused, match="not a regular file but a socket"):
            read_sidecar(footage)


def test_a_folder_of_that_name_leaves_no_descriptor_open(footage: Path) -> None:
    footage.with_suffix(".json").mkdir()
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        with pytest.raises(FootageRefused, match="a folder"):
            read_sidecar(footage)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_footage_with_the_longest_possible_name_needs_no_sidecar(tmp_path: Path) -> None:
    footage = tmp_path / ("x" * 251 + ".mp4")
    footage.touch()
    assert read_sidecar(footage) == Sidecar()


def test_a_value_nested_as_deep_as_json_may_be_is_refused_like_others(footage: Path) -> None:
    for depth in range(900, 1000):
        write(footage, '{"comments": ' + "[" * depth + "]" * depth + "}")
        with pytest.raises(FootageRefused, match=r"comments must be text|is not JSON"):
            read_sidecar(footage)
