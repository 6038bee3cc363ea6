"""The methods of the socket: reading gives what is known and starts no work; the rest becomes an event."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

from agent.daemon.corridor import Corridor
from agent.daemon.planning import PENDING, be_sure, unit_of_main
from agent.daemon.watchers import Watchers
from agent.model import contract, view
from agent.model.errors import AgentError, Kind
from agent.model.events import Asked, Peer
from agent.model.memory import Recorded, Silence, SilenceKind
from agent.model.text import printable
from agent.report import why
from agent.varlink.service import Method, Right, Send
from agent.varlink.wire import NotFound

LONGEST_WAIT = 3600.0
LONGEST_HISTORY = 200
LONGEST_SNOOZE = 366 * 86400


class Requests:
    """Handlers, in terms of the corridor. Each gets the peer, its checked parameters, and `send` for `more`."""

    def __init__(self, corridor: Corridor, watchers: Watchers) -> None:
        self._corridor = corridor
        self._watchers = watchers

    def methods(self) -> dict[str, Method]:
        """Return the interface: name → handler and who may call it."""
        return {
            "Status": Method(self._status, Right.READER),
            "Counts": Method(self._counts, Right.EVERYBODY),
            "Plan": Method(self._plan, Right.READER),
            "Restart": Method(self._restart, Right.ACTOR),
            "Why": Method(self._why, Right.READER),
            "Wait": Method(self._wait, Right.READER),
            "Watch": Method(self._watch, Right.READER, more=True),
            "History": Method(self._history, Right.READER),
            "Check": Method(self._check, Right.ACTOR),
            "Silence": Method(self._silence, Right.ACTOR),
            "Speak": Method(self._speak, Right.ACTOR),
        }

    async def _status(self, _peer: Peer, _parameters: dict[str, Any], _send: Send) -> dict[str, Any]:
        return {"status": view.view_json(self._corridor.view)}

    async def _counts(self, _peer: Peer, _parameters: dict[str, Any], _send: Send) -> dict[str, Any]:
        seen = self._corridor.view
        known = seen.checked_at is not None and not seen.trouble and not any(seen.unseen.values())
        return {"counts": view.counts(seen), "phase": seen.phase.value, "known": known}

    async def _plan(self, _peer: Peer, _parameters: dict[str, Any], _send: Send) -> dict[str, Any]:
        self._be_sure()
        return {"plan": view.plan_json(self._corridor.make_plan())}

    def _be_sure(self) -> None:
        """Raise AgentError where what is known is about to change, or is not known."""
        seen = self._corridor.view
        be_sure(seen, self._corridor.busy_with_packages() or PENDING.get(seen.phase, ""))

    async def _restart(self, peer: Peer, parameters: dict[str, Any], _send: Send) -> dict[str, Any]:
        arguments = {
            "units": parameters.get("units", []),
            "all": parameters.get("all", False),
            "now": parameters.get("now", False),
            "dry_run": parameters.get("dry_run", False),
            "resume": parameters.get("resume", False),
        }
        if not arguments["dry_run"]:
            request = f"a restart of {', '.join(arguments['units']) or 'all that is stale'}"
            self._corridor.doors.tell("asked", uid=peer.uid, pid=peer.pid, request=request)
        return await self._ask("restart", arguments, peer)

    async def _wait(self, peer: Peer, parameters: dict[str, Any], _send: Send) -> dict[str, Any]:
        limit = min(parameters.get("timeout_seconds", LONGEST_WAIT), LONGEST_WAIT)
        try:
            return await asyncio.wait_for(self._ask("wait", {}, peer), limit)
        except TimeoutError:
            return {"done": False}

    async def _check(self, peer: Peer, _parameters: dict[str, Any], _send: Send) -> dict[str, Any]:
        await self._ask("check", {}, peer)
        return {"status": view.view_json(self._corridor.view)}

    async def _silence(self, peer: Peer, parameters: dict[str, Any], _send: Send) -> dict[str, Any]:
        id, reason, seconds = parameters["finding"], parameters.get("reason", ""), parameters.get("seconds")
        if id not in {printable(finding.id) for finding in self._corridor.view.findings}:
            raise NotFound(f"there is no finding {id}", "agentctl status --json has their ids")
        if seconds is not None and not 0 < seconds <= LONGEST_SNOOZE:
            raise AgentError(Kind.USAGE, "a finding is snoozed for a year at most", "agentctl ack has no end")
        now = datetime.now(UTC)
        kind = SilenceKind.ACK if seconds is None else SilenceKind.SNOOZE
        until = None if seconds is None else now + timedelta(seconds=seconds)
        silence = Silence(id, kind, reason, peer.uid, now, until)
        self._corridor.store.silence(silence)
        self._corridor.doors.tell("silenced", uid=peer.uid, finding=id, reason=reason or kind.value)
        self._corridor.hear()
        return {"silence": view.silence_json(silence)}

    async def _speak(self, _peer: Peer, parameters: dict[str, Any], _send: Send) -> dict[str, Any]:
        self._corridor.store.speak(parameters["finding"], datetime.now(UTC))
        self._corridor.hear()
        return {}

    async def _ask(self, method: str, arguments: dict[str, Any], peer: Peer) -> dict[str, Any]:
        ticket: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._corridor.put(Asked(method, arguments, peer, ticket))
        return await ticket

    async def _watch(self, _peer: Peer, _parameters: dict[str, Any], send: Send) -> dict[str, Any]:
        with self._watchers.watching() as events:
            while True:
                await send(await events.get())

    async def _why(self, _peer: Peer, parameters: dict[str, Any], _send: Send) -> dict[str, Any]:
        subject = parameters["subject"]
        known = self._corridor.store.restarts()
        chain = why.explain(self._corridor.view, subject, known)
        if not chain and subject.isdecimal():
            chain = why.explain(self._corridor.view, unit_of_main(self._corridor.units, int(subject)), known)
        if not chain:
            self._be_sure()
            hint = "agentctl status lists what is stale, agentctl history what was restarted"
            raise NotFound(f"{subject} is not stale, and no restart of it is on record", hint)
        zone = datetime.now().astimezone().tzinfo or UTC
        return {"chain": why.chain_json(chain), "lines": why.lines(chain, zone=zone)}

    async def _history(self, _peer: Peer, parameters: dict[str, Any], _send: Send) -> dict[str, Any]:
        store, limit = self._corridor.store, max(min(parameters.get("limit", LONGEST_HISTORY), LONGEST_HISTORY), 0)
        try:
            since = datetime.fromisoformat(parameters["since"]).astimezone(UTC) if "since" in parameters else None
        except (ValueError, OverflowError) as problem:
            raise AgentError(Kind.USAGE, f"since: {parameters['since']!r:.60} is no time in ISO 8601") from problem
        restarts = store.restarts(parameters.get("unit"), since, limit)
        done = store.transactions(limit, since)
        return {
            "restarts": [recorded_json(item) for item in restarts],
            "transactions": [view.transaction_json(item) for item in done],
            "silences": [view.silence_json(item) for item in store.silences(since, limit)],
        }


def recorded_json(item: Recorded) -> dict[str, Any]:
    """Return a restart of the past as `history` shows it."""
    return {
        "transaction": view.transaction_json(item.transaction) if item.transaction else None,
        "unit": printable(item.attempt.unit),
        "begun": contract.stamp(item.attempt.begun),
        "reasons": [printable(reason) for reason in item.reasons],
        "cves": list(item.cves),
        "outcome": contract.outcome(item.attempt.outcome) if item.attempt.outcome else None,
    }
