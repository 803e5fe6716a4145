"""The commands of ``python -m tavus_provider``: what they print, their exit codes, and what they never do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

from tavus_provider.cli.commands import main
from tavus_provider.retention.checks import CHECKS

KEY = "sandbox-key-8f2b6c91"
ROOT = Path(__file__).parents[2]
STALE = {
    "name": "stale",
    "expire": [
        {"rule": "failed-training", "status": ["error"], "older_than": "14d"},
        {"rule": "stale", "older_than": "180d", "unused_for": "90d"},
    ],
    "scope": {"exclude": ["vip_*"]},
}


@pytest.fixture(autouse=True)
def surroundings(monkeypatch):
    # The commands set it for their own process; here it must not outlive the test.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def policy(tmp_path):
    """Write a policy to a file: ``policy(**parts)``."""

    def write(**parts) -> str:
        file = tmp_path / "retention.yaml"
        file.write_text(yaml.safe_dump({**STALE, **parts}), encoding="utf-8")
        return str(file)

    return write


@pytest.fixture
def run(capsys):
    """Run a command: the exit code, and what stood on stdout and stderr."""

    def command(*arguments: str) -> tuple[int, str, str]:
        try:
            code = main(arguments)
        except SystemExit as ended:  # argparse
            code = int(ended.code)
        said = capsys.readouterr()
        assert KEY not in said.out + said.err
        return code, said.out, said.err

    return command


# --- check and schema -----------------------------------------------------------------------------------


def test_a_good_policy_is_said_to_be_good(run, policy):
    file = policy()
    assert run("check", file) == (0, f"{file}: good\n", "")


def test_every_finding_is_a_line_with_its_path_and_what_would_be_right(run, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(
        "expire:\n"
        + "".join(f"  - {{rule: r{n}, older_than: {n}}}\n" for n in range(1, 7))
        + "limits: {max_deletions: -1}\nkeep: {protected: []}\n"
    )
    code, out, err = run("check", str(file))
    assert code == 1
    assert out.splitlines() == [
        *(
            f"{file}: expire.{n - 1}.older_than: {n} has no unit; write {n}d (units: w, d, h, m)"
            for n in range(1, 7)
        ),
        f"{file}: keep: unknown key 'protected'; "
        "known: protected_ids, keep_within, keep_last, group_by, in_use",
        f"{file}: limits.max_deletions: must be >= 0, not -1",
    ]
    assert err == ""


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        pytest.param(
            {"expire": [{"rule": "a", "older_than": "30d"}, {"rule": "b", "older_than": "90d"}]},
            "expire.1: rule 'b' has no effect, because rule 'a' before it matches every replica that it "
            "matches; move it before that rule or remove it",
            id="a rule",
        ),
        pytest.param(
            {"scope": {"exclude": ["*"]}},
            "scope: exclude covers everything that include names, so no rule can match",
            id="the scope",
        ),
    ],
)
def test_a_part_without_effect_is_a_finding(run, policy, parts, said):
    file = policy(**parts)
    assert run("check", file) == (1, f"{file}: {said}\n", "")


def test_a_file_that_is_no_yaml_is_a_finding_with_its_line(run, tmp_path):
    file = tmp_path / "torn.yaml"
    file.write_text("expire:\n  - {older_than: 90d\nname: x\n")
    code, out, _ = run("check", str(file))
    assert code == 1
    assert re.match(rf"{file}: line 3, column \d+: ", out)


def test_the_schema_is_the_published_one(run):
    code, out, err = run("schema")
    assert (code, err) == (0, "")
    assert out == (ROOT / "docs" / "retention-policy.schema.json").read_text(encoding="utf-8")


# --- plan, explain, simulate ----------------------------------------------------------------------------


def test_the_plan_names_every_replica_with_its_verdict_and_reason(run, policy, sandbox):
    code, out, err = run("plan", policy())
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert sum(row[:1] in (["DELETE"], ["keep"], ["keep,"]) for row in rows) == 26
    assert re.search(
        r"DELETE +r5e27d9a6c40 +webinar_lukas +150 d +149 d ago +150 days old, limit is 14d", out
    )
    assert re.search(
        r"keep, undetermined +r6a3d9e1c5b8 +legacy-import_1 +\? +- +created_at is not given", out
    )
    assert out.splitlines()[-1].startswith("4 of 26 replicas to delete, 4 undetermined and kept")


def test_a_plan_beyond_a_limit_is_shown_and_says_that_a_run_would_stop(run, policy, sandbox):
    code, out, err = run("plan", policy(limits={"max_deletions": 3}))
    assert code == 1
    assert out.count("DELETE") == 4
    assert err.startswith("a run would stop: 4 of 26 replicas would be deleted, max_deletions is 3: ")
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_what_a_program_reads_holds_the_same(run, policy, sandbox, output, load):
    code, out, err = run("plan", policy(), "--output", output)
    assert (code, err) == (0, "")
    rows = load(out)
    assert len(rows) == 26
    assert rows[0].keys() >= {
        "status",
        "reason_code",
        "replica_id",
        "replica_name",
        "age_days",
        "rule",
        "reason",
    }
    assert sum(row["status"] == "expired" for row in rows) == 4
    asked = load(run("explain", policy(), "r5e27d9a6c40", "-o", output)[1])
    assert [row["reason_code"] for row in asked if row["decides"]] == ["expired"]
    found = load(run("simulate", policy(), "--days", "7", "-o", output)[1])
    assert {row["replica_id"] for row in found["deletes"]} >= {r["replica_id"] for r in rows[:4]}


def test_explain_asks_every_rung_in_the_order_of_the_ladder_and_marks_the_one_that_decides(
    run, policy, sandbox
):
    code, out, _ = run("explain", policy(keep={"protected_ids": ["r2b9d41c07ae"]}), "r2b9d41c07ae")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert [line[-2] if line[-1] == "-" else None for line in lines[4:10]] == [
        step.reason_code for step in CHECKS[:6]
    ]
    found = [
        m[1]
        for step in CHECKS
        if (m := re.search(rf"^.{{4}}\s*{step.status} +({step.reason_code}) ", out, re.M))
    ]
    assert found == [step.reason_code for step in CHECKS]
    assert re.search(r"^ > +kept +protected +is in keep.protected_ids", out, re.M)
    assert "keep: is in keep.protected_ids\nwithout that, expired: 210 days old, limit is 180d" in out


def test_explain_does_not_know_an_id_that_is_not_listed(run, policy, sandbox):
    code, out, err = run("explain", policy(), "rffffffffff")
    assert (code, out, err) == (1, "", "replica rffffffffff is not among the 26 that are listed\n")


def test_a_simulation_shows_what_goes_when_and_draws_it(run, policy, sandbox, tmp_path):
    code, out, err = run("simulate", policy(), "--days", "120", "--picture", str(tmp_path / "out.svg"))
    assert (code, err) == (0, "")
    today = datetime.now(UTC).date().isoformat()
    assert re.search(rf"^ {today} +r5e27d9a6c40 +webinar_lukas +failed-training +150 days old", out, re.M)
    assert re.search(r"team-a_v1 +stale +180 days old, limit is 180d", out)
    assert len(re.findall(r"^ week of 20\d\d-\d\d-\d\d ", out, re.M)) in (18, 19)
    assert "█" in out
    ElementTree.parse(tmp_path / "out.svg")


def test_a_simulation_tells_from_when_on_a_run_would_stop(run, policy, sandbox):
    file = policy(limits={"max_deletions": 3})
    code, out, err = run("simulate", file, "--days", "30")
    assert code == 1
    assert "0 deleted, 26 remaining; a run would stop at a limit on 31 days" in out
    assert re.match(r"on (\S+) and every day until (\S+) the run would stop: 4 of 26 replicas", err)
    code, out, err = run("simulate", file, "--days", "30", "--without-limits")
    assert (code, err) == (0, "")
    assert "6 deleted, 20 remaining" in out


def test_grace_plays_out_in_a_simulation_and_writes_no_schedule(run, policy, sandbox, tmp_path):
    rules = [{"rule": "old", "older_than": "180d", "unused_for": "90d", "grace": "14d"}]
    code, out, _ = run("simulate", policy(expire=rules), "--days", "20", "-o", "json")
    assert code == 0
    assert {row["day"] for row in json.loads(out)["deletes"]} == {14}
    assert not (tmp_path / "ledger").exists()


def test_no_command_sends_anything_but_reads(run, policy, sandbox):
    for arguments in (
        ("plan", policy()),
        ("plan", policy(), "--hard"),
        ("explain", policy(), "r5e27d9a6c40"),
        ("simulate", policy(), "--days", "3650", "--without-limits"),
        ("simulate", policy(), "--hard"),
        ("ledger", "verify"),
    ):
        assert run(*arguments)[0] == 0
    asked = sandbox.state()["requests"]
    assert len(asked) > 10
    assert {request["method"] for request in asked} == {"GET"}


def test_a_hostile_name_stays_on_its_line(run, policy, sandbox):
    _, out, _ = run("plan", policy())
    assert "\x1b" not in out
    assert re.search(r"r6d3b8f1e5a7 +<img src=x onerror=alert\(1\)> \*\*b\*\* \[x\.\.\. ", out)


# --- the ledger -----------------------------------------------------------------------------------------


@pytest.fixture
def recorded(connect, tmp_path):
    """One closed try in the ledger: its folder, and the report that fits."""
    connect("http://127.0.0.1:9")
    from tavus_provider.digest import canonical_digest
    from tavus_provider.storage.ledger import Ledger, job_name

    entry = Ledger("http://127.0.0.1:9", "tavus_default").begin_attempt(
        job_name("plan", "0" * 64), intent=["r12"], hard=False
    )
    report = {"ledger": entry.name, "items": [{"replica_id": "r12", "outcome": "deleted"}]}
    entry.close(outcomes={"r12": "deleted"}, report_digest=canonical_digest(report))
    (tmp_path / "report.json").write_text(json.dumps(report))
    return tmp_path / "ledger" / entry.name


def test_a_sound_ledger_has_no_findings(run, recorded, tmp_path):
    code, out, err = run("ledger", "verify", "--report", str(tmp_path / "report.json"))
    assert (code, out) == (0, "")
    assert err == f"0 findings in 1 tries at {tmp_path / 'ledger'}\n"


def test_a_changed_record_is_a_finding_on_a_line(run, recorded):
    record = recorded / "000002.json"
    record.write_bytes(record.read_bytes().replace(b"deleted", b"failed"))
    code, out, _ = run("ledger", "verify")
    assert code == 1
    assert "record 2 was changed, or was not written completely" in out.splitlines()[0]
    assert json.loads(run("ledger", "verify", "-o", "json")[1]) == out.splitlines()


def test_a_report_that_says_otherwise_is_a_finding(run, recorded, tmp_path):
    report = {"ledger": json.loads((tmp_path / "report.json").read_text())["ledger"]}
    report["items"] = [{"replica_id": "r12", "outcome": "failed"}]
    (tmp_path / "report.json").write_text(json.dumps(report))
    code, out, _ = run("ledger", "verify", "--report", str(tmp_path / "report.json"))
    assert (code, out) == (1, "r12: failed in the report, deleted in the ledger\n")


# --- what goes wrong ------------------------------------------------------------------------------------


def escape_line(err: str) -> str:
    assert err.endswith("\n")
    assert len(err.splitlines()) == 1
    assert "Traceback" not in err
    return err.strip()


@pytest.mark.parametrize("command", ["check", "plan", "simulate"])
def test_a_file_that_is_not_there_is_misuse(run, command, tmp_path):
    code, out, err = run(command, str(tmp_path / "none.yaml"))
    assert (code, out) == (2, "")
    assert escape_line(err) == f"policy {tmp_path / 'none.yaml'}: cannot be read (No such file or directory)"


def test_a_policy_that_is_none_shows_no_plan(run, policy, sandbox):
    code, out, err = run("plan", policy(limits={"max_deletions": -1}))
    assert (code, out) == (2, "")
    assert escape_line(err).endswith("limits.max_deletions: must be >= 0, not -1")
    assert sandbox.state()["requests"] == []


def test_a_connection_that_is_not_there_is_misuse(run, policy, airflow_db):
    code, out, err = run("plan", policy(), "--conn-id", "nobody")
    assert (code, out) == (2, "")
    assert escape_line(err).startswith("the Airflow connection 'nobody' is not defined or cannot be read")


def test_a_key_that_is_refused_is_said_to_be_and_not_repeated(run, policy, sandbox, connect):
    connect(sandbox.url, password="another-key-31c77a02")
    code, out, err = run("plan", policy())
    assert (code, out) == (2, "")
    assert "returned 401" in escape_line(err)
    assert "another-key" not in err


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        pytest.param({"account": {"expect_present": ["rffff"]}}, "names rffff, not listed", id="account"),
        pytest.param(
            {"legal_holds": {"file": "/nowhere/holds.yaml", "max_age": "1d"}},
            "it is not known which replicas are held, so nothing may be deleted",
            id="holds",
        ),
    ],
)
def test_what_would_stop_a_run_is_a_finding_and_not_misuse(run, policy, sandbox, parts, said):
    for command, *more in (["plan"], ["simulate"], ["explain", "r5e27d9a6c40"]):
        code, out, err = run(command, policy(**parts), *more)
        assert (code, out) == (1, "")
        assert escape_line(err).startswith("a run would stop: ")
        assert said in err


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["delete"], ["plan"], ["plan", "a", "--output", "xml"], ["ledger"], ["explain", "a"]),
        *(["simulate", "a", "--days", days] for days in ("0", "-1", "3651", "1.5", "year")),
    ],
    ids=" ".join,
)
def test_arguments_that_make_no_sense_are_misuse(run, arguments):
    code, out, err = run(*arguments)
    assert (code, out) == (2, "")
    assert "usage: python -m tavus_provider" in err


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"items": [{}]}', '{"items": [1]}'])
def test_a_report_that_is_none_is_misuse(run, connect, tmp_path, text):
    connect("http://127.0.0.1:9")
    (tmp_path / "report.json").write_text(text)
    code, out, err = run("ledger", "verify", "--report", str(tmp_path / "report.json"))
    assert (code, out) == (2, "")
    assert "is not the report of an apply task" in escape_line(err)


@pytest.mark.parametrize(
    "arguments", [["ledger", "verify", "--report"], ["simulate", "POLICY", "--picture"]], ids="-".join
)
def test_a_file_that_cannot_be_used_is_named(run, policy, sandbox, tmp_path, arguments):
    given = [policy() if one == "POLICY" else one for one in arguments]
    code, out, err = run(*given, str(tmp_path / "none" / "file"))
    assert (code, out) == (2, "")
    assert str(tmp_path / "none" / "file") in escape_line(err)


# --- as a process ---------------------------------------------------------------------------------------


def process(*arguments: str) -> subprocess.CompletedProcess[str]:
    from airflow.configuration import conf

    # In its test mode Airflow lets the SDK look into no database; what it encrypts has the key of that mode.
    left_out = ("_AIRFLOW_PROCESS_CONTEXT", "AIRFLOW__CORE__UNIT_TEST_MODE")
    env = {name: value for name, value in os.environ.items() if name not in left_out}
    env["AIRFLOW__CORE__FERNET_KEY"] = conf.get("core", "fernet_key")
    return subprocess.run(
        [sys.executable, "-m", "tavus_provider", *arguments],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=ROOT,
        env=env,
        check=False,
    )


def test_help_loads_neither_airflow_nor_pydantic_nor_rich():
    code = (
        "import sys; from tavus_provider.cli.commands import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'airflow', 'pydantic', 'rich', 'requests', 'yaml'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]"
    for command in ("check", "schema", "plan", "explain", "simulate", "ledger"):
        assert re.search(rf"^    {command} +\w", done.stdout, re.M)


def test_a_connection_in_the_database_of_airflow_is_found(policy, sandbox, airflow_db):
    from airflow.models import Connection
    from airflow.utils.session import create_session

    stored = Connection(conn_id="stored", conn_type="tavus", host=sandbox.url, password=KEY)
    with create_session() as session:
        session.add(stored)
    try:
        done = process("plan", policy(), "--conn-id", "stored", "--output", "json")
    finally:
        with create_session() as session:
            session.query(Connection).filter(Connection.conn_id == "stored").delete()
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)) == 26
    assert KEY not in done.stdout + done.stderr


def test_the_exit_code_is_that_of_the_process(policy):
    assert process("check", policy(scope={"exclude": ["*"]})).returncode == 1


def test_credentials_in_the_location_of_the_ledger_are_not_printed(run, monkeypatch):
    from airflow.sdk.io import attach
    from fsspec.implementations.memory import MemoryFileSystem

    attach("memory", conn_id="someone:hunter2-word", fs=MemoryFileSystem())
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", "memory://someone:hunter2-word@empty-bucket/ledger")
    code, out, err = run("ledger", "verify")
    assert (code, out) == (0, "")
    assert "hunter2-word" not in err


def test_relative_policy_is_in_the_current_directory(run, monkeypatch, tmp_path):
    (tmp_path / "stale.json").write_text(json.dumps(STALE))
    monkeypatch.chdir(tmp_path)
    assert run("check", "stale.json") == (0, "stale.json: good\n", "")
    monkeypatch.chdir("/")
    assert run("check", "stale.json")[0] == 2
