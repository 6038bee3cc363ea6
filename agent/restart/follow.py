"""Follows restarts that systemd was asked for, each on its own, until they are proven or have failed.

It looks and waits; it starts nothing. A unit that is slow delays nobody else's verdict.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.model.facts import Unit
from agent.model.restarts import BROKEN, Attempt, Outcome, Result, Step, Took
from agent.restart.hands import Hands, look, still_stale
from agent.restart.verify import Seen, is_up, judge

POLL = 0.2
"""Seconds between two looks at units whose jobs are under way."""
TOGETHER = 5.0
"""Seconds that settled units wait for others that are about to settle, to be proven by one recheck."""
NEVER = float("inf")


@dataclass(slots=True)
class Watch:
    """One attempt while it is followed. Times by `Hands.clock`.

    tested: how long the test of its configuration took, where it has one. ended: when no job was left. first: the unit
    at the look after that. settled_at: when it counts as settled, or as hopeless. last, dependants: as seen last.
    """

    step: Step
    attempt: Attempt
    begun: float
    tested: Took = ()
    ended: float | None = None
    settled_at: float = NEVER
    first: Unit | None = None
    last: Unit | None = None
    dependants: dict[str, Unit] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The units whose jobs belong to this restart."""
        return (self.step.unit, *self.step.pulls)


async def follow(watches: Sequence[Watch], hands: Hands) -> list[Outcome]:
    """Return what came of every watch, each noted as soon as it is known."""
    outcomes: list[Outcome] = []
    going = list(watches)
    while going:
        await hands.sleep(_pause(going, hands.clock()))
        units = await look(hands, sorted({name for watch in going for name in watch.names}))
        now = hands.clock()
        for watch in going:
            _update(watch, units, now)
        settled = [watch for watch in going if watch.settled_at <= now]
        if settled and not any(now < watch.settled_at <= now + TOGETHER for watch in going):
            outcomes += await _prove(settled, hands)
            going = [watch for watch in going if watch not in settled]
    return outcomes


def close(watch: Watch, outcome: Outcome, hands: Hands) -> Outcome:
    """Write down what came of an attempt, and return it."""
    hands.note_outcome(watch.attempt, outcome)
    return outcome


def _pause(watches: Sequence[Watch], now: float) -> float:
    if any(watch.settled_at == NEVER for watch in watches):
        return POLL
    return max(min((watch.settled_at - now for watch in watches if watch.settled_at > now), default=POLL), POLL)


def _update(watch: Watch, units: Mapping[str, Unit] | None, now: float) -> None:
    if units is not None:
        watch.last = units.get(watch.step.unit)
        watch.dependants = {name: units[name] for name in watch.step.pulls if name in units}
    if watch.first is not None:
        return
    if watch.ended is not None:
        watch.first = watch.last
        is_over = watch.last is None or watch.last.active in ("failed", "inactive")
        watch.settled_at = now if is_over else now + watch.step.rule.settle
    elif units is not None and not any(units[name].job for name in watch.names if name in units):
        watch.ended = now
    elif now - watch.begun >= watch.step.rule.limit:
        watch.settled_at = now


async def _prove(watches: Sequence[Watch], hands: Hands) -> list[Outcome]:
    asked = hands.clock()
    answers = await asyncio.gather(*(_ask(watch, hands) for watch in watches))
    begun = hands.clock()
    anything_up = any(watch.last and is_up(watch.last) for watch in watches)
    stale = await still_stale(hands) if anything_up else {}
    recheck = hands.clock() - begun
    outcomes = []
    for watch, (ailment, probed) in zip(watches, answers, strict=True):
        left = None if stale is None else stale.get(watch.step.unit, ())
        ended = asked if watch.ended is None else watch.ended
        stages = (("job", ended - watch.begun), ("settle", asked - ended), *probed, ("recheck", recheck))
        took = (*watch.tested, *stages)
        outcome = judge(watch.step, Seen(watch.first, watch.last, watch.dependants, left, took, ailment))
        outcomes.append(close(watch, await _with_journal(outcome, watch, hands), hands))
    return outcomes


async def _ask(watch: Watch, hands: Hands) -> tuple[str, Took]:
    """Return what its probe finds wrong with a unit that is up, and its time; empty: nothing, or it has none."""
    wanted = watch.step.rule.probe
    if not wanted or watch.last is None or not is_up(watch.last):
        return "", ()
    begun = hands.clock()
    ailment = await hands.probe(wanted)
    return ailment, (("probe", hands.clock() - begun),)


async def _with_journal(outcome: Outcome, watch: Watch, hands: Hands) -> Outcome:
    """Add the last words of the unit that is down, which may be a dependant."""
    if outcome.result not in BROKEN or watch.last is None:
        return outcome
    down = [unit for unit in watch.dependants.values() if not is_up(unit)]
    subject = down[0] if outcome.result is Result.DEPENDANT_DOWN and down else watch.last
    return replace(outcome, journal=await hands.journal(subject.name, subject.invocation))
