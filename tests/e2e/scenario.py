"""What the scenarios share: who maps what before an upgrade, how it is done, and what must hold after it.

The judgement is made from paths, cgroups and journald's own record of starts, never from what aftercare says.
"""

import fnmatch
import re
import time
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace

from tests.e2e import mirror
from tests.e2e.booted import Booted
from tests.e2e.machine import Machine
from tests.e2e.session import Session

MANAGER = "init.scope"
HARNESS = "harness.service"
WITHIN = 10.0
"""Seconds from apt's exit to the last new main process."""

SPARED = {
    "dbus.service": "reboot",
    "systemd-logind.service": "defer",
    "unattended-upgrades.service": "defer",
    "user@*.service": "session",
    "session-*.scope": "session",
}
"""Units that policy does not restart by itself, and what is said of them."""

PASSING = "run-*"
"""What systemd-run names a unit: one of the daemon's own questions to exim, over before apt is."""

USERS = r"""
import os, sys
wanted = set(sys.argv[1:])
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        rows = open(f"/proc/{pid}/maps", errors="surrogateescape").read().splitlines()
        group = [row for row in open(f"/proc/{pid}/cgroup") if row.startswith("0::")][0].strip()
    except OSError:
        continue
    mapped = {row.split(None, 5)[-1] for row in rows if "x" in row.split(None, 2)[1]}
    if mapped & wanted:
        parts = [part for part in group.split("/") if part.endswith((".service", ".scope"))]
        print(parts[0] if parts else "-", pid)
"""


@dataclass(frozen=True, slots=True)
class Before:
    """How things were: the processes of units that execute from the packages (`main`: 0: none is known)."""

    users: dict[str, set[int]]
    main: dict[str, int]
    starts: Counter[str]
    manager_start: int

    @property
    def restartable(self) -> set[str]:
        """Units that policy restarts by itself."""
        services = {unit for unit in self.users if unit.endswith(".service")}
        return {unit for unit in services if not spared(unit) and unit != HARNESS}


def spared(unit: str) -> str:
    """Return the disposition of a unit that is not restarted by itself, else nothing."""
    return next((what for pattern, what in SPARED.items() if fnmatch.fnmatchcase(unit, pattern)), "")


def packages(machine: Booted) -> list[str]:
    """Return the packages of the main scenario: what nginx, sshd and exim4 map, and what comes with that."""
    base = machine.base
    sources = {base.pair(base.crypto).new, base.pair(base.mail).new}
    return sorted(pair.package for pair in base.pairs.values() if pair.new in sources)


def look(machine: Machine, names: Collection[str] = (), ignoring: Collection[int] = ()) -> Before:
    """Record who uses the packages (by default those of the main scenario) before they are upgraded.

    It goes by paths: `ignoring` are processes that only pretend to.
    """
    listed = machine.run(["dpkg", "-L", *(names or packages(machine))]).stdout.splitlines()
    real = machine.run(["realpath", "-q", *listed], check=False).stdout.splitlines()
    users: dict[str, set[int]] = {}
    for row in machine.python(USERS, *set(real)).stdout.splitlines():
        unit, pid = row.split()
        if int(pid) not in ignoring and not fnmatch.fnmatchcase(unit, PASSING):
            users.setdefault(unit, set()).add(int(pid))
    services = [unit for unit in users if unit.endswith(".service")]
    main = {unit: machine.pid(unit) for unit in services}
    return Before(users, main, machine.starts(), machine.start_time(1))


def by_apt(session: Session) -> float:
    """Upgrade with apt as an administrator does over ssh; return when it exited."""
    names = " ".join(packages(session.machine))
    session.run(f"DEBIAN_FRONTEND=noninteractive apt-get -y install --only-upgrade {names}")
    return time.monotonic()


def by_dpkg(session: Session) -> float:
    """Upgrade with `dpkg -i`; return when it exited."""
    debs = " ".join(session.machine.base.pair(name).deb for name in packages(session.machine))
    session.run(f"DEBIAN_FRONTEND=noninteractive dpkg -i {debs}")
    return time.monotonic()


def by_unattended(session: Session) -> float:
    """Have unattended-upgrades install everything there is, in its minimal steps; return when it exited."""
    session.run("systemctl start apt-daily-upgrade.service")
    return time.monotonic()


def without(before: Before, unit: str) -> Before:
    """Return `before` without one unit."""
    return replace(before, users={name: pids for name, pids in before.users.items() if name != unit})


def upgrade(machine: Machine, how: Callable[[Session], float] = by_apt) -> Before:
    """Upgrade in a session of its own, wait until aftercare is done, and return how things were before."""
    with machine.ssh() as admin:
        before = look(machine)
        how(admin)
    machine.wait()
    return before


def is_restarted(machine: Machine, before: Before, unit: str) -> bool:
    """Tell whether the processes of a unit are others than before, its main process too where it has one."""
    pids = set(machine.pids(unit))
    main = before.main[unit]
    return bool(pids) and not pids & before.users[unit] and (not main or machine.pid(unit) not in (0, main))


def all_restarted(machine: Machine, before: Before) -> bool:
    """Tell whether each affected service runs in new processes by now."""
    return all(is_restarted(machine, before, unit) for unit in before.restartable)


def assert_all_fresh(machine: Machine, before: Before) -> None:
    """Fail unless nothing that policy restarts runs replaced code, by the kernel's word and aftercare's."""
    old = machine.replaced()
    for unit in before.restartable:
        assert machine.unit(unit)["ActiveState"] == "active", f"{unit} is not active"
        assert is_restarted(machine, before, unit), f"{unit} was not restarted"
        assert not set(machine.pids(unit)) & set(old), f"{unit} runs replaced code: {old}"
    assert 1 not in old, f"PID 1 runs replaced code: {old[1]}"
    assert machine.start_time(1) == before.manager_start, "PID 1 was not re-executed but started anew"
    answer = machine.agentctl("status")
    dispositions = {name: found["evidence"]["disposition"] for name, found in answer.findings.items()}
    waiting = [name for name, disposition in dispositions.items() if disposition == "restart"]
    assert not waiting, f"still to be restarted: {waiting}"
    assert not set(answer.findings) & (before.restartable | {MANAGER}), answer.findings


def assert_spared_are_reported(machine: Machine, before: Before) -> None:
    """Fail unless what policy spares runs on and is reported with its disposition (or has logged out)."""
    findings, old = machine.agentctl("status").findings, machine.replaced()
    for unit, pids in before.users.items():
        expected = spared(unit)
        if not expected or (expected == "session" and not pids & set(old)):
            continue
        assert pids & set(old), f"{unit} was restarted"
        assert unit in findings, f"{unit} runs replaced code and is not reported: {sorted(findings)}"
        evidence = findings[unit]["evidence"]
        assert (evidence["disposition"], evidence["confidence"]) == (expected, "certain"), evidence
        assert evidence["reason"] and findings[unit]["advice"], findings[unit]


def restarts_since(machine: Machine, before: Before) -> Counter[str]:
    """Return how often each service was started since then, by systemd's own record; user managers aside."""
    counted = machine.starts() - before.starts
    passing = {unit for unit in counted if fnmatch.fnmatchcase(unit, PASSING)}
    services = {unit for unit in counted if unit.endswith(".service") and spared(unit) != "session"} - passing
    return Counter({unit: counted[unit] for unit in services})


def attempts(machine: Machine) -> Counter[str]:
    """Return how often aftercare says that it restarted each unit."""
    history = machine.agentctl("history").data
    return Counter(restart["unit"] for restart in history["restarts"])


def assert_all_proven(machine: Machine) -> None:
    """Fail unless every restart on record is the only one of its unit and was followed to its good end."""
    restarts = machine.agentctl("history").data["restarts"]
    results = {restart["unit"]: (restart["outcome"] or {}).get("result") for restart in restarts}
    assert set(results.values()) == {"fresh"}, results
    assert len(restarts) == len(results), "a unit was restarted twice"


def assert_restarted_once(machine: Machine, before: Before) -> None:
    """Fail unless each affected unit was started exactly once since then, and nothing else at all."""
    counted = restarts_since(machine, before)
    assert {unit: counted[unit] for unit in before.restartable} == dict.fromkeys(before.restartable, 1)
    others = set(counted) - before.restartable - HOUSEKEEPING
    assert not others, f"started though nothing of theirs was replaced: {others}"


AGENT = "aftercare.service"
HOUSEKEEPING = {AGENT, "apt-daily-upgrade.service", "systemd-tmpfiles-clean.service", "sshd-keygen.service"}
"""Units that may start for reasons of their own while a scenario runs."""


def python_service(machine: Machine, name: str, body: str = "", extra: str = "") -> None:
    """Start a service that maps the TLS library and stays: `body` runs before, `extra` goes to [Service]."""
    body += f'\nopen("/run/{name}-up", "w").close()\nwhile True: signal.pause()\n'
    machine.write(f"/opt/{name}.py", f"import ssl, sys, os, time, signal\n{body}")
    unit = f"[Service]\nType=exec\nExecStart=/usr/bin/python3 /opt/{name}.py\n{extra}\n"
    machine.write(f"/etc/systemd/system/{name}.service", f"{unit}[Install]\nWantedBy=multi-user.target\n")
    machine.run(f"systemctl daemon-reload; systemctl enable -q --now {name}.service")
    machine.until(lambda: machine.exists(f"/run/{name}-up"), 10, f"{name} to be up")


def tiny_package(machine: Machine, version: int, postinst: str = "") -> str:
    """Build the package `tiny` inside the machine and return the path of its .deb.

    It holds one program, /usr/bin/tiny (a sleep with a build-id of its own), that nothing runs by itself.
    """
    tree = f"/root/tiny-{version}"
    control = f"Package: tiny\nVersion: {version}\nArchitecture: all\nDescription: tiny\n"
    machine.write(f"{tree}/DEBIAN/control", f"{control}Maintainer: nobody <nobody@example.org>\n")
    machine.write(f"{tree}/DEBIAN/postinst", f"#!/bin/sh\n{postinst or ':'}\n", mode=0o755)
    machine.run(f"mkdir -p {tree}/usr/bin; cp /usr/bin/sleep {tree}/usr/bin/tiny")
    if version % 2:
        assert mirror.change_build_id(machine.path(f"{tree}/usr/bin/tiny"))
    machine.run(["dpkg-deb", "--root-owner-group", "--build", tree, f"{tree}.deb"])
    return f"{tree}.deb"


def tiny_service(machine: Machine) -> None:
    """Install `tiny` and run its program as a service."""
    machine.run(["dpkg", "-i", tiny_package(machine, 0)])
    service = "[Service]\nType=exec\nExecStart=/usr/bin/tiny infinity\n"
    machine.write("/etc/systemd/system/tiny.service", service)
    machine.run("systemctl daemon-reload; systemctl start tiny.service")
    machine.wait()


REPACK = r"""
set -e
package=$1 tree=$2 version=$3
mkdir -p "$tree/DEBIAN"
dpkg -L "$package" | while read -r path; do
    if [ -f "$path" ]; then mkdir -p "$tree${path%/*}"; cp -a "$path" "$tree$path"; fi
done
dpkg -s "$package" | grep -v "^Status:\|^Config-Version:\|^Conffiles:\|^ /etc/" |
    sed "s/^Version: .*/Version: $version/" >"$tree/DEBIAN/control"
arch=$(dpkg-query -W -f '${Architecture}' "$package")
for part in preinst postinst prerm postrm conffiles triggers shlibs symbols; do
    for file in "/var/lib/dpkg/info/$package.$part" "/var/lib/dpkg/info/$package:$arch.$part"; do
        if [ -e "$file" ]; then cp -p "$file" "$tree/DEBIAN/$part"; fi
    done
done
"""


def rebuilt(machine: Machine, package: str) -> str:
    """Pack an installed package anew, as a later version whose programs have other build-ids; return its .deb."""
    version = machine.run(["dpkg-query", "-W", "-f", "${Version}", package]).stdout + "+rebuilt"
    tree = f"/root/{package}"
    machine.run(["sh", "-c", REPACK, "repack", package, tree, version])
    for path in sorted(machine.path(tree).rglob("*")):
        mirror.change_build_id(path)
    machine.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, f"{tree}.deb"])
    return f"{tree}.deb"


def one_sentence(text: str) -> bool:
    """Tell whether an error message is for people: one line and perhaps an indented hint, no traceback."""
    lines = text.strip().splitlines()
    return 1 <= len(lines) <= 2 and "Traceback" not in text and bool(re.match(r"\S", lines[0]))
