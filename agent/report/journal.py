"""What the journal is told: one declared sentence a kind of message, sent by journald's own protocol.

The kinds are few and lasting: each has a MESSAGE_ID that the catalogue (systemd/aftercare.catalog) explains.
Nothing here waits or raises: what journald does not take goes to stderr, as a line with its priority.
"""

import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TextIO

from agent.model.text import printable

JOURNALD = "/run/systemd/journal/socket"
IDENTIFIER = "aftercared"
LONGEST_VALUE = 4096
LARGEST_DATAGRAM = 64 << 10
"""Bytes. A datagram larger than the socket's send buffer (208 KiB by default) is refused whole."""
SHOWN = 3
CRITICAL, ERROR, WARNING, NOTICE, INFO = 2, 3, 4, 5, 6

Value = str | int | float | None | Sequence[str]


@dataclass(frozen=True, slots=True)
class Message:
    """A kind of message; `sentence` is a template over its fields."""

    id: str
    priority: int
    sentence: str


MESSAGES = {
    "started": Message("1e9ba4c98e384bac992c7302b030643a", INFO, "aftercare {version} is on watch, mode {mode}"),
    "config-loaded": Message("f034defd98c24be18a2d7cd506a56972", INFO, "configuration read again: mode {mode}"),
    "config-rejected": Message(
        "335b03fd3b4149dca4c07a1b821010f0", ERROR, "configuration refused, the last good one stays: {error}"
    ),
    "transaction-settled": Message("856f10b3892345f489a815691623e684", INFO, "{command} is over: {changes}"),
    "interrupted": Message(
        "ceefc48c46084c90a052bef55bd5cc2c",
        WARNING,
        "dpkg was interrupted and left {packages} unfinished: run dpkg --configure -a",
    ),
    "nothing-stale": Message("01e2d636a13c4fca99210134090806dc", INFO, "every process runs the code that is installed"),
    "stale-found": Message("595d094a3ca1431b9b0e3338184f5e5d", NOTICE, "{unit} still runs replaced code: {reasons}"),
    "restart-begun": Message("9a4243e48b2c47828ba76485ef1547e5", INFO, "restarting {unit}: {reasons}"),
    "restart-verified": Message(
        "0c5e790fc82f44d1b047b055488f38df", NOTICE, "{unit} is fresh again: {reasons}, restarted in {took} s"
    ),
    "restart-failed": Message(
        "e82cabe478224cf7a04011c2f3324f2f", CRITICAL, "{unit} did not come back ({result}): {hint}"
    ),
    "not-restarted": Message(
        "2b9897b2827740949deb0e7a3ca56107", WARNING, "{unit} was not restarted ({result}): {hint}"
    ),
    "leftover": Message(
        "fe002b0c60844dbcb1f6e2429feed34a", WARNING, "{unit} was restarted, but still runs replaced code in {leftovers}"
    ),
    "deferred": Message(
        "0b78a5c773654355be924f472e94e00f", NOTICE, "{unit} runs replaced code and is not restarted now: {reason}"
    ),
    "reboot-needed": Message("10a46710e9bc46d981cd92aacd67aa49", WARNING, "a reboot is needed: {summary}"),
    "flag-raised": Message(
        "38f2956cfbc14b9e99aa7cb86326a772", INFO, "/run/reboot-required says now that a reboot is needed"
    ),
    "identical": Message(
        "73ec17a3971a4b279d3ebd7f348098b3", INFO, "replaced by the same content, nothing to restart: {files}"
    ),
    "manager-reexecuted": Message(
        "08a7c0a191024dd5a5fc65023869d4c2", NOTICE, "systemd (PID 1) runs its new code: re-executed in {took} s"
    ),
    "agent-restarting": Message(
        "c7571947f1574666a69a6eb6e44afd6c", INFO, "aftercare restarts itself, last of all: {reason}"
    ),
    "held": Message("fb101d707ba744e39e0862c65afa0e50", NOTICE, "no further restart is begun for now: {reason}"),
    "braked": Message(
        "2b0806e7ef94487494e50f982f9f915e",
        ERROR,
        "{reason}, so the waves after it are not begun: agentctl restart --resume goes on",
    ),
    "alarm": Message("740524731d6b4b6e91ca4929213823d8", ERROR, "{check}: {subject}: {summary}; {advice}"),
    "remark": Message("fa4c5aaa6ed9438e9056c365363d419c", NOTICE, "{check}: {subject}: {summary}; {advice}"),
    "set-right": Message(
        "756a57f2a0094f22b755bfd71c015382", NOTICE, "{check}: {subject} is right again; it was: {summary}"
    ),
    "silenced": Message(
        "3b79e84b4d40434dbb5a087e66beb6e2", INFO, "user {uid} does not want to be told of {finding}: {reason}"
    ),
    "configuration-unknown": Message(
        "54370b30728045e29a6da226b48f2b78",
        NOTICE,
        "{unit} is restarted though its configuration could not be tested: {words}",
    ),
    "notify-failed": Message("49a2caf95d3b4482917fa0abec575674", WARNING, "people were not told by {script}: {error}"),
    "check-failed": Message("dfc0092b0c264b7693fe3e25fd8befef", ERROR, "something could not be looked at: {error}"),
    "looked-again": Message(
        "b7aff8fe236e414a8289660ed9d692c6", NOTICE, "wake-ups were lost ({reason}), so everything is looked at again"
    ),
    "history-recovered": Message("a67af32c09d64e7eb2e7f564782c18a0", ERROR, "the history was begun anew: {error}"),
    "history-unwritten": Message("94fdfccedce54ab9890ace7b493ff898", ERROR, "{error}"),
    "unpublished": Message(
        "91391a6359d04a09b7fcfc2b2544aac3", WARNING, "the state could not be written for others to read: {error}"
    ),
    "asked": Message("2f921ccc53a74bbebed0dfca2b9a91a2", INFO, "user {uid} (process {pid}) asked for: {request}"),
    "stopping": Message("b27fc0da36c747c3bddc3fefa521e82f", INFO, "aftercare stops: {reason}"),
}
"""Kind → message. A field that a sentence names and that is not given reads `?`; others are only fields."""


class Journal:
    """Where messages go: journald's socket at `path`, and the stream where that is not possible."""

    def __init__(self, path: str = JOURNALD, stream: TextIO | None = None) -> None:
        self._path = path
        self._stream = stream or sys.stderr
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def tell(self, kind: str, **fields: Value) -> str:
        """Write the message `kind` (a key of MESSAGES, else KeyError) and return its sentence.

        fields: `unit` becomes UNIT and OBJECT_SYSTEMD_UNIT, so that `journalctl -u` shows the message with
        the unit's own; any other becomes AFTERCARE_ and its name. A sequence is one journal field an item,
        without the plural's s. None and what is empty is left out. Text may come from anywhere.
        """
        sentence = say(kind, fields)
        try:
            self._socket.sendto(datagram(kind, sentence, fields), self._path)
        except OSError:
            self._complain(f"<{MESSAGES[kind].priority}>{sentence}\n")
        return sentence

    def _complain(self, line: str) -> None:
        try:
            self._stream.write(line)
            self._stream.flush()
        except (OSError, ValueError):
            return

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


def say(kind: str, fields: Mapping[str, Value]) -> str:
    """Return the sentence of a message: one printable line, of bounded length."""
    words = _Words({name: _phrase(value) for name, value in fields.items()})
    return _cut(MESSAGES[kind].sentence.format_map(words))


class _Words(dict[str, str]):
    def __missing__(self, name: str) -> str:
        return "?"


def _phrase(value: Value) -> str:
    """Return a value as people read it: `a, b, c and 4 more`, `0.8`."""
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, str | int):
        return printable(str(value)).strip() or "?"
    items = [printable(item) for item in value or ()]
    more = f" and {len(items) - SHOWN} more" if len(items) > SHOWN else ""
    return f"{', '.join(items[:SHOWN])}{more}" if items else "none"


def datagram(kind: str, sentence: str, fields: Mapping[str, Value]) -> bytes:
    """Return a message in journald's native protocol; what no longer fits is left out."""
    message = MESSAGES[kind]
    head = [
        ("MESSAGE", sentence),
        ("MESSAGE_ID", message.id),
        ("PRIORITY", str(message.priority)),
        ("SYSLOG_IDENTIFIER", IDENTIFIER),
        ("AFTERCARE_KIND", kind),
    ]
    data = b""
    for name, text in (*head, *_entries(fields)):
        entry = _framed(name, text)
        if len(data) + len(entry) <= LARGEST_DATAGRAM:
            data += entry
    return data


def _entries(fields: Mapping[str, Value]) -> Iterator[tuple[str, str]]:
    for name, value in fields.items():
        if value is None or value == "":
            continue
        items = [str(value)] if isinstance(value, str | int | float) else value
        single = name.removesuffix("s") if items is value else name
        for item in items:
            for journal_name in _names(single):
                yield journal_name, _cut("\n".join(printable(line) for line in item.split("\n")))


def _names(field: str) -> tuple[str, ...]:
    return ("UNIT", "OBJECT_SYSTEMD_UNIT") if field == "unit" else (f"AFTERCARE_{field.upper()}",)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _framed(name: str, text: str) -> bytes:
    """Return one field: `NAME=value`, or name, length and value where the value has several lines."""
    value = text.encode()
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)
