"""SPF records as values: terms with their places in the text, so that whoever reads a message finds the spot. Pure.

Syntax: RFC 7208, sections 4.6.1, 5, 6 and 12.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_network

from agent.spf import macros
from agent.spf.hints import suggest

VERSION = "v=spf1"
ONCE = ("redirect", "exp")
TERM = re.compile(r"[+?~-] +[a-z][^ ]*|[^ ]+", re.IGNORECASE | re.ASCII)
"""One term; a qualifier and the mechanism behind a blank are one faulty term, for they were meant as one."""
TERM_BEGINS = re.compile(
    r"[+?~-]?(?:all(?![^ ])|(?:a|mx|ptr)(?=[ :/]|\Z)|(?:ip4|ip6|include|exists):|(?:redirect|exp)=)", re.IGNORECASE
)
VERSION_MEANT = re.compile(
    rf"(?!spf2\.0/)[\s\"'“”]*(?:v\s*=\s*)?spf[0-9.]*[\"'“”]*(?:(?![a-z0-9])|(?={TERM_BEGINS.pattern}))", re.IGNORECASE
)
MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*)=", re.IGNORECASE | re.ASCII)
MECHANISM = re.compile(r"([+?~-]?)([a-z][^:/ ]*)", re.IGNORECASE | re.ASCII)
DUAL = re.compile(r"(?:/([0-9]+))?(?://([0-9]+))?\Z")
LENGTH = re.compile(r"0|[1-9][0-9]{0,2}")
MOST_HINTS = 16


class Result(StrEnum):
    """What `check_host` returns (RFC 7208 section 2.6)."""

    NONE = "none"
    NEUTRAL = "neutral"
    PASS = "pass"
    FAIL = "fail"
    SOFTFAIL = "softfail"
    TEMPERROR = "temperror"
    PERMERROR = "permerror"


@dataclass(frozen=True, slots=True)
class Mechanism:
    """One directive. `start` and `end` are places in `Record.text`, the qualifier included.

    name: lower case. domain: the domain-spec as written, macros unexpanded; empty where there is none. network: of
    `ip4` and `ip6` alone, host bits as written are kept in `address`. cidr4, cidr6: of `a` and `mx`, 32 and 128 by
    default.
    """

    start: int
    end: int
    qualifier: str
    name: str
    domain: str = ""
    address: str = ""
    network: IPv4Network | IPv6Network | None = None
    cidr4: int = 32
    cidr6: int = 128


@dataclass(frozen=True, slots=True)
class Modifier:
    """`redirect=`, `exp=` or one that RFC 7208 does not know; `value` is unexpanded."""

    start: int
    end: int
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A spot that makes the record a permerror: what is wrong there, and what was perhaps meant (may be empty)."""

    start: int
    end: int
    message: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Record:
    """A whole record. `terms` are in the order of the text; where there are `faults` it is a permerror."""

    text: str
    terms: tuple[Mechanism | Modifier, ...]
    faults: tuple[Fault, ...]


def is_record(text: str) -> bool:
    """Return whether a TXT string claims to be an SPF record: `v=spf1`, then a space or the end (section 4.5)."""
    return text[:6].lower() == VERSION and text[6:7] in ("", " ")


def end_of_version(text: str) -> int:
    """Return where that ends which was, right or wrong, meant as the version of a record; 0 where nothing was."""
    found = VERSION_MEANT.match(text)
    return found.end() if found else 0


def text_of(record: Record, term: Mechanism | Modifier) -> str:
    """Return a term as written."""
    return record.text[term.start : term.end]


def parse(text: str, hints: bool = True) -> Record:
    """Return the record that `text` is. Never raises: what is wrong is in its `faults`.

    A text that does not begin as a record must has a fault there and is read on behind what was meant as the version,
    or else from its first blank. hints: whether to think about what was meant by a faulty term; a `Fault.hint` is
    sound text for the whole of its place.
    """
    terms: list[Mechanism | Modifier] = []
    faults: list[Fault] = []
    place = len(VERSION)
    if not is_record(text):
        place = end_of_version(text) or _first_blank(text)
        wrong = f"`{text[:place]:.40}` is not `{VERSION}`"
        message = f"no blank follows `{VERSION}`" if text[:place].lower() == VERSION else wrong
        faults.append(Fault(0, place, message, VERSION))
    for found in TERM.finditer(text, place):
        try:
            term = _term(found[0], found.start(), found.end())
            _check_once(term, terms)
            terms.append(term)
        except _FaultyError as problem:
            thinks = hints and len(faults) < MOST_HINTS
            hint = suggest(found[0], is_sound) if thinks else ""
            faults.append(Fault(found.start(), found.end(), str(problem), hint))
    return Record(text, tuple(terms), tuple(faults))


class _FaultyError(Exception):
    """Why a term is none."""


def _first_blank(text: str) -> int:
    found = text.find(" ")
    return len(text) if found < 0 else found


def is_sound(text: str) -> bool:
    """Return whether a text is terms, one or more or none, that a record may have."""
    return not parse(f"{VERSION} {text}", hints=False).faults


def _check_once(term: Mechanism | Modifier, terms: list[Mechanism | Modifier]) -> None:
    if term.name in ONCE and isinstance(term, Modifier):
        if any(other.name == term.name for other in terms):
            raise _FaultyError(f"`{term.name}=` stands there twice")


def _term(text: str, start: int, end: int) -> Mechanism | Modifier:
    if " " in text:
        raise _FaultyError(f"a blank follows `{text[0]}`")
    modifier = MODIFIER.match(text)
    if modifier:
        name, value = modifier[1].lower(), text[modifier.end() :]
        if name in ONCE:
            _check_domain(value, f"{name}=")
        elif problem := macros.fault_of(value):
            raise _FaultyError(problem)
        return Modifier(start, end, name, value)
    found = MECHANISM.match(text)
    if not found:
        raise _FaultyError(f"`{text:.60}` is no mechanism")
    qualifier, name, rest = found[1] or "+", found[2].lower(), text[found.end() :]
    reader = READERS.get(name)
    if reader is None:
        raise _FaultyError(f"there is no mechanism `{name:.60}`")
    return reader(start, end, qualifier, name, rest)


def _read_all(start: int, end: int, qualifier: str, name: str, rest: str) -> Mechanism:
    if rest:
        raise _FaultyError(f"nothing may follow `{name}`")
    return Mechanism(start, end, qualifier, name)


def _read_named(start: int, end: int, qualifier: str, name: str, rest: str) -> Mechanism:
    """`include` and `exists` need a domain; `ptr` may have one."""
    if name == "ptr" and not rest:
        return Mechanism(start, end, qualifier, name)
    if rest[:1] != ":":
        raise _FaultyError(f"`{name}` needs `:` and a domain")
    _check_domain(rest[1:], f"{name}:")
    return Mechanism(start, end, qualifier, name, rest[1:])


def _read_hosts(start: int, end: int, qualifier: str, name: str, rest: str) -> Mechanism:
    """`a` and `mx`: a domain, and prefix lengths for both families."""
    domain, cidr4, cidr6 = "", 32, 128
    if rest:
        found = DUAL.search(rest)
        assert found
        domain, cidr4, cidr6 = rest[: found.start()], _length(found[1], 32), _length(found[2], 128)
    if domain:
        if domain[0] != ":":
            raise _FaultyError(f"`{name}{domain:.60}`: a prefix length is `/` and a number, `//` for IPv6")
        domain = domain[1:]
        _check_domain(domain, f"{name}:")
    return Mechanism(start, end, qualifier, name, domain, "", None, cidr4, cidr6)


def _read_network(start: int, end: int, qualifier: str, name: str, rest: str) -> Mechanism:
    if rest[:1] != ":":
        raise _FaultyError(f"`{name}` needs `:` and an address")
    address, slash, length = rest[1:].partition("/")
    most = 32 if name == "ip4" else 128
    prefix = _length(length, most) if slash else most
    try:
        if "%" in address:
            raise ValueError
        network = ip_network((address, prefix), strict=False)
        if network.max_prefixlen != most:
            raise ValueError
    except ValueError:
        kind = "IPv4" if name == "ip4" else "IPv6"
        raise _FaultyError(f"`{address:.60}` is no {kind} address") from None
    return Mechanism(start, end, qualifier, name, "", address, network)


def _length(text: str | None, most: int) -> int:
    if text is None:
        return most
    if not LENGTH.fullmatch(text) or int(text) > most:
        raise _FaultyError(f"`/{text:.20}` is no prefix length from 0 to {most}")
    return int(text)


def _check_domain(text: str, before: str) -> None:
    if not text:
        raise _FaultyError(f"nothing follows `{before}`")
    if problem := macros.fault_of(text):
        raise _FaultyError(problem)
    if not macros.is_domain_end(text):
        raise _FaultyError(f"`{text:.80}` is no domain name: it must end in a dot and a top-level label")


READERS = {
    "all": _read_all,
    "include": _read_named,
    "exists": _read_named,
    "ptr": _read_named,
    "a": _read_hosts,
    "mx": _read_hosts,
    "ip4": _read_network,
    "ip6": _read_network,
}
