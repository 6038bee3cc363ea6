"""Commands that ask the daemon. A client of the socket: it imports no asyncio, psutil or dns, and decides nothing."""

import json
import math
import re
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from agent.cli import blocks, records, screens
from agent.cli.commands import FOREIGN
from agent.cli.output import emit
from agent.model.errors import AgentError, Exit, Kind
from agent.model.text import typed
from agent.varlink import wire

BETWEEN_TRIES = 0.3
BETWEEN_LOOKS = 2.0
"""Seconds; a daemon in trouble answers at once that it is not done, and each call has it look again."""
LONGEST_GAP = 3.0
"""Seconds for which a daemon that restarts itself may look to systemd as if it were stopped."""
LONGEST_ABSENCE = 30.0
"""Seconds for which one who watches waits for a daemon that went away."""
STATE = Path("/run/aftercare/state.json")
UNITS = {"s": 1, "second": 1, "m": 60, "min": 60, "minute": 60, "h": 3600, "hour": 3600, "d": 86400, "day": 86400}
UNITS |= {"w": 604800, "week": 604800, "month": 30 * 86400, "y": 365 * 86400, "year": 365 * 86400}
DAYS = {"today": 0, "yesterday": 1}


def status(options: Namespace) -> int:
    """Print what the daemon knows; where it is down, what it knew last, and exit 3."""
    try:
        view = call(options, "Status")["status"]
    except AgentError as problem:
        if problem.kind is Kind.DENIED:
            return _counts(options, problem)
        if problem.kind is not Kind.UNREACHABLE or options.format in FOREIGN or not (view := _last_state()):
            raise
        emit(options, view, screens.status(view))
        print(f"agentctl: {problem.message}; this is of {blocks.local(view['checked_at'])}", file=sys.stderr)
        return Exit.UNCHECKED
    if options.format in FOREIGN:
        from agent.cli import foreign  # of no use to anybody else

        return foreign.show(options.format, view, history=True)
    emit(options, view, screens.status(view))
    if view["findings"]:
        return Exit.FINDINGS
    return Exit.UNCHECKED if screens.is_doubtful(view) or view.get("unseen") else Exit.CLEAN


def _counts(options: Namespace, problem: AgentError) -> int:
    """Print what everybody may know, for one who may not know more; `problem` says so."""
    answer = call(options, "Counts")
    if options.format == "nagios":
        from agent.cli import foreign

        return foreign.show_counts(answer)
    if options.format in FOREIGN:
        raise problem
    found = [f"{number} {severity}" for severity, number in answer["counts"].items() if number]
    is_known = bool(found) or answer["known"]
    lines = [screens.PHASES[answer["phase"]]] if answer["phase"] in screens.PHASES else []
    known = f"Findings: {', '.join(found)}." if found else "There are no findings."
    lines.append(known if is_known else "What there is to find is not known now.")
    lines.append("root and members of the group aftercare are told more: sudo agentctl status")
    emit(options, {"v": 1, **answer}, [blocks.Line(line) for line in lines])
    if not is_known:
        return Exit.UNCHECKED
    return Exit.FINDINGS if found else Exit.CLEAN


def _last_state() -> dict[str, Any] | None:
    try:
        view: dict[str, Any] = json.loads(STATE.read_bytes())
    except (OSError, ValueError):
        return None
    return view if isinstance(view, dict) and isinstance(view.get("findings"), list) else None


def plan(options: Namespace) -> int:
    """Print what would be restarted, and what waits for a time or a word."""
    data, view = call(options, "Plan")["plan"], call(options, "Status")["status"]
    hindrances = {key: view[key] for key in ("mode", "held", "braked", "trouble")}
    emit(options, {"v": 1, "plan": data, **hindrances}, [*records.plan(data), *records.waiting(view)])
    return status_of(data)


def status_of(plan: dict[str, Any]) -> int:
    """Return the exit status of one who only asked what would be restarted."""
    return Exit.FINDINGS if plan["waves"] or plan["manager"] or plan["agent"] else Exit.CLEAN


def why(options: Namespace) -> int:
    """Print the chain from the apt command to the action for one unit or process."""
    subject = options.subject if options.subject.isdigit() else full_name(options.subject)
    answer = call(options, "Why", {"subject": subject})
    emit(options, {"v": 1, "chain": answer["chain"]}, [blocks.Line(line) for line in answer["lines"]])
    return Exit.CLEAN


def wait(options: Namespace) -> int:
    """Wait until all is looked at and verified; findings do not matter. The daemon may restart itself meanwhile."""
    until = time.monotonic() + options.timeout
    done, gone = False, math.inf
    while not done and (left := until - time.monotonic()) > 0:
        try:
            done = call(options, "Wait", {"timeout_seconds": left}, timeout=left + 5)["done"]
            if not done:
                time.sleep(min(BETWEEN_LOOKS, max(until - time.monotonic(), 0)))
        except AgentError as problem:
            if problem.kind is not Kind.UNREACHABLE or left < BETWEEN_TRIES:
                raise
            gone = math.inf if _is_coming() else min(gone, time.monotonic())
            if time.monotonic() - gone > LONGEST_GAP:
                raise
            time.sleep(BETWEEN_TRIES)
    if options.json:
        print(json.dumps({"v": 1, "done": done}))
    if not done:
        raise AgentError(Kind.TIMED_OUT, f"not done within {options.timeout:g} s", "agentctl status says how far it is")
    return Exit.CLEAN


def _is_coming() -> bool:
    from agent.cli import presence  # a daemon that answers is not asked after

    return presence.is_coming()


def watch(options: Namespace) -> int:
    """Print events as they happen, until interrupted."""
    for reply in _events(options):
        line = json.dumps(reply) if options.json else f"{blocks.local(reply['at'])[11:]}  {typed(reply['message'])}"
        print(line, flush=True)
    return Exit.CLEAN


def _events(options: Namespace) -> Iterator[dict[str, Any]]:
    """Yield events without end. A daemon that goes away is waited for, but not one that was not there at all."""
    is_there, lost_at = False, 0.0
    while True:
        try:
            call(options, "Counts")
            if lost_at:
                print("agentctl: aftercared is back; agentctl history has what was missed", file=sys.stderr)
            is_there, lost_at = True, 0.0
            yield from wire.stream(f"{wire.INTERFACE}.Watch", {}, path=options.socket)
        except AgentError as problem:
            if problem.kind is not Kind.UNREACHABLE or not is_there:
                raise
            if not lost_at:
                print(f"agentctl: {problem.message}; waiting for it", file=sys.stderr)
            lost_at = lost_at or time.monotonic()
            if time.monotonic() - lost_at > LONGEST_ABSENCE:
                raise
            time.sleep(BETWEEN_TRIES)


def history(options: Namespace) -> int:
    """Print transactions and restarts of the past."""
    since = moment(options.since, datetime.now(UTC)) if options.since else None
    unit = full_name(options.unit) if options.unit else None
    data = call(options, "History", {"since": since.isoformat() if since else None, "unit": unit})
    emit(options, {"v": 1, **data}, records.history(data))
    return Exit.CLEAN


def full_name(unit: str) -> str:
    """Return a unit's name with its suffix; a name without one is a service, as for systemctl."""
    unit = typed(unit)
    return unit if re.search(r"\.(service|socket|scope|slice|timer|mount|target|path)$", unit) else f"{unit}.service"


def moment(text: str, now: datetime) -> datetime:
    """Return the time that `text` names: a date, a date with time (local), or how long ago ("2 days", "3h")."""
    ago = re.fullmatch(r"(\d{1,6})\s*([a-z]+?)s?(?: ago)?", text.strip())
    if text.strip() in DAYS:
        midnight = now.astimezone().replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight - timedelta(days=DAYS[text.strip()])
    try:
        if ago and ago[2] in UNITS:
            return now - timedelta(seconds=int(ago[1]) * UNITS[ago[2]])
        return datetime.fromisoformat(text).astimezone()
    except (ValueError, OverflowError) as problem:
        raise AgentError(
            Kind.USAGE, f"{text!r} is no time", 'write "2 days", "3h", "yesterday" or 2026-11-22'
        ) from problem


def call(
    options: Namespace, method: str, arguments: dict[str, Any] | None = None, timeout: float | None = None
) -> dict[str, Any]:
    """Call a method of the daemon and return its answer; raises AgentError."""
    return wire.call(f"{wire.INTERFACE}.{method}", arguments or {}, path=options.socket, timeout=timeout)


FUNCTIONS: dict[str, Callable[[Namespace], int]] = {
    function.__name__: function for function in (status, plan, why, wait, watch, history)
}
