"""What one evaluation asks with: the `Resolver` of `evaluate`, and the seconds that it may take. Pure."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from agent.spf.answers import Answer


@dataclass(slots=True)
class Budget:
    """Seconds that are left. Who asks takes off what it took."""

    left: float


Ask = Callable[[str, str, Budget], Awaitable[Answer[Any]]]
"""Looks up a kind of record of a name, within a budget."""


@dataclass(frozen=True, slots=True)
class Session:
    """A `Resolver`, see there for its methods. All lookups share one budget."""

    ask: Ask
    budget: Budget

    async def txt(self, name: str) -> Answer[str]:
        return await self.ask("TXT", name, self.budget)

    async def a(self, name: str) -> Answer[IPv4Address]:
        return await self.ask("A", name, self.budget)

    async def aaaa(self, name: str) -> Answer[IPv6Address]:
        return await self.ask("AAAA", name, self.budget)

    async def mx(self, name: str) -> Answer[tuple[int, str]]:
        return await self.ask("MX", name, self.budget)

    async def ptr(self, name: str) -> Answer[str]:
        return await self.ask("PTR", name, self.budget)
