"""The Varlink wire: JSON objects ended by a NUL byte, and a blocking client for the command.

Shared with the server are the frames and the translation of AgentError to an error reply and back. No event
loop is imported here and nothing is ever retried: `agentctl` starts fast and says at once what is wrong.
"""

import json
import socket
import struct
import time
from collections.abc import Iterator, Mapping
from typing import Any, NoReturn

from agent.model.errors import AgentError, Kind

SOCKET = "/run/aftercare/org.aftercare.Agent"
INTERFACE = "org.aftercare.Agent"
LARGEST_REQUEST = 64 << 10
LARGEST_REPLY = 16 << 20
CHUNK = 64 << 10
LOOK = "systemctl status aftercare"


class NotFound(AgentError):
    """Nothing is known under the name that was asked for."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(Kind.USAGE, message, hint)


def call(
    method: str, parameters: Mapping[str, Any] | None = None, *, path: str = SOCKET, timeout: float | None = None
) -> dict[str, Any]:
    """Call `method` (a name of our interface, or a full one) and return the parameters of its one reply.

    timeout: seconds for the whole of it, None for as long as it takes. Raises AgentError: UNREACHABLE where
    the daemon is not running or goes away, TIMED_OUT, PROTOCOL, and whatever the daemon itself answers.
    """
    request = _request(method, parameters, more=False)
    with _Connection(path, timeout) as connection:
        connection.send(request)
        return _parameters(connection.receive())


def stream(
    method: str, parameters: Mapping[str, Any] | None = None, *, path: str = SOCKET, timeout: float | None = None
) -> Iterator[dict[str, Any]]:
    """Call `method` with `more` and yield the parameters of each reply as it comes. Errors as `call`."""
    request = _request(method, parameters, more=True)
    with _Connection(path, timeout) as connection:
        connection.send(request)
        continues = True
        while continues:
            reply = connection.receive()
            continues = reply.get("continues") is True
            yield _parameters(reply)


def frame(message: Mapping[str, Any]) -> bytes:
    """Return `message` as it goes over the wire: pure ASCII, whatever it holds. NaN raises ValueError."""
    return json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\0"


def parse(raw: bytes) -> dict[str, Any]:
    """Return the object in one frame (without its NUL); raise AgentError(PROTOCOL) for anything else."""
    try:
        message = json.loads(raw.decode("utf-8"), parse_constant=_no_number)
    except (ValueError, RecursionError) as problem:
        raise AgentError(Kind.PROTOCOL, f"not a JSON message: {problem}") from problem
    if not isinstance(message, dict):
        raise AgentError(Kind.PROTOCOL, "not a JSON object")
    return message


def _no_number(constant: str) -> NoReturn:
    raise ValueError(f"{constant} is no number")


def refusal(problem: AgentError) -> dict[str, Any]:
    """Return `problem` as an error reply of our interface; `_problem` is its reverse."""
    names = {Kind.DENIED: "PermissionDenied", Kind.USAGE: "InvalidParameter"}
    name = "NotFound" if isinstance(problem, NotFound) else names.get(problem.kind, "Unavailable")
    parameters = {"kind": problem.kind.value, "message": problem.message, "hint": problem.hint}
    return {"error": f"{INTERFACE}.{name}", "parameters": parameters}


def _request(method: str, parameters: Mapping[str, Any] | None, *, more: bool) -> bytes:
    full = method if "." in method else f"{INTERFACE}.{method}"
    flags = {"more": True} if more else {}
    data = frame({"method": full, "parameters": dict(parameters or {}), **flags})
    if len(data) > LARGEST_REQUEST:
        raise AgentError(Kind.USAGE, f"the request is longer than {LARGEST_REQUEST} bytes")
    return data


def _parameters(reply: dict[str, Any]) -> dict[str, Any]:
    parameters = reply.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise AgentError(Kind.PROTOCOL, "the answer of aftercared has no parameters")
    if error := reply.get("error"):
        raise _problem(str(error), parameters)
    return parameters


def _problem(error: str, parameters: dict[str, Any]) -> AgentError:
    interface, _, name = error.rpartition(".")
    if interface != INTERFACE:
        return _foreign(name, parameters)
    message, hint = str(parameters.get("message", error)), str(parameters.get("hint", ""))
    if name == "NotFound":
        return NotFound(message, hint)
    word = parameters.get("kind")
    return AgentError(Kind(word) if word in set(Kind) else Kind.PROTOCOL, message, hint)


def _foreign(name: str, parameters: dict[str, Any]) -> AgentError:
    """Return an error of org.varlink.service: two versions that misunderstand, or a wrong parameter."""
    if name == "InvalidParameter":
        return AgentError(Kind.USAGE, f"aftercared does not accept the parameter {parameters.get('parameter')}")
    hint = "is aftercared of the same version as agentctl? systemctl restart aftercare"
    return AgentError(Kind.PROTOCOL, f"aftercared answers {name}", hint)


class _Connection:
    """One connection; `timeout` is for all of it together."""

    def __init__(self, path: str, timeout: float | None) -> None:
        self._until = None if timeout is None else time.monotonic() + timeout
        self._timeout = timeout
        self._buffer = bytearray()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._connect(path)
        except BlockingIOError as problem:
            self._socket.close()
            raise self._late() from problem
        except OSError as problem:
            self._socket.close()
            raise _unreachable(path, problem) from problem

    def _connect(self, path: str) -> None:
        """Connect within the time limit. Not by settimeout(): where the queue is full that fails at once."""
        whole, part = divmod(self._timeout or 0.0, 1)
        limit = struct.pack("ll", int(whole), int(part * 1_000_000))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)
        self._socket.connect(path)

    def __enter__(self) -> "_Connection":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        """Send one request. One who closed already may have said why: that is left for `receive` to read."""
        self._limit()
        try:
            self._socket.sendall(data, socket.MSG_NOSIGNAL)
        except TimeoutError as problem:
            raise self._late() from problem
        except BrokenPipeError:
            return
        except OSError as problem:
            raise _gone() from problem

    def receive(self) -> dict[str, Any]:
        """Return the next message."""
        searched = 0
        while (end := self._buffer.find(0, searched)) < 0:
            searched = len(self._buffer)
            if searched > LARGEST_REPLY:
                raise AgentError(Kind.PROTOCOL, f"the answer of aftercared is longer than {LARGEST_REPLY} bytes")
            self._buffer += self._more()
        raw = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return parse(raw)

    def _more(self) -> bytes:
        self._limit()
        try:
            data = self._socket.recv(CHUNK)
        except TimeoutError as problem:
            raise self._late() from problem
        except OSError as problem:
            raise _gone() from problem
        if not data:
            raise _gone()
        return data

    def _limit(self) -> None:
        if self._until is None:
            return
        left = self._until - time.monotonic()
        if left <= 0:
            raise self._late()
        self._socket.settimeout(left)

    def _late(self) -> AgentError:
        return AgentError(Kind.TIMED_OUT, f"aftercared did not answer within {self._timeout:g} s", LOOK)


def _unreachable(path: str, problem: OSError) -> AgentError:
    if isinstance(problem, FileNotFoundError | ConnectionRefusedError):
        return AgentError(Kind.UNREACHABLE, "aftercared is not running", f"systemctl start aftercare, or see {LOOK}")
    kind = Kind.DENIED if isinstance(problem, PermissionError) else Kind.UNREACHABLE
    return AgentError(kind, f"{path}: {problem.strerror or problem}", LOOK)


def _gone() -> AgentError:
    return AgentError(Kind.UNREACHABLE, "aftercared went away without an answer", LOOK)
