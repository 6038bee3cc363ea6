"""What the package, the manual and the unit say, held against the code that they speak of."""

import ast
import json
import re
import shutil
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from agent import __version__
from agent.cli.commands import COMMANDS, Command
from agent.config.settings import RULE_SETTINGS, SETTINGS, TABLES, Settings
from agent.model.restarts import Disposition, Rule

ROOT = Path(__file__).parents[2]
DISTRIBUTIONS = {"debian": "python-debian", "dns": "dnspython"}
"""Where what is imported and what pip installs have different names."""


def read(path: str) -> str:
    return (ROOT / path).read_text()


def third_party() -> set[str]:
    found = set()
    for path in (ROOT / "agent").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            if isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"agent"}


def defaults(of: type[Settings] | type[Rule]) -> dict[str, object]:
    return {field.name: field.default for field in fields(of)}


def test_the_package_the_changes_and_the_code_have_one_version() -> None:
    assert read("debian/changelog").startswith(f"aftercare ({__version__}) ")
    assert f"\n## {__version__}\n" in read("CHANGELOG.md")


@pytest.mark.parametrize("module", sorted(third_party()))
def test_what_is_imported_is_depended_upon(module: str) -> None:
    binary = read("debian/control").partition("\nPackage: ")[2]
    assert f" python3-{'dnspython' if module == 'dns' else module}," in binary
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert DISTRIBUTIONS.get(module, module) in project["dependencies"]


@pytest.mark.parametrize("command", COMMANDS, ids=[command.name for command in COMMANDS])
def test_the_manual_tells_each_command_with_all_that_it_takes(command: Command) -> None:
    manual = read("docs/man/agentctl.1.scd")
    assert re.search(rf"^\*{command.name}\*", manual, re.MULTILINE)
    for name in (name for argument in command.arguments for name in argument.names if name.startswith("-")):
        assert re.search(rf"^\t\*{name}\*", manual, re.MULTILINE), name


@pytest.mark.parametrize("setting", [setting.name for setting in SETTINGS])
def test_the_manual_tells_each_setting_with_its_default(setting: str) -> None:
    assert f"\n*{setting}* = {_toml(defaults(Settings)[setting])}\n" in read("docs/man/aftercare.toml.5.scd")


@pytest.mark.parametrize("table", TABLES)
def test_the_manual_tells_each_table_with_the_defaults_of_its_settings(table: str) -> None:
    default = defaults(Settings)[table]
    _, found, told = read("docs/man/aftercare.toml.5.scd").partition(f"\nThe table _[{table}]_:\n")
    assert found
    for setting in TABLES[table]:
        assert f"\n*{setting.name}* = {_toml(getattr(default, setting.name))}\n" in told


@pytest.mark.parametrize("setting", [setting.name for setting in RULE_SETTINGS if setting.name != "match"])
def test_the_manual_tells_each_setting_of_a_rule_with_its_default(setting: str) -> None:
    assert f"\n*{setting}* = {_toml(defaults(Rule)[setting])}\n" in read("docs/man/aftercare.toml.5.scd")


@pytest.mark.parametrize("disposition", list(Disposition))
def test_the_manual_tells_each_disposition(disposition: Disposition) -> None:
    assert f"\n*{disposition}*\n\t" in read("docs/man/agentctl.1.scd")


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is None or isinstance(value, tuple):
        return "none" if value is None else json.dumps(value)
    return f"{value:g}" if isinstance(value, float) else f'"{value}"' if isinstance(value, str) else str(value)


@pytest.mark.real
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_the_unit_stays_confined() -> None:
    unit = str(ROOT / "systemd/aftercare.service")
    argv = ["systemd-analyze", "security", "--offline=true", "--threshold=27", "--no-pager", unit]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("name", ["agentctl", "aftercared", "worker"])
def test_a_launcher_sees_nothing_that_is_not_from_the_distribution(name: str) -> None:
    first, _, text = read(f"debian/launchers/{name}").partition("\n")
    assert first == "#!/usr/bin/python3 -IS"
    before, _, _ = text.partition("\nfrom agent")
    space: dict[str, object] = {}
    kept = list(sys.path)
    try:
        sys.path[:] = ["/home/x", "/usr/local/lib/python3.11/dist-packages", "/usr/lib/python3.11", "/tmp"]
        exec(before, space)
        found = list(sys.path)
    finally:
        sys.path[:] = kept
    assert found == ["/usr/share/aftercare", "/usr/lib/python3.11", "/usr/lib/python3/dist-packages"]
