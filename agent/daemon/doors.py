"""All that the corridor does to the world outside it: thin, and of one sort: each door is one call to its room."""

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any

from agent.config.load import load
from agent.config.settings import Settings
from agent.daemon import flag, look, telling
from agent.daemon.notify import Notifier, Session, stale_sessions
from agent.daemon.sessions import read_sessions
from agent.daemon.watchers import Watchers
from agent.host import calendar, transactions, units
from agent.model import contract
from agent.model.errors import AgentError
from agent.model.events import Checked, Looked, RestartsDone
from agent.model.facts import Host, StaleProcess, Unit
from agent.model.findings import StaleUnit
from agent.model.restarts import Attempt, Outcome, Performed, Plan
from agent.model.view import View
from agent.report import publish
from agent.report.journal import Journal
from agent.restart.execute import Hands, execute, resume
from agent.restart.precheck import Places, precheck
from agent.sources.files import FileWatch
from agent.store import Store

RUNTIME = "/run/aftercare"


class Doors:
    """The daemon's rooms, opened. `beat`: seconds between two signs of life for systemd; 0: nobody waits for them."""

    def __init__(self, host: Host, store: Store, journal: Journal, watchers: Watchers, readers: int | None) -> None:
        self.host = host
        self.store = store
        self.watch: FileWatch | None = None
        self._journal = journal
        self._watchers = watchers
        self._readers = readers
        self.notifier = Notifier(lambda script, words: self.tell("notify-failed", script=script, error=words))
        self._systemd = publish.Notifier()
        self._told: list[Session] = []
        self._status = ""
        self._unpublished = ""
        self.beat = publish.watchdog_interval(os.environ, os.getpid()) or 0.0

    # Telling

    def tell(self, kind: str, **fields: Any) -> None:
        """Tell the journal, and whoever watches."""
        message = self._journal.tell(kind, **fields)
        at = contract.stamp(datetime.now(UTC))
        self._watchers.tell({"kind": kind, "at": at, "message": message, "fields": contract.encode(fields)})

    def publish(self, view: View) -> None:
        """Show a view to those who do not ask."""
        self._status = publish.sentence(view, datetime.now().astimezone())
        self._systemd.status(self._status)
        problem = publish.publish(view, RUNTIME, self._readers)
        if problem and problem != self._unpublished:
            self.tell("unpublished", error=problem)
        self._unpublished = problem

    def ready(self) -> None:
        """Tell systemd that we are ready, or done with reloading."""
        self._systemd.ready(self._status)

    def stopping(self) -> None:
        """Tell systemd, and the journal, that we end."""
        self._systemd.stopping("Stopping")
        self.tell("stopping", reason="told to")

    def alive(self) -> None:
        """Tell systemd that the loop goes round."""
        self._systemd.alive()

    # Reading

    def load_settings(self) -> Settings:
        """Return the configuration and keep it as the last good one; raises AgentError(CONFIG)."""
        settings = load(check_window=calendar.check_expression)
        self.store.keep_settings(json.dumps(contract.encode(settings)))
        return settings

    def reload(self, last: Settings) -> tuple[Settings, str]:
        """Return the configuration as it is now; where that is not good, the `last` one, and what is wrong."""
        self._systemd.reloading(time.monotonic())
        try:
            settings = self.load_settings()
        except AgentError as problem:
            self.tell("config-rejected", error=problem.message, hint=problem.hint)
            return last, problem.message
        self.tell("config-loaded", mode=settings.mode)
        return settings, ""

    def locked(self) -> bool:
        """Return whether dpkg is at work; where that cannot be seen, it is not waited for."""
        try:
            return transactions.is_locked(self.host)
        except AgentError as problem:
            self.tell("check-failed", error=problem.message, hint=problem.hint)
            return False

    def drain(self) -> None:
        """Turn what the kernel has for us already into events, now."""
        if self.watch:
            self.watch.drain()

    async def look(self, settings: Settings, *, force: bool) -> Looked:
        """Look at the machine; raise the flag for a reboot where that is wanted."""
        looked = await look.look(self.host, self.store, settings, self.locked, force=force)
        if settings.reboot.write_flag and flag.is_wanted(looked):
            await self._raise_flag()
        if looked.transaction:
            await self._tell_sessions(looked)
        return looked

    async def _tell_sessions(self, looked: Looked) -> None:
        """People whose sessions run replaced code are told once of each package."""
        found = [finding for result in looked.results for finding in result.findings]
        sessions = await asyncio.to_thread(lambda: list(read_sessions(self.host, found, looked.units)))
        new = [session for session in sessions if session not in self._told]
        self._told = sessions
        if new:
            self.notifier.tell(stale_sessions(new))

    async def check(self, settings: Settings, name: str) -> Checked:
        """Run one of the checks that run apart."""
        return await look.check(self.host, self.store, settings, name)

    async def _raise_flag(self) -> None:
        """What goes wrong is told, and tried again after the next look."""
        try:
            if await asyncio.to_thread(flag.write):
                self.tell("flag-raised")
        except AgentError as problem:
            self.tell("unpublished", error=problem.message)

    # Acting

    async def execute(self, plan: Plan, settings: Settings, may_go_on: Callable[[], str]) -> RestartsDone:
        """Carry a plan out."""
        hands = self._hands(plan.transaction, settings, may_go_on)
        return await done(plan.transaction, execute(plan, hands))

    async def resume(self, attempts: tuple[Attempt, ...], settings: Settings) -> RestartsDone:
        """Finish what an earlier process of ours had begun, but not into a transaction that opens meanwhile."""

        def may_go_on() -> str:
            return "a package transaction is under way" if self.locked() else ""

        cause = attempts[-1].transaction
        return await done(cause, resume(attempts, settings.rules, self._hands(cause, settings, may_go_on)))

    def _hands(self, transaction: int, settings: Settings, may_go_on: Callable[[], str]) -> Hands:
        return Hands(
            units=self._units,
            journal=lambda unit, invocation: asyncio.to_thread(units.read_journal, unit, invocation),
            shutting_down=lambda: asyncio.to_thread(units.is_shutting_down, self.host),
            jobs_queued=lambda: asyncio.to_thread(units.jobs_queued, self.host),
            recheck=lambda: self._recheck(settings),
            note_attempt=lambda step: self.store.begin(transaction, step, datetime.now(UTC)),
            note_outcome=self._note_outcome,
            may_go_on=may_go_on,
            tell=self.tell,
            precheck=partial(precheck, places=Places(tell=self.tell)),
        )

    def _note_outcome(self, attempt: Attempt, outcome: Outcome) -> None:
        reasons = self.store.end(attempt.id, outcome, datetime.now(UTC))
        telling.outcome(self.tell, attempt, outcome, reasons)

    async def _units(self, names: Sequence[str]) -> Mapping[str, Unit]:
        return await asyncio.to_thread(units.read_units, self.host, names)

    async def _recheck(self, settings: Settings) -> Mapping[str, tuple[StaleProcess, ...]]:
        result = await look.recheck(self.host, self.store, settings)
        stale = (finding.evidence for finding in result.findings if isinstance(finding.evidence, StaleUnit))
        return {item.unit: item.processes for item in stale if item.processes}


async def done(transaction: int, work: Awaitable[Performed]) -> RestartsDone:
    """Return the end of restarts; where the history cannot be written, nothing more was begun, and that is why."""
    try:
        return RestartsDone(transaction, await work)
    except AgentError as problem:
        return RestartsDone(transaction, Performed((), problem.message))
