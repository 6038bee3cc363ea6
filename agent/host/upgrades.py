"""What `apt-get dist-upgrade` would do, by apt's own simulation. It downloads, locks and changes nothing.

The lists of packages are those of the last `apt-get update`.
"""

import re

from agent.model.errors import AgentError, Kind
from agent.model.facts import Host
from agent.spawn.transient import run_as

SIMULATE = ("apt-get", "--simulate", "-qq", "-o", "Debug::NoLocking=1", "dist-upgrade")
USER = "nobody"
SECONDS = 60.0
_STEP = re.compile(r"^(Inst|Remv) (\S+?)(?::\S+)? (?:\[(\S+)\] ?)?(?:\((\S+) )?", re.M)

Upgrades = dict[str, str | None]
"""Package → the version that it would be replaced by; None: it would be removed."""


def read_upgrades(host: Host) -> Upgrades:
    """Return the installed packages that an upgrade would replace or remove.

    Raises AgentError where apt cannot tell, and for another root than this machine's.
    """
    if host.root != "/":
        raise AgentError(Kind.USAGE, f"what apt would upgrade below {host.root} is not known", "name the packages")
    done = run_as(USER, SIMULATE, timeout=SECONDS, environment={"LC_ALL": "C"})
    if done.status != 0:
        said = done.stderr.strip().splitlines() or [f"status {done.status}"]
        raise AgentError(Kind.UNREADABLE, f"apt-get cannot plan an upgrade: {said[-1]}", "apt-get check")
    return parse_upgrades(done.stdout)


def parse_upgrades(text: str) -> Upgrades:
    """Return what the simulation in `text` replaces and removes; what it installs newly replaces nothing. Pure."""
    steps = (match.groups() for match in _STEP.finditer(text))
    return {name: new if kind == "Inst" else None for kind, name, old, new in steps if old}
