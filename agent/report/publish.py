"""Shows what the daemon knows to those who do not ask: state.json for programs, and one sentence for people.

state.json is a projection that the daemon never reads back; where it cannot be written, that is said and
nothing else happens. Who may read it is decided by the caller.
"""

import contextlib
import json
import os
from collections.abc import Mapping
from datetime import datetime

import sdnotify

from agent.model.findings import Finding, StaleUnit
from agent.model.restarts import BROKEN, UNTOUCHED, Disposition, Result
from agent.model.text import printable
from agent.model.view import Phase, View, told, view_json

STATE = "state.json"
LONGEST_STATUS = 240


def publish(view: View, directory: str, group: int | None = None) -> str:
    """Replace `directory`/state.json by `view`; return what is wrong where that fails, else nothing.

    The file is for root and `group` (a gid; None: for root alone), mode 0640, and appears whole or not at
    all. Where a set-group-id directory gives it that group already, CAP_CHOWN is not needed.
    """
    path, new = f"{directory}/{STATE}", f"{directory}/.{STATE}.new"
    data = json.dumps(view_json(view), indent=1).encode("ascii") + b"\n"
    try:
        _write(new, data, group)
        os.replace(new, path)
    except OSError as problem:
        with contextlib.suppress(OSError):
            os.unlink(new)
        return f"{path}: {problem.strerror}"
    return ""


def _write(path: str, data: bytes, group: int | None) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(descriptor, "wb") as file:
        file.write(data)
        if group is not None and os.fstat(descriptor).st_gid != group:
            os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, 0o600 if group is None else 0o640)


def sentence(view: View, now: datetime) -> str:
    """Return the one sentence for a person: what is going on, what was done, and what waits for him.

    now: decides whether a time is shown with its date, and in which zone.
    """
    match view.phase:
        case Phase.STARTING:
            text = "Starting: reading what dpkg has installed"
        case Phase.SETTLING:
            text = "Waiting until the package transaction is over"
        case Phase.CHECKING:
            text = "Looking for processes that run replaced code"
        case Phase.RESTARTING:
            text = f"Restarting {_planned(view)}"
        case Phase.IDLE:
            text = f"Idle: {'; '.join(_idle(view, now))}"
    parts = [text, *(part for part in dict.fromkeys((view.held, view.trouble, view.rejected)) if part)]
    line = printable("; ".join(parts))
    return line if len(line) <= LONGEST_STATUS else f"{line[: LONGEST_STATUS - 1]}…"


def _planned(view: View) -> str:
    steps = [step.unit for wave in view.plan.waves for step in wave.steps] if view.plan else []
    return f"{_units(len(steps))}: {', '.join(steps)}" if steps else "systemd or aftercare itself"


def _idle(view: View, now: datetime) -> list[str]:
    parts = [part for part in (_restarted(view, now), _broken(view), _pending(view)) if part]
    if view.blind:
        parts.append("what runs replaced code now is not known")
    elif not told(view):
        parts.append("nothing runs replaced code" if not parts else "nothing waits for you")
    return parts


def _restarted(view: View, now: datetime) -> str:
    results = [outcome.result for outcome in view.outcomes]
    done = [result for result in results if result not in UNTOUCHED]
    if not done:
        return ""
    fresh = done.count(Result.FRESH)
    how = "all fresh" if fresh == len(done) else f"{fresh} fresh"
    return f"{_units(len(done))} restarted {_clock(view, now)}, {how}"


def _clock(view: View, now: datetime) -> str:
    if view.transaction is None:
        return "before"
    ended = view.transaction.ended.astimezone(now.tzinfo)
    return ended.strftime("%H:%M" if ended.date() == now.date() else "%Y-%m-%d %H:%M")


def _broken(view: View) -> str:
    count = sum(_did_not_come_back(finding) for finding in told(view))
    return f"{count} did not come back" if count else ""


def _did_not_come_back(finding: Finding) -> bool:
    outcome = finding.evidence.outcome if isinstance(finding.evidence, StaleUnit) else None
    return outcome is not None and outcome.result in BROKEN


def _pending(view: View) -> str:
    rest = [finding for finding in told(view) if not _did_not_come_back(finding)]
    soon = [finding for finding in rest if view.mode == "auto" and _is_next(finding.evidence)]
    waiting = len(rest) - len(soon)
    words = [f"{len(soon)} to be restarted" if soon else "", f"{waiting} wait for you" if waiting > 1 else ""]
    words.append("1 waits for you" if waiting == 1 else "")
    return "; ".join(word for word in words if word)


def _is_next(evidence: object) -> bool:
    return isinstance(evidence, StaleUnit) and evidence.disposition is Disposition.RESTART


def _units(count: int) -> str:
    return f"{count} unit" if count == 1 else f"{count} units"


def watchdog_interval(environ: Mapping[str, str], pid: int) -> float | None:
    """Return after how many seconds `Notifier.alive` is to be called again; None where nobody waits for it.

    A third of what systemd allows the process `pid`, as `environ` says.
    """
    allowed = environ.get("WATCHDOG_USEC", "")
    if not allowed.isdecimal() or int(allowed) == 0 or environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    return int(allowed) / 3_000_000


class Notifier:
    """What systemd is told, over the socket in NOTIFY_SOCKET; where there is none, nothing happens."""

    def __init__(self) -> None:
        self._notifier = sdnotify.SystemdNotifier()

    def ready(self, status: str) -> None:
        """We are ready, or done with reloading."""
        self._tell("READY=1", f"STATUS={printable(status)}")

    def status(self, status: str) -> None:
        """This is what we do now: one sentence."""
        self._tell(f"STATUS={printable(status)}")

    def reloading(self, monotonic: float) -> None:
        """The configuration is read again; `ready` ends it. monotonic: seconds of CLOCK_MONOTONIC, now."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={int(monotonic * 1_000_000)}")

    def alive(self) -> None:
        """The loop went round: the watchdog may wait again."""
        self._tell("WATCHDOG=1")

    def extend(self, seconds: float) -> None:
        """Starting or stopping takes longer: ask for `seconds` from now."""
        self._tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")

    def stopping(self, status: str) -> None:
        """We are about to end."""
        self._tell("STOPPING=1", f"STATUS={printable(status)}")

    def _tell(self, *lines: str) -> None:
        """Send UTF-8: sdnotify encodes Latin-1, and silently drops what does not fit into it."""
        self._notifier.notify("\n".join(lines).encode().decode("latin-1"))
