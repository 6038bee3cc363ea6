"""Which services began before data changed that they read once and keep: CA certificates, time zones. Pure.

Whether a service uses the data at all cannot be seen, so this is told and never acted upon. Modules of the name
service switch are no such case: they are code, mapped like any other, and glibc reads nsswitch.conf anew by itself
since 2.33.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from agent.model.facts import PackageState, Unit
from agent.stale.likely import is_older, unpacked_at

CERTIFICATES, ZONES = "ca-certificates", "tzdata"
TLS_PACKAGES = ("libssl3*", "libgnutls30*", "libnss3", "libmbedtls*", "libwolfssl*")
"""The packages of the libraries that read the bundle of CA certificates."""
WITHOUT_RULES = ("", "UTC", "UCT", "GMT", "Zulu", "Universal", "Greenwich", "Etc/*")
"""Zones in which no change of the rules moves the clock."""
SESSIONS = "user@*.service"


@dataclass(frozen=True, slots=True)
class Datum:
    """Data of `package` that changed at `changed`. tls: only programs that map a TLS library read it."""

    package: str
    version: str
    changed: datetime
    tls: bool


def certificates(
    state: PackageState | None, digest: str, written: datetime, kept: Mapping[str, Any]
) -> tuple[Datum | None, dict[str, Any]]:
    """Return the bundle of CA certificates as a datum, and what the next look is to be given as `kept`.

    It is rewritten more often than it changes. Without a digest from before, its package tells when it last changed.
    """
    before, since = kept.get("digest"), kept.get("changed")
    changed = datetime.fromisoformat(since) if isinstance(since, str) else unpacked_at(state) if state else None
    if before and before != digest:
        changed = written
    keep = {"digest": digest, "changed": changed.isoformat() if changed else None}
    return (Datum(CERTIFICATES, state.version if state else "", changed, True) if changed else None), keep


def zones(state: PackageState | None, zone: str) -> Datum | None:
    """Return the rules of time zones as a datum, where the zone of this host has any."""
    changed = unpacked_at(state) if state else None
    if state is None or changed is None or any(fnmatchcase(zone, pattern) for pattern in WITHOUT_RULES):
        return None
    return Datum(ZONES, state.version, changed, False)


def services(units: Iterable[Unit]) -> tuple[Unit, ...]:
    """Return the services that have a main process, which reads such data at its start."""
    return tuple(
        unit
        for unit in units
        if unit.name.endswith(".service") and unit.main_pid and not fnmatchcase(unit.name, SESSIONS)
    )


def began_before(datum: Datum, starts: Mapping[str, datetime]) -> tuple[str, ...]:
    """Return the units that began before the datum changed, sorted. starts: unit → start of its main process."""
    return tuple(sorted(name for name, start in starts.items() if is_older(start, datum.changed)))
