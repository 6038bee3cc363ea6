"""Whom mail was really sent as, and to whose servers, as exim's mainlog tells. A bounded look at its end.

Every word in the log may be a stranger's: addresses are taken only from lines of the one form that exim gives them,
and only where they are plain. Local users may send as anyone, so a domain here is an observation, not a fact.
"""

import os
import re
import stat
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime

from agent.host.mail.exim_config import NAME
from agent.model.facts import Host

LOGS = ("/var/log/exim4/mainlog.1", "/var/log/exim4/mainlog")
"""Oldest first."""
TAIL = 4 << 20
MOST = 200
"""Domains, and servers."""
LINE = re.compile(
    r"(?P<time>\d{4}-\d\d-\d\d \d\d:\d\d:\d\d)(?:\.\d+)?(?P<zone> [+-]\d{4})?(?: \[\d+\])?"
    r" (?P<id>[0-9A-Za-z]{6}-[0-9A-Za-z]{6,11}-[0-9A-Za-z]{2,4}) (?P<what><=|=>|->|\*\*|==) (?P<rest>.*)"
)
SENT = re.compile(
    r"[^\s\"]+(?: <[^\s\"]*>)?(?: F=<[^\s\"]*>)?(?: P=<[^\s\"]*>)? R=\S+ T=(?P<transport>[^\s:]+)"
    r"(?: S=\d+)?(?: H=(?P<host>\S+) \[(?P<address>[0-9A-Fa-f.:]+)\])?"
)


@dataclass(frozen=True, slots=True)
class Observed:
    """domains: (domain of MAIL FROM, messages), most first. servers: (name, address) that took them, latest first."""

    domains: tuple[tuple[str, int], ...] = ()
    servers: tuple[tuple[str, str], ...] = ()


def read_observed(host: Host, since: datetime, transports: Collection[str]) -> Observed:
    """Return what left by `transports` since then; of logs longer than their bound, the end. Empty without a log."""
    senders: dict[str, str] = {}
    sent: dict[str, None] = {}
    servers: dict[tuple[str, str], None] = {}
    for match in _lines(host, since):
        if match["what"] == "<=":
            senders[match["id"]] = match["rest"].split(" ", 1)[0].rpartition("@")[2].lower()
            continue
        left = SENT.match(match["rest"])
        if left is None or left["transport"] not in transports:
            continue
        sent[match["id"]] = None
        if match["what"] in ("=>", "->") and left["host"] and NAME.fullmatch(left["host"]):
            server = (left["host"].lower(), left["address"])
            servers.pop(server, None)
            servers[server] = None
    counts = Counter(domain for message in sent if NAME.fullmatch(domain := senders.get(message, "")))
    return Observed(tuple(counts.most_common(MOST)), tuple(reversed(servers))[:MOST])


def _lines(host: Host, since: datetime) -> Iterator[re.Match[str]]:
    for path in LOGS:
        for line in _tail(host.under(path)):
            match = LINE.match(line)
            if match and (at := _moment(match)) and at >= since:
                yield match


def _moment(match: re.Match[str]) -> datetime | None:
    """A time without its zone is local."""
    try:
        if match["zone"]:
            return datetime.strptime(f"{match['time']}{match['zone']}", "%Y-%m-%d %H:%M:%S %z")
        return datetime.fromisoformat(match["time"]).astimezone()
    except (ValueError, OverflowError):
        return None


def _tail(path: str) -> list[str]:
    """Return the last lines of a regular file: exim's user owns the directory and may put anything there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return []
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return []
        start = max(status.st_size - TAIL, 0)
        lines = os.fsdecode(os.pread(descriptor, TAIL, start)).split("\n")
        return lines[1:] if start else lines
    except OSError:
        return []
    finally:
        os.close(descriptor)
