"""What this machine is called: the kernel's name, and the full one that `hostname --fqdn` makes of it.

The second asks whatever nsswitch.conf says, a name server too, which may never answer: a program of its own asks, and
is killed when its time is over. Both are foreign text.
"""

from agent.host.kernel import read_beginning
from agent.model.errors import AgentError
from agent.model.facts import Host
from agent.spawn import run

LIMIT = 5.0
LONGEST = 255


def read_host_name(host: Host) -> str:
    """Return the kernel's name of this machine, often a short one."""
    found = read_beginning(f"{host.proc}/sys/kernel/hostname", LONGEST) or b""
    return found.decode(errors="surrogateescape").strip()


def ask_full_name(limit: float = LIMIT) -> str:
    """Return what `hostname --fqdn` says within `limit` seconds; "" where nobody knows it."""
    try:
        done = run(["hostname", "--fqdn"], timeout=limit)
    except AgentError:
        return ""
    return done.stdout.strip()[:LONGEST] if done.status == 0 else ""
