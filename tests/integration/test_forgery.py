"""An unprivileged user forges all that can be forged about a mapping: nothing of it is ever taken for proof.

Every forger is checked to have succeeded: the kernel shows root the name of a library of dpkg's for what he
maps. Beside them an honest process maps what dpkg really replaced, and it alone is found.
"""

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.model.facts import Retired
from agent.model.findings import Confidence
from tests.integration import liar
from tests.integration.herd import (
    IN_A_NAMESPACE_OF_HIS_OWN,
    LIBRARY,
    NOBODY,
    OLD,
    OTHER,
    UNPRIVILEGED,
    Root,
    evidence,
    fuse_device,
    holding,
    stale_pids,
    started,
)

MOUNT = """
import ctypes, shutil
libc = ctypes.CDLL(None, use_errno=True)
def mount(source, target, kind, flags=0, options=None):
    names = [item and os.fsencode(item) for item in (source, target, kind, options)]
    if libc.mount(*names[:3], flags, names[3]) != 0:
        sys.exit(f"mount {kind}: {os.strerror(ctypes.get_errno())}")
"""
FORGERIES = {
    "SEC-10a: a tmpfs over the library's directory, mapped and deleted": """
mount('tmpfs', directory, 'tmpfs')
shutil.copy(own, library)
hold(library)
os.unlink(library)
""",
    "SEC-10b: an own file bind-mounted over the library": """
mount(own, library, None, 4096)
hold(library)
""",
    "SEC-10c: an own file bind-mounted over the library, and deleted": """
mount(own, library, None, 4096)
hold(library)
os.unlink(own)
""",
    "SEC-20: another library of root's bind-mounted over the library": """
mount(other, library, None, 4096)
hold(library)
""",
    "SEC-21: an overlay over the library's directory, with a deletion in it": """
mount('tmpfs', work, 'tmpfs')
for name in ('upper', 'work'):
    os.mkdir(f'{work}/{name}')
layers = f'lowerdir={directory},upperdir={work}/upper,workdir={work}/work,userxattr'
mount('overlay', directory, 'overlay', 0, layers)
hold(library)
os.unlink(library)
""",
    "SEC-21: an overlay with an own library in its upper layer": """
mount('tmpfs', work, 'tmpfs')
for name in ('upper', 'work'):
    os.mkdir(f'{work}/{name}')
shutil.copy(own, f'{work}/upper/{os.path.basename(library)}')
layers = f'lowerdir={directory},upperdir={work}/upper,workdir={work}/work,userxattr'
mount('overlay', directory, 'overlay', 0, layers)
hold(library)
os.unlink(library)
""",
}
LIKELY_AT_MOST = {"SEC-10c: an own file bind-mounted over the library, and deleted"}
"""Without history: on dpkg's own file system, nameless, and shown under dpkg's name. Never acted upon."""


@dataclass
class Scene:
    """libdemo was replaced; `honest` still runs it, and `retired` is what the history would know."""

    root: Root
    retired: tuple[Retired, ...]
    honest: int
    own: Path


@pytest.fixture
def scene(root: Root, place: Path) -> Iterator[Scene]:
    own = place / "nobodys"
    own.mkdir()
    (own / "work").mkdir()
    shutil.copy(OLD, own / "own.so")
    for path in (own, *own.iterdir()):
        os.chown(path, NOBODY, NOBODY)
    with holding(root.at(LIBRARY)) as honest:
        yield Scene(root, root.upgrade(), honest, own)


@contextmanager
def forging(scene: Scene, code: str) -> Iterator[int]:
    """Run `code` as an unprivileged user in a namespace of his own, and give the pid."""
    library = scene.root.at(LIBRARY)
    names = {
        "library": library,
        "directory": library.parent,
        "own": scene.own / "own.so",
        "work": scene.own / "work",
        "other": OTHER,
    }
    given = "\n".join(f"{name} = {str(path)!r}" for name, path in names.items())
    with holding(code=f"{MOUNT}\n{given}\n{code}", argv=IN_A_NAMESPACE_OF_HIS_OWN) as pid:
        yield pid


def shown(pid: int) -> str:
    return Path(f"/proc/{pid}/maps").read_text()


@pytest.mark.parametrize("name", FORGERIES, ids=lambda name: name.split(":")[0])
def test_a_forged_mapping_is_nothing_with_history_and_likely_at_most_without(scene: Scene, name: str) -> None:
    with forging(scene, FORGERIES[name]) as forger:
        assert f" {scene.root.at(LIBRARY)}" in shown(forger), "the forgery failed"
        assert os.stat(f"/proc/{forger}").st_uid == NOBODY
        result = scene.root.check(scene.retired)
        assert stale_pids(result).keys() == {scene.honest}
        assert evidence(stale_pids(result)[scene.honest]).confidence is Confidence.CERTAIN
        without = stale_pids(scene.root.check(None))
        assert without.keys() - {scene.honest} == ({forger} if name in LIKELY_AT_MOST else set())
        assert scene.honest in without
        assert {evidence(finding).confidence for finding in without.values()} == {Confidence.LIKELY}
        assert scene.root.check(scene.retired).mapped == scene.retired


def test_what_was_learnt_of_a_forgery_stays_likely_for_ever(scene: Scene) -> None:
    (name,) = LIKELY_AT_MOST
    with forging(scene, FORGERIES[name]) as forger:
        learnt = scene.root.check(None).learnt
        scene.root.install("libdemo", "1.2", {LIBRARY: OTHER})
        finding = stale_pids(scene.root.check(learnt))[forger]
        assert evidence(finding).confidence is Confidence.LIKELY


def test_sec_11_a_file_that_is_called_deleted_is_nobodys(scene: Scene) -> None:
    own = scene.own / f"{Path(LIBRARY).name} (deleted)"
    shutil.copy(OLD, own)
    with holding(own, argv=UNPRIVILEGED) as forger:
        assert f"{own}\n" in shown(forger)
        for retired in (scene.retired, None):
            assert stale_pids(scene.root.check(retired)).keys() == {scene.honest}


@pytest.mark.skipif("\tfuse\n" not in Path("/proc/filesystems").read_text(), reason="this kernel has no FUSE")
def test_sec_22_a_fuse_file_system_that_claims_the_old_inode_and_then_hangs_is_never_asked(scene: Scene) -> None:
    """It owns the name, the inode number and uid 0, and blocks whoever asks it for anything."""
    device = fuse_device(scene.own)
    script = scene.own / "liar.py"
    shutil.copy(liar.__file__, script)
    library = scene.root.at(LIBRARY)
    lie = [str(device), str(library.parent), library.name, str(OLD), str(scene.retired[0].id.inode)]
    with started([*IN_A_NAMESPACE_OF_HIS_OWN, "/usr/bin/python3", "-I", str(script), *lie]) as forger:
        assert f" {scene.retired[0].id.inode} " in shown(forger) and f" {library}\n" in shown(forger)
        for retired in (scene.retired, None):
            begun = time.monotonic()
            assert stale_pids(scene.root.check(retired)).keys() == {scene.honest}
            assert time.monotonic() - begun < 5


def test_forgers_cannot_hide_an_honest_process_nor_move_what_is_said_of_it(scene: Scene) -> None:
    with ExitStack() as all_at_once:
        for name in FORGERIES.keys() - LIKELY_AT_MOST:
            all_at_once.enter_context(forging(scene, FORGERIES[name]))
        finding = stale_pids(scene.root.check(scene.retired))[scene.honest]
        (process,) = evidence(finding).processes
        (file,) = process.files
        assert (file.path, file.running, file.installed) == (LIBRARY, "1.0", "1.1")


def test_sec_12_a_name_with_parentheses_and_a_newline_does_not_move_the_start_time(root: Root) -> None:
    rename = "import ctypes; ctypes.CDLL(None).prctl(15, b'a) R 1 (b\\nx 1 2 3', 0, 0, 0)"
    with holding(root.at(LIBRARY)) as plain, holding(root.at(LIBRARY), code=rename) as odd:
        found = {item.pid: item for item in evidence(stale_pids(root.check(root.upgrade()))[odd]).processes}
        assert found[odd].comm == "a) R 1 (b\nx 1 2"
        assert abs((found[odd].start - found[plain].start).total_seconds()) < 5
