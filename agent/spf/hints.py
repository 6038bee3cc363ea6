"""What somebody perhaps meant by a term that is none. Pure; only what the caller's grammar accepts is ever proposed."""

import re
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address, summarize_address_range
from itertools import islice

from agent.spf.ranges import Network, literal

NAMES = ("all", "include", "a", "mx", "ptr", "ip4", "ip6", "exists")
MODIFIERS = ("redirect", "exp")
ALIASES = {"ipv4": "ip4", "ipv6": "ip6", "ip": "ip4", "ip-4": "ip4", "ip-6": "ip6", "txt": "include", "spf": "include"}
TYPOGRAPHIC: dict[int, str] = str.maketrans(
    {
        **dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb\u2018\u2019\u201a\u00b4\u200b\ufeff\"'`", ""),
        **dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"),
        **dict.fromkeys("\u00a0\u2009\u202f\t\r\n,;", " "),
        "\uff1a": ":",
        "\uff0f": "/",
        "\u02dc": "~",
        "\u223c": "~",
    }
)
"""What word processors and web forms make of quotes, dashes and blanks."""
JOIN = re.compile(r"(?<=[0-9a-z}])(?=[+~?-]?(?:all$|(?:ip4|ip6|include|exists|mx|a|ptr):))", re.IGNORECASE)
SPLIT = re.compile(r"([+?~-]?)([^:=/]*)(.*)", re.DOTALL)
SET_OFF = re.compile(r"\A([+?~-]) +")
"""A qualifier with a blank behind it."""
URL = re.compile(r"(?:[a-z][a-z0-9+.-]*:)?//([^/:?#]+)", re.IGNORECASE)
WILD = re.compile(r"(\d{1,3}(?:\.\d{1,3}){1,2})(?:\.[*x])+", re.IGNORECASE)
LONGEST = 400
FEW = 8
"""How many networks may take the place of a range of addresses."""

Sound = Callable[[str], bool]
"""Whether a text of one or more terms is sound."""


def suggest(term: str, is_sound: Sound) -> str:
    """Return sound text to put in the place of a faulty term; empty where nothing comes to mind."""
    if len(term) > LONGEST:
        return ""
    clean = _readable(term).translate(TYPOGRAPHIC).strip()
    for text in _candidates(clean, is_sound):
        if text and text != term and is_sound(text):
            return text
    return ""


def _readable(term: str) -> str:
    """Undo the escape of bytes that were no text, should they be UTF-8 after all."""
    return term.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _candidates(term: str, is_sound: Sound) -> Iterator[str]:
    yield term
    yield SET_OFF.sub(r"\1", term)
    for text in dict.fromkeys((JOIN.sub(" ", term), term)):
        yield text
        word, blank, others = text.partition(" ")
        yield from (f"{changed}{blank}{others}" for changed in _changed(word))
    yield _each(term, is_sound)


def _changed(word: str) -> Iterator[str]:
    found = SPLIT.fullmatch(word)
    assert found
    qualifier, name, rest = found.groups()
    yield from _named(qualifier, name, rest)
    yield from _networks(qualifier, rest[1:] if name.lower() in ("ip4", "ip6", *ALIASES) else word[len(qualifier) :])
    yield from _renamed(qualifier, name.lower(), rest)
    yield from _other_kind(qualifier, name.lower(), rest[1:])
    yield from _bare(qualifier, word[len(qualifier) :])
    yield word.rstrip(".:/-=!")


def _each(term: str, is_sound: Sound) -> str:
    """Return a list of several things after one mechanism as a term for each; empty where one of them is none."""
    words = JOIN.sub(" ", term).split()
    before = re.match(r"[+?~-]?[^:=/]*[:=]", term)
    found = []
    for word in words:
        texts = [word, *_changed(word)]
        if before and re.split("[:=]", word.lstrip("+?~-"))[0].lower() not in (*NAMES, *MODIFIERS, *ALIASES):
            texts = [word, before[0] + word, *_changed(before[0] + word)]
        found.append(next((text for text in texts if text and is_sound(text)), ""))
    return " ".join(found) if all(found) else ""


def _named(qualifier: str, name: str, rest: str) -> Iterator[str]:
    """A web page, or a path, where a domain belongs."""
    found = URL.match(rest[1:])
    host = found[1] if found else ""
    if not host and name.lower() in ("include", "exists", *MODIFIERS):
        host = rest[1:].partition("/")[0]
    if host:
        yield f"{qualifier}{name}{rest[:1]}{host}"


def _networks(qualifier: str, value: str) -> Iterator[str]:
    """A network written with stars, or as its first and last address."""
    wild = WILD.fullmatch(value)
    if wild and value.count(".") < 4:
        numbers = wild[1].count(".") + 1
        yield f"{qualifier}ip4:{wild[1]}{'.0' * (4 - numbers)}/{8 * numbers}"
    first, _, last = value.partition("-")
    if last.isdecimal():
        last = f"{first.rpartition('.')[0]}.{last}"
    found = list(islice(_covering(first, last), FEW + 1))
    if 0 < len(found) <= FEW:
        yield " ".join(f"{qualifier}{literal(network)}" for network in found)


def _covering(first: str, last: str) -> Iterator[Network]:
    """The fewest networks from one address to another; none where the texts are no such addresses."""
    try:
        pair = ip_address(first), ip_address(last)
    except ValueError:
        return
    match pair:
        case IPv4Address() as start, IPv4Address() as end if start <= end:
            yield from summarize_address_range(start, end)
        case IPv6Address() as start, IPv6Address() as end if start <= end:
            yield from summarize_address_range(start, end)


def _renamed(qualifier: str, name: str, rest: str) -> Iterator[str]:
    if name in MODIFIERS and rest.startswith(":"):
        yield f"{name}={rest[1:]}"
    if name in NAMES and rest.startswith("="):
        yield f"{qualifier}{name}:{rest[1:]}"
    if name in ALIASES:
        yield f"{qualifier}{ALIASES[name]}:{rest[1:]}"
    for known in NAMES + MODIFIERS:
        if len(known) > 2 and _is_close(name, known):
            yield f"{known}={rest[1:]}" if known in MODIFIERS else f"{qualifier}{known}{rest}"


def _is_close(name: str, known: str) -> bool:
    """Return whether one letter is too many, missing or wrong, or the letters are in another order."""
    if abs(len(name) - len(known)) > 1:
        return False
    if sorted(name) == sorted(known):
        return True
    same = next(
        (place for place, pair in enumerate(zip(name, known)) if pair[0] != pair[1]), min(len(name), len(known))
    )
    one, other = name[same:], known[same:]
    return one[1:] == other or one == other[1:] or one[1:] == other[1:]


def _other_kind(qualifier: str, name: str, value: str) -> Iterator[str]:
    """ip4 with an IPv6 address and the reverse, or with a host name; a network of fewer than four numbers."""
    if name not in ("ip4", "ip6", *ALIASES):
        return
    yield f"{qualifier}{'ip4' if name == 'ip6' else 'ip6'}:{value}"
    numbers, slash, length = value.rstrip("./").partition("/")
    if re.fullmatch(r"\d{1,3}(?:\.\d{1,3}){1,2}", numbers):
        yield f"{qualifier}ip4:{numbers}{'.0' * (3 - numbers.count('.'))}{slash}{length}"
    yield f"{qualifier}a:{value}"


def _bare(qualifier: str, value: str) -> Iterator[str]:
    """An address without the mechanism before it."""
    try:
        address = ip_address(value.partition("/")[0])
    except ValueError:
        return
    yield f"{qualifier}{'ip6' if isinstance(address, IPv6Address) else 'ip4'}:{value}"
