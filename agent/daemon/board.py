"""The board: the one view of what is known, kept up to date with what checks find, and shown whenever it changes."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from agent.daemon.doors import Doors
from agent.daemon.planning import remarks, together
from agent.model.events import Checked
from agent.model.findings import CheckResult, StaleUnit
from agent.model.view import View
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

    def hear(self, now: datetime) -> None:
        """Take note of what somebody silenced, or wants to hear of again."""
        self._store.date(self.view.findings, now, frozenset())
        self.show(silences=self._store.memory().silences)

    def brake(self, held: str = "") -> None:
        """Show whether restarts are held: a unit did not come back, or what came of it could not be written down."""
        memory = self._store.memory()
        brake = memory.brake or (UNWRITTEN if memory.unended else "")
        self.show(held=held or brake, braked=bool(brake))

    def waits(self) -> bool:
        """Whether some unit is to be restarted by itself when its time has come."""
        stale = (finding.evidence for finding in self.view.findings if isinstance(finding.evidence, StaleUnit))
        return any(item.opens_at for item in stale)

    def silent_until(self) -> datetime | None:
        """Return when the first silence ends by itself."""
        return min((silence.until for silence in self.view.silences if silence.until), default=None)
