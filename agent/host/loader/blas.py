"""Which BLAS Debian's alternatives choose, and which MKL lies where one would be looked for. Judges nothing."""

import os
import re
from dataclasses import dataclass

from agent.host.loader.linker import follow
from agent.model.facts import Host

ALTERNATIVES = "/etc/alternatives"
NAME = re.compile(r"lib(?:blas|lapack)(?:64)?\.so(?:\.3)?-[a-z0-9_-]+")
ONEAPI = "/opt/intel/oneapi/mkl"
FILE = re.compile(r"libmkl_(?:rt|core)\.so(?:\.\d+)?")
MOST_RELEASES = 64
MOST_FILES = 10_000


@dataclass(frozen=True, slots=True)
class Alternative:
    """A choice of /etc/alternatives. target: where its link leads, without symlinks; exists: a file is there."""

    name: str
    target: str
    exists: bool


def read_alternatives(host: Host) -> tuple[Alternative, ...]:
    """Return the chosen providers of BLAS and LAPACK by name; none where there are no alternatives."""
    names = sorted(name for name in _names(host, ALTERNATIVES) if NAME.fullmatch(name))
    return tuple(_alternative(host, name) for name in names)


def _alternative(host: Host, name: str) -> Alternative:
    target = follow(host, f"{ALTERNATIVES}/{name}")
    return Alternative(name, target, bool(target) and os.path.isfile(host.under(target)))


def read_oneapi(host: Host) -> tuple[str, ...]:
    """Return the library directories of the releases that Intel's packages put side by side."""
    names = sorted(_names(host, ONEAPI))[:MOST_RELEASES]
    return tuple(f"{ONEAPI}/{name}/{lib}" for name in names for lib in ("lib", "lib/intel64"))


def read_present(host: Host, directory: str) -> tuple[str, ...]:
    """Return the paths of libmkl_rt and libmkl_core, of any release, in `directory`, whose symlinks are followed."""
    place = follow(host, directory)
    return tuple(f"{place}/{name}" for name in sorted(_names(host, place)) if FILE.fullmatch(name)) if place else ()


def _names(host: Host, directory: str) -> list[str]:
    try:
        with os.scandir(host.under(directory)) as entries:
            return [entry.name for entry, _ in zip(entries, range(MOST_FILES), strict=False)]
    except (OSError, ValueError):
        return []
