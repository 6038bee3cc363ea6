"""`agentctl spf verify ADDRESS`: sends one mail through the local exim and reads in its log what became of it.

The mail is handed to sendmail as the calling user, as any mail is. A reflector (`agentctl spf reflector`) answers with
its verdict, which exim logs; any other server's own words are shown. The log is foreign text.
"""

import contextlib
import os
import re
import secrets
import stat
import time
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from agent.cli.blocks import Block, Line, Table
from agent.cli.output import emit
from agent.host.mail.exim_mainlog import LINE, LOGS
from agent.model.errors import AgentError, Exit, Kind
from agent.model.text import printable
from agent.spawn import last_words, run

SENDMAIL = "/usr/sbin/sendmail"
ADDRESS = re.compile(r"(?!-)([A-Za-z0-9.!#$%&'*+/=?^_{|}~-]{1,64})@([A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f.:]+\])")
REFLECTOR = "spf-verify"
"""The mailbox of reflectors: its probes have a token."""
HANDOVER = 20.0
BETWEEN_LOOKS = 0.2
CHUNK, LONGEST = 1 << 20, 1 << 16
PEER = re.compile(r" H=(?P<name>\S+) \[(?P<address>[0-9A-Fa-f.:]+)\]")
SOURCE = re.compile(r" I=\[(?P<address>[0-9A-Fa-f.:]+)\]")
REPLY = re.compile(r' C="(?P<text>.*)"')
SAID = re.compile(r"\bspf=(?P<spf>[a-z]{4,9}) helo=(?P<helo>[a-z]{4,9})\b")
CLIENT = re.compile(r"\bclient=(?P<address>[0-9A-Fa-f.:]+)")
FATES = {"=>": "delivered", "**": "refused", "==": "put off"}
HARMLESS = ("pass", "none", "neutral")
MESSAGE = """\
To: {recipient}
Subject: SPF probe
Message-ID: <{token}@spf-verify.invalid>
Auto-Submitted: auto-generated

Sent by agentctl spf verify. Nobody needs to read it.
"""


@dataclass(frozen=True, slots=True)
class Fate:
    """What became of the probe. fate: one of FATES. source: the address that it left from, "" where that is not logged.

    seen: the address that a reflector saw. reply: the other server's words, or exim's own. spf, helo: the verdict of a
    reflector, "" where the server says none.
    """

    id: str
    fate: str
    server: str = ""
    address: str = ""
    source: str = ""
    seen: str = ""
    reply: str = ""
    spf: str = ""
    helo: str = ""

    @property
    def passes(self) -> bool:
        """Whether a reflector took it for allowed, by its sender and, as far as there is a record, by its HELO."""
        return self.fate == "delivered" and self.spf == "pass" and self.helo in HARMLESS


def spf_verify(options: Namespace) -> int:
    """Send the probe and print what became of it; exit 0 it passed, 1 otherwise, 3 nothing is known yet.

    JSON: {"v": 1, "recipient", "passes", "id", "fate", "server", "address", "source", "seen", "reply", "spf", "helo"}.
    """
    token = secrets.token_hex(8)
    recipient = recipient_of(options.address, token)
    with contextlib.closing(Log(LOGS[-1])) as log:
        until = time.monotonic() + options.timeout
        _send(recipient, token, options.sender)
        fate = _wait(log, token, until, options.timeout)
    row = {name: printable(value) for name, value in asdict(fate).items()}
    data = {"v": 1, "recipient": recipient, "passes": fate.passes} | row
    emit(options, data, screen(data))
    return Exit.CLEAN if fate.passes else Exit.FINDINGS


def recipient_of(text: str, token: str) -> str:
    """Return whom to send to: a reflector's mailbox gets the token. Raises AgentError(USAGE)."""
    found = ADDRESS.fullmatch(text)
    if not found:
        raise AgentError(Kind.USAGE, f"{printable(text)!r} is no mail address", "such as spf-verify@mx.example.net")
    return f"{REFLECTOR}+{token}@{found[2]}" if found[1] == REFLECTOR else text


def _send(recipient: str, token: str, sender: str | None) -> None:
    if sender not in (None, "<>") and not ADDRESS.fullmatch(str(sender)):
        raise AgentError(Kind.USAGE, f"{printable(str(sender))!r} is no mail address", "--from '<>' sends as a bounce")
    argv = [SENDMAIL, "-i", *(["-f", sender] if sender else []), "--", recipient]
    done = run(argv, timeout=HANDOVER, stdin=MESSAGE.format(recipient=recipient, token=token))
    if done.status != 0:
        raise AgentError(Kind.SPAWN, f"exim did not take the mail: {last_words(done)}", "agentctl exim may say why")


class Log:
    """The mainlog from now on, also when it is rotated meanwhile, or made by this very mail.

    Raises AgentError where it may not be read.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._file: int | None = None
        self._place, self._rest = 0, b""
        self._open()
        if self._file is not None:
            self._place = os.fstat(self._file).st_size

    def _open(self) -> None:
        """Exim's user owns the directory and may put anything there."""
        self._place, self._rest = 0, b""
        try:
            self._file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
        except FileNotFoundError:
            return
        except OSError as problem:
            hint = "be root, or in the group adm"
            raise AgentError(Kind.DENIED, f"{self._path}: {problem.strerror}", hint) from problem
        if not stat.S_ISREG(os.fstat(self._file).st_mode):
            raise AgentError(Kind.UNREADABLE, f"{self._path} is no regular file")

    def lines(self) -> Iterator[str]:
        """Yield the whole lines that were written since the last call."""
        moved = self._is_moved()
        yield from self._written()
        if moved:
            self.close()
            self._open()
            yield from self._written()

    def close(self) -> None:
        """Read no more of it."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _written(self) -> Iterator[str]:
        while self._file is not None and (data := os.pread(self._file, CHUNK, self._place)):
            self._place += len(data)
            *whole, self._rest = (self._rest[-LONGEST:] + data).split(b"\n")
            yield from map(os.fsdecode, whole)

    def _is_moved(self) -> bool:
        """Whether another file has its name by now."""
        try:
            there = os.stat(self._path)
        except OSError:
            return False
        return self._file is None or not os.path.samestat(there, os.fstat(self._file))


def _wait(log: Log, token: str, until: float, limit: float) -> Fate:
    message = ""
    while True:
        for match in filter(None, map(LINE.match, log.lines())):
            message = message or id_in(match, token)
            if match["id"] == message and match["what"] in FATES:
                return fate_in(match)
        if time.monotonic() > until:
            where = f"exim has it as {message}: exim4 -Mvl {message} says how far it is" if message else ""
            raise AgentError(Kind.TIMED_OUT, f"nothing is known of the mail after {limit:g} s", where)
        time.sleep(BETWEEN_LOOKS)


def id_in(match: re.Match[str], token: str) -> str:
    """Return exim's id of the probe, from the line of its arrival; "" where this is another line. Pure."""
    arrived = match["what"] == "<=" and f" id={token}@spf-verify.invalid" in match["rest"]
    return str(match["id"]) if arrived else ""


def fate_in(match: re.Match[str]) -> Fate:
    """Return what the line of a delivery says. Pure."""
    rest = match["rest"]
    peer, source, reply = PEER.search(rest), SOURCE.search(rest), REPLY.search(rest)
    words = reply["text"] if reply else rest[peer.end() if peer else 0 :].lstrip(": ")
    said, client = SAID.search(words), CLIENT.search(words)
    return Fate(
        id=match["id"],
        fate=FATES[match["what"]],
        server=peer["name"] if peer else "",
        address=peer["address"] if peer else "",
        source=source["address"] if source else "",
        seen=client["address"] if client else "",
        reply=words[:LONGEST],
        spf=said["spf"] if said and reply else "",
        helo=said["helo"] if said and reply else "",
    )


def screen(data: dict[str, Any]) -> list[Block]:
    """Return what `agentctl spf verify` says, from its JSON. Pure."""
    server = f"{data['server']} [{data['address']}]" if data["address"] else "no server"
    rows = [
        ("sent to", data["recipient"]),
        (data["fate"], f"by {server}" if data["fate"] != "put off" else f"at {server}"),
        ("left from", data["source"] or "not logged: log_selector needs +incoming_interface +outgoing_interface"),
        ("seen as", data["seen"]),
        ("answer", data["reply"]),
    ]
    return [Line(_headline(data)), Table(f"Mail {data['id']}", ("", ""), tuple(row for row in rows if row[1]))]


def _headline(data: dict[str, Any]) -> str:
    if data["passes"]:
        return f"The probe passed: spf={data['spf']}, helo={data['helo']}."
    if data["spf"]:
        return f"The probe did not pass: spf={data['spf']}, helo={data['helo']}."
    if data["fate"] == "delivered":
        return "The probe was taken, but this server says nothing of SPF: only a reflector does."
    return f"The probe was {data['fate']}."
