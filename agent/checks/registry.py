"""The checks that there are. A new check is one file, one line here, and its rows in the settings table."""

from collections.abc import Callable
from dataclasses import dataclass

from agent.checks import libraries
from agent.model.errors import AgentError, Kind
from agent.model.events import Topic
from agent.model.facts import Host
from agent.model.findings import CheckResult, Request


@dataclass(frozen=True, slots=True)
class Check:
    """A check: what wakes it up, and the plain function that it is."""

    name: str
    topics: frozenset[Topic]
    run: Callable[[Host, Request], CheckResult]


CHECKS = {check.name: check for check in (Check("libraries", frozenset({Topic.PACKAGES}), libraries.run),)}


def find(name: str) -> Check:
    """Return the check `name`; raise AgentError(USAGE) naming those that there are."""
    if name not in CHECKS:
        raise AgentError(Kind.USAGE, f"there is no check {name!r}", f"known are {', '.join(CHECKS)}")
    return CHECKS[name]
