"""Manual pages and shell completion, generated from the parser of the commands, the configuration keys and the unit."""

from __future__ import annotations

import argparse
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

import reference

from agent import __version__
from agent.cli import build_parser

ROOT = Path(__file__).resolve().parents[1]


def manual_pages() -> dict[str, str]:
    """The manual pages, by names such as "vision-ingest.1"."""
    return {
        "vision-ingest.1": "\n".join(_commands_page()),
        "vision-ingest.toml.5": "\n".join(_configuration_page()),
        "vision-ingest.service.8": "\n".join(_service_page()),
    }


def completion() -> str:
    """The completion script for bash: commands, and the options and choices of each."""
    commands = _commands(build_parser())
    cases = []
    for name, (parser, _) in commands.items():
        words = " ".join(_words(parser))
        cases.append(f"        {name}) words='{words}' ;;")
    return textwrap.dedent(
        """\
        # bash completion for vision-ingest, made from its --help
        _vision_ingest() {{
            local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=''
            case $before in
                --config|--footage|--password-file) COMPREPLY=($(compgen -f -- "$word")); return ;;
            esac
            case ${{COMP_WORDS[1]}} in
        {cases}
                inspect) COMPREPLY=($(compgen -f -- "$word")); [[ $word == -* ]] || return ;;
            esac
            [[ $COMP_CWORD -eq 1 ]] && words='{commands} --help --version'
            COMPREPLY=($(compgen -W "$words" -- "$word"))
        }}
        complete -o filenames -F _vision_ingest vision-ingest
        """
    ).format(cases="\n".join(cases), commands=" ".join(commands))


def _commands(parser: argparse.ArgumentParser) -> dict[str, tuple[argparse.ArgumentParser, str]]:
    """The commands of a parser, each with its help line."""
    for action in parser._actions:  # argparse has no other way to ask
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            return {name: (command, helps.get(name, "")) for name, command in action.choices.items()}
    return {}


def _words(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from action.option_strings[-1:]
        if action.choices is not None:
            yield from map(str, action.choices)
    for nested, _ in _commands(parser).values():
        for action in nested._actions:
            yield from action.option_strings[-1:]


def _header(name: str, section: int, what: str) -> Iterator[str]:
    yield f'.TH {name.upper()} {section} "" "vision-ingest {__version__}"'
    yield ".SH NAME"
    yield f"{_escaped(name)} \\- {_escaped(what)}"


def _commands_page() -> Iterator[str]:
    parser = build_parser()
    commands = _commands(parser)
    yield from _header("vision-ingest", 1, "deliver footage of vehicle cameras to the Vision API")
    yield ".SH SYNOPSIS"
    yield ".B vision-ingest"
    yield ".I COMMAND"
    yield "[options]"
    yield ".SH DESCRIPTION"
    yield _escaped(parser.description or "")
    yield ".SH COMMANDS"
    for name, (command, line) in commands.items():
        yield f".SS {_escaped(name)} \\- {_escaped(line)}"
        yield from _paragraphs(command.description or "")
        yield from _options(command)
        for nested_name, (nested, nested_line) in _commands(command).items():
            yield ".PP"
            yield f".B {_escaped(name)} {_escaped(nested_name)}"
            yield f"\\- {_escaped(nested_line)}"
            yield from _options(nested)
    yield ".SH NOTES"
    yield from _paragraphs(parser.epilog or "")
    yield ".SH FILES"
    for file, what in (
        ("/etc/vision-ingest/config.toml", "the configuration, every key explained"),
        ("/etc/vision-ingest/config.d/*.toml", "further files of it, which go before it"),
        ("/etc/vision-ingest/api-password", "the password; only root may read it"),
        ("/var/lib/vision-ingest", "the spool: clips that wait, and their list"),
    ):
        yield ".TP"
        yield f".I {_escaped(file)}"
        yield _escaped(what)
    yield from _see_also("vision-ingest.toml(5)", "vision-ingest.service(8)")


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        if isinstance(action, (argparse._SubParsersAction, argparse._HelpAction)):
            continue
        value = str(action.metavar or (action.dest.upper() if action.nargs != 0 else ""))
        if action.choices is not None and action.metavar is None:
            value = "|".join(map(str, action.choices))
        names = ", ".join(action.option_strings) or value
        yield ".TP"
        takes_value = bool(action.option_strings) and action.nargs != 0
        yield f".B {_escaped(names)}" + (f" \\fI{_escaped(value)}\\fR" if takes_value else "")
        yield _escaped(action.help or "")


def _configuration_page() -> Iterator[str]:
    yield from _header("vision-ingest.toml", 5, "the configuration of vision-ingest")
    yield ".SH DESCRIPTION"
    yield from _paragraphs(reference.INTRODUCTION)
    for section in reference.sections():
        yield f".SH {_escaped(section.header)}"
        yield from _paragraphs(section.explanation)
        for key in section.keys:
            yield ".TP"
            yield f".B {_escaped(key.line)}"
            yield _escaped(key.explanation)
            if key.is_example:
                yield "No default; the value is an example."
    yield from _see_also("vision-ingest(1)", "vision-ingest.service(8)")


def _service_page() -> Iterator[str]:
    unit = (ROOT / "systemd" / "vision-ingest.service").read_text(encoding="utf-8")
    run, _ = _commands(build_parser())["run"]
    yield from _header("vision-ingest.service", 8, "the service that delivers footage")
    yield ".SH SYNOPSIS"
    yield "vision-ingest.service"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(run.description or "")
    yield ".PP"
    yield _escaped("What it does now: systemctl status vision-ingest, or vision-ingest status. What it did: ")
    yield _escaped("journalctl -u vision-ingest. A changed configuration is read with systemctl reload vision-ingest.")
    yield ".SH THE UNIT, AND THE REASON FOR EACH LINE"
    comment: list[str] = []
    for line in unit.splitlines():
        if line.startswith("#"):
            comment.append(line.removeprefix("#").strip())
        elif line.startswith("["):
            yield f".SS {_escaped(line)}"
            comment = []
        elif line:
            yield ".TP"
            yield f".B {_escaped(line)}"
            yield _escaped(" ".join(comment))
            comment = []
    yield ".SH DROP-INS"
    yield _escaped("Examples lie in /usr/share/doc/vision-ingest/examples; systemctl edit vision-ingest makes one.")
    yield from _see_also("vision-ingest(1)", "vision-ingest.toml(5)", "systemd.exec(5)")


def _see_also(*pages: str) -> Iterator[str]:
    yield ".SH SEE ALSO"
    yield ", ".join(f"\\fB{_escaped(page[:-3])}\\fR{page[-3:]}" for page in pages)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        if paragraph:
            yield ".PP"
            yield from (_escaped(line.strip()) for line in paragraph.splitlines())


def _escaped(text: str) -> str:
    """Escape text for roff: no requests, no escape sequences, plain hyphens."""
    plain = " ".join(text.split()).replace("\\", "\\e").replace('"', "\\(dq").replace("-", "\\-").replace("%%", "%")
    return f"\\&{plain}" if plain[:1] in {".", "'"} else plain
