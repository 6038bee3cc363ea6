"""Starting programs beside the event loop: system tools, and conversations with workers."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Sequence

from agent.model.errors import AgentError, Kind
from agent.spawn import ENVIRONMENT, Done, run

LONGEST_LINE = 64 << 20
LONGEST_COMPLAINT = 64 << 10
DYING = 5.0
"""Seconds that a killed program has to be gone."""


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
            start_new_session=True,
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
    """Kill it and those it made. One that the kernel holds on to is not waited for: it dies when that lets go."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), DYING)
