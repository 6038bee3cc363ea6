"""Raises the flag for a reboot, where the configuration says so. Our sandbox cannot write to /run, nor should it.

systemd opens the file for a transient unit that prints one line, before any sandbox of that unit is set up.
"""

from agent import spawn
from agent.model.errors import AgentError, Kind
from agent.model.events import Looked
from agent.report.flag import raise_flag

KINDS = ("kernel", "microcode")


def is_wanted(looked: Looked) -> bool:
    """Return whether a kernel or microcode waits for a reboot. Who asked in the file itself is there already."""
    found = (finding.evidence for result in looked.results if result.check == "reboot" for finding in result.findings)
    return any(isinstance(evidence, dict) and evidence["kind"] in KINDS for evidence in found)


def write() -> bool:
    """Raise the flag; return whether it was not raised before. Raises AgentError. It waits: not for the event loop."""
    try:
        return raise_flag(append)
    except OSError as problem:
        raise AgentError(Kind.UNREADABLE, f"{problem.filename}: {problem.strerror}") from problem


def append(path: str, text: str) -> None:
    """Add `text` to the end of a file, which is made, readable by all, where it is missing. Raises AgentError."""
    where = ["--property=UMask=0022", f"--property=StandardOutput=append:{path}"]
    done = spawn.run(["systemd-run", "--quiet", "--wait", "--collect", *where, "/usr/bin/echo", "-n", text])
    if done.status != 0:
        raise AgentError(Kind.SPAWN, f"{path} cannot be written: {done.stderr.strip()[-500:]}")
