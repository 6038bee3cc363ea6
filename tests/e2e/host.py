"""What the harness needs of the host: tools, a place for what is kept, locks, and a word to who waits."""

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

TOOLS = {"mmdebstrap": "mmdebstrap", "systemd-nspawn": "systemd-container", "nsenter": "util-linux", "dpkg-deb": "dpkg"}


class Missing(Exception):
    """Something that the host must provide; the message is for people."""


def require() -> None:
    """Raise Missing with one sentence where this host cannot boot a machine."""
    if os.geteuid() != 0:
        raise Missing("booting Debian needs root: run the end-to-end tests with sudo")
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            raise Missing(f"{tool} is missing: apt-get install {package}")


def cache() -> Path:
    """Return the directory where roots, mirrors and machines live: AFTERCARE_CACHE, or one in /var/cache."""
    return Path(os.environ.get("AFTERCARE_CACHE", "/var/cache/aftercare-tests"))


def progress(text: str) -> None:
    """Tell a waiting person on the real standard error, also while pytest captures."""
    print(f"  · {text}", file=sys.__stderr__, flush=True)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; the kernel drops it when we die."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def output(argv: Sequence[str]) -> str:
    """Run a program of the host and return what it printed; raises Missing where it fails."""
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, env=_environment(), check=False
    )
    if done.returncode != 0:
        words = " ".join(argv)[:200]
        said = f"{done.stdout[-2000:]}{done.stderr[-3000:]}"
        raise Missing(f"`{words}` ended with {done.returncode}:\n{said}")
    return done.stdout


def _environment() -> dict[str, str]:
    """Nothing of the caller's but what leads to the archives."""
    kept = {key: value for key, value in os.environ.items() if key.lower().endswith("_proxy")}
    kept["PATH"] = "/usr/sbin:/usr/bin:/sbin:/bin"
    return kept | {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
