"""Which processes run a program that their interpreter reads, and which file that program is.

No mapping shows such code. What is told here is likely at best: a command line is foreign text, from which one word is
taken; only where that is a file of a package are its first four bytes read. An interpreter counts only where it is
the very file that lies at its path: an old one, or one of a container's, is nobody's business here.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from agent.host import processes
from agent.host.inodes import identify, read_inode
from agent.host.packages import within
from agent.model.errors import AgentError, Kind
from agent.model.facts import FileId, Host
from agent.spawn import run

DELETED = " (deleted)"
LONGEST_COMMAND = 16 << 10
MOST_SCRIPTS = 64
MOST_DESCRIPTORS = 256
ELF = b"\x7fELF"

_NAMES = {
    "python": r"(?:python|pypy)[23]?(?:\.\d+)*",
    "perl": r"perl[\d.]*",
    "ruby": r"ruby[\d.]*",
    "php": r"php[\d.]*",
    "node": r"node(?:js)?",
    "java": r"java",
    "erlang": r"beam(?:\.smp)?",
    "lua": r"lua(?:jit)?[\d.-]*",
    "tcl": r"tclsh[\d.]*",
    "shell": r"sh|dash|bash|ksh\w*|mksh|zsh\d*",
}
_EITHER = "|".join(f"(?P<{language}>{names})" for language, names in _NAMES.items())
_INTERPRETER = re.compile(rf"/(?:usr/(?!local/)(?:.*/)?|s?bin/)(?:{_EITHER})", re.ASCII)
"""Packages put them into /usr, which does not hang. php-fpm is none: it looks at its scripts for each request."""
_HELD_OPEN = (".jar", ".pyc", ".phar", ".beam")
_COMMAND = re.compile(r"^ExecStart=\{ path=(.*?) ; argv\[\]=(.*?) ; ignore_errors=", re.M | re.S)
_NAME = re.compile(r"^Id=(.+)$", re.M)


@dataclass(frozen=True, slots=True)
class Interpreted:
    """A process of an interpreter. exe: its path in the host; language: a key of `dependencies.IMPORTED`."""

    pid: int
    exe: str
    language: str


def read_interpreted(host: Host) -> tuple[Interpreted, ...]:
    """Return the processes whose executable is an interpreter's, by pid; our own is left out."""
    files: dict[str, FileId | None] = {}
    pids = (pid for pid in processes.read_pids(host) if pid != os.getpid())
    return tuple(found for pid in pids if (found := _recognise(host, pid, files)))


def _recognise(host: Host, pid: int, files: dict[str, FileId | None]) -> Interpreted | None:
    try:
        path = within(host, os.readlink(f"{host.proc}/{pid}/exe"))
        match = _INTERPRETER.fullmatch(path) if path else None
        if match is None or path is None:
            return None
        if path not in files:
            files[path] = identify(host.under(path))
        runs = read_inode(f"{host.proc}/{pid}/exe", follow=True).id
    except OSError:
        return None
    return Interpreted(pid, path, str(match.lastgroup)) if runs == files[path] else None


def script_of(words: Sequence[str]) -> tuple[str, ...]:
    """Return the program in a command line without its first word, which named the interpreter; pure.

    It is the first word that is no option, if that is an absolute path: several where it is a class path. What an
    option takes as a word of its own is not known here, so a program behind such an option is not found.
    """
    first = next((word for word in words if word and not word.startswith("-")), "")
    return tuple(part for part in first.split(":", MOST_SCRIPTS)[:MOST_SCRIPTS] if part.startswith("/"))


def read_scripts(host: Host, pid: int) -> tuple[str, ...]:
    """Return the program that `pid` claims to run, and the archives and compiled files that it holds open.

    Paths in the host. Empty where it is gone or will not say.
    """
    try:
        with open(f"{host.proc}/{pid}/cmdline", "rb", buffering=0) as file:
            words = os.fsdecode(file.read(LONGEST_COMMAND)).split("\0")[1:]
    except OSError:
        words = []
    paths = (within(host, os.path.normpath(path)) for path in (*script_of(words), *_read_held_open(host, pid)))
    return tuple(dict.fromkeys(path for path in paths if path))


def is_binary(host: Host, path: str) -> bool:
    """Return whether the file of a package at `path` is executed by the kernel itself: no interpreter reads that."""
    try:
        with open(os.open(host.under(path), os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb", buffering=0) as file:
            return file.read(len(ELF)) == ELF
    except OSError:
        return False


def _read_held_open(host: Host, pid: int) -> Iterable[str]:
    """Return what descriptors lead to, by the kernel's word for them: no link is followed."""
    directory = f"{host.proc}/{pid}/fd"
    try:
        with os.scandir(directory) as rows:
            names = [row.name for row, _ in zip(rows, range(MOST_DESCRIPTORS), strict=False)]
    except OSError:
        return ()
    links = (_read_link(f"{directory}/{name}").removesuffix(DELETED) for name in names)
    return [link for link in links if link.startswith("/") and link.endswith(_HELD_OPEN)]


def _read_link(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""


def read_commands(host: Host, units: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Return, by unit, the programs that systemd was told to start: these words no process can change.

    Empty for those of which systemd says nothing. Raises AgentError where systemctl does not answer.
    """
    names = sorted(units)
    if not names or host.root != "/":
        return {}
    done = run(["systemctl", "show", "--property=Id", "--property=ExecStart", "--", *names])
    if done.status != 0:
        raise AgentError(Kind.UNREACHABLE, f"systemd does not answer: {done.stderr.strip() or done.status}")
    return parse_commands(done.stdout)


def parse_commands(text: str) -> dict[str, tuple[str, ...]]:
    """Return what `systemctl show` says of Id and ExecStart, as `read_commands` does; pure.

    systemd joins the words with blanks. An argument with an empty line in it hides the whole unit.
    """
    found: dict[str, tuple[str, ...]] = {}
    for block in text.split("\n\n"):
        names = _NAME.findall(block)
        commands = _COMMAND.findall(block)
        paths = (path for program, words in commands for path in (program, *script_of(words.split()[1:])))
        if len(names) == 1 and commands:
            found[names[0]] = tuple(dict.fromkeys(paths))
    return found
