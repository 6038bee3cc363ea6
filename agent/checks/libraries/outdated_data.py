"""Which services began before the CA certificates or the rules of time zones changed: told, never acted upon.

A program reads these once and keeps them. Whom it matters to cannot be seen but for one thing: only who maps a TLS
library may have read the certificates.
"""

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from agent.checks.progress import PROGRESS
from agent.host import mappings, packages, processes, shared_data
from agent.host.inodes import identify
from agent.host.mappings import Engine
from agent.model.facts import Host, Snapshot, Unit
from agent.model.findings import Confidence, Finding, Severity
from agent.model.restarts import Disposition
from agent.stale import outdated_data
from agent.stale.likely import is_older
from agent.stale.outdated_data import CERTIFICATES, TLS_PACKAGES, Datum

CHECK = "libraries"
MOST_MAPPINGS = 4_000
MOST_TOLD = 50
MOST_NAMED = 5
"""In the advice; the evidence has more."""
MANAGER = 1


def find_data(host: Host, snapshot: Snapshot, kept: Mapping[str, Any]) -> tuple[tuple[Datum, ...], dict[str, Any]]:
    """Return the data that changed since the machine booted, and what the next look is to be given as `kept`."""
    packaged = {state.name: state for state in snapshot.values()}
    zones = outdated_data.zones(packaged.get(outdated_data.ZONES), shared_data.read_zone(host))
    bundle = shared_data.read_bundle(host)
    certificates, keep = (
        outdated_data.certificates(packaged.get(CERTIFICATES), bundle.digest, bundle.written, kept)
        if bundle
        else (None, {})
    )
    first = processes.read_process(host, MANAGER)
    return tuple(
        datum for datum in (certificates, zones) if datum and first and is_older(first.start, datum.changed)
    ), keep


def tell(
    host: Host, data: Sequence[Datum], snapshot: Snapshot, units: Sequence[Unit], engine: Engine
) -> tuple[Finding, ...]:
    """Return a finding for each of `data` that services among `units` began before."""
    if not data:
        return ()
    mains = {unit.main_pid: unit.name for unit in outdated_data.services(units)}
    starts = {name: process.start for pid, name in mains.items() if (process := processes.read_process(host, pid))}
    told = []
    for datum in data:
        names = outdated_data.began_before(datum, starts)
        if datum.tls and names:
            users = {mains[pid] for pid in _tls_users(host, mains, snapshot, engine)}
            names = tuple(name for name in names if name in users)
        if names:
            told.append(data_finding(datum, names))
    return tuple(told)


def _tls_users(host: Host, pids: Iterable[int], snapshot: Snapshot, engine: Engine) -> Iterable[int]:
    some = (state for state in snapshot.values() if any(fnmatchcase(state.name, pattern) for pattern in TLS_PACKAGES))
    paths = {path: id for path, _ in packages.code_paths(host, some) if (id := identify(host.under(path)))}
    devices = mappings.calibrate(host, paths, {id.device for id in paths.values()})
    pick = mappings.among([(id.device, id.inode) for id in paths.values()], devices, engine)
    return {
        found.pid
        for found in mappings.scan(host, PROGRESS.over(pids), pick, engine, MOST_MAPPINGS)
        if not isinstance(found, mappings.Unseen)
    }


def data_finding(datum: Datum, names: Sequence[str]) -> Finding:
    """Return the finding on the services `names`, which began before `datum` changed."""
    named = f"{datum.package} {datum.version}".strip()
    count = f"{len(names)} service{'' if len(names) == 1 else 's'}"
    what = "using TLS began before the CA certificates" if datum.tls else "began before the time zone rules"
    which = "must trust or distrust other authorities" if datum.tls else "show or schedule local times"
    return Finding(
        check=CHECK,
        subject=datum.package,
        severity=Severity.INFO,
        summary=f"{count} {what} changed ({named})",
        advice=f"restart those that {which}, when it suits: {_list(names)}",
        evidence={
            "disposition": Disposition.NEVER.value,
            "confidence": Confidence.LIKELY.value,
            "cves": [],
            "processes": [],
            "packages": [datum.package],
            "units": list(names[:MOST_TOLD]),
            "changed": datum.changed.strftime("%Y-%m-%dT%H:%M:%SZ"),
        },
    )


def _list(names: Sequence[str]) -> str:
    more = [f"{len(names) - MOST_NAMED} more"] if len(names) > MOST_NAMED else []
    return " and ".join([", ".join(names[:MOST_NAMED]), *more])
