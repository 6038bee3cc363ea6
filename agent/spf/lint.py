"""What is wrong with an SPF record by its text alone, and what to write instead. Pure; it asks no DNS and no host.

What the DNS tells beyond it (look-up costs, dead includes) is for `costs`, what only a host tells for `drift`; all
speak in a `Remark`. Sections named are those of RFC 7208.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from agent.spf.hints import NAMES
from agent.spf.ranges import DOCUMENTATION, Network, is_publishable, kind_of, literal
from agent.spf.record import TERM_BEGINS, VERSION, Mechanism, Modifier, Record, end_of_version, is_record, text_of
from agent.spf.terms import as_names, is_odd, meaning_of

CRITICAL, ERROR, WARNING, INFO, UNKNOWN = "critical", "error", "warning", "info", "unknown"
KNOWN_MODIFIERS = ("redirect", "exp")
COSTLY = ("include", "a", "mx", "ptr", "exists", "redirect")
WIDEST = {4: 8, 6: 16}
"""The shortest prefix of each family that one sender may have: shorter ones are most of the Internet."""
MAPPED = 96
"""The bits before the IPv4 address in a mapped one."""
LONGEST_STRING = 255
COMFORTABLE, TIGHT = 450, 512
SHOWN = 60
NEVER_A_SOURCE = {
    "link-local": "a link-local address never appears as a source on the Internet",
    "private": "a private address (RFC 1918) never appears as a source on the Internet",
    "unique-local": "a unique local address (fc00::/7) never appears as a source on the Internet",
    "shared": "an address of carrier-grade NAT (100.64.0.0/10) never appears as a source on the Internet",
    "loopback": "a loopback address never leaves its host",
    "documentation": "this range is for examples in documentation and is not routed on the Internet",
    "multicast": "a multicast address is never a source",
    "v4-mapped": "receivers judge IPv4-mapped clients as IPv4, so an ip6: of this form never matches (section 5)",
    "reserved": "this range is reserved and never a source on the Internet",
}


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing to say of a record. `start`, `end`: its place in the text; both 0 where it is the whole of it.

    code: a stable word. severity: critical, error, warning, info or unknown. advice: what to do next, may be empty.
    """

    code: str
    severity: str
    start: int
    end: int
    message: str
    advice: str = ""


def lint(record: Record, strings: Sequence[bytes | str] = ()) -> tuple[Remark, ...]:
    """Return the remarks on one record, in the order of its text.

    strings: the character-strings of the TXT record that were joined to it; empty where they are not known.
    """
    found = [*_faults(record), *_policy(record), *_repeated(record), *_lengths(record, strings)]
    for term in record.terms:
        found += _mechanism(record, term) if isinstance(term, Mechanism) else _modifier(term)
        found += _odd(record, term)
    found += _joints(record, [_text(item) for item in strings])
    return tuple(sorted(found, key=lambda remark: (remark.start, remark.end, remark.code)))


def lint_published(texts: Sequence[str], of_type_spf: bool = False) -> tuple[Remark, ...]:
    """Return what is wrong with the TXT records of one name taken together, each with its strings joined.

    of_type_spf: whether the name has a record of the withdrawn type SPF (99).
    """
    records = [text for text in texts if is_record(text)]
    if len(records) > 1:
        message = f"{len(records)} SPF records are published, and receivers then use none of them (section 4.5)"
        return (Remark("two-records", CRITICAL, 0, 0, message, "publish one TXT record that has the terms of all"),)
    if records:
        return ()
    found = [_version(text) for text in texts if is_meant(text)][:1]
    if of_type_spf:
        message = "the record is published with the type SPF (99) alone, which no receiver asks for (section 3.1)"
        found.append(Remark("type-spf", CRITICAL, 0, 0, message, "publish the same text as a TXT record"))
    return tuple(found)


def is_meant(text: str) -> bool:
    """Return whether a TXT record is, or was perhaps meant to be, an SPF record."""
    return end_of_version(text) > 0


def _version(text: str) -> Remark:
    message = f"`{text:.{SHOWN}}` is meant to be an SPF record, but receivers do not take it for one"
    advice = f"it must begin with `{VERSION}` and a blank: did you mean that?"
    if text[: len(VERSION)].lower() == VERSION:
        message += f": no blank follows `{VERSION}`"
        advice = f"put a blank behind `{VERSION}`; strings of one TXT record are joined without one (section 3.3)"
    return Remark("version", CRITICAL, 0, 0, message, advice)


def _faults(record: Record) -> Iterator[Remark]:
    for fault in record.faults:
        code = "syntax" if fault.start else "version"
        whole = "receivers take the whole record as broken" if fault.start else "receivers do not take it for SPF"
        advice = f"did you mean `{fault.hint}`?" if fault.hint else "correct this term or take it out"
        yield Remark(code, CRITICAL, fault.start, fault.end, f"{fault.message}: {whole}", advice)


def _policy(record: Record) -> Iterator[Remark]:
    """What `all` and `redirect` make of the rest."""
    final = final_of(record)
    redirect = next((term for term in record.terms if term.name == "redirect"), None)
    if final is None:
        if redirect is None and not any(fault.hint.endswith("all") for fault in record.faults):
            message = "nothing is said of all other senders: their mail is neutral, as without a record"
            yield Remark("no-all", WARNING, 0, 0, message, "end the record with `-all` or `~all`")
        return
    if redirect:
        message = "redirect= is ignored, because the record has `all` (section 6.1)"
        yield _at(redirect, "redirect-ignored", WARNING, message, "take out the one that you do not mean")
    for term in record.terms:
        if isinstance(term, Mechanism) and term.start > final.start:
            message = f"`{text_of(record, term):.{SHOWN}}` stands after `all` and is ignored (section 5.1)"
            yield _at(term, "after-all", WARNING, message, "move it before `all`, or take it out")
    if final.qualifier == "+":
        message = "everybody in the world may send as this domain"
        yield _at(final, "all-pass", CRITICAL, message, "end the record with `-all` or `~all`")
    if final.qualifier == "?":
        message = "`?all` says nothing of all other senders, as if there were no record"
        yield _at(final, "all-neutral", INFO, message, "end the record with `-all` or `~all`")


def final_of(record: Record) -> Mechanism | None:
    """Return the `all` that ends the record; what stands after it has no effect."""
    return next((term for term in record.terms if isinstance(term, Mechanism) and term.name == "all"), None)


def _mechanism(record: Record, term: Mechanism) -> Iterator[Remark]:
    if term.network is not None:
        yield from _literal(record, term, term.network)
    if term.qualifier == "+" and is_wide(term):
        message = f"`{text_of(record, term):.{SHOWN}}` authorises a large part of the Internet"
        yield _at(term, "too-wide", CRITICAL, message, "name the addresses that send, with their real prefix length")
    if term.name == "ptr":
        message = "`ptr` is slow and unreliable, and must not be published any more (section 5.5)"
        yield _at(term, "ptr", WARNING, message, "put `ip4:` and `ip6:` of those hosts in its place")
    if "%" in term.domain or term.name == "exists":
        message = f"what `{text_of(record, term):.{SHOWN}}` authorises depends on each mail and cannot be listed"
        yield _at(term, "macro", INFO, message)


def _literal(record: Record, term: Mechanism, network: Network) -> Iterator[Remark]:
    kind = kind_of(network)
    if kind:
        plain = _plain_ipv4(network)
        advice = f"write `{plain}` in its place" if plain else "take it out: it can never match at a receiver"
        yield _at(term, kind, WARNING, f"`{text_of(record, term)}`: {NEVER_A_SOURCE[kind]}", advice)
    if kind in ("", DOCUMENTATION) and str(network.network_address) != str(_address(term, network)):
        name = f"{term.name}:{network.network_address}/{network.prefixlen}"
        message = f"`{text_of(record, term)}` authorises all {network.num_addresses} addresses of {network}"
        advice = f"write `{term.name}:{_address(term, network)}` for the one address, or `{name}` for all of them"
        yield _at(term, "host-bits", WARNING, message, advice)


def _plain_ipv4(network: Network) -> str:
    """Return the `ip4:` that an `ip6:` of mapped addresses is meant to be; empty where it is none that could match."""
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is None or network.prefixlen < MAPPED + WIDEST[4]:
        return ""
    meant = IPv4Network((mapped, network.prefixlen - MAPPED))
    return literal(meant) if is_publishable(meant) else ""


def _address(term: Mechanism, network: Network) -> object:
    return type(network.network_address)(term.address)


def is_wide(term: Mechanism) -> bool:
    """Return whether a mechanism matches more than any one sender can have."""
    if term.network is not None:
        return term.network.prefixlen < WIDEST[term.network.version]
    return term.name in ("a", "mx") and (term.cidr4 < WIDEST[4] or term.cidr6 < WIDEST[6])


def _modifier(term: Modifier) -> Iterator[Remark]:
    if term.name in NAMES:
        advice = f"did you mean `{term.name}:{term.value:.{SHOWN}}`?"
        message = f"`{term.name}=` is no mechanism: receivers ignore it, and it authorises nobody"
        yield _at(term, "not-a-mechanism", CRITICAL, message, advice)
    elif term.name not in KNOWN_MODIFIERS:
        message = f"receivers ignore the modifier `{term.name:.{SHOWN}}=`, which RFC 7208 does not know"
        yield _at(term, "unknown-modifier", INFO, message, "leave it, or take it out if it is a slip")
    elif "%" in term.value and term.name == "redirect":
        yield _at(term, "macro", INFO, "where this redirect leads depends on each mail and cannot be listed")


def _odd(record: Record, term: Mechanism | Modifier) -> Iterator[Remark]:
    """The address of a web page, and several names in one term, are sound as a domain, but no name that DNS has."""
    if not is_odd(term):
        return
    written = text_of(record, term)
    meant = as_names(written)
    message = f"`{written:.{SHOWN}}` has no host name behind `{term.name}`: it leads to nothing"
    advice = f"did you mean `{meant:.{SHOWN}}`?" if meant else "put one host name there"
    yield _at(term, "no-host-name", CRITICAL if term.name in ("include", "redirect") else WARNING, message, advice)


def _repeated(record: Record) -> Iterator[Remark]:
    seen: Counter[str] = Counter()
    for term in record.terms:
        key = meaning_of(term)
        seen[key] += 1
        if isinstance(term, Mechanism) and seen[key] == 2:
            cost = " and costs a look-up each time" if term.name in COSTLY else ""
            message = f"`{text_of(record, term):.{SHOWN}}` stands there more than once{cost}"
            yield _at(term, "duplicate", WARNING if cost else INFO, message, "take out all but the first")


def _lengths(record: Record, strings: Sequence[bytes | str]) -> Iterator[Remark]:
    longest = max((len(_bytes(item)) for item in strings or (record.text,)), default=0)
    if longest > LONGEST_STRING:
        message = f"a string of {longest} bytes: one string of a TXT record has at most {LONGEST_STRING} (section 3.3)"
        yield Remark("long-string", WARNING, 0, 0, message, "publish it as several strings, cut where a blank is kept")
    size = len(_bytes(record.text))
    if size > TIGHT:
        message = f"the record has {size} bytes: an answer over {TIGHT} needs EDNS or TCP, which some refuse"
        yield Remark("long", WARNING, 0, 0, message, f"bring it below {COMFORTABLE} bytes (section 3.4)")
    elif size > COMFORTABLE:
        message = f"the record has {size} bytes: over {COMFORTABLE} its answer may not fit into a datagram"
        yield Remark("long", WARNING, 0, 0, message, f"bring it below {COMFORTABLE} bytes (section 3.4)")


def _joints(record: Record, strings: Sequence[str]) -> Iterator[Remark]:
    """Strings are joined without a blank between them (section 3.3); many believe that there is one."""
    place = 0
    for left, right in zip(strings, strings[1:], strict=False):
        place += len(left)
        if left[-1:] in ("", " ") or right[:1] in ("", " "):
            continue
        broken = any(fault.start < place < fault.end for fault in record.faults)
        if broken or TERM_BEGINS.match(right):
            shown = f"`…{left[-20:]}`·`{right[:20]}…`"
            message = f"the strings of the TXT record are joined without a blank: {shown}"
            advice = "put a blank at the end of the first or the beginning of the second string"
            yield Remark("joined", CRITICAL if broken else WARNING, place, place, message, advice)


def _text(item: bytes | str) -> str:
    return item if isinstance(item, str) else item.decode("utf-8", "surrogateescape")


def _bytes(item: bytes | str) -> bytes:
    return item if isinstance(item, bytes) else item.encode("utf-8", "surrogateescape")


def _at(term: Mechanism | Modifier, code: str, severity: str, message: str, advice: str = "") -> Remark:
    return Remark(code, severity, term.start, term.end, message, advice)
