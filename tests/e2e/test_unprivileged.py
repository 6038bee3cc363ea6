"""`agentctl check` looks without the daemon, and says what it could not see."""

import pytest

from tests.e2e import scenario
from tests.e2e.machine import Machine

HOLD = "import ssl, time\nprint(flush=True)\ntime.sleep(1000)"


def test_check_without_root_lists_the_callers_own_processes_and_says_what_it_did_not_see(
    bare_with_deb: Machine,
) -> None:
    machine = bare_with_deb
    machine.run("systemctl disable -q --now aftercare.service")
    with machine.ssh("alice") as alice:
        own = alice.background(f"exec python3 -c '{HOLD}'")
        machine.until(lambda: "libssl" in " ".join(machine.maps(own)), 10, "alice to map the TLS library")
        nginx = set(machine.pids("nginx.service"))
        machine.run(f"apt-get -y install --only-upgrade {' '.join(scenario.packages(machine))}")
        answer = alice.run("agentctl check --json", check=False)
        assert answer.status == 1
        data = answer.json()
        processes = [process for found in data["findings"] for process in found["evidence"]["processes"]]
        seen = {process["pid"]: process for process in processes}
        assert own in seen and seen[own]["uid"] == 1000
        assert any(file["path"].endswith("/libssl.so.3") for file in seen[own]["files"])
        assert not nginx & set(seen)
        assert {process["uid"] for process in seen.values()} == {1000}
        assert {found["evidence"]["confidence"] for found in data["findings"]} == {"likely"}
        assert data["unseen"], "it could not look at the processes of others, and does not say so"
    everything = machine.agentctl("check")
    assert everything.status == 1
    assert {"nginx.service", "ssh.service", "exim4.service"} <= set(everything.findings)


@pytest.mark.suites("trixie")
def test_check_finds_nothing_where_nothing_is_stale(machine: Machine) -> None:
    answer = machine.agentctl("check")
    assert (answer.status, answer.findings) == (0, {})
