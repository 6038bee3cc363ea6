"""Why a record and a host do not belong together: the remarks of `drift`, each with what to do next. Pure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from ipaddress import IPv6Address, ip_network

from agent.spf.costs import weigh
from agent.spf.lint import CRITICAL, ERROR, INFO, NEVER_A_SOURCE, SHOWN, UNKNOWN, WARNING, Remark, final_of, lint
from agent.spf.publication import on_breakage, on_helo, on_publication, shown_age, whole
from agent.spf.ranges import DOCUMENTATION, Address, covers, is_proxy, is_publishable, literal, twin_of
from agent.spf.reach import Hop, Reach
from agent.spf.record import Mechanism, Record, Result, text_of
from agent.spf.situation import HELO, Cell, Published, Sending
from agent.spf.terms import bare

MOST = 50
"""Nobody reads more remarks than these on one record, and a record of 64 KB could have thousands."""
ORDER = (CRITICAL, ERROR, WARNING, INFO, UNKNOWN)
NOT_A_PASS = (Result.FAIL, Result.SOFTFAIL, Result.NEUTRAL)
HOSTS = re.compile(r"\+?(?:a|mx)(?:[:/]|\Z)", re.IGNORECASE)
HELO_SEVERITY = {CRITICAL: ERROR}
"""A receiver that checks HELO goes on to MAIL FROM; bounces alone depend on it."""
NAMED = 3
"""Of the addresses of others so many are shown; the rest are counted."""
ONE_HOST = {4: 32, 6: 64}
"""The shortest prefix of each family that names one host and no network of several."""


@dataclass(frozen=True, slots=True)
class Case:
    """All that the remarks on one domain and identity are made from."""

    published: Published
    sending: Sending
    cells: tuple[Cell, ...]

    def missing(self, family: int) -> bool:
        """Return whether what sends over a family is known not to pass."""
        return any(cell.family == family and cell.verdict in (*NOT_A_PASS, Result.PERMERROR) for cell in self.cells)

    def severity_of(self, family: int) -> str:
        """Return how bad it is for what sends over a family that it does not pass; a warning where it does."""
        found = [cell.severity for cell in self.cells if cell.family == family and cell.severity in ORDER[:3]]
        return min(found, key=ORDER.index, default=WARNING) if self.missing(family) else WARNING

    @property
    def is_judged(self) -> bool:
        """Whether some address of ours got a verdict, and none met an error."""
        verdicts = {cell.verdict for cell in self.cells}
        return bool(verdicts & {Result.PASS, *NOT_A_PASS}) and Result.PERMERROR not in verdicts

    @property
    def all_pass(self) -> bool:
        """Whether what sends is known to pass, over every family that is used."""
        judged = [cell.verdict for cell in self.cells if cell.verdict not in ("not used", "not required")]
        return bool(judged) and all(verdict == Result.PASS for verdict in judged)


def remarks_on(published: Published, sending: Sending, cells: tuple[Cell, ...], now: datetime) -> tuple[Remark, ...]:
    """Return what there is to say of one domain and identity, worst first."""
    case = Case(published, sending, cells)
    if published.helo_fault:
        return (on_helo(published),)
    found = list(on_publication(published, cells, sending.lasting, now))
    if published.record:
        found += _on_text(case, published.record)
        found += weigh(published.reach, early=case.is_judged)
        found += _smarthost(case) if sending.smarthost else _drift(case, published.record)
    if not any(remark.severity == CRITICAL for remark in found):
        found += on_breakage(published, cells)
    if published.identity == HELO:
        found = [replace(remark, severity=HELO_SEVERITY.get(remark.severity, remark.severity)) for remark in found]
    return tuple(sorted(found, key=lambda remark: ORDER.index(remark.severity)))[:MOST]


def leads_elsewhere(reach: Reach, hop: Hop, sending: Sending) -> bool:
    """Return whether a term is an `a` that leads to web proxies alone, which send no mail.

    An `mx` may lead there too: that of a service that takes mail in.
    """
    networks = reach.networks_of(hop.start)
    if not networks or not HOSTS.match(hop.term) or hop.term.lower().lstrip("+").startswith("mx"):
        return False
    return all(is_proxy(network) and not sending.is_own(network) for network in networks)


def _on_text(case: Case, record: Record) -> Iterator[Remark]:
    """The remarks on the text, with the severities that they have on this host."""
    own = {
        term.start
        for term in record.terms
        if isinstance(term, Mechanism) and term.network and case.sending.is_own(term.network)
    }
    for remark in lint(record, case.published.strings):
        if remark.code == "link-local":
            yield _link_local(case, remark, record)
        elif remark.code not in NEVER_A_SOURCE:
            yield remark
        elif remark.code != DOCUMENTATION or remark.start not in own:
            yield replace(remark, severity=INFO if case.all_pass else remark.severity)


def _link_local(case: Case, remark: Remark, record: Record) -> Remark:
    """The record means an interface of this host: say which, and by what address the world knows it."""
    term = next(term for term in record.terms if term.start == remark.start)
    if not isinstance(term, Mechanism) or term.name != "ip6":
        return remark
    severity = CRITICAL if case.missing(6) else WARNING
    meant = IPv6Address(term.address)
    twin = twin_of(meant, case.sending.stable)
    if twin is None:
        return replace(remark, severity=severity)
    interface = next(held.interface for held in case.sending.held if held.address == twin)
    message = f"{remark.message}. Its interface id `{_interface_id(meant)}` is that of `{twin}` on {interface}"
    advice = f"publish `ip6:{twin}` in the place of `{text_of(record, term)}`"
    return replace(remark, severity=severity, message=message, advice=advice)


def _interface_id(address: IPv6Address) -> str:
    return ":".join(f"{int(group, 16):x}" for group in address.exploded.split(":")[4:])


def _drift(case: Case, record: Record) -> Iterator[Remark]:
    """What is ours and not in the record, and what is in it and not ours."""
    for cell in case.cells:
        if cell.verdict in NOT_A_PASS:
            yield _not_listed(case, cell, record)
    for hop in [cost.hop for cost in case.published.reach.costs]:
        yield from _elsewhere(case, hop)
    yield from _not_ours(case, record)


def _not_listed(case: Case, cell: Cell, record: Record) -> Remark:
    published = case.published
    verdict = next(
        item for item in published.verdicts if (item.address.version, item.result) == (cell.family, cell.verdict)
    )
    address = verdict.address
    source = next(source for source in case.sending.sources if address in source.seen)
    final = final_of(record)
    ending = f"denies it by `{verdict.term:.{SHOWN}}`" if verdict.term else "does not name it"
    if final and verdict.term == text_of(record, final):
        ending = f"ends in `{verdict.term}`"
    advice = f"add `{literal(ip_network(address))}`: the one address, for the network may have others in it"
    if source.temporary:
        advice = "do not publish this address, for it changes: let mail leave from a stable one first"
    if published.identity == HELO:
        message = (
            f"`{address}` says HELO `{published.domain}`, whose own record {ending}: bounces are judged by it alone"
        )
        advice += "" if source.temporary else _of_own_name(case, address)
        return whole("helo-not-authorised", cell.severity, message, advice)
    message = f"`{address}` sends for `{published.domain}`, but the record {ending}"
    usable = [network for network in published.reach.authorised(6) if is_publishable(network)]
    if cell.family == 6 and not usable and not published.reach.opaque:
        message = f"mail leaves over IPv6 from `{address}`, but the record of `{published.domain}` lists none"
        return whole("ipv6-not-listed", cell.severity, message, f"{advice}; or set `disable_ipv6 = true` in exim")
    if cell.verdict == Result.SOFTFAIL:
        message += ": such mail is taken for junk, and fails DMARC unless it passes DKIM"
    return whole("not-authorised", cell.severity, message, advice)


def _of_own_name(case: Case, address: Address) -> str:
    """Return what the A or AAAA record of the name is and should be, where the record relies on it; else nothing."""
    reach, kind = case.published.reach, "A" if address.version == 4 else "AAAA"
    hop = next((cost.hop for cost in reach.costs if bare(cost.hop.term) == "a"), None)
    networks = reach.networks_of(hop.start) if hop else None
    if networks is None:
        return ""
    found = ", ".join(str(item.network_address) for item in networks if item.version == address.version)
    state = f"leads to {found}" if found else "is missing"
    return f"; or let the {kind} record of {case.published.domain}, which {state}, lead to {address}"


def _elsewhere(case: Case, hop: Hop) -> Iterator[Remark]:
    """`a` and `mx` that lead to a proxy, or, where our own address is missing, just not here."""
    networks = case.published.reach.networks_of(hop.start) or ()
    own = any(case.sending.is_own(network) for network in networks)
    missing = any(case.missing(network.version) for network in networks)
    proxied = leads_elsewhere(case.published.reach, hop, case.sending)
    if not networks or own or not HOSTS.match(hop.term) or not (missing or proxied):
        return
    whose = "Cloudflare's, a web proxy" if proxied else "not this host"
    message = f"`{hop.term:.{SHOWN}}` now authorises `{networks[0]}` ({whose})"
    advice = "name the host's addresses with `ip4:` and `ip6:`, or use `a:` with a name that leads to this host itself"
    severities = [case.severity_of(network.version) for network in networks] + [ERROR] * proxied
    yield Remark("leads-elsewhere", min(severities, key=ORDER.index), hop.start, hop.end, message, advice)


def _not_ours(case: Case, record: Record) -> Iterator[Remark]:
    """Single addresses in the record that nobody here has: those that this host lost, and those of others."""
    final, sending = final_of(record), case.sending
    others: dict[int, list[Mechanism]] = {4: [], 6: []}
    for term in record.terms:
        if not isinstance(term, Mechanism) or not _is_foreign(term, sending) or (final and term.start > final.start):
            continue
        twin = twin_of(IPv6Address(term.address), sending.stable) if term.name == "ip6" else None
        was = any(covers(ip_network(term.address), address) for address in sending.former)
        if was or twin:
            yield _lost(case, term, text_of(record, term), was, twin)
        else:
            others[6 if term.name == "ip6" else 4].append(term)
    for family, terms in others.items():
        if terms:
            yield _of_others(case, family, terms, record)


def _is_foreign(term: Mechanism, sending: Sending) -> bool:
    network = term.network
    if network is None or term.qualifier != "+" or network.prefixlen < ONE_HOST[network.version]:
        return False
    return is_publishable(network) and not sending.is_own(network)


def _lost(case: Case, term: Mechanism, written: str, was: bool, twin: IPv6Address | None) -> Remark:
    """An address that this host had: as bad as what became of its mail, where it is all that the record has of it."""
    message = f"`{written}` is authorised, but " + ("this host no longer has it" if was else "no address of this host")
    advice = "take it out"
    if case.published.ttl:
        advice += f"; resolvers may know the record as it is for {shown_age(case.published.ttl)} more"
    if twin:
        advice = f"write `ip6:{twin}` in its place: the same interface's address of today"
    severity = case.severity_of(6 if term.name == "ip6" else 4)
    return Remark("not-ours", severity, term.start, term.end, message, advice)


def _of_others(case: Case, family: int, terms: list[Mechanism], record: Record) -> Remark:
    """Addresses of which nobody knows that this host ever had them: most likely those of other servers."""
    named = ", ".join(f"`{text_of(record, term)}`" for term in terms[:NAMED])
    named += f" and {len(terms) - NAMED} more" if len(terms) > NAMED else ""
    what, them, whose = "is authorised, and is no address of this host", "it", "another server of yours"
    if len(terms) > 1:
        what, them, whose = "are authorised, and are no addresses of this host", "them", "other servers of yours"
    before = ", or what this host had before" if case.missing(family) else ""
    advice = f"if so, list {them} in public_addresses; what nobody sends from any more need not be authorised"
    first = terms[0]
    return Remark("not-ours", INFO, first.start, first.end, f"{named} {what}: {whose}{before}?", advice)


def _smarthost(case: Case) -> Iterator[Remark]:
    reach = case.published.reach
    networks = (*reach.authorised(4), *reach.authorised(6))
    foreign = any(not case.sending.is_own(network) or network.num_addresses > 1 for network in networks)
    broken = case.published.record and case.published.record.faults
    if foreign or broken or reach.opaque or reach.troubles:
        return
    whom = "this host's own addresses alone" if networks else "nobody"
    message = f"mail goes through {case.sending.smarthost}, but the record authorises {whom}"
    yield whole("smarthost-not-listed", ERROR, message, "add the `include:` that the provider of the smarthost names")
