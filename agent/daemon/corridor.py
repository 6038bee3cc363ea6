"""The one loop: takes events from the queue one by one, asks when it is over, what is wrong, and has it put right.

Everything that decides is elsewhere and pure (`settle`, the engines, `restart.plan`); everything slow is a task whose
end comes back as an event. What is decided upon is read from the store, so that a start after a crash goes the same
way as any other wake-up.
"""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from agent import settle
from agent.config.settings import Settings
from agent.daemon import telling
from agent.daemon.doors import Doors
from agent.daemon.errands import UNFORCED, WAITED, Errand, weightier, why_not
from agent.daemon.look import LIBRARIES
from agent.daemon.planning import OWN_UNIT, not_twice, own_plan, plan_for, remarks, together
from agent.daemon.timers import Timers
from agent.model import contract
from agent.model.errors import AgentError, Kind
from agent.model.events import Asked, Due, Event, Looked, Reload, RestartsDone, Stop, Topic, Touched
from agent.model.facts import Unit
from agent.model.restarts import Attempt, Plan
from agent.model.view import Phase, plan_json, recalled
from agent.restart.narrow import has_steps, only, unit_names
from agent.store import Store

ASKED = "its own code was replaced, and it was asked for"
AFTER_TROUBLE = timedelta(minutes=1)
"""A look that failed is tried again after this time, and at every wake-up."""


class Corridor:
    """All that is alive in the daemon: the view, the two tasks that may run, and who waits for their end."""

    def __init__(self, store: Store, settings: Settings, doors: Doors) -> None:
        self.store = store
        self.settings = settings
        self.doors = doors
        self.view = recalled(store.memory(), settings.mode)
        self.events: asyncio.Queue[Event] = asyncio.Queue()
        self._settling = settle.Settling(timedelta(seconds=settings.quiet_period))
        self._looking: asyncio.Task[None] | None = None
        self._restarting: asyncio.Task[None] | None = None
        self._timers = Timers(self.put)
        self._errands: list[Errand] = []
        self._served: Errand | None = None
        self._wanted = self._leaving = self._outdated = ""
        self._force = False
        self._plan: Plan | None = None
        self.units: dict[str, Unit] = {}
        self._unended = store.memory().unended

    async def run(self) -> int:
        """Serve events until told to stop; return the exit status.

        A bug in a task ends the daemon with its traceback: systemd starts it again, and the store knows the rest.
        """
        async with asyncio.TaskGroup() as self._tasks:
            self._beat()
            self.put(Touched(Topic.PACKAGES, "started", datetime.now(UTC)))
            while not isinstance(event := await self.events.get(), Stop):
                self._handle(event)
            for task in filter(None, (self._looking, self._restarting)):
                task.cancel()
        return event.exit_status

    def busy_with_packages(self) -> str:
        """Return why no new restart may begin now; empty where it may."""
        pending = self._settling.touched is not None or self.doors.locked()
        return "a package transaction is under way" if pending else ""

    def put(self, event: Event) -> None:
        """Add an event; callable from callbacks of the loop."""
        self.events.put_nowait(event)

    def complain(self, problem: AgentError) -> None:
        """Say, once, that something cannot be watched or looked at; the next good look, soon, takes it back."""
        self._timers.wake("look", datetime.now(UTC) + AFTER_TROUBLE)
        if problem.message != self.view.trouble:
            self.doors.tell("check-failed", error=problem.message, hint=problem.hint)
        self._show(trouble=problem.message)

    def _handle(self, event: Event) -> None:
        """Take one event; what a room could not do is told and tried again later."""
        try:
            self._take(event)
        except AgentError as problem:
            self.complain(problem)
        self._advance()

    def _take(self, event: Event) -> None:
        match event:
            case Touched() | Due(what="settle"):
                self._settle(event)
            case Due(what="look"):
                self._want("due")
            case Due(what="watchdog"):
                self._beat()
            case Asked():
                self._take_errand(event)
            case Looked():
                self._take_look(event)
            case RestartsDone():
                self._take_restarts(event)
            case Reload():
                self._reload()

    def _beat(self) -> None:
        """Tell systemd that the loop goes round, and again in time."""
        self.doors.alive()
        if self.doors.beat:
            self._timers.wake("watchdog", datetime.now(UTC) + timedelta(seconds=self.doors.beat))

    # When it is over

    def _settle(self, event: Touched | Due) -> None:
        self._settling, over, due = settle.step(self._settling, event, datetime.now(UTC), self.doors.locked())
        self._timers.wake("settle", due)
        if over:
            self._want("packages")

    # What is wrong

    def _want(self, why: str) -> None:
        """Have a look made as soon as none is under way; why: see `errands.UNFORCED`."""
        self._wanted = weightier(self._wanted, why)

    def _look(self) -> None:
        self._force |= self._wanted not in UNFORCED or bool(self.view.trouble) or self.view.checked_at is None
        self._wanted = ""
        for errand in self._errands:
            errand.seen = True
        self._show(phase=Phase.CHECKING)
        self._looking = self._tasks.create_task(self._have_look(self._force))

    async def _have_look(self, force: bool) -> None:
        self.put(await self.doors.look(self.settings, force=force))

    def _take_look(self, looked: Looked) -> None:
        self._looking = None
        self._force &= looked.abandoned
        self._timers.wake("look", None)
        if looked.transaction:
            self._show(transaction=looked.transaction, outcomes=())
            telling.transaction(self.doors.tell, looked.transaction)
        if looked.outdated:
            self._take_upgrade(looked.outdated)
        if looked.results:
            self._take_results(looked)
        if looked.problem:
            self.complain(looked.problem)

    def _take_upgrade(self, version: str) -> None:
        """Leave, so that the version on disk goes on; but once: something may have forbidden it."""
        if version == self._outdated:
            raise AgentError(Kind.SPAWN, f"aftercared must be restarted to be {version}", "systemctl restart aftercare")
        self._outdated, self._leaving = version, f"aftercare or its Python was upgraded: {version}"

    def _take_results(self, looked: Looked) -> None:
        """Put the new verdicts in the place of the old; a check that could not be run keeps its last one."""
        now, ran = datetime.now(UTC), {result.check for result in looked.results}
        findings = self.store.date(together(self.view, looked), now)
        telling.findings(self.doors.tell, self.view, findings, looked, now)
        self._timers.wake("look", min((result.again_at for result in looked.results if result.again_at), default=None))
        self.units = looked.units
        self._show(findings=findings, checked_at=now, trouble="", held="", **remarks(self.view, looked))
        self._plan = not_twice(self.make_plan(), self.store.memory()) if LIBRARIES in ran else None
        self._show(plan=self._plan)

    def make_plan(self, named: frozenset[str] = frozenset()) -> Plan:
        """Return what would be restarted now, of what was found last."""
        return plan_for(self.view, self.units, self.settings.rules, named)

    # What is done about it

    def _advance(self) -> None:
        """Begin the next thing that is due, if nothing is under way. Who only waits keeps nobody from anything."""
        if self._looking or self._restarting:
            return
        if self._unended:
            self._resume()
        elif self._wanted not in ("", WAITED):
            self._look()
        elif errand := next((errand for errand in self._errands if errand.is_order), None):
            self._serve(errand)
        elif self.busy_with_packages():
            self._rest()
        elif self._plan is not None and self.settings.mode == "auto" and has_steps(self._plan):
            self._restart(self._plan)
        elif self._leaving or (self._plan is not None and self.settings.mode == "auto" and self._plan.agent):
            self._leave()
        elif self._wanted:
            self._answer()
            self._look()
        else:
            self._rest()

    def _rest(self) -> None:
        settling = self._settling.touched is not None
        self._show(phase=Phase.SETTLING if settling else Phase.IDLE)
        if not settling and not self.doors.locked():
            self._answer()

    def _answer(self) -> None:
        for errand in [errand for errand in self._errands if errand.seen]:
            self._errands.remove(errand)
            errand.answer({"done": not self.view.trouble})

    def _restart(self, plan: Plan) -> None:
        self._plan = None
        self._show(phase=Phase.RESTARTING, plan=plan)
        self._restarting = self._tasks.create_task(self._have_restarted(plan))

    async def _have_restarted(self, plan: Plan) -> None:
        try:
            outcomes, held = await self.doors.execute(plan, self.settings, self.busy_with_packages)
        except AgentError as problem:
            outcomes, held = (), problem.message
        self.put(RestartsDone(plan.transaction, outcomes, held))

    def _resume(self) -> None:
        """Finish what an earlier process of ours had begun, before anything else, but not into an open transaction."""
        if not self.doors.locked():
            unended, self._unended = self._unended, ()
            self._show(phase=Phase.RESTARTING)
            self._restarting = self._tasks.create_task(self._have_resumed(unended))

    async def _have_resumed(self, unended: tuple[Attempt, ...]) -> None:
        try:
            outcomes, held = await self.doors.resume(unended, self.settings), ""
        except AgentError as problem:
            outcomes, held = (), problem.message
        self.put(RestartsDone(unended[-1].transaction, outcomes, held))

    def _take_restarts(self, done: RestartsDone) -> None:
        self._restarting = None
        latest = {outcome.unit: outcome for outcome in (*self.view.outcomes, *done.outcomes)}
        self._show(outcomes=tuple(latest.values()), held=done.held)
        if done.held:
            self.doors.tell("held", reason=done.held)
        if self._served:
            self._served.answer({"plan": None, "restarts": [contract.outcome(outcome) for outcome in done.outcomes]})
            self._served = None
        self._want("restarts")

    def _leave(self) -> None:
        """Have systemd restart us: it ends this process in the middle of it, and the next one verifies the attempt."""
        reason, self._leaving = self._leaving or "its own code was replaced", ""
        self.doors.tell("agent-restarting", reason=reason)
        self._restart(own_plan(self.view, self.units, self.settings.rules, reason))

    # Who asks

    def _take_errand(self, asked: Asked) -> None:
        self.doors.drain()
        self._errands = [*(errand for errand in self._errands if not errand.is_gone), Errand(asked)]
        self._want(WAITED if asked.method == "wait" else "asked")

    def _serve(self, errand: Errand) -> None:
        self._errands.remove(errand)
        arguments = errand.asked.arguments
        names = frozenset(arguments["units"])
        plan = self.make_plan(names)
        goes = plan.agent and (arguments["all"] or OWN_UNIT in names)
        if not arguments["all"]:
            plan = only(plan, names)
        missing = sorted(names - unit_names(plan) - ({OWN_UNIT} if goes else set()))
        if missing:
            by_hand = f"systemctl restart {missing[0]} restarts it all the same"
            errand.refuse(why_not(self.view.findings, missing[0]), by_hand)
        elif arguments["dry_run"] or not (goes or has_steps(plan)):
            errand.answer({"plan": plan_json(replace(plan, agent=goes)), "restarts": []})
        elif held := self.busy_with_packages():
            errand.refuse(f"Nothing is restarted now: {held}", "agentctl wait; then ask again")
        else:
            self._leaving = ASKED if goes else self._leaving
            self._served = errand
            self._restart(plan)

    def _reload(self) -> None:
        self.doors.reloading()
        try:
            self.settings = self.doors.load_settings()
            self._settling = replace(self._settling, quiet=timedelta(seconds=self.settings.quiet_period))
            self.doors.tell("config-loaded", mode=self.settings.mode)
            self._show(mode=self.settings.mode, rejected="")
        except AgentError as problem:
            self.doors.tell("config-rejected", error=problem.message, hint=problem.hint)
            self._show(rejected=problem.message)
        self.doors.ready()
        self._want("reload")

    def _show(self, **changes: Any) -> None:
        view = replace(self.view, **changes)
        if view != self.view:
            self.view = view
            self.doors.publish(view)
