"""Serves a simulated Vision API on this computer, to try a camera or an installation without an account.

It validates uploads as the API does, keeps the SHA-256 of each file, and injects faults on request:

  curl -X POST http://127.0.0.1:8480/_simulator/faults -d '{"action": "answer", "status": 500, "times": 3}'
  curl http://127.0.0.1:8480/_simulator/received

Actions: reset, stall, slow, answer, reject, omit_result, withhold, truncate, drop.
Needs: pip install 'vision-ingest[simulator]'
"""

from __future__ import annotations

import argparse
import importlib.util
import signal
import ssl
import sys
import threading
from pathlib import Path

from agent.cli import DONE, FAILED, USAGE
from simulator.settings import AnswerShape, Settings

HELP = "serve a simulated Vision API on this computer"
MISSING = "the simulator needs another library: pip install 'vision-ingest[simulator]'"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, default=8480, help="port to listen on; 0 for any (default: 8480)")
    parser.add_argument("--username", default="bench", help="the account's username (default: bench)")
    parser.add_argument("--password", default="bench", help="the account's password (default: bench)")
    parser.add_argument("--api-key", default="bench-key", help="key of the webhook signature (default: bench-key)")
    parser.add_argument("--tls-cert", type=Path, metavar="FILE", help="serve https with this certificate")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="private key of the certificate")
    parser.add_argument(
        "--results",
        choices=("grouped", "flat", "none"),
        default="grouped",
        help="format of per-file results; none makes the agent query the list (default: grouped)",
    )
    parser.add_argument("--without-option", action="store_true", help="as if the account lacked the Vision API option")
    parser.add_argument("--requests-per-minute", type=int, default=1000, metavar="N", help="rate limit (default: 1000)")
    parser.add_argument("--offline", action="append", default=[], metavar="REGISTRATION", help="its camera is offline")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="store received videos there, as SHA256.mp4")


def is_installed() -> bool:
    """Whether the extra `simulator` is installed."""
    return importlib.util.find_spec("aiohttp") is not None


def run(args: argparse.Namespace) -> int:
    if not is_installed():
        print(MISSING, file=sys.stderr)
        return USAGE
    from simulator.server import Simulator

    settings = Settings(
        username=args.username,
        password=args.password,
        api_key=args.api_key,
        option_active=not args.without_option,
        offline=frozenset(args.offline),
        requests_per_minute=args.requests_per_minute,
        answer=AnswerShape(grouping=args.results),
    )
    finish = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: finish.set())
    try:
        with Simulator(
            settings,
            host=args.host,
            port=args.port,
            tls=_tls(args),
            keep_directory=args.keep,
            log=lambda line: print(line, flush=True),
        ) as simulator:
            print(f'[api]\nbase_url = "{simulator.base_url}"\nusername = "{args.username}"')
            print("# put the password into a file, and its path into password_file\n", flush=True)
            finish.wait()
    except OSError as exc:
        print(f"cannot serve on {args.host}:{args.port}: {exc.strerror}", file=sys.stderr)
        return FAILED
    return DONE


def _tls(args: argparse.Namespace) -> ssl.SSLContext | None:
    if args.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(args.tls_cert, args.tls_key)
    return context
