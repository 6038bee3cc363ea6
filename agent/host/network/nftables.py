"""What a set of nftables rules does to the source address of one connection.

Only what certainly happens is said. A match that is not understood may hold or not; where that decides, the answer is
a doubt. Pure: the rules come as the JSON of `nft -j list ruleset` (libnftables-json(5)).
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any

from agent.model.errors import AgentError, Kind
from agent.model.text import printable

DEEPEST = 16
"""Chains that call each other; nftables itself allows no more."""
NEUTRAL = frozenset({"counter", "log", "mangle"})
"""Statements that neither decide nor rewrite an address."""
OTHER_TRANSPORTS = frozenset({"udp", "udplite", "icmp", "icmpv6", "sctp", "dccp"})
Chain = tuple[str, str, str]
"""Family, table and name."""
Named = IPv4Address | IPv6Address | int | str
"""What a match compares."""


@dataclass(frozen=True, slots=True)
class Flow:
    """A TCP connection to `port`. choices: the addresses of its family on the interface that it leaves by."""

    source: str
    destination: str
    interface: str
    uid: int | None
    choices: tuple[str, ...] = ()
    port: int = 25

    @property
    def family(self) -> str:
        return f"ipv{ip_address(self.source).version}"


@dataclass(frozen=True, slots=True)
class Rewrite:
    """address: what the source becomes, "" where it stays; doubt: why that is not certain, "" where it is."""

    address: str = ""
    doubt: str = ""


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The chains that may rewrite a source, in the order in which they are asked, and the rules of all chains.

    reroutes: some chain may send a packet out by another interface than the one that was chosen at first.
    """

    hooked: tuple[Chain, ...] = ()
    rules: Mapping[Chain, list[list[dict[str, Any]]]] = field(default_factory=dict)
    reroutes: bool = False


@dataclass(frozen=True, slots=True)
class _End:
    """How a walk through a chain ended. stopped: no later rule is asked, None: perhaps; then or not, `rewrite`."""

    stopped: bool | None = False
    rewrite: Rewrite | None = None


def parse_rules(text: str) -> Ruleset:
    """Return the rules in what nft printed. Raises AgentError(PROTOCOL)."""
    rules: dict[Chain, list[list[dict[str, Any]]]] = {}
    hooked: list[tuple[int, Chain]] = []
    reroutes = False
    try:
        for kind, body in (item for entry in json.loads(text)["nftables"] for item in entry.items()):
            if kind == "rule":
                rules.setdefault((body["family"], body["table"], body["chain"]), []).append(body["expr"])
            if kind == "chain" and (body.get("type"), body.get("hook")) == ("nat", "postrouting"):
                hooked.append((int(body["prio"]), (body["family"], body["table"], body["name"])))
            reroutes |= kind == "chain" and body.get("type") == "route"
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as problem:
        raise AgentError(Kind.PROTOCOL, f"`nft -j list ruleset` printed something else: {problem}") from problem
    return Ruleset(tuple(chain for _, chain in sorted(hooked)), rules, reroutes)


def judge_rules(ruleset: Ruleset, flow: Flow) -> Rewrite:
    """Return what the rules do to the source of `flow`."""
    flow = replace(flow, interface="", choices=()) if ruleset.reroutes else flow
    for chain in ruleset.hooked:
        if chain[0] in ("inet", "ip" if flow.family == "ipv4" else "ip6"):
            end = _walk(ruleset, chain, flow, 0)
            if end.rewrite:
                return end.rewrite
    return Rewrite()


def _walk(ruleset: Ruleset, chain: Chain, flow: Flow, depth: int) -> _End:
    """Ask the rules of one chain, one after the other."""
    perhaps = False
    for statements in ruleset.rules.get(chain, ()):
        holds, verdict, body = _read(statements, flow)
        if not verdict:
            continue
        sure = holds is True and not perhaps
        end = _obey(ruleset, chain, verdict, body, flow, depth)
        if end.rewrite:
            return end if sure else _End(rewrite=_doubt(chain))
        leaves = end.stopped or verdict in ("return", "goto")
        if leaves and holds is True:
            return _End(None if perhaps else end.stopped)
        perhaps = perhaps or leaves or end.stopped is None
    return _End(None if perhaps else False)


def _obey(ruleset: Ruleset, chain: Chain, verdict: str, body: Any, flow: Flow, depth: int) -> _End:
    """Return what a rule does if it holds."""
    match verdict:
        case "accept" | "drop":
            return _End(stopped=True)
        case "return":
            return _End()
        case "jump" | "goto" if depth < DEEPEST and isinstance(body, dict):
            return _walk(ruleset, (*chain[:2], str(body.get("target"))), flow, depth + 1)
        case "masquerade" if len(flow.choices) == 1:
            return _End(rewrite=Rewrite(flow.choices[0]))
        case "snat" if isinstance(body, dict) and isinstance(body.get("addr", ""), str):
            return _End(rewrite=Rewrite(body.get("addr", "")))
    return _End(rewrite=_doubt(chain))


def _doubt(chain: Chain) -> Rewrite:
    family, table, name = (printable(str(part)) for part in chain)
    return Rewrite(doubt=f"the chain {name} of nftables' table {family} {table} may rewrite it")


def _read(statements: list[dict[str, Any]], flow: Flow) -> tuple[bool | None, str, Any]:
    """Return whether a rule holds for `flow` (None: perhaps), what it then does ("": nothing), and with what."""
    holds: bool | None = True
    for kind, body in (item for statement in statements for item in statement.items()):
        if kind == "match":
            answer = _holds(body, flow)
            if answer is False:
                return False, "", None
            holds = holds if answer else None
        elif kind == "snat" and isinstance(body, dict) and body.get("family", _word(flow)) != _word(flow):
            return False, "", None
        elif kind in ("limit", "quota"):
            holds = None
        elif kind not in NEUTRAL:
            return holds, kind, body
    return holds, "", None


def _word(flow: Flow) -> str:
    return "ip" if flow.family == "ipv4" else "ip6"


def _holds(match: dict[str, Any], flow: Flow) -> bool | None:
    """Return whether a match is true of `flow`; None: it is not understood."""
    try:
        left, right, operator = match["left"], match["right"], match["op"]
        if _is_of_another_protocol(left, flow):
            return False
        value = _value(left, flow)
        found = None if value is None or operator not in ("==", "!=") else _is_among(value, right)
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return found if found is None or operator == "==" else not found


def _is_of_another_protocol(left: dict[str, Any], flow: Flow) -> bool:
    """A look into a header of IPv6 or UDP implies that there is one, whatever it is compared with."""
    protocol = left.get("payload", {}).get("protocol")
    return protocol in OTHER_TRANSPORTS or protocol in {"ip", "ip6"} - {_word(flow)}


def _value(left: dict[str, Any], flow: Flow) -> Named | None:
    """Return what `flow` has there; None where that is not known."""
    for kind, about in left.items():
        match kind, about.get("protocol"), about.get("field", about.get("key")):
            case "payload", "ip" | "ip6", "saddr":
                return ip_address(flow.source)
            case "payload", "ip" | "ip6", "daddr":
                return ip_address(flow.destination)
            case "payload", "tcp" | "th", "dport":
                return flow.port
            case ("payload", "ip", "protocol") | ("payload", "ip6", "nexthdr") | ("meta", None, "l4proto"):
                return "tcp"
            case "meta", None, "oifname" | "oif":
                return flow.interface or None
            case "meta", None, "skuid":
                return flow.uid
            case "meta", None, "nfproto":
                return flow.family
    return None


def _is_among(value: Named, right: Any) -> bool | None:
    """Return whether `value` is, or is in, what a match names on its right side; None: not understood."""
    match right:
        case {"set": [_, *_] as members}:
            return _any(_is_among(value, member) for member in members)
        case {"elem": {"val": inner}}:
            return _is_among(value, inner)
        case {"prefix": {"addr": address, "len": length}}:
            return ip_address(str(value)) in ip_network(f"{address}/{length}")
        case {"range": [low, high]} if isinstance(value, int):
            return int(low) <= value <= int(high)
        case {"range": [low, high]}:
            number = int(ip_address(str(value)))
            return int(ip_address(low)) <= number <= int(ip_address(high))
    return _equals(value, right)


def _equals(value: Named, right: Any) -> bool | None:
    if isinstance(value, int):
        return right == value if type(right) is int else None
    if not isinstance(right, str) or right.startswith("@"):
        return None
    if isinstance(value, str):
        return value.startswith(right[:-1]) if right.endswith("*") else value == right
    return ip_address(right) == value


def _any(answers: Iterator[bool | None]) -> bool | None:
    given = list(answers)
    return True if True in given else (None if None in given else False)
