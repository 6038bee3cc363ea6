"""Probes of real servers: on loopback here, and in a booted Debian where they need systemd or other users' sockets."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator

import pytest

from agent.model.probes import Probe, Way, parse_probe
from agent.restart.probe import probe
from tests.e2e import roots
from tests.e2e.machine import Machine

PROBE = """
import asyncio, json, sys
sys.path.insert(0, "/opt/tree")
from agent.model.probes import parse_probe
from agent.restart.probe import probe
print(asyncio.run(probe(parse_probe(json.loads(sys.argv[1])), limit=float(sys.argv[2]))))
"""
AS_THE_DAEMON = (
    "CapabilityBoundingSet=CAP_SYS_PTRACE CAP_DAC_READ_SEARCH CAP_CHECKPOINT_RESTORE",
    "NoNewPrivileges=yes",
    "ProtectSystem=strict",
    "PrivateTmp=yes",
    "ProtectHome=read-only",
)
SERVE = (
    "import os, socket, sys, time; os.umask(0o007); s = socket.socket(socket.AF_UNIX); "
    "s.bind(sys.argv[1]); s.listen(); time.sleep(999)"
)
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def against(serve: Serve, text: str, limit: float = 0.0) -> str:
    """Probe a server on a free port of loopback; `{}` in `text` stands for the port."""

    async def both() -> str:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            return await probe(parse_probe(text.format(server.sockets[0].getsockname()[1])), limit=limit)

    return asyncio.run(both())


def saying(answer: bytes, asked: list[bytes] | None = None) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        if asked is not None:
            asked.append(request)
        writer.write(answer)
        writer.close()

    return serve


async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    await reader.read()


async def flooding(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 " + b"x" * (1 << 20))
    writer.close()


def test_a_port_that_is_open_is_well() -> None:
    assert against(silent, "tcp:127.0.0.1:{}") == ""


def test_a_port_that_is_closed_is_told() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        wrong = asyncio.run(probe(Probe(Way.TCP, "127.0.0.1", port), limit=0.0))
    assert wrong.startswith(f"tcp:127.0.0.1:{port}: ") and "Connect call failed" in wrong


def test_a_port_that_opens_in_time_is_well() -> None:
    async def late() -> str:
        ours = socket.socket()
        ours.bind(("127.0.0.1", 0))
        asking = asyncio.create_task(probe(Probe(Way.TCP, *ours.getsockname()), limit=5.0))
        await asyncio.sleep(0.7)
        assert not asking.done()
        async with await asyncio.start_server(silent, sock=ours):
            return await asking

    assert asyncio.run(late()) == ""


@pytest.mark.parametrize("host", ["no-such-name.invalid", "a..b"])
def test_a_name_that_leads_nowhere_is_told(host: str) -> None:
    assert asyncio.run(probe(Probe(Way.TCP, host, 25), limit=0.0)).startswith(f"tcp:{host}:25: ")


@pytest.mark.parametrize("status", [b"200 OK", b"204 No Content", b"301 Moved Permanently", b"304", b"200 "])
def test_a_page_or_a_way_to_one_is_well(status: bytes) -> None:
    asked: list[bytes] = []
    assert against(saying(b"HTTP/1.1 " + status + b"\r\n\r\n", asked), "http://127.0.0.1:{}/a?b=c") == ""
    lines = asked[0].split(b"\r\n")
    assert lines[0] == b"GET /a?b=c HTTP/1.1" and lines[1].startswith(b"Host: 127.0.0.1:")


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "it answers 503 Service Unavailable"),
        (b"HTTP/1.0 404\r\n\r\n", "it answers 404"),
        (b"HTTP/1.1 200 \x1b[31m\r\n\r\n", "not HTTP"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "not HTTP"),
        (b"HTTP/1.1 200", "not HTTP"),
        (b"", "without an answer"),
    ],
)
def test_an_error_is_told(answer: bytes, words: str) -> None:
    assert words in against(saying(answer), "http://127.0.0.1:{}/")


def test_an_answer_without_an_end_is_not_read_to_it() -> None:
    assert against(flooding, "http://127.0.0.1:{}/")


def test_a_server_that_says_nothing_costs_a_second() -> None:
    assert "no answer within 1 s" in against(silent, "http://127.0.0.1:{}/")
    assert against(silent, "https://127.0.0.1:{}/")


@pytest.fixture(scope="module", params=roots.SUITES)
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    """A booted Debian with the prober in it."""
    with Machine(roots.base(request.param)) as machine:
        machine.copy_agent()
        machine.write("/opt/probe.py", PROBE)
        yield machine


def probed(machine: Machine, value: str, limit: float = 0.0) -> str:
    """Probe in a sandbox such as the daemon's."""
    settings = [f"--property={setting}" for setting in AS_THE_DAEMON]
    run = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", *settings]
    done = machine.run([*run, "/usr/bin/python3", "-B", "/opt/probe.py", value, str(limit)])
    return done.stdout.removesuffix("\n")


@pytest.mark.parametrize("path", ["/run/php.sock", "/tmp/app.sock"])
def test_a_socket_of_somebody_elses_is_reached(machine: Machine, path: str) -> None:
    serve = ["systemd-run", "--quiet", "--collect", "--unit=serve", "--property=User=root", "--property=Group=alice"]
    machine.run([*serve, "/usr/bin/python3", "-c", SERVE, path])
    try:
        machine.until(lambda: machine.exists(path), 10, path)
        machine.run(["chown", "alice:alice", path])
        assert probed(machine, f'"unix:{path}"') == ""
    finally:
        machine.run(["systemctl", "stop", "serve.service"])
    assert "Connection refused" in probed(machine, f'"unix:{path}"')
    assert "No such file" in probed(machine, f'"unix:{path}x"')


def test_a_command_can_look_but_not_touch(machine: Machine) -> None:
    assert probed(machine, '["/usr/bin/test", "-e", "/etc/passwd"]') == ""
    assert "ended with status 1" in probed(machine, '["/usr/bin/test", "-e", "/root/.ssh"]')
    assert "Read-only file system" in probed(machine, '["/usr/bin/touch", "/var/tmp/../x"]')
    assert "cat: '$HOME': No such file" in probed(machine, '["cat", "$HOME"]')
    who = machine.run(["grep", "-c", "aftercare-probe", "/etc/passwd"], check=False)
    assert who.stdout.strip() == "0"


def test_a_command_that_hangs_is_ended(machine: Machine) -> None:
    assert probed(machine, '["/usr/bin/sleep", "77"]', limit=1.0)
    assert machine.run(["pgrep", "-f", "^/usr/bin/sleep 77$"], check=False).stdout == ""


def test_a_certificate_is_not_asked_for_its_name(machine: Machine) -> None:
    machine.run(
        "openssl req -x509 -newkey rsa:2048 -nodes -subj /CN=elsewhere -days 1 -keyout /etc/nginx/k -out /etc/nginx/c;"
        "echo 'server { listen 127.0.0.1:8443 ssl; ssl_certificate c; ssl_certificate_key k; }'"
        " >/etc/nginx/conf.d/secure.conf; nginx -t; systemctl restart nginx.service"
    )
    assert probed(machine, '"https://127.0.0.1:8443/"') == ""
    assert "404" in probed(machine, '"https://127.0.0.1:8443/none"')
    assert probed(machine, '"https://127.0.0.1:80/"')
