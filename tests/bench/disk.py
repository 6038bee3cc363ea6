"""The disk of the machine that is measured on: the base server, and the tools that aftercare is compared with.

Made once with mmdebstrap and kept beside the other roots; the host's own packages are never touched.
"""

from functools import partial
from pathlib import Path

from tests.e2e import host, roots
from tests.e2e.kept import kept
from tests.e2e.nspawn import inside

PEERS = ("needrestart", "debian-goodies", "lsof")
"""lsof: checkrestart takes it where it is there, and Debian recommends it."""


def tree(base: roots.Base) -> Path:
    """Return the root file system, making it (about a minute, needs the network) where it is not kept yet."""
    packages = [*roots.SERVER, *roots.DEPENDENCIES, *roots.ONLY[base.suite], *PEERS]
    recipe = " ".join([base.mirror.parent.name, *packages])
    return kept(f"bench-{base.suite}", recipe, partial(_make, base, packages)) / "root"


def _make(base: roots.Base, packages: list[str], home: Path) -> None:
    host.progress(f"{base.suite}: making a root with {', '.join(PEERS)} (once; kept in {host.cache()})")
    roots.bootstrap(base.suite, home / "root", packages)
    script = roots.FURNISH.replace("SUITE", base.suite)
    inside(home / "root", script, f"--bind-ro={base.mirror}:/mirror")
