"""Nothing is lost and nothing is done twice, whoever is killed and whenever."""

import subprocess
import time
from collections.abc import Callable

import pytest

from tests.e2e import scenario
from tests.e2e.machine import Machine
from tests.e2e.scenario import Before
from tests.e2e.session import Session

SLOW = ("slow-one", "slow-two")


def _killed_before(machine: Machine, admin: Session) -> None:
    machine.kill_daemon()
    scenario.by_apt(admin)


def _killed_during(machine: Machine, admin: Session) -> None:
    names = " ".join(scenario.packages(machine))
    apt = machine.start(f"exec apt-get -y install --only-upgrade {names} >/dev/null")
    log = "/var/log/dpkg.log"
    machine.until(lambda: "status half-installed lib" in machine.read(log), 20, "dpkg to unpack", pause=0)
    machine.kill_daemon()
    assert apt.wait(60) == 0


def _killed_after(machine: Machine, admin: Session) -> None:
    scenario.by_apt(admin)
    machine.kill_daemon()


def _killed_while_checking(machine: Machine, admin: Session) -> None:
    scenario.by_apt(admin)
    machine.until(lambda: machine.agentctl("status").data["phase"] == "checking", 15, "the check", pause=0)
    machine.kill_daemon()


MOMENTS: dict[str, Callable[[Machine, Session], None]] = {
    "before": _killed_before,
    "during": _killed_during,
    "after": _killed_after,
    "while-checking": _killed_while_checking,
}


BOOKWORM, TRIXIE = pytest.mark.suites("bookworm"), pytest.mark.suites("trixie")


@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("before", marks=BOOKWORM),
        pytest.param("during", marks=TRIXIE),
        pytest.param("after", marks=TRIXIE),
        pytest.param("while-checking", marks=BOOKWORM),
    ],
)
def test_a_daemon_killed_around_a_transaction_finishes_the_work_once(machine: Machine, moment: str) -> None:
    with machine.ssh() as admin:
        before = scenario.look(machine)
        MOMENTS[moment](machine, admin)
    settled(machine)
    scenario.assert_all_fresh(machine, before)
    scenario.assert_restarted_once(machine, scenario.without(before, scenario.AGENT))


def test_a_daemon_killed_after_each_restart_finishes_the_rest_and_repeats_none(machine: Machine) -> None:
    for name in SLOW:
        scenario.python_service(machine, name, extra="ExecStop=/bin/sleep 1.5")
    with machine.ssh() as admin:
        before = scenario.look(machine)
        assert {f"{name}.service" for name in SLOW} <= before.restartable
        scenario.by_apt(admin)
    kills = kill_at_each_restart(machine, before)
    assert kills >= 3, "the daemon was to be killed between the steps of its waves"
    settled(machine)
    scenario.assert_all_fresh(machine, before)
    scenario.assert_restarted_once(machine, scenario.without(before, scenario.AGENT))
    scenario.assert_all_proven(machine)


@pytest.mark.parametrize("delay", [pytest.param(0.0, marks=BOOKWORM), pytest.param(2.0, marks=TRIXIE)])
def test_a_daemon_killed_while_units_stop_repeats_none(machine: Machine, delay: float) -> None:
    scenario.python_service(machine, SLOW[0], extra="ExecStop=/bin/sleep 3")
    with machine.ssh() as admin:
        before = scenario.look(machine)
        scenario.by_apt(admin)
    unit = f"{SLOW[0]}.service"
    machine.until(lambda: machine.unit(unit)["ActiveState"] == "deactivating", 20, f"{unit} to stop", pause=0)
    time.sleep(delay)
    machine.kill_daemon()
    settled(machine)
    scenario.assert_all_fresh(machine, before)
    scenario.assert_restarted_once(machine, scenario.without(before, scenario.AGENT))
    scenario.assert_all_proven(machine)


def test_a_killed_dpkg_is_reported_and_nothing_half_configured_is_restarted(stock: Machine) -> None:
    machine = stock
    scenario.tiny_service(machine)
    tiny = machine.pid("tiny.service")
    before = scenario.look(machine)
    _kill_dpkg_in_postinst(machine)
    machine.wait()
    scenario.assert_all_fresh(machine, before)
    finding = machine.agentctl("status").findings["tiny.service"]
    assert machine.pid("tiny.service") == tiny, "a half-configured service was restarted"
    assert finding["evidence"]["disposition"] == "defer"
    assert "dpkg --configure -a" in finding["evidence"]["reason"] + finding["advice"]
    told = machine.journal(identifier="aftercared", message_id="ceefc48c46084c90a052bef55bd5cc2c")
    assert told and "tiny" in told[-1]["MESSAGE"]
    assert "tiny" in machine.agentctl("history").data["transactions"][0]["unfinished"]
    machine.run("sed -i 's/sleep 300/:/' /var/lib/dpkg/info/tiny.postinst; dpkg --configure -a")
    machine.wait()
    assert machine.pid("tiny.service") not in (0, tiny), "once configured, it was to be restarted"
    assert "tiny.service" not in machine.agentctl("status").findings


def _kill_dpkg_in_postinst(machine: Machine) -> None:
    """Upgrade the libraries, which gets done, and at once `tiny`, whose postinst dies together with dpkg."""
    broken = scenario.tiny_package(machine, 1, postinst="touch /run/in-postinst; sleep 300")
    debs = " ".join(machine.base.pair(name).deb for name in scenario.packages(machine))
    dpkg = machine.start(f"dpkg -i {debs}; exec dpkg -i {broken}", stdout=subprocess.DEVNULL)
    machine.until(lambda: machine.exists("/run/in-postinst"), 30, "the postinst")
    for words in (["-x", "dpkg"], ["-f", "tiny.postinst"], ["-f", "sleep 300"]):
        machine.run(["pkill", "-KILL", *words])
    assert dpkg.wait(10) != 0


def settled(machine: Machine) -> None:
    """Wait until systemd has brought the daemon back and it is done."""
    machine.wait(120)


def kill_at_each_restart(machine: Machine, before: Before) -> int:
    """Kill the daemon each time that one more unit has been started anew; return how often."""
    before = scenario.without(before, scenario.AGENT)
    units = sorted(before.restartable)
    seen = invocations(machine, units)
    kills, deadline = 0, time.monotonic() + 150
    while time.monotonic() < deadline:
        done, now = scenario.all_restarted(machine, before), invocations(machine, units)
        if now != seen and machine.pid(scenario.AGENT):
            machine.kill_daemon()
            kills, seen = kills + 1, now
        if done:
            break
    return kills


def invocations(machine: Machine, units: list[str]) -> str:
    """Return the invocation of each unit; it changes with each start."""
    return machine.show("--property=InvocationID", *units)
