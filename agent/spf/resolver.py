"""DNS for `evaluate`, by dnspython: what a recursive server says, and what a zone's own servers say.

Each evaluation has its own budget of seconds, in which waiting for a turn does not count; all of them share a cache
and no more than 64 questions at a time. What goes wrong is an answer that FAILED, with a reason. /etc/hosts and search
lists are never used. Works with dnspython 2.3 and 2.7.
"""

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address
from typing import Any
from weakref import WeakKeyDictionary

import dns.asyncquery
import dns.exception
import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdatatype
import dns.resolver

from agent.spf.answers import CUT_OFF, Answer, Outcome, ServerAnswer
from agent.spf.kept import Kept
from agent.spf.servers import PORT, Server
from agent.spf.session import Budget, Session

_Message = dns.message.QueryMessage

SECONDS, LONGEST, TRY = 20.0, 5.0, 2.0
"""For one evaluation (as RFC 7208 section 4.6.4 has it), one question over all its servers, and one server."""
AT_ONCE, MOST_ALIASES, MOST_SERVERS = 64, 10, 16
PAYLOAD = 1232
"""The largest UDP answer that arrives unfragmented nearly everywhere."""
NO_TTL = 2**31 - 1  # what dnspython has where nobody named a TTL; some versions have more

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()


def _text(name: dns.name.Name) -> str:
    return b".".join(name.labels).removesuffix(b".").decode("utf-8", "surrogateescape")


def _name(text: str) -> dns.name.Name:
    labels = text.encode("utf-8", "surrogateescape").split(b".") if text else []
    return dns.name.Name([*labels, b""])


READ: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("TXT", "SPF"), lambda rdata: b"".join(rdata.strings).decode("utf-8", "surrogateescape")),
    "A": lambda rdata: IPv4Address(rdata.address),
    "AAAA": lambda rdata: IPv6Address(rdata.address),
    "MX": lambda rdata: (rdata.preference, _text(rdata.exchange)),
    **dict.fromkeys(("PTR", "NS"), lambda rdata: _text(rdata.target)),
}


class _FailedError(Exception):
    """Why there is no answer. silent: nobody answered in time, so that asking again may help."""

    def __init__(self, reason: str, silent: bool = False) -> None:
        super().__init__(reason)
        self.silent = silent


class _View(ABC):
    """A cache, and the questions under way: who asks what another is asking already waits for that answer."""

    def __init__(self) -> None:
        self._kept = Kept()
        self._under_way: dict[tuple[str, str], asyncio.Task[tuple[Answer[Any], float]]] = {}
        self._silent: set[Server] = set()

    def within(self, seconds: float = SECONDS) -> Session:
        """Return a resolver for one evaluation."""
        return Session(self.ask, Budget(seconds))

    async def ask(self, kind: str, name: str, budget: Budget) -> Answer[Any]:
        """Return one answer, from the cache where that has it. kind: of `READ`, or SOA for the zone's own name."""
        key = (kind, name.lower() if name.isascii() else name)
        kept = self._kept.get(key, asyncio.get_running_loop().time())
        if kept is not None:
            return kept
        if budget.left <= 0:
            return Answer(Outcome.FAILED, reason="the time for this evaluation is over")
        task = self._under_way.get(key)
        if task is None:
            task = self._under_way[key] = asyncio.create_task(self._answer(key, budget.left))
        answer, took = await asyncio.shield(task)
        budget.left -= took
        return answer

    async def _answer(self, key: tuple[str, str], seconds: float) -> tuple[Answer[Any], float]:
        """Return the answer and the seconds that it took, turns not counted. Out of time, a failure proves nothing."""
        budget = Budget(seconds)
        try:
            answer = await self._fetch(*key, budget)
        except (_FailedError, dns.exception.DNSException) as problem:
            answer = _failed(problem)
        finally:
            del self._under_way[key]
        if answer.outcome is not Outcome.FAILED or budget.left > 0:
            self._kept.put(key, answer, asyncio.get_running_loop().time())
        return answer, seconds - budget.left

    @abstractmethod
    async def _fetch(self, kind: str, name: str, budget: Budget) -> Answer[Any]:
        """Return one answer from those who are asked; raise _FailedError or a DNSException where there is none."""

    async def _ask_any(self, servers: Sequence[Server], question: _Message, budget: Budget) -> _Message:
        """Ask one after the other; those that were silent once come last, and again until the time is over."""
        waiting = sorted(servers, key=lambda server: server in self._silent)
        problems: dict[Server, str] = {}
        end = max(budget.left - LONGEST, 0.0)
        while waiting and budget.left > end:
            server = waiting.pop(0)
            try:
                return await _exchange(server, question, budget, min(TRY, budget.left - end))
            except _FailedError as problem:
                problems[server] = str(problem)
                if problem.silent:
                    self._silent.add(server)
                    waiting.append(server)
        raise _FailedError("; ".join(f"{server}: {text}" for server, text in problems.items()) or "no server to ask")


class Recursive(_View):
    """What a recursive server says: what receivers may still see. Its TTLs are what is left of them there.

    Without `servers` those of `resolv_conf` are asked; raises ValueError where it names none.
    """

    def __init__(self, servers: Sequence[Server] = (), resolv_conf: str = "/etc/resolv.conf") -> None:
        super().__init__()
        self._servers = tuple(servers) or _configured(resolv_conf)

    async def _fetch(self, kind: str, name: str, budget: Budget) -> Answer[Any]:
        try:
            return _read(kind, await self._ask_any(self._servers, _question(name, kind, dns.flags.RD), budget))
        except _FailedError as problem:
            reason = str(problem)
        if reason.endswith("SERVFAIL"):
            with contextlib.suppress(_FailedError):
                await self._ask_any(self._servers, _question(name, kind, dns.flags.RD | dns.flags.CD), budget)
                reason += ", but an answer without DNSSEC checks: a signature is bad"
        raise _FailedError(reason)


class Authoritative(_View):
    """What a zone's own servers say: what is published now, with its full TTL. A `Recursive` finds the servers."""

    def __init__(self, finder: Recursive, port: int = PORT) -> None:
        super().__init__()
        self._finder = finder
        self._port = port

    async def ask_each(self, name: str, seconds: float = SECONDS) -> tuple[ServerAnswer, ...]:
        """Return what each server of the zone of `name` has as its TXT, all asked at once, by server name.

        Where the servers cannot be found there is one answer, of no server, that FAILED.
        """
        budget = Budget(seconds)
        try:
            hosts = await self._hosts_of(name, budget)
        except (_FailedError, dns.exception.DNSException) as problem:
            return (ServerAnswer("", "", _failed(problem)),)
        lost = [ServerAnswer(host, "", _failed("its name has no address")) for host, servers in hosts if not servers]
        tasks = [self._ask_one(host, server, name, budget.left) for host, servers in hosts for server in servers]
        return tuple(sorted((*lost, *await asyncio.gather(*tasks)), key=lambda each: (each.server, each.address)))

    async def _ask_one(self, host: str, server: Server, name: str, seconds: float) -> ServerAnswer:
        budget = Budget(min(seconds, 2 * LONGEST))
        try:
            answer = _read("TXT", await self._ask_any([server], _question(name, "TXT"), budget))
            start = _start(await self._ask_any([server], _question(name, "SOA"), budget))
        except (_FailedError, dns.exception.DNSException) as problem:
            return ServerAnswer(host, server.address, _failed(problem))
        return ServerAnswer(host, server.address, answer, start[0].serial if start else None)

    async def _fetch(self, kind: str, name: str, budget: Budget) -> Answer[Any]:
        """An alias is followed to the servers of its target, whatever the first ones say about that."""
        ttls: list[int] = []
        for _ in range(MOST_ALIASES):
            servers = [server for _, several in await self._hosts_of(name, budget) for server in several]
            response = await self._ask_any(servers, _question(name, kind), budget)
            chain = response.resolve_chaining()
            if chain.answer is not None or not chain.cnames:
                answer = _read(kind, response)
                ttls += [answer.ttl] if answer.ttl is not None else []
                return Answer(answer.outcome, answer.data, min(ttls, default=None), strings=answer.strings)
            ttls += [rrset.ttl for rrset in chain.cnames]
            name = _text(chain.canonical_name)
        raise _FailedError(f"more than {MOST_ALIASES} aliases")

    async def _hosts_of(self, name: str, budget: Budget) -> list[tuple[str, list[Server]]]:
        """Return the servers of the zone that `name` is in, by host name."""
        zone = await self._zone_of(name, budget)
        hosts = (await self._find("NS", zone, budget))[:MOST_SERVERS]
        if not hosts:
            raise _FailedError(f"{zone or 'the root'} has no name servers")
        kinds = [(host, kind) for host in hosts for kind in ("A", "AAAA")]
        budgets = [Budget(budget.left) for _ in kinds]
        asked = (self._finder.ask(kind, host, own) for (host, kind), own in zip(kinds, budgets, strict=True))
        answers = dict(zip(kinds, await asyncio.gather(*asked), strict=True))
        budget.left = min(own.left for own in budgets)
        return [
            (host, [Server(str(found), self._port) for kind in ("A", "AAAA") for found in answers[host, kind].data])
            for host in hosts
        ]

    async def _zone_of(self, name: str, budget: Budget) -> str:
        while not (found := await self._find("SOA", name, budget)) and name:
            name = name.partition(".")[2]
        return found[0] if found else ""

    async def _find(self, kind: str, name: str, budget: Budget) -> tuple[str, ...]:
        answer = await self._finder.ask(kind, name, budget)
        if answer.outcome is Outcome.FAILED:
            raise _FailedError(f"{kind} of {name}: {answer.reason}")
        return answer.data


def _configured(resolv_conf: str) -> tuple[Server, ...]:
    try:
        return tuple(Server(str(address)) for address in dns.resolver.Resolver(resolv_conf).nameservers)
    except dns.exception.DNSException:
        raise ValueError(f"{resolv_conf} names no name server") from None


def _question(name: str, kind: str, flags: int = 0) -> _Message:
    return dns.message.make_query(_name(name), kind, use_edns=0, payload=PAYLOAD, flags=flags)


async def _exchange(server: Server, question: _Message, budget: Budget, seconds: float) -> _Message:
    """Ask one server once. Whatever it sends, `_FailedError` is all that is raised."""
    clock = asyncio.get_running_loop().time
    async with _turns.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(AT_ONCE)):
        began = clock()
        try:
            response = await _send(server, question, seconds)
        except dns.exception.Timeout:
            raise _FailedError("no answer", silent=True) from None
        except _FailedError:
            raise
        except Exception as problem:  # what dnspython makes of a stranger's bytes is its own affair
            raise _FailedError(_words(problem)) from None
        finally:
            budget.left -= clock() - began
    if response.rcode() not in (dns.rcode.NOERROR, dns.rcode.NXDOMAIN):
        raise _FailedError(dns.rcode.to_text(response.rcode()))
    if not (question.flags & dns.flags.RD or response.flags & dns.flags.AA):
        raise _FailedError("it does not answer for this zone")
    return response


async def _send(server: Server, question: _Message, seconds: float) -> _Message:
    address: dict[str, Any] = {"where": server.address, "port": server.port, "timeout": seconds}
    try:
        response = await dns.asyncquery.udp(question, **address, ignore_unexpected=True, raise_on_truncation=True)
    except dns.message.Truncated:
        try:
            response = await dns.asyncquery.tcp(question, **address)
        except (OSError, EOFError) as problem:
            raise _FailedError(f"{CUT_OFF}: {_words(problem)}") from None
    assert isinstance(response, _Message)
    return response


def _words(problem: Exception) -> str:
    return getattr(problem, "strerror", "") or str(problem) or type(problem).__name__


def _start(response: _Message) -> Any:
    """Return the SOA of the zone that the name asked for is in, or None."""
    name = response.question[0].name
    found = [
        rrset
        for rrset in (*response.answer, *response.authority)
        if rrset.rdtype == dns.rdatatype.SOA and name.is_subdomain(rrset.name)
    ]
    return max(found, key=lambda rrset: len(rrset.name), default=None)


def _read(kind: str, response: _Message) -> Answer[Any]:
    """Return a response as an answer; its TTL is the least of the whole chain. Raises DNSException."""
    start = _start(response) if kind == "SOA" else None
    if start is not None:
        return Answer(Outcome.FOUND, (_text(start.name),), start.ttl)
    chain = response.resolve_chaining()
    ttl = chain.minimum_ttl if chain.minimum_ttl < NO_TTL else None
    if chain.answer is not None and kind in READ:
        strings = tuple(rdata.strings for rdata in chain.answer) if kind == "TXT" else ()
        return Answer(Outcome.FOUND, tuple(READ[kind](rdata) for rdata in chain.answer), ttl, strings=strings)
    return Answer(Outcome.NXDOMAIN if response.rcode() == dns.rcode.NXDOMAIN else Outcome.NODATA, (), ttl)


def _failed(problem: object) -> Answer[Any]:
    return Answer(Outcome.FAILED, reason=f"{problem}"[:300])
