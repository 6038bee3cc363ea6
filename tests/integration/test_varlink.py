"""The Varlink server on a real socket, with real peers of other users, and all that they may try."""

import asyncio
import contextlib
import json
import os
import random
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.model.errors import AgentError, Kind
from agent.model.events import Peer
from agent.varlink import interface, wire
from agent.varlink.service import Limits, Method, Right, Send, Service

READERS = 4242
NOBODY = 65534
LIMITS = Limits(idle=1.5, write=0.5)
COUNTS = b'{"method":"org.aftercare.Agent.Counts"}\0'
WATCH = b'{"method":"org.aftercare.Agent.Watch","more":true}\0'
WAIT = b'{"method":"org.aftercare.Agent.Wait"}\0'

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="becomes other users")


class Handlers:
    """What a daemon would do, so simple that a test can tell who was let through."""

    def __init__(self) -> None:
        self.peers: list[Peer] = []
        self.begun = threading.Semaphore(0)
        self.cancelled = threading.Semaphore(0)
        self.wait = 60.0

    async def status(self, peer: Peer, parameters: dict[str, Any], send: Send) -> dict[str, Any]:
        self.peers.append(peer)
        return {"status": {"v": 1, "pad": "x" * 300_000}}

    async def counts(self, peer: Peer, parameters: dict[str, Any], send: Send) -> dict[str, Any]:
        return {"counts": {"warning": 3}, "phase": "idle"}

    async def restart(self, peer: Peer, parameters: dict[str, Any], send: Send) -> dict[str, Any]:
        return {"plan": None, "restarts": [], "got": parameters}

    async def why(self, peer: Peer, parameters: dict[str, Any], send: Send) -> dict[str, Any]:
        if parameters["subject"] == "late":
            async with asyncio.timeout(0):
                await asyncio.sleep(1)
        if parameters["subject"] == "nan":
            return {"chain": float("nan")}
        if parameters["subject"] == "endless":
            return {"lines": "x" * (wire.LARGEST_REPLY + 1)}
        if parameters["subject"] == "unheard":
            raise wire.NotFound("nothing is known of unheard", "agentctl status")
        raise ZeroDivisionError("a bug")

    async def linger(self, peer: Peer, parameters: dict[str, Any], send: Send) -> dict[str, Any]:
        self.begun.release()
        try:
            await asyncio.sleep(self.wait)
        except asyncio.CancelledError:
            self.cancelled.release()
            raise
        return {"done": True}

    async def watch(self, peer: Peer, parameters: dict[str, Any], send: Send) -> dict[str, Any]:
        for number in range(3):
            await send({"kind": "told", "message": str(number)})
        return await self.linger(peer, parameters, send)

    async def history(self, peer: Peer, parameters: dict[str, Any], send: Send) -> dict[str, Any]:
        await send({"restarts": ["first"]})
        return {"restarts": ["last"]}

    def table(self) -> dict[str, Method]:
        return {
            "Status": Method(self.status, Right.READER),
            "Counts": Method(self.counts, Right.EVERYBODY),
            "Plan": Method(self.status, Right.READER),
            "Restart": Method(self.restart, Right.ACTOR),
            "Why": Method(self.why, Right.READER),
            "Wait": Method(self.linger, Right.READER),
            "Watch": Method(self.watch, Right.READER, more=True),
            "History": Method(self.history, Right.READER),
            "Check": Method(self.status, Right.ACTOR),
            "Silence": Method(self.status, Right.ACTOR),
            "Speak": Method(self.status, Right.ACTOR),
        }


class Daemon:
    """A service in a thread of its own, as the daemon's loop would run it."""

    def __init__(self, path: str, limits: Limits = LIMITS) -> None:
        self.path = path
        self.handlers = Handlers()
        self.service = Service(self.handlers.table(), "0.1.0", READERS, limits)
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))

    def __enter__(self) -> "Daemon":
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(5)
        assert not self._thread.is_alive()

    async def _run(self) -> None:
        self._loop, self._over = asyncio.get_running_loop(), asyncio.Event()
        async with self.service.serving(self.path):
            self._ready.set()
            await self._over.wait()

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        return wire.call(method, parameters, path=self.path, timeout=3)

    def open(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.path)
        connection.settimeout(5)
        return connection

    def connections(self) -> int:
        return len(self.service._open)


@pytest.fixture
def path() -> Iterator[str]:
    directory = tempfile.mkdtemp(prefix="aftercare-test-", dir="/tmp")
    os.chmod(directory, 0o755)
    yield f"{directory}/socket"
    shutil.rmtree(directory)


@pytest.fixture
def daemon(path: str) -> Iterator[Daemon]:
    with Daemon(path) as running:
        yield running


def soon(true: Callable[[], bool], seconds: float = 4.0) -> bool:
    until = time.monotonic() + seconds
    while not true() and time.monotonic() < until:
        time.sleep(0.02)
    return true()


def frames(connection: socket.socket) -> Iterator[dict[str, Any]]:
    """Yield what arrives until the other end closes."""
    data = b""
    while chunk := connection.recv(1 << 16):
        *whole, data = (data + chunk).split(b"\0")
        yield from map(json.loads, whole)


STRANGER = """
import json, socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect(sys.argv[1])
connection.sendall(sys.argv[2].encode() + b"\\0")
answer = b""
while not answer.endswith(b"\\0"):
    answer += connection.recv(1 << 16) or sys.exit(3)
print(answer[:-1].decode())
"""


def ask_as(path: str, uid: int, gid: int, groups: list[int], method: str, **parameters: Any) -> dict[str, Any]:
    request = json.dumps({"method": f"org.aftercare.Agent.{method}", "parameters": parameters})
    argv = ["/usr/bin/python3", "-I", "-c", STRANGER, path, request]
    done = subprocess.run(
        argv, user=uid, group=gid, extra_groups=groups, capture_output=True, timeout=20, check=True, cwd="/"
    )
    answer = json.loads(done.stdout)
    assert isinstance(answer, dict)
    return answer


# Who may do what


def test_root_may_read_and_act(daemon: Daemon) -> None:
    assert daemon.call("Status")["status"]["v"] == 1
    got = daemon.call("Restart", units=["nginx.service"], all=None, now=True)["got"]
    assert got == {"units": ["nginx.service"], "now": True}
    assert daemon.handlers.peers[0].pid == os.getpid() and daemon.handlers.peers[0].uid == 0


@pytest.mark.parametrize(("gid", "groups"), [(READERS, []), (NOBODY, [READERS]), (NOBODY, [7, 8, READERS])])
def test_the_group_may_read_but_not_act(daemon: Daemon, gid: int, groups: list[int]) -> None:
    assert "status" in ask_as(daemon.path, NOBODY, gid, groups, "Status")["parameters"]
    refused = ask_as(daemon.path, NOBODY, gid, groups, "Restart", all=True)
    assert refused["error"] == "org.aftercare.Agent.PermissionDenied"
    assert daemon.handlers.peers[0].gids >= {gid, *groups} and daemon.handlers.peers[0].uid == NOBODY


def test_others_get_counts_and_nothing_else(daemon: Daemon) -> None:
    assert ask_as(daemon.path, NOBODY, NOBODY, [], "Counts")["parameters"]["counts"] == {"warning": 3}
    for method in ("Status", "Plan", "Restart", "Why", "Wait", "Watch", "History", "Check", "Silence", "Speak"):
        refused = ask_as(daemon.path, NOBODY, NOBODY, [5], method)
        assert refused["error"] == "org.aftercare.Agent.PermissionDenied", method
        assert refused["parameters"]["kind"] == "denied" and "sudo" in refused["parameters"]["hint"]
    assert daemon.handlers.peers == []


def test_root_of_the_primary_group_alone_is_nobody(daemon: Daemon) -> None:
    refused = ask_as(daemon.path, NOBODY, 0, [0], "Status")
    assert refused["error"] == "org.aftercare.Agent.PermissionDenied"


def test_a_user_in_more_groups_than_the_kernel_tells_is_not_let_in_by_mistake(daemon: Daemon) -> None:
    refused = ask_as(daemon.path, NOBODY, NOBODY, [*range(10_000, 10_400), READERS], "Status")
    assert refused["error"] == "org.aftercare.Agent.PermissionDenied"


def test_without_the_group_nobody_but_root_reads(path: str) -> None:
    daemon = Daemon(path)
    daemon.service._readers = None
    with daemon:
        assert "error" in ask_as(path, NOBODY, NOBODY, [READERS], "Status")
        assert daemon.call("Status")


# The protocol


def test_the_service_describes_itself(daemon: Daemon) -> None:
    info = daemon.call("org.varlink.service.GetInfo")
    assert info["version"] == "0.1.0" and info["interfaces"] == ["org.aftercare.Agent", "org.varlink.service"]
    described = daemon.call("org.varlink.service.GetInterfaceDescription", interface="org.aftercare.Agent")
    assert described["description"] == interface.TEXTS["org.aftercare.Agent"]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        ({"method": "org.aftercare.Agent.Format"}, "MethodNotFound"),
        ({"method": "org.example.Status"}, "InterfaceNotFound"),
        ({"method": "Status"}, "InterfaceNotFound"),
        ({"method": "org.aftercare.Agent.__class__"}, "MethodNotFound"),
        ({"method": 7}, "InvalidParameter"),
        ({}, "InvalidParameter"),
        ({"method": "org.aftercare.Agent.Status", "parameters": [1]}, "InvalidParameter"),
        ({"method": "org.aftercare.Agent.Why"}, "InvalidParameter"),
        ({"method": "org.aftercare.Agent.Why", "parameters": {"subject": "\n"}}, "InvalidParameter"),
        ({"method": "org.aftercare.Agent.Wait", "parameters": {"timeout_seconds": 10**400}}, "InvalidParameter"),
        (
            {"method": "org.varlink.service.GetInterfaceDescription", "parameters": {"interface": "x"}},
            "InterfaceNotFound",
        ),
        ({"method": "org.aftercare.Agent.Watch"}, "ExpectedMore"),
    ],
)
def test_what_makes_no_sense_is_refused_and_the_connection_goes_on(
    daemon: Daemon, request_: dict[str, Any], error: str
) -> None:
    with daemon.open() as connection:
        connection.sendall(json.dumps(request_).encode() + b"\0" + COUNTS)
        answers = frames(connection)
        assert next(answers)["error"] == f"org.varlink.service.{error}"
        assert next(answers)["parameters"]["phase"] == "idle"


def test_replies_come_one_by_one_to_a_caller_that_asked_for_more(daemon: Daemon) -> None:
    replies = list(wire.stream("History", path=daemon.path, timeout=3))
    assert replies == [{"restarts": ["first"]}, {"restarts": ["last"]}]


def test_a_caller_that_did_not_ask_for_more_gets_the_last_reply_alone(daemon: Daemon) -> None:
    assert daemon.call("History") == {"restarts": ["last"]}


def test_a_oneway_call_is_run_and_not_answered(daemon: Daemon) -> None:
    with daemon.open() as connection:
        connection.sendall(b'{"method":"org.aftercare.Agent.Status","oneway":true}\0' + COUNTS)
        assert "counts" in next(frames(connection))["parameters"]
    assert len(daemon.handlers.peers) == 1


def test_calls_may_be_sent_ahead_and_are_answered_in_order(daemon: Daemon) -> None:
    with daemon.open() as connection:
        connection.sendall(b'{"method":"org.aftercare.Agent.History"}\0' * 50 + COUNTS)
        answers = frames(connection)
        assert [next(answers)["parameters"] for _ in range(50)] == [{"restarts": ["last"]}] * 50
        assert "counts" in next(answers)["parameters"]


def test_the_table_must_be_the_interface() -> None:
    table = Handlers().table()
    del table["Check"]
    with pytest.raises(ValueError, match="not the methods"):
        Service(table, "0.1.0", None)


# What goes wrong inside


@pytest.mark.parametrize("subject", ["bug", "late", "nan"])
def test_a_bug_in_a_handler_is_an_error_reply_and_a_line_in_the_log(
    daemon: Daemon, caplog: pytest.LogCaptureFixture, subject: str
) -> None:
    with daemon.open() as other:
        other.sendall(COUNTS)
        answers = frames(other)
        assert next(answers)
        with pytest.raises(AgentError, match="bug in aftercared") as caught:
            daemon.call("Why", subject=subject)
        other.sendall(COUNTS)
        assert next(answers)
    assert caught.value.kind is Kind.PROTOCOL
    assert "org.aftercare.Agent.Why failed" in caplog.text and "Traceback" in caplog.text


def test_what_a_handler_says_to_people_arrives(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(wire.NotFound, match="nothing is known of unheard"):
        daemon.call("Why", subject="unheard")
    assert caplog.text == ""


def test_an_answer_without_bounds_is_refused(daemon: Daemon) -> None:
    with pytest.raises(AgentError, match="longer than"):
        daemon.call("Why", subject="endless")


# What a client may try


def test_a_caller_that_goes_away_ends_its_stream_at_once(daemon: Daemon) -> None:
    with daemon.open() as connection:
        connection.sendall(WATCH)
        assert daemon.handlers.begun.acquire(timeout=3)
        assert not daemon.handlers.cancelled.acquire(timeout=0.2)
    assert daemon.handlers.cancelled.acquire(timeout=5)
    assert soon(lambda: daemon.connections() == 0)


def test_a_caller_that_goes_away_ends_its_plain_call_too(daemon: Daemon) -> None:
    with daemon.open() as connection:
        connection.sendall(WAIT)
        assert daemon.handlers.begun.acquire(timeout=3)
    assert daemon.handlers.cancelled.acquire(timeout=5)


def test_a_caller_that_is_done_with_sending_still_gets_its_answer(daemon: Daemon) -> None:
    daemon.handlers.wait = 0.3
    with daemon.open() as connection:
        connection.sendall(WAIT)
        connection.shutdown(socket.SHUT_WR)
        assert list(frames(connection)) == [{"parameters": {"done": True}}]


def test_an_idle_connection_is_closed_and_a_stream_is_not(daemon: Daemon) -> None:
    with daemon.open() as idle, daemon.open() as watching:
        watching.sendall(WATCH)
        begun = time.monotonic()
        assert idle.recv(1) == b""
        assert LIMITS.idle - 0.2 < time.monotonic() - begun < LIMITS.idle + 2
        assert soon(lambda: daemon.connections() == 1)
        assert not daemon.handlers.cancelled.acquire(timeout=0.3)


def test_a_frame_that_never_ends_counts_as_idle(daemon: Daemon) -> None:
    with daemon.open() as connection:
        begun = time.monotonic()
        with pytest.raises(OSError):
            for _ in range(200):
                connection.sendall(b" ")
                time.sleep(0.05)
        assert time.monotonic() - begun < LIMITS.idle + 3


def test_a_frame_of_the_largest_size_is_answered_and_a_larger_one_is_not(daemon: Daemon) -> None:
    with daemon.open() as connection:
        connection.sendall(COUNTS[:-1] + b" " * (wire.LARGEST_REQUEST - len(COUNTS) + 1) + b"\0")
        assert "counts" in next(frames(connection))["parameters"]
    with daemon.open() as connection:
        connection.sendall(COUNTS[:-1] + b" " * (wire.LARGEST_REQUEST - len(COUNTS) + 2) + b"\0")
        assert swallowed(connection)


def test_an_endless_frame_is_cut_off(daemon: Daemon) -> None:
    with daemon.open() as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
        for _ in range(1000):
            connection.sendall(b"x" * 65536)
    assert daemon.call("Counts")


def swallowed(connection: socket.socket) -> bool:
    """Whether the other end closed without an answer."""
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def to_the_end(connection: socket.socket) -> None:
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(1 << 16):
            pass


def test_random_frames_harm_nobody(daemon: Daemon, caplog: pytest.LogCaptureFixture) -> None:
    dice = random.Random(2)
    daemon.handlers.wait = 0.01
    seeds = [COUNTS, WATCH, WAIT, b'{"method":"org.aftercare.Agent.Why","parameters":{"subject":"unheard"}}\0']
    for _ in range(300):
        data = bytearray(dice.choice(seeds) * dice.randint(1, 3))
        for _ in range(dice.randint(0, 6)):
            data[dice.randrange(len(data))] = dice.choice([0, 0x22, 0x7B, 0x5B, 0xFF, dice.randrange(256)])
        with daemon.open() as connection, contextlib.suppress(BrokenPipeError):
            connection.sendall(data if dice.random() < 0.8 else dice.randbytes(dice.randint(1, 5000)))
            if dice.random() < 0.8:
                connection.shutdown(socket.SHUT_WR)
                to_the_end(connection)
    assert daemon.call("Counts")
    assert soon(lambda: daemon.connections() == 0)
    assert caplog.text == ""


def test_a_client_killed_in_the_middle_of_a_frame_leaves_nothing(daemon: Daemon) -> None:
    script = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); s.sendall(b'{')"
    argv = ["/usr/bin/python3", "-I", "-c", f"{script}; sys.stdin.read()", daemon.path]
    client = subprocess.Popen(argv, user=NOBODY, stdin=subprocess.PIPE, cwd="/")
    try:
        assert soon(lambda: daemon.connections() == 1)
    finally:
        client.kill()
        client.communicate()
    assert soon(lambda: daemon.connections() == 0, 1.0)


def test_a_client_that_never_reads_is_dropped_and_nobody_else_waits(path: str) -> None:
    with Daemon(path, Limits(idle=10, write=2)) as daemon, daemon.open() as deaf:
        deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with contextlib.suppress(TimeoutError):
            deaf.settimeout(0.2)
            deaf.sendall(b'{"method":"org.aftercare.Agent.Status"}\0' * 5000)
        begun = time.monotonic()
        daemon.call("Counts")
        assert time.monotonic() - begun < 1.5
        assert soon(lambda: daemon.connections() == 0, 6.0)
        assert len(daemon.handlers.peers) < 10


CROWD = """
import socket, sys
served = refused = 0
crowd = []
for _ in range(100):
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(sys.argv[1])
    crowd.append(connection)
for connection in crowd:
    try:
        connection.sendall(sys.argv[2].encode() + b"\\0")
    except OSError:
        pass
for connection in crowd:
    answer = connection.recv(65536)
    served += b"counts" in answer
    refused += b"too many connections" in answer
print(served, refused, flush=True)
sys.stdin.read()
"""


def test_a_hundred_connections_of_one_user_leave_room_for_others(daemon: Daemon) -> None:
    argv = ["/usr/bin/python3", "-I", "-c", CROWD, daemon.path, COUNTS[:-1].decode()]
    pipe = subprocess.PIPE
    with subprocess.Popen(argv, user=NOBODY, stdin=pipe, stdout=pipe, text=True, cwd="/") as crowd:
        assert crowd.stdout and crowd.stdout.readline().split() == ["8", "92"]
        assert ask_as(daemon.path, 12345, 12345, [], "Counts")["parameters"]
        assert daemon.call("Status")
        crowd.communicate("")
    assert soon(lambda: daemon.connections() == 0)


def test_all_others_together_cannot_lock_root_out(path: str) -> None:
    script = CROWD.replace("range(100)", "range(2)")
    with Daemon(path, Limits(of_one=2, of_others=4, of_all=6, idle=30)) as daemon, contextlib.ExitStack() as stack:
        answers = []
        for uid in (1001, 1002, 1003):
            argv = ["/usr/bin/python3", "-I", "-c", script, path, COUNTS[:-1].decode()]
            crowd = subprocess.Popen(argv, user=uid, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd="/")
            stack.enter_context(crowd)
            assert crowd.stdout
            answers.append(crowd.stdout.readline().split())
        assert answers == [["2", "0"], ["2", "0"], ["0", "2"]]
        with daemon.open() as first, daemon.open() as second:
            for connection in (first, second):
                connection.sendall(COUNTS)
                assert "counts" in next(frames(connection))["parameters"]
            with pytest.raises(AgentError, match="too many connections"):
                daemon.call("Counts")


def test_a_descriptor_that_is_passed_along_is_not_kept(daemon: Daemon) -> None:
    read, write = os.pipe()
    with daemon.open() as connection:
        socket.send_fds(connection, [COUNTS], [write])
        os.close(write)
        assert next(frames(connection))
        assert os.read(read, 1) == b""
    os.close(read)


# The socket


def test_everybody_may_connect_and_nothing_is_left_behind(path: str) -> None:
    with Daemon(path):
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o666
    assert not Path(path).exists()


def test_a_socket_left_behind_by_a_dead_daemon_is_replaced(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with Daemon(path) as daemon:
        assert daemon.call("Counts")


def test_stopping_ends_open_streams(path: str) -> None:
    with Daemon(path) as daemon:
        watching = wire.stream("Watch", path=path)
        assert [next(watching)["message"] for _ in range(3)] == ["0", "1", "2"]
        begun = time.monotonic()
    assert time.monotonic() - begun < 2 and daemon.handlers.cancelled.acquire(timeout=5)
    with pytest.raises(AgentError, match="went away"):
        next(watching)


# The client


def test_a_daemon_that_is_not_there_is_said_to_be_not_running(path: str) -> None:
    with pytest.raises(AgentError, match="aftercared is not running") as absent:
        wire.call("Status", path=path)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)
    with pytest.raises(AgentError, match="aftercared is not running") as refused:
        wire.call("Status", path=path)
    for caught in (absent, refused):
        assert caught.value.kind is Kind.UNREACHABLE and caught.value.exit_status == 3
        assert "systemctl start aftercare" in caught.value.hint


def test_a_directory_that_may_not_be_entered_is_a_matter_of_rights(path: str) -> None:
    os.chmod(Path(path).parent, 0o700)
    os.seteuid(NOBODY)
    try:
        with pytest.raises(AgentError) as caught:
            wire.call("Status", path=path)
    finally:
        os.seteuid(0)
    assert caught.value.kind is Kind.DENIED and caught.value.exit_status == 4


def test_the_time_limit_is_for_the_whole_of_a_call(daemon: Daemon) -> None:
    begun = time.monotonic()
    with pytest.raises(AgentError, match=r"did not answer within 0\.3 s") as caught:
        wire.call("Wait", path=daemon.path, timeout=0.3)
    assert caught.value.kind is Kind.TIMED_OUT and 0.25 < time.monotonic() - begun < 5


def test_the_time_limit_holds_where_the_daemon_no_longer_accepts(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(path)
        listener.listen(0)
        stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        begun = time.monotonic()
        with pytest.raises(AgentError) as caught:
            wire.call("Status", path=path, timeout=0.3)
    assert caught.value.kind is Kind.TIMED_OUT and 0.25 < time.monotonic() - begun < 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"", Kind.UNREACHABLE),
        (b'{"parameters":{"a"', Kind.UNREACHABLE),
        (b"banana\0", Kind.PROTOCOL),
        (b'{"parameters":7}\0', Kind.PROTOCOL),
        (b'{"error":"org.varlink.service.MethodNotFound","parameters":{"method":"x"}}\0', Kind.PROTOCOL),
        (b'{"error":"org.varlink.service.InvalidParameter","parameters":{"parameter":"x"}}\0', Kind.USAGE),
        (b"x" * (wire.LARGEST_REPLY + 100_000), Kind.PROTOCOL),
    ],
    ids=["nothing", "half", "junk", "no-object", "unknown-method", "wrong-parameter", "endless"],
)
def test_an_answer_that_is_none_is_one_clear_error(path: str, answer: bytes, kind: Kind) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(65536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(AgentError) as caught:
            wire.call("Status", path=path, timeout=5)
        thread.join()
    assert caught.value.kind is kind


def test_who_is_turned_away_before_he_asked_is_told_why(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen(1)
        with wire._Connection(path, 5) as connection:
            door, _ = listener.accept()
            door.sendall(b'{"error":"org.aftercare.Agent.Unavailable","parameters":{"message":"full"}}\0')
            door.close()
            connection.send(COUNTS)
            assert connection.receive()["parameters"] == {"message": "full"}
        with wire._Connection(path, 5) as connection, pytest.raises(AgentError, match="went away"):
            listener.accept()[0].close()
            connection.send(COUNTS)
            connection.receive()


def test_a_command_that_lets_pipes_end_it_is_not_ended_by_the_daemon(path: str) -> None:
    script = """if True:
        import signal, socket, sys
        sys.path.insert(0, sys.argv[1])
        from agent.varlink import wire
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(sys.argv[2])
        listener.listen(1)
        with wire._Connection(sys.argv[2], 5) as connection:
            listener.accept()[0].close()
            connection.send(b"{}")
    """
    root = str(Path(wire.__file__).parents[2])
    done = subprocess.run(["/usr/bin/python3", "-I", "-B", "-W", "ignore", "-c", script, root, path], check=False)
    assert done.returncode == 0


def test_a_request_that_no_server_takes_is_not_sent(daemon: Daemon) -> None:
    with pytest.raises(AgentError, match="longer than") as caught:
        daemon.call("Why", subject="x" * wire.LARGEST_REQUEST)
    assert caught.value.kind is Kind.USAGE


def test_the_client_imports_no_event_loop() -> None:
    root = str(Path(wire.__file__).parents[2])
    script = "import sys; sys.path.insert(0, sys.argv[1]); import agent.varlink.wire as w; "
    argv = ["/usr/bin/python3", "-I", "-c", f"{script}print('asyncio' in sys.modules)", root]
    done = subprocess.run(argv, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.skipif(shutil.which("varlinkctl") is None, reason="systemd has it since 255")
def test_varlinkctl_understands_the_service(daemon: Daemon) -> None:
    def ask(*arguments: str) -> str:
        done = subprocess.run(["varlinkctl", *arguments], capture_output=True, text=True, timeout=20, check=True)
        return done.stdout

    assert "method Restart(" in ask("introspect", daemon.path, "org.aftercare.Agent")
    assert json.loads(ask("call", daemon.path, "org.aftercare.Agent.Counts", "{}"))["phase"] == "idle"
    replies = ask("call", "--more", "--json=short", daemon.path, "org.aftercare.Agent.History", "{}")
    assert "first" in replies and "last" in replies
