"""Users' own units by name: what is taken for one, and what is not."""

import shlex

import pytest

from agent.model.users import MOST, UserUnit, by_hand, kept_apart, named, parse, uid_of

FOO = UserUnit(1000, "foo.service")


@pytest.mark.parametrize(
    "name",
    [
        "foo.service",
        "app-org.gnome.Terminal-4711.scope",
        "mail@a\\x2db.service",
        "_.service",
        "a:b_c-d.e.service",
        "x" * 247 + ".service",
    ],
)
def test_what_systemd_would_call_a_service_or_a_scope_is_a_users_unit(name: str) -> None:
    unit = named(1000, name)
    assert unit == UserUnit(1000, name)
    assert parse(unit.subject) == unit == parse(f"user@1000.service/{name}")


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".service",
        "foo",
        "foo.socket",
        "foo.slice",
        "init.scope",
        "foo@.service",
        "@a.service",
        "-rf.service",
        "--help.service",
        "a b.service",
        "a/b.service",
        "$(reboot).service",
        "a;b.service",
        "*.service",
        "a%n.service",
        "a'.service",
        "é.service",
        "foo.service\n",
        "foo\n.service",
        "foo.service (deleted)",
        "x" * 248 + ".service",
    ],
)
def test_nothing_else_is(name: str) -> None:
    assert named(1000, name) is None
    assert parse(f"user@1000.service/{name}") is None


@pytest.mark.parametrize(
    "subject",
    [
        "foo.service",
        "user@1000.service",
        "user@1000.service/",
        "user@alice.service/foo.service",
        "user@01.service/foo.service",
        "user@-1.service/foo.service",
        "user@99999999999.service/foo.service",
        "user@٣.service/foo.service",
        "xuser@1000.service/foo.service",
        "user@1000.scope/foo.service",
        "user@1000.service/foo.service/bar.service",
        "/usr/bin/user@1000.service/foo.service",
    ],
)
def test_only_systemds_own_manager_of_a_numbered_user_has_units(subject: str) -> None:
    assert parse(subject) is None


def test_a_manager_is_known_by_its_number() -> None:
    assert uid_of("user@1000.service") == 1000 and uid_of("user@0.service") == 0
    assert uid_of("user@x.service") is None and uid_of("nginx.service") is None


def test_the_job_of_each_unit_has_a_name_of_its_own_that_systemd_takes_however_long_the_units_is() -> None:
    long = [UserUnit(1000, f"{'x' * 240}{number}.service") for number in range(3)]
    jobs = {unit.job for unit in (*long, FOO, UserUnit(1001, "foo.service"))}
    assert len(jobs) == 5 and all(len(job) < 256 and job.endswith(".service") for job in jobs)


def test_a_user_has_so_many_units_and_services_come_before_what_is_only_grouped() -> None:
    scopes = [UserUnit(1000, f"a{number}.scope") for number in range(2 * MOST)]
    kept = kept_apart([*scopes, FOO, FOO])
    assert len(kept) == MOST and kept[0] == FOO and kept.count(FOO) == 1
    assert kept == kept_apart([FOO, *reversed(scopes)]), "the same ones whatever order they are found in"


def test_root_asks_the_manager_that_the_unit_belongs_to() -> None:
    assert by_hand("status", "nginx.service") == "systemctl status nginx.service"
    assert by_hand("status", "a;b.service") == "systemctl status 'a;b.service'"
    words = shlex.split(by_hand("restart", "user@1000.service/mail@a\\x2db.service"))
    assert words[0] == "systemd-run" and "--uid=1000" in words and "--setenv=XDG_RUNTIME_DIR=/run/user/1000" in words
    assert words[-4:] == ["systemctl", "--user", "restart", "mail@a\\x2db.service"]
