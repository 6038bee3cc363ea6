"""Booted machines as fixtures: one suite after the other, each test on a machine of its own.

Nothing is skipped: where Debian cannot be booted, the tests fail with one sentence that says what is missing.
"""

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.e2e import builder, roots
from tests.e2e.machine import Machine

QUICK = "/etc/aftercare/aftercare.toml.d/10-quick.toml"
REPORTED = pytest.StashKey[list[Machine]]()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on each suite."""
    if "suite" in metafunc.fixturenames:
        metafunc.parametrize("suite", roots.SUITES, indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the suites that `@pytest.mark.suites(…)` of a test, or `--suite` of the run, does not name.

    With pytest-xdist, `-n 2 --dist loadgroup` runs the suites side by side.
    """
    chosen = config.getoption("--suite") or roots.SUITES
    out = [item for item in items if not _is_wanted(item, chosen)]
    for item in items:
        if suite := _suite_of(item):
            item.add_marker(pytest.mark.xdist_group(suite))
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=out)


def _is_wanted(item: pytest.Item, chosen: Sequence[str]) -> bool:
    suite, mark = _suite_of(item), item.get_closest_marker("suites")
    return suite is None or (suite in chosen and (mark is None or suite in mark.args))


def _suite_of(item: pytest.Item) -> str | None:
    call = getattr(item, "callspec", None)
    return call.params.get("suite") if call else None


@pytest.fixture(scope="session")
def suite(request: pytest.FixtureRequest) -> str:
    """The Debian suite that the test runs on."""
    return str(request.param)


@pytest.fixture(scope="session")
def base(suite: str) -> roots.Base:
    """The suite's base root, its mirror and its upgrade pairs."""
    try:
        return roots.base(suite)
    except roots.Missing as problem:
        pytest.fail(str(problem), pytrace=False)


@pytest.fixture(scope="session")
def package(suite: str, base: roots.Base) -> Path:
    """The .deb under test, built from this tree in the suite itself."""
    try:
        return builder.package(suite)
    except roots.Missing as problem:
        pytest.fail(str(problem), pytrace=False)


@pytest.fixture(scope="session")
def installed(base: roots.Base, package: Path) -> Iterator[Path]:
    """The disk of a machine that was shut down after the .deb was installed with apt and set to be quick.

    What was remembered of that machine is not copied along: `test_a_disk_that_was_copied…` is about that.
    """
    roots.progress(f"{base.suite}: installing {package.name} on a machine to copy")
    with Machine(base) as machine:
        machine.install(package)
        machine.wait()
        machine.write(QUICK, "quiet_period = 0.5\n")
        machine.run("systemctl stop aftercare.service; rm /var/lib/aftercare/*")
        machine.poweroff()
        yield machine.root


@pytest.fixture
def machine(request: pytest.FixtureRequest, base: roots.Base, installed: Path) -> Iterator[Machine]:
    """A freshly booted machine with aftercare installed and idle; its quiet period is short, to save time."""
    with Machine(base, installed) as machine:
        remember(request, machine)
        machine.wait()
        yield machine


@pytest.fixture
def stock(machine: Machine) -> Machine:
    """A machine on which aftercare is exactly as installed."""
    machine.run(["rm", QUICK])
    machine.run("systemctl reload aftercare.service")
    return machine


@pytest.fixture
def bare(request: pytest.FixtureRequest, base: roots.Base) -> Iterator[Machine]:
    """A freshly booted machine without aftercare."""
    with Machine(base) as machine:
        remember(request, machine)
        yield machine


@pytest.fixture
def bare_with_deb(bare: Machine, package: Path) -> Machine:
    """A freshly booted machine on which the .deb has just been installed."""
    bare.install(package)
    return bare


def remember(request: pytest.FixtureRequest, machine: Machine) -> None:
    """Have the machine shown where its test fails."""
    request.node.stash.setdefault(REPORTED, []).append(machine)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """Show the machines of a test that failed, while they still run."""
    report = (yield).get_result()
    if report.when == "call" and report.failed:
        for machine in item.stash.get(REPORTED, []):
            report.sections.append((machine.name, machine.report()))
