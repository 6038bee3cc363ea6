"""What this machine is called: the kernel's name, and the full one that `hostname --fqdn` makes of it.

The second asks whatever nsswitch.conf says, a name server too, which may never answer: a program of its own asks, and
is killed when its time is over. Both are foreign text.
"""

from dataclasses import dataclass

from agent.host.kernel import read_beginning
from agent.model.errors import AgentError
from agent.model.facts import Host
from agent.spawn import last_words, run

LIMIT = 5.0
LONGEST = 255


@dataclass(frozen=True, slots=True)
class HostName:
    """kernel: as `hostname` says. full: as `hostname --fqdn` says; "" where nobody knows it, and `problem` says why."""

    kernel: str
    full: str
    problem: str


def read_host_name(host: Host, limit: float = LIMIT) -> HostName:
    """Return the names of this machine, within `limit` seconds. Raises AgentError where `hostname` is missing."""
    name = (read_beginning(f"{host.proc}/sys/kernel/hostname", LONGEST) or b"").decode(errors="surrogateescape")
    try:
        done = run(["hostname", "--fqdn"], timeout=limit)
    except AgentError as problem:
        return HostName(name.strip(), "", problem.message)
    if done.status != 0:
        return HostName(name.strip(), "", last_words(done))
    return HostName(name.strip(), done.stdout.strip()[:LONGEST], "")
