"""`check_host` of RFC 7208: may this address send for this domain, and why. Pure: it asks through a `Resolver`.

It has no clock and no time limit: those are the resolver's and the caller's. It never raises for what DNS says.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from agent.spf import macros
from agent.spf.answers import Answer, Outcome, Resolver
from agent.spf.mechanisms import expand_name, expand_text, fault_of_name, matches
from agent.spf.record import Mechanism, Modifier, Record, Result, is_record, parse, text_of
from agent.spf.trace import Broken, Course, Lookup, Problem, Step

__all__ = ["Answer", "Evaluation", "Lookup", "Match", "Outcome", "Problem", "Query", "Resolver", "Step", "check_host"]

QUALIFIERS = {"+": Result.PASS, "-": Result.FAIL, "~": Result.SOFTFAIL, "?": Result.NEUTRAL}


@dataclass(frozen=True, slots=True)
class Query:
    """What is to be judged.

    mail_from: the envelope's sender; empty or `<>` judges `postmaster@` the `helo` name, as a receiver does with the
    HELO identity. receiver: the name of the judging host, for `%{r}`. now: seconds since 1970, for `%{t}`.
    record: text to judge in the place of what the first domain publishes.
    """

    ip: IPv4Address | IPv6Address
    mail_from: str
    helo: str
    receiver: str = ""
    now: int = 0
    record: str | None = None


@dataclass(frozen=True, slots=True)
class Match:
    """The term that decided, and its place in the record of `domain`; with `redirect=` not the first one's."""

    domain: str
    start: int
    end: int
    term: str


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came out. explanation: the domain's own words for a FAIL, or empty; foreign text.

    matched: None where no mechanism did. lookups, voids: terms counted against the limits. ttl: the smallest that was
    met, in seconds; None where there was none. problem: set for an error, and for NONE.
    """

    result: Result
    explanation: str
    matched: Match | None
    trace: tuple[Step, ...]
    lookups: int
    voids: int
    ttl: int | None
    problem: Problem | None


@dataclass(frozen=True, slots=True)
class _Judged:
    """The result of one record, after redirects. record: of `domain`, whose `exp=` explains."""

    result: Result
    domain: str = ""
    record: Record | None = None
    matched: Match | None = None
    problem: Problem | None = None


async def check_host(query: Query, resolver: Resolver) -> Evaluation:
    """Return what RFC 7208 says of a client that sends. `resolver`: its errors become TEMPERROR, never an exception."""
    sender = _sender(query)
    ip = query.ip
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    course = Course(resolver, ip, sender, query.helo, query.receiver, query.now)
    domain = sender.rpartition("@")[2]
    try:
        judged = await _check_domain(course, domain, query.record)
        explanation = await _explain(course, judged)
    except Broken as broken:
        judged, explanation = _Judged(broken.result, problem=broken.problem), ""
        while course.open:
            course.finish(broken.result.value)
    counted = (course.steps(), course.lookups, course.voids, course.ttl)
    return Evaluation(judged.result, explanation, judged.matched, *counted, judged.problem)


def _sender(query: Query) -> str:
    """Return the identity that is judged, always with a local part and without a dot at its end (section 4.3)."""
    mail_from = query.mail_from.removesuffix(".")
    if mail_from in ("", "<>"):
        mail_from = query.helo.removesuffix(".")
    local, _, domain = mail_from.rpartition("@")
    return f"{local or 'postmaster'}@{domain}"


async def _check_domain(course: Course, domain: str, given: str | None = None) -> _Judged:
    """Judge the record of a domain: check_host() as it is called by itself, by `include` and by `redirect=`."""
    if fault := _fault_of_domain(domain):
        return _none(domain, f"`{domain:.80}` is no domain: {fault}")
    draft = course.begin(domain, 0, 0, "", "")
    found = await _find(course, domain) if given is None else _given(domain, given)
    if isinstance(found, Problem):
        course.finish(Result.NONE.value)
        return _Judged(Result.NONE, problem=found)
    draft.text = draft.record = found
    draft.end = len(found)
    record = parse(found)
    if record.faults:
        fault_found = record.faults[0]
        place = (fault_found.start, fault_found.end)
        raise Broken(Result.PERMERROR, Problem(fault_found.message, domain, *place, found, fault_found.hint))
    judged = await _judge(course, domain, record)
    course.finish(judged.result.value)
    return judged


def _none(domain: str, message: str) -> _Judged:
    return _Judged(Result.NONE, problem=Problem(message, domain))


def _fault_of_domain(domain: str) -> str:
    """Return why no record can be had for a domain at all (section 4.3)."""
    if "." not in domain:
        return "it has one label" if domain else "it is empty"
    if domain[0] == "[":
        return "it is an address"
    if not domain.isascii() or not domain.isprintable():
        return "it has characters that a domain name cannot have (write other scripts as `xn--…`)"
    return fault_of_name(domain)


async def _find(course: Course, domain: str) -> str | Problem:
    """Return the text of the one record of a domain (sections 4.4 and 4.5)."""
    answer = course.note("TXT", domain, await course.resolver.txt(domain))
    if answer.outcome is Outcome.FAILED:
        raise course.failed("TXT", domain, answer.reason)
    if answer.outcome is Outcome.NXDOMAIN:
        return Problem(f"{domain} does not exist", domain)
    records = [text for text in answer.data if is_record(text)]
    if len(records) > 1:
        raise course.broken(f"{domain} has {len(records)} SPF records, and only one is allowed")
    return records[0] if records else Problem(f"{domain} has no SPF record", domain)


def _given(domain: str, text: str) -> str | Problem:
    if is_record(text):
        return text
    return Problem("this is no SPF record: it must begin with `v=spf1` and a blank", domain, record=text)


async def _judge(course: Course, domain: str, record: Record) -> _Judged:
    """Go through the terms of a sound record (sections 4.6 and 4.7)."""
    redirect: Modifier | None = None
    for term in record.terms:
        if isinstance(term, Modifier):
            redirect = term if term.name == "redirect" else redirect
            continue
        text = text_of(record, term)
        course.begin(domain, term.start, term.end, text, record.text)
        hit = await (_includes if term.name == "include" else matches)(course, term, domain)
        course.finish("match" if hit else "no match")
        if hit:
            return _Judged(QUALIFIERS[term.qualifier], domain, record, Match(domain, term.start, term.end, text))
    if redirect:
        return await _redirect(course, domain, record, redirect)
    return _Judged(Result.NEUTRAL, domain, record)


async def _includes(course: Course, mechanism: Mechanism, domain: str) -> bool:
    """Section 5.2: only a PASS matches, and no record is an error."""
    course.count_lookup()
    judged = await _check_domain(course, await expand_name(course, mechanism.domain, domain))
    if judged.result is Result.NONE:
        raise course.broken(judged.problem.message if judged.problem else "")
    return judged.result is Result.PASS


async def _redirect(course: Course, domain: str, record: Record, modifier: Modifier) -> _Judged:
    """Section 6.1: the other record's result is ours, and its explanation."""
    course.begin(domain, modifier.start, modifier.end, text_of(record, modifier), record.text)
    course.count_lookup()
    judged = await _check_domain(course, await expand_name(course, modifier.value, domain))
    if judged.result is Result.NONE:
        raise course.broken(judged.problem.message if judged.problem else "")
    course.finish(judged.result.value)
    return judged


async def _explain(course: Course, judged: _Judged) -> str:
    """Return the domain's words for a FAIL; whatever is wrong with them, there are none then (section 6.2)."""
    record = judged.record
    if judged.result is not Result.FAIL or record is None:
        return ""
    for term in record.terms:
        if isinstance(term, Modifier) and term.name == "exp":
            draft = course.begin(judged.domain, term.start, term.end, text_of(record, term), record.text)
            draft.depth = 1
            text, verdict = await _explanation(course, judged.domain, term.value)
            course.finish(verdict)
            return text
    return ""


async def _explanation(course: Course, domain: str, spec: str) -> tuple[str, str]:
    name = await expand_name(course, spec, domain)
    if fault := fault_of_name(name):
        return "", f"`{name:.80}` is no name: {fault}"
    answer = course.note("TXT", name, await course.resolver.txt(name))
    if len(answer.data) != 1:
        return "", "there is no text" if not answer.data else "there is more than one text"
    if fault := macros.fault_of(answer.data[0], explaining=True):
        return "", fault
    return await expand_text(course, answer.data[0], domain), "used"
