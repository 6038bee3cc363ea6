"""needrestart's configuration, read as text: Debian's own, what administrators add to it, and what nobody should run."""

import re
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import load
from agent.config.needrestart import SHIPPED, Imported, import_needrestart
from agent.config.needrestart.globs import Inexact, Pattern, to_globs
from agent.config.settings import Settings, apply
from agent.model.restarts import Disposition, rule_for

DATA = Path(__file__).parents[1] / "data/needrestart"
NAMES = """dbus.service gdm3.service greetd.service kdm.service nodm.service sddm.service wdm.service xdm.service
    lightdm.service slim.service lxdm.service xrdp-sesman.service bird.service networking.service NetworkManager.service
    ModemManager.service wpa_supplicant@wlan0.service ifup@eth0.service openvpn@a.service quagga.service frr.service
    tinc@a.service openswan.service libreswan.service strongswan-starter.service bluetooth.service usbguard.service
    zfs-fuse.service mythtv-backend.service xendomains.service lxc-net.service lxcfs.service libvirtd.service
    virtlogd.service virtlockd.service docker.service bacula-fd.service qrtr-ns.service rmtfs.service emergency.service
    rescue.service elogind.service apt-daily.service apt-daily-upgrade.service unattended-upgrades.service
    cron-daily.service rc-local.service systemd-logind.service systemd-nspawn@a.service""".split()
"""A unit for each of needrestart's own exceptions that a rule of ours has to cover, too."""
BY_NATURE = {r"^getty@.+\.service", r"^serial-getty@.+\.service", r"^user@\d+\.service"}
"""Those that aftercare never restarts by itself, whatever a rule says."""


def imported(*texts: str) -> Imported:
    return import_needrestart([(f"{number}.conf", text) for number, text in enumerate(texts)])


def rules(*texts: str) -> list[tuple[str, str]]:
    """Return pattern and disposition of the rules that come of the texts."""
    result = imported(*texts)
    assert result.unknown == ()
    settings = apply(Settings(), tomllib.loads(result.text), "imported")
    return [(rule.pattern, rule.disposition.value) for rule in settings.rules]


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_what_debian_ships_is_understood_to_the_last_line(suite: str) -> None:
    text = (DATA / f"{suite}.conf").read_text()
    result = imported(text)
    assert result.unknown == () and tomllib.loads(result.text) == {}
    assert any(remark.startswith("override_rc: ") for remark in result.remarks)
    entries = set(re.findall(r"^ +qr\((.+)\) => 0,$", text, re.MULTILINE))
    assert len(entries) > 40 and entries <= SHIPPED


def test_its_own_exceptions_are_exceptions_of_ours() -> None:
    ours = load.vendor().rules
    for pattern in SHIPPED - BY_NATURE:
        units = [name for name in NAMES if re.search(pattern, name)]
        assert units, pattern
        assert all(rule_for(name, ours).disposition is not Disposition.RESTART for name in units), units


@pytest.mark.parametrize(
    "quoted",
    [
        "qr(^foo)",
        "qr/^foo/",
        "qr{^foo}",
        "qr[^foo]",
        "qr<^foo>",
        "qr#^foo#",
        "qr!^foo!",
        "qr (^foo)",
        "m/^foo/",
        "q(^foo)",
        "qq{^foo}",
        "'^foo'",
        '"^foo"',
    ],
)
def test_a_pattern_may_be_quoted_in_all_of_perls_ways(quoted: str) -> None:
    assert rules(f"$nrconf{{override_rc}}{{{quoted}}} = 1;") == [("foo*", "restart")]
    assert rules(f"$nrconf{{override_rc}}->{{{quoted}}}=0;") == [("foo*", "defer")]
    assert rules(f"$nrconf{{'override_rc'}} = {{{quoted}=>1}};") == [("foo*", "restart")]
    assert rules(f"push(@{{$nrconf{{blacklist_rc}}}}, {quoted});") == [("foo*", "never")]
    assert rules(f'push @{{ $nrconf{{"blacklist_rc"}} }}, {quoted} ;') == [("foo*", "never")]
    assert rules(f"$nrconf{{blacklist_rc}} = [\n{quoted}, # why\n];") == [("foo*", "never")]


def test_comments_and_what_perl_does_not_read_count_for_nothing() -> None:
    text = "#$nrconf{restart} = 'l';\n\n=pod\n\n$nrconf{restart} = 'l';\n\n=cut\n\n1;\n__END__\n$nrconf{restart} = 'l';"
    assert imported(text).unknown == () and "mode" not in tomllib.loads(imported(text).text)


def test_a_sign_in_quotes_is_no_sign() -> None:
    assert rules("$nrconf{blacklist_rc} = [ qr(^a#b;), '^c;d', qr#^e(;)f#, qr(^g(h|i)) ];") == [
        (pattern, "never") for pattern in ("a#b;*", "c;d*", "e;f*", "gh*", "gi*")
    ]


@pytest.mark.parametrize(("value", "mode"), [("l", "observe"), ("a", "auto"), ("i", None)])
def test_the_mode_is_taken_where_there_is_one_like_it(value: str, mode: str | None) -> None:
    result = imported(f"$nrconf{{restart}} = '{value}';")
    assert tomllib.loads(result.text).get("mode") == mode
    assert any(remark.startswith("restart: ") for remark in result.remarks) is (mode is None)


def test_a_later_assignment_of_the_whole_replaces_what_was_before() -> None:
    assert rules("$nrconf{override_rc}{qr(^a)} = 1;", "$nrconf{override_rc} = { qr(^b) => 1 };") == [("b*", "restart")]
    assert rules("$nrconf{blacklist_rc} = [qr(^a)];", "$nrconf{blacklist_rc} = [qr(^b)];") == [("b*", "never")]


def test_what_was_taken_away_is_gone() -> None:
    assert rules("$nrconf{override_rc}{qr(^a)} = 1; delete $nrconf{override_rc}{qr(^a)};") == []


def test_of_two_that_match_the_same_one_decides() -> None:
    text = "$nrconf{override_rc} = { qr(^foo-bar) => 1, qr(^foo) => 0, qr(^zoo) => 1 };"
    settings = apply(Settings(), tomllib.loads(imported(text).text), "imported")
    assert rule_for("foo-bar.service", settings.rules).disposition is Disposition.DEFER
    hidden = apply(Settings(), tomllib.loads(imported(text, "$nrconf{blacklist_rc} = [qr(z)];").text), "imported")
    assert rule_for("zoo.service", hidden.rules).disposition is Disposition.NEVER


def test_what_its_own_entry_comes_before_never_happens_there_nor_here() -> None:
    result = imported("$nrconf{override_rc} = { qr(^docker) => 0, qr(^docker-registry) => 1 };")
    assert tomllib.loads(result.text) == {}
    assert "^docker-registry): left out: qr(^docker) comes before it" in result.text


def test_what_no_glob_can_say_is_shown_with_the_reason() -> None:
    result = imported(r"$nrconf{override_rc}{qr(^tomcat\d+)} = 0;")
    assert tomllib.loads(result.text) == {}
    assert r"# override_rc: qr(^tomcat\d+): left out: no glob matches just the same" in result.text


@pytest.mark.parametrize(
    "line",
    [
        'system("rm -rf /");',
        "%nrconf = ();",
        "$nrconf{new_thing} = 1;",
        "$nrconf{override_rc}{qr(^a)} = compute();",
        "$nrconf{override_rc}{qr(^a)} = 2;",
        "$nrconf{override_rc} = { qr(^a) };",
        "$nrconf{restart} = 'x';",
        "push(@list, qr(^a));",
        "push(@{$nrconf{blacklist_rc}}, compute());",
        "if ($ENV{HOME}) { $nrconf{restart} = 'a'; }",
        "$other{restart} = 'a';",
        "do '/etc/needrestart/mine.conf';",
    ],
)
def test_what_is_not_understood_is_told_by_file_and_line(line: str) -> None:
    result = imported(f"# one\n\n  {line}\n$nrconf{{restart}} = 'l';")
    assert result.unknown == (f"0.conf:3: not understood and left out: {line}",)
    assert tomllib.loads(result.text) == {"mode": "observe"}


def test_what_was_not_understood_is_shown_without_its_tricks() -> None:
    (line,) = imported('print "\x1b[31m' + "x" * 500 + '";').unknown
    assert "\\x1b[31m" in line and len(line) < 200


def test_what_nests_without_end_ends_soon() -> None:
    deep = "[" * 5000 + "]" * 5000
    assert len(imported(f"$nrconf{{override_rc}}{{qr(^a)}} = {deep};").unknown) == 1
    for text in ("(" * 5000 + ")" * 5000, "((((a{9}){9}){9}){9})", "(a|b)" * 20, "a{99999999999}", "x" * 5000):
        with pytest.raises(Inexact):
            to_globs(Pattern(text))


@given(st.text(alphabet="$nrconf{}restart_blacklist_rc override_rc=>()[];,'\"#\\qrm/^a.*\n01@-push\x1b", max_size=120))
def test_no_text_breaks_it_and_what_comes_out_is_a_configuration(text: str) -> None:
    for around in ("{}", "$nrconf{{override_rc}}{{qr({})}} = 1;", "$nrconf{{blacklist_rc}} = [qr({}), {}];"):
        result = imported(around.replace("{}", "\0").replace("{{", "{").replace("}}", "}").replace("\0", text))
        apply(Settings(), tomllib.loads(result.text), "imported")


ATOMS = st.sampled_from(
    ["a", "b", "B", "-", r"\.", r"\d", r"\w", ".", "[ab]", "[^a]", "[0-9]", "(a|b)", "(?:ab|)", "@"]
)
PIECES = st.tuples(ATOMS, st.sampled_from(["", "", "", "?", "{2}"])).map("".join)
WILD = st.sampled_from([".*", ".+", ".*?", ""])
BODIES = st.lists(st.one_of(PIECES, WILD), max_size=4).map("".join)
EXPRESSIONS = st.tuples(st.sampled_from(["", "^"]), BODIES, st.sampled_from(["", "$"])).map("".join)


@given(st.lists(EXPRESSIONS, min_size=1, max_size=2).map("|".join), st.text("abB.-1@_", max_size=6), st.booleans())
def test_a_glob_matches_just_what_its_expression_is_found_in(text: str, name: str, either_case: bool) -> None:
    try:
        globs = to_globs(Pattern(text, "i" if either_case else ""))
    except Inexact:
        return
    found = re.search(text, name, re.IGNORECASE if either_case else 0) is not None
    assert any(fnmatchcase(name, glob) for glob in globs) is found, globs


@pytest.mark.parametrize(
    "text",
    [r"^a\d+", "a+", "[ab]*", "(^a|b)", "a$b", "^$foo", "@list", r"\bfoo", "(?!a)b", "(a", "a)", "*a", "[a", "a{1,2}"],
)
def test_what_only_an_expression_can_say_is_no_glob(text: str) -> None:
    with pytest.raises(Inexact):
        to_globs(Pattern(text))


def test_flags_that_change_the_meaning_are_not_overlooked() -> None:
    with pytest.raises(Inexact):
        to_globs(Pattern("^a b", "x"))
    assert to_globs(Pattern("^ab$", "i")) == ("[aA][bB]",)
