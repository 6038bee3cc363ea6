"""Ids, keys and rows of maps, on a procfs made of plain files; the kernel's own is met in integration."""

import os
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.host import mappings
from agent.host.mapped import MappedFile, find_files
from agent.host.mappings import QUERY, TEXT, Engine, TooMany, Unseen, Why, among, read_ids, scan, strangers
from agent.model.facts import Host, Mapped

DEVICE = os.makedev(8, 1)
BTRFS, HOME, SHOWN = os.makedev(0, 40), os.makedev(0, 41), os.makedev(0, 39)
ROW = b"%012x-%012x %b %08x %b %d                            %b\n"

Procfs = Callable[[int, bytes], Host]


@pytest.fixture
def procfs(tmp_path: Path) -> Procfs:
    """Write the maps of a process."""

    def write(pid: int, maps: bytes) -> Host:
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "maps").write_bytes(maps)
        return Host(proc=str(tmp_path))

    return write


def row(inode: int, name: bytes, permissions: bytes = b"r-xp", device: bytes = b"08:01", at: int = 0x7F00) -> bytes:
    return ROW % (at << 12, (at + 1) << 12, permissions, 0, device, inode, name)


@pytest.mark.parametrize("engine", [QUERY, TEXT], ids=lambda engine: engine.name)
@given(st.integers(0, 4095), st.integers(0, (1 << 20) - 1), st.integers(1, (1 << 64) - 1))
def test_a_key_is_an_id_and_back(engine: Engine, major: int, minor: int, inode: int) -> None:
    id = (os.makedev(major, minor), inode)
    assert engine.unpack(engine.pack(*id)) == id


def test_keys_are_what_the_kernel_writes() -> None:
    assert TEXT.pack(os.makedev(0, 39), 258) == b"00:27 258"
    assert TEXT.pack(os.makedev(259, 4), 1) == b"103:04 1"
    assert QUERY.pack(os.makedev(254, 1), 4711) == struct.pack("=QII", 4711, 254, 1)


def test_only_executable_rows_with_an_inode_count(procfs: Procfs) -> None:
    text = row(1, b"/usr/lib/a.so") + row(2, b"/usr/lib/data", b"r--p") + row(0, b"[vdso]") + row(3, b"/x", b"rwxs")
    host = procfs(7, text + row(4, b"/usr/lib/big", device=b"103:04") + b"ffffffffff600000-ff --xp 00000000 00:00 0\n")
    assert read_ids(host, 7, TEXT, 99) == {(DEVICE, 1), (DEVICE, 3), (os.makedev(259, 4), 4)}


def test_a_name_cannot_be_taken_for_a_row(procfs: Procfs) -> None:
    forged = row(4711, b"/usr/lib/libssl.so.3").rstrip(b"\n")
    names = [b"/tmp/x " + forged, b"/tmp/x\r" + forged, b"/tmp/x\x85\x0b\x0c" + forged, b"/tmp/x\\012" + forged]
    host = procfs(7, b"".join(row(number, name) for number, name in enumerate(names, 1)))
    assert read_ids(host, 7, TEXT, 99) == {(DEVICE, number) for number in range(1, 5)}
    assert find_files(host, 7, [(DEVICE, 4711)], 99) == {}


def test_rows_are_whole_wherever_reading_cuts_them(procfs: Procfs, monkeypatch: pytest.MonkeyPatch) -> None:
    host = procfs(7, b"".join(row(number, b"/usr/lib/" + b"n" * 300) for number in range(1, 30)))
    for size in (1, 7, 64, 1000, 4096):
        monkeypatch.setattr(mappings, "CHUNK", size)
        assert read_ids(host, 7, TEXT, 99) == {(DEVICE, number) for number in range(1, 30)}


def test_too_much_text_is_no_half_answer(procfs: Procfs) -> None:
    host = procfs(7, b"".join(row(number, b"/x") for number in range(1, 100)))
    with pytest.raises(TooMany):
        read_ids(host, 7, TEXT, 10)
    assert list(scan(host, [7], lambda read: frozenset({(1, 1)}), TEXT, 10)) == [Unseen(7, Why.MANY)]


def test_what_cannot_be_read_is_told_and_what_is_gone_is_not(procfs: Procfs) -> None:
    host = procfs(7, row(5, b"/x"))
    Path(host.proc, "8/maps").mkdir(parents=True)

    def denied(host: Host, pid: int, limit: int) -> set[bytes]:
        raise PermissionError(13, "no")

    assert list(scan(host, [6, 7, 8], lambda read: frozenset({(1, 1)}), TEXT, 99)) == [
        Mapped(7, frozenset({(1, 1)})),
        Unseen(8, Why.FAILED),
    ]
    engine = Engine("none", denied, TEXT.pack, TEXT.unpack)
    assert list(scan(host, [7], lambda read: frozenset(), engine, 99)) == [Unseen(7, Why.DENIED)]


@pytest.mark.parametrize("engine", [QUERY, TEXT], ids=lambda engine: engine.name)
def test_wanted_ids_are_found_on_their_device_alone(engine: Engine) -> None:
    pick = among({(DEVICE, 7), (DEVICE, 8)}, {DEVICE: DEVICE}, engine)
    other = os.makedev(8, 2)
    assert pick({engine.pack(DEVICE, 7), engine.pack(DEVICE, 9), engine.pack(other, 8)}) == {(DEVICE, 7)}


def test_file_systems_that_show_one_device_are_told_apart_later() -> None:
    """Two btrfs subvolumes, or the layers of an overlay: the numbers alone cannot say whose inode it is."""
    devices = {BTRFS: SHOWN, HOME: SHOWN}
    assert among({(BTRFS, 7)}, devices, TEXT)({TEXT.pack(SHOWN, 7)}) == {(BTRFS, 7)}
    both = among({(BTRFS, 7), (HOME, 7)}, devices, TEXT)
    assert both({TEXT.pack(SHOWN, 7)}) == {(BTRFS, 7), (HOME, 7)}
    assert strangers([(BTRFS, 7)], devices, TEXT)({TEXT.pack(SHOWN, 8)}) == {(BTRFS, 8), (HOME, 8)}


def test_what_lies_on_an_unknown_device_is_neither_wanted_nor_a_stranger() -> None:
    assert among({(BTRFS, 7)}, {}, TEXT)({TEXT.pack(BTRFS, 7)}) == frozenset()
    pick = strangers([(DEVICE, 1)], {DEVICE: DEVICE}, QUERY)
    assert pick({QUERY.pack(DEVICE, 1), QUERY.pack(DEVICE, 2), QUERY.pack(HOME, 3)}) == {(DEVICE, 2)}


def test_a_file_is_found_with_its_name_and_the_names_of_its_links(procfs: Procfs) -> None:
    name = b"/usr/lib/a b\\012\xff.so (deleted)"
    text = row(5, name, b"r--p", at=1) + row(5, name, at=2) + row(6, b"/y", at=3) + row(5, name, at=4)
    assert find_files(procfs(7, text), 7, [(DEVICE, 5)], 99) == {
        (DEVICE, 5): MappedFile(7, "/usr/lib/a b\n\udcff.so (deleted)", ("2000-3000", "4000-5000"))
    }
