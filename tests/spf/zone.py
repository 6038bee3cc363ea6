"""DNS data in memory, in the words of the suites' `zonedata`, and a resolver over it without any network."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from agent.spf.answers import Answer, Outcome

TIMEOUT = "TIMEOUT"
READ = {"A": IPv4Address, "AAAA": IPv6Address, "MX": lambda value: (value[0], value[1].removesuffix("."))}
MOST_ALIASES = 10
TTL = 300
NEGATIVE_TTL = 60

Data = tuple[Any, ...]


@dataclass(slots=True)
class Zone:
    """names: lower case → type → data. silent: names with types that never answer. ttls: of single names."""

    names: dict[str, dict[str, Data]]
    silent: set[tuple[str, str]] = field(default_factory=set)
    ttls: dict[str, int] = field(default_factory=dict)

    @classmethod
    def load(cls, zonedata: Mapping[str, Iterable[Any]]) -> "Zone":
        """Return the zone that a suite describes: records of the dead type SPF serve as TXT where a name has none."""
        zone = cls({})
        for name, entries in zonedata.items():
            zone._load(name.lower(), list(entries))
        return zone

    def _load(self, name: str, entries: list[Any]) -> None:
        pairs = [pair for entry in entries if entry != TIMEOUT for pair in entry.items()]
        has_text = any(kind == "TXT" for kind, _ in pairs)
        data: dict[str, list[Any]] = {}
        for kind, value in pairs:
            if value == TIMEOUT:
                self.silent.add((name, kind))
            elif kind == "SPF" and not has_text or kind == "TXT" and value != "NONE":
                data.setdefault("TXT", []).append(value if isinstance(value, str) else "".join(value))
            elif kind not in ("SPF", "TXT"):
                data.setdefault(kind, []).append(READ.get(kind, lambda text: text.removesuffix("."))(value))
        self.names[name] = {kind: tuple(values) for kind, values in data.items()}
        if TIMEOUT in entries:
            self.silent.update((name, kind) for kind in ("A", "AAAA", "MX", "PTR", "TXT") if kind not in data)

    def ask(self, kind: str, name: str) -> Answer[Any]:
        """Return what a recursive server would say, following aliases."""
        for _ in range(MOST_ALIASES):
            name = name.lower()
            if (name, kind) in self.silent:
                return Answer(Outcome.FAILED, reason="time-out")
            here = self.names.get(name)
            if here is None:
                return Answer(Outcome.NXDOMAIN, ttl=NEGATIVE_TTL)
            if kind in here:
                return Answer(Outcome.FOUND, here[kind], self.ttls.get(name, TTL))
            if "CNAME" not in here:
                return Answer(Outcome.NODATA, ttl=NEGATIVE_TTL)
            name = here["CNAME"][0]
        return Answer(Outcome.FAILED, reason="aliases without an end")


@dataclass(slots=True)
class Memory:
    """A resolver over a zone. asked: what was asked, in order."""

    zone: Zone
    asked: list[tuple[str, str]] = field(default_factory=list)

    async def txt(self, name: str) -> Answer[str]:
        return self._ask("TXT", name)

    async def a(self, name: str) -> Answer[IPv4Address]:
        return self._ask("A", name)

    async def aaaa(self, name: str) -> Answer[IPv6Address]:
        return self._ask("AAAA", name)

    async def mx(self, name: str) -> Answer[tuple[int, str]]:
        return self._ask("MX", name)

    async def ptr(self, name: str) -> Answer[str]:
        return self._ask("PTR", name)

    def _ask(self, kind: str, name: str) -> Answer[Any]:
        self.asked.append((kind, name))
        return self.zone.ask(kind, name)
