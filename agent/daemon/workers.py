"""Sends surveys and checks to worker processes and takes their answers apart.

A worker that dies or hangs costs its answer only: what it announced that it was at is skipped on the second try.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from agent import RUNNING
from agent.config.settings import Settings
from agent.model import contract
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host, Indexed, Snapshot
from agent.model.findings import CheckResult, Request, Survey
from agent.spawn.beside import converse

T = TypeVar("T")

MOST_BEATS = 5
"""So often, once a second, may a worker be at the same subject."""
MOST_LIMITS = 4
"""So many times the limit of one check may it take with all its tries."""


class Outdated(Exception):
    """The files on disk are another version than this process: it must restart itself."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A survey and the index rows that came with it, still packed: unpacked at once they would take megabytes.

    To go through it is to go through the rows, unpacked chunk by chunk.
    """

    survey: Survey
    packed: tuple[str, ...]

    def __iter__(self) -> Iterator[Indexed]:
        for chunk in self.packed:
            yield from contract.indexed(json.loads(chunk))


def command() -> list[str]:
    """Return how a worker is started: the launcher beside our own, or the module where there is none (a venv)."""
    launcher = Path(sys.argv[0]).resolve().with_name("worker")
    if launcher.is_file():
        return [str(launcher)]
    return [sys.executable, "-I", "-m", "agent.checks.worker"]


async def survey(
    host: Host, settings: Settings, old: Snapshot | None, since: datetime | None, now: datetime
) -> Surveyed:
    """Return what dpkg did since the snapshot `old` (None: everything is new)."""
    order = {
        "op": "survey",
        "snapshot": contract.encode(old),
        "now": now.isoformat(),
        "since": since.isoformat() if since else None,
    }
    packed: list[str] = []
    answers: list[Survey] = []

    def take(message: dict[str, Any]) -> None:
        if "index" in message:
            packed.append(json.dumps(message["index"]))
        if "survey" in message:
            answers.append(contract.decode(Survey, message["survey"]))

    await _converse(host, settings, order, take)
    return Surveyed(_only(answers, "survey"), tuple(packed))


async def check(host: Host, settings: Settings, request: Request) -> CheckResult:
    """Return what a check found.

    A subject that hung is skipped on the next try; where a second one of its crowd hangs, so is the whole crowd: two
    tries are all that anybody's processes can cost, however many there are.
    """
    until = time.monotonic() + MOST_LIMITS * settings.check_limit
    crowds: set[str] = set()
    while True:
        stuck: list[tuple[int, str]] = []
        try:
            return await _check(host, settings, request, stuck)
        except AgentError:
            if not stuck or time.monotonic() > until:
                raise
        pid, crowd = stuck[-1]
        shunned = (*request.crowds, crowd) if crowd in crowds else request.crowds
        request = replace(request, skip=(*request.skip, pid), crowds=shunned)
        crowds.add(crowd)


async def _check(host: Host, settings: Settings, request: Request, stuck: list[tuple[int, str]]) -> CheckResult:
    """Run one worker. stuck: gets what it announces while that stays the same."""
    answers: list[CheckResult] = []

    def take(message: dict[str, Any]) -> None:
        if "at" in message:
            at = (message["at"], message["crowd"])
            stuck[:] = [at, *(earlier for earlier in stuck if earlier == at)]
            if len(stuck) >= MOST_BEATS:
                raise AgentError(Kind.TIMED_OUT, f"a look at process {at[0]} got stuck")
        if "result" in message:
            answers.append(contract.decode(CheckResult, message["result"]))

    await _converse(host, settings, {"op": "check", "request": contract.encode(request)}, take)
    return _only(answers, f"check {request.check}")


def _only(answers: list[T], what: str) -> T:
    if len(answers) != 1:
        raise AgentError(Kind.PROTOCOL, f"the {what} ended with {len(answers)} answers")
    return answers[0]


async def _converse(
    host: Host, settings: Settings, order: dict[str, Any], take: Callable[[dict[str, Any]], None]
) -> None:
    order |= {"version": RUNNING, "memory": settings.check_memory, "host": contract.encode(host)}

    def line_came(line: bytes) -> None:
        try:
            take(_message(line))
        except (LookupError, TypeError, ValueError) as problem:
            raise AgentError(Kind.PROTOCOL, f"the worker said {line[:80]!r}") from problem

    await converse(command(), json.dumps(order).encode(), line_came, timeout=settings.check_limit)


def _message(line: bytes) -> dict[str, Any]:
    """Return what the worker says; raise what it wants raised."""
    message: dict[str, Any] = json.loads(line)
    if "mismatch" in message:
        raise Outdated(message["mismatch"])
    if "error" in message:
        error = message["error"]
        raise AgentError(Kind(error["kind"]), error["message"], error["hint"])
    return message
