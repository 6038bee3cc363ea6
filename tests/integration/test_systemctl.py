"""Reading units from a real systemd, 252 and 257: the product's own readers, run in a booted Debian.

What they say is held against what systemd says over D-Bus.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.host.units import read_journal, read_units
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host
from tests.e2e import roots
from tests.e2e.machine import Machine

READ = """
import json, os, sys
sys.path.insert(0, "/opt/tree")
from agent.host.units import is_shutting_down, jobs_queued, read_journal, read_units
from agent.model.contract import encode
from agent.model.facts import Host
from agent.stale.blame import unit_of
host = Host()
units = read_units(host, sys.argv[2:] if sys.argv[1] == "units" else ())
if sys.argv[1] == "units":
    answer = {name: encode(unit) for name, unit in units.items()}
elif sys.argv[1] == "manager":
    answer = [is_shutting_down(host), jobs_queued(host)]
elif sys.argv[1] == "journal":
    answer = read_journal(*sys.argv[2:4])
elif sys.argv[1] == "blame":
    answer = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        cgroup = open(f"/proc/{pid}/cgroup").read().split("0::")[1].rstrip("\\n")
        unit = unit_of(cgroup, units)
        answer[pid] = unit.name if unit else None
print(json.dumps(answer))
"""
HOSTILE = """
[Service]
User=alice
Delegate=yes
ExecStart=/bin/sh -c 'mkdir -p "$$1/system.slice/ssh.service" "$$1/init.scope" && \
    echo $$$$ >"$$1/system.slice/ssh.service/cgroup.procs" && exec sleep infinity' \
    sh /sys/fs/cgroup/system.slice/hostile.service
"""
CHATTY = """
[Service]
ExecStart=/bin/sh -c 'printf "first\\nsecond \\\\033[31m\\n"; head -c 9000 /dev/zero | tr "\\\\0" x; exit 3'
"""


@pytest.fixture(scope="module", params=roots.SUITES)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A booted Debian with the readers in it."""
    with Machine(roots.base(request.param)) as machine:
        machine.copy_agent()
        yield machine


def read(machine: Machine, *words: str) -> Any:
    return machine.python(READ, *words).json()


def start(machine: Machine, name: str, text: str) -> None:
    machine.write(f"/etc/systemd/system/{name}", text)
    machine.run(["systemctl", "daemon-reload"])
    machine.run(["systemctl", "start", name])


def test_all_units_are_read_at_once_and_as_systemd_has_them(machine: Machine) -> None:
    units = read(machine, "units")
    listed = machine.run(["systemctl", "list-units", "--all", "--plain", "--no-legend"]).stdout
    assert {row.split()[0] for row in listed.splitlines()} <= units.keys()
    assert len(units) > 80
    for name in ("ssh.service", "nginx.service", "dbus.service"):
        known = machine.unit(name)
        unit = units[name]
        assert unit["invocation"] == known["InvocationID"] and unit["main_pid"] == int(known["MainPID"])
        assert unit["active"] == "active" and unit["control_group"] == known["ControlGroup"]
        assert unit["programs"][0] in known["ExecStart"]


def test_a_few_units_are_read_by_name_and_an_unknown_one_is_not_found(machine: Machine) -> None:
    units = read(machine, "units", "ssh.service", "no-such@thing.service")
    assert sorted(units) == ["no-such@thing.service", "ssh.service"]
    assert units["no-such@thing.service"]["load"] == "not-found"


def test_every_process_belongs_to_the_unit_that_systemd_names_for_its_pid(machine: Machine) -> None:
    start(machine, "hostile.service", HOSTILE)
    machine.until(lambda: len(machine.pids("hostile.service")) == 1, 10, "the hostile process")
    with machine.ssh("alice"):
        blamed = read(machine, "blame")
        told = {pid: unit for pid, unit in blamed.items() if (bus := by_bus(machine, pid)) and bus != unit}
        (hostile,) = machine.pids("hostile.service")
    assert told == {}
    assert blamed[str(hostile)] == "hostile.service"
    assert {"init.scope", "ssh.service", "dbus.service"} <= set(blamed.values())


def by_bus(machine: Machine, pid: str) -> str:
    """Return what GetUnitByPID says, if the process still lives."""
    manager = "org.freedesktop.systemd1"
    call = ["busctl", "--json=short", "call", manager, "/org/freedesktop/systemd1", f"{manager}.Manager"]
    done = machine.run([*call, "GetUnitByPID", "u", pid], check=False)
    if done.status != 0:
        return ""
    path = done.json()["data"][0]
    asked = ["busctl", "--json=short", "get-property", manager, path, f"{manager}.Unit", "Id"]
    return str(machine.run(asked).json()["data"])


def test_what_a_stopped_unit_left_behind_still_belongs_to_it(machine: Machine) -> None:
    text = "[Service]\nKillMode=process\nExecStart=/bin/sh -c 'setsid sleep 7777 & exec sleep infinity'\n"
    start(machine, "leaves.service", text)
    find = ["pgrep", "-f", "^sleep 7777"]
    (left,) = machine.until(lambda: machine.run(find, check=False).stdout.split(), 20, "what will be left behind")
    machine.run(["systemctl", "stop", "leaves.service"])
    assert read(machine, "units")["leaves.service"]["active"] == "inactive"
    assert read(machine, "blame")[left] == "leaves.service"


def test_a_connection_is_known_for_one_after_a_daemon_reload(machine: Machine) -> None:
    machine.write("/etc/systemd/system/talk.socket", "[Socket]\nListenStream=/run/talk\nAccept=yes\n")
    text = "[Service]\nStandardInput=socket\nExecStart=/usr/bin/sleep infinity\n"
    machine.write("/etc/systemd/system/talk@.service", text)
    machine.run("systemctl daemon-reload; systemctl start talk.socket")
    connect = "import socket\nsocket.socket(socket.AF_UNIX).connect('/run/talk')"
    machine.python(connect)
    running = "systemctl list-units --plain --no-legend 'talk@*' | cut -d' ' -f1"
    name = machine.until(lambda: machine.run(running).stdout.strip(), 10, "the connection's unit")
    machine.run(["systemctl", "daemon-reload"])
    assert read(machine, "units")[name]["accept"]
    assert read(machine, "units", name)[name]["accept"]


def test_the_last_words_of_a_run_are_its_own_and_systemds(machine: Machine) -> None:
    start(machine, "chatty.service", CHATTY)
    machine.until(lambda: machine.unit("chatty.service")["ActiveState"] == "failed", 10, "its end")
    lines = read(machine, "journal", "chatty.service", machine.unit("chatty.service")["InvocationID"])
    assert "first" in lines and "second \x1b[31m" in lines
    assert any("status=3" in line for line in lines)
    assert len(lines) <= 10 and max(map(len, lines)) <= 300


def test_jobs_under_way_are_counted(machine: Machine) -> None:
    machine.until(lambda: read(machine, "manager") == [False, 0], 10, "an idle systemd")
    text = "[Service]\nType=oneshot\nExecStart=/usr/bin/sleep infinity\n"
    machine.write("/etc/systemd/system/long.service", text)
    machine.run("systemctl daemon-reload; systemctl --no-block start long.service")
    assert read(machine, "manager") == [False, 1]
    machine.run(["systemctl", "stop", "long.service"])


def test_without_systemd_there_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(AgentError) as caught:
        read_units(Host(root=str(tmp_path)))
    assert caught.value.kind is Kind.UNREACHABLE
    assert "\n" not in caught.value.message and caught.value.hint


def test_a_journal_that_cannot_be_read_has_no_lines() -> None:
    assert read_journal("no-such.service", "0" * 32) == ()
