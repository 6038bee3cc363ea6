"""What takes long to make, made once and kept outside of the tree, under a key of what decides how it comes out."""

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

from tests.e2e import host
from tests.e2e.roots import keep, remove_unused


def kept(name: str, recipe: str, make: Callable[[Path], None]) -> Path:
    """Return the directory that `make` fills, an empty one that it is given, where none of this recipe is kept.

    It is the only one of its name afterwards, but for those that other test runs still use.
    """
    home = host.cache() / f"{name}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"
    with host.locked(host.cache() / f"{name}.lock"):
        if not home.is_dir():
            making = host.cache() / f"{name}-making"
            shutil.rmtree(making, ignore_errors=True)
            making.mkdir(parents=True)
            make(making)
            making.rename(home)
        keep(home)
        remove_unused(name)
    return home
