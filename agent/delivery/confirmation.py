"""Clips that were taken without a result of their own are confirmed by the account's list of videos. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from agent.clip import State, Verdict
from agent.spool.clip_queue import MAX_DUE_SECONDS
from agent.spool.records import Record
from agent.vision.client import VideoRequest
from agent.vision.readings import COMPLETE, FINAL_FAILURES

POLL_SECONDS = 45.0
LIMIT = 100


def confirm(accepted: Iterable[Record], listed: Iterable[VideoRequest], now: float) -> Mapping[int, Verdict]:
    """What the API's list says of the clips that wait for confirmation.

    Args:
        accepted: clips in state ACCEPTED.
        listed: the account's videos, anyone's; matched by registration, camera and times.
        now: Unix seconds.

    Returns:
        A verdict for each clip of which something is decided; the others go on waiting.
    """
    by_video: dict[tuple[str, int, object, object], list[VideoRequest]] = {}
    for item in listed:
        if item.registration and item.camera is not None and item.start and item.end:
            by_video.setdefault((item.registration.upper(), item.camera, item.start, item.end), []).append(item)
    verdicts: dict[int, Verdict] = {}
    for record in accepted:
        video = record.video
        if video is None:
            continue
        items = by_video.get((video.registration.upper(), video.camera, video.start, video.end), [])
        complete = next((item for item in items if item.status_id == COMPLETE), None)
        failed = next((item for item in items if item.status_id in FINAL_FAILURES), None)
        if complete is not None:
            verdicts[record.id] = Verdict(State.DELIVERED, "confirmed by the API", request_id=complete.request_id)
        elif failed is not None and failed.status_id is not None:
            verdicts[record.id] = _again(record, f"the API lists it as «{FINAL_FAILURES[failed.status_id]}»")
        elif not now < record.due <= now + MAX_DUE_SECONDS:
            # Due, or so far ahead that the clock was set back since.
            verdicts[record.id] = _again(record, "the API did not confirm it in time")
    return verdicts


def _again(record: Record, reason: str) -> Verdict:
    return Verdict(State.WAITING, f"{reason}: it is sent again", attempts=record.attempts + 1)
