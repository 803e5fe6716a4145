"""The commands as ``airflow tavus ...``."""

from __future__ import annotations

import json
import subprocess
import sys

import airflow
import pytest
from cli.commands import KEY, ROOT, process
from packaging.version import Version

from tavus_provider.cli.commands import COMMANDS
from tavus_provider.cli.definition import get_commands

needs_cli_entry = pytest.mark.skipif(
    Version(airflow.__version__) < Version("3.2"), reason="Airflow reads the entry cli since 3.2"
)


def test_both_entries_have_the_same_commands():
    (group,) = get_commands()
    names = []
    for command in group.subcommands:
        inner = getattr(command, "subcommands", None)
        names += [command.name] if inner is None else [f"{command.name} {one.name}" for one in inner]
    assert (group.name, sorted(names)) == ("tavus", sorted(command.name for command in COMMANDS))


def test_definition_imports_nothing_heavy():
    code = (
        "import sys; import tavus_provider.cli.definition\n"
        "print(sorted({'airflow', 'pydantic', 'rich', 'requests', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


def airflow_tavus(*arguments: str) -> subprocess.CompletedProcess[str]:
    return process("tavus", *arguments, program="airflow")


@needs_cli_entry
def test_plan_of_the_airflow_command_is_that_of_the_module(policy, stored_connection):
    arguments = ["plan", policy(), "--conn-id", stored_connection, "-o", "json"]
    done = airflow_tavus(*arguments)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads(process(*arguments).stdout)
    assert KEY not in done.stdout + done.stderr


@needs_cli_entry
def test_exit_codes_and_errors_of_the_airflow_command(policy, airflow_db):
    assert airflow_tavus("check", policy(scope={"exclude": ["*"]})).returncode == 1
    done = airflow_tavus("check", "/nowhere/policy.yaml")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (
        "policy /nowhere/policy.yaml: cannot be read (No such file or directory)"
    )
    assert "Traceback" not in done.stderr
    assert airflow_tavus("ledger", "verify", "--help").returncode == 0
