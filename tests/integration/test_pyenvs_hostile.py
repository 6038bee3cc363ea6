"""Trees made to hold, flood or fool whoever looks at them as root: the check ends in time, and runs none of it."""

import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.checks.numpy.users import look_at_users, uses
from agent.host.mounts import read_mounts
from agent.host.python.pyenvs import discover
from agent.model.facts import Host
from tests.unit.small_python import CORE, MODULES, SUFFIX, accounts, bind, library, put, put_library, venv

SOURCE = Path(__file__).parents[2]
LIMIT = 30.0
"""Seconds, and MiB of address space: what a worker has, and less."""
MEMORY = 512
DRIVER = f"""
import json, resource, sys, time
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY} << 20,) * 2)
from datetime import UTC, datetime
from agent.checks.numpy import run
from agent.model import contract
from agent.model.facts import Host
from agent.model.findings import Request
result = run(Host(sys.argv[1]), Request("numpy", datetime.now(UTC), kept=json.load(sys.stdin)))
status = open("/proc/self/status").read()
peak = int(status.partition("VmHWM:")[2].split()[0])
print(json.dumps({{"result": contract.encode(result), "peak": peak}}))
"""
EVIL = "import os; os.system('touch {flag}'); raise SystemExit('this file was run')\n"


@dataclass(frozen=True)
class Done:
    """What came of a run: the result as JSON, seconds, MiB at its peak."""

    result: dict[str, Any]
    seconds: float
    peak: float

    @property
    def verdicts(self) -> dict[str, str]:
        return {row["environment"]: row["verdict"] for row in self.result["detail"]["environments"]}


def check(root: Path, *lead: str, kept: Any = None) -> Done:
    begun = time.monotonic()
    done = subprocess.run(
        [*lead, sys.executable, "-B", "-c", DRIVER, str(root)],
        input=json.dumps(kept or {}),
        capture_output=True,
        text=True,
        cwd=SOURCE,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    answer = json.loads(done.stdout)
    return Done(answer["result"], time.monotonic() - begun, answer["peak"] / 1024)


def sparse(path: Path, size: int) -> None:
    """Make an "ELF file" of that size, nearly all of it a hole, which claims more segments than any has."""
    head = bytearray(library("libmkl_rt.so.2"))
    struct.pack_into("<H", head, 56, 60_000)
    path.write_bytes(head)
    os.truncate(path, size)


@contextmanager
def restless(path: Path, content: bytes) -> Iterator[None]:
    """Keep cutting a file off and filling it again."""
    ended = threading.Event()

    def go() -> None:
        while not ended.is_set():
            for size in (len(content), 64, len(content) // 2, 0, 130):
                path.write_bytes(content[:size])

    thread = threading.Thread(target=go)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_nothing_that_is_found_is_run_or_imported_and_every_oddity_is_told(place: Path) -> None:
    flag = place / "flag"
    root = place / "root"
    accounts(root, eve="/home/eve")
    home = "/home/eve"
    armed = venv(root, f"{home}/armed")
    for name in ("sitecustomize.py", "numpy/__init__.py", "numpy/_core/__init__.py", "scipy/__init__.py"):
        put(armed, name, EVIL.format(flag=flag))
    put(armed, "evil.pth", f"import os; os.system('touch {flag}')\n")
    put(armed, "numpy/__config__.py", EVIL.format(flag=flag) + "CONFIG = {}\n")
    put(root, f"{home}/armed/bin/python3", f"#!/bin/sh\ntouch {flag}\n").chmod(0o755)
    bind(armed, "/opt/mkl/lib", "libmkl_rt.so.9")
    fifo = venv(root, f"{home}/fifo", numpy="")
    os.mkfifo(fifo / "numpy")
    os.mkfifo(fifo / f"scipy/linalg/_flapack.{SUFFIX}")
    loop = root / "home/eve/loop"
    loop.mkdir()
    (loop / "again").symlink_to(".")
    (loop / "numpy").symlink_to("numpy")
    (loop / "outside").symlink_to("/")
    sparse(venv(root, f"{home}/sparse") / CORE, 2 << 30)
    venv(root, f"{home}/odd\n\x1b]0;title\x07\udcff")
    trace = place / "trace"
    done = check(root, "strace", "-f", "-y", "-e", "trace=execve,execveat,open,openat,openat2,mmap", "-o", str(trace))
    assert not flag.exists()
    assert done.verdicts[f"{home}/armed"] in ("rebuild", "fail-missing")
    assert done.verdicts[f"{home}/sparse"] == "unknown"
    assert any("is no sound ELF file" in line for line in told(done, f"{home}/sparse"))
    assert any("numpy/_core is no directory" in line for line in told(done, f"{home}/fifo"))
    shown = json.dumps(done.result["detail"], ensure_ascii=False)
    assert "\\\\x0a\\\\x1b]0;title\\\\x07\\\\xff" in shown
    assert not re.search("[\x00-\x1f\x7f-\x9f]", shown)
    assert done.seconds < LIMIT / 2
    look_into(trace.read_text(errors="surrogateescape"), str(root))


def told(done: Done, path: str) -> list[str]:
    """Return what is said anywhere of an environment."""
    lines = [line for line in done.result["unseen"] if line.startswith(path)]
    kept = (row for row in done.result["keep"]["environments"] if row[0] == path)
    return [*lines, *(problem for row in kept for problem in row[12])]


def look_into(trace: str, root: str) -> None:
    """Fail where a system call did more to what lies below `root` than to read what the check may read."""
    calls = [line.split(None, 1)[1] for line in trace.split("\n") if " " in line]
    executed = [call for call in calls if call.startswith("exec")]
    assert len(executed) == 1, executed
    opened = [call for call in calls if call.startswith("open") and root in call and " = -1 " not in call]
    assert len(opened) > 50
    for call in opened:
        assert "O_RDONLY" in call or "O_PATH" in call, call
        assert not re.search("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC", call), call
        path = call.rpartition("<")[2].partition(">")[0]
        plain = "O_PATH" not in call and "O_DIRECTORY" not in call
        readable = re.search(r"/(pyvenv\.cfg|METADATA|__config__\.py|passwd|environment|[^/]+\.so|bin/python3)$", path)
        assert not plain or readable, call
    mapped = [call for call in calls if call.startswith("mmap") and root in call]
    assert mapped == []


def test_a_module_that_is_cut_off_while_it_is_read_gives_a_sentence_or_a_verdict(place: Path) -> None:
    site = venv(place / "root", "/srv/app")
    content = library("x", ["libmkl_rt.so.2"] * 40) + bytes(100_000)
    (site / CORE).write_bytes(content)
    seen = set()
    with restless(site / CORE, content):
        for _ in range(5):
            done = check(place / "root")
            seen.add(done.verdicts["/srv/app"])
    assert seen <= {"unknown", "rebuild", "fail-missing", "not-mkl"}


@pytest.fixture
def memory() -> Iterator[Path]:
    """A directory in memory: on disk, a hundred thousand directories take a minute to remove."""
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="aftercare-") as name:
        yield Path(name)


def test_a_hundred_thousand_environments_of_one_user_hide_nobody_elses(memory: Path) -> None:
    root = memory / "root"
    accounts(root, eve="/home/eve", alice="/home/alice")
    module = put_library(root, f"home/eve/{CORE}", soname="")
    for number in range(100_000):
        site = root / f"home/eve/{number // 300}/{number}/site-packages"
        if number % 40:
            site.mkdir(parents=True)
        else:
            (site / "numpy/_core").mkdir(parents=True)
            os.link(module, site / CORE)
    venv(root, "/home/alice/app")
    venv(root, "/srv/app")
    done = check(root)
    assert {"/home/alice/app", "/srv/app"} <= done.verdicts.keys() | names(done)
    assert any(line.startswith("/home/eve ") for line in done.result["unseen"])
    assert done.seconds < LIMIT
    assert done.peak < 200
    again = check(root, kept=done.result["keep"])
    assert names(again) >= {"/home/alice/app", "/srv/app"}
    assert again.seconds < LIMIT


def names(done: Done) -> set[str]:
    """Return all environments that are remembered: not all of them have a row."""
    return {row[0] for row in done.result["keep"]["environments"]}


def test_a_directory_that_turns_into_a_link_while_it_is_looked_at_leads_nowhere(place: Path) -> None:
    root = place / "root"
    venv(root, "/data/secret")
    venv(root, "/home/eve/app")
    accounts(root, eve="/home/eve")
    app, other = root / "home/eve/app", root / "home/eve/other"
    ended = threading.Event()

    def swap() -> None:
        while not ended.is_set():
            app.rename(other)
            app.symlink_to("/data/secret")
            app.unlink()
            other.rename(app)

    host = Host(str(root))
    mounts = read_mounts(Host())
    thread = threading.Thread(target=swap)
    thread.start()
    try:
        seen = {item.path for _ in range(300) for item in discover(host, mounts, ["/home/eve"]).environments}
    finally:
        ended.set()
        thread.join()
    assert seen <= {"/home/eve/app", "/home/eve/other"}
    inodes = {(root / "data/secret/lib/python3.11/site-packages" / path).stat().st_ino for path in MODULES}
    stamps = {module.stamp[1] for item in discover(host, mounts, ["/home/eve"]).environments for module in item.modules}
    assert not stamps & inodes


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_a_file_system_that_somebody_mounted_is_not_entered(place: Path) -> None:
    root = place / "root"
    hidden = root / "srv/mounted"
    hidden.mkdir(parents=True)
    code = (
        "import json; from agent.host.mounts import read_mounts; from agent.host.python.pyenvs import discover; "
        "from agent.model.facts import Host; import sys; mounts = read_mounts(Host()); "
        "subprocess = __import__('subprocess'); "
        f"subprocess.run(['mount', '-t', 'tmpfs', 'none', {str(hidden)!r}], check=True); "
        "from pathlib import Path; from tests.unit.small_python import venv; "
        f"venv(Path({str(root)!r}), '/srv/mounted/app'); venv(Path({str(root)!r}), '/srv/app'); "
        f"print(json.dumps([item.path for item in discover(Host({str(root)!r}), mounts, ['/srv']).environments]))"
    )
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", sys.executable, "-B", "-c", code],
        cwd=SOURCE,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == ["/srv/app"]


def test_a_process_that_maps_a_replaced_mkl_is_named(place: Path) -> None:
    site = venv(Path("/"), f"{place}/app")
    other = venv(Path("/"), f"{place}/other")
    bind(site, f"{place}/app/lib", "libmkl_rt.so.2")
    real = next(Path("/usr/lib").glob("*-linux-gnu*/libdl.so.2"))
    mkl = place / "app/lib/libmkl_rt.so.2"
    shutil.copyfile(real, mkl)
    shutil.copyfile(real, site / CORE)
    code = (
        "import mmap, os, sys; held = [mmap.mmap(os.open(path, os.O_RDONLY), 0, mmap.MAP_PRIVATE, "
        "mmap.PROT_READ | mmap.PROT_EXEC) for path in sys.argv[1:]]; print('ready', flush=True); sys.stdin.read()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(mkl), str(site / CORE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout and process.stdout.readline() == b"ready\n"
        host = Host()
        environments = discover(host, read_mounts(host), [str(place)]).environments
        before, _ = uses(host, look_at_users(host), environments)
        assert before[str(site)].replaced == ()
        new = place / "new"
        shutil.copyfile(real, new)
        new.rename(mkl)
        users = look_at_users(host)
        assert str(site) in users.sites
        after, _ = uses(host, users, environments)
        assert after[str(other)].replaced == ()
        (named,) = after[str(site)].replaced
        assert named.startswith(f"process {process.pid} (")
    finally:
        process.communicate()
