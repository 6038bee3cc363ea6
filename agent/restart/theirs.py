"""How users' own managers are asked to restart their units: as that user, in a job that ends in time. Pure.

Whatever a user's manager does or says then (it belongs to him) reaches nobody: it is asked from within his own slice,
without any rights, and its answer is not read. What came of it is seen on his control groups.
"""

from agent.model.restarts import Step
from agent.model.users import UserUnit
from agent.spawn.transient import SANDBOX

SYSTEMCTL = "/usr/bin/systemctl"
GRACE = 5.0
"""Seconds that the one who asks has beyond the limit of the restart: by then its outcome is known."""
POWERLESS = {"NoNewPrivileges": "yes", "CapabilityBoundingSet": ""}
SILENT = {"StandardInput": "null", "StandardOutput": "null", "StandardError": "null"}


def ask(step: Step, theirs: UserUnit) -> tuple[str, ...]:
    """Return the command that begins the restart of a user's unit and does not wait for it.

    Only what is active is restarted: a command that is still doing its work would do it again. The system's unit in
    which it is asked for has a name of its own, so that there is never a second one beside it.
    """
    words = f"{SYSTEMCTL} --user --quiet is-active -- {_quoted(theirs.name)}"
    times = {"TimeoutStartSec": f"{step.rule.limit + GRACE:g}", "TimeoutStopSec": "2"}
    properties = SANDBOX | POWERLESS | SILENT | times | {"ExecCondition": words}
    return (
        *("systemd-run", "--quiet", "--no-block", "--collect", "--service-type=oneshot"),
        *(f"--unit={theirs.job}", f"--description=Restart of {theirs.name} for user {theirs.uid}"),
        *(f"--uid={theirs.uid}", f"--slice=user-{theirs.uid}.slice"),
        f"--setenv=XDG_RUNTIME_DIR=/run/user/{theirs.uid}",
        *(f"--property={name}={value}" for name, value in properties.items()),
        *("--", SYSTEMCTL, "--user", "try-restart", "--", theirs.name),
    )


def _quoted(name: str) -> str:
    """A unit's name holds no blank, quote or `$`; a backslash in a command line is systemd's own sign."""
    return name.replace("\\", "\\\\")
