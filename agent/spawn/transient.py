"""Runs a system program as the least user that works, in a transient unit with limits of its own (DESIGN rule 9).

Where systemd does not run (a chroot, a container) `setpriv` stands in: the same user, no unit. Never a shell.
"""

import os
import pwd
from collections.abc import Mapping, Sequence

from agent.model.errors import AgentError, Kind
from agent.spawn import Done, program, run

SANDBOX = {"MemoryMax": "512M", "TasksMax": "64", "LimitCORE": "0"}
"""What holds for every program that is run so, whatever else it needs."""


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
    absolute = (argv[0] if argv[0].startswith("/") else program(argv[0]), *argv[1:])
    if os.path.isdir("/run/systemd/system"):
        return run(_as_unit(user, absolute, timeout, properties, environment), timeout=timeout + 5, stdin=stdin)
    return run(_as_process(user, absolute, environment), timeout=timeout, stdin=stdin)


def _as_unit(
    user: str, argv: Sequence[str], timeout: float, properties: Mapping[str, str], environment: Mapping[str, str]
) -> list[str]:
    """systemd expands `$NAME` in arguments; doubled, it is left as it is."""
    wanted = SANDBOX | {"User": user, "RuntimeMaxSec": f"{timeout:g}"} | dict(properties)
    return [
        *("systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--service-type=exec"),
        *(f"--property={name}={value}" for name, value in wanted.items()),
        *(f"--setenv={name}={value}" for name, value in environment.items()),
        *("--", *(word.replace("$", "$$") for word in argv)),
    ]


def _as_process(user: str, argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    if os.geteuid() != 0:
        return list(argv)
    try:
        account = pwd.getpwuid(int(user)) if user.isdigit() else pwd.getpwnam(user)
    except KeyError as problem:
        raise AgentError(Kind.SPAWN, f"there is no user {user}") from problem
    who = (f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--init-groups")
    variables = (f"{name}={value}" for name, value in environment.items())
    return ["setpriv", *who, "--", "/usr/bin/env", *variables, *argv]
