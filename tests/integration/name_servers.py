"""Real name servers in the network of `network.Lab`: two of knot in the world, and unbound beside the mail host.

Example.org is all that there is of the DNS; unbound knows where its servers are and asks nobody else.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.integration.network import Lab, Machine
from tests.integration.waiting import until

ADDRESSES = ("198.51.100.53", "198.51.100.54")
KNOT = """\
server:
    rundir: {home}
    listen: [{address}@53]
database:
    storage: {home}
zone:
  - domain: example.org
    storage: {home}
    file: zone
    zonefile-load: whole
    journal-content: none
"""
ZONE = """\
$ORIGIN example.org.
$TTL 300
@ SOA ns1 hostmaster {serial} 3600 600 86400 {negative}
@ NS ns1
@ NS ns2
ns1 A 198.51.100.53
ns2 A 198.51.100.54
"""
UNBOUND = """\
server:
    interface: 127.0.0.1
    access-control: 127.0.0.0/8 allow
    username: ""
    chroot: ""
    directory: "/tmp"
    pidfile: ""
    do-daemonize: no
    use-syslog: no
    do-ip6: no
    module-config: "iterator"
    local-zone: "." static
    local-zone: "example.org" transparent
stub-zone:
    name: "example.org"
    stub-addr: 198.51.100.53
    stub-addr: 198.51.100.54
"""
DROP = "nft add table ip deaf; nft 'add chain ip deaf in { type filter hook input priority 0; }';"
DROP += "nft add rule ip deaf in udp dport 53 drop; nft add rule ip deaf in tcp dport 53 drop"


@contextlib.contextmanager
def daemon(machine: Machine, *argv: str) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server in a machine for as long as the context lasts."""
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(machine.argv(*argv), **quiet) as process:
        try:
            yield process
        finally:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
            for child in map(int, children.split()):  # nsenter waits for its own, which thus leaves nothing behind
                os.kill(child, signal.SIGKILL)


class Names:
    """The zone example.org, and who serves it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.serial = 1
        self._open = contextlib.ExitStack()
        self._cache = contextlib.ExitStack()

    def __enter__(self) -> "Names":
        self.lab.world.sh("".join(f"ip addr add {address}/32 dev lo;" for address in ADDRESSES))
        self.lab.sender.write("/etc/unbound/test.conf", UNBOUND)
        self._write("", 60, ADDRESSES)
        for address in ADDRESSES:
            home = _home(address)
            self.lab.world.write(f"{home}/knot.conf", KNOT.format(home=home, address=address))
            self._open.enter_context(daemon(self.lab.world, "knotd", "-c", f"{home}/knot.conf"))
        self.forget()
        return self

    def __exit__(self, *_: object) -> None:
        self._cache.close()
        self._open.close()

    def publish(self, rows: str, negative: int = 60, servers: tuple[str, ...] = ADDRESSES) -> None:
        """Give the zone these rows, at these servers."""
        self.serial += 1
        self._write(rows, negative, servers)
        for address in servers:
            self.lab.world.run("knotc", "-b", "-c", f"{_home(address)}/knot.conf", "zone-reload", "example.org")

    def _write(self, rows: str, negative: int, servers: tuple[str, ...]) -> None:
        for address in servers:
            self.lab.world.sh(f"mkdir -p {_home(address)}")
            text = ZONE.format(serial=self.serial, negative=negative)
            self.lab.world.write(f"{_home(address)}/zone", f"{text}{rows}\n")

    def forget(self) -> None:
        """Start the mail host's resolver anew: it remembers nothing."""
        self._cache.close()
        self._cache.enter_context(daemon(self.lab.sender, "unbound", "-d", "-c", "/etc/unbound/test.conf"))
        for machine, server in ((self.lab.sender, ADDRESSES[0]), (self.lab.sender, "127.0.0.1")):
            _wait(machine, server)

    @contextlib.contextmanager
    def silent(self) -> Iterator[None]:
        """Let no question through to the servers."""
        self.lab.world.sh(DROP)
        try:
            yield
        finally:
            self.lab.world.sh("nft delete table ip deaf")


def _home(address: str) -> str:
    return f"/var/lib/knot/{address}"


def _wait(machine: Machine, server: str) -> None:
    ask = f"kdig +short +time=1 +retry=0 @{server} example.org SOA || :"
    until(lambda: "hostmaster" in machine.sh(ask), f"an answer of {server}", 10)
