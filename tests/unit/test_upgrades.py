"""What apt says that an upgrade would do."""

import pytest

from agent.host.upgrades import SIMULATE, parse_upgrades, read_upgrades
from agent.model.errors import AgentError, Kind
from agent.model.facts import Host

SAID = """\
NOTE: This is only a simulation!
      apt-get needs root privileges for real execution.
Remv libold1 [1.0-1]
Inst base-files [12.4+deb12u11] (12.4+deb12u15 Debian:12.15/oldstable [amd64])
Conf base-files (12.4+deb12u15 Debian:12.15/oldstable [amd64])
Inst libssl-dev [3.0.19-1~deb12u2] (3.0.22-1~deb12u2 Debian-Security:12/oldstable-security [amd64]) []
Inst libc6:i386 [2.36-9+deb12u9] (2.36-9+deb12u13 Debian:12.15/oldstable [i386]) [libc6:amd64 ]
Inst linux-image-6.1.0-56-amd64 (6.1.192-2 Debian-Security:12/oldstable-security [amd64])
Conf libssl-dev (3.0.22-1~deb12u2 Debian-Security:12/oldstable-security [amd64])
Purg libold1 [1.0-1]
"""


def test_what_is_replaced_or_removed_is_told_and_what_is_new_replaces_nothing() -> None:
    assert parse_upgrades(SAID) == {
        "libold1": None,
        "base-files": "12.4+deb12u15",
        "libssl-dev": "3.0.22-1~deb12u2",
        "libc6": "2.36-9+deb12u13",
    }


def test_nothing_said_is_nothing_to_do() -> None:
    assert parse_upgrades("") == {}


def test_of_another_root_apt_is_not_asked() -> None:
    with pytest.raises(AgentError) as caught:
        read_upgrades(Host(root="/srv/root"))
    assert caught.value.kind is Kind.USAGE


def test_apt_is_told_to_change_and_to_lock_nothing() -> None:
    assert "--simulate" in SIMULATE and "Debug::NoLocking=1" in SIMULATE


@pytest.mark.real
def test_apt_itself_says_what_can_be_understood() -> None:
    try:
        upgrades = read_upgrades(Host())
    except AgentError as problem:
        assert "apt-get cannot plan an upgrade" in problem.message, "a machine whose packages contradict each other"
        return
    for new in upgrades.values():
        assert new is None or new[0].isalnum()
