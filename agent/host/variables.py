"""The variables that decide which MKL is loaded and how it sets itself up, as those who set them say it.

They come from systemd's own properties of a unit and from /etc/environment: never from the environ of a process,
which is its own to write.
"""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence

from agent.host.kernel import read_beginning
from agent.model.facts import Host
from agent.spawn import run

FILE = "/etc/environment"
"""Read by pam_env at each login, and for cron; not for services."""
WANTED = re.compile(r"LD_LIBRARY_PATH|LD_BIND_NOW|LD_PRELOAD|MKL_[A-Z_]{1,60}")
LONGEST_VALUE = 4096
MOST_UNITS = 200

Variables = Mapping[str, str]


def read_login(host: Host) -> Variables:
    """Return the variables that /etc/environment sets for logins."""
    return parse_file(os.fsdecode(read_beginning(host.under(FILE)) or b""))


def parse_file(text: str) -> Variables:
    """Return the variables in the text of an environment file as pam_env(8) takes it. Pure."""
    rows = (re.sub(r"^\s*export\s+", "", line).partition("=") for line in text.split("\n"))
    return _wanted((name.strip(), value.strip().strip("'\"")) for name, equals, value in rows if equals)


def read_units(host: Host, units: Sequence[str]) -> dict[str, Variables]:
    """Return the variables that systemd sets for `units`; those for which it sets none are left out.

    Empty where systemd does not run here, and for another root. Raises AgentError where systemctl does not answer.
    """
    if host.root != "/" or not units or not os.path.isdir("/run/systemd/system"):
        return {}
    done = run(["systemctl", "show", "--property=Id", "--property=Environment", "--", *units[:MOST_UNITS]])
    return parse_units(done.stdout)


def parse_units(text: str) -> dict[str, Variables]:
    """Return the variables by unit in what `systemctl show` printed. Pure."""
    found = {}
    for block in text.split("\n\n"):
        rows = dict(line.split("=", 1) for line in block.split("\n") if "=" in line)
        variables = _wanted(_pairs(rows.get("Environment", "")))
        if variables and "Id" in rows:
            found[rows["Id"]] = variables
    return found


def _pairs(value: str) -> Iterable[tuple[str, str]]:
    """Assignments are printed with the quotes of a shell where they need any."""
    try:
        words = shlex.split(value)
    except ValueError:
        return
    for word in words:
        name, equals, text = word.partition("=")
        if equals:
            yield name, text


def _wanted(pairs: Iterable[tuple[str, str]]) -> Variables:
    return {name: value[:LONGEST_VALUE] for name, value in pairs if WANTED.fullmatch(name)}
