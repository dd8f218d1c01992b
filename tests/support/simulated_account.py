"""A client of the simulated API that sends valid and invalid requests."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any

import requests

from simulator.recorder import recording
from simulator.server import Simulator

BULK = "/vision/video/bulk-upload"
SINGLE = "/vision/video/upload"
LIST = "/vision/videos/requests"
STATUS = "/vision/videos/status"

# More than any answer takes on a busy machine.
PATIENCE_SECONDS = 60


def fields(number: int = 0, **changes: Any) -> dict[str, Any]:
    """The fields of one record; each number is a different clip."""
    return {
        "registration": "ABC1234X",
        "camera": 1,
        "start_timestamp": f"2026-07-28 14:{number:02}:00",
        "end_timestamp": f"2026-07-28 14:{number:02}:30",
        **changes,
    }


def clip(number: int = 0) -> bytes:
    return recording(30.0, seed=str(number))


def record(number: int = 0, *, video: bytes | None = None, **changes: Any) -> dict[str, Any]:
    """One record of a bulk upload as JSON."""
    content = clip(number) if video is None else video
    return {**fields(number, **changes), "video_file": base64.b64encode(content).decode()}


class Account:
    """Requests to a simulator, by default with the right credentials."""

    def __init__(self, simulator: Simulator) -> None:
        self._simulator = simulator
        self.session = requests.Session()
        self.session.trust_env = False
        self.session.auth = ("bench", "bench")

    def get(self, path: str, **more: Any) -> requests.Response:
        return self.session.get(self._simulator.base_url + path, timeout=PATIENCE_SECONDS, **more)

    def post(self, path: str, **more: Any) -> requests.Response:
        return self.session.post(self._simulator.base_url + path, timeout=PATIENCE_SECONDS, **more)

    def bulk(self, *records: Mapping[str, Any], **outside: Any) -> requests.Response:
        return self.post(BULK, json={"data": list(records), **outside})

    def bulk_text(self, text: str | bytes) -> requests.Response:
        return self.post(BULK, data=text, headers={"Content-Type": "application/json"})

    def bulk_form(self, *numbers: int, **outside: str) -> requests.Response:
        """The same as multipart/form-data."""
        form = {f"data[{i}][{name}]": str(v) for i, n in enumerate(numbers) for name, v in fields(n).items()}
        files = {f"data[{i}][video_file]": ("clip.mp4", clip(n), "video/mp4") for i, n in enumerate(numbers)}
        return self.post(BULK, data=form | outside, files=files)

    def single(self, number: int = 0, *, video: bytes | None = None, **changes: Any) -> requests.Response:
        content = clip(number) if video is None else video
        return self.post(SINGLE, data=fields(number, **changes), files={"video_file": ("clip.mp4", content)})

    def results(self, *records: Mapping[str, Any]) -> Any:
        """The `data` in the response to a successful bulk upload."""
        answer = self.bulk(*records)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]

    def fault(self, method: str = "POST", **fault: Any) -> requests.Response:
        """Arm a fault, or clear all, over HTTP as a user does."""
        root = self._simulator.base_url.removesuffix("/rest")
        return self.session.request(
            method, f"{root}/_simulator/faults", data=json.dumps(fault), timeout=PATIENCE_SECONDS
        )

    def kept(self) -> list[dict[str, Any]]:
        root = self._simulator.base_url.removesuffix("/rest")
        rows: list[dict[str, Any]] = self.session.get(f"{root}/_simulator/received", timeout=PATIENCE_SECONDS).json()[
            "data"
        ]
        return rows
