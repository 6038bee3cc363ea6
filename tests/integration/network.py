"""Two Debian machines and a wire between them, made of namespaces: a host that sends mail, and the world.

Each has a network, a host name, processes and mounts of its own; what it writes goes to a layer in memory over one
cached root file system. The network and the files of this machine are not touched, and when a machine's first
process is killed nothing of it is left.
"""

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import host, roots
from tests.e2e.kept import kept
from tests.integration.exim_root import chosen
from tests.integration.waiting import until

TREE = Path(__file__).parents[2]
SUITE = "bookworm"
PACKAGES = (
    "exim4-daemon-light nftables iproute2 procps python3 python3-dnspython python3-psutil knot knot-dnsutils unbound"
).split()
"""Of the mail host and of the world: exim, nft, and the name servers that answer the one and the other."""
TOOLS = {"mmdebstrap": "mmdebstrap", "unshare": "util-linux", "nsenter": "util-linux", "ip": "iproute2"}

FIRST = r"""
set -eu
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay -o "lowerdir=$2,upperdir=$1/upper,workdir=$1/work" overlay "$1/root"
mkdir "$1/root/aftercare"
cp -r "$3/agent" "$3/tests/integration/sink.py" "$1/root/aftercare"
chmod -R a+rX "$1/root/aftercare"
mount -t proc proc "$1/root/proc"
hostname "$4"
ip link set lo up
echo up
exec sleep infinity
"""
SENDER = {
    "/etc/hosts": "127.0.0.1 localhost\n127.0.1.1 host1.example.org host1\n",
    "/etc/resolv.conf": "nameserver 127.0.0.1\n",
    "/etc/mailname": "example.org\n",
    "/etc/exim4/hubbed_hosts": "v4.example: 198.51.100.25\nv6.example: 2001::0db8::2::::25\n",
    "/etc/exim4/update-exim4.conf.conf": chosen("internet", other_hostnames="example.org"),
}
"""The files of a host that sends mail itself, as example.org, and to v4.example and v6.example without asking a DNS."""

GROUPS = {"nobody": "nogroup"}
WATCH = """
import asyncio, json, os, socket, sys, time
from agent.sources.kernel import KernelWatch

def rules():
    opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
    opened.bind((0, 64))
    return opened.detach()

def tell(touched):
    print(json.dumps({"topic": touched.topic, "why": touched.why, "at": time.monotonic()}), flush=True)

def idle():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("voluntary"))
    return int(line.split()[1])

async def main():
    given = rules() if sys.argv[1] == "rules" else None
    os.setgroups([])
    os.setresgid(65534, 65534, 65534)
    os.setresuid(65534, 65534, 65534)
    watch = KernelWatch(tell, given)
    watch.start(asyncio.get_running_loop())
    print(json.dumps("watching"), flush=True)
    while True:
        before = idle()
        await asyncio.sleep(float(sys.argv[2]))
        print(json.dumps({"switches": idle() - before}), flush=True)

asyncio.run(main())
"""
"""A process of nobody with the watch; "rules" as its first argument: with a socket that root had opened before. Its
second argument: seconds after which it says each time how often it was woken."""

OURS = ("203.0.113.10", "2001:db8:1::10")
SINKS = ("198.51.100.25", "2001:db8:2::25")


def root() -> Path:
    """Return the root file system, making it (half a minute, needs the archives) where none is kept."""
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            raise host.Missing(f"{tool} is missing: apt-get install {package}")
    return kept("network", " ".join([SUITE, *PACKAGES]), _make) / "root"


def _make(home: Path) -> None:
    host.progress(f"{SUITE}: making a root with exim4 and name servers (once; kept in {host.cache()})")
    roots.bootstrap(SUITE, home / "root", PACKAGES)


ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "PYTHONPATH": "/aftercare"}


class Machine:
    """A Debian in namespaces of its own. To be used as a context."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Machine":
        with contextlib.ExitStack() as opened:
            self.home = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="aftercare-", dir="/var/tmp")))
            argv = [
                "setpriv",
                "--pdeathsig=KILL",
                "unshare",
                "--net",
                "--uts",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
                "sh",
                "-c",
                FIRST,
            ]
            argv += ["sh", str(self.home), str(root()), str(TREE), self.name]
            first = opened.enter_context(subprocess.Popen(argv, stdout=subprocess.PIPE, text=True))
            opened.callback(first.kill)
            assert first.stdout and first.stdout.readline() == "up\n", f"{self.name} did not start"
            (self.pid,) = _children(first.pid)
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def argv(self, *argv: str, user: str = "root") -> list[str]:
        """Return what runs `argv` in here, as `user` alone."""
        enter = [
            "nsenter",
            "-t",
            str(self.pid),
            "--mount",
            "--net",
            "--uts",
            "--pid",
            "chroot",
            str(self.home / "root"),
        ]
        return [
            *enter,
            "setpriv",
            f"--reuid={user}",
            f"--regid={GROUPS.get(user, user)}",
            "--clear-groups",
            "--pdeathsig=KILL",
            *argv,
        ]

    def run(self, *argv: str, user: str = "root", stdin: str = "", status: int = 0) -> str:
        """Run a program in here and return what it printed; it must end with `status`."""
        done = subprocess.run(
            self.argv(*argv, user=user),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env=ENVIRONMENT,
            check=False,
        )
        assert done.returncode == status, f"{argv} ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def sh(self, script: str) -> str:
        """Run a shell script in here."""
        return self.run("sh", "-euc", script)

    def write(self, path: str, text: str) -> None:
        """Write a file in here."""
        self.run("sh", "-euc", 'cat >"$0"', path, stdin=text)

    @contextlib.contextmanager
    def reading(self, *argv: str, user: str = "root") -> Iterator["Lines"]:
        """Run a program that prints JSON lines, for as long as the context lasts."""
        full = self.argv(*argv, user=user)
        with subprocess.Popen(full, stdout=subprocess.PIPE, env=ENVIRONMENT) as process:
            lines = Lines(process)
            try:
                yield lines
            finally:
                _kill(process.pid)
                lines.end()


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _kill(pid: int) -> None:
    """Kill an nsenter and what it started, which it does not take along."""
    for each in (*_children(pid), pid):
        os.kill(each, signal.SIGKILL)


class Lines:
    """The JSON lines that a program prints, each with the (monotonic) time at which it came."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._came: queue.Queue[Any] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def pid(self) -> int:
        """The program, by its pid outside."""
        (found,) = _children(self._process.pid)
        return found

    def end(self) -> None:
        """Wait until all was read; the program must have been killed."""
        self._reader.join(10)

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self._came.put(json.loads(line))

    def next(self, limit: float = 10.0) -> Any:
        """Return the next one; fail where none comes within `limit` seconds."""
        try:
            return self._came.get(timeout=limit)
        except queue.Empty:
            pytest.fail(f"{self._process.args!r} said nothing for {limit:g} s")

    def rest(self, quiet: float = 0.3) -> list[Any]:
        """Return all that come until there is `quiet` seconds' silence."""
        came = []
        with contextlib.suppress(queue.Empty):
            while True:
                came.append(self._came.get(timeout=quiet))
        return came


@contextlib.contextmanager
def watching(machine: Machine, rules: bool = True, every: float = 3600.0) -> Iterator[Lines]:
    """Watch the kernel in `machine` as nobody. Each line: what was told, and when; or how often it was woken."""
    with machine.reading("python3", "-c", WATCH, "rules" if rules else "", str(every)) as lines:
        assert lines.next() == "watching"
        yield lines


class Lab:
    """A mail host with a static address of each family, the world behind a router, and a sink for its mail."""

    def __init__(self, sender: Machine, world: Machine, sink: Lines) -> None:
        self.sender = sender
        self.world = world
        self.sink = sink

    def send(self, domain: str) -> dict[str, str]:
        """Let exim send a mail and return what the sink saw of it."""
        self.sink.rest(0)
        self.sender.run("exim4", "-odf", f"user@{domain}", stdin="Subject: t\n\nx\n")
        try:
            seen: dict[str, str] = self.sink.next()
        except BaseException:
            print(self.sender.sh("cat /var/log/exim4/mainlog"))
            raise
        return seen


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """Make the two machines and wire them up."""
    if os.geteuid() != 0:
        pytest.fail("network namespaces need root", pytrace=False)
    with Machine("host1") as sender, Machine("world") as world:
        wire(sender, world)
        for path, text in SENDER.items():
            sender.write(path, text)
        sender.sh("update-exim4.conf")
        with world.reading("python3", "/aftercare/sink.py") as sink:
            assert sink.next() == "listening"
            yield Lab(sender, world, sink)


def wire(sender: Machine, world: Machine) -> None:
    """Join the two by a cable; the world is the router of the sender and has the sinks behind it."""
    ends = ["m0", "netns", str(sender.pid), "type", "veth", "peer", "name", "w0", "netns", str(world.pid)]
    subprocess.run(["ip", "link", "add", *ends], check=True)
    for machine, end in ((sender, "m0"), (world, "w0")):
        for scope in ("all", "default", end):
            machine.run("sysctl", "-qw", f"net.ipv6.conf.{scope}.accept_dad=0", f"net.ipv6.conf.{scope}.accept_ra=0")
    world.sh("ip addr add 203.0.113.1/24 dev w0; ip addr add 2001:db8:1::1/64 dev w0 nodad; ip link set w0 up")
    world.sh("ip addr add 198.51.100.25/32 dev lo; ip addr add 2001:db8:2::25/128 dev lo nodad")
    sender.sh(
        "ip link set m0 address 52:54:8d:9b:35:8d up;"
        "ip addr add 203.0.113.10/24 dev m0; ip addr add 2001:db8:1::10/64 dev m0 nodad;"
        "ip route add default via 203.0.113.1; ip route add default via 2001:db8:1::1"
    )
    until(lambda: "tentative" not in sender.sh("ip -6 addr show dev m0"), "addresses that are not tentative", 10)
