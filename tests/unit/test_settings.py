"""Configuration: layers, origin of errors, and files that root must not believe."""

import os
from pathlib import Path

import pytest

from agent.config import load
from agent.config.settings import Settings, apply
from agent.model import contract
from agent.model.errors import AgentError, Kind
from agent.model.restarts import Disposition, rule_for


def write(root: Path, name: str, text: str) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_keys_replace_and_rules_are_appended() -> None:
    first = apply(Settings(), {"mode": "observe", "rule": [{"match": "a*", "disposition": "never"}]}, "one")
    second = apply(first, {"mode": "auto", "rule": [{"match": ["b.service", "c"], "wave": 3, "why": "w"}]}, "two")
    assert second.mode == "auto"
    assert [(rule.pattern, rule.disposition, rule.wave) for rule in second.rules] == [
        ("a*", Disposition.NEVER, 50),
        ("b.service", Disposition.RESTART, 3),
        ("c.service", Disposition.RESTART, 3),
    ]


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        ("nginx", "nginx.service"),
        ("postgresql@15-main", "postgresql@15-main.service"),
        ("php8.2-fpm", "php8.2-fpm.service"),
        ("user@*.service/podman-web", "user@*.service/podman-web.service"),
        *(
            (whole, whole)
            for whole in ("nginx.service", "init.scope", "ssh*", "ssh?", "a.[st]*", "tty[0-9]", "*", "/opt/x")
        ),
    ],
)
def test_a_pattern_without_a_type_of_unit_is_a_service(given: str, taken: str) -> None:
    assert apply(Settings(), {"rule": [{"match": given}]}, "x").rules[0].pattern == taken


def test_a_table_of_a_later_file_replaces_only_what_it_names() -> None:
    assert Settings().reboot.write_flag is False
    first = apply(Settings(), {"reboot": {"write_flag": True}}, "one")
    assert apply(first, {"reboot": {}, "mode": "observe"}, "two").reboot.write_flag is True
    assert apply(first, {"reboot": {"write_flag": False}}, "two").reboot.write_flag is False


def test_settings_that_an_earlier_version_kept_are_still_read() -> None:
    kept = contract.encode(Settings())
    assert contract.decode(Settings, kept) == Settings()
    del kept["reboot"]
    assert contract.decode(Settings, kept) == Settings()


@pytest.mark.parametrize(
    ("data", "message", "hint"),
    [
        ({"mod": "auto"}, "file: unknown setting 'mod', did you mean mode?", "known are mode, quiet_period"),
        ({"mode": "loud"}, "file: mode must be one of auto, observe, not 'loud'", "only reports"),
        ({"quiet_period": "3"}, "file: quiet_period must be a number from 0.2 to 600, not '3'", "seconds"),
        ({"quiet_period": True}, "must be a number", ""),
        ({"rule": {"match": "x"}}, "file: rule must be written as [[rule]]", ""),
        ({"rule": [{"disposition": "never"}]}, "file: rule 1: match is missing", "match ="),
        ({"rule": [{}, {"match": 3}]}, "file: rule 1: match is missing", ""),
        ({"rule": [{"match": "x", "dispositon": "never"}]}, "file: rule 1: unknown setting", "disposition"),
        ({"reboot": True}, "file: reboot must be written as [reboot]", ""),
        (
            {"reboot": {"write_flag": 1}},
            "file: reboot: write_flag must be true or false, not 1",
            "/run/reboot-required",
        ),
        ({"reboot": {"writeflag": True}}, "reboot: unknown setting 'writeflag', did you mean write_flag?", "known are"),
        ({"rebot": {}}, "file: unknown setting 'rebot', did you mean reboot?", ""),
        ({"rule": [{"match": "x", "disposition": "session"}]}, "disposition must be one of", ""),
        (
            {"rule": [{"match": "x", "broken": ["("]}]},
            "(missing ), unterminated subpattern at position 0), not ['(']",
            "",
        ),
    ],
)
def test_an_error_names_file_key_and_remedy(data: dict[str, object], message: str, hint: str) -> None:
    with pytest.raises(AgentError) as caught:
        apply(Settings(), data, "file")
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_the_vendor_policy_is_good_and_defers_what_breaks_logins(tmp_path: Path) -> None:
    settings = load.load(str(tmp_path))
    assert settings.mode == "auto"
    assert any(
        rule.pattern == "dbus.service" and rule.disposition is not Disposition.RESTART for rule in settings.rules
    )


def test_drop_ins_are_sorted_by_name_over_all_directories_and_higher_ones_replace(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/aftercare/aftercare.toml.d/20-b.toml", "quiet_period = 20")
    write(tmp_path, "usr/lib/aftercare/aftercare.toml.d/30-c.toml", "quiet_period = 30")
    write(tmp_path, "run/aftercare/aftercare.toml.d/30-c.toml", "quiet_period = 31")
    write(tmp_path, "etc/aftercare/aftercare.toml.d/10-a.toml", "quiet_period = 10")
    write(tmp_path, "etc/aftercare/aftercare.toml", "quiet_period = 1\nmode = 'observe'")
    settings = load.load(str(tmp_path))
    assert (settings.quiet_period, settings.mode) == (31, "observe")


def test_a_link_to_dev_null_masks(tmp_path: Path) -> None:
    write(tmp_path, "usr/lib/aftercare/aftercare.toml.d/20-b.toml", "quiet_period = 20")
    (tmp_path / "etc/aftercare/aftercare.toml.d").mkdir(parents=True)
    (tmp_path / "etc/aftercare/aftercare.toml.d/20-b.toml").symlink_to("/dev/null")
    assert load.load(str(tmp_path)).quiet_period == 3


def test_a_file_that_others_may_write_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "etc/aftercare/aftercare.toml", "mode = 'observe'")
    path.chmod(0o666)
    with pytest.raises(AgentError, match="others may write it") as caught:
        load.load(str(tmp_path))
    assert caught.value.hint == f"chmod go-w {path}"


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    os.chown(write(tmp_path, "etc/aftercare/aftercare.toml", "mode = 'observe'"), 12345, 12345)
    with pytest.raises(AgentError, match="belongs to uid 12345"):
        load.load(str(tmp_path))


@pytest.mark.parametrize("text", ["mode = ", "\x00", "mode = 'observe'\nmode = 'auto'"])
def test_a_broken_file_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    write(tmp_path, "etc/aftercare/aftercare.toml", text)
    with pytest.raises(AgentError, match=r"etc/aftercare/aftercare\.toml: "):
        load.load(str(tmp_path))


def test_a_fifo_never_blocks_the_daemon(tmp_path: Path) -> None:
    (tmp_path / "etc/aftercare").mkdir(parents=True)
    os.mkfifo(tmp_path / "etc/aftercare/aftercare.toml")
    with pytest.raises(AgentError, match="not a regular file"):
        load.load(str(tmp_path))


def test_a_window_that_is_no_calendar_expression_is_refused_with_its_file(tmp_path: Path) -> None:
    def check(window: str) -> None:
        if window == "Caturday":
            raise AgentError(Kind.CONFIG, "Failed to parse calendar specification 'Caturday'", "see systemd.time(7)")

    write(tmp_path, "etc/aftercare/aftercare.toml", '[[rule]]\nmatch = "a"\nwindow = "Sun 03:00"\n')
    assert load.load(str(tmp_path), check).rules[-1].window == "Sun 03:00"
    write(
        tmp_path,
        "etc/aftercare/aftercare.toml.d/1.toml",
        '[[rule]]\nmatch = "a"\n[[rule]]\nmatch = "b"\nwindow = "Caturday"\n',
    )
    with pytest.raises(AgentError, match=r"1\.toml: rule 2: window: Failed to parse.*Caturday"):
        load.load(str(tmp_path), check)


def test_of_all_rules_that_match_the_last_that_says_a_thing_decides_on_it() -> None:
    rules = [
        {"match": "nginx.service", "precheck": ["nginx", "-t"], "wave": 30, "why": "first"},
        {"match": "*.service", "window": "Sun 03:00"},
        {"match": "nginx.service", "wave": 40},
        {"match": "ssh.service", "wave": 90},
    ]
    rule = rule_for("nginx.service", apply(Settings(), {"rule": rules}, "x").rules)
    assert (rule.precheck, rule.window, rule.wave, rule.why) == ((("nginx", "-t"),), "Sun 03:00", 40, "first")


def test_the_reason_of_another_disposition_is_forgotten_with_it() -> None:
    rules = [
        {"match": "dbus.service", "disposition": "reboot", "why": "its clients do not survive it"},
        {"match": "dbus.service", "disposition": "restart"},
    ]
    rule = rule_for("dbus.service", apply(Settings(), {"rule": rules}, "x").rules)
    assert (rule.disposition, rule.why) == (Disposition.RESTART, "")
