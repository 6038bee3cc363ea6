"""Attacks on tools of this kind, by the numbers of the research, that no other file has.

Elsewhere: SEC-7 and 9 on names alone in `unit/test_blame.py`; SEC-10, 11, 12, 20, 21, 22 in `test_forgery.py`; SEC-14
in `test_stuck.py` and `test_forgery.py`; the pid that is reused under a look (SEC-13) and 60,000 mappings (SEC-18) in
`test_reach.py`; a file that lies in wait for state.json (SEC-16) in `unit/test_publish.py`. Each test says which guard
to break to see it fail.
"""

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.checks.libraries.likely import find_doubts, weigh
from agent.cli import blocks, screens
from agent.config.load import load
from agent.config.settings import Settings
from agent.daemon import workers
from agent.host.mappings import choose_engine
from agent.host.processes import read_process
from agent.host.transactions import read_snapshot
from agent.model import contract
from agent.model.errors import AgentError
from agent.model.facts import Host, Retired, Unit
from agent.model.findings import CheckResult, Confidence, Request, StaleUnit
from agent.model.restarts import Disposition
from agent.model.text import printable
from agent.report import formats
from agent.restart.plan import make_plan
from agent.stale.blame import unit_of
from tests.integration.herd import (
    LIBRARY,
    NOBODY,
    OTHER,
    REPOSITORY,
    UNPRIVILEGED,
    WORKER,
    Root,
    evidence,
    holding,
    stale_pids,
    started,
)
from tests.integration.waiting import until

PYTHON = str(Path("/usr/bin/python3").resolve())
RUNS = frozenset({"os.exec", "os.fork", "os.posix_spawn", "os.system", "subprocess.Popen"})
LOADS = frozenset({"import", "exec", "compile"})


@dataclass
class Ear:
    """What the interpreter's own audit says that a look did."""

    on: bool = False
    opened: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)

    def listen(self, event: str, arguments: tuple[object, ...]) -> None:
        if self.on and event == "open":
            self.opened.append(os.fsdecode(arguments[0]) if isinstance(arguments[0], str | bytes) else "")
        if self.on and event in RUNS:
            self.ran.append(str(arguments))
        if self.on and event in LOADS:
            self.loaded.append(str(arguments[0]))


EAR = Ear()
sys.addaudithook(EAR.listen)


@pytest.fixture(autouse=True)
def _without_an_ear() -> Iterator[None]:
    EAR.on = False
    yield
    EAR.on = False


def look(root: Root, retired: tuple[Retired, ...] | None) -> CheckResult:
    """Do all that the check does, once with the mappings and once with what no mapping shows, and listen."""
    EAR.opened.clear(), EAR.ran.clear(), EAR.loaded.clear()
    snapshot = read_snapshot(root.host)
    EAR.on = True
    try:
        result = root.check(retired)
        request = Request("libraries", datetime.now(UTC))
        weigh(root.host, find_doubts(root.host, snapshot, request), snapshot, {}, (), choose_engine(root.host), request)
    finally:
        EAR.on = False
    return result


def printed(result: CheckResult) -> dict[str, str]:
    """Return everything that is ever shown of a result, by format."""
    findings = [contract.finding(item) for item in result.findings]
    view = {"v": 1, "checked_at": None, "findings": findings, "detail": {}, "unseen": list(result.unseen)}
    return {
        "json": json.dumps(findings, indent=1, ensure_ascii=False),
        "nagios": formats.nagios(findings, [printable(line) for line in result.unseen])[0],
        "needrestart": formats.needrestart(findings)[0],
        "openmetrics": formats.openmetrics(findings)[0],
        "text": blocks.write(screens.status(view)),
    }


def assert_one_record_each(result: CheckResult) -> None:
    """Whatever a process is called, it is one record, and of printable characters."""
    shown = printed(result)
    for name, text in shown.items():
        assert all(line.isprintable() for line in text.split("\n")), f"{name}: {text!r}"
    assert re.fullmatch(r"[^|\n]*\|[^|\n]*\n", shown["nagios"])
    lines = shown["needrestart"].splitlines()
    assert all(re.match(r"NEEDRESTART-[A-Z]+: \S", line) for line in lines)
    assert sum(line.startswith("NEEDRESTART-SVC: ") for line in lines) == len(result.findings)
    samples = [line for line in shown["openmetrics"].splitlines() if line.startswith("aftercare_stale_unit{")]
    assert len(samples) == len(result.findings)
    assert not any(line.startswith("SERVICE:") for text in shown.values() for line in text.splitlines())


@contextmanager
def stale_as(root: Root, executable: Path, code: str = "") -> Iterator[int]:
    """Run a copy of the interpreter under that name, which maps libdemo 1.0; 1.1 is installed then."""
    executable.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(PYTHON, executable)
    executable.chmod(0o755)
    with holding(root.at(LIBRARY), code=code, executable=str(executable)) as pid:
        yield pid


def replaced(root: Root) -> tuple[Retired, ...]:
    """Replace libdemo as if in ten minutes, so that every interpreter is older and worth a question."""
    retired = root.upgrade()
    os.utime(root.at("/var/lib/dpkg/info/libdemo.list"), (time.time() + 600,) * 2)
    return retired


# Names


@pytest.mark.parametrize(
    "name",
    [
        "a;touch pwned",
        "$(touch pwned)",
        "`touch pwned`",
        "a\nSERVICE:ssh,1,/usr/sbin/sshd",
        "a\nNEEDRESTART-SVC: ssh.service",
        "\x1b]0;owned\x07|x=1;;;\u202e",
        os.fsdecode(b"caf\xe9\xff"),
        "a\u2028b\x85c",
    ],
)
def test_sec_1_and_19_a_program_of_any_name_is_one_escaped_record_and_runs_nothing(
    root: Root, place: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Break `printable`, or give the name to a shell."""
    monkeypatch.chdir(place)
    with stale_as(root, place / name) as pid:
        retired = replaced(root)
        for deleted in (False, True):
            for known in (retired, None):
                result = look(root, known)
                assert stale_pids(result)[pid].subject == str(place / name)
                assert_one_record_each(result)
                assert EAR.ran == []
            if not deleted:
                (place / name).unlink()
    assert not list(place.rglob("pwned")) and not Path("/pwned").exists()


@pytest.mark.parametrize(
    "comm",
    [b"$(sh /tmp/x)", b"x\nNEEDRESTART-S", b"\x1b[2J\x1b[31mred", b"a|b=1;;;", b"\xff\xfe\x80", b'"};{"v":1', b"x\rOK"],
)
def test_sec_8_whatever_a_process_calls_itself_is_one_printable_record(root: Root, comm: bytes) -> None:
    """Break `printable`, or split what is read of a process into lines."""
    rename = f"import ctypes; ctypes.CDLL(None).prctl(15, {comm!r}, 0, 0, 0)"
    with holding(root.at(LIBRARY), code=rename) as pid:
        result = look(root, replaced(root))
        (process,) = evidence(stale_pids(result)[pid]).processes
        assert os.fsencode(process.comm) == comm[:15]
        assert_one_record_each(result)
        data = json.loads(printed(result)["json"])
        assert data[0]["evidence"]["processes"][0]["comm"] == printable(process.comm)


# What belongs to a process is neither run, nor loaded, nor read


def bait(path: Path, flag: Path) -> None:
    """Lay out a program that touches `flag`, whoever runs it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(f"#!/bin/sh\n: >{flag}\n")
    path.chmod(0o755)


def assert_left_alone(root: Root, flag: Path) -> None:
    """Nothing ran or was loaded, and of the files of this root nothing was opened but dpkg's own."""
    assert not flag.exists()
    assert EAR.ran == [] and not [name for name in EAR.loaded if str(root.path) in name or name.startswith("<")]
    owned = [str(root.at(path)) for path in ("/var/lib/dpkg/", "/usr/lib/", "/etc/", "/usr/share/doc/")]
    opened = [name for name in EAR.opened if name.startswith(f"{root.path}/")]
    assert opened and all(name.startswith(tuple(owned)) for name in opened), opened
    assert not [name for name in EAR.opened if name.endswith(("/environ", "/mem"))]


@pytest.mark.parametrize("name", ["python3", "perl", "ruby3.1", "java"])
def test_sec_2_an_interpreter_of_a_users_own_is_never_run(root: Root, place: Path, name: str) -> None:
    """Its path ends like a real one's. Break: ask the interpreter found in /proc for its path."""
    own, flag = root.at(f"/home/u/usr/bin/{name}"), place / "flag"
    with stale_as(root, own) as pid:
        retired = replaced(root)
        bait(own, flag)
        for known in (retired, None):
            assert pid in stale_pids(look(root, known))
            assert_left_alone(root, flag)


@pytest.mark.parametrize(
    "variable", ["PYTHONPATH", "PYTHONSTARTUP", "RUBYLIB", "PERL5LIB", "PERL5OPT", "NODE_PATH", "LD_PRELOAD"]
)
def test_sec_3_and_4_the_environment_of_a_process_is_never_looked_at(root: Root, place: Path, variable: str) -> None:
    """Break: read environ and hand it on, as the tools did that were taken over this way."""
    home, flag = root.at("/home/u"), place / "flag"
    home.mkdir(parents=True)
    root.install("python3-minimal", "3", {PYTHON: Path(PYTHON)})
    with holding(root.at(LIBRARY), argv=("env", f"{variable}={home}"), executable=str(root.at(PYTHON))) as pid:
        for path in ("importlib/__init__.py", "json/__init__.py", "enc/encdb.rb", "strict.pm"):
            (home / path).parent.mkdir(exist_ok=True)
            (home / path).write_text(f"open({str(flag)!r}, 'w')\n")
        assert f"{variable}={home}".encode() in Path(f"/proc/{pid}/environ").read_bytes()
        for known in (replaced(root), None):
            assert pid in stale_pids(look(root, known))
            assert_left_alone(root, flag)


def test_sec_5_who_turns_into_an_interpreter_when_he_is_looked_at_is_not_run(root: Root, place: Path) -> None:
    """He watches his own file, and becomes the system's Python at the first touch. Break: run what exe leads to."""
    own, flag = root.at("/home/u/usr/bin/python3"), place / "flag"
    code = WATCH.format(own=str(own), python=PYTHON)
    with stale_as(root, own, code) as pid:
        retired = replaced(root)
        for known in (retired, None):
            look(root, known)
            assert_left_alone(root, flag)
        with open(own, "rb"):
            pass
        until(lambda: os.readlink(f"/proc/{pid}/exe") == PYTHON, "another program")
        assert pid not in stale_pids(look(root, retired)), "another program by now"


WATCH = """
import ctypes, threading
libc = ctypes.CDLL(None)
watch = libc.inotify_init()
libc.inotify_add_watch(watch, {own!r}.encode(), 0x21)
def turn():
    os.read(watch, 4096)
    os.execv({python!r}, ["python3", "-c", "import sys; sys.stdin.read()"])
threading.Thread(target=turn, daemon=True).start()
"""


@pytest.mark.parametrize("name", ["perl|", "|sh", ">pwned", "-e system('touch pwned')", "script.pl"])
def test_sec_6_a_script_is_never_opened_whatever_it_is_called_and_says(root: Root, place: Path, name: str) -> None:
    """Break: look into the script for what it uses."""
    script, flag = root.at(f"/home/u/{name}"), place / "flag"
    script.parent.mkdir(parents=True)
    root.install("perl-base", "5", {"/usr/bin/perl": Path("/usr/bin/perl")})
    script.write_text(f'{HOSTILE.format(flag=flag)}\n$| = 1; print "ready $$\\n"; <STDIN>;\n')
    with started([str(root.at("/usr/bin/perl")), str(script)]) as pid, holding(root.at(LIBRARY)) as stale:
        flag.unlink(missing_ok=True)
        found = look(root, replaced(root))
        assert f"/proc/{pid}/cmdline" in EAR.opened, "it was asked what it runs"
        assert stale in stale_pids(found) and pid not in stale_pids(found)
        assert_left_alone(root, flag)
        assert not (place / "pwned").exists()


HOSTILE = 'BEGIN {{ open F, ">", "{flag}" }}\nuse lib "/tmp/evil";'


# Whose fault it is


@pytest.fixture
def cgroups() -> Iterator[Path]:
    """A control group of our own in the unified hierarchy."""
    rows = (line.split() for line in Path("/proc/self/mounts").read_text().splitlines())
    mounts = [Path(row[1]) for row in rows if row[2] == "cgroup2"]
    if not mounts or not os.access(mounts[0] / "cgroup.procs", os.W_OK):
        pytest.fail("no unified hierarchy that may be written")
    own = mounts[0] / f"aftercare-{os.getpid()}.service"
    own.mkdir()
    yield own
    for directory in sorted(own.rglob("*/"), reverse=True):
        directory.rmdir()
    own.rmdir()


@pytest.mark.parametrize(
    "below", ["sshd.service", "user-0.slice/session-1.scope", "init.scope", "system.slice/ssh.service"]
)
def test_sec_7_and_9_names_of_control_groups_below_ones_own_move_no_blame(
    root: Root, cgroups: Path, below: str
) -> None:
    """Break: take the last part of the path for the unit."""
    (cgroups / below).mkdir(parents=True)
    with holding(root.at(LIBRARY)) as pid:
        (cgroups / below / "cgroup.procs").write_text(str(pid))
        process = read_process(Host(), pid)
        assert process and process.cgroup.endswith(f"/{cgroups.name}/{below}")
        outer = process.cgroup.removesuffix(f"/{below}")
        units = {
            name: Unit(name, control_group=group)
            for name, group in (
                (cgroups.name, outer),
                ("ssh.service", "/system.slice/ssh.service"),
                ("sshd.service", "/system.slice/sshd.service"),
                ("session-1.scope", "/user.slice/user-0.slice/session-1.scope"),
                ("init.scope", "/init.scope"),
            )
        }
        found = unit_of(process.cgroup, units)
        assert found and found.name == cgroups.name


def test_sec_13_a_number_that_went_to_another_units_process_restarts_nothing_of_it(root: Root) -> None:
    """What is restarted is the unit of the process that was seen, by name. Break: look its pid up again."""
    with holding(root.at(LIBRARY)) as pid:
        stale = evidence(stale_pids(root.check(replaced(root)))[pid]).processes
    seen = StaleUnit("demo.service", Disposition.RESTART, Confidence.CERTAIN, stale)
    units = {name: Unit(name, main_pid=main) for name, main in (("demo.service", 1), ("other.service", pid))}
    plan = make_plan(1, [seen], units, (), "aftercare.service")
    assert [step.unit for wave in plan.waves for step in wave.steps] == ["demo.service"]
    gone = make_plan(1, [seen], {"other.service": units["other.service"]}, (), "aftercare.service")
    assert gone.waves == (), "its unit is gone with it"


def test_sec_15_who_maps_and_deletes_files_all_the_time_is_never_stale(root: Root, place: Path) -> None:
    """As a job of cron's would, in names that no filter of needrestart's covers. Break: go by ` (deleted)`."""
    home = place / "home"
    home.mkdir()
    os.chown(home, NOBODY, NOBODY)
    with (
        holding(root.at(LIBRARY)) as honest,
        holding(code=CHURN.format(home=str(home), own=str(OTHER)), argv=UNPRIVILEGED) as pid,
    ):
        retired = replaced(root)
        for _ in range(5):
            assert " (deleted)" in Path(f"/proc/{pid}/maps").read_text()
            for known in (retired, None):
                result = root.check(known)
                assert stale_pids(result).keys() == {honest}
                assert {item.path for item in (*result.mapped, *result.learnt)} <= {LIBRARY}
            time.sleep(0.05)


CHURN = (
    """
import shutil, threading, time
def churn(number):
    path = f"{home}/libssl.so.3" if number % 2 else f"{home}/libdemo.so.1"
    shutil.copy({own!r}, path)
    hold(path)
    os.unlink(path)
    del held[:-1]
churn(0)
def go():
    for number in range(1, 100_000):
        churn(number)
        time.sleep(0.01)
threading.Thread(target=go, daemon=True).start()
""".replace("{home}", "{{home}}")
    .replace('f"{{home}}', '"{home}')
    .replace("{{home}}", "{home}")
)


# Where we read and write


@pytest.mark.parametrize("what", ["file", "directory", "drop-in", "link", "linked directory"])
def test_sec_16_configuration_that_another_may_write_is_refused(place: Path, what: str) -> None:
    """Break: leave `_refuse_foreign` out."""
    etc, foreign = place / "etc/aftercare", place / "foreign"
    (etc / "aftercare.toml.d").mkdir(parents=True)
    foreign.mkdir()
    for directory in (etc, foreign):
        (directory / "aftercare.toml").write_text('mode = "observe"\n')
    (etc / "aftercare.toml.d/own.toml").write_text("keep_days = 7\n")
    for path in (foreign, foreign / "aftercare.toml"):
        os.chown(path, NOBODY, NOBODY)
    assert load(str(place)).keep_days == 7
    match what:
        case "file":
            (etc / "aftercare.toml").chmod(0o666)
        case "directory":
            etc.chmod(0o777)
        case "drop-in":
            (etc / "aftercare.toml.d").chmod(0o777)
        case "link":
            (etc / "aftercare.toml").unlink()
            (etc / "aftercare.toml").symlink_to(foreign / "aftercare.toml")
        case "linked directory":
            shutil.rmtree(etc)
            etc.symlink_to(foreign)
    with pytest.raises(AgentError, match="others may write it|belongs to uid"):
        load(str(place))


@pytest.mark.parametrize("launcher", ["agentctl", "aftercared", "worker"])
def test_sec_17_nothing_is_imported_from_where_we_are_called(place: Path, launcher: str) -> None:
    """apt runs its hooks in /tmp. Break: take -I or -S out of the launcher's first line, or leave sys.path as it is."""
    flag = place / "flag"
    for name in ("json", "apt", "argparse", "agent", "sitecustomize", "usercustomize", "re", "enum"):
        (place / f"{name}.py").write_text(f"open({str(flag)!r}, 'w').close()\n")
    program = place / launcher
    text = (REPOSITORY / "debian/launchers" / launcher).read_text()
    assert "/usr/share/aftercare" in text
    program.write_text(text.replace("/usr/share/aftercare", str(REPOSITORY)))
    program.chmod(0o755)
    hostile = {
        "PYTHONPATH": str(place),
        "PYTHONSTARTUP": str(place / "json.py"),
        "PYTHONHOME": str(place),
        "HOME": str(place),
    }
    argv = [str(program), *([] if launcher == "worker" else ["--version"])]
    env = {**os.environ, **hostile}
    done = subprocess.run(argv, cwd=place, env=env, input="{}", capture_output=True, text=True, check=False)
    assert not flag.exists()
    assert ("KeyError" in done.stderr) if launcher == "worker" else done.stdout.startswith(launcher), done.stderr


def test_sec_17_the_hook_runs_nothing_that_lies_where_it_is_called(place: Path) -> None:
    """Not even under a search path that begins there. Break: have the hook call `test`, `touch` or Python by name."""
    flag = place / "flag"
    for name in ("[", "test", "touch", "sh", "true", "python3", ":"):
        bait(place / name, flag)
    hook = place / "hook"
    text = (REPOSITORY / "hooks/post-invoke").read_text()
    (place / "woken").touch()
    hook.write_text(text.replace("/run/aftercare/hook", str(place / "woken")))
    env = {"PATH": f".:{place}:{os.environ['PATH']}", "ENV": str(place / "sh"), "BASH_ENV": str(place / "sh")}
    before = (place / "woken").stat().st_mtime_ns
    time.sleep(0.02)
    done = subprocess.run(["/bin/sh", str(hook)], cwd=place, env=env, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (place / "woken").stat().st_mtime_ns > before and not flag.exists()


# Bounds


@pytest.mark.parametrize("count", [500, 60_000])
def test_sec_18_names_as_long_as_a_page_do_not_burst_the_worker(
    root: Root, place: Path, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """60,000 of them are 250 MB of text. Break: read maps whole, or keep the names that it shows."""
    monkeypatch.setattr(workers, "command", lambda: ["/usr/bin/python3", "-B", "-c", WORKER])
    many = LONG_NAMES.format(place=str(place), own=str(OTHER), count=count)
    with holding(root.at(LIBRARY), code=many) as large, holding(root.at(LIBRARY)) as usual:
        retired = replaced(root)
        line = max(Path(f"/proc/{large}/maps").open("rb"), key=len)
        assert len(line) > 3500
        settings = Settings(check_limit=60, check_memory=160)
        request = Request("libraries", datetime.now(UTC), retired=retired)
        result = asyncio.run(workers.check(Host(root=str(root.path)), settings, request))
        assert usual in stale_pids(result)
        assert large in stale_pids(result) or any(str(large) in line for line in result.unseen), (
            "neither found nor told"
        )
        assert large in stale_pids(result) or count > 500


LONG_NAMES = """
import ctypes, shutil
os.chdir({place!r})
for number in range(15):
    os.mkdir("d" * 250)
    os.chdir("d" * 250)
shutil.copy({own!r}, "f")
libc = ctypes.CDLL(None)
fd = os.open("f", os.O_RDONLY)
for _ in range({count}):
    libc.mmap(None, 4096, mmap.PROT_READ | mmap.PROT_EXEC, mmap.MAP_PRIVATE, fd, 0)
os.chdir("/")
"""
