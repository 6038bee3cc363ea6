"""What a record costs those who follow its terms, and which of them break it: remarks on a `Reach`. Pure."""

from agent.spf.lint import CRITICAL, INFO, SHOWN, UNKNOWN, WARNING, Remark
from agent.spf.reach import Cost, Reach, Trouble
from agent.spf.trace import MOST_LOOKUPS, MOST_VOIDS

FEW = 4
NEAR = 8
"""From so many look-ups on, each one's cost is told."""


def weigh(reach: Reach, early: bool = False) -> tuple[Remark, ...]:
    """Return what is wrong with a record because of what its terms lead to.

    early: the senders that were asked for pass or fail before the limits are met, so they alone get a verdict.
    """
    found = [_trouble(trouble) for trouble in reach.troubles]
    if reach.lookups > MOST_LOOKUPS:
        dearest = ", ".join(f"`{cost.hop.term:.{SHOWN}}` {cost.lookups}" for cost in _dearest(reach)[:FEW])
        message = f"its terms need {reach.lookups} look-ups ({dearest}), and over {MOST_LOOKUPS} the record is broken"
        if early:
            message += "; this host's addresses match before that, all other senders meet it"
        advice = f"take out `{_dearest(reach)[0].hop.term:.{SHOWN}}`, or put the addresses it stands for in its place"
        code = "early-match" if early else "too-many-lookups"
        found.append(Remark(code, WARNING if early else CRITICAL, 0, 0, message, advice))
    if reach.lookups >= NEAR:
        for cost in reach.costs:
            if cost.lookups > 1:
                message = f"`{cost.hop.term:.{SHOWN}}` costs {cost.lookups} of the {MOST_LOOKUPS} look-ups"
                found.append(Remark("lookup-cost", INFO, cost.hop.start, cost.hop.end, message))
    if reach.voids > MOST_VOIDS:
        void = ", ".join(f"`{cost.hop.term:.{SHOWN}}`" for cost in reach.costs if cost.voids4 or cost.voids6)
        message = f"DNS has nothing for {reach.voids} terms ({void}), and over {MOST_VOIDS} the record is broken"
        found.append(Remark("too-many-voids", CRITICAL, 0, 0, message, "take out the terms that lead to nothing"))
    return tuple(found)


def _dearest(reach: Reach) -> list[Cost]:
    return sorted(reach.costs, key=lambda cost: -cost.lookups)


def _trouble(trouble: Trouble) -> Remark:
    hop, last = trouble.path[0], trouble.path[-1]
    where = "" if hop == last else f" (in the record of {last.domain})"
    message = f"`{last.term:.{SHOWN}}`{where}: {trouble.message}"
    if trouble.kind == "temperror":
        return Remark("dns-failed", UNKNOWN, hop.start, hop.end, message)
    advice = f"take out `{hop.term:.{SHOWN}}`, or name the domain that its owner publishes now"
    if trouble.kind in ("dead", "absent"):
        message += "; that breaks the whole record"
        message += ", and whoever gets hold of the name may send as this domain" if trouble.kind == "absent" else ""
        return Remark("dead-include", CRITICAL, hop.start, hop.end, message, advice)
    return Remark("broken-term", CRITICAL, hop.start, hop.end, message, advice)
