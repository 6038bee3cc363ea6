"""Tells people in their sessions: hands events to the scripts in /etc/aftercare/notify.d, one after the other.

A script is run as `[script, EVENT]` with one JSON object on its standard input, as nobody (with the group tty, which
may write to terminals), in a transient unit that can do little else. It never delays the daemon: events wait in a
short queue, and what a script does wrong is told to the journal.
"""

import asyncio
import json
import os
import re
import stat
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.model.errors import AgentError
from agent.model.text import printable
from agent.spawn import Done
from agent.spawn.transient import run_as

FOLDER = "/etc/aftercare/notify.d"
NAME = re.compile(r"[A-Za-z0-9_-]+")
"""What run-parts takes: no backups, and nothing that dpkg left."""
USER = "nobody"
TIMEOUT = 30.0
MOST_WAITING = 4
MOST_SCRIPTS = 20
MOST_SESSIONS = 100
MOST_NAMES = 50
LONGEST_WORDS = 300

PROPERTIES = {
    "SupplementaryGroups": "tty",
    "NoNewPrivileges": "yes",
    "CapabilityBoundingSet": "",
    "ProtectSystem": "strict",
    "ProtectHome": "yes",
    "ProtectProc": "invisible",
    "ProtectKernelTunables": "yes",
    "ProtectControlGroups": "yes",
    "PrivateTmp": "yes",
    "PrivateNetwork": "yes",
    "RestrictAddressFamilies": "AF_UNIX",
    "RestrictNamespaces": "yes",
    "RestrictSUIDSGID": "yes",
    "TimeoutStopSec": "2",
}

Complain = Callable[[str, str], object]
"""Takes a script, and what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Session:
    """A login session that runs replaced code. ttys: such as "pts/0"; packages: those that were replaced."""

    unit: str
    user: str
    uid: int
    ttys: tuple[str, ...]
    packages: tuple[str, ...]


def stale_sessions(sessions: Iterable[Session]) -> dict[str, Any]:
    """Return the event `stale-sessions`, its names made printable. Without sessions there is nothing to tell."""
    return {
        "event": "stale-sessions",
        "sessions": [
            {
                "unit": printable(session.unit),
                "user": printable(session.user),
                "uid": session.uid,
                "ttys": [printable(tty) for tty in session.ttys[:MOST_NAMES]],
                "packages": [printable(package) for package in session.packages[:MOST_NAMES]],
            }
            for session in list(sessions)[:MOST_SESSIONS]
        ],
    }


class Notifier:
    """A queue of events and the task that hands them to the scripts."""

    def __init__(self, complain: Complain, folder: str = FOLDER, act: Callable[..., Done] = run_as) -> None:
        self._complain = complain
        self._folder = folder
        self._act = act
        self._waiting: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(MOST_WAITING)

    def tell(self, event: Mapping[str, Any]) -> None:
        """Have the scripts told of `event` soon; where too many wait already, it is dropped and that is said."""
        try:
            self._waiting.put_nowait(event)
        except asyncio.QueueFull:
            self._complain(self._folder, f"{event['event']} is not told: {MOST_WAITING} events wait already")

    async def run(self) -> None:
        """Hand events to the scripts until cancelled."""
        while True:
            await hand_out(await self._waiting.get(), self._complain, self._folder, self._act)


async def hand_out(
    event: Mapping[str, Any], complain: Complain, folder: str = FOLDER, act: Callable[..., Done] = run_as
) -> None:
    """Run each script with `event`, one after the other. act: as `spawn.transient.run_as`. Raises nothing."""
    text = f"{json.dumps(event)}\n"
    chosen, refused = await asyncio.to_thread(scripts, folder)
    for path, words in refused:
        complain(path, words)
    for script in chosen:
        argv = (script, event["event"])
        how = {"timeout": TIMEOUT, "stdin": text, "properties": PROPERTIES}
        try:
            done = await asyncio.to_thread(act, USER, argv, **how)
        except AgentError as problem:
            complain(script, problem.message)
            continue
        if done.status != 0:
            complain(script, _last_words(done))


def _last_words(done: Done) -> str:
    said = [line.strip() for line in f"{done.stdout}\n{done.stderr}".splitlines() if line.strip()]
    return printable(said[-1][:LONGEST_WORDS]) if said else f"it ended with status {done.status}"


def scripts(folder: str = FOLDER) -> tuple[list[str], list[tuple[str, str]]]:
    """Return the scripts in `folder` that are run, in the order of their names, and those that are refused, with why.

    Refused is what somebody else than root may write, itself or the folder that it is in. What is not executable is
    no script, nor is a name that run-parts would not take. A link is followed, and counts as what it leads to.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if NAME.fullmatch(name))
    except OSError:
        return [], []
    paths = [os.path.realpath(os.path.join(folder, name)) for name in names[:MOST_SCRIPTS]]
    chosen: list[str] = []
    refused: list[tuple[str, str]] = []
    for path in filter(_is_executable, paths):
        foreign = [place for place in (folder, os.path.dirname(path), path) if not _is_roots(place)]
        if foreign:
            refused.append((path, f"not run: {foreign[0]} is not root's, or others may write it"))
        else:
            chosen.append(path)
    return chosen, refused


def _is_executable(path: str) -> bool:
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return stat.S_ISREG(mode) and bool(mode & 0o111)


def _is_roots(path: str) -> bool:
    try:
        facts = os.stat(path)
    except OSError:
        return False
    return facts.st_uid == 0 and not facts.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
