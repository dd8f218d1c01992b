"""The command line. Each command is one module, with HELP, `arguments` and `run`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType

from agent import __version__
from agent.errors import ConfigError, VisionIngestError

DONE, FAILED, USAGE = 0, 1, 2

# In the order in which a new user needs them.
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
)
# Entry points of this group add commands: modules with the same functions, and `is_installed`.
PLUGIN_GROUP = "vision_ingest.commands"
EPILOG = """exit codes: 0 done, 1 failed, 2 wrong usage or configuration

Start with `sudo vision-ingest setup`, which asks for the required settings. `vision-ingest check` shows what is
missing, and `vision-ingest inspect FOLDER` how a camera's footage would be read."""


def plugins(asked_for: str = "") -> dict[str, ModuleType]:
    """Commands that other installed packages add, by name.

    Args:
        asked_for: include this command even if it cannot run here: it reports itself what is missing.
    """
    from importlib.metadata import entry_points

    modules = {entry.name: entry.load() for entry in entry_points(group=PLUGIN_GROUP)}
    return {name: module for name, module in modules.items() if name == asked_for or module.is_installed()}


def build_parser(
    names: Sequence[str] = COMMANDS, plugins: Mapping[str, ModuleType] = MappingProxyType({})
) -> argparse.ArgumentParser:
    """Build the parser, from which the manual pages and the shell completion are generated too.

    Args:
        names: built-in commands to include; only these are imported.
        plugins: further commands, by name.
    """
    modules = {name: importlib.import_module(f"agent.cli.{name}") for name in names} | dict(plugins)
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
        # With a default, a subcommand of `requests` would overwrite the value given before its name.
        default=argparse.SUPPRESS,
        help="configuration file (default: /etc/vision-ingest/config.toml, else $VISION_INGEST_CONFIG)",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, module in modules.items():
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
    """Run one command.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage or configuration, 130 interrupted.
    """
    given = sys.argv[1:] if arguments is None else arguments
    command = given[0] if given else ""
    # Import only this command: the daemon should not keep in memory what only other commands need.
    parser = build_parser([command]) if command in COMMANDS else build_parser(plugins=plugins(command))
    args = parser.parse_args(given)
    if "config" not in args:
        from agent.config import default_file

        args.config = default_file(os.environ)
    try:
        return int(args.run(args))
    except ConfigError as exc:
        print(exc, file=sys.stderr)
        print("`sudo vision-ingest setup` asks for the required settings.", file=sys.stderr)
        return USAGE
    except VisionIngestError as exc:
        print(f"vision-ingest {args.command}: {exc}", file=sys.stderr)
        return FAILED
    except (KeyboardInterrupt, EOFError):
        return 130
    except BrokenPipeError:
        # The reader (`| head`) closed the pipe. Without this, Python prints an error when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
