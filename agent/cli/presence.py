"""Whether it makes sense to wait for aftercared: systemd knows whether it runs, or is about to."""

from agent import spawn
from agent.model.errors import AgentError
from agent.model.restarts import OWN_UNIT

COMING = ("active", "activating", "reloading", "refreshing", "deactivating")
"""States of a daemon that answers soon, or is on its way down: what it then is tells whether it comes back."""


def is_coming() -> bool:
    """Return whether aftercared runs or is about to; a stop that is followed by a start is no moment of either."""
    try:
        return spawn.run(["systemctl", "is-active", OWN_UNIT], timeout=5).stdout.strip() in COMING
    except AgentError:
        return False
