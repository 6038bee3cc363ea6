"""How fast SPF is judged, beside pyspf, in one run: ratios of rounds in which both take turns.

    python3 -m tests.bench.spf [ROUNDS]

Prints markdown. Needs pip's index once, for pyspf, and loopback alone after that.
"""

import asyncio
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from ipaddress import ip_address
from statistics import median
from typing import Any

from agent.spf.evaluate import Query, check_host
from agent.spf.resolver import Recursive
from agent.spf.servers import Server
from tests.spf import suite
from tests.spf.oracle import Oracle
from tests.spf.server import Behaviour, serve
from tests.spf.zone import Memory, Zone

ROUNDS = 7
DELAY = 0.02
DOMAINS = 100
HERD = 2000
QUERY = Query(ip_address("192.0.2.1"), "", "mail.example.org", "rx.example.net")
BOUNDS = {"in process": 1.5, "over DNS": 0.1}


def domains(count: int) -> tuple[Zone, list[Query]]:
    """Return domains that each cost five questions, of which two are of an include that they share."""
    names: dict[str, dict[str, tuple[Any, ...]]] = {
        "_spf.provider.net": {"TXT": ("v=spf1 a:out.provider.net -all",)},
        "out.provider.net": {"A": (ip_address("198.51.100.9"),)},
    }
    for number in range(count):
        name = f"d{number}.org"
        names[name] = {"TXT": ("v=spf1 include:_spf.provider.net mx -all",), "MX": ((10, f"mx.{name}"),)}
        names[f"mx.{name}"] = {"A": (QUERY.ip,)}
    return Zone(names), [replace(QUERY, mail_from=f"me@d{number}.org") for number in range(count)]


def in_process(rounds: int) -> list[tuple[float, float]]:
    """Judge all cases of both suites without a network; in seconds of the processor."""
    cases = [case for name in suite.SUITES for case in suite.cases(name)]
    oracles = {id(case.zone): Oracle(case.zone, corrected=False) for case in cases}

    def ours() -> None:
        for case in cases:
            try:
                check_host(case.query, Memory(case.zone)).send(None)
            except StopIteration:
                continue

    def theirs() -> None:
        for case in cases:
            oracles[id(case.zone)].judge(case.query)

    return _take_turns(rounds, ours, theirs, time.process_time)


def over_dns(rounds: int, server: Server, queries: Sequence[Query]) -> list[tuple[float, float]]:
    """Judge 100 domains at once, and with pyspf one by one, as it knows no other way."""
    spf = suite.pyspf()
    resolver = spf.dns.resolver.Resolver(configure=False)
    resolver.nameservers, resolver.port = [server.address], server.port
    spf.dns.resolver.default_resolver = resolver

    def theirs() -> None:
        spf.DNSLookup = spf.DNSLookup_dnspython
        for query in queries:
            spf.query(str(query.ip), query.mail_from, query.helo, receiver=query.receiver).check()

    return _take_turns(rounds, lambda: asyncio.run(_judge(server, queries)), theirs)


async def _judge(server: Server, queries: Sequence[Query]) -> list[str]:
    view = Recursive([server])
    found = await asyncio.gather(*(check_host(query, view.within()) for query in queries))
    return [one.result.value for one in found]


def _take_turns(
    rounds: int,
    ours: Callable[[], object],
    theirs: Callable[[], object],
    clock: Callable[[], float] = time.perf_counter,
) -> list[tuple[float, float]]:
    ours()
    theirs()
    return [(_time(ours, clock), _time(theirs, clock)) for _ in range(rounds)]


def _time(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    began = clock()
    work()
    return clock() - began


def _row(words: str, pairs: list[tuple[float, float]], bound: float) -> str:
    ratios = sorted(ours / theirs for ours, theirs in pairs)
    seconds = [median(column) for column in zip(*pairs, strict=True)]
    spread = f"{median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
    held = "yes" if median(ratios) <= bound else "no"
    return f"| {words} | {spread} | {bound:g} | {held} | {seconds[0]:.3f} s | {seconds[1]:.3f} s |"


def main() -> int:
    """Measure and print; the exit status says whether the bounds hold."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else ROUNDS
    print(f"{rounds} rounds; {os.cpu_count()} cores; load average before: {os.getloadavg()[0]:.2f}\n")
    print("| what | ours : pyspf, median (least to greatest) | bound | holds | ours | pyspf |")
    print("| --- | --- | --- | --- | --- | --- |")
    rows = [_row("394 cases of both suites, in process", in_process(rounds), BOUNDS["in process"])]
    zone, queries = domains(DOMAINS)
    with serve(zone, Behaviour(delay=DELAY)) as running:
        words = f"{DOMAINS} domains over DNS that takes {DELAY * 1000:g} ms"
        rows.append(_row(words, over_dns(rounds, running.server, queries), BOUNDS["over DNS"]))
    print("\n".join(rows))
    zone, queries = domains(HERD)
    with serve(zone, Behaviour(delay=DELAY)) as running:
        took = _time(lambda: asyncio.run(_judge(running.server, queries)))
        print(
            f"\n{HERD} domains in one run: {took:.2f} s, {len(running.asked)} questions, {running.most} at once at most."
        )
    return int(any("| no |" in row for row in rows))


if __name__ == "__main__":
    sys.exit(main())
