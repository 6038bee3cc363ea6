"""What somebody perhaps meant by a term that is none. Pure; only what the caller's grammar accepts is ever proposed."""

import re
from collections.abc import Callable, Iterator
from ipaddress import IPv6Address, ip_address

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
LONGEST = 300

Sound = Callable[[str], bool]
"""Whether a text of one or more terms is sound."""


def suggest(term: str, is_sound: Sound) -> str:
    """Return sound text to put in the place of a faulty term; empty where nothing comes to mind."""
    if len(term) > LONGEST:
        return ""
    clean = _readable(term).translate(TYPOGRAPHIC).strip()
    for text in _candidates(clean):
        if text and text != term and is_sound(text):
            return text
    return ""


def _readable(term: str) -> str:
    """Undo the escape of bytes that were no text, should they be UTF-8 after all."""
    return term.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _candidates(term: str) -> Iterator[str]:
    yield term
    for text in dict.fromkeys((JOIN.sub(" ", term), term)):
        yield text
        word, blank, others = text.partition(" ")
        yield from (f"{changed}{blank}{others}" for changed in _changed(word))


def _changed(word: str) -> Iterator[str]:
    found = SPLIT.fullmatch(word)
    assert found
    qualifier, name, rest = found.groups()
    yield from _renamed(qualifier, name.lower(), rest)
    yield from _other_kind(qualifier, name.lower(), rest[1:])
    yield from _bare(qualifier, word[len(qualifier) :])
    yield word.rstrip(".:/-=!")


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
