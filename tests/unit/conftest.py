"""Keeps unit tests to themselves: they may not start programs, resolve names or connect.

What needs one of those says so with `@pytest.mark.real`. The interpreter's own audit events tell, so nothing is
replaced and nothing gets around it.
"""

import sys
from collections.abc import Iterator

import pytest
from hypothesis import settings

# An example may take long where others work on this machine too.
settings.register_profile("unit", deadline=None)
settings.load_profile("unit")

FORBIDDEN = frozenset(
    {
        "os.exec",
        "os.fork",
        "os.forkpty",
        "os.posix_spawn",
        "os.system",
        "subprocess.Popen",
        "socket.connect",
        "socket.getaddrinfo",
        "socket.gethostbyaddr",
        "socket.gethostbyname",
        "socket.getnameinfo",
        "socket.sendto",
    }
)


class Guard:
    """Whether a unit test is running that has to keep to itself."""

    on = False


def _listen(event: str, arguments: tuple[object, ...]) -> None:
    if Guard.on and event in FORBIDDEN:
        pytest.fail(f"a unit test may not do {event}{arguments[:2]}: mark it with @pytest.mark.real, or do without")


sys.addaudithook(_listen)


@pytest.fixture(autouse=True)
def _kept_to_itself(request: pytest.FixtureRequest) -> Iterator[None]:
    Guard.on = request.node.get_closest_marker("real") is None
    yield
    Guard.on = False
