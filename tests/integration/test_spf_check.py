"""The check `spf` in a network of its own: real exim, real addresses, knot as the zone's servers, unbound before them."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.integration.exim_root import COMMAND
from tests.integration.name_servers import ADDRESSES, Names
from tests.integration.network import Lab, Machine, lab

CHECK = """
import json, resource, sys
resource.setrlimit(resource.RLIMIT_AS, (512 << 20, 512 << 20))
from datetime import datetime
from agent.checks.spf import run
from agent.model import contract
from agent.model.facts import Host
from agent.model.findings import Request
order = json.loads(sys.argv[1])
request = Request("spf", datetime.fromisoformat(order["now"]), options=order["options"], kept=order["kept"])
result = run(Host(), request)
told = [contract.finding(finding) for finding in result.findings]
print(json.dumps(contract.encode({"findings": told, "detail": result.detail, "unseen": result.unseen,
    "again_at": result.again_at, "keep": result.keep})))
"""
"""The check with the memory that a worker has."""
V4, V6 = "203.0.113.10", "2001:db8:1::10"
TWIN = "2001:db8:1:0:5054:8dff:fe9b:358d"
"""The address that the kernel would make of the interface's MAC, as the blog's host had one."""
GOOD = f'@ TXT "v=spf1 ip4:{V4} ip6:{V6} -all"\nhost1 TXT "v=spf1 ip4:{V4} ip6:{V6} -all"'
BLOG = (
    '@ TXT "v=spf1 a mx ip4:203.0.113.10 ip6:fe80::5054:8dff:fe9b:358d/64 -all"\n'
    "@ A 104.21.3.4\n@ MX 10 mail\nmail A 203.0.113.10\n"
    f'host1 TXT "v=spf1 ip4:{V4} ip6:{TWIN} -all"\n'
)


class Stage:
    """The mail host, its names, and what the daemon would remember between two runs."""

    def __init__(self, made: Lab, names: Names) -> None:
        self.sender, self.names = made.sender, names
        self.now = datetime.now(UTC)
        self.kept: dict[str, Any] = {}

    def look(self, **options: Any) -> dict[str, Any]:
        """Run the check."""
        order = {"now": self.now.isoformat(), "options": options, "kept": self.kept}
        result: dict[str, Any] = json.loads(self.sender.run("python3", "-c", CHECK, json.dumps(order)))
        self.kept = result["keep"]
        return result


@pytest.fixture(scope="module")
def made() -> Iterator[tuple[Lab, Names]]:
    with lab() as started, Names(started) as names:
        yield started, names


@pytest.fixture
def stage(made: tuple[Lab, Names]) -> Stage:
    """All is well, and nobody remembers anything."""
    made[1].publish(GOOD)
    made[1].forget()
    return Stage(*made)


def found(result: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {item["subject"]: item for item in result["findings"]}


def row(result: dict[str, Any], name: str = "example.org") -> dict[str, Any]:
    (one,) = (item for item in result["detail"]["domains"] if item["domain"] == name)
    return dict(one)


def command(machine: Machine, home: str, function: str, status: int, **options: Any) -> str:
    """Run a command of agentctl, which must end with `status`."""
    return machine.run("python3", "-c", COMMAND, json.dumps([home, function, options]), status=status)


def test_a_sound_host_has_four_cells_that_pass_and_no_finding(stage: Stage) -> None:
    result = stage.look()
    assert (result["findings"], result["unseen"]) == ([], [])
    cells = [cell for name in ("example.org", "host1.example.org") for cell in row(result, name)["cells"]]
    assert [(cell["identity"], cell["family"], cell["verdict"]) for cell in cells] == [
        ("mailfrom", 4, "pass"),
        ("mailfrom", 6, "pass"),
        ("helo", 4, "pass"),
        ("helo", 6, "pass"),
    ]
    assert {server["server"] for server in row(result)["servers"]} == {"ns1.example.org", "ns2.example.org"}


def test_the_record_of_the_blog_is_found_with_the_record_that_mends_it(stage: Stage) -> None:
    stage.sender.sh(f"ip addr add {TWIN}/64 dev m0 nodad; ip addr del {V6}/64 dev m0")
    try:
        stage.names.publish(BLOG)
        stage.names.forget()
        finding = found(stage.look())["example.org"]
        wanted = f"v=spf1 mx ip4:{V4} ip6:{TWIN} -all"
        assert finding["severity"] == "critical"
        assert finding["advice"] == f'publish this TXT record for example.org: "{wanted}"'
        assert finding["summary"].startswith("mail over IPv6 does not pass: ")
        assert {"link-local", "leads-elsewhere"} <= {remark["code"] for remark in finding["evidence"]["remarks"]}
        stage.names.publish(BLOG.replace(finding["evidence"]["record"], wanted))
        stage.names.forget()
        assert found(stage.look()) == {}
    finally:
        stage.sender.sh(f"ip addr add {V6}/64 dev m0 nodad; ip addr del {TWIN}/64 dev m0")


def test_a_switched_address_is_found_missing_and_then_the_old_one_too_many(stage: Stage) -> None:
    assert stage.look()["findings"] == []
    fresh = "203.0.113.77"
    stage.sender.sh(f"ip addr add {fresh}/24 dev m0; ip addr del {V4}/24 dev m0; ip addr add {fresh}/24 dev m0 || :")
    stage.sender.sh("ip route replace default via 203.0.113.1")
    try:
        finding = found(stage.look())["example.org"]
        assert finding["severity"] == "critical" and fresh in finding["summary"]
        assert finding["evidence"]["proposed"] == f"v=spf1 ip6:{V6} ip4:{fresh} -all"
        both = GOOD.replace(f"ip4:{V4}", f"ip4:{V4} ip4:{fresh}")
        stage.names.publish(both)
        finding = found(stage.look())["example.org"]
        assert finding["severity"] == "warning" and "no longer has it" in finding["summary"]
    finally:
        stage.sender.sh(f"ip addr flush dev m0 scope global to 203.0.113.0/24; ip addr add {V4}/24 dev m0")
        stage.sender.sh("ip route replace default via 203.0.113.1")
    stage.names.publish(GOOD)
    assert found(stage.look()) == {}


def test_what_the_resolver_still_has_is_told_until_it_is_gone(stage: Stage) -> None:
    stage.names.publish(GOOD.replace("@ TXT", "@ 600 TXT").replace("-all", "~all"))
    stage.look()
    stage.names.publish(GOOD)
    stage.kept = {}
    result = stage.look()
    left = datetime.fromisoformat(row(result)["old_until"]) - stage.now
    assert timedelta(seconds=540) < left <= timedelta(seconds=605)
    assert row(result)["record"].endswith("-all") and result["findings"] == []
    stage.names.forget()
    stage.kept = {}
    assert row(stage.look())["old_until"] is None


def test_a_server_that_has_the_old_zone_is_named_and_the_newer_one_judged(stage: Stage) -> None:
    stage.names.publish(GOOD.replace(V6, "2001:db8:9::9"))
    stage.names.publish(GOOD, servers=ADDRESSES[:1])
    finding = found(stage.look())["example.org"]
    assert finding["severity"] == "warning" and finding["summary"].startswith("ns2.example.org still serve")
    serials = {
        server["server"]: server["serial"] for server in row({"detail": {"domains": [finding["evidence"]]}})["servers"]
    }
    assert serials["ns1.example.org"] == serials["ns2.example.org"] + 1


def test_servers_that_are_silent_are_unknown_with_an_age_and_soon_asked_again(stage: Stage) -> None:
    stage.look()
    stage.now += timedelta(hours=2)
    begun = time.monotonic()
    with stage.names.silent():
        result = stage.look()
    assert time.monotonic() - begun < 35
    assert result["findings"] == [] and len(result["unseen"]) == 2
    cells = row(result)["cells"]
    assert {cell["verdict"] for cell in cells} == {"unknown"}
    assert "the last good verdict, 2 h old, is pass" in cells[0]["reason"]
    assert timedelta(seconds=60) <= datetime.fromisoformat(result["again_at"]) - stage.now <= timedelta(seconds=66)


def test_a_host_that_cannot_reach_the_servers_is_judged_at_once_by_what_its_resolver_has(stage: Stage) -> None:
    stage.look()
    with stage.names.silent():
        begun = time.monotonic()
        shown = command(stage.sender, "spf", "spf", 0, domain=None, json=False)
    assert time.monotonic() - begun < 35
    assert shown.count("by this host's resolver alone") == 2 and "not known" not in shown


def test_a_domain_that_exim_looks_up_is_judged_as_ours_once_it_sent(stage: Stage) -> None:
    stage.names.publish(f'{GOOD}\nshop TXT "v=spf1 -all"\nisp TXT "v=spf1 -all"')
    stage.names.forget()
    lines = [
        line
        for number, name in enumerate(("shop", "isp"))
        for line in (
            f"1vMPQr-0000A{number}-2C <= info@{name}.example.org U=u P=local S=400",
            f"1vMPQr-0000A{number}-2C => x@mx.example R=dnslookup T=remote_smtp S=5 H=mx.example [198.51.100.25]",
        )
    ]
    moment = f"{stage.now - timedelta(hours=1):%Y-%m-%d %H:%M:%S} +0000"
    macros = "/etc/exim4/exim4.conf.localmacros"
    stage.sender.write(macros, "MAIN_LOCAL_DOMAINS=@:localhost:example.org:dsearch;/etc/exim4/virtual\n")
    stage.sender.sh("mkdir /etc/exim4/virtual")
    stage.sender.write("/etc/exim4/virtual/shop.example.org", "info: root\n")
    stage.sender.write("/var/log/exim4/mainlog", "".join(f"{moment} {line}\n" for line in lines))
    stage.sender.sh("update-exim4.conf")
    try:
        result = stage.look()
        assert {name: item["severity"] for name, item in found(result).items()} == {"shop.example.org": "critical"}
        assert result["detail"]["forwarded"] == ["isp.example.org"]
        shown = command(stage.sender, "spf", "spf", 1, domain=None, json=False)
        assert "exim looks up more domains of its own by dsearch;/etc/exim4/virtual" in shown
    finally:
        stage.sender.sh(f"rm -r {macros} /etc/exim4/virtual /var/log/exim4/mainlog; update-exim4.conf")


def test_a_domain_that_does_not_exist_is_told_as_refused(stage: Stage) -> None:
    finding = found(stage.look(domains=["nowhere.example.org"]))["nowhere.example.org"]
    assert finding["severity"] == "critical" and "does not exist in DNS" in finding["summary"]


def test_the_smallest_time_to_live_is_when_it_looks_again(stage: Stage) -> None:
    stage.names.publish(GOOD.replace("@ TXT", "@ 120 TXT"))
    again = datetime.fromisoformat(stage.look()["again_at"]) - stage.now
    assert timedelta(seconds=120) <= again <= timedelta(seconds=132)
    stage.names.publish(GOOD.replace("@ TXT", "@ 1200 TXT").replace("host1 TXT", "host1 1000 TXT"))
    stage.kept = {}
    stage.names.forget()
    again = datetime.fromisoformat(stage.look()["again_at"]) - stage.now
    assert timedelta(seconds=1000) <= again <= timedelta(seconds=1100)


def test_the_command_shows_all_and_one_domain_that_is_not_ours(stage: Stage) -> None:
    shown = command(stage.sender, "spf", "spf", 0, domain=None, json=False)
    assert "Nothing is known to be wrong" in shown and f"{V6} by `ip6:{V6}`" in shown
    stage.names.publish(f'{GOOD}\nother TXT "v=spf1 ip4:192.0.2.1 -all"')
    stage.names.forget()
    data = json.loads(command(stage.sender, "spf", "spf", 1, domain="other.example.org", json=True))
    assert [item["id"] for item in data["findings"]] == ["spf/other.example.org"]
    assert len(data["detail"]["spf"]["domains"]) == 1
    command(stage.sender, "spf", "spf", 2, domain="-bad", json=True)


def test_a_record_is_evaluated_over_real_dns_before_and_after_it_is_published(stage: Stage) -> None:
    asked = {"mail_from": "me@example.org", "helo": "host1.example.org", "json": True}
    asked |= {"nameserver": None, "record": None}
    data = json.loads(command(stage.sender, "evaluate", "spf_evaluate", 0, ip=V6, **asked))
    assert (data["result"], data["matched"]["term"]) == ("pass", f"ip6:{V6}") and 0 < data["ttl"] <= 300
    assert json.loads(command(stage.sender, "evaluate", "spf_evaluate", 1, ip="192.0.2.1", **asked))["result"] == "fail"
    asked["nameserver"] = f"{ADDRESSES[1]}#53"
    assert json.loads(command(stage.sender, "evaluate", "spf_evaluate", 0, ip=V4, **asked))["ttl"] == 300
    asked |= {"record": "v=spf1 include:example.org ip6:fe80::1 -all", "json": False}
    shown = command(stage.sender, "evaluate", "spf_evaluate", 0, ip=V4, **asked)
    assert "pass, by `include:example.org` of example.org" in shown and "^^^^^^^^^^^" in shown
    asked["nameserver"] = "198.51.100.99"
    command(stage.sender, "evaluate", "spf_evaluate", 3, ip=V4, **asked)
    command(stage.sender, "evaluate", "spf_evaluate", 2, ip="no", **asked)


def test_two_thousand_domains_are_judged_in_one_run(stage: Stage) -> None:
    many = [f"d{number}.example.org" for number in range(2000)]
    rows = (f'd{number} TXT "v=spf1 ip4:{V4} ip6:{V6} -all"' for number in range(1999))
    stage.names.publish("\n".join((GOOD, *rows, 'd1999 TXT "v=spf1 -all"')))
    begun = time.monotonic()
    result = stage.look(domains=many)
    assert time.monotonic() - begun < 35
    assert list(found(result)) == ["d1999.example.org"] and result["unseen"] == []
    assert result["detail"]["domains"][0]["domain"] == "d1999.example.org"
    assert len(result["detail"]["domains"]) + result["detail"]["not_shown"] == 2002
