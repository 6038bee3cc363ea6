"""The one exception that people are meant to read.

Whatever can go wrong in a way that a user can do something about is an `AgentError`: what is wrong, where,
and what to do next. Anything else that escapes is a bug and keeps its traceback.
"""

from enum import StrEnum


class Kind(StrEnum):
    """The bounded set of reasons; also the journal field and the JSON word."""

    USAGE = "usage"
    CONFIG = "config"
    DENIED = "denied"
    UNREACHABLE = "unreachable"
    UNREADABLE = "unreadable"
    TIMED_OUT = "timed-out"
    PROTOCOL = "protocol"
    SPAWN = "spawn"


class Exit:
    """Exit statuses of every command (DESIGN §3)."""

    CLEAN = 0
    FINDINGS = 1
    USAGE = 2
    UNCHECKED = 3
    DENIED = 4


STATUS = {Kind.USAGE: Exit.USAGE, Kind.CONFIG: Exit.USAGE, Kind.DENIED: Exit.DENIED}


class AgentError(Exception):
    """`message` says what is wrong and where; `hint` what to do next (may be empty)."""

    def __init__(self, kind: Kind, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.hint = hint

    @property
    def exit_status(self) -> int:
        return STATUS.get(self.kind, Exit.UNCHECKED)
