"""The command line of agentctl: parse, dispatch, and the one boundary that turns errors into exit statuses.

stdout carries the result alone; everything else goes to stderr. Heavy modules are imported by the command that needs
them, so that `agentctl status` in a script starts in milliseconds.
"""

import argparse
import importlib
import io
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import Any

from agent import __version__
from agent.cli.commands import COMMANDS, STATUSES
from agent.model.errors import AgentError, Kind
from agent.varlink.wire import SOCKET


def build_parser(only: str = "") -> argparse.ArgumentParser:
    """Return the parser; completions and man pages are made from it too. only: the one command to be parsed."""
    parser = argparse.ArgumentParser(prog="agentctl", description="What happens after apt.", epilog=STATUSES)
    parser.add_argument("--version", action="version", version=f"agentctl {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for command in COMMANDS:
        if only not in ("", command.word):
            continue
        about: dict[str, Any] = {"help": command.help, "description": command.help, "epilog": command.statuses}
        child = commands.add_parser(command.word, prog=f"agentctl {command.name}", **about)
        commands._get_subactions()[-1].metavar = command.name
        child.add_argument("--json", action="store_true", help="print JSON")
        child.add_argument("--socket", default=SOCKET, help=argparse.SUPPRESS)
        for argument in command.arguments:
            child.add_argument(*argument.names, **argument.options)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out one command and return its exit status."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a locale may know no arrow, and no foreign letter
    options = argparse.Namespace(command="", format="")
    try:
        words = _joined(sys.argv[1:] if arguments is None else arguments)
        options = _parse(words)
        status = _function(options.command)(options)
        sys.stdout.flush()
        return status
    except AgentError as problem:
        return _complain(problem, options)
    except BrokenPipeError:
        _print_no_more()
        return 128 + signal.SIGPIPE
    except OSError as problem:
        _print_no_more()
        where = f"{problem.filename!r}: " if problem.filename else ""
        return _complain(AgentError(Kind.UNREADABLE, f"{where}{problem.strerror or problem}"), options)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT


def _parse(words: list[str]) -> argparse.Namespace:
    """Return the options of the one command that is named, in whose own parser there is little to be built."""
    known = {command.word for command in COMMANDS}
    options = build_parser(words[0] if known.intersection(words[:1]) else "").parse_args(words)
    options.format = "json" if options.json else getattr(options, "format", "table")
    options.json = options.format == "json"
    return options


def _complain(problem: AgentError, options: argparse.Namespace) -> int:
    """Say what is wrong and return the exit status; a monitoring plugin says it in its own way."""
    if options.format == "nagios":
        from agent.cli import foreign  # of no use to anybody else

        return foreign.show_unknown(problem.message)
    name = " ".join(["agentctl", *(item.name for item in COMMANDS if item.word == options.command)])
    print(f"{name if problem.kind is Kind.DENIED else 'agentctl'}: {problem.message}", file=sys.stderr)
    if problem.hint:
        print(f"  {problem.hint}", file=sys.stderr)
    return problem.exit_status


def _print_no_more() -> None:
    """What is left in the buffer cannot be printed, and shall not be tried again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _joined(arguments: Sequence[str]) -> list[str]:
    """Write a command of two words as one; raise AgentError(USAGE) where there is no such command."""
    names, first = [command.name for command in COMMANDS], "".join(arguments[:1])
    if " ".join(arguments[:2]) in names:
        return ["-".join(arguments[:2]), *arguments[2:]]
    if first and not first.startswith("-") and first not in {command.word for command in COMMANDS}:
        longer = [f"agentctl {name}" for name in names if name.startswith(f"{first} ")]
        hint = f"there is {', '.join(longer)}" if longer else "agentctl --help lists them"
        raise AgentError(Kind.USAGE, f"{first!r} is no command", hint)
    return list(arguments)


def _function(name: str) -> Callable[[argparse.Namespace], int]:
    command = next(command for command in COMMANDS if command.word == name)
    home = importlib.import_module(f"agent.cli.{command.home}")
    function: Callable[[argparse.Namespace], int] = getattr(home, name.replace("-", "_"))
    return function
