"""How a record is published, and whether it is: name servers, DNS failures, no record at all. Remarks, pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from ipaddress import ip_network

from agent.spf.lint import ERROR, INFO, UNKNOWN, WARNING, Remark, lint_published
from agent.spf.ranges import Address, literal
from agent.spf.record import Result
from agent.spf.situation import HELO, MAIL_FROM, Cell, Failures, Published


def on_publication(
    published: Published, cells: Sequence[Cell], lasting: Sequence[Address], now: datetime
) -> Iterator[Remark]:
    """Say what is wrong before the record itself is looked at. lasting: the addresses that it should authorise."""
    texts = lint_published(published.texts, published.of_type_spf)
    yield from texts
    yield from _views(published, now)
    yield from _failing(published, now)
    yield from _alignment(published)
    if not texts:
        yield from _no_record(published, cells, lasting)


def on_helo(published: Published) -> Remark:
    """Say that the HELO name can have no record."""
    code = "helo-literal" if published.domain.startswith("[") else "helo-unqualified"
    return whole(code, WARNING, published.helo_fault, "put the full host name first in its line of /etc/hosts")


def _views(published: Published, now: datetime) -> Iterator[Remark]:
    """What the name servers disagree about, and what they cannot deliver."""
    views, name = published.views, published.domain
    if views.differing:
        message = f"{', '.join(views.differing)} still serve another record of {name} than the other name servers"
        yield whole(
            "servers-differ", WARNING, message, "see that these servers get the zone: compare their SOA serials"
        )
    if views.refusing:
        message = f"the TXT records of {name} have {views.size} bytes, and {', '.join(views.refusing)} refuse TCP"
        yield whole("answer-too-large", ERROR, message, "open port 53 for TCP there, or remove TXT records")
    if views.split:
        message = f"this host's own resolver has another record of {name} than the world; the world's is judged"
        yield whole("split-horizon", WARNING, message, "keep the internal zone in step, or do not test with it")
    if views.old_until and views.old_until > now:
        left = shown_age(int((views.old_until - now).total_seconds()))
        message = f"resolvers may answer with the old record of {name} until {views.old_until:%H:%M} ({left} more)"
        yield whole("old-answer", INFO, message, "wait")


def _failing(published: Published, now: datetime) -> Iterator[Remark]:
    failures = published.failures
    if failures:
        severity = WARNING if failures.is_lasting(now) else UNKNOWN
        message = f"the record of {published.domain} cannot be looked up: {last_known(failures, now)}"
        advice = "look at the name servers of the zone and at DNSSEC: meanwhile receivers put such mail off"
        yield whole("dns-failed", severity, message, advice)


def _no_record(published: Published, cells: Sequence[Cell], lasting: Sequence[Address]) -> Iterator[Remark]:
    name = published.domain
    if published.failures or not any(cell.verdict == Result.NONE for cell in cells):
        return
    if published.identity == HELO:
        message = f"the HELO name {name} has no record of its own: bounces, which have no sender, are judged by it"
        yield whole("helo-no-record", INFO, message, _record_of_helo(published, lasting))
        return
    message = f"{name} has no SPF record: Gmail and others want SPF or DKIM"
    yield whole("no-record", WARNING, message, "publish one that names what this host sends from, and ends in `-all`")


def _record_of_helo(published: Published, lasting: Sequence[Address]) -> str:
    """Return what to publish at a HELO name: `a` serves where it leads to what this host sends from, and only there."""
    name, found = published.domain, published.addresses
    if not lasting:
        return f"let mail leave from an address that stays, then name it in a record at {name}"
    if found is not None and set(lasting) <= set(found):
        return f"publish `v=spf1 a -all` at {name}"
    wanted = " ".join(literal(ip_network(address)) for address in lasting)
    advice = f"publish `v=spf1 {wanted} -all` at {name}"
    if found is None:
        return advice
    now = f"lead to {', '.join(map(str, found))}" if found else "are missing"
    return f"{advice}; its A and AAAA records {now}, and should lead to {', '.join(map(str, lasting))}"


def _alignment(published: Published) -> Iterator[Remark]:
    """Names that share their last two labels may be of one organisation: nothing is said of them."""
    envelope, header = published.domain.lower(), published.sender.lower()
    if header and published.identity == MAIL_FROM and envelope.split(".")[-2:] != header.split(".")[-2:]:
        message = f"mail from {header} has the envelope sender's domain {envelope}: its SPF does not count for DMARC"
        yield whole("not-aligned", INFO, message, f"sign with DKIM for {header}, or send as it in the envelope too")


def on_breakage(published: Published, cells: Sequence[Cell]) -> Iterator[Remark]:
    """Say that the record is broken, where nothing else said why."""
    for cell in cells:
        if cell.verdict == Result.PERMERROR:
            message = f"the record of {published.domain} is broken: {cell.reason}"
            yield whole("broken", cell.severity, message, "correct the record")
            return


def last_known(failures: Failures, now: datetime) -> str:
    """Return a failing DNS in words, with the last good verdict and its age."""
    since = shown_age(int((now - failures.since).total_seconds()))
    text = failures.reason or "no answer"
    text += f", {failures.count} times in {since}" if failures.count > 1 else ""
    if failures.good is None:
        return f"{text}; it never was judged before"
    result, at = failures.good
    return f"{text}; the last good verdict, {shown_age(int((now - at).total_seconds()))} old, is {result.value}"


def shown_age(seconds: int) -> str:
    """Return a span of time in words."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{max(seconds, 0)} s"


def whole(code: str, severity: str, message: str, advice: str) -> Remark:
    """Return a remark that has no place in the text."""
    return Remark(code, severity, 0, 0, message, advice)
