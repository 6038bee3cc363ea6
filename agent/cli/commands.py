"""Every command there is: its name, the module that carries it out, and what it takes.

The parser, the completions and the tests of the manual are made from this table.
"""

import argparse
import math
from dataclasses import dataclass, field
from typing import Any

LONGEST_TIMEOUT = 10_000_000
STATUSES = "exit status: 0 nothing to do, 1 findings, 2 usage, 3 could not be checked or timed out, 4 not permitted"


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of one command, as argparse takes it."""

    names: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)


def _argument(*names: str, **options: Any) -> Argument:
    return Argument(names, options)


@dataclass(frozen=True, slots=True)
class Command:
    """One command: `home` is the module beside this one that carries it out, by a function of the command's name.

    A name of two words is written with a blank on the command line, and with `_` as the function. statuses: what its
    exit status means.
    """

    name: str
    home: str
    help: str
    arguments: tuple[Argument, ...] = ()
    statuses: str = STATUSES

    @property
    def word(self) -> str:
        """Return its name as one word."""
        return self.name.replace(" ", "-")


def _seconds(text: str) -> float:
    """Return how long to wait at most."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= LONGEST_TIMEOUT:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds above 0")
    return value


FOREIGN = ("nagios", "needrestart", "openmetrics")
"""Formats of other programs."""
FORMAT = _argument(
    "--format", choices=("table", "json", *FOREIGN), default="table", help="how to print it (default: table)"
)
ROOT = _argument("--root", default="/", metavar="DIR", help="look below DIR")
SILENCE = (
    _argument("--reason", default="", metavar="TEXT", help="why, for the history"),
    _argument("--end", action="store_true", help="tell of it again"),
)
COMMANDS = (
    Command(
        "status", "ask", "what the daemon knows: findings, last transaction, restarts, what is deferred", (FORMAT,)
    ),
    Command(
        "check",
        "look",
        "run the checks here and now, without the daemon; changes nothing",
        (
            _argument("check", nargs="*", metavar="CHECK", help="which checks (default: all)"),
            FORMAT,
            _argument("--root", default="/", metavar="DIR", help="look at the dpkg database below DIR"),
        ),
    ),
    Command(
        "plan",
        "foresee",
        "what would be restarted, in which waves, and why",
        (
            _argument("--for", dest="packages", nargs="+", metavar="PACKAGE", help="as if these were replaced"),
            _argument("--for-upgrade", action="store_true", help="as if apt upgraded everything now"),
        ),
    ),
    Command(
        "restart",
        "restart",
        "have the daemon restart stale units, each verified",
        (
            _argument(
                "unit",
                nargs="*",
                metavar="UNIT",
                help="these units, also deferred or only likely stale ones; a user's own as user@UID.service/NAME",
            ),
            _argument("--all", action="store_true", help="every unit that policy would restart"),
            _argument("--now", action="store_true", help="also what waits for its maintenance window"),
            _argument(
                "--resume", action="store_true", help="go on after a unit that did not come back stopped the rest"
            ),
            _argument("--dry-run", action="store_true", help="only show what would be done"),
        ),
    ),
    Command(
        "why",
        "ask",
        "the whole chain: apt command, package, file, process, unit, action",
        (
            _argument(
                "subject",
                metavar="UNIT|PID",
                help="a unit name (.service may be left out; a user's own: user@UID.service/NAME) or a process id",
            ),
        ),
    ),
    Command(
        "wait",
        "ask",
        "wait until every ended transaction is looked at and its restarts are verified",
        (_argument("--timeout", type=_seconds, default=120.0, metavar="S", help="seconds at most (default: 120)"),),
    ),
    Command("watch", "ask", "show events, findings and restarts as they happen"),
    Command(
        "history",
        "ask",
        "transactions and restarts of the past",
        (
            _argument("--since", metavar="WHEN", help='such as "2 days", "3h", "yesterday" or 2026-11-22'),
            _argument("--unit", metavar="UNIT", help="only restarts of this unit"),
        ),
    ),
    Command(
        "exim",
        "exim",
        "whether exim still knows its own names, and does what its files say",
        (
            _argument(
                "--fix", metavar="ID", help="mend this finding: show the change, ask, apply, check, undo if refused"
            ),
            _argument("--yes", action="store_true", help="do not ask"),
        ),
    ),
    Command(
        "spf",
        "spf",
        "whether what DNS publishes lets this host send its mail, and the record that would let it",
        (_argument("domain", nargs="?", metavar="DOMAIN", help="this one alone, also where it is not ours"),),
    ),
    Command(
        "spf evaluate",
        "evaluate",
        "what SPF says of any client, step by step",
        (
            _argument("--ip", required=True, metavar="ADDR", help="the address of the client"),
            _argument("--mail-from", required=True, metavar="ADDR", help="the envelope sender, or '<>' for a bounce"),
            _argument("--helo", default="", metavar="NAME", help="the name that the client greets with"),
            _argument("--nameserver", metavar="ADDR[#PORT]", help="ask this server, not the system's"),
            _argument("--record", metavar="TEXT", help="judge this record in the place of what is published"),
        ),
        "exit status: 0 pass, 1 any other result, 2 usage, 3 temperror",
    ),
    Command(
        "spf reflector",
        "reflector",
        "on another machine: answer probes with the verdict on the connection that they come by",
        (
            _argument("--listen", action="append", metavar="ADDR:PORT", help="listen here (default: :25; repeatable)"),
            _argument(
                "--nameserver", action="append", metavar="ADDR[#PORT]", help="ask these servers, not the system's"
            ),
        ),
    ),
    Command(
        "spf verify",
        "verify",
        "send a probe through exim and follow it to the answer",
        (
            _argument("address", metavar="ADDRESS", help="spf-verify@HOST of a reflector, or any other mailbox"),
            _argument("--from", dest="sender", metavar="ADDR", help="the envelope sender, or '<>' for a bounce"),
            _argument("--timeout", type=_seconds, default=60.0, metavar="S", help="seconds at most (default: 60)"),
        ),
        "exit status: 0 pass, 1 any other answer, 2 usage, 3 no answer, 4 not permitted",
    ),
    Command(
        "numpy",
        "numpy",
        "Python environments, and what MKL does to them",
        (_argument("--all", action="store_true", help="also those without MKL"), ROOT),
    ),
    Command(
        "numpy why",
        "numpy",
        "all that is known of one environment",
        (_argument("environment", metavar="ENV", help="its directory"), ROOT),
    ),
    Command(
        "numpy predict",
        "numpy",
        "what another MKL would break",
        (
            _argument("--mkl", required=True, metavar="DIR|PACKAGE", help="the MKL that would be there"),
            _argument("--environment", default="", metavar="ENV", help="only this environment"),
            ROOT,
        ),
    ),
    Command(
        "numpy prove",
        "numpy",
        "run a small numeric proof, as the owner, in a sandbox",
        (
            _argument("environment", metavar="ENV", help="its directory"),
            _argument("--tests", action="store_true", help="numpy.test() too, which takes minutes"),
        ),
    ),
    Command(
        "snooze",
        "silence",
        "do not tell of a finding for a while",
        (
            _argument("finding", metavar="FINDING", help="its id, as status shows it"),
            _argument(
                "--for", dest="period", default="7d", metavar="PERIOD", help='such as "12h" or "7d" (default: 7d)'
            ),
            *SILENCE,
        ),
    ),
    Command(
        "ack",
        "silence",
        "do not tell of a finding until it is gone",
        (_argument("finding", metavar="FINDING", help="its id, as status shows it"), *SILENCE),
    ),
    Command(
        "policy import-needrestart",
        "policy",
        "print what was set in needrestart as rules for aftercare; changes nothing",
    ),
    Command("doctor", "doctor", "is the installation itself sound?"),
)
