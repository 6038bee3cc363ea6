"""Units of users' own managers: told by name, restarted by that manager where policy says so, and nobody waits for them."""

from typing import Any

import pytest

from tests.e2e import scenario
from tests.e2e.machine import Machine
from tests.e2e.test_policy import policy

ALICE, BOB = 1000, 1001
EVERY = '[[rule]]\nmatch = "user@*.service/*"\ndisposition = "restart"\nlimit = 6\n'
TINY = "/usr/bin/tiny infinity"
STAYS = f"/bin/sh -c 'trap \"\" TERM; exec {TINY}'"
QUITS = "ExecStartPre=/bin/sh -c 'test ! -e /home/alice/no || { echo no such mailbox; sleep 1; exit 1; }'"
"""It says why and stays a moment: whose words they are, journald reads of the process while it is there."""
OWN = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service"
FRESH = "0c5e790fc82f44d1b047b055488f38df"
JOBS = r"""
import glob, os, time
def tell(path):
    for pid in open(path).read().split():
        rows = dict(row.split(":", 1) for row in open(f"/proc/{pid}/status"))
        if rows["Name"].strip() == "systemctl":
            print(path.split("/")[5], rows["Uid"].split()[0], rows["CapBnd"].strip())
while not os.path.exists("/run/jobs-done"):
    for path in glob.glob("/sys/fs/cgroup/user.slice/user-*.slice/aftercare-user-*/cgroup.procs"):
        try:
            tell(path)
        except OSError:
            pass
    time.sleep(0.2)
"""
MOVES = r"""
import os, time
top = "/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service"
name = open("/home/alice/name").read()
os.makedirs(f"{top}/{name}")
open(f"{top}/{name}/cgroup.procs", "w").write(str(os.getpid()))
os.execv("/usr/bin/tiny", ["tiny", "infinity"])
"""


def subject(uid: int, name: str) -> str:
    """Return by which name a user's unit is told."""
    return f"user@{uid}.service/{name}"


def as_user(machine: Machine, uid: int, *words: str) -> str:
    """Ask a user's own manager, as that user."""
    user = "alice" if uid == ALICE else "bob"
    environment = {"XDG_RUNTIME_DIR": f"/run/user/{uid}"}
    return machine.run(["systemctl", "--user", *words], user=user, env=environment).stdout


def user_service(machine: Machine, uid: int, name: str, command: str, extra: str = "") -> int:
    """Start a service under the manager of a user who lingers; return its main pid."""
    user = "alice" if uid == ALICE else "bob"
    machine.run(f"loginctl enable-linger {user}")
    machine.until(lambda: machine.exists(f"/run/user/{uid}/systemd/private"), 20, f"the manager of {user}")
    unit = f"[Service]\nType=exec\nExecStart={command}\n{extra}\n"
    machine.write(f"/home/{user}/.config/systemd/user/{name}", unit)
    as_user(machine, uid, "daemon-reload")
    as_user(machine, uid, "start", name)
    return main_pid(machine, uid, name)


def main_pid(machine: Machine, uid: int, name: str) -> int:
    """Return the main pid of a user's unit."""
    return int(as_user(machine, uid, "show", "--property=MainPID", "--value", name))


def restarts(machine: Machine) -> dict[str, Any]:
    """Return what came of the restarts of the last transaction, by unit."""
    return {item["unit"]: item for item in machine.agentctl("status").data["restarts"]}


@pytest.mark.suites("bookworm", "trixie")
def test_a_users_unit_is_told_by_name_and_restarted_as_that_user_where_a_rule_lets_him(machine: Machine) -> None:
    body = "import ssl, signal; signal.pause()"
    before = user_service(machine, ALICE, r"mail@a\x2db.service", f"/usr/bin/python3 -c '{body}'")
    name = subject(ALICE, r"mail@a\x2db.service").replace("\\", "\\\\")
    known = scenario.upgrade(machine)
    scenario.assert_all_fresh(machine, known)
    found = machine.agentctl("status").findings
    assert found[name]["evidence"]["disposition"] == "session"
    assert "user alice" in found[name]["evidence"]["reason"]
    assert [process["pid"] for process in found[name]["evidence"]["processes"]] == [before]
    manager = found.get("user@1000.service", {"evidence": {"processes": []}})["evidence"]["processes"]
    assert before not in [process["pid"] for process in manager]
    assert main_pid(machine, ALICE, r"mail@a\x2db.service") == before
    assert before in machine.replaced()
    policy(machine, '[[rule]]\nmatch = ["user@*"]\ndisposition = "restart"\n')
    assert main_pid(machine, ALICE, r"mail@a\x2db.service") == before, (
        "a rule without a slash is not about users' units"
    )
    policy(machine, EVERY.replace('"restart"', '"defer"'))
    real = subject(ALICE, r"mail@a\x2db.service")
    (wave,) = machine.agentctl("restart", "--dry-run", real).data["plan"]["waves"]
    assert [step["unit"] for step in wave["steps"]] == [name]
    assert main_pid(machine, ALICE, r"mail@a\x2db.service") == before, "it waits for somebody's word"
    assert machine.agentctl("restart", real).data["restarts"][0]["result"] == "fresh"
    after = main_pid(machine, ALICE, r"mail@a\x2db.service")
    assert after not in (0, before) and after not in machine.replaced()
    assert machine.run(f"stat -c %u /proc/{after}").stdout.strip() == str(ALICE)
    assert name not in machine.agentctl("status").findings
    (entry,) = [item for item in machine.agentctl("history").data["restarts"] if item["unit"] == name]
    assert entry["outcome"]["result"] == "fresh"
    assert name in [row["UNIT"] for row in machine.journal(message_id=FRESH)]
    chain = machine.run(["agentctl", "why", real]).stdout
    assert "fresh" in chain and "libssl3" in chain


@pytest.mark.suites("bookworm", "trixie")
def test_a_user_whose_manager_hangs_or_whose_unit_stays_delays_nobody_and_gets_his_own_outcome(
    machine: Machine,
) -> None:
    scenario.tiny_service(machine)
    policy(machine, EVERY)
    well = user_service(machine, ALICE, "well.service", TINY)
    stays = user_service(machine, ALICE, "stays.service", STAYS, "TimeoutStopSec=infinity")
    user_service(machine, ALICE, "quits.service", TINY, QUITS)
    hangs = user_service(machine, BOB, "hangs.service", TINY)
    machine.write("/home/alice/no", "")
    machine.run("kill -STOP $(systemctl show -P MainPID user@1001.service)")
    before = machine.pid("tiny.service")
    deb = scenario.tiny_package(machine, 1)
    watch = machine.start(["/usr/bin/python3", "-c", JOBS])
    machine.run(["dpkg", "-i", deb])
    machine.wait()
    machine.write("/run/jobs-done", "")
    asked = set(watch.communicate(timeout=40)[0].splitlines())
    assert asked == {"user-1000.slice 1000 0000000000000000", "user-1001.slice 1001 0000000000000000"}
    outcomes = restarts(machine)
    assert {unit: item["result"] for unit, item in outcomes.items()} == {
        "tiny.service": "fresh",
        subject(ALICE, "well.service"): "fresh",
        subject(ALICE, "stays.service"): "timed-out",
        subject(ALICE, "quits.service"): "failed",
        subject(BOB, "hangs.service"): "timed-out",
    }
    assert machine.pid("tiny.service") not in (0, before)
    assert main_pid(machine, ALICE, "well.service") != well
    assert {stays, hangs} <= set(machine.replaced()), "neither was ended"
    history = machine.agentctl("history").data["restarts"]
    begun = {item["unit"]: item["begun"] for item in history}
    assert min(begun, key=lambda unit: (begun[unit], unit != "tiny.service")) == "tiny.service"
    status = machine.agentctl("status")
    assert not status.data["braked"] and not status.data["held"]
    quits = status.findings[subject(ALICE, "quits.service")]
    assert quits["severity"] == "critical" and "no such mailbox" in quits["evidence"]["outcome"]["journal"]
    assert status.findings[subject(BOB, "hangs.service")]["evidence"]["disposition"] == "leftover"
    machine.run("kill -CONT $(systemctl show -P MainPID user@1001.service); rm /home/alice/no")
    as_user(machine, ALICE, "start", "quits.service")
    machine.run(["dpkg", "-i", scenario.tiny_package(machine, 2)])
    machine.wait()
    assert restarts(machine)[subject(BOB, "hangs.service")]["result"] == "fresh"
    assert machine.agentctl("status").findings == {}
    assert machine.run("systemctl list-units --failed --no-legend 'aftercare*'").stdout == ""


@pytest.mark.suites("bookworm", "trixie")
def test_a_daemon_that_is_killed_meanwhile_follows_the_restart_to_its_end_and_asks_for_no_second(
    machine: Machine,
) -> None:
    scenario.tiny_service(machine)
    policy(machine, EVERY.replace("limit = 6", "limit = 25"))
    before = user_service(machine, ALICE, "slow.service", TINY, "ExecStop=/bin/sleep 6")
    machine.run(["dpkg", "-i", scenario.tiny_package(machine, 1)])
    machine.until(lambda: machine.run("systemctl list-units -q 'aftercare-user-1000-*'").stdout, 20, "the restart")
    machine.kill_daemon()
    machine.until(lambda: machine.agentctl("status").data is not None, 30, "the daemon to be back")
    machine.wait()
    assert main_pid(machine, ALICE, "slow.service") not in (0, before)
    (entry,) = [item for item in machine.agentctl("history").data["restarts"] if item["unit"].endswith("slow.service")]
    assert entry["outcome"]["result"] == "fresh"
    words = "journalctl -q -o cat _SYSTEMD_UNIT=user@1000.service USER_UNIT=slow.service | grep -c ^Started"
    assert machine.run(words).stdout.strip() == "2"


@pytest.mark.suites("bookworm", "trixie")
def test_what_a_user_calls_his_control_groups_is_about_himself_alone(machine: Machine) -> None:
    """SEC-7, on a real kernel: names of the system's units, and names that are none."""
    scenario.tiny_service(machine)
    policy(machine, EVERY)
    machine.write("/home/alice/moves.py", MOVES)
    for number, name in enumerate(("a.slice/ssh.service", "$(reboot).service", "b.slice/session-1.scope")):
        machine.write("/home/alice/name", name)
        user_service(machine, ALICE, f"moves{number}.service", "/usr/bin/python3 /home/alice/moves.py")
        machine.until(lambda: machine.exists(f"{OWN}/{name}"), 10, name)
    ssh = machine.pid("ssh.service")
    machine.run(["dpkg", "-i", scenario.tiny_package(machine, 1)])
    machine.wait()
    found = machine.agentctl("status").findings
    told = {subject(ALICE, "ssh.service"), "user@1000.service", subject(ALICE, "session-1.scope")}
    assert told <= set(found) and not {"ssh.service", "session-1.scope"} & set(found)
    assert not [name for name in found if "reboot" in name]
    assert restarts(machine)["tiny.service"]["result"] == "fresh"
    assert restarts(machine)[subject(ALICE, "ssh.service")]["result"] == "leftover"
    assert set(restarts(machine)) == {"tiny.service", subject(ALICE, "ssh.service")}
    assert machine.pid("ssh.service") == ssh
