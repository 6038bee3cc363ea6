"""What a restart can come to on a real systemd: each way to fail has its name, and none harms the others."""

import json
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.e2e.machine import Machine

RESTARTER = ("python3", "-I", "/opt/restarter.py", "/opt/tree", "/root/state")
FLAG = "/run/rc-flag"
LIVES = (0.25, 0.35, 0.45, 0.55, 0.7, 0.9, 1.2, 1.6, 2.4)
"""Seconds until the restarter is killed, in its successive lives; all of its work takes about ten."""
LONG = "sleep infinity"
SLEEP = f"ExecStart=/usr/bin/{LONG}"
BAD_START = f"ExecStart=/bin/sh -c 'test -e {FLAG} && {{ echo no such tenant; exit 3; }}; exec {LONG}'"
DEAF = """TimeoutStopSec=25
ExecStart=/bin/sh -c 'trap "" TERM; while :; do sleep 1; done'"""
BOUND = "[Unit]\nBindsTo=rc-base.service\nAfter=rc-base.service\n"

UNITS = {
    "rc-good.service": f"[Service]\n{SLEEP}\n",
    "rc-stops-slowly.service": f"[Service]\n{SLEEP}\nExecStop=/usr/bin/sleep 2\n",
    "rc-fails.service": f"[Service]\n{BAD_START}\n",
    "rc-fails-forever.service": f"[Service]\nRestart=always\nRestartSec=100ms\n{BAD_START}\n",
    "rc-dies.service": (
        f"[Service]\nExecStart=/bin/sh -c 'test -e {FLAG} && {{ sleep 2; echo lost it; exit 3; }}; exec {LONG}'\n"
    ),
    "rc-hangs.service": f"[Service]\n{DEAF}\n",
    "rc-limit.service": f"[Unit]\nStartLimitBurst=1\nStartLimitIntervalSec=600\n[Service]\n{SLEEP}\n",
    "rc-base.service": f"[Service]\n{SLEEP}\n",
    "rc-dependant.service": f"{BOUND}[Service]\n{BAD_START}\n",
    "rc-masked.service": f"[Service]\n{SLEEP}\n",
    "rc-condition.service": f"[Unit]\nConditionPathExists=!{FLAG}\n[Service]\n{SLEEP}\n",
    "rc-forbidden.service": f"[Service]\n{SLEEP}\n",
    "rc-gone.service": "[Service]\nExecStart=/usr/local/bin/rc-sleep infinity\n",
    "rc-edited.service": f"[Service]\n{SLEEP}\n",
    "rc-spares.service": (
        "[Service]\nKillMode=process\nExecStart=/bin/sh -c 'setsid sleep 8888 & exec sleep infinity'\n"
    ),
}
EXPECTED = {
    "rc-good.service": "fresh",
    "rc-stops-slowly.service": "fresh",
    "rc-fails.service": "failed",
    "rc-fails-forever.service": "failed",
    "rc-dies.service": "died-after",
    "rc-hangs.service": "timed-out",
    "rc-limit.service": "start-limit",
    "rc-base.service": "dependant-down",
    "rc-masked.service": "precheck-failed",
    "rc-condition.service": "precheck-failed",
    "rc-forbidden.service": "precheck-failed",
    "rc-gone.service": "precheck-failed",
    "rc-edited.service": "precheck-failed",
    "rc-spares.service": "leftover",
}
POLICY = """#!/bin/sh
[ "$1 $2" = "rc-forbidden restart" ] && exit 101
exit 104
"""


def furnish(machine: Machine, units: dict[str, str]) -> None:
    """Make and start the units, and bring the product's code into the machine."""
    machine.copy_agent()
    machine.copy_in(Path(__file__).with_name("restarter.py"), "/opt/restarter.py")
    for name, text in units.items():
        machine.write(f"/etc/systemd/system/{name}", text)
    machine.run(["systemctl", "daemon-reload"])
    machine.run(["systemctl", "start", *(name for name in units if name.endswith(".service"))])


def restart(machine: Machine, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Restart the units and return what came of each."""
    machine.run([*RESTARTER, *names])
    return outcomes(machine)


def outcomes(machine: Machine) -> dict[str, dict[str, Any]]:
    rows = [json.loads(row) for row in machine.read("/root/state").splitlines()]
    found = {row["outcome"]["unit"]: {**row["outcome"], "at": row["at"]} for row in rows if "outcome" in row}
    assert len(found) == len([row for row in rows if "outcome" in row]), "a unit has two outcomes"
    return found


def test_each_way_a_restart_can_end_has_its_own_name(bare: Machine) -> None:
    bare.run("cp /usr/bin/sleep /usr/local/bin/rc-sleep")
    furnish(bare, UNITS)
    bare.run(
        "ln -sf /dev/null /etc/systemd/system/rc-masked.service; systemctl daemon-reload;"
        "systemctl stop rc-limit; systemctl start rc-limit;"
        f"rm /usr/local/bin/rc-sleep; touch {FLAG}; echo '# edited' >>/etc/systemd/system/rc-edited.service"
    )
    bare.write("/usr/sbin/policy-rc.d", POLICY, 0o755)
    names = [name for name in UNITS if name != "rc-dependant.service"]
    before = {name: bare.pid(name) for name in names}
    found = restart(bare, names)
    results = {name: outcome["result"] for name, outcome in found.items()}
    # It is up for some milliseconds ten times a second: which of the two it is seen in is chance.
    assert results["rc-fails-forever.service"] in ("failed", "died-after")
    assert results == EXPECTED | {"rc-fails-forever.service": results["rc-fails-forever.service"]}
    for name, outcome in found.items():
        assert bool(outcome["hint"]) == (outcome["result"] != "fresh"), name
    told = {name: "\n".join(outcome["journal"]) for name, outcome in found.items()}
    assert "no such tenant" in told["rc-fails.service"]
    assert "lost it" in told["rc-dies.service"]
    assert "no such tenant" in told["rc-base.service"], "the dependant's words, not the unit's"
    assert "too quickly" in told["rc-limit.service"]
    assert told["rc-good.service"] == ""
    assert "rc-dependant.service" in found["rc-base.service"]["hint"]
    assert "ConditionPathExists=!/run/rc-flag failed" in found["rc-condition.service"]["hint"]
    assert "/usr/local/bin/rc-sleep" in found["rc-gone.service"]["hint"]
    assert found["rc-spares.service"]["leftovers"][0].startswith("sleep (")
    for name in (name for name, result in EXPECTED.items() if result == "precheck-failed"):
        assert bare.pid(name) == before[name], f"{name} was touched"
    assert found["rc-good.service"]["at"] < found["rc-hangs.service"]["at"], "it waited for the one that hangs"


def test_dependants_that_are_stale_too_are_started_once_and_waves_keep_their_order(bare: Machine) -> None:
    slow = "ExecStartPre=/usr/bin/sleep 0.5"
    furnish(
        bare,
        {
            "rc-last.service": f"[Service]\n{SLEEP}\n",
            "rc-base.service": f"[Service]\n{SLEEP}\n",
            "rc-middle.service": (
                f"[Unit]\nRequires=rc-base.service\nAfter=rc-base.service\n[Service]\n{slow}\n{SLEEP}\n"
            ),
            "rc-first-of-all.service": (
                f"[Unit]\nPartOf=rc-middle.service\nAfter=rc-middle.service\n[Service]\n{slow}\n{SLEEP}\n"
            ),
            "rc-first.service": f"[Service]\n{SLEEP}\n",
        },
    )
    names = ("rc-last", "rc-base", "rc-middle", "rc-first-of-all", "rc-first")
    units = [f"{name}.service" for name in names]
    before = bare.starts()
    found = restart(bare, units)
    assert {outcome["result"] for outcome in found.values()} == {"fresh"}
    assert bare.starts() - before == dict.fromkeys(units, 1)
    order = sorted(found, key=lambda unit: (found[unit]["at"], unit))
    assert (order[0], order[-1]) == ("rc-first.service", "rc-last.service")


def test_killed_again_and_again_every_unit_is_still_restarted_exactly_once(bare: Machine) -> None:
    furnish(
        bare,
        {
            "rc-first.service": f"[Service]\n{SLEEP}\n",
            "rc-base.service": f"[Service]\n{SLEEP}\nExecStop=/bin/sleep 1\nExecStartPre=/bin/sleep 1\n",
            "rc-child.service": f"{BOUND}[Service]\n{SLEEP}\n",
            "rc-last.service": f"[Service]\n{SLEEP}\n",
        },
    )
    units = [f"rc-{name}.service" for name in ("first", "base", "child", "last")]
    before = bare.starts()
    for seconds in LIVES:
        process = bare.start([*RESTARTER, *units])
        time.sleep(seconds)
        assert process.poll() is None, "it was done before it could be killed"
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    found = restart(bare, units)
    assert {unit: outcome["result"] for unit, outcome in found.items()} == dict.fromkeys(units, "fresh")
    assert bare.starts() - before == dict.fromkeys(units, 1)
