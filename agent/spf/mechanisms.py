"""Whether a mechanism matches: all but `include` (RFC 7208, section 5). Pure; asks through the course's resolver."""

from ipaddress import IPv4Address, IPv6Address

from agent.spf import macros
from agent.spf.answers import Answer, Outcome
from agent.spf.record import Mechanism
from agent.spf.trace import Course

MOST_EXCHANGERS = 10
MOST_NAMES = 10
LONGEST_LABEL = 63


def fault_of_name(name: str) -> str:
    """Return why `name` cannot be asked for in DNS; empty where it can."""
    labels = name.split(".") if name.isascii() else name.encode("utf-8", "surrogateescape").decode("latin-1").split(".")
    if not all(labels):
        return "it has an empty label"
    if max(map(len, labels)) > LONGEST_LABEL:
        return f"it has a label of more than {LONGEST_LABEL} characters"
    if sum(map(len, labels)) + len(labels) - 1 > macros.LONGEST_NAME:
        return f"it has more than {macros.LONGEST_NAME} characters"
    return ""


async def expand_name(course: Course, spec: str, domain: str) -> str:
    """Return the name that a domain-spec is for, `domain` where it is empty. It may be one that DNS cannot have."""
    if not spec:
        return domain
    if "%" in spec:
        spec = await expand_text(course, spec, domain)
    return macros.shorten(spec.removesuffix("."))


async def expand_text(course: Course, text: str, domain: str) -> str:
    """Return a sound macro-string or explain-string, expanded for the record of `domain`."""

    async def validated() -> str:
        return await _best_name(course, domain)

    values = macros.Values(course.sender, domain, course.ip, course.helo, course.receiver, course.now)
    return await macros.expand(text, values, validated)


async def matches(course: Course, mechanism: Mechanism, domain: str) -> bool:
    """Return whether a mechanism of the record of `domain` matches. Raises Broken."""
    match mechanism.name:
        case "all":
            return True
        case "ip4" | "ip6":
            return mechanism.network is not None and course.ip in mechanism.network
    course.count_lookup()
    name = await expand_name(course, mechanism.domain, domain)
    if mechanism.name == "ptr":
        return await _points_below(course, name)
    if fault_of_name(name):
        return False
    match mechanism.name:
        case "a":
            return await _has_address(course, mechanism, name)
        case "mx":
            return await _has_exchanger(course, mechanism, name)
    answer = course.note("A", name, await course.resolver.a(name))
    return bool(_sure(course, "A", name, answer))


def _sure(course: Course, kind: str, name: str, answer: Answer[object]) -> tuple[object, ...]:
    """Return the data of an answer that must not have failed; nothing there counts as void."""
    if answer.outcome is Outcome.FAILED:
        raise course.failed(kind, name, answer.reason)
    if answer.is_void:
        course.count_void()
    return answer.data


async def _addresses(course: Course, name: str) -> tuple[str, Answer[IPv4Address] | Answer[IPv6Address]]:
    """Return the addresses of the client's own family."""
    if course.ip.version == 4:
        return "A", course.note("A", name, await course.resolver.a(name))
    return "AAAA", course.note("AAAA", name, await course.resolver.aaaa(name))


async def _has_address(course: Course, mechanism: Mechanism, name: str) -> bool:
    kind, answer = await _addresses(course, name)
    _sure(course, kind, name, answer)
    ip = course.ip
    shift = ip.max_prefixlen - (mechanism.cidr4 if ip.version == 4 else mechanism.cidr6)
    own = int(ip) >> shift
    return any(int(address) >> shift == own for address in answer.data)


async def _has_exchanger(course: Course, mechanism: Mechanism, name: str) -> bool:
    """Section 5.4 has all addresses looked up before any is compared: one that fails is an error, match or not."""
    answer = course.note("MX", name, await course.resolver.mx(name))
    _sure(course, "MX", name, answer)
    if len(answer.data) > MOST_EXCHANGERS:
        raise course.broken(f"{name} has {len(answer.data)} MX records, and no more than {MOST_EXCHANGERS} are allowed")
    hosts = [host for _, host in sorted(answer.data) if not fault_of_name(host)]
    return any([await _has_address(course, mechanism, host) for host in hosts])


async def _points_below(course: Course, name: str) -> bool:
    names, void = await _validated(course)
    if void:
        course.count_void()
    return any(_is_below(found, name) for found in names)


def _is_below(name: str, domain: str) -> bool:
    return f".{name}".lower().endswith(f".{domain}".lower())


async def _validated(course: Course) -> tuple[list[str], bool]:
    """Return the names of the client that point back to it, and whether it has none at all (section 5.5)."""
    if course.validated is None:
        pointer = course.ip.reverse_pointer
        answer = course.note("PTR", pointer, await course.resolver.ptr(pointer))
        names = [name for name in answer.data[:MOST_NAMES] if not fault_of_name(name)]
        course.validated = ([name for name in names if await _points_back(course, name)], answer.is_void)
    return course.validated


async def _points_back(course: Course, name: str) -> bool:
    """A name whose lookup fails is passed over."""
    _, answer = await _addresses(course, name)
    return course.ip in answer.data


async def _best_name(course: Course, domain: str) -> str:
    """Return the value of `%{p}` (section 7.3): the domain itself, else one below it, else any."""
    names, _ = await _validated(course)
    own = [name for name in names if name.lower() == domain.lower()]
    below = [name for name in names if _is_below(name, domain)]
    return next(iter((*own, *below, *names)), "unknown")
