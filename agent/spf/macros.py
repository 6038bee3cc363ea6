"""Macros of SPF (RFC 7208, section 7): their grammar and their expansion. Pure; `%{p}` asks who calls.

It never looks anything up by itself and never raises for what a record says: text is checked by `fault_of`
before it is expanded.
"""

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote

MACRO = re.compile(r"%(?:\{([slodiphcrtv])([0-9]*)(r?)([.\-+,/_=]*)\}|([%_-]))", re.IGNORECASE | re.ASCII)
SOUND = re.compile(rf"(?:[\x21-\x24\x26-\x7e]+|{MACRO.pattern})*", re.IGNORECASE | re.ASCII)
EXPLANATION = re.compile(rf"(?:[\x20-\x24\x26-\x7e]+|{MACRO.pattern})*", re.IGNORECASE | re.ASCII)
ONLY_EXPLAINING = "crt"
PLAIN = {"%": "%", "_": " ", "-": "%20"}
UNRESERVED = "-._~"
LONGEST_NAME = 253

Validated = Callable[[], Awaitable[str]]
"""Gives the value of `%{p}`: the validated name of the client, or `unknown`."""


@dataclass(frozen=True, slots=True)
class Values:
    """What macros stand for. sender: with local part. receiver: the judging host. now: seconds since 1970."""

    sender: str
    domain: str
    ip: IPv4Address | IPv6Address
    helo: str
    receiver: str
    now: int


def fault_of(text: str, explaining: bool = False) -> str:
    """Return what is wrong with `text` as a macro-string, or as an explain-string; empty where it is sound."""
    grammar = EXPLANATION if explaining else SOUND
    found = grammar.match(text)
    end = found.end() if found else 0
    if end != len(text):
        return _unsound(text, end)
    if "%" not in text:
        return ""
    for macro in MACRO.finditer(text):
        letter, digits = (macro[1] or "").lower(), macro[2]
        if digits and not int(digits[:9]):
            return f"`{macro[0]:.40}` keeps no part: its number must not be 0"
        if letter and letter in ONLY_EXPLAINING and not explaining:
            return f"`{macro[0]:.40}` is allowed in the text of an explanation alone"
    return ""


def _unsound(text: str, at: int) -> str:
    if text[at] == "%":
        return f"`{text[at : at + 12]}` is no macro"
    return f"the character {text[at]!r} is not allowed here"


def is_domain_end(text: str) -> bool:
    """Return whether a sound macro-string ends as a domain-spec must: in a macro, or a dot and a top-level label."""
    if text.endswith(("}", "%", "_", "-")) and _ends_in_macro(text):
        return True
    head, dot, label = text.removesuffix(".").rpartition(".")
    if not dot or not label or label.isdigit() or not label.isascii():
        return False
    return label.replace("-", "").isalnum() and label[0] != "-" and label[-1] != "-"


def _ends_in_macro(text: str) -> bool:
    end = 0
    for macro in MACRO.finditer(text):
        end = macro.end()
    return end == len(text)


async def expand(text: str, values: Values, validated: Validated) -> str:
    """Return a sound macro-string or explain-string with its macros expanded."""
    if "%" not in text:
        return text
    parts: list[str] = []
    place = 0
    for macro in MACRO.finditer(text):
        parts.append(text[place : macro.start()])
        parts.append(await _value(macro, values, validated))
        place = macro.end()
    parts.append(text[place:])
    return "".join(parts)


async def _value(macro: re.Match[str], values: Values, validated: Validated) -> str:
    letter, digits, reverse, delimiters, plain = macro.groups()
    if plain:
        return PLAIN[plain]
    value = await validated() if letter in "pP" else _plain_value(letter.lower(), values)
    if digits or reverse or delimiters:
        value = _transform(value, int(digits[:9] or 0), bool(reverse), delimiters or ".")
    return quote(value, safe=UNRESERVED, errors="surrogateescape") if letter.isupper() else value


def _plain_value(letter: str, values: Values) -> str:
    local, _, sender_domain = values.sender.rpartition("@")
    match letter:
        case "s":
            return values.sender
        case "l":
            return local
        case "o":
            return sender_domain
        case "d":
            return values.domain
        case "h":
            return values.helo
        case "i":
            return _dotted(values.ip)
        case "v":
            return "in-addr" if values.ip.version == 4 else "ip6"
        case "c":
            return str(values.ip)
        case "r":
            return values.receiver or "unknown"
    return str(values.now)


def _dotted(ip: IPv4Address | IPv6Address) -> str:
    if ip.version == 4:
        return str(ip)
    return ".".join(ip.packed.hex().upper())


def _transform(value: str, keep: int, reverse: bool, delimiters: str) -> str:
    parts = re.split(f"[{re.escape(delimiters)}]", value)
    if reverse:
        parts.reverse()
    return ".".join(parts[-keep:] if keep else parts)


def shorten(name: str) -> str:
    """Return an expanded name with labels cut off at its left until it has at most 253 characters (section 7.3)."""
    while len(name) > LONGEST_NAME and "." in name:
        name = name.partition(".")[2]
    return name
