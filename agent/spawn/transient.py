"""Runs a system program as the least user that works, in a transient unit with limits of its own (DESIGN rule 9).

Where systemd does not run (a chroot, a container) `setpriv` stands in: the same user, no unit. Who is not root
cannot become another user, and runs the program as himself. Never a shell.
"""

import os
import pwd
from collections.abc import Mapping, Sequence
from tempfile import TemporaryDirectory

from agent.model.errors import AgentError, Kind
from agent.spawn import Done, absolute, run

SANDBOX = {"MemoryMax": "512M", "TasksMax": "64", "LimitCORE": "0", "LogLevelMax": "warning"}
"""What holds for every program that is run so, whatever else it needs; the journal need not hear of each."""
WRITING = {"PrivateTmp": "yes", "ProtectSystem": "strict", "ProtectHome": "yes", "NoNewPrivileges": "yes"}
"""What holds beside it for one that writes a single file."""
WRITTEN = "/tmp/written"
"""Where it writes that in its unit: a directory that no other process sees."""
CAT = "/bin/cat"


def run_as(
    user: str,
    argv: Sequence[str],
    *,
    timeout: float = 20.0,
    stdin: str = "",
    properties: Mapping[str, str] = {},
    environment: Mapping[str, str] = {},
) -> Done:
    """Run `argv` as `user`, a name or a number, with that user's groups, and return what came of it.

    properties: further systemd properties of the unit. environment: variables of the program; it gets nothing of
    ours. Raises AgentError as `run` does.
    """
    command = absolute(argv)
    if _has_manager():
        return run(_as_unit(user, command, timeout, properties, environment), timeout=timeout + 5, stdin=stdin)
    return run(_as_process(user, command, environment), timeout=timeout, stdin=stdin)


def run_into(user: str, argv: Sequence[str], *, timeout: float = 20.0) -> Done:
    """Run `argv` as `user` with one more argument, the path of a file to write, and return that file as `stdout`.

    The file and whatever the program leaves in its temporary directory are seen by nobody else and gone afterwards;
    a file that was not written is empty. Raises AgentError as `run` does.
    """
    if _has_manager():
        properties = WRITING | {"ExecStopPost": f"-{CAT} {WRITTEN}"}
        return run_as(user, [*argv, WRITTEN], timeout=timeout, properties=properties)
    with TemporaryDirectory(prefix="aftercare-", dir="/tmp") as place:
        path = f"{place}/written"
        if os.geteuid() == 0:
            account = _account(user)
            os.chown(place, account.pw_uid, account.pw_gid)
        done = run(_as_process(user, (*absolute(argv), path), {"TMPDIR": place}), timeout=timeout)
        written = run(_as_process(user, (CAT, path), {}), timeout=timeout)
        return Done(done.argv, done.status, written.stdout, done.stderr)


def literal(argv: Sequence[str]) -> tuple[str, ...]:
    """Return `argv` for systemd-run: systemd expands `$NAME` in arguments; doubled, it is left as it is."""
    return tuple(word.replace("$", "$$") for word in argv)


def _has_manager() -> bool:
    """Whether PID 1 is systemd and would do this for us."""
    return os.geteuid() == 0 and os.path.isdir("/run/systemd/system")


def _as_unit(
    user: str, argv: Sequence[str], timeout: float, properties: Mapping[str, str], environment: Mapping[str, str]
) -> list[str]:
    wanted = SANDBOX | {"User": user, "RuntimeMaxSec": f"{timeout:g}"} | dict(properties)
    return [
        *("systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--service-type=exec"),
        *(f"--property={name}={value}" for name, value in wanted.items()),
        *(f"--setenv={name}={value}" for name, value in environment.items()),
        *("--", *literal(argv)),
    ]


def _as_process(user: str, argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    with_variables = ["/usr/bin/env", *(f"{name}={value}" for name, value in environment.items()), *argv]
    if os.geteuid() != 0:
        return with_variables
    account = _account(user)
    who = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups")
    return ["setpriv", *who, "--", *with_variables]


def _account(user: str) -> pwd.struct_passwd:
    try:
        return pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError as problem:
        raise AgentError(Kind.SPAWN, f"there is no user {user}") from problem
