"""Which of the waiting clips share the next request. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.clip import Upload

# Clips that may not share this batch are passed over, but not without end: the queue may hold a hundred thousand.
LOOK_AHEAD = 400


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The most that one request may carry.

    Args:
        clips: how many clips.
        size_bytes: how many bytes of footage; one clip may exceed it alone.
    """

    clips: int
    size_bytes: int


def fill(ready: Iterator[Upload], limits: BatchLimits) -> list[Upload]:
    """Takes the most urgent clips that may travel together.

    A clip that is suspected of making batches fail travels only with other suspects, and with fewer each time, until
    it is alone. Two clips that the API could not tell apart never share a request: their results could be swapped.
    """
    batch: list[Upload] = []
    size_bytes = 0
    most = limits.clips
    for position, upload in enumerate(ready):
        if batch:
            if len(batch) >= most or position >= LOOK_AHEAD:
                break
            if (upload.companions is None) != (batch[0].companions is None):
                continue
            if any(upload.video == other.video for other in batch):
                continue
            if size_bytes + upload.size_bytes > limits.size_bytes:
                break
        if upload.companions is not None:
            if batch and len(batch) >= upload.companions:
                break
            most = min(most, upload.companions)
        batch.append(upload)
        size_bytes += upload.size_bytes
    return batch
