"""The disk of the machine that is measured on: the base server, and the tools that aftercare is compared with.

Made once with mmdebstrap and kept beside the other roots; the host's own packages are never touched.
"""

import hashlib
import shutil
from pathlib import Path

from tests.e2e import host, roots
from tests.e2e.nspawn import inside

PEERS = ("needrestart", "debian-goodies", "lsof")
"""lsof: checkrestart takes it where it is there, and Debian recommends it."""


def tree(base: roots.Base) -> Path:
    """Return the root file system, making it (about a minute, needs the network) where it is not kept yet."""
    packages = [*roots.SERVER, *roots.DEPENDENCIES, *roots.ONLY[base.suite], *PEERS]
    recipe = " ".join([base.mirror.parent.name, *packages])
    name = f"bench-{base.suite}"
    home = host.cache() / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with host.locked(host.cache() / f"{name}.lock"):
        if not home.exists():
            _make(base, packages, host.cache() / f"{name}-making", home)
        roots.keep(home)
        roots.remove_unused(name)
    return home / "root"


def _make(base: roots.Base, packages: list[str], making: Path, home: Path) -> None:
    host.progress(f"{base.suite}: making a root with {', '.join(PEERS)} (once; kept in {host.cache()})")
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir()
    roots.bootstrap(base.suite, making / "root", packages)
    script = roots.FURNISH.replace("SUITE", base.suite)
    inside(making / "root", script, f"--bind-ro={base.mirror}:/mirror")
    making.rename(home)
