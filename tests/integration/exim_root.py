"""A Debian host with exim4-daemon-light, made once and kept, and run again and again in namespaces of its own.

Each `MailHost` has the kept root file system below a layer of its own, and its own host name, network, mounts and
processes: no systemd, no DNS, no wire. What a test changes is gone with it. Never touches the host's own.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.e2e import host
from tests.e2e.kept import kept
from tests.e2e.roots import bootstrap

SUITE = "bookworm"
PACKAGES = (
    "exim4-daemon-light python3 python3-debian python3-psutil iproute2 hostname util-linux "
    "python3-sdnotify python3-pyinotify python3-dnspython"
).split()
TREE = Path(__file__).parents[2]
CONFIGURATION = """\
# Written by the tests. A comment that stays.
dc_eximconfig_configtype='local'
dc_other_hostnames=''  # names that are ours
dc_local_interfaces='127.0.0.1 ; ::1'
dc_readhost=''
dc_relay_domains=''
dc_minimaldns='false'
dc_relay_nets=''
dc_smarthost=''
CFILEMODE='644'
dc_use_split_config='false'
dc_hide_mailname=''
dc_mailname_in_oh='true'
dc_localdelivery='mail_spool'
"""
HOLDER = """
set -e
mount -t tmpfs -o size=64m layer "$0/layer"
mkdir "$0/layer/upper" "$0/layer/work"
mount -t overlay -o "lowerdir=$1,upperdir=$0/layer/upper,workdir=$0/layer/work" machine "$0/root"
mkdir -p "$0/root/tree"
mount --bind "$2" "$0/root/tree"
mount -o remount,ro,bind "$0/root/tree"
mount -t proc proc "$0/root/proc"
mount --rbind /dev "$0/root/dev"
mount -t tmpfs -o mode=1777 tmp "$0/root/tmp"
ip link set lo up
echo ready
exec sleep infinity
"""
ENVIRONMENT = ("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "PYTHONPATH=/tree", "HOME=/root")
COMMAND = """
import json, sys
from argparse import Namespace
from importlib import import_module
from agent.model.errors import AgentError
home, function, options = json.loads(sys.argv[1])
try:
    sys.exit(getattr(import_module(f"agent.cli.{home}"), function)(Namespace(**options)))
except AgentError as problem:
    print(f"agentctl: {problem.message}", problem.hint, sep="\\n", file=sys.stderr)
    sys.exit(problem.exit_status)
"""
"""What `agentctl` does with a command, with its one boundary."""


def root() -> Path:
    """Return the kept root file system, made (a minute, needs the archives) where none is kept."""
    host.require()
    return kept("exim", " ".join([SUITE, *PACKAGES]), _make) / "root"


def _make(home: Path) -> None:
    host.progress(f"{SUITE}: making a mail host with mmdebstrap (once; kept in {host.cache()})")
    bootstrap(SUITE, home / "root", PACKAGES)


def chosen(kind: str, **choices: str) -> str:
    """Return what Debian's update-exim4.conf.conf has once those were chosen, and the defaults for all else."""
    text = CONFIGURATION.replace("configtype='local'", f"configtype='{kind}'")
    for key, value in choices.items():
        lines = [f"dc_{key}='{value}'" if line.startswith(f"dc_{key}=") else line for line in text.splitlines()]
        text = "\n".join(lines) + "\n"
    return text


def exim_command(**options: Any) -> tuple[str, ...]:
    """Return what runs `agentctl exim` on a host."""
    return ("python3", "-B", "-c", COMMAND, json.dumps(["exim", "exim", options]))


@dataclass(frozen=True, slots=True)
class Ended:
    """A program that ended."""

    status: int
    stdout: str
    stderr: str


class MailHost:
    """A host that has exim; `files` is its root directory, as seen from outside."""

    def __init__(self) -> None:
        self.place = Path(tempfile.mkdtemp(prefix="aftercare-exim-", dir="/var/tmp"))
        (self.place / "layer").mkdir()
        (self.place / "root").mkdir()
        namespaces = ("--mount", "--uts", "--ipc", "--net", "--pid", "--fork", "--kill-child")
        script = ("sh", "-c", HOLDER, str(self.place), str(root()), str(TREE))
        pipe = subprocess.PIPE
        self.holder = subprocess.Popen(["unshare", *namespaces, *script], stdout=pipe, stderr=pipe, text=True)
        assert self.holder.stdout and self.holder.stdout.readline() == "ready\n", self.holder.communicate()
        self.pid = _child_of(self.holder.pid)

    def stop(self) -> None:
        """End it and remove what is left of it."""
        os.kill(self.pid, signal.SIGKILL)
        self.holder.communicate()
        shutil.rmtree(self.place)

    @property
    def files(self) -> Path:
        """Its root directory, as seen from outside."""
        return Path(f"/proc/{self.pid}/root{self.place}/root")

    def argv(self, *argv: str, nobody: bool = False) -> list[str]:
        """Return what starts a program on it, as root or as nobody."""
        become = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups") if nobody else ()
        enter = ("nsenter", f"--target={self.pid}", "--mount", "--uts", "--ipc", "--net", "--pid")
        return [*enter, "chroot", f"{self.place}/root", "/usr/bin/env", "-i", *ENVIRONMENT, *become, *argv]

    def run(self, *argv: str, nobody: bool = False) -> Ended:
        """Run a program on it and return what came of it."""
        words = self.argv(*argv, nobody=nobody)
        done = subprocess.run(words, input="", capture_output=True, text=True, check=False, timeout=120)
        return Ended(done.returncode, done.stdout, done.stderr)

    def sound(self, *argv: str) -> str:
        """Run a program that must succeed and return what it printed."""
        done = self.run(*argv)
        assert done.status == 0, f"{argv}: {done}"
        return done.stdout

    def name(self, name: str, hosts: str) -> None:
        """Give it a host name, whatever that is, and /etc/hosts."""
        self.sound("python3", "-c", "import socket, sys; socket.sethostname(sys.argv[1])", name)
        (self.files / "etc/hosts").write_text(hosts)

    def configure(self, kind: str = "local", mailname: str = "host1.example.org", **choices: str) -> None:
        """Write Debian's two files and generate the configuration of them."""
        self.choose(kind, mailname, **choices)
        self.sound("update-exim4.conf")

    def choose(self, kind: str = "local", mailname: str = "host1.example.org", **choices: str) -> None:
        """Write Debian's two files alone."""
        (self.files / "etc/mailname").write_text(f"{mailname}\n")
        (self.files / "etc/exim4/update-exim4.conf.conf").write_text(chosen(kind, **choices))

    def agentctl(self, nobody: bool = False, **options: Any) -> Ended:
        """Run `agentctl exim` on it."""
        given = {"json": False, "fix": None, "yes": False} | options
        return self.run(*exim_command(**given), nobody=nobody)

    def look(self, nobody: bool = False) -> dict[str, Any]:
        """Return what `agentctl exim --json` says."""
        done = self.agentctl(nobody, json=True)
        assert done.status in (0, 1, 3), done
        data: dict[str, Any] = json.loads(done.stdout)
        return data

    def findings(self) -> dict[str, dict[str, Any]]:
        """Return the findings by their subjects."""
        return {item["subject"]: item for item in self.look()["findings"]}


def _child_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])
