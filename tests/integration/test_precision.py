"""Right about everybody at once: all that others take for stale and is not, beside all that is.

The cases are what users of other tools complain of (containers, JIT compilers, files of their own that are gone). Each
of them runs at the same time as processes that really run replaced files, on both engines, with and without history.
"""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from agent.host import mappings
from agent.host.mappings import QUERY, Engine, choose_engine
from agent.model.facts import Host
from tests.integration.herd import (
    LIBRARY,
    NEW,
    NOBODY,
    OLD,
    OTHER,
    PROGRAM,
    WITH_BOTH,
    Root,
    files,
    holding,
    stale_pids,
)

PYTHON = Path("/usr/bin/python3").resolve()
SECOND, PLUGIN = "/usr/lib/x86_64-linux-gnu/libsecond.so.2", "/usr/lib/demo/plugin"
OTHERS = 8
"""Processes of each innocent kind."""

ANONYMOUS = "held.append(mmap.mmap(-1, 8192, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7))"
MEMORY = """
fd = os.memfd_create({name!r})
os.write(fd, open({own!r}, 'rb').read())
held.append(mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC))
"""
DATA_ALONE = """
fd = os.open({path!r}, os.O_RDONLY)
held.append(mmap.mmap(fd, 0, mmap.MAP_PRIVATE, mmap.PROT_READ))
held.append(fd)
"""
GUEST = """
import ctypes
libc = ctypes.CDLL(None)
assert libc.mount({guest!r}.encode(), {usr!r}.encode(), None, 4096 | 16384, None) == 0
hold({library!r})
"""


def innocents(root: Root, place: Path) -> dict[str, dict[str, object]]:
    """Return, by name, what `holding` is to be called with; none of it is replaced or becomes so."""
    guest = place / "guest"
    library = guest / LIBRARY.removeprefix("/usr/")
    library.parent.mkdir(parents=True)
    library.write_bytes(OLD.read_bytes())
    inside = {"guest": str(guest), "usr": str(root.at("/usr")), "library": str(root.at(LIBRARY))}
    return {
        "a guest with intact libraries of its own by the same names": {
            "code": GUEST.format(**inside),
            "argv": ("unshare", "-m"),
        },
        "an intact library in a mount namespace": {"paths": (OTHER,), "argv": ("unshare", "-m")},
        "a compiler at run time": {"code": ANONYMOUS},
        "memory called like the library": {"code": MEMORY.format(name=Path(LIBRARY).name, own=str(OTHER))},
        "memory called deleted": {"code": MEMORY.format(name="libc.so.6 (deleted)", own=str(OTHER))},
        "the library as data": {"code": DATA_ALONE.format(path=str(root.at(LIBRARY)))},
    }


@pytest.fixture
def own_files(place: Path) -> Iterator[list[Path]]:
    """Files of users in /tmp, /var/tmp and a home, to be mapped and deleted, and one that is only called so."""
    with tempfile.TemporaryDirectory(dir="/tmp") as one, tempfile.TemporaryDirectory(dir="/dev/shm") as two:
        home = place / "home"
        home.mkdir()
        found = [Path(one, "ffi8D2x"), Path(two, "orcexec.4711"), Path(two, "#12345"), home / "jna99.tmp"]
        found += [home / "libdemo.so.1", home / "libdemo.so.1.dpkg-new", home / "libc.so.6 (deleted)"]
        for path in found:
            path.write_bytes(OTHER.read_bytes())
            os.chown(path, NOBODY, NOBODY)
        yield found


@WITH_BOTH
def test_of_all_that_looks_old_only_what_is_old_is_told_and_wholly(
    root: Root, place: Path, own_files: list[Path], engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine is QUERY and choose_engine(Host()) is not QUERY:
        pytest.skip("this kernel has no PROCMAP_QUERY")
    monkeypatch.setattr(mappings, "choose_engine", lambda host: engine)
    root.install("second", "2.0", {SECOND: OTHER})
    root.install("demo", "3-1", {PROGRAM: PYTHON, PLUGIN: OLD})
    root.install("same", "1", {"/usr/lib/demo/same": OTHER})
    before = root.index()
    with ExitStack() as stack:
        run = stack.enter_context
        harmless = {
            run(holding(*facts.pop("paths", ()), **facts)): name  # type: ignore[arg-type, misc]
            for number in range(OTHERS)
            for name, facts in ((name, dict(facts)) for name, facts in innocents(root, place / str(number)).items())
        }
        harmless |= {run(holding(path)): str(path) for path in own_files}
        harmless[run(holding(root.at("/usr/lib/demo/same")))] = "installed again, the same"
        for path in own_files[:-1]:
            path.unlink()
        every = [LIBRARY, SECOND, PLUGIN]
        whole = run(holding(*map(root.at, every), executable=str(root.at(PROGRAM))))
        some = run(holding(root.at(SECOND), argv=("unshare", "-m")))
        root.install("libdemo", "1.1", {LIBRARY: NEW})
        root.install("second", "2.1", {SECOND: NEW})
        root.install("demo", "3-2", {PROGRAM: Path("/usr/bin/dash").resolve(), PLUGIN: NEW})
        root.install("same", "1", {"/usr/lib/demo/same": OTHER})
        fresh = run(holding(*map(root.at, every)))
        for retired in (root.retire(before), None):
            result = root.check(retired)
            blamed = stale_pids(result)
            assert not {pid: harmless[pid] for pid in harmless.keys() & blamed.keys()}
            assert blamed.keys() == {whole, some} and fresh not in blamed
            assert [path for path, *_ in files(result, whole)] == sorted([*every, PROGRAM])
            assert [path for path, *_ in files(result, some)] == [SECOND]
