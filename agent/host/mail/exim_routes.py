"""Whether exim keeps mail for a name, by its own routing: `exim4 -bt -- postmaster@NAME` and nothing else.

Exim's exit status alone does not tell: 0 is also mail that leaves for another host. So its report is read, line by
line, and what is not understood is unknown. A name that is no plain host name is never handed to exim.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.host.mail.exim import PROGRAM, Ask, Exim, own_domains
from agent.host.mail.exim_config import NAME
from agent.model.errors import AgentError
from agent.model.text import printable
from agent.spawn import Done

ROUTED = re.compile(r"^  router = (\S+), transport = (\S+)$")
HOST = re.compile(r"^  host (\S+)\s+\[([0-9A-Fa-f.:]+)\](?!.* port=)")
"""A host that it would leave for by the usual port: behind another one there is another service."""
LOST = re.compile(r"Mailing to remote domains not supported|(?:is the|points to) local host")
"""What Debian's router `nonlocal` says, and exim itself of mail that would come back to it."""
MOST_HOSTS, MOST_LINES = 20, 400


class Verdict(StrEnum):
    """Where mail for a name goes. REFUSED: nowhere, and not because a mailbox alone is missing."""

    LOCAL = "local"
    REMOTE = "remote"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Route:
    """Exim's verdict on a name. words: why. hosts: (name, address) that it would leave for; mx: by MX records."""

    name: str
    verdict: Verdict
    words: str = ""
    transport: str = ""
    hosts: tuple[tuple[str, str], ...] = ()
    mx: bool = False


def read_route(exim: Exim, name: str, ask: Ask) -> Route:
    """Return where exim would bring mail for `name`. Never raises: an exim that does not answer leaves it unknown."""
    if not NAME.fullmatch(name):
        return Route(name, Verdict.UNKNOWN, "this is no host name, so exim is not asked about it")
    try:
        done = ask([PROGRAM, "-bt", "--", f"postmaster@{name}"])
    except AgentError as problem:
        return Route(name, Verdict.UNKNOWN, problem.message)
    return parse_route(exim, name, done)


def parse_route(exim: Exim, name: str, done: Done) -> Route:
    """Return the verdict in what `exim4 -bt` printed. Pure."""
    address = f"postmaster@{name}"
    lines = done.stdout.rstrip("\n").split("\n")[:MOST_LINES]
    own = [number for number, line in enumerate(lines) if _is_about(line, address)]
    if f"    <-- {address}".lower() in (line.lower() for line in lines):
        return Route(name, Verdict.LOCAL, "an alias takes it")
    if not own:
        return _elsewhere(name, lines)
    first = lines[own[0]]
    rest = first[len(address) :].strip()
    if first.startswith("mail to ") or rest.startswith("->"):
        return Route(name, Verdict.LOCAL, "an alias takes it")
    if not rest or rest.startswith("["):
        return _routed(exim, name, lines[own[0] + 1 :])
    return _refused(exim, name, rest)


def _is_about(line: str, address: str) -> bool:
    words = line.lower().removeprefix("mail to ").split(" ", 1)
    return words[0] == address.lower() and not line.startswith(" ")


def _elsewhere(name: str, lines: Sequence[str]) -> Route:
    """Aliases that lead to a file or pipe do not name the address that they began with."""
    if any(re.match(r"\S+@\S+ (?:->|is |cannot )|\S+@\S+$|mail to \S+@\S+ is discarded", line) for line in lines):
        return Route(name, Verdict.LOCAL, "an alias takes it")
    return Route(name, Verdict.UNKNOWN, _short(lines[-1] or "exim4 -bt says nothing"))


def _routed(exim: Exim, name: str, lines: Sequence[str]) -> Route:
    """What is local may leave and come back, through a filter that is spoken to by SMTP."""
    routed = ROUTED.match(lines[0]) if lines else None
    if routed is None:
        return Route(name, Verdict.UNKNOWN, "what exim4 -bt says is not understood")
    router, transport = printable(routed[1]), printable(routed[2])
    words = f"router {router}, transport {transport}"
    if transport not in {item.name for item in exim.transports} or is_listed(exim, name):
        return Route(name, Verdict.LOCAL, words, transport)
    found = [(HOST.match(line), " MX=" in line) for line in lines[1 : MOST_HOSTS + 1]]
    hosts = [(match, mx) for match, mx in found if match]
    pairs = tuple((printable(match[1]), match[2]) for match, _ in hosts)
    return Route(name, Verdict.REMOTE, words, transport, pairs, any(mx for _, mx in hosts))


def _refused(exim: Exim, name: str, rest: str) -> Route:
    """A local name may lack a postmaster; whether it is local is then told by the list, where that is plain.

    Who is neither root nor exim's user is not told why.
    """
    words = _short(re.sub(r"^(?:is undeliverable|cannot be resolved at this time)(?:: )?", "", rest))
    if is_listed(exim, name):
        return Route(name, Verdict.LOCAL, f"but not for postmaster: {words or rest}")
    refused = rest.startswith("is undeliverable") and is_listed(exim, name) is False
    return Route(name, Verdict.REFUSED if refused or LOST.search(rest) else Verdict.UNKNOWN, words)


def is_listed(exim: Exim, name: str) -> bool | None:
    """Return whether local_domains has `name`; None where only exim can tell. Pure."""
    items = own_domains(exim)
    if not items or not all(re.fullmatch(r"\*?[A-Za-z0-9.-]+|\*", item) for item in items):
        return None
    return any(_matches(item.lower(), name.lower()) for item in items)


def _matches(item: str, name: str) -> bool:
    return name.endswith(item[1:]) if item.startswith("*") else name == item


def _short(words: str) -> str:
    return printable(words.strip())[:200]
