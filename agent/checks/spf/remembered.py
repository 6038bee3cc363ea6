"""What the check `spf` remembers from one run to the next: last good verdicts, failures, old records, old addresses.

Pure: plain JSON in and out, and the facts that only a memory can tell.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address
from typing import Any

from agent.checks.spf.lookups import Looked, spf_of
from agent.model import contract
from agent.model.errors import AgentError
from agent.model.text import printable
from agent.spf.answers import CUT_OFF
from agent.spf.drift import Failures, Views
from agent.spf.evaluate import Outcome
from agent.spf.record import Result

WORST = tuple(map(Result, ("permerror", "fail", "softfail", "neutral", "none", "pass")))
GRACE = timedelta(seconds=60)
FORMER_FOR = timedelta(days=400)
MOST_FORMER = 64
HEADER = 12
"""Bytes that a TXT record costs in an answer beside its text."""


@dataclass(frozen=True, slots=True)
class Row:
    """One name. at: of the last look that came to something; None: there was none.

    record: a digest of its SPF records then; ttl: theirs. good: the verdict then, by identity. old_until: until when
    resolvers may have the one before. lag_until: when this host's resolver, which has another one, should have let it
    go. count, since: of failures in a row. detour: it is judged by that resolver, the servers being out of our reach.
    told: the finding then, None where there was none.
    """

    at: datetime | None = None
    record: str = ""
    ttl: int = 0
    good: dict[str, str] = field(default_factory=dict)
    old_until: datetime | None = None
    lag_until: datetime | None = None
    count: int = 0
    since: datetime | None = None
    detour: bool = False
    told: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """All of it. own: the lasting addresses of this host; former: what was one, and until when."""

    rows: dict[str, Row] = field(default_factory=dict)
    own: tuple[str, ...] = ()
    former: dict[str, datetime] = field(default_factory=dict)


def recall(kept: Mapping[str, Any]) -> Memory:
    """Return what was kept; what another version kept in another shape is forgotten."""
    try:
        return contract.decode(Memory, kept)
    except AgentError:
        return Memory()


def keep(memory: Memory) -> dict[str, Any]:
    """The reverse of `recall`."""
    return dict(contract.encode(memory))


def with_addresses(memory: Memory, own: Iterable[str], now: datetime) -> Memory:
    """Return the memory with the addresses of today; those of yesterday are former ones.

    A host that has none of a family, for its network is down, has not lost them.
    """
    today = tuple(dict.fromkeys(own))
    families = {ip_address(address).version for address in today}
    today += tuple(address for address in memory.own if ip_address(address).version not in families)
    lost = {address: now for address in memory.own if address not in today}
    former = {address: at for address, at in (memory.former | lost).items() if address not in today}
    recent = sorted((item for item in former.items() if now - item[1] < FORMER_FOR), key=lambda item: item[1])
    return replace(memory, own=today, former=dict(recent[-MOST_FORMER:]))


def after(row: Row, looked: Looked, now: datetime) -> Row:
    """Return what is to be remembered of a name after a look at it; what is told of it is the caller's."""
    if looked.temperror:
        return replace(row, count=row.count + 1, since=row.since or now, detour=looked.detour)
    return Row(
        at=now,
        record=digest_of(looked.spf),
        ttl=looked.ttl,
        good={identity: worst(item.result for item in found) for identity, found in looked.verdicts.items() if found},
        old_until=_old_until(row, looked, now),
        lag_until=_lag_until(row, looked, now),
        detour=looked.detour,
    )


def needs_detour(row: Row, looked: Looked, now: datetime) -> bool:
    """Whether the zone's servers do not answer us while this host's resolver, which receivers resemble, does.

    A wall between them and us is no fault of theirs. While a verdict of theirs is known it stands for longer than the
    resolver can remember, for they may really be down.
    """
    lasting = row.since is not None and Failures(row.count + 1, row.since, ttl=row.ttl).is_lasting(now)
    answered = bool(looked.temperror) and looked.seen.outcome is not Outcome.FAILED
    return answered and (row.detour or row.at is None or lasting)


def digest_of(records: Iterable[str]) -> str:
    """Return a short text that other records do not have: a record may be long, and is only compared."""
    return sha256("\0".join(records).encode("utf-8", "surrogateescape")).hexdigest()


def worst(results: Iterable[Result]) -> str:
    """Return the worst of several results; those that are no verdicts do not count."""
    found = set(results)
    return next((result.value for result in WORST if result in found), "")


def _old_until(row: Row, looked: Looked, now: datetime) -> datetime | None:
    """The old record was published until a moment ago, as far as we know."""
    if row.at is not None and row.record != digest_of(looked.spf):
        return now + timedelta(seconds=row.ttl)
    return row.old_until if row.old_until and row.old_until > now else None


def _lag_until(row: Row, looked: Looked, now: datetime) -> datetime | None:
    if not _lags(looked):
        return None
    return row.lag_until or now + timedelta(seconds=looked.seen.ttl or 0)


def _lags(looked: Looked) -> bool:
    """Whether this host's own resolver has another record than the newest server."""
    return looked.seen.outcome is not Outcome.FAILED and spf_of(looked.seen.data) != looked.spf


def views_of(row: Row, looked: Looked, now: datetime) -> Views:
    """Return what the servers say. row: after this look.

    Who has the old answer for longer than its TTL has another zone.
    """
    served = {spf_of(each.answer.data) for each in looked.differing}
    overdue = row.lag_until is not None and now > row.lag_until + GRACE
    split = overdue and spf_of(looked.seen.data) not in served
    lag = now + timedelta(seconds=looked.seen.ttl or 0) if row.lag_until and not split else None
    refusing = [each.server for each in looked.servers if CUT_OFF in each.answer.reason]
    return Views(
        differing=tuple(dict.fromkeys(each.server for each in looked.differing)),
        refusing=tuple(dict.fromkeys(refusing)) if not looked.failed else (),
        size=sum(len(text.encode("utf-8", "surrogateescape")) + HEADER for text in looked.texts),
        old_until=max((moment for moment in (row.old_until, lag) if moment), default=None),
        split=split,
    )


def failures_of(row: Row, looked: Looked, identity: str, now: datetime) -> Failures | None:
    """Return how DNS fails, where it does. row: after this look."""
    if not looked.temperror:
        return None
    word = row.good.get(identity, "")
    good = (Result(word), row.at) if word and row.at else None
    return Failures(row.count, row.since or now, printable(looked.temperror), row.ttl, good)
