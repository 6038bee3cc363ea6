"""What the check `exim` judges, and the shape of what it says. Pure values; nothing is read here."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.host.mail.exim import Exim
from agent.host.mail.exim_interfaces import Lost
from agent.host.mail.exim_pending import Pending
from agent.host.mail.exim_routes import Route
from agent.model.findings import Finding, Severity
from agent.model.text import printable

RELOAD = "systemctl reload exim4"
REGENERATE = f"update-exim4.conf && {RELOAD}"
SUBJECTS = (
    "own-name",
    "qualify-domain",
    "not-regenerated",
    "broken-edit",
    "broken",
    "minimaldns",
    "interface",
    "ignored-files",
    "override",
    "unconfigured",
    "helo",
)
"""All that there can be: stable, for people and scripts name findings by them."""


@dataclass(frozen=True, slots=True)
class Named:
    """A name of this host and where exim brings its mail. leads_back: to an address of this host itself."""

    roles: tuple[str, ...]
    route: Route
    leads_back: bool = False


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is judged. pending None: not known, or not what decides. places: where each lost address is written.

    host_name: as the kernel has it, often short. listed: the names in /etc/hosts.
    """

    exim: Exim
    full_name: str = ""
    names: tuple[Named, ...] = ()
    pending: Pending | None = None
    ignored: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()
    places: dict[str, tuple[str, ...]] = field(default_factory=dict)
    mailname: str = ""
    host_name: str = ""
    listed: tuple[str, ...] = ()


def fault(
    subject: str,
    severity: Severity,
    summary: str,
    advice: str,
    *,
    kind: str = "",
    names: Sequence[str] = (),
    files: Sequence[str] = (),
    current: str = "",
    wanted: str = "",
    repairable: bool = False,
) -> Finding:
    """Return a finding of this check, all its foreign words printable.

    kind: what a repair goes by, the subject by default. names, files: which ones it is about. current, wanted: what
    stands there and what should. repairable: whether `agentctl exim --fix` can mend it.
    """
    evidence: dict[str, Any] = {
        "kind": kind or subject,
        "names": [printable(name) for name in names],
        "files": [printable(name) for name in files],
        "current": printable(current),
        "wanted": printable(wanted),
        "repairable": repairable,
    }
    return Finding("exim", subject, severity, summary, advice, evidence)
