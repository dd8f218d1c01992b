"""Which of the waiting clips share the next request. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, islice

from agent.model import ClipKey, Upload

# Clips that may not share this batch are passed over, but not without end: the queue may hold a hundred thousand.
MAX_LOOK_AHEAD = 400


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """The most that one request may carry.

    Args:
        clips: how many clips.
        size_bytes: how many bytes of footage; one clip may exceed it alone.
    """

    clips: int
    size_bytes: int


def fill_batch(ready: Iterator[Upload], limits: BatchLimits, *, prefer_unsuspected: bool = False) -> list[Upload]:
    """Takes the most urgent clips that may travel together.

    A clip that is suspected of making batches fail travels only with others that are suspected as much. Two clips
    that the API could not tell apart never share a request: their results could be swapped.

    Args:
        ready: the clips, most urgent first.
        least_suspected_first: begin with the clip that was in the fewest failed batches instead of the most urgent.
    """
    if prefer_unsuspected:
        near = list(islice(ready, MAX_LOOK_AHEAD))
        if near:
            ready = chain([min(near, key=lambda upload: upload.batch_failures)], near)
    batch: list[Upload] = []
    videos: set[ClipKey] = set()
    size_bytes = 0
    most = limits.clips
    for upload in islice(ready, MAX_LOOK_AHEAD):
        if batch:
            if len(batch) >= most:
                break
            if upload.max_batch_clips != batch[0].max_batch_clips or upload.key in videos:
                continue
            if size_bytes + upload.size_bytes > limits.size_bytes:
                break
        elif upload.max_batch_clips is not None:
            most = min(most, upload.max_batch_clips)
        batch.append(upload)
        videos.add(upload.key)
        size_bytes += upload.size_bytes
    return batch
