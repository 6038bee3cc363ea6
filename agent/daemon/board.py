"""The board: the one view of what is known, kept up to date with what checks find, and shown whenever it changes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from agent.daemon.doors import Doors
from agent.daemon.look import LIBRARIES
from agent.daemon.planning import remarks, together
from agent.model.errors import AgentError
from agent.model.events import Checked, Looked
from agent.model.findings import CheckResult, StaleUnit
from agent.model.view import View
from agent.restart.narrow import has_steps
from agent.store import Store

UNWRITTEN = "what came of a restart could not be written down"


class Board:
    """What is shown. `view` is replaced, never changed."""

    def __init__(self, view: View, store: Store, doors: Doors) -> None:
        self.view = view
        self._store = store
        self._doors = doors

    def show(self, **changes: Any) -> None:
        """Change fields of the view, and publish it where that made a difference."""
        view = replace(self.view, **changes)
        if view != self.view:
            self.view = view
            self._doors.publish(view)

    def take(self, results: Sequence[CheckResult], now: datetime) -> View:
        """Put new verdicts in the place of the old and return the view before; who was not run keeps his last one."""
        before = self.view
        ran = frozenset(result.check for result in results)
        findings = self._store.date(together(before, results), now, ran)
        self.show(findings=findings, silences=self._store.memory().silences, **remarks(before, results))
        return before

    def take_checked(self, checked: Checked, now: datetime) -> View:
        """`take`, for a check that runs apart; one that could not be run is told as not seen."""
        if checked.result:
            return self.take((checked.result,), now)
        before, why = self.view, f"{checked.check}: {checked.problem}"
        self.show(unseen=before.unseen | {checked.check: (why,)})
        return before

    def take_sight(self, looked: Looked) -> AgentError | None:
        """Show whether what is stale was seen by this look, or by an earlier one; return what went wrong, if anything.

        A look that cannot be remembered was one all the same.
        """
        problem = looked.problem or self._store.unwritten
        if any(result.check == LIBRARIES for result in looked.results):
            self.show(blind=False)
        elif looked.problem or looked.outdated:
            self.show(blind=True)
        if looked.results and not problem:
            self.show(trouble="")
        return problem

    def complain(self, problem: AgentError) -> None:
        """Show what went wrong, and tell it once."""
        if problem.message != self.view.trouble:
            unwritten = self._store.unwritten
            kind = "history-unwritten" if unwritten and unwritten.message == problem.message else "check-failed"
            self._doors.tell(kind, error=problem.message, hint=problem.hint)
        self.show(trouble=problem.message)

    def hear(self, now: datetime) -> None:
        """Take note of what somebody silenced, or wants to hear of again."""
        self._store.date(self.view.findings, now, frozenset())
        self.show(silences=self._store.memory().silences)

    def brake(self, held: str = "") -> None:
        """Show whether restarts are held: a unit did not come back, or what comes of one cannot be written down."""
        memory, unwritten = self._store.memory(), self._store.unwritten
        brake = memory.brake or (UNWRITTEN if memory.unended else "")
        self.show(held=held or brake or (unwritten.message if unwritten else ""), braked=bool(brake))

    def release(self) -> None:
        """Take the brake off where there is nothing left for it to hold, now or when its time has come."""
        plan, stale = self.view.plan, (finding.evidence for finding in self.view.findings)
        waits = any(isinstance(item, StaleUnit) and item.opens_at for item in stale)
        if plan and not (has_steps(plan) or plan.agent or waits):
            self._store.release()
        self.brake()

    def silent_until(self) -> datetime | None:
        """Return when the first silence ends by itself."""
        return min((silence.until for silence in self.view.silences if silence.until), default=None)
