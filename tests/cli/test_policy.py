"""The commands for a policy: check, schema, plan, explain, simulate."""

from __future__ import annotations

import ast
import json
import re
from datetime import UTC, datetime
from xml.etree import ElementTree

import pytest
import yaml
from cli.commands import ROOT, STALE, one_error

from tavus_provider.cli.policy import EXAMPLE_POLICY
from tavus_provider.retention.checks import CHECKS
from tavus_provider.retention.policy import Policy

EXPIRED = {"r1a0c5e8f3b2", "r2b9d41c07ae", "r3f6a2e9d815", "r4c81b7f0d3e", "r5e27d9a6c40", "r6d3b8f1e5a7"}

# -- the policy of plan


def test_plan_without_a_policy_decides_as_the_example_dag(run, sandbox, monkeypatch):
    code, out, err = run("plan", "--output", "json")
    assert code == 0
    assert {row["replica_id"] for row in json.loads(out) if row["status"] == "expired"} == EXPIRED
    assert err == (
        "without POLICY: as the DAG tavus_prune_replicas decides, older than 90 days and within its limits\n"
    )


def test_example_policy_is_that_of_the_dag():
    (call,) = (
        node
        for node in ast.walk(ast.parse((ROOT / "dags" / "tavus_prune_replicas.py").read_text()))
        if isinstance(node, ast.Dict) and "expire" in {getattr(key, "value", None) for key in node.keys}
    )
    written = eval(compile(ast.Expression(call), "dag", "eval"), {"OLDER_THAN": "90d"})
    assert Policy.parse(written) == Policy.parse(EXAMPLE_POLICY)


def test_plan_without_a_policy_uses_that_of_the_deployment(run, sandbox, policy, monkeypatch):
    monkeypatch.setenv("AIRFLOW__TAVUS__POLICY", policy(expire=[{"older_than": "10000d"}]))
    code, out, err = run("plan", "--output", "json")
    assert (code, err) == (0, "")
    assert "expired" not in {row["status"] for row in json.loads(out)}


# -- check and schema


def test_valid_policy(run, policy):
    file = policy()
    assert run("check", file) == (0, f"{file}: valid\n", "")


def test_each_problem_is_a_line_with_its_path(run, tmp_path):
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
            f"{file}: expire.{n - 1}.older_than: {n} has no unit; write {n}d (units: y, w, d, h, min)"
            for n in range(1, 7)
        ),
        f"{file}: keep: unknown key 'protected'; "
        "known: protected_ids, keep_within, keep_last, group_by, in_use, active_for",
        f"{file}: limits.max_deletions: must be >= 0, not -1",
    ]
    assert err == ""


@pytest.mark.parametrize(
    ("parts", "problem"),
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
def test_part_without_effect_is_a_problem(run, policy, parts, problem):
    file = policy(**parts)
    assert run("check", file) == (1, f"{file}: {problem}\n", "")


def test_file_that_is_not_yaml_is_a_problem_with_its_line(run, tmp_path):
    file = tmp_path / "torn.yaml"
    file.write_text("expire:\n  - {older_than: 90d\nname: x\n")
    code, out, _ = run("check", str(file))
    assert code == 1
    assert re.match(rf"{file}: line 3, column \d+: ", out)


def test_relative_policy_is_in_the_current_directory(run, monkeypatch, tmp_path):
    (tmp_path / "stale.json").write_text(json.dumps(STALE))
    monkeypatch.chdir(tmp_path)
    assert run("check", "stale.json") == (0, "stale.json: valid\n", "")
    monkeypatch.chdir("/")
    assert run("check", "stale.json")[0] == 2


def test_schema_is_the_published_one(run):
    code, out, err = run("schema")
    assert (code, err) == (0, "")
    assert out == (ROOT / "docs" / "retention-policy.schema.json").read_text(encoding="utf-8")


# -- plan


def test_plan_shows_every_replica_with_its_verdict_and_reason(run, policy, sandbox):
    code, out, err = run("plan", policy())
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert sum(row[:1] in (["DELETE"], ["keep"], ["keep,"]) for row in rows) == 26
    assert re.search(
        r"DELETE +r5e27d9a6c40 +webinar_lukas +150 days old, limit is 14d +150 d +149 d ago", out
    )
    assert re.search(
        r"keep, undetermined +r6a3d9e1c5b8 +legacy-import_1 +created_at is not given +\? +-", out
    )
    assert out.splitlines()[-1].startswith("4 of 26 replicas to delete, 4 undetermined and kept")


def test_plan_warns_about_ids_that_are_not_listed(run, policy, sandbox):
    code, _, err = run("plan", policy(keep={"protected_ids": ["r1a0c5e8f3b3"]}))
    assert (code, err) == (
        0, "warning: keep.protected_ids: id 'r1a0c5e8f3b3' is not listed; check the spelling\n"
    )  # fmt: skip


def test_plan_beyond_a_limit_is_shown_and_is_a_problem(run, policy, sandbox):
    code, out, err = run("plan", policy(limits={"max_deletions": 3}))
    assert code == 1
    assert out.count("DELETE") == 4
    assert err.startswith("a run would stop: 4 of 26 replicas would be deleted, max_deletions is 3: ")
    assert len(err.splitlines()) == 1


def test_overdue_replicas_are_a_problem(run, policy, sandbox):
    code, out, err = run("plan", policy(overdue_after="1y"))
    assert code == 1
    assert "; 3 overdue" in out
    assert "\na run would fail after its deletes: 3 replicas older than overdue_after (1y) are " in err
    code, out, err = run("simulate", policy(overdue_after="1y"), "--days", "30")
    assert re.search(r"^from \S+ to \S+ replica \S+ is overdue: ", err, re.M)
    assert "of them overdue" in out


@pytest.mark.parametrize(("output", "load"), [("json", json.loads), ("yaml", yaml.safe_load)])
def test_structured_output_has_the_same_content(run, policy, sandbox, output, load):
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
    checks = load(run("explain", policy(), "r5e27d9a6c40", "-o", output)[1])
    assert [row["reason_code"] for row in checks if row["decides"]] == ["expired"]
    found = load(run("simulate", policy(), "--days", "7", "-o", output)[1])
    assert {row["replica_id"] for row in found["deletes"]} >= {r["replica_id"] for r in rows[:4]}


def test_hostile_name_stays_on_its_line(run, policy, sandbox):
    _, out, _ = run("plan", policy())
    assert "\x1b" not in out
    assert re.search(r"r6d3b8f1e5a7 +<img src=x onerror=alert\(1\)> \*\*b\*\* \[x\.\.\. ", out)


# -- explain


def test_explain_shows_every_check_in_order_and_marks_the_deciding_one(run, policy, sandbox):
    code, out, _ = run("explain", policy(keep={"protected_ids": ["r2b9d41c07ae"]}), "r2b9d41c07ae")
    assert code == 0
    lines = [line.split() for line in out.splitlines()]
    assert [line[:2] for line in lines[4:10]] == [["-", check.reason_code] for check in CHECKS[:6]]
    assert re.search(r"^ +- +held +no legal hold *$", out, re.M)
    assert re.search(r"^ +- +keep_last +keep_last is not set *$", out, re.M)
    found = [
        m[1]
        for check in CHECKS
        if (m := re.search(rf"^.{{4}}\s*(?:{check.status}|-) +({check.reason_code}) ", out, re.M))
    ]
    assert found == [check.reason_code for check in CHECKS]
    assert re.search(r"^ > +kept +protected +is in keep.protected_ids", out, re.M)
    assert "keep: is in keep.protected_ids\notherwise expired: 210 days old, limit is 180d" in out


def test_explain_of_an_id_that_is_not_listed(run, policy, sandbox):
    code, out, err = run("explain", policy(), "rffffffffff")
    assert (code, out) == (1, "")
    assert err == (
        "replica rffffffffff is not among the 26 listed replicas, and the ledger shows no soft delete of it\n"
    )


# -- simulate


def test_simulation_shows_the_deletes_and_writes_a_picture(run, policy, sandbox, tmp_path):
    code, out, err = run("simulate", policy(), "--days", "120", "--picture", str(tmp_path / "out.svg"))
    assert (code, err) == (0, "")
    today = datetime.now(UTC).date().isoformat()
    assert re.search(rf"^ {today} +r5e27d9a6c40 +webinar_lukas +failed-training +150 days old", out, re.M)
    assert re.search(r"team-a_v1 +stale +180 days old, limit is 180d", out)
    assert len(re.findall(r"^ week of 20\d\d-\d\d-\d\d ", out, re.M)) in (18, 19)
    assert "█" in out
    ElementTree.parse(tmp_path / "out.svg")


def test_simulation_shows_when_a_run_would_stop(run, policy, sandbox):
    file = policy(limits={"max_deletions": 3})
    code, out, err = run("simulate", file, "--days", "30")
    assert code == 1
    assert "0 deleted, 26 remaining; a run would stop at a limit on 31 days" in out
    assert re.match(r"on (\S+) and every day until (\S+) the run would stop: 4 of 26 replicas", err)
    code, out, err = run("simulate", file, "--days", "30", "--without-limits")
    assert (code, err) == (0, "")
    assert "6 deleted, 20 remaining" in out


def test_simulation_of_grace_records_no_schedule(run, policy, sandbox, tmp_path):
    rules = [{"rule": "old", "older_than": "180d", "unused_for": "90d", "grace": "14d"}]
    code, out, _ = run("simulate", policy(expire=rules), "--days", "20", "-o", "json")
    assert code == 0
    assert {row["day"] for row in json.loads(out)["deletes"]} == {14}
    assert not (tmp_path / "ledger").exists()


# -- errors


@pytest.mark.parametrize("command", ["check", "plan", "simulate"])
def test_missing_file_fails(run, command, tmp_path):
    code, out, err = run(command, str(tmp_path / "none.yaml"))
    assert (code, out) == (2, "")
    assert one_error(err) == f"policy {tmp_path / 'none.yaml'}: cannot be read (No such file or directory)"


def test_invalid_policy_fails_before_anything_is_sent(run, policy, sandbox):
    code, out, err = run("plan", policy(limits={"max_deletions": -1}))
    assert (code, out) == (2, "")
    assert one_error(err).endswith("limits.max_deletions: must be >= 0, not -1")
    assert sandbox.state()["requests"] == []


def test_missing_connection_fails(run, policy, airflow_db):
    code, out, err = run("plan", policy(), "--conn-id", "nobody")
    assert (code, out) == (2, "")
    assert one_error(err).startswith("the Airflow connection 'nobody' is not defined or cannot be read")


def test_rejected_key_fails_and_is_not_repeated(run, policy, sandbox, connect):
    connect(sandbox.url, password="another-key-31c77a02")
    code, out, err = run("plan", policy())
    assert (code, out) == (2, "")
    assert "returned 401" in one_error(err)
    assert "another-key" not in err


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        pytest.param({"account": {"expect_present": ["rffff"]}}, "names rffff, not listed", id="account"),
        pytest.param(
            {"legal_holds": {"file": "/nowhere/holds.yaml", "max_age": "1d"}},
            "it is not known which replicas are held, so nothing may be deleted",
            id="holds",
        ),
    ],
)
def test_what_would_stop_a_run_is_a_problem(run, policy, sandbox, parts, problem):
    for command, *more in (["plan"], ["simulate"], ["explain", "r5e27d9a6c40"]):
        code, out, err = run(command, policy(**parts), *more)
        assert (code, out) == (1, "")
        assert one_error(err).startswith("a run would stop: ")
        assert problem in err


def test_picture_in_another_format_is_refused(run, policy, tmp_path):
    code, _, err = run("simulate", policy(), "--picture", str(tmp_path / "x.png"))
    assert code == 2
    assert "x.png' does not end with .svg, the only format" in err
    assert not (tmp_path / "x.png").exists()
