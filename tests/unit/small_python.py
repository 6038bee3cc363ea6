"""Made-up Python environments below a root: directories, names and metadata as installers leave them."""

import os
import struct
from collections.abc import Iterable
from pathlib import Path

from agent.host.mounts import Mounts, read_mounts
from agent.host.python.pyenvs import Discovery, discover
from agent.host.python.pyroots import find_roots
from agent.host.python.pywalk import Limits
from agent.model.facts import Host

SUFFIX = "cpython-311-x86_64-linux-gnu.so"
CORE = f"numpy/_core/_multiarray_umath.{SUFFIX}"
PLACE = "/opt/mkl/lib"
"""Where MKL is, if it is anywhere."""
MODULES = (
    CORE,
    f"numpy/linalg/_umath_linalg.{SUFFIX}",
    f"numpy/linalg/lapack_lite.{SUFFIX}",
    f"scipy/linalg/_fblas.{SUFFIX}",
    f"scipy/sparse/linalg/_eigen/arpack/_arpack.{SUFFIX}",
)


def put(root: Path, path: str, text: str = "") -> Path:
    """Write a file below `root`."""
    place = root / path.lstrip("/")
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    return place


def library(soname: str = "", needed: Iterable[str] = (), runpath: str = "", salt: str = "") -> bytes:
    """Return a shared object for x86-64 that has a dynamic section and nothing else. salt: makes it another one."""
    names = b"\0"
    rows: list[tuple[int, int]] = []
    for tag, text in ((14, soname), (29, runpath), *((1, name) for name in needed)):
        if text:
            rows.append((tag, len(names)))
            names += text.encode() + b"\0"
    start = 64 + 2 * 56
    size = 16 * (len(rows) + 3)
    rows += [(5, start + size), (10, len(names)), (0, 0)]
    whole = start + size + len(names)
    head = b"\x7fELF\2\1\1" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, whole, whole, 4096)
    dynamic = struct.pack("<IIQQQQQQ", 2, 4, start, start, start, size, size, 8)
    return head + load + dynamic + b"".join(struct.pack("<QQ", *row) for row in rows) + names + salt.encode()


def put_library(root: Path, path: str, needed: Iterable[str] = (), soname: str | None = None, **more: str) -> Path:
    """Write a shared object; it has its own name as its soname unless told otherwise."""
    place = put(root, path)
    place.write_bytes(library(place.name if soname is None else soname, needed, **more))
    return place


def mkl(root: Path, directory: str, suffix: str = ".so.2", salt: str = "") -> None:
    """Lay out an MKL that is complete, as far as names tell; what is in it differs by `salt`."""
    for part in ("rt", "core", "intel_lp64", "intel_thread", "def", "mc3", "avx2", "avx512"):
        put_library(root, f"{directory}/libmkl_{part}{suffix}", salt=salt)
    put_library(root, f"{directory}/libiomp5.so")


def site(root: Path, path: str, numpy: str = "2.3.5", scipy: str = "1.16.3", more: Iterable[str] = ()) -> Path:
    """Make a site directory with numpy and scipy, none of them bound to MKL.

    more: further files, or directories where they end in a slash.
    """
    place = root / path.lstrip("/")
    for name, version in (("numpy", numpy), ("scipy", scipy)):
        if version:
            put(place, f"{name}-{version}.dist-info/METADATA", f"Name: {name}\nVersion: {version}\n\nText\n")
    for module in MODULES:
        if numpy if module.startswith("numpy") else scipy:
            put_library(place, module, soname="")
    for name in more:
        put(place, f"{name}.keep" if name.endswith("/") else name)
    return place


def venv(root: Path, path: str, config: str = "version = 3.11.2\n", numpy: str = "2.3.5") -> Path:
    """Make a virtual environment."""
    put(root, f"{path}/pyvenv.cfg", f"home = /usr/bin\ninclude-system-site-packages = false\n{config}")
    return site(root, f"{path}/lib/python3.11/site-packages", numpy)


def bind(place: Path, directory: str, *names: str, modules: Iterable[str] = MODULES) -> None:
    """Have numpy and scipy in a site directory need `names`, which they look for in `directory` first."""
    for module in modules:
        put_library(place, module, names, "", runpath=directory)


def bound(root: Path, path: str, *names: str) -> Path:
    """Make a virtual environment whose numpy and scipy need `names` of PLACE; by default a libmkl_rt."""
    place = venv(root, path)
    bind(place, PLACE, *(names or ("libmkl_rt.so.2",)))
    return place


def accounts(root: Path, **homes: str) -> None:
    """Write /etc/passwd; the users get numbers from 1000 on."""
    rows = [f"{name}:x:{1000 + number}:100::{home}:/bin/sh\n" for number, (name, home) in enumerate(homes.items())]
    put(root, "/etc/passwd", "".join(["root:x:0:0:root:/root:/bin/bash\n", *rows]))


def mounts() -> Mounts:
    """Return the mounts of the machine that the tests run on."""
    return read_mounts(Host())


def found(root: Path, limits: Limits = Limits(), extra: tuple[str, ...] = ()) -> Discovery:
    """Return what a search of the whole root finds."""
    host = Host(str(root))
    return discover(host, mounts(), find_roots(host, mounts(), extra), limits)


def kinds(discovery: Discovery) -> dict[str, str]:
    """Return path → kind."""
    return {item.path: item.kind for item in discovery.environments}


def grow_old(path: Path) -> None:
    """Give a file another time of change."""
    os.utime(path, ns=(1, 1))
