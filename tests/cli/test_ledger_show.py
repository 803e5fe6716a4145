"""``ledger show``: who deleted what, when, under which rule and policy, and approved by whom."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from cli.commands import one_error

TASK = {"task_id": "apply", "map_index": -1, "try_number": 1}
PRUNE = {**TASK, "dag_id": "prune", "run_id": "scheduled__2026-11-01T00:00:00+00:00"}
PURGE = {**TASK, "dag_id": "purge", "run_id": "manual__1"}
HAND = {**TASK, "dag_id": "by_hand", "run_id": "manual__2", "task_id": "delete"}
START = datetime(2026, 11, 1, 9, tzinfo=UTC)


@pytest.fixture
def recorded(connect):
    """A soft run, its retry, a permanent run that alice approved, and a delete by hand of bob."""
    connect("http://127.0.0.1:9")
    from tavus_provider.storage.ledger import Ledger, job_name

    clock = [START]
    ledger = Ledger("http://127.0.0.1:9", "tavus_default", now=lambda: clock[0])
    soft = {"hard": False, "plan_digest": "0" * 64, "policy_digest": "1" * 64, "policy": "stale"}
    soft["rules"] = {"failed": ["r11"], "old": ["r12"]}
    for outcomes in ({"r11": "deleted", "r12": "failed"}, {"r11": "deleted", "r12": "deleted"}):
        intent = [replica_id for replica_id in outcomes if clock[0] == START or replica_id == "r12"]
        writer = ledger.begin_attempt(job_name("plan", "0" * 64), **PRUNE, **soft, intent=intent)
        writer.close(outcomes=outcomes)
        clock[0] += timedelta(days=1)
    for answer, person in (("approve", "alice"), ("reject", "carol")):
        ledger.begin_attempt(
            job_name("run", "purge", "manual__1"),
            kind="answered",
            **PURGE,
            plan_digest=("2" if answer == "approve" else "3") * 64,
            shown_digest="4" * 64,
            answer=answer,
            answered_by=person,
            answered_at=START.isoformat(),
            triggered_by_other=True,
        ).close()
    hard = {**soft, "hard": True, "plan_digest": "2" * 64, "rules": {}}
    ledger.begin_attempt(
        job_name("plan", "2" * 64), **PURGE, **hard, triggered_by="bob", intent=["r11"]
    ).close(outcomes={"r11": "confirmed"})
    clock[0] += timedelta(days=1)
    ledger.begin_attempt(job_name("delete", "x"), **HAND, hard=False, triggered_by="bob", intent=["r13"])


@pytest.fixture
def rows(run, recorded):
    """A function that returns the rows of a filter as JSON."""

    def shown(*arguments):
        code, out, _ = run("ledger", "show", "-o", "json", *arguments)
        assert code == 0
        return json.loads(out)

    return shown


def brief(rows):
    return [(row["at"][:10], row["replica_id"], row["outcome"], row["hard"], row["rule"]) for row in rows]


def test_every_delete_is_shown_once(rows):
    assert brief(rows()) == [
        ("2026-11-01", "r11", "deleted", False, "failed"),
        ("2026-11-01", "r12", "failed", False, "old"),
        ("2026-11-02", "r12", "deleted", False, "old"),  # the retry, which repeats r11
        ("2026-11-03", "r11", "confirmed", True, None),
        ("2026-11-04", "r13", "unknown", False, None),  # only the intent
    ]


def test_row_says_who_when_and_why(rows):
    (row,) = rows("--replica", "r11", "--run", "purge")
    assert (row["approved_by"], row["triggered_by"]) == ("alice", "bob")
    assert (row["policy"], row["policy_digest"], row["plan_digest"]) == ("stale", "1" * 64, "2" * 64)
    assert (row["tavus_conn_id"], row["origin"]) == ("tavus_default", "http://127.0.0.1:9")
    assert (row["dag_id"], row["run_id"], row["task_id"], row["map_index"]) == tuple(
        PURGE[key] for key in ("dag_id", "run_id", "task_id", "map_index")
    )
    assert "/plan-" in row["attempt"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param(["--replica", "r12"], ["r12", "r12"], id="replica"),
        pytest.param(["--run", "prune"], ["r11", "r12", "r12"], id="dag"),
        pytest.param(["--run", f"prune/{PRUNE['run_id']}"], ["r11", "r12", "r12"], id="run"),
        pytest.param(["--run", "prune/other"], [], id="other-run"),
        pytest.param(["--person", "alice"], ["r11"], id="approved"),
        pytest.param(["--person", "bob"], ["r11", "r13"], id="triggered"),
        pytest.param(["--person", "carol"], [], id="rejected"),
        pytest.param(["--since", "2026-11-03"], ["r11", "r13"], id="since"),
        pytest.param(["--until", "2026-11-02"], ["r11", "r12", "r12"], id="until"),
        pytest.param(["--since", "2026-11-02", "--until", "2026-11-02"], ["r12"], id="one-day"),
    ],
)
def test_filter_shows_only_what_matches(rows, arguments, expected):
    assert [row["replica_id"] for row in rows(*arguments)] == expected


def test_table_has_a_line_for_each_row(run, recorded):
    code, out, err = run("ledger", "show")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines() if " r1" in line]
    assert len(lines) == 5
    assert "Deleted, permanently" not in out
    assert "alice" in out
    assert "prune / scheduled__2026-11-01T00:00:00+00:00" in out
    assert "tavus_default at 127.0.0.1:9" in out


def test_csv_has_the_fields_of_json(run, rows):
    code, out, _ = run("ledger", "show", "--format", "csv")
    assert code == 0
    table = list(csv.DictReader(io.StringIO(out)))
    as_text = [{key: "" if value is None else str(value) for key, value in row.items()} for row in rows()]
    assert [row | {"map_index": row["map_index"].strip("'")} for row in table] == as_text


def test_csv_has_no_formula(run, connect):
    connect("http://127.0.0.1:9")
    from tavus_provider.storage.ledger import Ledger, job_name

    ledger = Ledger("http://127.0.0.1:9", "tavus_default")
    ledger.begin_attempt(job_name("delete", "x"), hard=False, triggered_by="=1+1", intent=["r13"])
    _, out, _ = run("ledger", "show", "-o", "csv")
    assert ",'=1+1," in out


def test_empty_result_is_no_failure(run, recorded):
    for output, expected in (("table", ""), ("json", "[]\n"), ("csv", None)):
        code, out, err = run("ledger", "show", "--replica", "r99", "-o", output)
        assert code == 0
        assert expected in (None, out)
        assert one_error(err).startswith("no records of deletes match at ")


def test_changed_records_are_mentioned(run, recorded, tmp_path):
    last = max((tmp_path / "ledger").rglob("plan-*/*/000002.json"))
    last.write_bytes(last.read_bytes() + b" ")
    _, _, err = run("ledger", "show")
    assert one_error(err) == "warning: 1 attempt with changed or missing records: run ledger verify"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--since", "yesterday"],
        ["--since", "20261101"],
        ["--until", "2026-13-01"],
        ["--run", "/x"],
        ["--replica", "../x"],
        ["-o", "yaml"],
    ],
)
def test_invalid_argument_fails(run, recorded, arguments):
    code, out, err = run("ledger", "show", *arguments)
    assert (code, out) == (2, "")
    assert arguments[1] in err


def test_wrong_place_fails(run, connect, monkeypatch, tmp_path):
    connect("http://127.0.0.1:9")
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path / "mistyped"))
    code, out, err = run("ledger", "show")
    assert (code, out) == (2, "")
    assert f"no ledger at {tmp_path / 'mistyped'}" in one_error(err)
