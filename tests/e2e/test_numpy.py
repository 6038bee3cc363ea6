"""numpy and MKL on a booted Debian 12: each state is noticed, judged, mended as it says, and then proven by running it.

Debian's MKL is the real one; oneAPI's packages are imitated around real files (`numpy_root.py`). Environments that are
bound to those are made here: a module compiled on the host stands for numpy, and calls MKL while it is imported.
"""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import numpy_root
from tests.e2e.booted import Done
from tests.e2e.conftest import remember
from tests.e2e.machine import Machine
from tests.integration import mkl_files
from tests.integration.mkl_stage import HEAD, LAYERS, REAL, shared, stub

pytestmark = pytest.mark.suites("bookworm")

WITHIN = 5.0
"""Seconds from the end of the command that changes something to the verdict."""
DEBIAN = "/usr/lib/python3/dist-packages"
ARCH = "x86_64-linux-gnu"
CHOSEN = {name: f"{name}-{ARCH}" for name in ("libblas.so.3", "liblapack.so.3")}
OLD = f"/opt/intel/oneapi/mkl/{numpy_root.OLD}/lib"


@pytest.fixture
def machine(request: pytest.FixtureRequest, package: Path) -> Iterator[Machine]:
    """A Debian 12 with its own numpy and scipy, without MKL; aftercare is as installed."""
    with Machine(numpy_root.base()) as machine:
        remember(request, machine)
        machine.install(package)
        machine.wait()
        yield machine


def verdicts(machine: Machine) -> dict[str, str]:
    """Return what the daemon says of each environment that it knows."""
    rows = machine.agentctl("status").data["detail"]["numpy"]["environments"]
    return {row["environment"]: row["verdict"] for row in rows}


def noticed(machine: Machine, begun: float, verdict: str, environment: str = DEBIAN) -> dict[str, Any]:
    """Return the finding (nothing, where it is well) once the daemon's verdict is this one; fail after WITHIN."""
    what = f"{environment} to be {verdict}; it is "
    try:
        machine.by(begun + WITHIN, lambda: verdicts(machine).get(environment) == verdict, what)
    except AssertionError as problem:
        raise AssertionError(f"{problem}{verdicts(machine).get(environment)}\n{machine.report()}") from None
    print(f"{verdict} after {time.monotonic() - begun:.1f} s")
    finding: dict[str, Any] = machine.agentctl("status").findings.get(environment, {})
    return finding


def change(machine: Machine, command: str) -> float:
    """Do what a person does, who says yes where apt asks; return when it was done."""
    machine.run(command, stdin="y\n", timeout=180)
    return time.monotonic()


def repair(machine: Machine, finding: dict[str, Any], number: int = 0) -> float:
    """Do to the letter what a finding says; return when it was done."""
    return change(machine, finding["evidence"]["repairs"][number]["command"])


def choose(machine: Machine, target: str = f"/usr/lib/{ARCH}/libmkl_rt.so") -> float:
    """Flip both alternatives to MKL."""
    return change(machine, "; ".join(f"update-alternatives --set {name} {target}" for name in CHOSEN.values()))


def prove(machine: Machine) -> dict[str, Any]:
    """Run the proof of Debian's numpy; it must bear out the verdict."""
    answer = machine.agentctl("numpy", "prove", DEBIAN)
    assert answer.data, answer
    assert answer.data["agrees"] is True, answer
    assert answer.status == (0 if answer.data["proof"]["outcome"] == "passed" else 1)
    proof: dict[str, Any] = answer.data["proof"]
    return proof


def told(machine: Machine) -> list[str]:
    """Return what the journal says of numpy."""
    rows = machine.journal(unit="aftercare.service")
    return [row["MESSAGE"] for row in rows if str(row["MESSAGE"]).startswith("numpy: ")]


def test_debians_mkl_comes_fails_miscounts_is_mended_and_goes(machine: Machine) -> None:
    assert verdicts(machine) == {DEBIAN: "not-mkl"}
    begun = change(machine, "apt-get install libmkl-rt")
    machine.wait()
    assert verdicts(machine) == {DEBIAN: "not-mkl"}, "it is installed and not chosen"
    assert prove(machine)["outcome"] == "passed"
    begun = choose(machine)
    found = noticed(machine, begun, "fail-omp")
    assert (found["severity"], found["evidence"]["expected"]["status"]) == ("error", 127)
    proof = prove(machine)
    assert (proof["outcome"], proof["status"]) == ("failed", 127)
    assert found["evidence"]["expected"]["text"] in proof["said"], "to the letter"
    assert found["advice"] == "apt-get install libomp-dev"
    begun = repair(machine, found)
    found = noticed(machine, begun, "wrong-results")
    assert found["severity"] == "critical"
    proof = prove(machine)
    assert (proof["outcome"], proof["stage"]) == ("wrong", "zdotu")
    begun = repair(machine, found)
    assert not noticed(machine, begun, "ok")
    assert prove(machine)["outcome"] == "passed"
    begun = change(machine, "sed -i /MKL_/d /etc/environment")
    found = noticed(machine, begun, "wrong-results")
    commands = [item["command"] for item in found["evidence"]["repairs"]]
    back = [command for command in commands if command.startswith("update-alternatives --auto ")]
    begun = change(machine, "; ".join(back))
    assert not noticed(machine, begun, "not-mkl")
    assert prove(machine)["outcome"] == "passed"
    words = (
        "libiomp5.so is not found",
        "complex dot products",
        "is right again",
        "complex dot products",
        "right again",
    )
    assert len(told(machine)) == len(words)
    assert all(word in line for word, line in zip(words, told(machine), strict=True)), told(machine)


def test_openmp_can_be_done_without_but_gccs_is_not_found_by_debians_mkl(machine: Machine) -> None:
    change(machine, "apt-get install libmkl-rt")
    noticed(machine, choose(machine), "fail-omp")
    begun = change(machine, "echo MKL_THREADING_LAYER=GNU >>/etc/environment")
    summary = "libgomp.so is not found: the first call into MKL ends the program"
    told_so = f"numpy: {DEBIAN}: {summary}"
    machine.by(begun + WITHIN, lambda: told(machine)[-1].startswith(told_so), "libgomp.so to be missed")
    found = machine.agentctl("status").findings[DEBIAN]
    assert found["evidence"]["expected"]["text"] in prove(machine)["said"]
    noticed(machine, repair(machine, found), "wrong-results")
    assert prove(machine)["stage"] == "zdotu"


# oneAPI


def extension(place: Path, needs: list[str], runpath: str) -> Path:
    """Compile what stands for numpy: a module of its name that calls MKL while it is imported."""
    place.mkdir()
    source = place / "core.c"
    source.write_text((HEAD + REAL).replace("PyInit_probe", "PyInit__multiarray_umath"))
    stubs = [str(stub(place / "stubs", name)) for name in needs]
    module = place / "_multiarray_umath.cpython-311-x86_64-linux-gnu.so"
    shared(module, source, "-Wl,--no-as-needed", f"-Wl,--enable-new-dtags,-rpath,{runpath}", *stubs)
    return module


CONFIG = """\
CONFIG = {"Build Dependencies": {"blas": {"name": "%s", "version": "2024.2.2", "lib directory": "%s"}}}
"""


def environment(machine: Machine, path: str, module: Path, built: str, user: str = "root") -> None:
    """Make a virtual environment with a numpy that is that module and little else."""
    site = f"{path}/lib/python3.11/site-packages"
    machine.run(["python3", "-m", "venv", "--without-pip", path])
    machine.write(f"{site}/numpy/__init__.py", "from numpy._core import _multiarray_umath\n")
    machine.write(f"{site}/numpy/_core/__init__.py", "")
    machine.write(f"{site}/numpy/__config__.py", CONFIG % (built, OLD))
    machine.write(f"{site}/numpy-2.3.5.dist-info/METADATA", "Name: numpy\nVersion: 2.3.5\n")
    machine.copy_in(module, f"{site}/numpy/_core/{module.name}")
    machine.run(["chown", "-R", f"{user}:", path])


def imported(machine: Machine, path: str, user: str = "root") -> Done:
    """Really import numpy, as its owner."""
    code = "import numpy; print(numpy._core._multiarray_umath.answer)"
    return machine.run([f"{path}/bin/python3", "-c", code], user=user, check=False)


OWNERS = {"/srv/layered": "alice", "/srv/single": "root", "/srv/own": "bob"}


def furnish(machine: Machine, place: Path) -> None:
    """Three environments: built against oneAPI in both linkages, and one that has its own MKL from pip."""
    layered = extension(place / "layered", [f"libmkl_{layer}.so.2" for layer in LAYERS], OLD)
    single = extension(place / "single", ["libmkl_rt.so.2"], OLD)
    own = extension(place / "own", ["libmkl_rt.so.2"], "$ORIGIN/../../../..")
    for name, module in (("layered", layered), ("single", single), ("own", own)):
        environment(machine, f"/srv/{name}", module, f"mkl-dynamic-{name}", OWNERS[f"/srv/{name}"])
    for path in (*mkl_files.release("2024.2.2").iterdir(), mkl_files.openmp()):
        if numpy_root.PARTS.fullmatch(path.name) or path.name == "libiomp5.so":
            machine.copy_in(path, f"/srv/own/lib/{path.name}")
    machine.write("/srv/own/lib/python3.11/site-packages/mkl-2024.2.2.dist-info/METADATA", "Name: mkl\n")


def assert_borne_out(machine: Machine, findings: dict[str, Any]) -> None:
    """Fail unless exactly those of the environments fail on import that are found to, and as it was said."""
    for path, user in OWNERS.items():
        done, found = imported(machine, path, user), findings.get(path)
        expected = found["evidence"]["expected"] if found else {"status": 0, "text": ""}
        assert done.status == expected["status"], f"{found}: {done}"
        assert expected["text"] in done.stdout + done.stderr


def test_a_oneapi_release_that_is_upgraded_and_autoremoved(machine: Machine, tmp_path: Path) -> None:
    furnish(machine, tmp_path)
    change(machine, f"apt-get install intel-oneapi-mkl={numpy_root.FILES[numpy_root.OLD]}-1")
    recipe = "update-alternatives --install /usr/lib/{0}/{1} {1}-{0} {2}/libmkl_rt.so.2 150"
    begun = change(machine, "; ".join(recipe.format(ARCH, name, OLD) for name in CHOSEN))
    found = noticed(machine, begun, "wrong-results")
    assert prove(machine)["outcome"] != "passed"
    machine.until(lambda: OWNERS.keys() <= verdicts(machine).keys(), 15, "the environments to be found")
    good = {path: "ok" for path in OWNERS}
    assert verdicts(machine) == good | {DEBIAN: "wrong-results"}
    assert_borne_out(machine, {})
    machine.wait()
    begun = change(machine, "apt-get install intel-oneapi-mkl")
    machine.wait()
    now = verdicts(machine)
    assert {path: now[path].removesuffix("-unchanged") for path in OWNERS} == good, "the old release is still there"
    assert_borne_out(machine, {})
    begun = change(machine, "apt-get autoremove")
    found = noticed(machine, begun, "fail-system")
    assert (found["severity"], found["evidence"]["expected"]["status"]) == ("critical", 1)
    layered = noticed(machine, begun, "rebuild", "/srv/layered")
    single = noticed(machine, begun, "rebuild", "/srv/single")
    findings = machine.agentctl("status").findings
    assert findings.keys() == {DEBIAN, "/srv/layered", "/srv/single"}
    lines = told(machine)
    assert all(any(f" {path}: " in line for line in lines) for path in findings), lines
    assert_borne_out(machine, findings)
    proof = prove(machine)
    assert (proof["outcome"], proof["status"]) == ("failed", 1)
    assert "libblas.so.3: cannot open shared object file" in proof["said"]
    commands = [item["command"] for item in found["evidence"]["repairs"]]
    assert commands == [f"update-alternatives --auto {name}" for name in CHOSEN.values()]
    assert not noticed(machine, change(machine, "; ".join(commands)), "not-mkl")
    assert prove(machine)["outcome"] == "passed"
    assert layered["advice"] == single["advice"] == f"apt-get install intel-oneapi-mkl-core-{numpy_root.OLD}"
    repair(machine, layered)
    # No check runs more than twenty times a minute, and more than that has happened here within one.
    machine.until(lambda: not machine.agentctl("status").findings, 70, "both to be well again", 0.5)
    assert_borne_out(machine, {})


# Units


WORK = """
import os, time
import scipy.linalg
open(f"/run/{os.environ['NAME']}-up", "w").close()
time.sleep(3600)
"""
GNU = "MKL_INTERFACE_LAYER=GNU,LP64"
UNITS = {
    "plain": "",
    "told": f"Environment={GNU}",
    "filed": "EnvironmentFile=-/etc/default/numbers",
    "foreign": "EnvironmentFile=/srv/numbers",
    "unset": f"Environment={GNU}\nUnsetEnvironment=MKL_INTERFACE_LAYER",
}


def start(machine: Machine, name: str, settings: str, lead: str = "") -> None:
    """Start a service that uses Debian's scipy."""
    text = f"[Service]\nEnvironment=NAME={name}\n{settings}\nExecStart={lead} /usr/bin/python3 /opt/work.py\n"
    machine.write(f"/etc/systemd/system/{name}.service", text)
    machine.run(f"systemctl daemon-reload; systemctl start {name}.service")
    machine.until(lambda: machine.exists(f"/run/{name}-up"), 15, f"{name} to be up")


def units_of(machine: Machine) -> dict[str, str]:
    """Return which units the finding names with a verdict of their own."""
    found = machine.agentctl("status").findings.get(DEBIAN, {"evidence": {"units": []}})
    return {item["unit"]: item["verdict"] for item in found["evidence"]["units"]}


def test_a_unit_has_the_verdict_of_what_systemd_gives_it_and_not_of_its_environ(machine: Machine) -> None:
    change(machine, "apt-get install libmkl-rt libomp-dev")
    machine.write("/opt/work.py", WORK)
    machine.write("/etc/default/numbers", f"# for numpy\n{GNU}\n")
    machine.write("/srv/numbers", f"{GNU}\n")
    machine.run("chown alice: /srv/numbers")
    machine.run(f"echo {GNU} >>/etc/environment")
    for name, settings in UNITS.items():
        start(machine, name, settings)
    start(machine, "disguised", "", f"/usr/bin/env {GNU}")
    found = noticed(machine, choose(machine), "wrong-results")
    wrong = {f"{name}.service": "wrong-results" for name in ("plain", "foreign", "unset", "disguised")}
    assert units_of(machine) == wrong
    assert found["summary"].startswith("in disguised.service and 3 more: "), found
    unseen = machine.agentctl("status").data["unseen"]
    assert any("/srv/numbers may be written by others than root" in line for line in unseen), unseen
    for name in ("disguised", "foreign", "plain", "unset"):
        found = machine.agentctl("status").findings[DEBIAN]
        assert found["evidence"]["units"][0]["unit"] == f"{name}.service"
        machine.run(f"sed -i '/^UnsetEnvironment/d; /srv.numbers/d' /etc/systemd/system/{name}.service")
        repair(machine, found)
        shown = machine.unit(f"{name}.service")
        assert GNU in shown["Environment"] and shown["ActiveState"] == "active"
        machine.run("ldconfig")
        machine.until(lambda: f"{name}.service" not in units_of(machine), 70, f"{name} to be well")
    assert DEBIAN not in machine.agentctl("status").findings


def test_a_unit_whose_variables_lead_to_another_mkl_will_fail(machine: Machine) -> None:
    change(machine, "apt-get install libmkl-rt libomp-dev")
    machine.write("/opt/work.py", WORK)
    machine.run(f"echo {GNU} >>/etc/environment")
    noticed(machine, choose(machine), "ok")
    for name in ("layer", "path"):
        start(machine, name, f"Environment={GNU}")
    machine.run(f"mkdir /opt/half; cp /usr/lib/{ARCH}/libmkl_rt.so /opt/half/libblas.so.3")
    edits = {"layer": "MKL_THREADING_LAYER=TBB", "path": "LD_LIBRARY_PATH=/opt/half LD_BIND_NOW=1"}
    for name, words in edits.items():
        machine.write(f"/etc/systemd/system/{name}.service.d/edit.conf", f"[Service]\nEnvironment={words}\n")
    machine.run("systemctl daemon-reload; ldconfig")
    machine.until(lambda: len(units_of(machine)) == 2, 70, "both to be told")
    assert units_of(machine) == {"layer.service": "fail-env", "path.service": "fail-env"}
    expected = machine.agentctl("status").findings[DEBIAN]["evidence"]["expected"]
    for name, words in edits.items():
        done = machine.run(f"env {GNU} NAME=x {words} timeout 20 /usr/bin/python3 /opt/work.py", check=False)
        assert done.status == expected["status"] == 2, done


# In the sandbox


def test_a_search_is_the_last_to_get_the_disk_also_in_the_sandbox_of_the_daemon(machine: Machine) -> None:
    trace = "/root/trace"
    pid = machine.pid("aftercare.service")
    calls = "ioprio_set,setpriority,openat2"
    watcher = machine.start(["strace", "-f", "-qq", "-e", f"trace={calls}", "-o", trace, "-p", str(pid)])
    try:
        machine.until(lambda: "TracerPid:\t0" not in machine.read(f"/proc/{pid}/status"), 10, "strace to be there")
        machine.run("ln -s /usr/lib/nowhere /etc/alternatives/libblas.so.3-test")
        idle = r"ioprio_set\(.*IOPRIO_CLASS_IDLE.*\) += 0"
        machine.until(lambda: re.search(idle, machine.read(trace)), 20, "a search that steps back")
        assert re.search(r"setpriority\(PRIO_PROCESS, 0, 19\) += 0", machine.read(trace))
    finally:
        os.killpg(watcher.pid, signal.SIGTERM)
        watcher.communicate()
    refused = [line for line in machine.read(trace).splitlines() if "openat2" in line and "ENOSYS" in line]
    assert not refused, refused[0]
