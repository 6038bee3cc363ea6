"""What the tests of detection share."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.host import mappings
from agent.host.mappings import Engine
from tests.integration.herd import LIBRARY, OLD, Root


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that every user may enter, on the file system of /var/tmp."""
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="aftercare-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def root(place: Path) -> Root:
    """A root where libdemo 1.0 is installed."""
    root = Root(place / "root")
    root.install("libdemo", "1.0", {LIBRARY: OLD})
    return root


@pytest.fixture
def on_engine(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Switches the choice of the engine off, for the kernel here has both."""
    monkeypatch.setattr(mappings, "choose_engine", lambda host: engine)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep these tests from running beside each other: they look at all processes of this machine.

    The full matrix of MKL is for `make test-mkl`.
    """
    whole = os.environ.get("AFTERCARE_MKL") == "full"
    out = [item for item in items if item.get_closest_marker("full_matrix") and not whole]
    items[:] = [item for item in items if item not in set(out)]
    config.hook.pytest_deselected(items=out)
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent):
            item.add_marker(pytest.mark.xdist_group("this machine"))
