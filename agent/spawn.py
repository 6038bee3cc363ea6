"""The one place that starts programs. Never a shell, never a search path, never the caller's environment.

`run` is for short-lived system tools; `converse` talks with a worker. Both bound time.
"""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.model.errors import AgentError, Kind

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "LANG": "C.UTF-8",
    "LC_ALL": "C.UTF-8",
    "SYSTEMD_PAGER": "",
    "SYSTEMD_COLORS": "0",
}
DIRECTORIES = ("/usr/sbin", "/usr/bin", "/sbin", "/bin")
LONGEST_LINE = 64 << 20
LONGEST_COMPLAINT = 64 << 10
DYING = 5.0
"""Seconds that a killed program has to be gone."""


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


def run(argv: Sequence[str], *, timeout: float = 30.0, stdin: str = "") -> Done:
    """Run `argv` (a system program by name or absolute path) and return what came of it.

    Raises AgentError: SPAWN where it cannot be started, TIMED_OUT after `timeout` seconds (it is killed then). A
    non-zero status is no error here: the caller knows what it means.
    """
    absolute = argv[0] if argv[0].startswith("/") else program(argv[0])
    try:
        done = subprocess.run(
            [absolute, *argv[1:]],
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
        raise AgentError(Kind.SPAWN, f"{absolute}: {problem.strerror}") from problem
    return Done(tuple(argv), done.returncode, os.fsdecode(done.stdout), os.fsdecode(done.stderr))


async def run_async(argv: Sequence[str], *, timeout: float = 30.0, stdin: str = "") -> Done:
    """`run`, beside the event loop."""
    return await asyncio.to_thread(lambda: run(argv, timeout=timeout, stdin=stdin))


async def converse(argv: Sequence[str], stdin: bytes, take: Callable[[bytes], None], *, timeout: float) -> None:
    """Start `argv`, feed it `stdin` and give each line that it prints to `take`, as they come.

    timeout: seconds for the whole of it. Raises AgentError: TIMED_OUT, or SPAWN where it ends with another status
    than 0 (its last words in the hint) or cannot be started, PROTOCOL where a line has no end, and whatever `take`
    raises. However it ends, the program was killed then.
    """
    process = await _start(argv)
    assert process.stdin and process.stdout and process.stderr
    complaint = asyncio.create_task(process.stderr.read(LONGEST_COMPLAINT))
    feeding = asyncio.create_task(_feed(process.stdin, stdin))
    try:
        async with asyncio.timeout(timeout):
            while line := await _line(process.stdout):
                take(line)
            status = await process.wait()
            words = (await complaint).decode(errors="replace").strip()
    except TimeoutError as problem:
        raise AgentError(Kind.TIMED_OUT, f"the worker did not end within {timeout:g} s") from problem
    finally:
        await _end(process)
        feeding.cancel()
        complaint.cancel()
    if status != 0:
        raise AgentError(Kind.SPAWN, f"the worker ended with status {status}", words[-2000:])


async def _start(argv: Sequence[str]) -> asyncio.subprocess.Process:
    try:
        return await asyncio.create_subprocess_exec(
            *argv,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=ENVIRONMENT,
            cwd="/",
            limit=LONGEST_LINE,
        )
    except OSError as problem:
        raise AgentError(Kind.SPAWN, f"{argv[0]}: {problem.strerror}") from problem


async def _line(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.readline()
    except ValueError as problem:
        raise AgentError(Kind.PROTOCOL, f"the worker said more than {LONGEST_LINE} bytes in one line") from problem


async def _feed(pipe: asyncio.StreamWriter, data: bytes) -> None:
    with contextlib.suppress(ConnectionError):
        pipe.write(data)
        await pipe.drain()
        pipe.close()


async def _end(process: asyncio.subprocess.Process) -> None:
    """Kill it. One that the kernel holds on to is not waited for: it dies when that lets go."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), DYING)
