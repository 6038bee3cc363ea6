"""The main job: after a real upgrade, every affected service is fresh, once, and the rest is told."""

from pathlib import Path

import pytest

from tests.e2e import roots, scenario
from tests.e2e.machine import Machine

STALE_FOUND = "595d094a3ca1431b9b0e3338184f5e5d"
RESTART_BEGUN = "9a4243e48b2c47828ba76485ef1547e5"
VERIFIED = "0c5e790fc82f44d1b047b055488f38df"
WAYS = {"apt": scenario.by_apt, "dpkg": scenario.by_dpkg}


@pytest.mark.parametrize("way", WAYS)
def test_services_are_fresh_within_ten_seconds_and_the_ssh_session_survives(stock: Machine, way: str) -> None:
    with stock.ssh("alice") as alice, stock.ssh() as admin:
        before = scenario.look(stock)
        assert {"nginx.service", "ssh.service", "exim4.service", "user@1000.service"} <= set(before.users)
        services = scenario.without(before, scenario.AGENT)
        exited = WAYS[way](admin)
        all_new = lambda: scenario.all_restarted(stock, services)  # noqa: E731
        stock.until(all_new, 60, "all services to be new")
        began = {unit: int(stock.unit(unit)["ActiveEnterTimestampMonotonic"]) / 1e6 for unit in services.restartable}
        assert not {unit: at - exited for unit, at in began.items() if at - exited > scenario.WITHIN}
        stock.wait()
        scenario.assert_all_fresh(stock, before)
        scenario.assert_spared_are_reported(stock, before)
        scenario.assert_restarted_once(stock, before)
        assert int(alice.run("echo $$").stdout) == alice.pid
        assert int(admin.run("echo $$").stdout) == admin.pid


def test_unattended_upgrades_in_minimal_steps_restart_each_unit_once_and_at_the_end(stock: Machine) -> None:
    before = scenario.upgrade(stock, scenario.by_unattended)
    assert "All upgrades installed" in stock.read("/var/log/unattended-upgrades/unattended-upgrades.log")
    scenario.assert_all_fresh(stock, before)
    counted = scenario.restarts_since(stock, before)
    for unit in before.restartable - {scenario.AGENT}:
        own_package_too = 2 if unit in ("nginx.service", "exim4.service", "cron.service", "ssh.service") else 1
        assert 1 <= counted[unit] <= own_package_too, f"{unit} was started {counted[unit]} times"
    scenario.assert_all_proven(stock)
    assert len(stock.agentctl("history").data["transactions"]) == 1
    ended = int(stock.unit("apt-daily-upgrade.service")["ExecMainExitTimestampMonotonic"])
    begun = [int(row["__MONOTONIC_TIMESTAMP"]) for row in stock.journal(message_id=RESTART_BEGUN)]
    assert begun and min(begun) > ended - 2_000_000, "restarted in the middle of it"


def test_a_reinstalled_library_restarts_nothing_and_hides_no_upgrade(machine: Machine) -> None:
    pair = machine.base.pair(machine.base.crypto)
    before = scenario.look(machine, [pair.package])
    machine.run(f"apt-get -y --reinstall install {pair.package}={pair.old}")
    assert set(machine.replaced()) >= before.users["nginx.service"]
    machine.wait()
    status = machine.agentctl("status")
    assert scenario.restarts_since(machine, before) == {}
    assert (status.status, status.findings) == (0, {})
    identical = status.data["detail"]["libraries"]["identical"]["nginx.service"]
    assert any("libssl.so.3" in path for path in identical)
    before = scenario.upgrade(machine)
    scenario.assert_all_fresh(machine, before)


@pytest.mark.suites("bookworm")
def test_the_chain_from_apt_to_the_new_process_is_told(machine: Machine) -> None:
    before = scenario.upgrade(machine)
    pair = machine.base.pair(machine.base.crypto)
    why = machine.agentctl("why", "nginx")
    text = "\n".join(link["text"] for link in why.data["chain"])
    assert "apt-get -y install --only-upgrade" in text
    assert pair.package in text and pair.old in text and pair.new in text
    assert {"command", "package", "unit", "result"} <= {link["step"] for link in why.data["chain"]}
    history = machine.agentctl("history").data
    (transaction,) = history["transactions"]
    changed = {change["package"]: (change["old"], change["new"]) for change in transaction["changes"]}
    assert changed[pair.package] == (pair.old, pair.new)
    assert {restart["unit"] for restart in history["restarts"]} >= before.restartable
    verified = machine.journal(identifier="aftercared", message_id=VERIFIED)
    assert {row["UNIT"] for row in verified} >= {"nginx.service", "ssh.service", "exim4.service"}
    explained = machine.run(f"journalctl -x --no-pager -q -n 3 MESSAGE_ID={VERIFIED}").stdout
    assert "░░" in explained, "the catalog does not explain the message"


@pytest.mark.suites("trixie")
def test_mode_observe_names_the_fixes_not_in_effect_and_one_command_restarts_all(machine: Machine) -> None:
    machine.write("/etc/aftercare/aftercare.toml", 'mode = "observe"\n')
    machine.run("systemctl reload aftercare.service")
    before = scenario.upgrade(machine)
    assert scenario.restarts_since(machine, before) == {}
    answer = machine.agentctl("status")
    assert answer.status == 1
    nginx = answer.findings["nginx.service"]
    assert (nginx["id"], nginx["check"]) == ("libraries/nginx.service", "libraries")
    assert nginx["evidence"]["disposition"] == "restart"
    processes = nginx["evidence"]["processes"]
    assert {process["pid"] for process in processes} == set(machine.pids("nginx.service"))
    files = [file for process in processes for file in process["files"]]
    libssl = next(file for file in files if file["path"].endswith("/libssl.so.3"))
    pair = machine.base.pair(machine.base.crypto)
    assert (libssl["package"], libssl["running"], libssl["installed"]) == (pair.package, pair.old, pair.new)
    assert pair.rebuilt or nginx["evidence"]["cves"], "the changelogs list fixes for openssl"
    answer = machine.agentctl("restart", "--all")
    assert answer.status == 0, answer
    machine.wait()
    scenario.assert_all_fresh(machine, before)


@pytest.mark.suites("bookworm")
def test_what_was_stale_before_the_installation_is_only_reported(bare: Machine, package: Path) -> None:
    with bare.ssh() as admin:
        before = scenario.look(bare)
        scenario.by_apt(admin)
    bare.install(package)
    bare.wait()
    answer = bare.agentctl("status")
    assert scenario.restarts_since(bare, before) == {"aftercare.service": 1}
    assert {"nginx.service", "ssh.service", "exim4.service"} <= set(answer.findings)
    assert {found["evidence"]["confidence"] for found in answer.findings.values()} == {"likely"}
    assert bare.agentctl("restart", "nginx.service").status == 0
    assert scenario.is_restarted(bare, before, "nginx.service")
    assert not set(bare.pids("nginx.service")) & set(bare.replaced())


@pytest.mark.suites("trixie")
def test_an_upgrade_while_the_daemon_is_stopped_is_caught_up_at_its_start(machine: Machine) -> None:
    machine.run("systemctl stop aftercare.service")
    with machine.ssh() as admin:
        before = scenario.look(machine)
        scenario.by_apt(admin)
    assert not scenario.all_restarted(machine, before)
    machine.run("systemctl start aftercare.service")
    machine.wait()
    scenario.assert_all_fresh(machine, before)
    scenario.assert_spared_are_reported(machine, before)


@pytest.mark.suites("bookworm")
def test_a_disk_that_was_copied_to_another_machine_is_known_anew(
    base: roots.Base, machine: Machine, package: Path
) -> None:
    machine.poweroff()
    with Machine(base, machine.root) as copy:
        copy.wait()
        assert copy.agentctl("status").findings == {}
        assert copy.agentctl("history").data["transactions"] == [], "dpkg did nothing: the disk was copied"
        before = scenario.upgrade(copy)
        scenario.assert_all_fresh(copy, before)


@pytest.mark.suites("trixie")
def test_downloads_and_transactions_that_change_nothing_start_no_work(machine: Machine) -> None:
    names = " ".join(scenario.packages(machine))
    machine.run(f"apt-get -y --download-only install --only-upgrade {names}")
    machine.run("apt-get -y install --no-upgrade nginx-light")
    machine.run(["dpkg", "--configure", "-a"])
    machine.wait()
    assert machine.agentctl("history").data["transactions"] == []
    assert machine.journal(message_id=STALE_FOUND) == []
