"""The corridor: the one resident process, which decides when something is looked at and what is done about it."""

from agent.daemon.main import main

__all__ = ["main"]
