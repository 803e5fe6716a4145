"""All commands: arguments, help, and what no command does."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest
from cli.commands import KEY, ROOT, one_error, process

from tavus_provider.cli.commands import COMMANDS


def test_commands_send_only_reads(run, policy, sandbox):
    for arguments in (
        ("plan", policy()),
        ("plan", policy(), "--hard"),
        ("explain", policy(), "r5e27d9a6c40"),
        ("simulate", policy(), "--days", "3650", "--without-limits"),
        ("simulate", policy(), "--hard"),
    ):
        assert run(*arguments)[0] == 0
    assert run("ledger", "verify")[0] == 2  # no ledger was written
    sent = sandbox.state()["requests"]
    assert len(sent) > 10
    assert {request["method"] for request in sent} == {"GET"}


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["delete"], ["diff", "a"], ["plan", "a", "--output", "xml"], ["ledger"], ["explain", "a"]),
        *(["simulate", "a", "--days", days] for days in ("0", "-1", "3651", "1.5", "year")),
    ],
    ids=" ".join,
)
def test_invalid_arguments_fail_with_the_usage(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "usage: python -m tavus_provider" in err


@pytest.mark.parametrize(
    "arguments", [["ledger", "verify", "--report"], ["simulate", "POLICY", "--picture"]], ids="-".join
)
def test_unusable_file_is_named(run, policy, sandbox, tmp_path, arguments):
    given = [policy() if one == "POLICY" else one for one in arguments]
    code, out, err = run(*given, str(tmp_path / "none" / "file.svg"))
    assert (code, out) == (2, "")
    assert str(tmp_path / "none" / "file.svg") in one_error(err)


# -- as a process


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from tavus_provider.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'airflow', 'pydantic', 'rich', 'requests', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("check", "schema", "plan", "explain", "simulate", "ledger"):
        assert re.search(rf"^    {command} +\w", done.stdout, re.M)


def test_connection_in_the_database_of_airflow_is_found(policy, stored_connection):
    done = process("plan", policy(), "--conn-id", stored_connection, "--output", "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)) == 26
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize("output", ["table", "json", "yaml"])
def test_output_that_cannot_be_written_is_one_line(policy, stored_connection, output):
    given = ("plan", policy(), "--conn-id", stored_connection, "--output", output)
    with open("/dev/full", "w") as full:
        done = process(*given, stdout=full)
    assert done.returncode == 2
    assert one_error(done.stderr) == "stdout cannot be written (No space left on device)"


def test_output_that_is_closed_is_one_line(policy):
    command = ["sh", "-c", 'exec "$@" >&-', "sh", sys.executable, "-m", "tavus_provider", "check", policy()]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert one_error(done.stderr) == "stdout cannot be written (it is closed)"


@pytest.mark.parametrize("arguments", [("schema",), ("plan", "table"), ("plan", "json"), ("plan", "yaml")])
def test_reader_that_closes_the_pipe_is_no_error(policy, stored_connection, arguments):
    command, *output = arguments
    given = (policy(), "--conn-id", stored_connection, "--output", *output) if output else ()
    read, write = os.pipe()
    os.close(read)
    try:
        done = process(command, *given, stdout=write)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_exit_code_of_the_process(policy):
    assert process("check", policy(scope={"exclude": ["*"]})).returncode == 1


# -- the table of commands


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_command_has_a_function_and_help(command, run):
    assert callable(command.load())
    code, out, err = run(*command.name.split(), "--help")
    assert (code, err) == (0, "")
    assert " ".join(out.split()).find(f"{command.help[0].upper()}{command.help[1:]}.") > 0
