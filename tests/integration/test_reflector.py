"""The reflector and `verify`, end to end: real exim sends the probe over a real wire and logs the verdict on itself."""

import contextlib
import ctypes
import json
import os
import shutil
import smtplib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.exim_root import COMMAND
from tests.integration.name_servers import ADDRESSES, Names
from tests.integration.network import ENVIRONMENT, TREE, Lab, Machine, lab
from tests.integration.test_spf_check import GOOD, V4, V6, command
from tests.integration.waiting import until

PLACES = ("198.51.100.26", "2001:db8:2::26")
ROUTES = "reflector.example: 198.51.100.26\nreflector6.example: 2001::0db8::2::::26\nnowhere.example: 198.51.100.27\n"
BOTH = ("spf-verify@reflector.example", "spf-verify@reflector6.example")
RUN = """
import sys
from argparse import Namespace
from agent.cli.reflector import spf_reflector
listen = [f"{place}:25" for place in sys.argv[2:]]
spf_reflector(Namespace(listen=listen, nameserver=[sys.argv[1]], json=True))
"""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Names]]:
    """The lab with a reflector in the world, run by nobody with the right to the port and no other."""
    place = tmp_path_factory.mktemp("reflector")
    shutil.copytree(TREE / "agent", place / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (place, place.parent, place.parent.parent):
        path.chmod(path.stat().st_mode | 0o755)
    with lab() as made, Names(made) as names:
        made.world.sh(
            f"ip addr add 198.51.100.27/32 dev lo; ip addr add {PLACES[0]}/32 dev lo; ip addr add {PLACES[1]}/128 dev lo nodad"
        )
        made.sender.write("/etc/exim4/hubbed_hosts", ROUTES)
        made.sender.write("/etc/exim4/exim4.conf.localmacros", LOG)
        made.sender.sh("update-exim4.conf")
        with reflecting(made, place):
            yield made, names


LOG = "MAIN_LOG_SELECTOR = +incoming_interface +outgoing_interface\n"


@contextlib.contextmanager
def reflecting(made: Lab, place: Path) -> Iterator[None]:
    enter = ["nsenter", "-t", str(made.world.pid), "--net", "setpriv", "--reuid=nobody", "--regid=nogroup"]
    enter += ["--clear-groups", "--pdeathsig=KILL"]
    enter += ["--inh-caps=+net_bind_service", "--ambient-caps=+net_bind_service"]
    argv = [*enter, "/usr/bin/python3", "-B", "-c", RUN, ADDRESSES[0], PLACES[0], f"[{PLACES[1]}]"]
    log = place / "said"
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            argv, cwd=place, env={"PYTHONPATH": str(place)}, stdout=stream, stderr=subprocess.PIPE, text=True
        ) as process,
    ):
        try:
            assert process.stderr
            assert [process.stderr.readline()[:12] for _ in PLACES] == ["listening on"] * 2
            yield
        finally:
            process.kill()


def verify(made: Lab, address: str, status: int, **options: Any) -> dict[str, Any]:
    given = {"address": address, "sender": "user@example.org", "timeout": 20.0, "json": True} | options
    said: dict[str, Any] = json.loads(command(made.sender, "verify", "spf_verify", status, **given))
    return said


@pytest.mark.parametrize(("address", "source"), list(zip(BOTH, (V4, V6), strict=True)))
def test_a_probe_passes_over_each_family_and_the_log_of_the_sender_says_so(
    stage: tuple[Lab, Names], address: str, source: str
) -> None:
    made, names = stage
    names.publish(GOOD)
    said = verify(made, address, 0)
    assert (said["fate"], said["passes"], said["spf"], said["helo"]) == ("delivered", True, "pass", "pass")
    assert (said["source"], said["seen"]) == (source, source)
    assert said["address"] in PLACES and f"for mail from example.org by ip{4 if '.' in source else 6}:" in said["reply"]
    assert said["recipient"].startswith("spf-verify+") and said["id"] in made.sender.sh("cat /var/log/exim4/mainlog")


def test_the_record_of_the_blog_passes_over_ipv4_and_fails_over_ipv6(stage: tuple[Lab, Names]) -> None:
    made, names = stage
    names.publish(f'@ TXT "v=spf1 ip4:{V4} ip6:fe80::5054:8dff:fe9b:358d/64 -all"')
    assert verify(made, BOTH[0], 0)["spf"] == "pass"
    shown = command(
        made.sender, "verify", "spf_verify", 1, address=BOTH[1], sender="user@example.org", timeout=20.0, json=False
    )
    assert "The probe did not pass: spf=fail, helo=none." in shown


def test_a_bounce_is_judged_by_the_name_of_the_host(stage: tuple[Lab, Names]) -> None:
    made, names = stage
    names.publish('host1 TXT "v=spf1 -all"\n')
    said = verify(made, BOTH[0], 1, sender="<>")
    assert (said["spf"], said["helo"]) == ("fail", "fail") and "for mail from host1.example.org" in said["reply"]


def test_a_server_that_is_no_reflector_says_nothing_of_spf(stage: tuple[Lab, Names]) -> None:
    made, _ = stage
    made.sender.write("/etc/exim4/hubbed_hosts", f"{ROUTES}sink.example: 198.51.100.25\n")
    said = verify(made, "someone@sink.example", 1)
    assert (said["fate"], said["spf"], said["recipient"]) == ("delivered", "", "someone@sink.example")


def test_what_the_other_server_refuses_or_puts_off_is_told_in_its_words(stage: tuple[Lab, Names]) -> None:
    made, _ = stage
    said = verify(made, "someone@reflector.example", 1)
    assert said["fate"] == "refused" and "550 5.7.1 nothing is taken here" in said["reply"]
    said = verify(made, "someone@nowhere.example", 1)
    assert said["fate"] == "put off" and said["reply"]


def failing(machine: Machine, home: str, function: str, user: str = "root", **options: Any) -> tuple[int, str]:
    """Run a command of agentctl that complains; return its status and its complaint."""
    argv = machine.argv("python3", "-c", COMMAND, json.dumps([home, function, options]), user=user)
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=ENVIRONMENT, timeout=60)
    return done.returncode, done.stderr


def test_a_mail_that_does_not_leave_in_time_is_told_with_its_id(stage: tuple[Lab, Names]) -> None:
    made, _ = stage
    made.sender.write("/etc/exim4/exim4.conf.localmacros", f"{LOG}queue_only = true\n")
    made.sender.sh("update-exim4.conf")
    try:
        probe = {"address": BOTH[0], "sender": None, "timeout": 1.0, "json": True}
        status, said = failing(made.sender, "verify", "spf_verify", **probe)
    finally:
        made.sender.write("/etc/exim4/exim4.conf.localmacros", LOG)
        made.sender.sh("update-exim4.conf")
    assert status == 3 and "nothing is known of the mail after 1 s" in said and "exim4 -Mvl" in said


def test_the_log_is_for_root_and_adm_alone(stage: tuple[Lab, Names]) -> None:
    probe = {"address": BOTH[0], "sender": None, "timeout": 1.0, "json": True}
    status, said = failing(stage[0].sender, "verify", "spf_verify", user="nobody", **probe)
    assert status == 4 and "adm" in said


def test_root_may_not_run_the_reflector_and_is_told_how_nobody_may(stage: tuple[Lab, Names]) -> None:
    status, said = failing(stage[0].world, "reflector", "spf_reflector")
    assert status == 4 and "setpriv --reuid=nobody" in said


@contextlib.contextmanager
def inside(made: Lab) -> Iterator[None]:
    """Be in the network of the world meanwhile."""
    own = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        with open(f"/proc/{made.world.pid}/ns/net") as other:
            _enter(other.fileno())
        yield
    finally:
        _enter(own)
        os.close(own)


def _enter(descriptor: int) -> None:
    assert ctypes.CDLL(None, use_errno=True).setns(descriptor, 0x40000000) == 0


def test_strangers_are_kept_short(stage: tuple[Lab, Names]) -> None:
    made, _ = stage
    with inside(made), smtplib.SMTP(PLACES[0], 25, "probe.example.org", timeout=20) as client:
        client.ehlo()
        assert client.esmtp_features["size"] == "65536"
        assert client.mail("<me@example.org>")[0] == 250
        assert client.rcpt("<postmaster@reflector.example>")[0] == 550
        assert client.rcpt("<spf-verify+short@reflector.example>")[0] == 550
        code, said = client.rcpt("<spf-verify+0123456789abcdef@reflector.example>")
        assert code == 250 and b"client=198.51.100.26 spf=" in said
        assert client.rcpt("<spf-verify+0123456789abcdef@reflector.example>")[0] == 452
        assert client.docmd("VRFY root")[0] in (252, 502) and client.docmd("STARTTLS")[0] >= 454
        assert client.data("x" * 60 + "\r\n" + ("y" * 60 + "\r\n") * 1500)[0] == 552


def test_only_so_many_are_let_in_and_those_that_leave_make_room(stage: tuple[Lab, Names]) -> None:
    made, _ = stage
    with inside(made):
        crowd = [socket.create_connection((PLACES[0], 25), timeout=20) for _ in range(32)]
        assert all(one.recv(3) == b"220" for one in crowd)
        with socket.create_connection((PLACES[0], 25), timeout=20) as late:
            assert late.recv(100).startswith(b"421 ") and late.recv(100) == b""
        for one in crowd:
            one.close()
        until(lambda: greeting() == b"220", "room for another one", 10)


def greeting() -> bytes:
    with socket.create_connection((PLACES[0], 25), timeout=20) as client:
        return client.recv(3)
