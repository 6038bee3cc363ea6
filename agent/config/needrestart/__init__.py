"""Reads needrestart's configuration as text, never as Perl, and writes what the administrator decided in it as rules.

Understood are assignments to `$nrconf{…}`, and `push` and `delete` on it; the rest is told by file and line and left
out. needrestart's own list of exceptions is not taken over: aftercare ships one that says more. Pure: texts in, a text
out.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.config.needrestart.globs import Inexact, Pattern, to_globs
from agent.config.needrestart.statements import Statement, Value, items, statements, value_of
from agent.model.text import printable

SNIPPETS = "/etc/needrestart/conf.d"
LONGEST = 100

SHIPPED = frozenset(
    r"""^dbus ^gdm ^greetd ^kdm ^nodm ^sddm ^wdm ^xdm ^lightdm ^slim ^lxdm ^xrdp ^bird ^network ^NetworkManager
    ^ModemManager ^wpa_supplicant ^ifup ^openvpn ^quagga ^frr ^tinc ^(open|free|libre|strong)swan ^bluetooth
    ^getty@.+\.service ^serial-getty@.+\.service ^user@\d+\.service ^usbguard\.service$ ^zfs-fuse ^mythtv-backend
    ^xendomains ^lxc ^lxcfs ^libvirt ^virtlogd ^virtlockd ^docker ^bacula- ^qrtr-ns ^rmtfs ^emergency\.service$
    ^rescue\.service$ ^elogind ^apt-daily\.service$ ^apt-daily-upgrade\.service$ ^unattended-upgrades\.service$
    ^cron-.*\.service$ ^rc-local\.service$ ^systemd-logind ^systemd-nspawn""".split()
)
"""What needrestart 3.6 (Debian 12) and 3.11 (Debian 13) ship in override_rc, each with 0."""

BY_INODE = "aftercare knows replaced files by their inodes and needs no list of exceptions"
KERNELS = "the check reboot compares kernels and microcode by itself"
NO_COUNTERPART = "it has no counterpart"
LEFT_OUT = {
    **dict.fromkeys(("blacklist", "blacklist_mappings", "blacklist_interp", "skip_mapfiles"), BY_INODE),
    **dict.fromkeys(("blacklist_cont", "override_cont"), "containers are reported and never restarted"),
    **dict.fromkeys(
        ("kernelhints", "kernelfilter", "kernel_linux_glob", "kernel_kfreebsd_glob", "ucodehints"), KERNELS
    ),
    **dict.fromkeys(("hook_d", "restart_d"), "scripts are not taken over"),
    **dict.fromkeys(("notify_d", "sendnotify"), "see /etc/aftercare/notify.d"),
    **dict.fromkeys(("verbosity", "ui", "ui_mode", "defno", "systemctl_combine", "interpscan"), NO_COUNTERPART),
    **dict.fromkeys(("perlcache", "tolerance", "has_pam_systemd", "exitWhenNoneSelected"), NO_COUNTERPART),
    "nagios-status": "agentctl check --format nagios has states of its own",
}
MODES = {"l": "observe", "a": "auto"}


@dataclass(frozen=True, slots=True)
class Imported:
    """`text`: a file for aftercare.toml.d. remarks: what was not taken over, and why; unknown: what was not read."""

    text: str
    remarks: tuple[str, ...]
    unknown: tuple[str, ...]


@dataclass(slots=True)
class _State:
    """What `%nrconf` would hold, as far as it is understood."""

    mode: str = ""
    hidden: list[Pattern] = field(default_factory=list)
    chosen: dict[Pattern, bool] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)


def import_needrestart(files: Sequence[tuple[str, str]]) -> Imported:
    """Return what the files say, in the order in which needrestart reads them: needrestart.conf, conf.d/*.conf sorted.

    files: name and text of each.
    """
    state = _State()
    unknown = [
        f"{printable(name)}:{statement[0].line}: not understood and left out: {_line(text, statement[0].line)}"
        for name, text in files
        for statement in statements(text)
        if statement and not _take(statement, state)
    ]
    text, remarks = _write(state, [name for name, _ in files])
    return Imported(text, remarks, tuple(unknown))


def _line(text: str, number: int) -> str:
    line = text.split("\n")[number - 1].strip()
    return _as_written(line if len(line) <= LONGEST else f"{line[:LONGEST]}…")


def _as_written(text: str) -> str:
    """Return foreign text for a comment, where a backslash means nothing."""
    return printable(text).replace("\\\\", "\\")


def _take(statement: Statement, state: _State) -> bool:
    """Take a statement into `state`; return whether it was understood."""
    words = [token.text for token in statement]
    if words[0] in ("use", "no", "package") or words == ["1"]:
        return True
    if words[0] == "if" and any(token.value.text == SNIPPETS for token in statement if token.kind == "pattern"):
        return True
    if words[0] == "push":
        return _take_push(statement, state)
    if words[0] == "delete":
        key, inner, rest = _target(statement[1:])
        return key == "override_rc" and not rest and inner is not None and _remove(inner, state)
    key, inner, rest = _target(statement)
    if [token.text for token in rest] == ["+", "+"]:
        return _assign(key, inner, Pattern("1", quoted=True), state)
    if not rest or rest[0].text != "=":
        return False
    return _assign(key, inner, value_of(rest[1:]), state)


def _target(tokens: Statement) -> tuple[str, Pattern | None, Statement]:
    """Return the key of `$nrconf{key}{inner}`, its inner key, and what follows; no key where it is something else."""
    if [token.text for token in tokens[:3]] != ["$", "nrconf", "{"] or len(tokens) < 5 or tokens[4].text != "}":
        return "", None, ()
    key, rest = tokens[3].value.text, tokens[5:]
    if [token.text for token in rest[:2]] == ["-", ">"]:
        rest = rest[2:]
    if len(rest) >= 3 and rest[0].text == "{" and rest[2].text == "}" and rest[1].kind != "sign":
        return key, rest[1].value, rest[3:]
    return key, None, rest


def _take_push(statement: Statement, state: _State) -> bool:
    """Take `push(@{$nrconf{key}}, …)`, with its parentheses or without."""
    tokens = statement[1:]
    if tokens and tokens[0].text == "(" and tokens[-1].text == ")":
        tokens = tokens[1:-1]
    signs = [token.text for token in tokens]
    if signs[:2] != ["@", "{"] or "," not in signs:
        return False
    comma = signs.index(",")
    key, inner, rest = _target(tokens[2 : comma - 1])
    added = items(tokens[comma + 1 :])
    if rest or inner or signs[comma - 1] != "}" or None in added:
        return False
    if key != "blacklist_rc":
        return _assign(key, None, added, state)
    return _assign(key, None, [*state.hidden, *added], state)


def _remove(inner: Pattern, state: _State) -> bool:
    state.chosen.pop(inner, None)
    return True


def _assign(key: str, inner: Pattern | None, value: Value, state: _State) -> bool:
    """Take one assignment; return whether key and value are known."""
    if value is None:
        return False
    if key in LEFT_OUT:
        state.left_out.add(key)
        return True
    if key == "override_rc" and inner is not None:
        return _choose({inner: value}, state)
    if inner is not None:
        return False
    if key == "override_rc" and isinstance(value, dict):
        state.chosen.clear()
        return _choose(value, state)
    if key == "blacklist_rc" and isinstance(value, list):
        state.hidden = [item for item in value if isinstance(item, Pattern)]
        return len(state.hidden) == len(value)
    if key == "restart" and isinstance(value, Pattern) and value.text in ("l", "a", "i"):
        state.mode = value.text
        return True
    return False


def _choose(values: dict[Pattern, Value], state: _State) -> bool:
    chosen = {pattern: value.text for pattern, value in values.items() if isinstance(value, Pattern)}
    if len(chosen) < len(values) or set(chosen.values()) - {"0", "1", ""}:
        return False
    state.chosen |= {pattern: text == "1" for pattern, text in chosen.items()}
    return True


def _write(state: _State, names: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return the file, and what is to be said about it.

    needrestart takes the first expression that matches, in the order of their text, and what it hides above all; of
    aftercare's rules the last one counts.
    """
    own = {pattern: yes for pattern, yes in state.chosen.items() if yes or pattern.text not in SHIPPED}
    remarks = [f"{key}: {LEFT_OUT[key]}" for key in sorted(state.left_out)]
    if count := len(state.chosen) - len(own):
        remarks.append(f"override_rc: {count} entries are needrestart's own; aftercare has rules of its own for them")
    lines = [f"# Made from {printable(', '.join(names))} by: agentctl policy import-needrestart"]
    lines += _mode(state.mode, remarks)
    for pattern, yes in sorted(own.items(), key=lambda item: item[0].key, reverse=True):
        lines += _rule("override_rc", pattern, "restart" if yes else "defer", _earlier(pattern, state) if yes else "")
    for pattern in state.hidden:
        lines += _rule("blacklist_rc", pattern, "never", "")
    return "\n".join((*lines, "")), tuple(remarks)


def _mode(mode: str, remarks: list[str]) -> list[str]:
    if mode in MODES:
        return ["", f"# $nrconf{{restart}} = '{mode}'", f'mode = "{MODES[mode]}"']
    told = 'needrestart asks before it restarts; aftercare does not, unless you set mode = "observe"'
    remarks.append(f"restart: {told}")
    return []


def _earlier(pattern: Pattern, state: _State) -> str:
    """Return why needrestart never comes to `pattern`: one of its own entries matches the same names before it."""
    sample = re.sub(r"[^\w@.-]|\.\*", "", pattern.text.replace("\\", ""))
    before = [other for other, yes in state.chosen.items() if not yes and other.key < pattern.key]
    shadows = [other for other in before if other.text in SHIPPED and re.search(other.text, sample)]
    return f"{shadows[0]} comes before it, so needrestart never does" if shadows else ""


def _rule(setting: str, pattern: Pattern, disposition: str, objection: str) -> list[str]:
    about = f"# {setting}: {_as_written(str(pattern))}"
    try:
        globs = to_globs(pattern)
    except Inexact as problem:
        objection = f"no glob matches just the same: {problem}"
        globs = ()
    if objection:
        return ["", f"{about}: left out: {_as_written(objection)}"]
    why = [] if disposition == "restart" else [f'why = "needrestart\'s {setting} said so"']
    match = json.dumps(globs[0] if len(globs) == 1 else globs)
    return ["", about, "[[rule]]", f"match = {match}", f'disposition = "{disposition}"', *why]
