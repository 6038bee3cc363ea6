"""SPF in the daemon's own sandbox: an exim that sends to the Internet, a name server beside it, and what moves there.

The machine has no network but a pair of interfaces of its own; its resolver and its zone's server are one small
program on loopback. What the daemon noticed and when is read from the journal.
"""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import spf_root
from tests.e2e.conftest import remember
from tests.e2e.machine import Answer, Machine

SERVER = r"""
import json, socket
import dns.flags, dns.message, dns.name, dns.rcode, dns.rrset

ZONE = "example.org."
listening = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
listening.bind(("127.0.0.1", 53))
while True:
    data, peer = listening.recvfrom(4096)
    question = dns.message.from_wire(data)
    asked = question.question[0]
    names = json.load(open("/srv/names.json"))
    response = dns.message.make_response(question, recursion_available=True)
    response.flags |= dns.flags.AA
    here = names.get(asked.name.to_text().lower())
    rows = (here or {}).get(dns.rdatatype.to_text(asked.rdtype), [])
    start = dns.rrset.from_text(ZONE, 300, "IN", "SOA", "ns.example.org. root.example.org. 1 9 9 9 60")
    if rows:
        response.answer.append(dns.rrset.from_text_list(asked.name, names["ttl"], "IN", asked.rdtype, rows))
    else:
        response.set_rcode(dns.rcode.NXDOMAIN if here is None else dns.rcode.NOERROR)
        response.authority.append(start)
    listening.sendto(response.to_wire(), peer)
"""
UNIT = "[Service]\nExecStart=/usr/bin/python3 /usr/local/lib/names.py\n"
V4, V6 = "203.0.113.10", "2001:db8:1:0:5054:8dff:fe9b:358d"
SECOND = "203.0.113.77"
BLOG = "v=spf1 ip4:203.0.113.10 ip6:fe80::5054:8dff:fe9b:358d/64 -all"
MENDED = f"v=spf1 ip4:{V4} ip6:{V6} -all"
TTL = 300
HOST = "host1.example.org"
DELIVERS = f"""
hostname host1
printf '127.0.0.1 localhost\n127.0.1.1 {HOST} host1\n' >/etc/hosts
echo example.org >/etc/mailname
sed -i "s/^dc_eximconfig_configtype=.*/dc_eximconfig_configtype='internet'/
    s/^dc_other_hostnames=.*/dc_other_hostnames='example.org;{HOST}'/" /etc/exim4/update-exim4.conf.conf
update-exim4.conf
ip link add m0 type veth peer name w0
ip link set m0 addrgenmode none up
ip link set w0 addrgenmode none up
ip addr add {V4}/24 dev m0
ip addr add {V6}/64 dev m0 nodad
ip route add default via 203.0.113.1 dev m0 onlink
ip -6 route add default via fe80::1 dev m0
echo 'nameserver 127.0.0.1' >/etc/resolv.conf
"""
SOON = 5.0
EXPIRY = 66.0
"""Seconds after which a record whose TTL is short is looked at again, at the latest."""


@pytest.fixture(scope="module")
def disk(suite: str, package: Path) -> Iterator[Path]:
    """The disk of a machine with nftables that was shut down after the .deb was installed."""
    with Machine(spf_root.base(suite)) as machine:
        machine.install(package)
        machine.wait()
        machine.run("systemctl stop aftercare.service; rm /var/lib/aftercare/*")
        machine.poweroff()
        yield machine.root


@pytest.fixture
def machine(request: pytest.FixtureRequest, suite: str, disk: Path) -> Iterator[Machine]:
    """A freshly booted copy of it."""
    with Machine(spf_root.base(suite), disk) as machine:
        remember(request, machine)
        machine.wait()
        yield machine


def publish(machine: Machine, record: str, ttl: int = TTL) -> None:
    """Give the domain this record; that of the host itself is sound, and that of another one forbids all."""
    names = {
        "ttl": ttl,
        "example.org.": {
            "SOA": ["ns.example.org. root.example.org. 1 9 9 9 60"],
            "NS": ["ns.example.org."],
            "TXT": [f'"{record}"'],
        },
        "ns.example.org.": {"A": ["127.0.0.1"]},
        f"{HOST}.": {"TXT": [f'"{MENDED}"']},
        "elsewhere.example.org.": {"TXT": ['"v=spf1 -all"']},
    }
    machine.write("/srv/names.new", json.dumps(names))
    machine.run("mv /srv/names.new /srv/names.json")


def prepare(machine: Machine, record: str, ttl: int = TTL) -> float:
    """Make a mail server of the machine while the daemon is down, and start that; return when, by the clock."""
    machine.run("systemctl stop aftercare.service")
    machine.write("/usr/local/lib/names.py", SERVER)
    machine.write("/etc/systemd/system/names.service", UNIT)
    publish(machine, record, ttl)
    machine.run(DELIVERS)
    machine.run("systemctl daemon-reload; systemctl start names.service")
    begun = time.time()
    machine.run("systemctl start aftercare.service")
    return begun


def status(machine: Machine) -> dict[str, Any]:
    data: dict[str, Any] = machine.agentctl("status").data
    return data


def unseen(machine: Machine) -> list[str]:
    """Return what could not be looked at of the domain's record."""
    return [line for line in status(machine)["unseen"] if "example.org" in line]


def finding(machine: Machine, subject: str = "example.org") -> dict[str, Any] | None:
    return next((item for item in status(machine)["findings"] if item["id"] == f"spf/{subject}"), None)


def detail(machine: Machine) -> dict[str, Any]:
    return dict(status(machine)["detail"].get("spf", {}))


def told_after(machine: Machine, begun: float, words: str) -> float:
    """Return how many seconds after `begun` the journal was told what begins so of SPF; 0.0: not at all."""
    for row in machine.journal(identifier="aftercared"):
        at = int(row["__REALTIME_TIMESTAMP"]) / 1e6
        if at > begun and row["MESSAGE"].startswith(f"spf: {words}"):
            return at - begun
    return 0.0


def noticed(machine: Machine, begun: float, words: str, limit: float = SOON) -> float:
    """Wait until the journal was told, and return after how many seconds that was."""
    took: float = machine.until(lambda: told_after(machine, begun, words), limit + 10, words, pause=0.3)
    print(f"{machine.suite}: {words!r} was told after {took:.2f} s")
    assert took < limit, f"{words}: {took:.1f} s"
    return took


def run_at(machine: Machine, script: str) -> float:
    begun = time.time()
    machine.run(script)
    return begun


def test_the_record_of_the_blog_is_found_by_itself_with_the_record_to_publish(machine: Machine) -> None:
    begun = prepare(machine, BLOG)
    noticed(machine, begun, "example.org: ", 10)
    found = finding(machine)
    assert found and found["severity"] == "critical"
    assert found["advice"] == f'publish this TXT record for example.org: "{MENDED}"'
    assert "link-local" in {remark["code"] for remark in found["evidence"]["remarks"]}
    asked = machine.agentctl("spf")
    assert asked.status == 1 and asked.findings["example.org"]["advice"] == found["advice"]
    publish(machine, MENDED)
    assert machine.agentctl("spf").status == 0


@pytest.mark.suites("bookworm")
def test_an_address_that_comes_or_goes_and_a_new_name_are_noticed_at_once(machine: Machine) -> None:
    prepare(machine, MENDED)
    machine.until(lambda: detail(machine).get("sends"), 15, "the first look")
    assert not finding(machine)
    begun = run_at(machine, f"ip addr add {SECOND}/24 dev m0; ip route replace default via 203.0.113.1 src {SECOND}")
    noticed(machine, begun, "example.org: ")
    found = finding(machine)
    assert found and SECOND in found["summary"] and f"ip4:{SECOND}" in found["evidence"]["proposed"]
    begun = run_at(machine, f"ip addr del {SECOND}/24 dev m0; ip route replace default via 203.0.113.1 dev m0 onlink")
    noticed(machine, begun, "example.org is right again")
    begun = run_at(machine, "sed -i 's/host1/elsewhere/g' /etc/hosts; hostname elsewhere")
    noticed(machine, begun, "elsewhere.example.org: ")


@pytest.mark.suites("bookworm")
def test_a_record_that_changed_is_noticed_when_the_old_one_has_expired(machine: Machine) -> None:
    prepare(machine, MENDED, ttl=20)
    machine.until(lambda: detail(machine).get("sends"), 15, "the first look")
    time.sleep(2)
    publish(machine, "v=spf1 -all", ttl=20)
    begun = time.time()
    assert machine.agentctl("spf").status == 1, "who asks here and now sees it at once"
    assert not finding(machine), "nothing woke the daemon"
    assert noticed(machine, begun, "example.org: ", EXPIRY + SOON) > SOON


@pytest.mark.suites("bookworm")
def test_a_name_server_that_is_down_is_no_alarm_and_the_verdict_stays_with_its_age(machine: Machine) -> None:
    prepare(machine, MENDED)
    machine.until(lambda: detail(machine).get("sends"), 15, "the first look")
    (before,) = [row for row in detail(machine)["domains"] if row["domain"] == "example.org"]
    machine.run("systemctl stop names.service")
    begun = run_at(machine, "ip addr add 192.0.2.9/32 dev m0")
    machine.until(lambda: unseen(machine), 45, "the failure")
    print(f"a DNS that is down was told after {time.time() - begun:.1f} s")
    assert not [item for item in status(machine)["findings"] if item["check"] == "spf"]
    (row,) = [row for row in detail(machine)["domains"] if row["domain"] == "example.org"]
    assert row["failed"] and row["checked_at"] == before["checked_at"]
    assert {cell["verdict"] for cell in row["cells"]} == {"unknown"}
    assert "the last good verdict" in str(row["remarks"]) and "is pass" in str(row["remarks"])
    machine.run("systemctl start names.service; ip addr del 192.0.2.9/32 dev m0")
    machine.until(lambda: not unseen(machine), 45, "the name server to be heard again")


def spoken(machine: Machine) -> tuple[Answer, str]:
    """Return what `agentctl spf` says: as JSON, and as words."""
    done = machine.run(["agentctl", "spf"], check=False, timeout=60)
    return machine.agentctl("spf"), " ".join(f"{done.stdout} {done.stderr}".split())


def test_a_machine_whose_mail_stays_here_or_that_has_no_exim_says_so(machine: Machine) -> None:
    answer, words = spoken(machine)
    assert answer.status == 0 and answer.data["findings"] == []
    assert words == "There is nothing to judge: exim's configuration is of the type local: no mail leaves this host."
    machine.run("apt-get -y purge exim4-base exim4-config", timeout=120)
    answer, words = spoken(machine)
    assert answer.status == 0
    assert words == "There is nothing to judge: exim is not installed."


@pytest.mark.suites("bookworm")
def test_without_any_dns_it_ends_in_time_and_says_what_is_not_known(machine: Machine) -> None:
    prepare(machine, MENDED)
    machine.run("systemctl kill -s STOP names.service")
    done = machine.run(["agentctl", "spf"], check=False, timeout=60)
    print(f"silent DNS: {done.seconds:.1f} s\n{done.stdout}{done.stderr}")
    assert done.status == 3 and done.seconds < 25 and done.stderr.startswith("agentctl: ")
    machine.run(f"echo '{V6} {HOST} host1' >>/etc/hosts")
    done = machine.run(["agentctl", "spf"], check=False, timeout=60)
    print(f"silent DNS, though exim knows its name: {done.seconds:.1f} s\n{done.stdout}{done.stderr}")
    assert done.status == 3 and done.seconds < 25 and "127.0.0.1: no answer" in " ".join(done.stdout.split())
    machine.run("systemctl stop names.service")
    refused = machine.run(["agentctl", "spf"], check=False, timeout=60)
    print(f"refused DNS: {refused.seconds:.1f} s\n{refused.stdout}{refused.stderr}")
    assert refused.status == 3 and refused.seconds < 25
    machine.run(": >/etc/resolv.conf")
    nobody = machine.run(["agentctl", "spf"], check=False, timeout=60)
    print(f"no DNS: {nobody.seconds:.1f} s\n{nobody.stdout}{nobody.stderr}")
    assert nobody.status == 3 and "names no name server" in nobody.stderr
