"""The checks that there are. A new check is one file, one line here, and its rows in the settings table.

A check is loaded where it runs, in a worker or in the foreground: the daemon only needs to know of it.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

from agent.model.errors import AgentError, Kind
from agent.model.facts import Host
from agent.model.findings import CheckResult, Request
from agent.model.topics import Topic

Run = Callable[[Host, Request], CheckResult]


@dataclass(frozen=True, slots=True)
class Check:
    """A check, and what wakes it up. It is the function `run` of the module of its name, beside this one."""

    name: str
    topics: frozenset[Topic]

    @property
    def is_apart(self) -> bool:
        """Whether it runs by itself when something moved, and not only as part of a look after a transaction."""
        return self.topics != {Topic.PACKAGES}


CHECKS = {
    check.name: check
    for check in (
        Check("libraries", frozenset({Topic.PACKAGES})),
        Check("reboot", frozenset({Topic.PACKAGES})),
        Check("exim", frozenset({Topic.PACKAGES, Topic.MAIL, Topic.NETWORK})),
        Check("spf", frozenset({Topic.MAIL, Topic.NETWORK})),
        Check("numpy", frozenset({Topic.PACKAGES, Topic.LINKING})),
    )
}


def find(name: str) -> Check:
    """Return the check `name`; raise AgentError(USAGE) naming those that there are."""
    if name not in CHECKS:
        raise AgentError(Kind.USAGE, f"there is no check {name!r}", f"known are {', '.join(CHECKS)}")
    return CHECKS[name]


def function_of(check: Check) -> Run:
    """Return the plain function that the check is."""
    run: Run = importlib.import_module(f"agent.checks.{check.name}").run
    return run
