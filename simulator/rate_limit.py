"""So many requests in a sliding span of time, and how long to wait when there were more."""

from __future__ import annotations

from collections import deque


class RateLimit:
    """Counts admitted requests; a refused one does not count.

    Args:
        span_seconds: the length of the sliding span.
    """

    def __init__(self, span_seconds: float) -> None:
        self._span_seconds = span_seconds
        self._admitted: deque[float] = deque()

    def wait_seconds(self, now_seconds: float, limit: int) -> float:
        """Admit a request, or say how long to wait.

        Args:
            now_seconds: a monotonic clock's reading.
            limit: how many requests the span may hold; at least 1.

        Returns:
            0 if the request is admitted, else the seconds until one would be.
        """
        while self._admitted and self._admitted[0] <= now_seconds - self._span_seconds:
            self._admitted.popleft()
        if len(self._admitted) < limit:
            self._admitted.append(now_seconds)
            return 0.0
        return self._admitted[-limit] + self._span_seconds - now_seconds
