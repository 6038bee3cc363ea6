"""The course of one evaluation: what was asked, what it cost, what broke. Pure; asks through a `Resolver`."""

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

from agent.spf.answers import Answer, Resolver
from agent.spf.record import Result

T = TypeVar("T")

MOST_LOOKUPS = 10
"""Terms that may need DNS in one evaluation, includes and redirects counted with all that they lead to."""
MOST_VOIDS = 2
"""Terms whose lookups may find nothing. Both: RFC 7208 section 4.6.4."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """One question. kind: TXT, A, AAAA, MX or PTR."""

    kind: str
    name: str
    answer: Answer[object]


@dataclass(frozen=True, slots=True)
class Step:
    """One record or one term of it, in the order in which they were judged; `depth` makes a tree of them.

    text: the record, or the term, as written. start, end: its place in the record of `domain`. verdict: of a record
    its result; of a mechanism `match` or `no match`; of `redirect=` the result that it led to; of `exp=` `used` or why
    not. What an error interrupted has `temperror` or `permerror`.
    """

    depth: int
    domain: str
    start: int
    end: int
    text: str
    lookups: tuple[Lookup, ...]
    verdict: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Why there is an error, or no record. domain: whose record; start, end: where in it, 0 where it is not about a
    place. record: its text, empty where none was got. hint: text to put at that place, or empty."""

    message: str
    domain: str
    start: int = 0
    end: int = 0
    record: str = ""
    hint: str = ""


class Broken(Exception):
    """What ends an evaluation at once: PERMERROR or TEMPERROR."""

    def __init__(self, result: Result, problem: Problem) -> None:
        super().__init__(problem.message)
        self.result = result
        self.problem = problem


@dataclass(slots=True)
class Draft:
    """A step that is still being judged."""

    depth: int
    domain: str
    start: int
    end: int
    text: str
    record: str = ""
    lookups: list[Lookup] = field(default_factory=list)
    verdict: str = ""
    void: bool = False


@dataclass(slots=True)
class Course:
    """What an evaluation has asked so far, and counted. ip: never an IPv4-mapped one. sender: with local part."""

    resolver: Resolver
    ip: IPv4Address | IPv6Address
    sender: str
    helo: str
    receiver: str
    now: int
    lookups: int = 0
    voids: int = 0
    ttl: int | None = None
    drafts: list[Draft] = field(default_factory=list)
    open: list[Draft] = field(default_factory=list)
    validated: tuple[list[str], bool] | None = None
    """The client's validated names, and whether there was no PTR record at all; None before they were looked up."""

    def begin(self, domain: str, start: int, end: int, text: str, record: str) -> Draft:
        """Begin a step below the one that is open."""
        draft = Draft(len(self.open), domain, start, end, text, record)
        self.drafts.append(draft)
        self.open.append(draft)
        return draft

    def finish(self, verdict: str) -> None:
        """Finish the step that was begun last."""
        self.open.pop().verdict = verdict

    def steps(self) -> tuple[Step, ...]:
        """Return the steps as values."""
        return tuple(
            Step(item.depth, item.domain, item.start, item.end, item.text, tuple(item.lookups), item.verdict)
            for item in self.drafts
        )

    def note(self, kind: str, name: str, answer: Answer[T]) -> Answer[T]:
        """Write an answer down with the open step, and its TTL."""
        self.open[-1].lookups.append(Lookup(kind, name, answer))
        if answer.ttl is not None and (self.ttl is None or answer.ttl < self.ttl):
            self.ttl = answer.ttl
        return answer

    def count_lookup(self) -> None:
        """Count the open term as one that needs DNS."""
        self.lookups += 1
        if self.lookups > MOST_LOOKUPS:
            raise self.broken(f"this is one more than the {MOST_LOOKUPS} terms that may need DNS")

    def count_void(self) -> None:
        """Count the open term, once, as one for which DNS has nothing."""
        draft = self.open[-1]
        self.voids += not draft.void
        draft.void = True
        if self.voids > MOST_VOIDS:
            raise self.broken(f"DNS has nothing for more than {MOST_VOIDS} terms")

    def broken(self, message: str, result: Result = Result.PERMERROR) -> Broken:
        """Return what to raise for a fault of the open step."""
        draft = self.open[-1]
        return Broken(result, Problem(message, draft.domain, draft.start, draft.end, draft.record))

    def failed(self, kind: str, name: str, reason: str) -> Broken:
        """Return what to raise where DNS failed."""
        return self.broken(f"{kind} of {name}: {reason or 'no answer'}", Result.TEMPERROR)
