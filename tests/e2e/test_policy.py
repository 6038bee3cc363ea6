"""Restarts that keep to a policy: windows, how often, allow-lists, and two hundred units in one pass."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e import mirror, scenario
from tests.e2e.machine import Machine

POLICY = "/etc/aftercare/aftercare.toml.d/50-policy.toml"


def policy(machine: Machine, text: str) -> None:
    """Write a configuration file and have it read."""
    machine.write(POLICY, text)
    machine.run("systemctl reload aftercare")
    machine.wait()
    assert not machine.agentctl("status").data["rejected"]


def evidence(machine: Machine, unit: str) -> dict[str, Any]:
    """Return the evidence of the finding on a unit."""
    found: dict[str, Any] = machine.agentctl("status").findings[unit]["evidence"]
    return found


@pytest.mark.suites("bookworm", "trixie")
def test_a_closed_window_defers_until_it_opens_also_over_a_new_start_of_the_daemon(machine: Machine) -> None:
    scenario.tiny_service(machine)
    deb = scenario.tiny_package(machine, 1)
    opens = datetime.now(UTC) + timedelta(seconds=45)
    window = f'window = "{opens:%Y-%m-%d %H:%M:%S} UTC"'
    policy(machine, f'[[rule]]\nmatch = "tiny.service"\n{window}\nwindow_length = 600\n')
    before = machine.pid("tiny.service")
    machine.run(["dpkg", "-i", deb])
    machine.wait()
    found = evidence(machine, "tiny.service")
    assert (found["disposition"], found["opens_at"]) == ("defer", f"{opens:%Y-%m-%dT%H:%M:%SZ}")
    assert f"{opens:%H:%M:%S}" in found["reason"], "the window itself is shown"
    assert machine.pid("tiny.service") == before
    machine.run("systemctl restart aftercare")
    machine.wait()
    assert evidence(machine, "tiny.service")["disposition"] == "defer"
    left = (opens - datetime.now(UTC)).total_seconds()
    assert left > 0, "the window opened before the daemon was back: the test proves nothing"
    time.sleep(left + 1)
    machine.until(lambda: machine.pid("tiny.service") not in (0, before), 15, "the window to be used")
    machine.until(lambda: "tiny.service" not in machine.agentctl("status").findings, 15, "the finding to go")
    assert scenario.attempts(machine)["tiny.service"] == 1


@pytest.mark.suites("bookworm")
def test_what_waits_for_its_window_is_restarted_at_once_where_somebody_says_so(machine: Machine) -> None:
    scenario.tiny_service(machine)
    policy(machine, '[[rule]]\nmatch = "tiny.service"\nwindow = "2001-01-01 03:00"\n')
    before = machine.pid("tiny.service")
    machine.run(["dpkg", "-i", scenario.tiny_package(machine, 1)])
    machine.wait()
    assert evidence(machine, "tiny.service")["opens_at"] is None, "a window that never opens again"
    assert machine.agentctl("restart", "tiny").data["restarts"][0]["result"] == "fresh"
    assert machine.pid("tiny.service") != before


@pytest.mark.suites("bookworm")
def test_a_window_that_systemd_does_not_understand_is_refused_and_the_last_good_policy_stays(machine: Machine) -> None:
    policy(machine, '[[rule]]\nmatch = "tiny.service"\ndisposition = "never"\n')
    machine.write(POLICY, '[[rule]]\nmatch = "tiny.service"\nwindow = "Caturday 03:00"\n')
    machine.run("systemctl reload aftercare")
    rejected = machine.until(lambda: machine.agentctl("status").data["rejected"], 10, "the refusal")
    assert "Caturday" in rejected and POLICY in rejected


@pytest.mark.suites("trixie")
def test_an_allow_list_restarts_what_it_names_and_nothing_else(machine: Machine) -> None:
    policy(
        machine,
        '[[rule]]\nmatch = "*"\ndisposition = "defer"\nwhy = "by name alone"\n'
        '[[rule]]\nmatch = "nginx.service"\ndisposition = "restart"\n',
    )
    before = scenario.upgrade(machine)
    assert scenario.is_restarted(machine, before, "nginx.service")
    left = before.restartable - {"nginx.service"}
    assert {evidence(machine, unit)["disposition"] for unit in left} == {"defer"}
    assert set(scenario.restarts_since(machine, before)) == {"nginx.service"}


@pytest.mark.suites("bookworm")
def test_ten_transactions_in_a_row_never_meet_the_start_limit_of_ssh(machine: Machine) -> None:
    """needrestart#340: glibc, step by step, had sshd restarted so often that systemd refused to start it again."""
    machine.run("rm /etc/aftercare/aftercare.toml.d/10-quick.toml; systemctl restart aftercare")
    scenario.rebuilt(machine, "libc6")
    libraries = sorted(path for path in machine.path("/root/libc6").rglob("*.so*") if path.is_file())
    with machine.ssh() as lingering:
        before = scenario.look(machine, ["libc6"])
        for number in range(10):
            deb, version = f"/root/again-{number}.deb", f"s/^\\(Version: .*rebuilt\\).*/\\1{number}/"
            control = f"sed -i '{version}' /root/libc6/DEBIAN/control"
            lingering.run(f"{control}; dpkg-deb -Znone -b /root/libc6 {deb}; dpkg -i {deb}; rm {deb}")
            machine.wait(120)
            for path in libraries:
                mirror.change_build_id(path)
        assert machine.unit("ssh.service")["ActiveState"] == "active"
        assert machine.unit("ssh.service")["Result"] == "success"
        assert 1 <= scenario.restarts_since(machine, before)["ssh.service"] <= 3
        found = evidence(machine, "ssh.service")
        assert found["disposition"] == "defer" and "too often" in found["reason"] and found["opens_at"]
        assert lingering.run("echo still here").stdout.strip() == "still here"
    results = {item["outcome"]["result"] for item in machine.agentctl("history").data["restarts"] if item["outcome"]}
    assert "start-limit" not in results


def test_a_broken_configuration_keeps_nginx_on_its_old_code_and_is_named_with_file_and_line(machine: Machine) -> None:
    broken = "/etc/nginx/conf.d/broken.conf"
    machine.write(broken, "# a typo\nserver_tokns off;\n")
    before = scenario.upgrade(machine)
    found = machine.agentctl("status").findings["nginx.service"]
    assert found["severity"] == "critical"
    outcome = found["evidence"]["outcome"]
    assert outcome["result"] == "precheck-failed"
    assert f"{broken} line 2" in outcome["hint"] and "server_tokns" in outcome["hint"]
    assert machine.pid("nginx.service") == before.main["nginx.service"]
    machine.run(["python3", "-c", "import urllib.request; urllib.request.urlopen('http://localhost/')"])
    scenario.assert_all_fresh(machine, scenario.without(before, "nginx.service"))
    shown = machine.run("agentctl status", check=False).stdout
    assert broken in shown and "agentctl restart nginx.service" in shown
    machine.run(["rm", broken])
    assert machine.agentctl("restart", "nginx").data["restarts"][0]["result"] == "fresh"
    scenario.assert_all_fresh(machine, before)


@pytest.mark.suites("trixie")
def test_a_unit_that_runs_and_does_not_answer_is_told_until_it_does(machine: Machine) -> None:
    scenario.tiny_service(machine)
    policy(machine, '[[rule]]\nmatch = "tiny.service"\nprobe = "tcp:127.0.0.1:7777"\n')
    machine.run(["dpkg", "-i", scenario.tiny_package(machine, 1)])
    machine.wait()
    found = machine.agentctl("status").findings["tiny.service"]
    assert (found["severity"], found["evidence"]["outcome"]["result"]) == ("critical", "probe-failed")
    assert "tcp:127.0.0.1:7777" in found["summary"]
    assert machine.unit("tiny.service")["ActiveState"] == "active"
    machine.wait()
    assert "tiny.service" in machine.agentctl("status").findings
    machine.run("systemd-run -q --unit=answers python3 -m http.server --bind 127.0.0.1 7777")
    machine.until(lambda: not machine.run("ss -ltn | grep -q :7777", check=False).status, 10, "the port")
    machine.run(["dpkg", "-i", scenario.tiny_package(machine, 3)])
    machine.wait()
    assert "tiny.service" not in machine.agentctl("status").findings


@pytest.mark.suites("bookworm", "trixie")
def test_an_upgrade_of_the_agent_its_python_and_libc_in_the_middle_of_a_wave_ends_it_exactly_once(
    machine: Machine,
) -> None:
    slow = "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(6), os._exit(0)))"
    scenario.python_service(machine, "slow", slow)
    python = machine.run("readlink -f /usr/bin/python3").stdout.strip().rpartition("/")[2]
    debs = [scenario.rebuilt(machine, name) for name in ("aftercare", "libc6", f"{python}-minimal")]
    with machine.ssh() as admin:
        before = scenario.look(machine)
        scenario.by_apt(admin)
        machine.until(lambda: machine.unit("slow.service")["ActiveState"] == "deactivating", 30, "a wave")
        admin.run(f"dpkg -i --force-depends {' '.join(debs)}")
    machine.wait(120)
    scenario.assert_all_fresh(machine, before)
    counted = scenario.attempts(machine)
    assert counted["slow.service"] <= 2, "once for each transaction at most"
    history = machine.agentctl("history").data
    tried = [(item["unit"], (item["transaction"] or {}).get("id")) for item in history["restarts"]]
    assert len(tried) == len(set(tried)), "a unit was restarted twice for one transaction"
    assert all(item["outcome"] for item in history["restarts"]), "a restart was begun and never ended"


MIXED = """
[[rule]]
match = "tiny@1?.service"
disposition = "defer"
[[rule]]
match = "tiny@2?.service"
disposition = "never"
[[rule]]
match = "tiny@3?.service"
wave = 20
settle = 0.5
[[rule]]
match = "tiny@4?.service"
window = "2101-01-01 03:00"
[[rule]]
match = "tiny@5?.service"
disposition = "reboot"
"""
UNITS = 200
SPARED = ("defer", "never", "reboot")


@pytest.mark.suites("bookworm")
def test_two_hundred_stale_units_are_dealt_with_in_one_pass(machine: Machine) -> None:
    names = [f"tiny@{number}.service" for number in range(UNITS)]
    machine.run(["dpkg", "-i", scenario.tiny_package(machine, 0)])
    machine.write("/etc/systemd/system/tiny@.service", "[Service]\nType=exec\nExecStart=/usr/bin/tiny infinity\n")
    machine.run(f"systemctl daemon-reload; systemctl start {' '.join(names)}")
    policy(machine, MIXED)
    for version in (1, 2):
        before = {name: machine.pid(name) for name in ("tiny@0.service", "tiny@10.service")}
        machine.run(["dpkg", "-i", scenario.tiny_package(machine, version)])
        machine.wait(180)
        status = machine.agentctl("status").data
        results = {item["unit"]: item for item in status["restarts"] if item["unit"] in names}
        kept = {item["subject"] for item in status["findings"] if item["evidence"]["disposition"] in SPARED}
        assert len(kept & set(names)) == (40 if version == 1 else 0), "version 2 has the code of version 0 again"
        assert len(results) == UNITS - 40
        assert {item["result"] for item in results.values()} == {"fresh"}
        assert machine.pid("tiny@0.service") != before["tiny@0.service"]
        assert machine.pid("tiny@10.service") == before["tiny@10.service"]
    states = machine.run(f"systemctl is-active {' '.join(names)}").stdout.split()
    assert states == ["active"] * UNITS, "a unit is in a worse state than before"
    assert all(0 <= item["expected"] < 30 and "job" in item["took"] for item in results.values())
    shown = machine.run("agentctl status", check=False).stdout
    assert "expected" in shown and "took" in shown, shown
