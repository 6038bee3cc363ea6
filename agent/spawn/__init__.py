"""The one place that starts programs. Never a shell, never a search path, never the caller's environment.

`run` is for short-lived system tools; `beside` has what the daemon needs beside its event loop, which workers and the
command do not load. All of it bounds time.
"""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass

from agent.model.errors import AgentError, Kind
from agent.model.text import printable

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
}
DIRECTORIES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")


@dataclass(frozen=True, slots=True)
class Done:
    """A program that ended: its exit status (negative: the signal) and what it printed."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str


def program(name: str) -> str:
    """Return the absolute path of the system program `name`; raise AgentError(SPAWN) where it is missing."""
    for directory in DIRECTORIES:
        path = f"{directory}/{name}"
        if os.access(path, os.X_OK):
            return path
    raise AgentError(Kind.SPAWN, f"{name} is not installed in {', '.join(DIRECTORIES)}")


def absolute(argv: Sequence[str]) -> tuple[str, ...]:
    """Return `argv` with the absolute path of its program; raises as `program` does."""
    return (argv[0] if argv[0].startswith("/") else program(argv[0]), *argv[1:])


def last_words(done: Done) -> str:
    """Return the last line that a program complained with, printable and short."""
    lines = done.stderr.strip().splitlines()
    return printable(lines[-1].strip())[:200] if lines else f"`{done.argv[0]}` ended with {done.status}"


def run(argv: Sequence[str], *, timeout: float = 30.0, stdin: str = "") -> Done:
    """Run `argv` (a system program by name or absolute path) and return what came of it.

    Raises AgentError: SPAWN where it cannot be started, TIMED_OUT after `timeout` seconds (it is killed then). A
    non-zero status is no error here: the caller knows what it means.
    """
    command = absolute(argv)
    try:
        done = subprocess.run(
            command,
            input=os.fsencode(stdin),
            capture_output=True,
            timeout=timeout,
            env=ENVIRONMENT,
            cwd="/",
            check=False,
        )
    except subprocess.TimeoutExpired as problem:
        raise AgentError(Kind.TIMED_OUT, f"{argv[0]} did not end within {timeout:g} s") from problem
    except OSError as problem:
        raise AgentError(Kind.SPAWN, f"{command[0]}: {problem.strerror}") from problem
    return Done(tuple(argv), done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))
