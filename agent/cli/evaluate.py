"""`agentctl spf evaluate`: check_host of RFC 7208 for any address, sender and HELO, with every step that it took.

With `--record` a record is judged before it is published, and what is wrong in its text is pointed at.
"""

import asyncio
import time
from argparse import Namespace
from collections.abc import Iterator
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

from agent.checks.spf.wording import remark_row
from agent.cli.blocks import Block, Line
from agent.cli.output import emit
from agent.model.errors import AgentError, Exit, Kind
from agent.model.text import printable
from agent.spf.answers import Answer
from agent.spf.evaluate import Lookup, Query, Resolver, Step, check_host
from agent.spf.lint import lint
from agent.spf.record import Result, parse
from agent.spf.resolver import SECONDS, Recursive
from agent.spf.servers import parse_server
from agent.spf.session import Budget, Session
from agent.spf.trace import MOST_LOOKUPS, MOST_VOIDS

TONES = {"pass": "fresh", "fail": "bad", "softfail": "warning", "permerror": "bad", "temperror": "unknown"}
SHOWN = 8
"""Answers of one look-up that are shown."""
WIDTH = 72
"""Columns of a record that is pointed into."""


def spf_evaluate(options: Namespace) -> int:
    """Print the verdict on one client and the way to it; exit 0 pass, 1 any other, 2 usage, 3 temperror.

    JSON: {"v": 1, "result", "explanation", "matched": {"domain", "term", "start", "end"} or null, "problem":
    {"message", "domain", "start", "end", "record", "hint"} or null, "ttl": seconds or null, "lookups", "voids",
    "query": {"ip", "mail_from", "helo", "record"}, "trace": [{"depth", "domain", "start", "end", "text", "verdict",
    "lookups": [{"kind", "name", "outcome", "data", "ttl", "reason"}]}], "remarks": [{"code", "severity", "message",
    "advice", "start", "end"}], of `record` alone}. All foreign text is printable; places are those in the text as it
    was given.
    """
    data = asyncio.run(evaluate(query_of(options), resolver_of(options.nameserver)))
    emit(options, data, screen(data))
    if data["result"] == Result.TEMPERROR:
        return Exit.UNCHECKED
    return Exit.CLEAN if data["result"] == Result.PASS else Exit.FINDINGS


def resolver_of(nameserver: str | None) -> Resolver:
    """Return who asks `nameserver`, or the system's. These are looked for when first asked: a record may need none.

    Raises AgentError(USAGE) where it is no address; its methods do where the system has no name server.
    """

    @cache
    def recursive() -> Recursive:
        try:
            return Recursive([parse_server(nameserver)] if nameserver else ())
        except ValueError as problem:
            raise AgentError(Kind.USAGE, printable(str(problem)), "name one with --nameserver ADDR[#PORT]") from problem

    async def ask(kind: str, name: str, budget: Budget) -> Answer[Any]:
        return await recursive().ask(kind, name, budget)

    if nameserver:
        recursive()
    return Session(ask, Budget(SECONDS))


def query_of(options: Namespace) -> Query:
    """Return what the command line asks. Raises AgentError(USAGE)."""
    try:
        ip: IPv4Address | IPv6Address = ip_address(options.ip)
    except ValueError as problem:
        raise AgentError(Kind.USAGE, f"{printable(options.ip)!r} is no IP address", "write --ip 192.0.2.1") from problem
    if not options.mail_from.strip("<>") and not options.helo:
        raise AgentError(Kind.USAGE, "without a sender the HELO name is judged, and there is none", "add --helo NAME")
    sender = options.mail_from.removeprefix("<").removesuffix(">")
    return Query(ip, sender, options.helo, now=int(time.time()), record=options.record)


async def evaluate(query: Query, resolver: Resolver) -> dict[str, Any]:
    """Return the evaluation as the JSON of `spf_evaluate`."""
    found = await check_host(query, resolver)
    remarks = () if query.record is None else lint(parse(query.record))
    matched, problem = found.matched, found.problem
    return {
        "v": 1,
        "result": found.result.value,
        "explanation": printable(found.explanation),
        "matched": matched and _place(matched.domain, matched.start, matched.end) | {"term": printable(matched.term)},
        "problem": problem
        and _place(problem.domain, problem.start, problem.end)
        | {"message": printable(problem.message), "record": printable(problem.record), "hint": printable(problem.hint)},
        "ttl": found.ttl,
        "lookups": found.lookups,
        "voids": found.voids,
        "query": {
            "ip": str(query.ip),
            "mail_from": printable(query.mail_from),
            "helo": printable(query.helo),
            "record": None if query.record is None else printable(query.record),
        },
        "trace": [_step(step) for step in found.trace],
        "remarks": [remark_row(remark) for remark in remarks],
    }


def _place(domain: str, start: int, end: int) -> dict[str, Any]:
    return {"domain": printable(domain), "start": start, "end": end}


def _step(step: Step) -> dict[str, Any]:
    return _place(step.domain, step.start, step.end) | {
        "depth": step.depth,
        "text": printable(step.text),
        "verdict": printable(step.verdict),
        "lookups": [_lookup(lookup) for lookup in step.lookups],
    }


def _lookup(lookup: Lookup) -> dict[str, Any]:
    answer = lookup.answer
    return {
        "kind": lookup.kind,
        "name": printable(lookup.name),
        "outcome": answer.outcome.value,
        "data": [printable(_text(item)) for item in answer.data],
        "ttl": answer.ttl,
        "reason": printable(answer.reason),
    }


def _text(item: object) -> str:
    return " ".join(map(str, item)) if isinstance(item, tuple) else str(item)


def screen(data: dict[str, Any]) -> list[Block]:
    """Return what `agentctl spf evaluate` says, from its JSON. Pure."""
    result, matched = data["result"], data["matched"]
    by = f", by `{matched['term']}` of {matched['domain']}" if matched else ""
    blocks: list[Block] = [Line(f"{result}{by}", TONES.get(result, "note"))]
    if data["problem"]:
        blocks += [Line(data["problem"]["message"]), *_pointed(data["problem"])]
    if data["explanation"]:
        blocks.append(Line(f"the domain says: {data['explanation']}"))
    for step in data["trace"]:
        blocks += _tree(step)
    limits = (
        f"{data['lookups']} of {MOST_LOOKUPS} terms that need DNS, {data['voids']} of {MOST_VOIDS} without an answer"
    )
    known = "" if data["ttl"] is None else f"; this may be kept for {data['ttl']} s"
    blocks.append(Line(f"{limits}{known}"))
    record = data["query"]["record"] or ""
    for remark in data["remarks"]:
        blocks.append(Line(f"{remark['severity']}: {remark['message']}", remark["severity"]))
        blocks += _pointed(remark | {"record": record})
        blocks += [Line(f"  {remark['advice']}")] if remark["advice"] else []
    return blocks


def _tree(step: dict[str, Any]) -> Iterator[Block]:
    margin = "  " * (step["depth"] + 1)
    what = f"{step['domain']}: {step['text'] or 'no record'}" if _is_record(step) else step["text"]
    yield Line(f"{margin}{step['verdict']:<9} {what}")
    for lookup in step["lookups"]:
        if _is_record(step) and lookup["outcome"] == "found":
            continue
        data = lookup["data"]
        more = f" and {len(data) - SHOWN} more" if len(data) > SHOWN else ""
        said = ", ".join(data[:SHOWN]) + more or lookup["reason"] or {"nxdomain": "no such name"}.get(lookup["outcome"])
        yield Line(f"{margin}    {lookup['kind']} {lookup['name']}: {said or 'nothing there'}")


def _is_record(step: dict[str, Any]) -> bool:
    """A record begins at its beginning; no term does."""
    return bool(step["start"] == 0)


def _pointed(place: dict[str, Any]) -> Iterator[Block]:
    """Point at a place in a record, where there is one and the text is what it was before it was made printable."""
    text, start, end = place["record"], place["start"], place["end"]
    if not text or end <= start or "\\" in text:
        return
    first = max(start - WIDTH // 2, 0)
    shown = text[first : first + WIDTH]
    width = max(min(end - first, len(shown)) - (start - first), 1)
    yield Line(f"  {shown}")
    yield Line(f"  {' ' * (start - first)}{'^' * width}")
