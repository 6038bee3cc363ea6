"""Those who wait for an answer of the corridor's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from agent.model.errors import AgentError, Kind
from agent.model.events import Asked
from agent.model.findings import Finding, StaleUnit

WAITED = "waited"
UNFORCED = ("", WAITED, "packages")
"""What a look is wanted for, if it need not be made where dpkg did nothing; the later ones weigh more."""


@dataclass(slots=True)
class Errand:
    """Somebody who waits for an answer. `seen`: a look was begun after he came."""

    asked: Asked
    seen: bool = False

    @property
    def is_order(self) -> bool:
        """Whether he asks for restarts, and may have them now: what there is to restart was looked at since."""
        return self.seen and self.asked.method == "restart"

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return bool(self.asked.ticket.done())

    def answer(self, reply: dict[str, Any]) -> None:
        """Answer, unless he went away meanwhile."""
        if not self.asked.ticket.done():
            self.asked.ticket.set_result(reply)

    def refuse(self, message: str, hint: str) -> None:
        """Say why not, unless he went away meanwhile."""
        if not self.asked.ticket.done():
            self.asked.ticket.set_exception(AgentError(Kind.USAGE, message, hint))


def weightier(wanted: str, why: str) -> str:
    """Return which of two reasons for a look counts: all but UNFORCED force one, the first of those stays."""
    if wanted not in UNFORCED:
        return wanted
    return max(wanted, why, key=UNFORCED.index) if why in UNFORCED else why


def why_not(findings: Sequence[Finding], unit: str) -> str:
    """Return why `unit` cannot be restarted by us, in words."""
    evidence = next((finding.evidence for finding in findings if finding.subject == unit), None)
    if isinstance(evidence, StaleUnit):
        return f"{unit} is not restarted: {evidence.reason or evidence.disposition}"
    return f"{unit} is not stale: it runs the code that is installed"
