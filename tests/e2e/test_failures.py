"""A unit that does not come back is told once, loudly, with what it said; everything else is finished."""

import time

import pytest

from tests.e2e import scenario
from tests.e2e.machine import Machine

BROKEN = "broken.service"
BRAKED = "2b0806e7ef94487494e50f982f9f915e"
FAILED = "e82cabe478224cf7a04011c2f3324f2f"
REFUSES = """ExecStart=
ExecStart=/bin/sh -c 'test -e /opt/flag && { echo broken refuses to start: no such tenant; sleep 0.1; exit 1; }; \
exec /usr/bin/python3 /opt/broken.py'
"""
"""At once: what loads a library first may look well for as long as that takes."""


def resume(machine: Machine, before: scenario.Before) -> None:
    """Fail unless its own wave was finished and ssh, which comes after it, waits for somebody's word; give it."""
    status = machine.agentctl("status").data
    assert status["braked"] and status["held"].startswith(f"{BROKEN} (failed)")
    held = {"ssh.service", "init.scope", "aftercare.service"}
    waiting = {item["subject"] for item in status["findings"] if item["evidence"]["disposition"] == "restart"}
    assert waiting == held
    assert all(scenario.is_restarted(machine, before, unit) for unit in before.restartable - held)
    (told,) = machine.journal(identifier="aftercared", message_id=BRAKED)
    assert "restart --resume" in told["MESSAGE"]
    done = machine.agentctl("restart", "--resume")
    assert [item["result"] for item in done.data["restarts"]] == ["fresh", "fresh"], done
    machine.wait()


def test_a_unit_that_does_not_come_back_is_critical_and_tried_once(machine: Machine) -> None:
    scenario.python_service(machine, "broken", extra=REFUSES)
    machine.run("touch /opt/flag")
    before = scenario.upgrade(machine)
    rest = scenario.without(before, BROKEN)
    resume(machine, rest)
    scenario.assert_all_fresh(machine, rest)
    scenario.assert_spared_are_reported(machine, rest)
    answer = machine.agentctl("status")
    finding = answer.findings[BROKEN]
    assert answer.status == 1
    assert finding["severity"] == "critical"
    assert finding["evidence"]["outcome"]["result"] == "failed"
    assert "no such tenant" in "\n".join(finding["evidence"]["outcome"]["journal"])
    assert BROKEN in finding["advice"]
    (told,) = machine.journal(identifier="aftercared", message_id=FAILED)
    assert told["UNIT"] == BROKEN
    time.sleep(8)
    machine.kill_daemon()
    machine.wait()
    assert scenario.restarts_since(machine, before)[BROKEN] == 1
    assert scenario.attempts(machine)[BROKEN] == 1
    assert machine.agentctl("status").findings[BROKEN]["severity"] == "critical"
    machine.run(f"rm /opt/flag; systemctl start {BROKEN}")
    machine.run(["dpkg", "-i", scenario.tiny_package(machine, 1)])
    machine.wait()
    assert BROKEN not in machine.agentctl("status").findings


@pytest.mark.suites("trixie")
def test_systemds_own_retries_are_left_to_systemd(machine: Machine) -> None:
    """Restart=always: systemd tries five times and gives up; aftercare tries once."""
    scenario.python_service(machine, "broken", extra=f"{REFUSES}\nRestart=always\nRestartSec=200ms")
    machine.run("touch /opt/flag")
    before = scenario.upgrade(machine)
    resume(machine, scenario.without(before, BROKEN))
    scenario.assert_all_fresh(machine, scenario.without(before, BROKEN))
    assert machine.agentctl("status").findings[BROKEN]["severity"] == "critical"
    assert scenario.attempts(machine)[BROKEN] == 1
    started = scenario.restarts_since(machine, before)[BROKEN]
    time.sleep(5)
    assert scenario.restarts_since(machine, before)[BROKEN] == started <= 6


@pytest.mark.suites("bookworm")
def test_an_unreadable_status_of_dpkg_is_said_and_what_was_known_stays(machine: Machine) -> None:
    machine.run("mv /var/lib/dpkg/status /var/lib/dpkg/aside; : >>/var/lib/dpkg/lock-frontend")
    trouble = machine.until(lambda: machine.agentctl("status").data["trouble"], 20, "the trouble to be told")
    assert "/var/lib/dpkg/status" in trouble
    machine.run("mv /var/lib/dpkg/aside /var/lib/dpkg/status")
    before = scenario.upgrade(machine)
    scenario.assert_all_fresh(machine, before)
    assert machine.agentctl("status").data["trouble"] == ""


STORE = "/var/lib/aftercare"


def fill(machine: Machine) -> None:
    """Leave no room in the daemon's directory, which is a small disk of its own by now."""
    machine.run(f"cat /dev/zero >{STORE}/fill || :; sync")


@pytest.mark.suites("bookworm")
def test_a_full_disk_hides_nothing_and_has_nothing_restarted_until_there_is_room(machine: Machine) -> None:
    moved = f"cp -a {STORE} /root/kept; mount -t tmpfs -o size=6M,mode=0700 none {STORE}; cp -a /root/kept/. {STORE}"
    machine.run(f"systemctl stop aftercare; {moved}; systemctl start aftercare")
    machine.wait()
    with machine.ssh() as admin:
        before = scenario.look(machine)
        fill(machine)
        scenario.by_apt(admin)
    trouble = machine.until(lambda: machine.agentctl("status").data["trouble"], 30, "the trouble to be told")
    assert "cannot be written" in trouble
    status = machine.agentctl("status")
    assert status.status == 1 and before.restartable <= set(status.findings)
    assert machine.run("agentctl status", check=False).stdout.startswith("the history,")
    refused = machine.agentctl("restart", "ssh")
    assert refused.status == 3 and "cannot be written" in refused.stderr
    doctor = machine.agentctl("doctor")
    assert doctor.status == 1 and "cannot be written" in str(doctor.data["verdicts"])
    machine.run("systemctl kill --signal=KILL aftercare")
    others = before.restartable - {"aftercare.service"}
    machine.until(lambda: others <= set(machine.agentctl("status").findings), 30, "a start on a full disk")
    time.sleep(5)
    assert machine.unit("aftercare.service")["NRestarts"] == "1"
    assert not any(scenario.is_restarted(machine, before, unit) for unit in others)
    machine.run(f"systemctl stop aftercare; mount -o remount,ro {STORE}; systemctl start aftercare")
    machine.until(lambda: others <= set(machine.agentctl("status").findings), 30, "a start on a read-only disk")
    assert "ead-only" in machine.agentctl("status").data["trouble"]
    machine.run(f"systemctl stop aftercare; mount -o remount,rw {STORE}; systemctl start aftercare")
    machine.until(lambda: others <= set(machine.agentctl("status").findings), 30, "a start on a full disk once more")
    machine.run(f"rm {STORE}/fill")
    machine.wait()
    scenario.assert_all_fresh(machine, before)
    assert machine.agentctl("status").data["trouble"] == ""
    assert machine.agentctl("history").data["transactions"]


@pytest.mark.suites("bookworm")
def test_a_configuration_that_was_mended_is_tested_again_after_the_next_transaction(machine: Machine) -> None:
    broken = "/etc/nginx/conf.d/broken.conf"
    machine.write(broken, "# a typo\nserver_tokns off;\n")
    before = scenario.upgrade(machine)
    finding = machine.agentctl("status").findings["nginx.service"]
    assert "(tested at " in finding["evidence"]["reason"] and finding["advice"].startswith("mend that, then: ")
    why = machine.run("agentctl why nginx").stdout
    assert "restarted by aftercare" not in why and "looked at by aftercare" in why
    machine.run(["rm", broken])
    machine.run(["dpkg", "-i", scenario.tiny_package(machine, 1)])
    machine.wait()
    scenario.assert_all_fresh(machine, before)
