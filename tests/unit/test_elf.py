"""The ELF reader against pyelftools on every real file there is, and against files made to mislead it."""

import os
import struct
from pathlib import Path

import pytest
from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile
from elftools.elf.segments import NoteSegment
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.host import elf
from agent.host.elf import build_id, same_content
from agent.model.errors import AgentError
from tests.unit.small_elf import opened

ID = bytes(range(20))


def read(content: bytes) -> bytes | None:
    with opened(content) as fd:
        return build_id(fd)


def note(order: str, name: bytes, kind: int, content: bytes, alignment: int = 4) -> bytes:
    def padded(value: bytes) -> bytes:
        return value + bytes(-len(value) % alignment)

    return struct.pack(f"{order}III", len(name), len(content), kind) + padded(name) + padded(content)


def made(bits: int, order: str, notes: bytes, alignment: int = 4, **odd: int) -> bytes:
    """Return an ELF file with one PT_LOAD and one PT_NOTE segment; `odd` replaces fields of its header."""
    wide = bits == 64
    size, entry = (64, 56) if wide else (52, 32)
    at = size + 2 * entry
    header = {"offset": size, "entry": entry, "count": 2, "start": at, "length": len(notes)} | odd
    ident = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    form = "HHIQQQIHHHHHH" if wide else "HHIIIIIHHHHHH"
    fields = (3, 62, 1, 0, header["offset"], 0, 0, size, header["entry"], header["count"], 0, 0, 0)
    head = ident + struct.pack(order + form, *fields)

    def segment(kind: int, start: int, length: int, aligned: int) -> bytes:
        if wide:
            return struct.pack(f"{order}IIQQQQQQ", kind, 4, start, 0, 0, length, length, aligned)
        return struct.pack(f"{order}IIIIIIII", kind, start, 0, 0, length, length, 4, aligned)

    table = segment(1, 0, 0, 4096) + segment(4, header["start"], header["length"], alignment)
    return head + table + notes


def expected(path: Path) -> bytes | None:
    with path.open("rb") as file:
        try:
            found = ELFFile(file)
        except ELFError:
            return None
        notes = (item for part in found.iter_segments() if isinstance(part, NoteSegment) for item in part.iter_notes())
        return next((bytes.fromhex(item["n_desc"]) for item in notes if item["n_type"] == "NT_GNU_BUILD_ID"), None)


def test_it_agrees_with_pyelftools_on_every_program_and_library_here() -> None:
    paths = [*Path("/usr/bin").iterdir(), *Path("/usr/lib").glob("*-linux-gnu*/*.so*")]
    real = {path.resolve() for path in paths if path.is_file()}
    with_id = 0
    for path in sorted(real):
        fd = os.open(path, os.O_RDONLY)
        found = build_id(fd)
        os.close(fd)
        assert found == expected(path), path
        with_id += found is not None
    assert with_id > 100


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("alignment", [4, 8])
def test_it_reads_both_classes_both_orders_and_both_alignments(bits: int, order: str, alignment: int) -> None:
    others = note(order, b"GNU\0", 5, b"\x01" * 12, alignment) + note(order, b"Linux\0", 3, b"no id", alignment)
    notes = others + note(order, b"GNU\0", 3, ID, alignment)
    assert read(made(bits, order, notes, alignment)) == ID


@pytest.mark.parametrize(
    "odd",
    [
        {"offset": 1 << 63},
        {"offset": (1 << 62) - 1},
        {"entry": 8},
        {"entry": 65535},
        {"count": 0},
        {"count": 0xFFFF},
        {"start": 1 << 63},
        {"start": 1 << 40},
        {"length": 0},
        {"length": 11},
    ],
    ids=str,
)
def test_a_header_that_lies_gives_nothing(odd: dict[str, int]) -> None:
    assert read(made(64, "<", note("<", b"GNU\0", 3, ID), **odd)) is None


@pytest.mark.parametrize("sizes", [(0xFFFFFFFF, 20), (4, 0xFFFFFFFF), (0, 0), (4, 65), (4, 0)], ids=str)
def test_a_note_that_lies_about_its_sizes_gives_nothing(sizes: tuple[int, int]) -> None:
    lie = struct.pack("<III", *sizes, 3) + b"GNU\0" + ID
    assert read(made(64, "<", lie + bytes(100))) is None


def test_a_note_segment_of_petabytes_is_read_in_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = os.pread

    def pread(fd: int, size: int, offset: int) -> bytes:
        sizes.append(size)
        return real(fd, size, offset)

    monkeypatch.setattr(elf.os, "pread", pread)
    assert read(made(64, "<", note("<", b"GNU\0", 3, ID), length=1 << 50)) == ID
    assert len(sizes) <= 2 + elf.MOST_NOTE_SEGMENTS and max(sizes) <= elf.MOST_BYTES


def test_what_is_no_elf_file_has_no_build_id(tmp_path: Path) -> None:
    for content in (b"", b"\x7fELF", b"#!/bin/sh\n" * 20, bytes(64), b"\x7fELF\x02\x01" + bytes(46)):
        assert read(content) is None
    pipe, _ = ends = os.pipe()
    assert build_id(pipe) is None
    directory = os.open(tmp_path, os.O_RDONLY)
    assert build_id(directory) is None
    for fd in (*ends, directory):
        os.close(fd)


def test_a_sparse_file_of_terabytes_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "sparse"
    path.write_bytes(made(64, "<", b"", start=1 << 39, length=1 << 30))
    os.truncate(path, 1 << 40)
    with path.open("rb") as file:
        assert build_id(file.fileno()) is None


def test_a_file_that_cannot_be_read_is_told_in_a_sentence() -> None:
    fd = os.open("/usr/bin/env", os.O_PATH)
    with pytest.raises(AgentError, match="cannot be read"):
        build_id(fd)
    os.close(fd)


@settings(max_examples=300)
@given(st.binary(max_size=300), st.integers(0, 400), st.sampled_from([32, 64]), st.sampled_from("<>"))
def test_no_damage_makes_it_fail(damage: bytes, at: int, bits: int, order: str) -> None:
    whole = made(bits, order, note(order, b"GNU\0", 3, ID))
    found = read(whole[:at] + damage + whole[at + len(damage) :])
    assert found is None or len(found) <= 64
    assert read(whole[:at]) in (None, ID)


def same(old: bytes, new: bytes) -> bool:
    with opened(old) as first, opened(new) as second:
        return same_content(first, second)


def test_build_ids_decide_where_both_files_have_one() -> None:
    mine, other = (made(64, "<", note("<", b"GNU\0", 3, id)) for id in (ID, ID[::-1]))
    assert same(mine, mine + b"debug link")
    assert not same(mine, other)


def test_otherwise_the_bytes_decide() -> None:
    large = os.urandom(1 << 20) * 2
    assert same(large, large) and same(b"", b"")
    assert not same(large, large[:-1] + b"?")
    assert not same(large, large[:-1])
    assert not same(made(64, "<", note("<", b"GNU\0", 3, ID)), b"x")


def test_what_is_too_large_to_compare_is_not_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elf, "LARGEST_COMPARED", 10)
    assert same(b"x" * 10, b"x" * 10)
    assert not same(b"x" * 11, b"x" * 11)
