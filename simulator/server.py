"""The simulated Vision API as a server in its own thread."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from aiohttp import web

from simulator.endpoints import BASE, LoggedRequest, Server
from simulator.faults import Faults
from simulator.settings import Settings
from simulator.store import ReceivedVideo, Store


class Simulator:
    """A context manager that serves the API (`with Simulator() as simulator:`).

    Its attributes may be used from any thread.

    Args:
        settings: the account; may be replaced while the server runs.
        host: a loopback address.
        port: 0 for any free port.
        tls: serve https with this context; None for http.
        keep_directory: store received videos there, as SHA256.mp4; None to keep only their SHA-256.
        log: called with one line per request and per video, from threads of the server.

    Raises:
        OSError: on entering: the port is taken.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        tls: ssl.SSLContext | None = None,
        keep_directory: Path | None = None,
        log: Callable[[str], None] = lambda _sentence: None,
    ) -> None:
        self.faults = Faults()
        self._store = Store(keep_directory)
        self._server = Server(settings or Settings(), self._store, self.faults, log)
        self._host = host
        self._port = port
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._started = threading.Event()
        self._failure: OSError | None = None
        self._finish = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="simulator", daemon=True)

    def __enter__(self) -> Simulator:
        self._thread.start()
        self._started.wait()
        if self._failure is not None:
            self._thread.join()
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._finish.set)
        self._thread.join()

    @property
    def base_url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self._host}:{self._port}{BASE}"

    @property
    def settings(self) -> Settings:
        return self._server.settings

    @settings.setter
    def settings(self, settings: Settings) -> None:
        self._server.settings = settings

    @property
    def received(self) -> list[ReceivedVideo]:
        """The videos of the account: uploaded and requested ones."""
        return self._store.videos

    @property
    def requests(self) -> list[LoggedRequest]:
        """The requests so far, in order of arrival."""
        return list(self._server.requests)

    @property
    def webhook_calls(self) -> list[dict[str, Any]]:
        return list(self._server.webhook_calls)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        # No lingering: after an early response (413, 401) the rest of the body must stay unread, as with a real server.
        runner = web.AppRunner(self._server.application(), access_log=None, lingering_time=0.0, shutdown_timeout=0.2)
        await runner.setup()
        try:
            site = web.TCPSite(runner, self._host, self._port, ssl_context=self._tls)
            await site.start()
            self._port = int(runner.addresses[0][1])
            self._started.set()
            await self._finish.wait()
        except OSError as exc:
            self._failure = exc
            self._started.set()
        finally:
            await runner.cleanup()
            # Handlers whose client has disconnected in the middle of a fault: the runner no longer knows them.
            pending = asyncio.all_tasks() - {asyncio.current_task()}
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
            await self._loop.shutdown_default_executor()
