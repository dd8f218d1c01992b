"""Which of the waiting clips share the next request. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from agent.model import ClipKey, Upload

# Clips that cannot join this batch are skipped, but only so many: the queue may hold a hundred thousand.
MAX_LOOK_AHEAD = 400


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The most that one request may carry.

    Args:
        clips: how many clips.
        size_bytes: bytes of footage; a single clip may exceed it.
    """

    clips: int
    size_bytes: int


def fill_batch(ready: Iterator[Upload], limits: BatchLimits, *, prefer_unsuspected: bool = False) -> list[Upload]:
    """Takes the most urgent clips that can be sent together.

    A clip that was in failed batches shares a request only with clips that have the same `max_batch_clips`. Two clips
    with the same key never share one: the API's results could not be told apart.

    Args:
        ready: the clips, most urgent first.
        prefer_unsuspected: start with the clip that was in the fewest failed batches instead of the most urgent one.
    """
    if prefer_unsuspected:
        near = list(islice(ready, MAX_LOOK_AHEAD))
        if near:
            ready = chain([min(near, key=lambda upload: upload.batch_failures)], near)
    batch: list[Upload] = []
    keys: set[ClipKey] = set()
    size_bytes = 0
    max_clips = limits.clips
    for upload in islice(ready, MAX_LOOK_AHEAD):
        if batch:
            if len(batch) >= max_clips:
                break
            if upload.max_batch_clips != batch[0].max_batch_clips or upload.key in keys:
                continue
            if size_bytes + upload.size_bytes > limits.size_bytes:
                break
        elif upload.max_batch_clips is not None:
            max_clips = min(max_clips, upload.max_batch_clips)
        batch.append(upload)
        keys.add(upload.key)
        size_bytes += upload.size_bytes
    return batch
