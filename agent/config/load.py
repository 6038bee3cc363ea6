"""Reads the layers of configuration from disk, in systemd's order, and refuses files that others may write.

Vendor data < the first main file of /etc, /run, /usr/lib < all `aftercare.toml.d/*.toml`, sorted by name over all
directories; a name in a higher directory replaces the same name in a lower one, and a link to /dev/null masks it.
"""

import os
import stat
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from agent.config.settings import Settings, apply
from agent.model.errors import AgentError, Kind

DIRECTORIES = ("/etc/aftercare", "/run/aftercare", "/usr/lib/aftercare")
VENDOR = Path(__file__).parent.parent / "data" / "aftercare.toml"
LARGEST = 1 << 20


def load(root: str = "/", check_window: Callable[[str], None] = lambda _: None) -> Settings:
    """Return the settings below `root`; raise AgentError(CONFIG) naming the first file that is not good.

    check_window: raises AgentError where a text is no calendar expression, which systemd alone knows.
    """
    settings = vendor()
    for path in layers(root):
        data = _parse(_read(path), str(path))
        settings = apply(settings, data, str(path))
        for number, rule in enumerate(data.get("rule", []), 1):
            if window := rule.get("window"):
                _check(window, check_window, f"{path}: rule {number}")
    return settings


def _check(window: str, check_window: Callable[[str], None], origin: str) -> None:
    try:
        check_window(window)
    except AgentError as problem:
        raise AgentError(Kind.CONFIG, f"{origin}: window: {problem.message}", problem.hint) from problem


def vendor() -> Settings:
    """Return the settings as they are shipped."""
    return apply(Settings(), _parse(VENDOR.read_bytes(), str(VENDOR)), str(VENDOR))


def layers(root: str = "/") -> list[Path]:
    """Return the files that count below `root`, lowest first."""
    directories = [Path(root) / directory.lstrip("/") for directory in DIRECTORIES]
    main = [path for directory in directories if _exists(path := directory / "aftercare.toml")]
    drop_ins: dict[str, Path] = {}
    for directory in reversed(directories):
        folder = directory / "aftercare.toml.d"
        names = sorted(os.listdir(folder)) if folder.is_dir() else []
        drop_ins |= {name: folder / name for name in names if name.endswith(".toml")}
    chosen = main[:1] + [drop_ins[name] for name in sorted(drop_ins)]
    return [path for path in chosen if not _is_masked(path) and not _is_vendor(path)]


def _exists(path: Path) -> bool:
    return os.path.lexists(path)


def _is_masked(path: Path) -> bool:
    return path.is_symlink() and os.path.realpath(path) == os.devnull


def _is_vendor(path: Path) -> bool:
    """The package links the vendor data into /usr/lib/aftercare for people to read: it is the base already."""
    return os.path.realpath(path) == os.path.realpath(VENDOR)


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as problem:
        raise AgentError(Kind.CONFIG, f"{path}: {problem.strerror}", "mend or remove the file") from problem
    with os.fdopen(descriptor, "rb") as file:
        _refuse_foreign(path, os.fstat(descriptor))
        return file.read(LARGEST)


def _refuse_foreign(path: Path, facts: os.stat_result) -> None:
    """Root must not be steered by a file that somebody else may write."""
    if not stat.S_ISREG(facts.st_mode) or facts.st_size >= LARGEST:
        raise AgentError(Kind.CONFIG, f"{path}: not a regular file below 1 MiB", "mend or remove the file")
    for place, about in ((path, facts), (path.parent, os.stat(path.parent))):
        if about.st_uid not in (0, os.geteuid()):
            raise AgentError(Kind.CONFIG, f"{place}: belongs to uid {about.st_uid}", f"chown root: {place}")
        if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise AgentError(Kind.CONFIG, f"{place}: others may write it", f"chmod go-w {place}")


def _parse(text: bytes, origin: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as problem:
        raise AgentError(Kind.CONFIG, f"{origin}: {problem}", "see aftercare.toml(5)") from problem
