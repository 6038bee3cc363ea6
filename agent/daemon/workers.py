"""Sends surveys and checks to worker processes and takes their answers apart.

A worker that dies or hangs costs its answer only: what it announced that it was at is skipped on the second try.
"""

import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from agent import RUNNING, spawn
from agent.config.settings import Settings
from agent.model import contract
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host, Indexed, Snapshot
from agent.model.findings import CheckResult, Request, Survey

T = TypeVar("T")


class Outdated(Exception):
    """The files on disk are another version than this process: it must restart itself."""


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A survey and the index rows that came with it, still packed: unpacked at once they would take megabytes."""

    survey: Survey
    packed: tuple[str, ...]

    def index(self) -> Iterator[Indexed]:
        """Yield the rows, unpacked chunk by chunk."""
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
    """Return what a check found; a subject that hung is skipped on a second and last try."""
    stuck: list[int] = []
    try:
        return await _check(host, settings, request, stuck)
    except AgentError:
        if not stuck:
            raise
    return await _check(host, settings, replace(request, skip=(*request.skip, stuck[-1])), [])


async def _check(host: Host, settings: Settings, request: Request, stuck: list[int]) -> CheckResult:
    answers: list[CheckResult] = []

    def take(message: dict[str, Any]) -> None:
        if "at" in message:
            stuck.append(message["at"])
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
        take(_message(line))

    await spawn.converse(command(), json.dumps(order).encode(), line_came, timeout=settings.check_limit)


def _message(line: bytes) -> dict[str, Any]:
    """Return what the worker says; raise what it wants raised."""
    try:
        message: dict[str, Any] = json.loads(line)
    except ValueError as problem:
        raise AgentError(Kind.PROTOCOL, f"the worker said {line[:80]!r}") from problem
    if "mismatch" in message:
        raise Outdated(message["mismatch"])
    if "error" in message:
        error = message["error"]
        raise AgentError(Kind(error["kind"]), error["message"], error["hint"])
    return message
