"""What policy may ask of a unit: a test of its configuration before a restart, and a probe of its health after it.

Pure: it reads the values of settings, and raises ValueError with what is allowed where they are none. It tests and
connects to nothing.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv6Address
from typing import Any

HOST = r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})|\[[0-9A-Fa-f:.]{2,45}\])"
TCP = re.compile(rf"tcp:{HOST}:(?P<port>[0-9]{{1,5}})")
UNIX = re.compile(r"unix:(?P<path>/[^\0-\x1f\x7f]{1,106})")
HTTP = re.compile(rf"(?P<scheme>https?)://{HOST}(?::(?P<port>[0-9]{{1,5}}))?(?P<path>/[!-\"$-~]{{0,1000}})?")
PORTS = {"http": 80, "https": 443}
LONGEST_WORD = 1000
MOST_WORDS = 50
GROUPS = frozenset({"file", "line", "message"})

PROBES = (
    '"tcp:HOST:PORT", "unix:/run/x.sock", "http://HOST:PORT/path", "https://HOST/path", '
    'or a command such as ["/usr/bin/pg_isready", "-q"]'
)


class Way(StrEnum):
    """How a probe reaches a unit."""

    TCP = "tcp"
    UNIX = "unix"
    HTTP = "http"
    HTTPS = "https"
    COMMAND = "command"


@dataclass(frozen=True, slots=True)
class Probe:
    """What tells whether a unit does its work. host without brackets; path: of the socket, or asked of the server."""

    way: Way
    host: str = ""
    port: int = 0
    path: str = ""
    command: tuple[str, ...] = ()

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        match self.way:
            case Way.COMMAND:
                return " ".join(self.command)
            case Way.UNIX:
                return f"unix:{self.path}"
            case Way.TCP:
                return f"tcp:{host}:{self.port}"
        return f"{self.way}://{host}:{self.port}{self.path}"


def parse_probe(value: Any) -> Probe:
    """Return the setting `probe`: a text such as "tcp:[::1]:25", or a command as a list."""
    if isinstance(value, list):
        return Probe(Way.COMMAND, command=_command(value))
    text = value if isinstance(value, str) else ""
    if found := UNIX.fullmatch(text):
        return Probe(Way.UNIX, path=found["path"])
    if found := TCP.fullmatch(text):
        return Probe(Way.TCP, _host(found["host"]), _port(found["port"]))
    if found := HTTP.fullmatch(text):
        port = found["port"] or PORTS[found["scheme"]]
        return Probe(Way(found["scheme"]), _host(found["host"]), _port(port), found["path"] or "/")
    raise ValueError(f"must be {PROBES}")


def parse_commands(value: Any) -> tuple[tuple[str, ...], ...]:
    """Return the setting `precheck`: one command as a list of words, or a list of such lists, all of which must pass.

    An empty list takes the test away.
    """
    if not isinstance(value, list):
        raise ValueError('must be a command such as ["nginx", "-t"], or a list of commands')
    several = value if value and isinstance(value[0], list) else [value] if value else []
    return tuple(_command(item) for item in several)


def parse_patterns(value: Any) -> tuple[str, ...]:
    """Return the setting `broken`: regular expressions whose named groups are among file, line and message."""
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError("must be a list of regular expressions")
    for pattern in value:
        try:
            groups = re.compile(pattern, re.MULTILINE).groupindex.keys()
        except re.error as problem:
            raise ValueError(f"has {pattern!r}, which is no regular expression ({problem}),") from problem
        if not groups <= GROUPS:
            raise ValueError(f"may have no named groups but {', '.join(sorted(GROUPS))}")
    return tuple(value)


def _command(words: Any) -> tuple[str, ...]:
    if not isinstance(words, Sequence) or isinstance(words, str) or not 0 < len(words) <= MOST_WORDS:
        raise ValueError(f"must be commands of 1 to {MOST_WORDS} words, each in quotes")
    if not all(isinstance(word, str) and word.isprintable() and len(word) <= LONGEST_WORD for word in words):
        raise ValueError(f"must be commands whose words are printable texts of at most {LONGEST_WORD} characters")
    if not re.fullmatch(r"/[^ ]+|[A-Za-z0-9][A-Za-z0-9._+-]*", words[0]):
        raise ValueError("must name a program by its absolute path, or by its name in /usr/sbin or /usr/bin")
    return tuple(words)


def _host(text: str) -> str:
    if not text.startswith("["):
        return text
    try:
        return str(IPv6Address(text[1:-1]))
    except ValueError as problem:
        raise ValueError(f"must have a host, and {text} is no IPv6 address,") from problem


def _port(text: str | int) -> int:
    if not 1 <= int(text) <= 65535:
        raise ValueError("must have a port from 1 to 65535")
    return int(text)
