"""The watches on real directories: what wakes the daemon up, what does not, and what comes and goes."""

import asyncio
import contextlib
import fcntl
import os
import select
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.host.transactions import is_locked
from agent.model.errors import AgentError, Kind
from agent.model.events import Touched
from agent.model.facts import Host
from agent.model.topics import Topic
from agent.sources.files import WATCHES, FileWatch, Watch

NOON = datetime(2026, 11, 22, 12, tzinfo=UTC)
NOBODY = 65534


@dataclass
class Watched:
    """A root whose two directories are watched, and what was told of them so far."""

    root: Path
    told: list[Touched] = field(default_factory=list)
    complaints: list[AgentError] = field(default_factory=list)

    def __post_init__(self) -> None:
        watches = tuple(Watch(f"{self.root}{watch.directory}", watch.names, watch.topic) for watch in WATCHES)
        self.files = FileWatch(self.told.append, self.complaints.append, watches, lambda: NOON)

    @property
    def dpkg(self) -> Path:
        return self.root / "var/lib/dpkg"

    def sees(self, act: Callable[[], object]) -> bool:
        """Return whether `act` is told as a touch, drop what was pending before it."""
        self.files.drain()
        act()
        self.told.clear()
        assert self.files.drain() == bool(self.told)
        return bool(self.told)


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    for watch in WATCHES:
        (tmp_path / watch.directory[1:]).mkdir(parents=True, exist_ok=True)
    with started(Watched(tmp_path)) as made:
        yield made


@contextlib.contextmanager
def started(made: Watched) -> Iterator[Watched]:
    """Begin to watch on a loop that is not running: only `drain` reads."""
    loop = asyncio.new_event_loop()
    made.files.start(loop)
    try:
        yield made
    finally:
        made.files.close()
        loop.close()


def inotify_descriptors() -> list[int]:
    found = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            if os.readlink(link) == "anon_inode:inotify":
                found.append(int(link.name))
    return found


def nothing_pending() -> bool:
    return select.select(inotify_descriptors(), [], [], 0) == ([], [], [])


# What wakes, and what does not


@pytest.mark.parametrize("name", ["var/lib/dpkg/lock-frontend", "var/lib/dpkg/lock", "run/aftercare/hook"])
def test_closing_a_file_that_was_open_for_writing_wakes(watched: Watched, name: str) -> None:
    (watched.root / name).touch()
    assert watched.sees(lambda: subprocess.run(["sh", "-c", ': >"$0"', watched.root / name], check=True))
    assert watched.told == [Touched(Topic.PACKAGES, f"{watched.root}/{name}", NOON)]


def test_a_new_status_wakes_and_its_scratch_copies_do_not(watched: Watched) -> None:
    assert not watched.sees(lambda: (watched.dpkg / "status-new").write_text("x"))
    assert not watched.sees(lambda: (watched.dpkg / "status-old").write_text("x"))
    assert watched.sees(lambda: (watched.dpkg / "status-new").rename(watched.dpkg / "status"))


def test_our_own_look_at_the_locks_wakes_nobody(watched: Watched) -> None:
    (watched.dpkg / "lock").touch()
    (watched.dpkg / "lock-frontend").touch()
    watched.files.drain()
    assert not is_locked(Host(root=str(watched.root)))
    assert nothing_pending()


def test_many_events_of_one_topic_are_told_once(watched: Watched) -> None:
    def work() -> None:
        for _ in range(100):
            (watched.dpkg / "lock").write_text("x")
            (watched.dpkg / "status").write_text("x")

    assert watched.sees(work)
    assert len(watched.told) == 1


def test_a_name_that_is_no_utf_8_does_not_lose_what_came_with_it(watched: Watched) -> None:
    def work() -> None:
        (watched.dpkg / os.fsdecode(b"\xff\xfe")).touch()
        (watched.dpkg / "lock").touch()

    assert watched.sees(work)


def test_a_lock_that_is_removed_wakes_and_so_does_its_last_close(watched: Watched) -> None:
    with (watched.dpkg / "lock-frontend").open("w") as held:
        assert watched.sees((watched.dpkg / "lock-frontend").unlink)
        assert watched.sees(held.close)
    assert watched.sees((watched.dpkg / "lock-frontend").touch)


def test_a_holder_that_is_killed_wakes(watched: Watched) -> None:
    script = "import sys; lock = open(sys.argv[1], 'w'); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", script, str(watched.dpkg / "lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()

        def die() -> None:
            holder.kill()
            holder.wait()

        assert watched.sees(die)


def test_the_running_loop_tells_without_being_asked(watched: Watched) -> None:
    async def work() -> None:
        told: asyncio.Queue[Touched] = asyncio.Queue()
        watch = Watch(str(watched.dpkg), ("lock",), Topic.PACKAGES)
        files = FileWatch(told.put_nowait, watched.complaints.append, (watch,))
        files.start(asyncio.get_running_loop())
        (watched.dpkg / "lock").touch()
        assert (await asyncio.wait_for(told.get(), 10)).why == f"{watched.dpkg}/lock"
        files.close()

    asyncio.run(work())


# Directories that come and go


def test_a_directory_that_was_renamed_and_made_again_is_watched_in_its_new_self(watched: Watched) -> None:
    aside = watched.root / "aside"
    assert watched.sees(lambda: watched.dpkg.rename(aside))
    assert watched.sees(watched.dpkg.mkdir)
    assert watched.sees((watched.dpkg / "lock").touch)
    (aside / "lock").touch()
    assert nothing_pending()


def test_a_directory_that_was_replaced_before_anyone_looked_is_watched(watched: Watched) -> None:
    def replace_directory() -> None:
        watched.dpkg.rename(watched.root / "aside")
        watched.dpkg.mkdir()

    assert watched.sees(replace_directory)
    assert watched.sees((watched.dpkg / "lock").touch)


def test_a_directory_that_was_moved_away_and_back_is_watched(watched: Watched) -> None:
    def away_and_back() -> None:
        watched.dpkg.rename(watched.root / "aside")
        (watched.root / "aside").rename(watched.dpkg)

    assert watched.sees(away_and_back)
    assert watched.sees((watched.dpkg / "lock").touch)


def test_a_directory_that_was_deleted_with_its_parents_is_watched_again(watched: Watched) -> None:
    for _ in range(2):
        assert watched.sees(lambda: shutil.rmtree(watched.root / "var"))
        assert watched.sees(lambda: watched.dpkg.mkdir(parents=True))
        assert watched.sees((watched.dpkg / "lock").touch)


def test_directories_that_are_missing_at_the_start_are_waited_for_step_by_step(tmp_path: Path) -> None:
    with started(Watched(tmp_path)) as watched:
        for part in ("var", "var/lib", "var/lib/dpkg"):
            assert watched.sees((tmp_path / part).mkdir)
            assert not watched.sees((tmp_path / part / "bystander").touch)
        assert watched.sees((watched.dpkg / "lock").touch)
        assert watched.sees(lambda: (tmp_path / "run/aftercare").mkdir(parents=True))
        assert watched.sees((tmp_path / "run/aftercare/hook").touch)
        assert watched.sees((watched.dpkg / "status").touch)


def test_a_directory_that_appears_while_its_parent_is_being_watched_is_not_missed(tmp_path: Path) -> None:
    class Racing(FileWatch):
        def _add(self, path: str) -> int | None:
            (tmp_path / "late").mkdir(exist_ok=True)
            return super()._add(path)

    told: list[Touched] = []
    watch = Watch(str(tmp_path / "late"), ("lock",), Topic.PACKAGES)
    files = Racing(told.append, print, (watch,))
    files.start(asyncio.new_event_loop())
    (tmp_path / "late/lock").touch()
    assert files.drain()
    files.close()


def test_a_directory_that_may_not_be_watched_is_complained_of_and_the_others_go_on() -> None:
    with tempfile.TemporaryDirectory() as name, started(Watched(Path(name))) as watched:
        os.chmod(name, 0o755)
        watched.dpkg.mkdir(parents=True)
        watched.files.drain()
        watched.dpkg.rename(watched.root / "aside")
        watched.dpkg.mkdir(mode=0o700)
        with nobody():
            watched.files.drain()
        [complaint] = watched.complaints
        assert complaint.kind is Kind.UNREADABLE
        assert complaint.message.startswith(f"{watched.dpkg} cannot be watched: ")
        assert watched.sees((watched.root / "run").mkdir)


@contextlib.contextmanager
def nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


# The kernel's queue


def overflow(directory: Path) -> None:
    """Fill the queue of events to its limit: equal neighbours would be merged, so two files take turns."""
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    files = [os.open(directory / name, os.O_CREAT | os.O_RDWR) for name in ("one", "two")]
    for turn in range(limit + 10):
        os.close(os.open(f"/proc/self/fd/{files[turn % 2]}", os.O_WRONLY))
    for descriptor in files:
        os.close(descriptor)


def test_an_overflow_touches_everything(watched: Watched) -> None:
    assert watched.sees(lambda: overflow(watched.dpkg))
    assert watched.sees((watched.dpkg / "lock").touch)
    assert watched.sees((watched.root / "run/aftercare/hook").touch)


def test_a_directory_that_was_replaced_during_an_overflow_is_watched(watched: Watched) -> None:
    def lose_the_news_of_it() -> None:
        overflow(watched.dpkg)
        watched.dpkg.rename(watched.root / "aside")
        watched.dpkg.mkdir()

    assert watched.sees(lose_the_news_of_it)
    assert watched.sees((watched.dpkg / "lock").touch)


# Beginning and end


def test_the_descriptor_is_closed_on_exec_and_never_blocks(watched: Watched) -> None:
    [descriptor] = inotify_descriptors()
    assert not os.get_inheritable(descriptor)
    assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_NONBLOCK


def test_closing_twice_is_fine_and_leaves_no_descriptor(tmp_path: Path) -> None:
    with started(Watched(tmp_path)) as watched:
        watched.files.close()
    assert inotify_descriptors() == []


def test_a_closed_watch_reads_nobody_elses_descriptor(tmp_path: Path) -> None:
    with started(Watched(tmp_path)) as watched:
        [descriptor] = inotify_descriptors()
        watched.files.close()
        reader, writer = os.pipe()
        os.dup2(reader, descriptor)
        os.write(writer, b"not ours")
        assert not watched.files.drain()
        assert os.read(reader, 8) == b"not ours"
        for opened in (reader, writer, descriptor):
            with contextlib.suppress(OSError):
                os.close(opened)


def python(script: str, *options: str) -> str:
    root = Path(__file__).parents[2]
    command = [sys.executable, *options, "-c", script]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout


def test_a_kernel_that_refuses_is_one_clear_sentence() -> None:
    script = """
import asyncio, os, resource
from agent.model.errors import AgentError
from agent.sources.files import FileWatch
loop = asyncio.new_event_loop()
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, 4096))
try:
    FileWatch(print, print).start(loop)
except AgentError as problem:
    print(problem.kind, problem.message)
"""
    assert python(script).startswith("unreadable files cannot be watched: ")


def test_it_is_imported_where_python_has_no_asyncore_any_more() -> None:
    script = """
import sys
import tempfile
sys.modules["asyncore"] = None
import agent.sources.files, logging
print(logging.getLogger("pyinotify").handlers, sys.modules.get("asyncore"))
"""
    assert python(script) == "[] None\n"


def test_its_import_warns_of_nothing() -> None:
    assert python("import agent.sources.files; print('quiet')", "-W", "error") == "quiet\n"


# The areas beside packages


@pytest.mark.parametrize(
    ("path", "topic"),
    [
        ("etc/exim4/update-exim4.conf.conf", Topic.MAIL),
        ("etc/exim4/conf.d/router/150_mine", Topic.MAIL),
        ("var/lib/exim4/config.autogenerated", Topic.MAIL),
        ("etc/mailname", Topic.MAIL),
        ("etc/hosts", Topic.NETWORK),
        ("etc/resolv.conf", Topic.NETWORK),
        ("etc/environment", Topic.LINKING),
        ("etc/alternatives/libblas.so.3-x86_64-linux-gnu", Topic.LINKING),
    ],
)
def test_each_area_is_touched_by_its_own_files_alone(watched: Watched, path: str, topic: Topic) -> None:
    watched.files.drain()
    watched.told.clear()
    scratch = watched.root / "scratch"
    scratch.write_text("new")
    scratch.rename(watched.root / path)
    watched.files.drain()
    assert [touched.topic for touched in watched.told] == [topic]


@pytest.mark.parametrize("path", ["etc/motd", "etc/alternatives/editor", "var/lib/exim4/berkeleydbvers.txt"])
def test_what_lies_beside_them_wakes_nobody(watched: Watched, path: str) -> None:
    assert not watched.sees((watched.root / path).touch)


def test_a_file_is_still_watched_after_sed_replaced_it(watched: Watched) -> None:
    for _ in range(3):
        (watched.root / "scratch").write_text("new")
        assert watched.sees(lambda: (watched.root / "scratch").rename(watched.root / "etc/mailname"))
