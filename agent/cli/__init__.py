"""The command line: one module a command, each with HELP, `arguments` and `run`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from agent import __version__
from agent.errors import ConfigError, VisionIngestError

DONE, FAILED, USAGE = 0, 1, 2

# In the order in which a user meets them.
COMMANDS = (
    "inspect",
    "setup",
    "check",
    "run",
    "status",
    "clips",
    "why",
    "retry",
    "drain",
    "requests",
    "livestream",
    "simulate",
    "demo",
)
EPILOG = """exit codes: 0 done, 1 failed, 2 wrong usage or configuration

`vision-ingest inspect FOLDER` shows what would be made of a camera's footage. Start with `sudo vision-ingest setup`: it
asks for what is needed. `vision-ingest check` says what is missing, and `vision-ingest demo` shows the whole journey of
a clip on this computer, without a camera or an account."""


def build_parser(names: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The parser of all commands; manual pages and completion are made from it too.

    Args:
        names: the commands that it shall know; each of them is imported.
    """
    parser = argparse.ArgumentParser(
        prog="vision-ingest",
        description="Delivers footage of third-party vehicle cameras to the Cartrack Vision API.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        # Not None: an action of `requests` would put back what was given before its name.
        default=argparse.SUPPRESS,
        help="configuration file (default: /etc/vision-ingest/config.toml, else $VISION_INGEST_CONFIG)",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in names:
        module = importlib.import_module(f"agent.cli.{name}")
        command = commands.add_parser(
            name,
            help=module.HELP,
            description=module.__doc__,
            parents=[common],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.arguments(command, common) if name == "requests" else module.arguments(command)
        command.set_defaults(run=module.run)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Returns:
        The exit code: 0 done, 1 failed, 2 usage or configuration.
    """
    given = sys.argv[1:] if arguments is None else arguments
    # The daemon runs for months and shall not carry what only other commands need.
    args = build_parser(given[:1] if given and given[0] in COMMANDS else COMMANDS).parse_args(given)
    if "config" not in args:
        from agent.config import default_file

        args.config = default_file(os.environ)
    try:
        return int(args.run(args))
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        print("`sudo vision-ingest setup` asks for what is needed.", file=sys.stderr)
        return USAGE
    except VisionIngestError as exc:
        print(f"vision-ingest {args.command}: {exc}", file=sys.stderr)
        return FAILED
    except (KeyboardInterrupt, EOFError):
        return 130
    except BrokenPipeError:
        # The reader (`| head`) has had enough; Python would complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
