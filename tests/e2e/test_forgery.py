"""What users do with names, owners and inodes of their own: nothing is restarted or called certain."""

import textwrap

import pytest

from tests.e2e import scenario
from tests.e2e.machine import Machine

FORGER = r'''
"""Map a forged library and stay. Runs as an unprivileged user, most kinds in a user namespace of his own."""
import ctypes, mmap, os, shutil, subprocess, sys, time

kind, mark = sys.argv[1:3]
library = os.path.realpath(f"/usr/lib/{os.uname().machine}-linux-gnu/libssl.so.3")
folder = os.path.dirname(library)
work = os.path.expanduser(f"~/{mark}")
os.makedirs(work, exist_ok=True)

def run(*words):
    subprocess.run(words, check=True)

def execute(path):
    with open(path, "rb") as handle:
        return mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE)

def copy(name="own.so"):
    """Other content than the library's, with a build-id of its own: nobody can call it identical."""
    target = f"{work}/{name}"
    shutil.copyfile(f"{folder}/libz.so.1", target)
    return target

if kind == "bind-own":
    own = copy()
    run("mount", "--bind", own, library)
    kept = execute(library)
    os.unlink(own)
elif kind == "bind-root":
    run("mount", "--bind", os.path.realpath(f"{folder}/libz.so.1"), library)
    kept = execute(library)
elif kind == "tmpfs":
    own = copy()
    run("mount", "-t", "tmpfs", "none", folder)
    shutil.copyfile(own, library)
    kept = execute(library)
    os.unlink(library)
elif kind == "overlay":
    lower, merged, top = f"{work}/lower", f"{work}/merged", f"{work}/top"
    for name in (lower, merged, top):
        os.makedirs(name, exist_ok=True)
    shutil.move(copy("libssl.so.3"), f"{lower}/libssl.so.3")
    run("mount", "-t", "tmpfs", "none", top)
    os.makedirs(f"{top}/upper")
    os.makedirs(f"{top}/work")
    options = f"lowerdir={lower},upperdir={top}/upper,workdir={top}/work"
    run("mount", "-t", "overlay", "none", "-o", options, merged)
    run("mount", "--bind", f"{merged}/libssl.so.3", library)
    with open(library, "ab") as handle:
        handle.write(b"copied up")
    kept = execute(library)
    os.unlink(f"{merged}/libssl.so.3")
elif kind == "fuse":
    source, mounted = f"{work}/source", f"{work}/mounted"
    os.makedirs(source, exist_ok=True)
    os.makedirs(mounted, exist_ok=True)
    shutil.move(copy(), f"{source}/own.so")
    run("bindfs", "--force-user=0", "--force-group=0", source, mounted)
    run("mount", "--bind", f"{mounted}/own.so", library)
    kept = execute(library)
    os.unlink(f"{source}/own.so")
elif kind == "named-deleted":
    kept = execute(copy("libssl.so.3 (deleted)"))
elif kind == "deleted-copy":
    own = copy("libssl.so.3")
    kept = execute(own)
    os.unlink(own)
open(f"{work}/ready", "w").close()
while True:
    time.sleep(1000)
'''
KINDS = ("bind-own", "bind-root", "tmpfs", "overlay", "fuse", "named-deleted", "deleted-copy")
PLAIN = ("named-deleted", "deleted-copy")


def test_forged_mappings_of_users_restart_nothing_and_are_never_certain(machine: Machine) -> None:
    """From a session and from a cron job, at a transaction in which nothing of the machine's is replaced."""
    with machine.ssh("alice") as alice:
        for kind in KINDS:
            alice.background(_command(kind, f"session-{kind}"))
        _from_cron(machine)
        pids = _forgers(machine, 2 * len(KINDS))
        before = scenario.look(machine, ["libc6"])
        machine.run(["dpkg", "-i", scenario.tiny_package(machine, 1)])
        machine.wait()
        _assert_unmoved(machine, pids)
        assert scenario.restarts_since(machine, before) == {}
        assert machine.agentctl("status").findings == {}
        assert alice.run("echo alive").stdout == "alive\n"


def test_a_real_upgrade_among_forgers_restarts_what_it_should_and_nothing_of_theirs(machine: Machine) -> None:
    with machine.ssh("alice") as alice:
        for kind in KINDS:
            alice.background(_command(kind, f"session-{kind}"))
        _from_cron(machine)
        pids = _forgers(machine, 2 * len(KINDS))
        names = [machine.base.crypto]
        before = scenario.look(machine, names, ignoring=pids)
        machine.run(f"apt-get -y install --only-upgrade {' '.join(names)}")
        machine.wait()
        assert "cron.service" not in before.users
        _assert_unmoved(machine, pids)
        scenario.assert_restarted_once(machine, before)
        assert alice.run("echo alive").stdout == "alive\n"


def test_an_inode_number_that_a_user_got_again_is_not_taken_for_the_old_library(machine: Machine) -> None:
    """The old libssl's inode is freed while the daemon is away, and the user's own file gets its number."""
    folder = machine.run("dirname $(realpath /usr/lib/*-linux-gnu/libssl.so.3)").stdout.strip()
    machine.run("systemctl stop aftercare.service")
    old = machine.run(f"stat -c %i {folder}/libssl.so.3").stdout.strip()
    machine.run(f"apt-get -y install --only-upgrade {machine.base.crypto}")
    machine.run("systemctl restart nginx.service ssh.service exim4.service")
    # Another machine's file, on the same file system, may have got the number first: until that machine is gone.
    what = f"this file system to give out inode {old} again among {FILES} new files"
    again = machine.until(lambda: machine.python(SAME_INODE, folder, old, str(FILES)).stdout.strip(), 150, what, 3)
    machine.run(["chown", "alice:", again])
    unit = ["--uid=alice", "--unit=reuser", "/usr/bin/python3", "-c", EXECUTE, again]
    machine.run(["systemd-run", "--quiet", *unit])
    reuser = machine.pid("reuser.service")
    machine.until(lambda: again in machine.maps(reuser), 10, "alice to map her file")
    machine.run(["rm", again])
    before = scenario.look(machine, ["libc6"])
    machine.run("systemctl start aftercare.service")
    machine.wait()
    _assert_unmoved(machine, {reuser})
    assert "reuser.service" not in scenario.restarts_since(machine, before)


FILES = 30_000
SAME_INODE = r"""
import os, sys
folder, wanted, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
made, found = [], ""
for number in range(count):
    path = f"{folder}/again-{number}"
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY)
    if os.fstat(descriptor).st_ino == wanted:
        os.write(descriptor, open(f"{folder}/libz.so.1", "rb").read())
        found = path
        break
    os.close(descriptor)
    made.append(path)
for path in made:
    os.unlink(path)
print(found)
"""

EXECUTE = textwrap.dedent(
    """
    import mmap, os, sys, time
    handle = open(sys.argv[1], "rb")
    kept = mmap.mmap(handle.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE)
    while True:
        time.sleep(1000)
    """
)


@pytest.mark.suites("trixie")
def test_a_mapping_on_a_hung_fuse_mount_delays_nothing(machine: Machine) -> None:
    """The user stops his own FUSE server: whoever asks that file system anything now waits for ever."""
    with machine.ssh("alice") as alice:
        alice.background(_command("fuse", "hung"))
        _forgers(machine, 1)
        before = scenario.look(machine)
        machine.run("pkill -STOP bindfs")
        machine.run(f"apt-get -y install --only-upgrade {' '.join(scenario.packages(machine))}", timeout=60)
        machine.wait(60)
        scenario.assert_all_fresh(machine, before)
        machine.run("pkill -CONT bindfs")


def _command(kind: str, mark: str) -> str:
    inside = "" if kind in PLAIN else "unshare --user --map-root-user --mount --propagation private "
    return f"exec {inside}/usr/bin/python3 /opt/forger.py {kind} {mark} 2>$HOME/{mark}.log"


@pytest.fixture(autouse=True)
def _forger(machine: Machine) -> None:
    machine.write("/opt/forger.py", FORGER)
    machine.run("mknod -m 666 /dev/fuse c 10 229")


def _from_cron(machine: Machine) -> None:
    """Have cron start each kind once, as bob: its jobs run in cron.service's own cgroup."""
    jobs = "".join(f"@reboot {_command(kind, f'cron-{kind}')}\n" for kind in KINDS)
    machine.run(["crontab", "-u", "bob", "-"], stdin=jobs)
    machine.run("rm -f /run/crond.reboot; systemctl restart cron.service")


def _forgers(machine: Machine, count: int) -> set[int]:
    """Wait until `count` forgers hold their mapping, and return their processes."""
    ready = "ls /home/*/*/ready 2>/dev/null | wc -l"
    try:
        machine.until(lambda: int(machine.run(ready).stdout) == count, 20, f"{count} forged mappings")
    except AssertionError as problem:
        raise AssertionError(f"{problem}\n{machine.run('cat /home/*/*.log').stdout}") from None
    return {int(pid) for pid in machine.run(["pgrep", "-f", "python3 /opt/forger.py"]).stdout.split()}


def _assert_unmoved(machine: Machine, pids: set[int]) -> None:
    alive = {pid for pid in pids if machine.run(["test", "-d", f"/proc/{pid}"], check=False).status == 0}
    assert alive == pids, "processes of the users were ended"
    for subject, found in machine.agentctl("status").findings.items():
        evidence = found["evidence"]
        blamed = {process["pid"] for process in evidence["processes"]}
        assert evidence["confidence"] == "likely" or not blamed & pids, f"{subject} was taken in: {found}"
