"""exim's idea of its own name, on a booted machine: noticed when it changes, named, and mended."""

import time

from tests.e2e.machine import Machine

NAME = "host1.example.org"
MOVE = f"""
hostname host1
sed -i '/127.0.1.1/d' /etc/hosts
sed -i "s/^dc_other_hostnames=.*/dc_other_hostnames=''/" /etc/exim4/update-exim4.conf.conf
echo {NAME} >/etc/mailname
"""
SOON = 5.0


def finding(machine: Machine, subject: str) -> bool:
    """Tell whether there is a finding on exim by this subject."""
    return any(item["id"] == f"exim/{subject}" for item in machine.agentctl("status").data["findings"])


def test_an_exim_that_no_longer_knows_its_name_is_noticed_named_and_mended(machine: Machine) -> None:
    machine.until(lambda: "exim" in machine.agentctl("status").data["detail"], 15, "the first look at exim")
    assert not any(item["check"] == "exim" for item in machine.agentctl("status").data["findings"])
    machine.run(MOVE)
    begun = time.monotonic()
    machine.until(lambda: finding(machine, "not-regenerated"), 2 * SOON, "the edited files to be noticed")
    machine.run("update-exim4.conf")
    machine.until(lambda: finding(machine, "own-name"), 2 * SOON, "the lost name to be noticed")
    assert time.monotonic() - begun < 2 * SOON
    assert machine.run(["exim4", "-bt", "--", f"root@{NAME}"], check=False).status == 2
    (found,) = [item for item in machine.agentctl("status").data["findings"] if item["id"] == "exim/own-name"]
    assert found["severity"] == "critical" and f"dc_other_hostnames='{NAME}'" in found["advice"]
    assert "Mailing to remote domains not supported" in found["summary"]
    (told,) = [row for row in machine.journal(identifier="aftercared") if row.get("AFTERCARE_SUBJECT") == "own-name"]
    assert told["PRIORITY"] == "3"

    done = machine.agentctl("exim", "--fix", "own-name", "--yes")
    assert done.status == 0 and done.data["mended"], done
    assert machine.run(["exim4", "-bt", "--", f"root@{NAME}"]).status == 0
    machine.until(lambda: not finding(machine, "own-name"), 3 * SOON, "the finding to go")
    assert machine.agentctl("exim").status == 0


def test_a_host_that_is_renamed_is_noticed_though_no_file_changed(machine: Machine) -> None:
    machine.until(lambda: "exim" in machine.agentctl("status").data["detail"], 15, "the first look at exim")
    machine.run("sed -i '/127.0.1.1/d' /etc/hosts; sleep 2; hostname somewhere-else")
    detail = "somewhere-else"
    machine.until(lambda: detail in str(machine.agentctl("status").data["detail"]["exim"]), 3 * SOON, "the new name")


def test_a_machine_without_exim_has_nothing_to_say_of_it(machine: Machine) -> None:
    machine.run("apt-get -y purge exim4-base exim4-config", timeout=120)
    machine.wait()
    machine.until(lambda: not machine.agentctl("status").data["unseen"], 15, "the look after the removal")
    status = machine.agentctl("status").data
    assert not any(item["check"] == "exim" for item in status["findings"])
