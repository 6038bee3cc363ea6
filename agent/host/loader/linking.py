"""Whether anything has moved that may lead a Python environment to another MKL or BLAS. Judges nothing.

Only what has to do with those: ld.so.cache is written anew by nearly every package that comes or goes.
"""

import hashlib
import os
import re
from collections.abc import Iterator

from agent.host.kernel import read_beginning
from agent.host.loader.linker import CACHE, LARGEST_CACHE
from agent.host.loader.variables import read_login
from agent.model.facts import Host

ALTERNATIVES = "/etc/alternatives"
ONEAPI = "/opt/intel/oneapi/mkl"
"""Releases of MKL, each in a directory of its own, and a link to the latest."""
NAMES = re.compile(r"lib(?:mkl|iomp|omp|c?blas|lapack).*")
CACHED = re.compile(rb"(?<=\0)/[^\0]*/lib(?:mkl|iomp|omp|c?blas|lapack)[^\0/]*(?=\0)")
"""Their paths in ld.so.cache, whatever the order of its table."""


def read_linking(host: Host) -> str:
    """Return a text that stays the same for as long as nothing of it moves."""
    return hashlib.sha256("\n".join(_parts(host)).encode(errors="surrogateescape")).hexdigest()


def _parts(host: Host) -> Iterator[str]:
    for name, value in sorted(read_login(host).items()):
        yield f"{name}={value}"
    cache = read_beginning(host.under(CACHE), LARGEST_CACHE) or b""
    for path in sorted(set(map(os.fsdecode, CACHED.findall(cache)))):
        yield f"{path} {_stamp(host.under(path))}"
    for directory, wanted in ((ALTERNATIVES, NAMES), (ONEAPI, re.compile(".*"))):
        for name in _names(host.under(directory)):
            if wanted.fullmatch(name):
                path = f"{host.under(directory)}/{name}"
                yield f"{name} {os.readlink(path) if os.path.islink(path) else ''} {_stamp(path)}"


def _names(directory: str) -> list[str]:
    try:
        return sorted(os.listdir(directory))
    except OSError:
        return []


def _stamp(path: str) -> str:
    try:
        row = os.stat(path)
    except OSError:
        return "none"
    return f"{row.st_dev} {row.st_ino} {row.st_size} {row.st_mtime_ns}"
