"""The one loop: takes events from the queue one by one, asks when it is over, what is wrong, and has it put right.

Everything that decides is elsewhere and pure (`settle`, the engines, `restart.plan`); everything slow is a task whose
end comes back as an event. What is decided upon is read from the store: a start after a crash is a wake-up too.
"""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from agent import settle
from agent.config.settings import Settings
from agent.daemon import telling
from agent.daemon.agenda import Agenda
from agent.daemon.apart import APART, Apart
from agent.daemon.board import Board
from agent.daemon.doors import Doors
from agent.daemon.errands import UNFORCED, WAITED, Errand, Errands, order_of, weightier
from agent.daemon.look import LIBRARIES
from agent.daemon.planning import be_sure, not_twice, own_plan, plan_for
from agent.model import contract
from agent.model.errors import AgentError, Kind
from agent.model.events import Asked, Checked, Due, Event, Looked, Reload, RestartsDone, Stop, Touched
from agent.model.facts import Unit
from agent.model.restarts import Plan
from agent.model.topics import Topic
from agent.model.view import Phase, View, plan_json, recalled
from agent.restart.narrow import has_steps
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
        self.board = Board(recalled(store.memory(), settings.mode), store, doors)
        self.agenda = Agenda()
        self._settling = settle.Settling(timedelta(seconds=settings.quiet_period))
        self._looking = self._restarting = False
        self._apart = Apart(self.agenda.wake, lambda name: self.agenda.begin(doors.check(self.settings, name)))
        self._errands = Errands()
        self._served: Errand | None = None
        self._wanted = self._leaving = self._outdated = ""
        self._force = False
        self._plan: Plan | None = None
        self.units: dict[str, Unit] = {}
        self._unended = store.memory().unended

    @property
    def view(self) -> View:
        """What is known now."""
        return self.board.view

    async def run(self) -> int:
        """Serve events until told to stop; return the exit status.

        A bug in a task ends the daemon with its traceback: systemd starts it again, and the store knows the rest.
        """
        async with self.agenda.open():
            self._beat()
            self.put(Touched(Topic.PACKAGES, "started", datetime.now(UTC)))
            self._apart.want(APART, datetime.now(UTC))
            self.hear()
            while not isinstance(event := await self.agenda.events.get(), Stop):
                self._handle(event)
        return event.exit_status

    def busy_with_packages(self) -> str:
        """Return why no new restart may begin now; empty where it may."""
        pending = self._settling.touched is not None or self.doors.locked()
        return "a package transaction is under way" if pending else ""

    def put(self, event: Event) -> None:
        """Add an event; callable from callbacks of the loop."""
        self.agenda.put(event)

    def complain(self, problem: AgentError) -> None:
        """Say, once, that something cannot be watched or looked at; the next good look, soon, takes it back."""
        self.agenda.wake("look", datetime.now(UTC) + AFTER_TROUBLE)
        self.board.complain(problem)

    def _handle(self, event: Event) -> None:
        """Take one event; what a room could not do is told and tried again later."""
        try:
            self._take(event)
        except AgentError as problem:
            self.complain(problem)
        self._advance()

    def _take(self, event: Event) -> None:
        match event:
            case Touched(topic=Topic.PACKAGES) | Due(what="settle"):
                self._settle(event)
            case Touched():
                self._apart.touch(event.topic, event.at)
            case Due(what="look"):
                self._want("due")
            case Due(what="watchdog"):
                self._beat()
            case Due(what="silence"):
                self.hear()
            case Due(what="resume"):
                self._unended = self.store.memory().unended
            case Due():
                self._apart.due(event.what, event.at, unpacking=self.doors.locked())
            case Asked():
                self._take_errand(event)
            case Looked():
                self._take_look(event)
            case Checked():
                self._take_checked(event)
            case RestartsDone():
                self._take_restarts(event)
            case Reload():
                self._reload()

    def _beat(self) -> None:
        """Tell systemd that the loop goes round, and again in time."""
        self.doors.alive()
        if self.doors.beat:
            self.agenda.wake("watchdog", datetime.now(UTC) + timedelta(seconds=self.doors.beat))

    def _settle(self, event: Touched | Due) -> None:
        self._settling, over, due = settle.step(self._settling, event, datetime.now(UTC), self.doors.locked())
        self.agenda.wake("settle", due)
        if over:
            self._outdated, self._wanted = "", weightier(self._wanted, "packages")  # it may have kept us from leaving

    def _want(self, why: str) -> None:
        """Have a look made as soon as none is under way; why: see `errands.UNFORCED`."""
        self._wanted = weightier(self._wanted, why)

    def _look(self) -> None:
        self._force |= self._wanted not in UNFORCED or bool(self.view.trouble) or self.view.checked_at is None
        self._wanted = ""
        self._errands.see()
        self.board.show(phase=Phase.CHECKING)
        self._looking = True
        self.agenda.begin(self.doors.look(self.settings, force=self._force))

    def _take_look(self, looked: Looked) -> None:
        self._looking = False
        self._force &= looked.abandoned
        if looked.transaction:
            self.board.show(transaction=looked.transaction, outcomes=())
            telling.transaction(self.doors.tell, looked.transaction)
            self._apart.want(APART, datetime.now(UTC))
        if looked.outdated:
            self._take_upgrade(looked.outdated)
        if looked.results:
            self._take_results(looked)
        if problem := self.board.take_sight(looked):
            self.complain(problem)
        if self._served and self._served.reply:
            self._served.answer(self._served.reply)
            self._served = None

    def _take_upgrade(self, version: str) -> None:
        """Leave, so that the version on disk goes on; but once: something may have forbidden it."""
        if version == self._outdated and not self._leaving:
            raise AgentError(Kind.SPAWN, f"aftercared must be restarted to be {version}", "systemctl restart aftercare")
        self._outdated, self._leaving = version, f"aftercare or its Python was upgraded: {version}"

    def _take_results(self, looked: Looked) -> None:
        """Put the new verdicts in the place of the old; a check that could not be run keeps its last one."""
        now = datetime.now(UTC)
        before = self.board.take(looked.results, now)
        telling.findings(self.doors.tell, before, self.view, looked, now)
        self.agenda.wake("look", min((result.again_at for result in looked.results if result.again_at), default=None))
        self.units = looked.units
        ran = {result.check for result in looked.results}
        self._plan = not_twice(self.make_plan(), self.store.memory()) if LIBRARIES in ran else None
        self.board.show(checked_at=now, plan=self._plan)
        self.board.release()

    def hear(self) -> None:
        """Take note of what somebody silenced, and be woken when that ends."""
        self.board.hear(datetime.now(UTC))
        self.agenda.wake("silence", self.board.silent_until())

    def _take_checked(self, checked: Checked) -> None:
        self._apart.ended(checked, now := datetime.now(UTC))
        before = self.board.take_checked(checked, now)
        telling.changes(self.doors.tell, before, self.view, checked)

    def make_plan(self) -> Plan:
        """Return what would be restarted now."""
        return plan_for(self.view, self.units, self.settings.rules, downtimes=self.store.downtimes())

    # What is done about it

    def _advance(self) -> None:
        """Begin the next thing that is due, if nothing is under way. Who only waits keeps nobody from anything."""
        if self._looking or self._restarting:
            return
        goes_on = self.settings.mode == "auto" and not (self.view.braked or self.store.unwritten)
        plan = self._plan if goes_on else None
        if self._unended:
            self._resume()
        elif self._wanted not in ("", WAITED):
            self._look()
        elif errand := self._errands.take_order():
            self._serve(errand)
            self._advance()
        elif self.busy_with_packages():
            self._rest()
        elif plan and has_steps(plan):
            self._restart(plan)
        elif (self._leaving and not self.store.unwritten) or (plan and plan.agent):
            self._leave()
        elif self._wanted:
            self._answer()
            self._look()
        else:
            self._rest()

    def _rest(self) -> None:
        settling = self._settling.touched is not None
        self.board.show(phase=Phase.SETTLING if settling else Phase.IDLE)
        if not settling and not self.doors.locked():
            self._answer()

    def _answer(self) -> None:
        self._errands.answer({"done": not self.view.trouble}, checks=not self._apart.is_busy)

    def _restart(self, plan: Plan) -> None:
        self._plan = None
        self.board.show(phase=Phase.RESTARTING, plan=plan)
        self._restarting = True
        self.agenda.begin(self.doors.execute(plan, self.settings, self.busy_with_packages))

    def _resume(self) -> None:
        """Finish what an earlier process of ours had begun, before anything else, but not into an open transaction."""
        if not self.doors.locked():
            unended, self._unended = self._unended, ()
            self.board.show(phase=Phase.RESTARTING)
            self._restarting = True
            self.agenda.begin(self.doors.resume(unended, self.settings))

    def _take_restarts(self, done: RestartsDone) -> None:
        self._restarting = False
        did = done.performed
        latest = {outcome.unit: outcome for outcome in (*self.view.outcomes, *did.outcomes)}
        self.board.show(outcomes=tuple(latest.values()))
        self.board.brake(did.held)
        if did.held:
            self.doors.tell("braked" if self.view.braked else "held", reason=did.held)
        if self.store.memory().unended:
            self.agenda.wake("resume", datetime.now(UTC) + AFTER_TROUBLE)
        if self._served:
            restarts = [contract.outcome(item) for item in did.outcomes]
            self._served.reply = {"plan": None, "restarts": restarts, "held": did.held, "fresh": self._served.fresh}
        self._want("restarts")

    def _leave(self) -> None:
        """Have systemd restart us: it ends this process in the middle of it, and the next one verifies the attempt."""
        reason, self._leaving = self._leaving or "its own code was replaced", ""
        self.doors.tell("agent-restarting", reason=reason)
        self._restart(own_plan(self.view, self.units, self.settings.rules, reason))

    def _take_errand(self, asked: Asked) -> None:
        self.doors.drain()
        self._errands.add(asked)
        self._want(WAITED if asked.method == "wait" else "asked")
        if asked.method == "check":
            self._apart.want(APART, datetime.now(UTC))

    def _serve(self, errand: Errand) -> None:
        try:
            be_sure(self.view, self.busy_with_packages())
            order = order_of(self.view, self.units, self.settings.rules, errand.asked.arguments, self.store.downtimes())
            if self.store.unwritten and not order.dry_run:
                raise self.store.unwritten
        except AgentError as problem:
            errand.refuse(problem)
            return
        if order.everything and not order.dry_run:
            self.store.release()
        if order.dry_run or not (order.goes or has_steps(order.plan)):
            errand.answer({"plan": plan_json(order.plan), "restarts": [], "held": "", "fresh": order.fresh})
            self.board.brake()
            return
        errand.fresh = order.fresh
        self._leaving = ASKED if order.goes else self._leaving
        self._served = errand
        self._restart(order.plan)

    def _reload(self) -> None:
        self.settings, rejected = self.doors.reload(self.settings)
        self._settling = replace(self._settling, quiet=timedelta(seconds=self.settings.quiet_period))
        self.board.show(mode=self.settings.mode, rejected=rejected)
        self.doors.ready()
        self._want("reload")
        self._apart.want(APART, datetime.now(UTC))
