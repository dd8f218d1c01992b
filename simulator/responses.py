"""Errors in the API's form, and connections that end without an answer."""

from __future__ import annotations

import time

from aiohttp import web


def cut(request: web.Request) -> web.Response:
    """Resets the connection; the response that is returned goes nowhere."""
    transport = request.transport
    if transport is not None:
        transport.abort()
    return web.Response(status=500)


def error(code: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response({"error": {"code": code, "message": message}}, status=code, headers=headers)


def too_many(wait_seconds: float, message: str) -> web.Response:
    headers = {
        "X-RateLimit-Retry-After-Seconds": str(int(wait_seconds) + 1),
        "X-RateLimit-Retry-At": str(int(time.time() + wait_seconds) + 1),
    }
    return error(429, message, headers)


def unprocessable(errors: dict[str, list[str]]) -> web.Response:
    message = "; ".join(words[0] for words in errors.values())[:300]
    body = {"error": {"code": 422, "message": message}, "errors": errors, "data": None}
    return web.json_response(body, status=422)
