"""Bad input gives one clear sentence and its exit status; the daemon goes on with what was good."""

import json
from pathlib import Path

import pytest

from tests.e2e import roots, scenario
from tests.e2e.machine import Machine
from tests.e2e.nspawn import inside

CONFIG = "/etc/aftercare/aftercare.toml"
REJECTED = "335b03fd3b4149dca4c07a1b821010f0"
RECOVERED = "a67af32c09d64e7eb2e7f564782c18a0"


BAD = {
    "no TOML": ("mode = \n", 0o644),
    "unknown key": ('mood = "auto"\n', 0o644),
    "world-writable": ('mode = "auto"\n', 0o666),
}


@pytest.mark.suites("bookworm")
def test_a_bad_configuration_is_refused_and_the_last_good_one_stays(machine: Machine) -> None:
    machine.write(CONFIG, 'mode = "observe"\n')
    machine.run("systemctl reload aftercare.service")
    pid = machine.pid("aftercare.service")
    for how, (text, mode) in BAD.items():
        machine.write(CONFIG, text, mode)
        machine.run("systemctl reload aftercare.service")
        status = machine.agentctl("status").data
        assert (machine.pid("aftercare.service"), status["mode"]) == (pid, "observe"), how
        assert CONFIG in status["rejected"]
        told = machine.journal(identifier="aftercared", message_id=REJECTED)
        assert CONFIG in told[-1]["MESSAGE"]
        check = machine.run("agentctl check", check=False)
        assert check.status == 2
        assert CONFIG in check.stderr and scenario.one_sentence(check.stderr), check
    machine.run("systemctl restart aftercare.service")
    machine.wait()
    assert machine.agentctl("status").data["mode"] == "observe", "a restart forgot the last good one"
    machine.write(CONFIG, 'mode = "auto"\n')
    machine.run("systemctl reload aftercare.service")
    status = machine.agentctl("status").data
    assert (status["mode"], status["rejected"]) == ("auto", "")


@pytest.mark.suites("trixie")
def test_a_truncated_state_file_harms_nobody(machine: Machine) -> None:
    machine.run("systemctl stop aftercare.service")
    last = machine.run("agentctl status", check=False)
    assert last.status == 3 and last.stdout, "the state is kept over a stop, and what was known last is shown"
    for content in ("", '{"v": 1, "findings": [', "\0" * 100, "[]"):
        machine.write("/run/aftercare/state.json", content)
        answer = machine.run("agentctl status", check=False)
        assert answer.status == 3
        assert scenario.one_sentence(answer.stderr), answer
    machine.run("systemctl start aftercare.service")
    machine.wait()
    assert machine.run(["python3", "-m", "json.tool", "/run/aftercare/state.json"]).status == 0
    assert machine.agentctl("status").status == 0


@pytest.mark.suites("bookworm")
def test_a_corrupt_history_is_put_aside_said_and_begun_anew(machine: Machine) -> None:
    for content in ("", "SQLite format 3\0 and then rubbish", "nonsense" * 5000):
        machine.run("systemctl stop aftercare.service")
        machine.run("rm -f /var/lib/aftercare/history.sqlite-*")
        machine.write("/var/lib/aftercare/history.sqlite", content, mode=0o600)
        machine.run("systemctl start aftercare.service")
        machine.wait()
        if content:
            told = machine.journal(identifier="aftercared", message_id=RECOVERED)[-1]
            kept = told["MESSAGE"].split("kept as ")[1].split(",")[0]
            assert machine.read(kept) == content
            machine.run(["rm", kept])
    before = scenario.upgrade(machine)
    scenario.assert_all_fresh(machine, before)


@pytest.mark.suites("trixie")
def test_the_logs_of_dpkg_and_apt_are_not_needed(machine: Machine) -> None:
    scenario.tiny_service(machine)
    for version, spoil in enumerate(("mv $0 $0.1", "rm -f $0 $0.1", "mkdir -p $0"), 1):
        for log in ("/var/log/dpkg.log", "/var/log/apt/history.log"):
            machine.run(["sh", "-c", spoil, log])
        before = machine.pid("tiny.service")
        machine.run(["dpkg", "--log=/dev/null", "-i", scenario.tiny_package(machine, version)])
        machine.wait()
        assert machine.pid("tiny.service") not in (0, before), spoil
        (change,) = machine.agentctl("history").data["transactions"][0]["changes"]
        assert (change["old"], change["new"]) == (str(version - 1), str(version))


@pytest.mark.suites("bookworm")
def test_without_systemd_each_program_says_so_in_one_sentence(base: roots.Base, installed: Path) -> None:
    """In the same root, but with a shell as PID 1."""
    script = """
    for words in aftercared 'agentctl status' 'agentctl wait --timeout 1' 'agentctl restart --all'; do
        $words >/tmp/out 2>/tmp/err && status=0 || status=$?
        echo "$words|$status|$(cat /tmp/out)|$(tr '\\n' '~' </tmp/err)"
    done
    agentctl check --json >/tmp/out && status=0 || status=$?
    echo "check|$status|$(python3 -c 'import json; print(json.load(open("/tmp/out"))["v"])')|"
    """
    shown = inside(installed, script, "--volatile=overlay")
    rows = {row[0]: row[1:] for row in (line.split("|") for line in shown.splitlines()) if len(row) == 4}
    assert rows.pop("check") == ["0", "1", ""], shown
    assert {status for status, _, _ in rows.values()} == {"3"}, shown
    for status, out, err in rows.values():
        assert not out and scenario.one_sentence(err.replace("~", "\n")), shown
    assert len(rows) == 4


@pytest.mark.suites("trixie")
def test_without_root_each_command_says_what_is_not_permitted(machine: Machine) -> None:
    for words in ("restart --all", "status --format openmetrics", "history", "plan"):
        answer = machine.run(["agentctl", *words.split()], user="alice", check=False)
        assert (answer.status, answer.stdout) == (4, ""), answer
        assert scenario.one_sentence(answer.stderr), answer
    counts = machine.run("agentctl status --json", user="alice", check=False)
    assert counts.status in (0, 1) and json.loads(counts.stdout).keys() == {"v", "counts", "phase", "known"}, counts
    daemon = machine.run(["/usr/sbin/aftercared"], user="alice", check=False)
    assert daemon.status == 4 and scenario.one_sentence(daemon.stderr), daemon
    machine.run("usermod -aG aftercare alice")
    with machine.ssh("alice") as alice:
        assert alice.run("agentctl status >/dev/null").status == 0
        assert alice.run("agentctl restart --all >/dev/null", check=False).status == 4


@pytest.mark.suites("bookworm")
def test_wrong_usage_exits_with_two(machine: Machine) -> None:
    for words in ("frobnicate", "check nonsense", "restart", "wait --timeout soon", "history --since never"):
        answer = machine.run(["agentctl", *words.split()], check=False)
        assert (answer.status, answer.stdout) == (2, ""), answer
        assert answer.stderr and "Traceback" not in answer.stderr, answer
