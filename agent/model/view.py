"""What is shown: one frozen value that the daemon publishes after each step, and everybody else reads."""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from agent.model import contract
from agent.model.facts import Transaction
from agent.model.findings import Finding, Severity
from agent.model.memory import Memory, Silence
from agent.model.restarts import Outcome, Plan
from agent.model.text import printable


class Phase(StrEnum):
    """What the daemon is doing."""

    STARTING = "starting"
    IDLE = "idle"
    SETTLING = "settling"
    CHECKING = "checking"
    RESTARTING = "restarting"


@dataclass(frozen=True, slots=True)
class View:
    """Findings and how they came about. `transaction`: the last one; `outcomes`: what its restarts came to.

    held: why restarts stopped before the last wave; braked: because a unit did not come back, so that somebody must say
    `resume`. silences: findings that nobody wants to be told of now. trouble: what went wrong in the last look; blind:
    it did not see what is stale, and the findings are of the one before. rejected: why the configuration on disk is not
    used. unseen: what could not be looked at, by check.
    """

    phase: Phase
    mode: str
    findings: tuple[Finding, ...] = ()
    checked_at: datetime | None = None
    transaction: Transaction | None = None
    outcomes: tuple[Outcome, ...] = ()
    plan: Plan | None = None
    held: str = ""
    braked: bool = False
    silences: tuple[Silence, ...] = ()
    detail: dict[str, Any] = field(default_factory=dict)
    unseen: dict[str, tuple[str, ...]] = field(default_factory=dict)
    trouble: str = ""
    blind: bool = False
    rejected: str = ""


def recalled(memory: Memory, mode: str) -> View:
    """Return what is known before the first look: the last transaction, and what its restarts came to."""
    done = memory.transaction
    ended = (attempt for attempt in memory.attempts if done and attempt.transaction == done.id)
    outcomes = tuple(attempt.outcome for attempt in ended if attempt.outcome)
    return View(
        Phase.STARTING,
        mode,
        transaction=done,
        outcomes=outcomes,
        held=memory.brake,
        braked=bool(memory.brake),
        silences=memory.silences,
    )


def told(view: View) -> tuple[Finding, ...]:
    """Return the findings that nobody silenced."""
    silenced = {silence.id for silence in view.silences}
    return tuple(finding for finding in view.findings if printable(finding.id) not in silenced)


def counts(view: View) -> dict[str, int]:
    """Return how many findings there are of each severity: all that those outside the group may know."""
    found = [finding.severity for finding in told(view)]
    return {severity.value: found.count(severity) for severity in Severity}


def transaction_json(transaction: Transaction) -> dict[str, Any]:
    """Return a transaction as `status`, `why` and `history` show it."""
    return {
        "id": transaction.id,
        "begun": contract.stamp(transaction.begun),
        "ended": contract.stamp(transaction.ended),
        "command": printable(transaction.command),
        "requester": printable(transaction.requester),
        "changes": contract.encode(transaction.changes),
        "unfinished": [state.name for state in transaction.unfinished],
    }


def view_json(view: View) -> dict[str, Any]:
    """Return the view in the shape of `status --json` and of `state.json` (DESIGN §3)."""
    return {
        "v": 1,
        "phase": view.phase.value,
        "mode": view.mode,
        "checked_at": contract.stamp(view.checked_at),
        "findings": [contract.finding(finding) for finding in told(view)],
        "silenced": _silenced_json(view),
        "transaction": transaction_json(view.transaction) if view.transaction else None,
        "restarts": [contract.outcome(outcome) for outcome in view.outcomes],
        "plan": plan_json(view.plan) if view.plan else None,
        "held": printable(view.held),
        "braked": view.braked,
        "detail": view.detail,
        "unseen": [printable(line) for lines in view.unseen.values() for line in lines],
        "trouble": printable(view.trouble),
        "rejected": printable(view.rejected),
    }


def _silenced_json(view: View) -> list[dict[str, Any]]:
    """Return the findings that somebody silenced, each with who did so, why, and for how long."""
    known = {silence.id: silence for silence in view.silences}
    return [
        {"finding": contract.finding(finding), "silence": silence_json(known[printable(finding.id)])}
        for finding in view.findings
        if printable(finding.id) in known
    ]


def silence_json(silence: Silence) -> dict[str, Any]:
    """Return a silence as `status` and `history` show it."""
    return {
        "id": silence.id,
        "kind": silence.kind.value,
        "reason": printable(silence.reason),
        "uid": silence.uid,
        "at": contract.stamp(silence.at),
        "until": contract.stamp(silence.until),
        "ended": contract.stamp(silence.ended),
    }


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return a plan as `agentctl plan` shows it."""
    return {
        "transaction": plan.transaction,
        "waves": [
            {
                "number": wave.number,
                "steps": [
                    {
                        "unit": printable(step.unit),
                        "pulls": [printable(name) for name in step.pulls],
                        "reasons": [printable(reason) for reason in step.reasons],
                        "expected": step.expected,
                    }
                    for step in wave.steps
                ],
            }
            for wave in plan.waves
        ],
        "manager": plan.manager,
        "agent": plan.agent,
    }
