"""A scan by a few processes at once: to read maps is the kernel's work, and it works on each core that asks it.

The others are forks, which know at once what is looked for, and not threads, which would wait for Python's lock after
each of the thousands of calls. They tell whom they found something of, and this process reads that again: what it is
may be more than fits into memory. What one of them did not bring to its end, this process reads itself.
"""

import json
import os
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

from agent.host import mappings
from agent.host.mappings import Engine, Pick, Unseen, Why
from agent.model.facts import Host, Mapped

MOST = 4
SHARE = 100
"""Processes for one reader: to make another one takes as long as to read some dozens."""

Over = Callable[[Iterable[int], int], Iterable[int]]
"""Goes through the pids of one of up to `MOST` readers and says where it is."""
Found = Mapped | Unseen


@dataclass(frozen=True, slots=True)
class _Reader:
    """Another process, and the pipe through which it tells at its end what it found."""

    pid: int
    pipe: int


def scan(host: Host, pids: Sequence[int], pick: Pick, engine: Engine, limit: int, over: Over) -> Iterator[Found]:
    """Yield what `mappings.scan` does, in another order, read by up to `MOST` processes."""
    count = max(1, min(MOST, len(os.sched_getaffinity(0)), len(pids) // SHARE))

    def read(number: int) -> Iterator[Found]:
        return mappings.scan(host, over(pids[number::count], number), pick, engine, limit)

    others = [_start(partial(read, number)) for number in range(1, count)]
    try:
        yield from read(0)
        for number in range(1, count):
            told = _hear(others.pop(0))
            if told is None:
                yield from read(number)
            else:
                for pid in over(told, 0):
                    why = told[pid]
                    yield from (Unseen(pid, why),) if why else mappings.scan(host, (pid,), pick, engine, limit)
    finally:
        for reader in filter(None, others):
            _end(reader)


def _start(read: Callable[[], Iterable[Found]]) -> _Reader | None:
    """Return a process that reads; None where there can be none."""
    ours, theirs = os.pipe()
    try:
        pid = os.fork()
    except OSError:
        os.close(ours)
        os.close(theirs)
        return None
    if pid == 0:
        _tell(theirs, read)
    os.close(theirs)
    return _Reader(pid, ours)


def _tell(pipe: int, read: Callable[[], Iterable[Found]]) -> NoReturn:
    """Be the other process: it touches no file of the first one but the pipe, and leaves without a word."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        rows = [(found.pid, found.why if isinstance(found, Unseen) else "") for found in read()]
        with open(pipe, "wb") as file:
            file.write(json.dumps(rows).encode())
        status = 0
    finally:
        os._exit(status)


def _hear(reader: _Reader | None) -> dict[int, Why | None] | None:
    """Return what another process found, by pid, once it is gone; None where there is none, or it did not end well."""
    if reader is None:
        return None
    with open(reader.pipe, "rb") as file:
        text = file.read()
    os.waitpid(reader.pid, 0)
    try:
        rows = json.loads(text)
    except ValueError:
        return None
    return {pid: Why(told) if told else None for pid, told in rows}


def _end(reader: _Reader) -> None:
    """Kill one that nobody hears any more. One that the kernel holds on to is not waited for."""
    os.close(reader.pipe)
    os.kill(reader.pid, signal.SIGKILL)
    os.waitpid(reader.pid, os.WNOHANG)
