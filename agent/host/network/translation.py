"""Whether this host itself rewrites the source address of its mail (SNAT, masquerade), and to what.

Source selection and exim's log show the inside address; the peer sees the rewritten one. Only who has CAP_NET_ADMIN
may read the rules, so `nft` is asked by somebody who has that and nothing else. What cannot be read, or is not
understood, is `unknown`, never a guess. Not seen: translators outside of netfilter (tc, XDP, IPVS).
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import ip_address

from agent.host.kernel import read_running
from agent.host.network.nftables import Flow, judge_rules, parse_rules
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host
from agent.model.text import printable
from agent.spawn import last_words, run
from agent.spawn.transient import run_as

QUESTION = ("nft", "-j", "-t", "list", "ruleset")
"""-t: without the contents of named sets, which may be long."""
RIGHTS = {"AmbientCapabilities": "CAP_NET_ADMIN", "CapabilityBoundingSet": "CAP_NET_ADMIN"}
LIMIT = 10.0
MOST_BYTES = 4 << 20
MOST_OBSERVED = 8
LEGACY = ("ip_tables_names", "ip6_tables_names")
"""The tables that iptables-legacy has, which nft does not know of."""
CONNECTION = re.compile(rb" src=(\S+) dst=\S+ sport=\d+ dport=(\d+) .*?src=\S+ dst=(\S+) ")
"""A row of nf_conntrack: where it comes from, its port, and of its second half, whom the peer answers."""


class Verdict(StrEnum):
    """`unchanged`: the peer sees the source. `rewritten`: it sees another address."""

    UNCHANGED = "unchanged"
    REWRITTEN = "rewritten"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Translation:
    """What becomes of a source on its way out. address: what it is rewritten to; reason: why that is not known.

    observed: what the last connections from this source to that port left as, where the verdict is unknown. They may
    be older than the rules of now: evidence, and no answer.
    """

    verdict: Verdict
    address: str = ""
    reason: str = ""
    observed: tuple[str, ...] = ()


def read_rules() -> str:
    """Return all rules, as nft prints them. Raises AgentError where nft is missing or nobody may ask it."""
    done = run(QUESTION, timeout=LIMIT)
    if done.status != 0 and os.geteuid() == 0:
        done = run_as("nobody", QUESTION, timeout=LIMIT, properties=RIGHTS)
    if done.status != 0:
        raise AgentError(Kind.DENIED, f"the rules of nftables cannot be read: {last_words(done)}")
    return done.stdout


def read_translation(host: Host, flow: Flow, rules: Callable[[], str] = read_rules) -> Translation:
    """Return what becomes of the source of `flow`."""
    if has_no_translator(host):
        return Translation(Verdict.UNCHANGED)
    try:
        rewrite = judge_rules(parse_rules(rules()), flow)
    except AgentError as problem:
        return _unknown(host, flow, problem.message)
    reason = rewrite.doubt or _legacy_doubt(host)
    if reason:
        return _unknown(host, flow, reason)
    if rewrite.address in ("", flow.source):
        return Translation(Verdict.UNCHANGED)
    return Translation(Verdict.REWRITTEN, rewrite.address)


def has_no_translator(host: Host) -> bool:
    """Return whether this kernel certainly translates nothing: its nf_nat is a module, and not loaded."""
    builtin = _read(host.under(f"/lib/modules/{read_running(host).release}/modules.builtin"))
    loaded = _read(f"{host.proc}/modules")
    if not builtin or not loaded:
        return False
    return b"/nf_nat.ko" not in builtin and not re.search(rb"^nf_nat ", loaded, re.MULTILINE)


def _legacy_doubt(host: Host) -> str:
    """Return why a table of iptables-legacy may rewrite a source."""
    for name in LEGACY:
        path = f"{host.proc}/net/{name}"
        if not os.path.exists(path):
            continue
        tables = _read(path)
        if tables is None:
            return f"{path} may not be read"
        if b"nat" in tables.split():
            return "iptables-legacy has a table nat"
    return ""


def _unknown(host: Host, flow: Flow, reason: str) -> Translation:
    return Translation(Verdict.UNKNOWN, "", reason, read_observed(host, flow))


def read_observed(host: Host, flow: Flow) -> tuple[str, ...]:
    """Return what connections like `flow` left as, as far as the kernel still remembers and tells."""
    rows = (_read(f"{host.proc}/net/nf_conntrack") or b"").splitlines()
    found = (CONNECTION.search(row) for row in rows)
    like = (match for match in found if match and int(match[2]) == flow.port and _plain(match[1]) == flow.source)
    return tuple(dict.fromkeys(_plain(match[3]) for match in like))[:MOST_OBSERVED]


def _plain(address: bytes) -> str:
    """The kernel writes IPv6 addresses here in full."""
    try:
        return str(ip_address(os.fsdecode(address)))
    except ValueError:
        return printable(os.fsdecode(address))


def _read(path: str) -> bytes | None:
    """Return the beginning of a file of the kernel, which gives it in pieces; None where it may not be read."""
    try:
        with open(path, "rb") as file:
            return file.read(MOST_BYTES)
    except OSError:
        return None
