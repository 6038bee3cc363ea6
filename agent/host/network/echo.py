"""Asks a mail server which address it sees us from: connect, EHLO, QUIT. No mail is sent, and nobody is named.

Exim, sendmail and Google answer EHLO with the client's address in brackets; Postfix does not. It must be asked as
exim's own user from the address that the kernel picks for it, or rules for a uid lead elsewhere; so this module is also
the program that `ask_echo_as` feeds to /usr/bin/python3 as that user, and imports nothing but the standard library
itself. What the server says is foreign, and may be a lie.
"""

import json
import re
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from ipaddress import IPv6Address, ip_address

LIMIT = 20.0
MOST_BYTES = 64 << 10
NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252})")
BRACKETS = re.compile(r"\[(?:IPv6:)?([0-9A-Fa-f.:]{2,45})\]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Echo:
    """seen: the address that the server sees us from; "" where it did not say, and `problem` says why."""

    seen: str = ""
    problem: str = ""


class _Unanswered(Exception):
    """Why there is no answer."""


def ask_echo(server: str, port: int, source: str, name: str, limit: float = LIMIT) -> Echo:
    """Ask the server at the address `server`, from the address `source`, within `limit` seconds.

    name: how we greet it; a host name. Never raises for what a network or a server does.
    """
    if not NAME.fullmatch(name):
        return Echo(problem="our own name is not fit for a greeting")
    try:
        return _converse(server, port, source, name, time.monotonic() + limit)
    except _Unanswered as problem:
        return Echo(problem=str(problem))
    except TimeoutError:
        return Echo(problem=f"it did not answer within {limit:g} s")
    except (OSError, ValueError) as problem:
        return Echo(problem=f"no connection: {problem}")


def _converse(server: str, port: int, source: str, name: str, deadline: float) -> Echo:
    family = socket.AF_INET6 if ip_address(server).version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as talking:
        talking.bind((str(ip_address(source)), 0))
        talking.settimeout(_left(deadline))
        talking.connect((server, port))
        lines = _lines(talking, deadline)
        _reply(lines, "220")
        talking.sendall(f"EHLO {name}\r\n".encode())
        answer = _reply(lines, "250")
        talking.sendall(b"QUIT\r\n")
    return parse_echo(answer)


def parse_echo(line: str) -> Echo:
    """Return the address in the first line of an answer to EHLO. Pure."""
    for text in BRACKETS.findall(line):
        try:
            address = ip_address(text)
        except ValueError:
            continue
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        return Echo(str(mapped or address))
    return Echo(problem="it does not tell which address it sees")


def _reply(lines: Iterator[str], wanted: str) -> str:
    """Return the first line of the server's next reply, without its number."""
    first = line = next(lines)
    while line[3:4] == "-":
        line = next(lines)
    if not first.startswith(wanted):
        raise _Unanswered(f"it answered {first[:100]!r}")
    return first[4:]


def _lines(talking: socket.socket, deadline: float) -> Iterator[str]:
    """Yield what the server says, line by line, and give up where it says too much, too slowly, or nothing more."""
    rest, heard = b"", 0
    while heard < MOST_BYTES:
        while b"\n" in rest:
            line, _, rest = rest.partition(b"\n")
            yield line.rstrip(b"\r").decode(errors="replace")
        talking.settimeout(_left(deadline))
        data = talking.recv(4096)
        if not data:
            raise _Unanswered("it hung up")
        heard += len(data)
        rest += data
    raise _Unanswered("it talks too much")


def _left(deadline: float) -> float:
    """Return the seconds that are left; there is always a moment, in which only what is there already comes."""
    return max(deadline - time.monotonic(), 0.001)


def main(arguments: list[str]) -> int:
    """Print, as one JSON object, what `ask_echo` says to SERVER PORT SOURCE NAME LIMIT."""
    server, port, source, name, limit = arguments
    print(json.dumps(asdict(ask_echo(server, int(port), source, name, float(limit)))))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
