"""Posts the results of an upload to its webhook, signed; only to loopback addresses."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp

LOOPBACK = ("127.0.0.1", "localhost", "::1")
PATIENCE_SECONDS = 30.0


class Webhooks:
    """Pending and completed webhook calls. Used only by the thread of the event loop.

    Args:
        log: called with a message when a webhook is skipped.
    """

    def __init__(self, log: Callable[[str], None]) -> None:
        self.made: list[dict[str, Any]] = []
        self._log = log
        self._pending: set[asyncio.Task[None]] = set()

    def call(self, url: str, results: Any, api_key: str) -> None:
        """Post the results in the background.

        Args:
            url: the webhook; skipped if it is not a loopback address.
            results: sent as JSON.
            api_key: key of the signature (HMAC-SHA256 of the body as sent).
        """
        if not _is_loopback(url):
            self._log(f"  webhook {url} is skipped: not a loopback address")
            return
        task = asyncio.get_running_loop().create_task(self._post(url, json.dumps(results).encode(), api_key))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def close(self) -> None:
        """Cancel the pending calls."""
        for task in self._pending:
            task.cancel()
        await asyncio.gather(*self._pending, return_exceptions=True)

    async def _post(self, url: str, body: bytes, api_key: str) -> None:
        signature = hmac.new(api_key.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Webhook-Signature": signature, "Content-Type": "application/json"}
        call: dict[str, Any] = {"url": url, "signature": signature, "body": body.decode()}
        try:
            timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
            # A redirect could lead to another host.
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(url, data=body, headers=headers, allow_redirects=False) as answer,
            ):
                call["status"] = answer.status
        except (aiohttp.ClientError, asyncio.TimeoutError) as exc:
            call["error"] = str(exc) or type(exc).__name__
        self.made.append(call)


def _is_loopback(url: str) -> bool:
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and parts.hostname in LOOPBACK
