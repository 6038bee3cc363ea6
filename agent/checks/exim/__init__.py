"""The check `exim`: does exim still know its own names, and is what its files say what it does?

Asks exim itself, as exim's user, in a worker (DESIGN rules 5 and 9); it changes nothing. The judgement is in
`faults`; the repair, which the daemon never does, in `agent.repair`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from agent.checks.exim.facts import Facts, Named
from agent.checks.exim.faults import judge
from agent.checks.exim.names import names_in_hosts
from agent.host.mail.exim import Ask, Exim, ask_exim, generate_exim, read_exim
from agent.host.mail.exim_config import read_ignored, read_places, read_text
from agent.host.mail.exim_interfaces import is_bindable, read_lost
from agent.host.mail.exim_mainlog import Observed, read_observed
from agent.host.mail.exim_pending import Generate, Pending, read_pending
from agent.host.mail.exim_routes import Route, Verdict, read_route
from agent.host.network.hostname import ask_full_name, read_host_name
from agent.model.errors import AgentError
from agent.model.facts import Host
from agent.model.findings import CheckResult, Request
from agent.model.text import printable

OBSERVED = timedelta(days=7)
"""How far back the mainlog is looked at."""
AGAIN = timedelta(minutes=15)
"""When a name of which exim could not say where its mail goes is asked about again."""
ROLES = ("qualify_domain", "primary_hostname", "hostname -f")
NEVER_LOCAL = ("none", "")
"""Configuration types with which no name can be local, or of which it is not known what they mean."""


@dataclass(frozen=True, slots=True)
class Tools:
    """How the machine is asked; tests ask recordings."""

    ask: Ask = ask_exim
    generate: Generate = generate_exim
    full_name: Callable[[], str] = ask_full_name
    bindable: Callable[[str], bool] = is_bindable


MACHINE = Tools()
"""They ask the machine itself, whatever root is looked at."""


def run(host: Host, request: Request, tools: Tools = MACHINE) -> CheckResult:
    """Return what is wrong with exim's view of itself; the detail has that view.

    Raises AgentError where exim is installed and cannot be asked.
    """
    if host.root != "/" and tools is MACHINE:
        return CheckResult(request.check, (), {"installed": None, "foreign": "exim is only asked where it runs"})
    exim = read_exim(host, tools.ask)
    if exim is None:
        return CheckResult(request.check, (), {"installed": False})
    facts, unseen = _look(host, exim, tools)
    sent = read_observed(host, request.now - OBSERVED, [item.name for item in exim.transports])
    unknown = [named.route for named in facts.names if named.route.verdict is Verdict.UNKNOWN]
    unseen += [f"whether exim keeps mail for {printable(route.name)}: {route.words}" for route in unknown if route.name]
    again = request.now + AGAIN if unknown else None
    return CheckResult(request.check, judge(facts), _detail(facts) | _sent(sent), tuple(unseen), again)


def _look(host: Host, exim: Exim, tools: Tools) -> tuple[Facts, list[str]]:
    pending, unseen = _pending(host, exim, tools)
    if exim.complaint:
        return Facts(exim, pending=pending), unseen
    name = tools.full_name()
    lost = read_lost(exim.transports, tools.bindable)
    debian = exim.kind != "custom"
    facts = Facts(
        exim=exim,
        full_name=name,
        names=_names(exim, name, tools) if exim.kind not in NEVER_LOCAL else (),
        pending=pending,
        ignored=read_ignored(host, bool(exim.choices and exim.choices.split)) if debian else (),
        lost=lost,
        places={item.address: read_places(host, item.address) for item in lost},
        mailname=_first_word(read_text(host, "/etc/mailname")).lower(),
        host_name=read_host_name(host),
        listed=names_in_hosts(read_text(host, "/etc/hosts") or ""),
    )
    return facts, unseen


def _first_word(text: str | None) -> str:
    return next(iter((text or "").split()), "")


def _pending(host: Host, exim: Exim, tools: Tools) -> tuple[Pending | None, list[str]]:
    """What would be generated matters only where exim reads that."""
    if exim.choices is None or exim.kind == "custom":
        return None, []
    try:
        return read_pending(host, tools.generate), []
    except AgentError as problem:
        return None, [problem.message]


def _names(exim: Exim, own: str, tools: Tools) -> tuple[Named, ...]:
    """The same name in two roles is asked about once."""
    roles: dict[str, list[str]] = {}
    for role, name in zip(ROLES, (exim.qualify_domain, exim.primary_hostname, own), strict=True):
        if name:
            roles.setdefault(name, []).append(role)
    routes = [(tuple(found), read_route(exim, name, tools.ask)) for name, found in roles.items()]
    return tuple(Named(found, route, _leads_back(route, tools.bindable)) for found, route in routes)


def _leads_back(route: Route, bindable: Callable[[str], bool]) -> bool:
    return route.verdict is Verdict.REMOTE and any(bindable(address) for _, address in route.hosts)


def _detail(facts: Facts) -> dict[str, Any]:
    """Exim's view of itself, every foreign word printable."""
    exim = facts.exim
    return {
        "installed": True,
        "kind": exim.kind,
        "config_file": printable(exim.config_file),
        "full_name": printable(facts.full_name),
        "helo": printable(exim.helo),
        "local_domains": printable(exim.local_domains),
        "disable_ipv6": exim.disable_ipv6,
        "smarthosts": _printable(exim.smarthosts),
        "hubbed": [f"{printable(domain)}: {printable(hosts)}" for domain, hosts in exim.hubbed],
        "envelope_domains": _printable(exim.envelope_domains),
        "generated": None if facts.pending is None else not facts.pending.differs,
        "names": [_name(named) for named in facts.names],
        "transports": [
            {
                "name": printable(item.name),
                "interface": printable(item.interface),
                "helo_data": printable(item.helo_data),
                "return_path": printable(item.return_path),
            }
            for item in exim.transports
        ],
    }


def _sent(observed: Observed) -> dict[str, Any]:
    """Its words are plain host names and addresses."""
    servers = [f"{name} [{address}]" for name, address in observed.servers]
    return {"sent_as": dict(observed.domains), "servers": servers}


def _name(named: Named) -> dict[str, Any]:
    route = named.route
    return {
        "name": printable(route.name),
        "roles": list(named.roles),
        "verdict": route.verdict.value,
        "words": route.words,
        "hosts": [f"{name} [{address}]" for name, address in route.hosts],
    }


def _printable(words: Sequence[str]) -> list[str]:
    return [printable(word) for word in words]
