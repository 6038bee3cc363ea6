"""The OpenMP runtimes that packages of a Python environment bring along: two of them in one process end it."""

import re
from collections.abc import Iterator

from agent.host.beneath import list_beneath
from agent.host.mounts import Mounts, open_local
from agent.model.facts import Host

PLACES = ("torch/lib", "sklearn/.libs")
"""Where packages have them that do not use auditwheel's `NAME.libs`."""
RUNTIME = re.compile(r"lib(?:iomp5|omp)(?:-[0-9a-f]+)?\.so[.0-9]*")
MOST_NAMES = 20_000
MOST_PLACES = 100
MOST = 10


def read_openmp(host: Host, mounts: Mounts, site: str) -> tuple[str, ...]:
    """Return the paths of Intel's and LLVM's runtimes below a site directory, absolute in the host."""
    try:
        with open_local(mounts, host.under(site)) as directory:
            return tuple(sorted(f"{site}/{path}" for path in _find(directory))[:MOST])
    except OSError:
        return ()


def _find(directory: int) -> Iterator[str]:
    own = [name for name in list_beneath(directory, "", MOST_NAMES) if name.endswith(".libs")]
    for place in (*own[:MOST_PLACES], *PLACES):
        try:
            names = list_beneath(directory, place, MOST_NAMES)
        except OSError:
            continue
        yield from (f"{place}/{name}" for name in names if RUNTIME.fullmatch(name))
