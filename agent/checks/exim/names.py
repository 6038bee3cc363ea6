"""Names in the judgement of exim: are the host's own taken for somebody else's, and would others accept its HELO? Pure.

The first is the user's own case: mail for the host's own name, lost because `dc_other_hostnames` did not have it.
"""

import re
from collections.abc import Iterator, Sequence

from agent.checks.exim.facts import REGENERATE, RELOAD, Facts, Named, fault
from agent.host.mail.exim import Exim
from agent.host.mail.exim_config import CHOICES, items_of, with_hostnames
from agent.host.mail.exim_routes import Verdict
from agent.model.findings import Finding, Severity

LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
FULL_NAME = re.compile(rf"{LABEL}(?:\.{LABEL})+")
NOBODYS = (".localdomain", ".local", ".invalid", ".test")
"""What no receiver can look up."""
LOOPBACK = ("localhost", "localhost.localdomain")
"""What a host is called that has its own name on the line of the loopback address, behind that one's."""
SENDING = ("internet", "smarthost", "satellite", "custom")


def is_full_name(name: str) -> bool:
    """Return whether a name may stand in a HELO: a host name with a domain that the world could look up."""
    return bool(FULL_NAME.fullmatch(name)) and not name.lower().endswith(NOBODYS)


def own_names(facts: Facts) -> Iterator[Finding]:
    """Yield the names of this host that exim does not keep mail for."""
    away = [named for named in facts.names if named.route.verdict in (Verdict.REMOTE, Verdict.REFUSED)]
    meant = [named for named in away if _may_be_meant(facts.exim, named)]
    faulty = [named for named in away if named not in meant]
    if faulty:
        yield _not_local(facts, "own-name", Severity.CRITICAL, faulty)
    if meant:
        yield _not_local(facts, "qualify-domain", Severity.WARNING, meant)


def _may_be_meant(exim: Exim, named: Named) -> bool:
    """A domain alone, not the host, may well have its mailboxes on the smarthost or at its MX."""
    if named.roles != ("qualify_domain",) or named.route.verdict is not Verdict.REMOTE or named.leads_back:
        return False
    return exim.kind in ("smarthost", "satellite") or named.route.mx


def _not_local(facts: Facts, subject: str, severity: Severity, away: Sequence[Named]) -> Finding:
    names = [named.route.name.lower() for named in away]
    first = away[0]
    summary = f"exim takes {first.route.name} ({', '.join(first.roles)}) for a remote domain: {_fate(first)}"
    also = f"; so too {', '.join(names[1:])}" if names[1:] else ""
    choices = facts.exim.choices
    current = choices.hostnames if choices and choices.hostnames is not None else ""
    missing = [name for name in names if name not in items_of(current.lower().replace(";", ":"))]
    wanted = with_hostnames(current, missing)
    stale = bool(facts.pending and facts.pending.differs and not facts.pending.complaint)
    plain = facts.exim.kind != "custom" and choices is not None and choices.hostnames is not None
    return fault(
        subject,
        severity,
        f"{summary}{also}",
        _cure(facts.exim, names, missing, wanted, plain=plain, stale=stale),
        kind="own-name",
        names=names,
        files=[CHOICES if plain else facts.exim.config_file],
        current=current,
        wanted=wanted,
        repairable=plain and (bool(missing) or stale),
    )


def _fate(named: Named) -> str:
    route = named.route
    if route.verdict is Verdict.REFUSED:
        return f"its mail is lost ({route.words})" if route.words else "its mail is lost"
    goal = f"{route.hosts[0][0]} [{route.hosts[0][1]}]" if route.hosts else route.transport
    return f"its mail comes back to this host as {goal}" if named.leads_back else f"its mail leaves for {goal}"


def _cure(exim: Exim, names: Sequence[str], missing: Sequence[str], wanted: str, *, plain: bool, stale: bool) -> str:
    if not plain:
        return f"add {', '.join(names)} to local_domains in {exim.config_file}, then: {RELOAD}"
    if missing:
        return f"write dc_other_hostnames='{wanted}' into {CHOICES}, then: {REGENERATE}"
    return REGENERATE if stale else "see what overrules dc_other_hostnames: grep -rn LOCAL_DOMAINS /etc/exim4"


def helo(facts: Facts) -> Iterator[Finding]:
    """Yield a HELO that is no full host name, where this host sends mail."""
    exim = facts.exim
    if not exim.helo or exim.kind not in SENDING or is_full_name(exim.helo):
        return
    own = exim.helo == exim.primary_hostname
    lent = own and exim.helo.lower() in LOOPBACK
    short = facts.host_name.partition(".")[0] if lent else exim.primary_hostname
    known = next(
        (name for name in (facts.host_name, facts.mailname, *facts.listed) if _is_full_name_of(short, name)), ""
    )
    yield fault(
        "helo",
        Severity.WARNING,
        f"exim says HELO {exim.helo}, which is no full host name: some receivers refuse that, and no SPF can cover it",
        _by_hosts(short, known, lent=lent)
        if own
        else f"set REMOTE_SMTP_HELO_DATA to the full name of this host, then: {REGENERATE}",
        names=[exim.helo],
        files=["/etc/hosts"] if own else [exim.config_file],
        current=exim.helo,
        wanted=known,
        repairable=own and not lent and bool(known),
    )


def _is_full_name_of(short: str, name: str) -> bool:
    return is_full_name(name) and name.lower().startswith(f"{short.lower()}.")


def _by_hosts(short: str, known: str, *, lent: bool) -> str:
    """Return what to write into /etc/hosts. lent: its first line with the host's name gives that of the loopback."""
    if lent and short.lower() in ("", *LOOPBACK):
        line = "127.0.1.1 NAME.DOMAIN NAME"
        return f"name this host (hostnamectl set-hostname NAME), write `{line}` into /etc/hosts, then: {RELOAD}"
    above = " above the line of localhost" if lent else ""
    return f"write `127.0.1.1 {known or f'{short}.DOMAIN'} {short}` into /etc/hosts{above}, then: {RELOAD}"


def names_in_hosts(text: str) -> tuple[str, ...]:
    """Return the names that /etc/hosts has, in its order."""
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    return tuple(name for words in lines for name in words[1:])
