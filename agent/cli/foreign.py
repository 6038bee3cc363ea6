"""`--format` of `status` and `check`: what other programs read, with what the formats must know of this machine.

It looks up names of users and whose a login session is, for needrestart's format alone, and decides nothing.
"""

import pwd
import re
import sys
from collections.abc import Iterator
from typing import Any

from agent.host.processes import read_cgroup
from agent.model.facts import Host
from agent.model.text import printable
from agent.report import formats

MACHINE = Host()
SESSION = re.compile(r"/user-(\d+)\.slice/(session-[^/]+\.scope)$")
"""systemd, not the user, names the slice of a user and the scope of a session."""


def show(name: str, data: dict[str, Any], *, history: bool) -> int:
    """Print the JSON of `status` (with the daemon's history) or `check` (without) and return the exit status."""
    unseen = [*data["unseen"], *filter(None, [data.get("trouble", "")])]
    unseen += [] if data["checked_at"] else ["aftercared has not looked yet"]
    rows = data["findings"]
    if name == "nagios":
        return _write(formats.nagios(rows, unseen, history=history))
    if name == "needrestart":
        users = {user.pw_uid: printable(user.pw_name) for user in pwd.getpwall()}
        return _write(formats.needrestart(rows, users, dict(read_sessions(rows)), data["detail"].get("reboot", {})))
    return _write(formats.openmetrics(rows, unseen, data["checked_at"]))


def show_counts(answer: dict[str, Any]) -> int:
    """Print the line of a plugin for one who may know nothing but counts, and return the exit status."""
    unseen = "" if answer["known"] else "aftercared has not looked yet, or could not"
    return _write(formats.nagios_counts(answer["counts"], unseen))


def show_unknown(reason: str) -> int:
    """Print the line of a plugin that could not look, and return the exit status."""
    return _write(formats.nagios_unknown(printable(reason)))


def _write(printed: formats.Printed) -> int:
    text, status = printed
    sys.stdout.write(text)
    return status


def read_sessions(rows: list[dict[str, Any]], host: Host = MACHINE) -> Iterator[tuple[str, int]]:
    """Yield the scopes of login sessions with the id of who logged in; root's processes in them do not matter."""
    for row in (row for row in rows if row["check"] == "libraries" and row["subject"].startswith("session-")):
        for process in row["evidence"]["processes"]:
            try:
                found = SESSION.search(read_cgroup(host, process["pid"]))
            except OSError:
                continue
            if found and found[2] == row["subject"]:
                yield found[2], int(found[1])
