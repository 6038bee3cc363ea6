"""Which login sessions run replaced code, on which terminals: what their people are told. It tells nobody itself."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from agent.daemon.notify import Session
from agent.host import processes
from agent.model.facts import Host, Unit
from agent.model.findings import Finding, StaleUnit
from agent.model.restarts import Disposition

CGROUPS = Path("/sys/fs/cgroup")
MOST_PROCESSES = 200


def read_sessions(host: Host, findings: Iterable[Finding], units: Mapping[str, Unit]) -> Iterator[Session]:
    """Yield the stale sessions; the terminals are those of all of its processes, whether these are stale or not."""
    for stale in (finding.evidence for finding in findings if isinstance(finding.evidence, StaleUnit)):
        unit = units.get(stale.unit)
        if stale.disposition is not Disposition.SESSION or not unit or not unit.name.startswith("session-"):
            continue
        uid = _uid(unit.control_group)
        packages = {file.package for process in stale.processes for file in process.files}
        user = processes.read_users(host).get(uid, str(uid))
        yield Session(unit.name, user, uid, tuple(sorted(_read_terminals(host, unit))), tuple(sorted(packages)))


def _uid(control_group: str) -> int:
    """systemd, not the user, names the slice of a user: /user.slice/user-1000.slice/session-3.scope."""
    number = control_group.partition("/user-")[2].partition(".slice/")[0]
    return int(number) if number.isdecimal() else 0


def _read_terminals(host: Host, unit: Unit) -> set[str]:
    try:
        pids = (CGROUPS / unit.control_group.lstrip("/") / "cgroup.procs").read_text().split()
    except OSError:
        return set()
    found = (processes.read_process(host, int(pid)) for pid in pids[:MOST_PROCESSES])
    return {process.tty for process in found if process and process.tty}
