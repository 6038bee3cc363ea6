"""What journald is told, byte for byte, on a real datagram socket; and the catalogue that explains it."""

import io
import re
import shutil
import socket
import string
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.report.journal import LARGEST_DATAGRAM, MESSAGES, Journal, datagram, say

CATALOG = Path(__file__).parents[2] / "systemd" / "aftercare.catalog"


def fields_of(data: bytes) -> list[tuple[str, str]]:
    """Read journald's native protocol as journald does."""
    found = []
    while data:
        line, _, data = data.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            size = int.from_bytes(data[:8], "little")
            value, data = data[8 : 8 + size], data[8 + size :]
            assert data.startswith(b"\n")
            data = data[1:]
        found.append((name.decode("ascii"), value.decode("utf-8")))
    return found


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.settimeout(5)
        yield listener


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def journal(journald: socket.socket, stream: io.StringIO) -> Iterator[Journal]:
    opened = Journal(journald.getsockname(), stream)
    yield opened
    opened.close()


@pytest.fixture
def nowhere(tmp_path: Path, stream: io.StringIO) -> Iterator[Journal]:
    """A journal whose socket does not exist."""
    opened = Journal(str(tmp_path / "nowhere"), stream)
    yield opened
    opened.close()


def heard(listener: socket.socket) -> list[tuple[str, str]]:
    return fields_of(listener.recv(1 << 20))


VERIFIED: dict[str, Any] = {
    "unit": "nginx.service",
    "transaction": 7,
    "reasons": ["libssl3 3.0.20-1~deb12u2 → 3.0.22-1~deb12u2"],
    "took": 0.84,
    "result": "fresh",
}


@pytest.mark.real
def test_a_message_arrives_with_its_sentence_and_its_fields(journald: socket.socket, journal: Journal) -> None:
    sentence = "nginx.service is fresh again: libssl3 3.0.20-1~deb12u2 → 3.0.22-1~deb12u2, restarted in 0.8 s"
    assert journal.tell("restart-verified", **VERIFIED) == sentence
    assert heard(journald) == [
        ("MESSAGE", sentence),
        ("MESSAGE_ID", MESSAGES["restart-verified"].id),
        ("PRIORITY", "5"),
        ("SYSLOG_IDENTIFIER", "aftercared"),
        ("AFTERCARE_KIND", "restart-verified"),
        ("UNIT", "nginx.service"),
        ("OBJECT_SYSTEMD_UNIT", "nginx.service"),
        ("AFTERCARE_TRANSACTION", "7"),
        ("AFTERCARE_REASON", "libssl3 3.0.20-1~deb12u2 → 3.0.22-1~deb12u2"),
        ("AFTERCARE_TOOK", "0.84"),
        ("AFTERCARE_RESULT", "fresh"),
    ]


@pytest.mark.real
def test_a_list_is_one_field_an_item_and_a_few_words_in_the_sentence(journald: socket.socket, journal: Journal) -> None:
    packages = ["liba", "libb", "libc6", "libd", "libe"]
    journal.tell("interrupted", packages=packages, units=["a.service", "b.service"], cves=[])
    found = heard(journald)
    assert found[0][1] == (
        "dpkg was interrupted and left liba, libb, libc6 and 2 more unfinished: run dpkg --configure -a"
    )
    assert [value for name, value in found if name == "AFTERCARE_PACKAGE"] == packages
    assert [value for name, value in found if name == "UNIT"] == ["a.service", "b.service"]
    assert not any(name.startswith("AFTERCARE_CVE") for name, _ in found)


@pytest.mark.real
def test_a_text_of_several_lines_is_framed_with_its_length(journald: socket.socket, journal: Journal) -> None:
    lines = "nginx: [emerg] bind() failed\nPRIORITY=0\nmain process exited"
    journal.tell("restart-failed", unit="nginx.service", result="failed", hint="", journal=lines)
    found = heard(journald)
    assert ("AFTERCARE_JOURNAL", lines) in found
    assert [value for name, value in found if name == "PRIORITY"] == ["2"]


@pytest.mark.real
def test_what_is_empty_or_unknown_is_no_field(journald: socket.socket, journal: Journal) -> None:
    journal.tell("transaction-settled", command="dpkg", changes=(), requester=None, hint="")
    assert [name for name, _ in heard(journald)][5:] == ["AFTERCARE_COMMAND"]


HOSTILE = "x\nMESSAGE=forged\x1b[2J\u202e\udcff\x00.service"


@pytest.mark.real
def test_a_hostile_name_stays_one_harmless_value(journald: socket.socket, journal: Journal) -> None:
    journal.tell("restart-begun", unit=HOSTILE, reasons=[HOSTILE])
    found = heard(journald)
    message = dict(found)["MESSAGE"]
    assert [name for name, _ in found].count("MESSAGE") == 1
    assert message.isprintable() and "x\\x0aMESSAGE=forged\\x1b[2J\\u202e\\xff\\x00.service" in message
    for name, value in found:
        assert value.replace("\n", "").isprintable(), name


values = st.text() | st.integers() | st.floats(allow_nan=False) | st.none() | st.lists(st.text())


@given(kind=st.sampled_from(sorted(MESSAGES)), unit=values, error=values, reasons=values, hint=values)
def test_no_field_can_forge_another_one(kind: str, **fields: object) -> None:
    sentence = say(kind, fields)  # type: ignore[arg-type]
    assert sentence.isprintable() and sentence
    found = fields_of(datagram(kind, sentence, fields))  # type: ignore[arg-type]
    assert [name for name, _ in found[:5]] == [
        "MESSAGE",
        "MESSAGE_ID",
        "PRIORITY",
        "SYSLOG_IDENTIFIER",
        "AFTERCARE_KIND",
    ]
    allowed = {
        "UNIT",
        "OBJECT_SYSTEMD_UNIT",
        "AFTERCARE_ERROR",
        "AFTERCARE_REASON",
        "AFTERCARE_REASONS",
        "AFTERCARE_HINT",
    }
    assert {name for name, _ in found[5:]} <= allowed


@pytest.mark.real
def test_a_datagram_never_grows_beyond_what_the_socket_takes(
    journald: socket.socket, journal: Journal, stream: io.StringIO
) -> None:
    packages = [f"lib{'ü' * 3000}{number}" for number in range(500)]
    journal.tell("restart-failed", unit="ü" * 300_000, hint="ü" * 300_000, packages=packages, last="kept")
    data = journald.recv(1 << 20)
    assert len(data) <= LARGEST_DATAGRAM
    found = dict(fields_of(data))
    assert len(found["UNIT"]) == 4096 and found["UNIT"].endswith("…") and found["AFTERCARE_LAST"] == "kept"
    assert stream.getvalue() == ""


@pytest.mark.real
def test_without_journald_it_is_a_line_with_its_priority(nowhere: Journal, stream: io.StringIO) -> None:
    nowhere.tell("check-failed", error="dpkg's status is\nunreadable")
    nowhere.tell("stopping", reason="told to")
    assert stream.getvalue() == (
        "<3>something could not be looked at: dpkg's status is\\x0aunreadable\n<6>aftercare stops: told to\n"
    )


@pytest.mark.real
def test_a_journald_that_does_not_read_is_not_waited_for(journal: Journal, stream: io.StringIO) -> None:
    for _ in range(5000):
        journal.tell("stopping", reason="told to")
    assert stream.getvalue().startswith("<6>aftercare stops")


@pytest.mark.real
def test_a_journald_that_comes_back_is_used_again(nowhere: Journal, stream: io.StringIO, tmp_path: Path) -> None:
    nowhere.tell("stopping", reason="first")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "nowhere"))
        nowhere.tell("stopping", reason="second")
        assert dict(heard(listener))["MESSAGE"] == "aftercare stops: second"
    assert stream.getvalue() == "<6>aftercare stops: first\n"


@pytest.mark.real
def test_a_stderr_that_is_gone_is_no_error(nowhere: Journal, stream: io.StringIO) -> None:
    stream.close()
    assert nowhere.tell("stopping", reason="x") == "aftercare stops: x"


def test_a_sentence_without_its_fields_is_still_a_sentence() -> None:
    assert say("restart-verified", {"unit": "a.service", "reasons": ()}) == (
        "a.service is fresh again: none, restarted in ? s"
    )


# The table and the catalogue


def test_every_kind_has_an_id_of_its_own() -> None:
    ids = [message.id for message in MESSAGES.values()]
    assert len(set(ids)) == len(ids) and all(re.fullmatch("[0-9a-f]{32}", id) for id in ids)


def entries() -> dict[str, str]:
    """Return the catalogue as id → text."""
    parts = re.split(r"^-- ([0-9a-f]{32})\n", CATALOG.read_text(), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def test_the_catalogue_explains_exactly_the_messages_that_there_are() -> None:
    assert set(entries()) == {message.id for message in MESSAGES.values()}


@pytest.mark.parametrize("kind", MESSAGES)
def test_an_entry_says_what_happened_and_what_to_do(kind: str) -> None:
    text = entries()[MESSAGES[kind].id]
    head, _, body = text.partition("\n\n")
    assert re.match(r"Subject: \S.+\nDefined-By: aftercare\nDocumentation: man:", head)
    assert len(body.strip().split("\n\n")) >= 2
    named = {name for _, name, _, _ in string.Formatter().parse(MESSAGES[kind].sentence) if name}
    known = {"UNIT" if name == "unit" else f"AFTERCARE_{name.upper()}" for name in named}
    assert set(re.findall("@([A-Z_]+)@", body)) <= known


@pytest.mark.real
def test_systemd_takes_the_catalogue(tmp_path: Path) -> None:
    directory = tmp_path / "usr/lib/systemd/catalog"
    directory.mkdir(parents=True)
    shutil.copy(CATALOG, directory)
    root = f"--root={tmp_path}"
    update = subprocess.run(["journalctl", root, "--update-catalog"], capture_output=True, text=True, check=True)
    assert update.stderr == ""
    listed = subprocess.run(["journalctl", root, "--list-catalog"], capture_output=True, text=True, check=True)
    assert {line.split()[0] for line in listed.stdout.splitlines()} == set(entries())
