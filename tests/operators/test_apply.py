"""Apply a plan: report, failures, retries and the ledger."""

from __future__ import annotations

import json

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from operators.tasks import (
    EXPIRED,
    KEY,
    OLD,
    POLICY,
    Ti,
    apply_batch,
    apply_task,
    delete,
    plan_task,
    planned,
    requests,
    run,
    split,
    summarize,
    with_digest,
)
from plans import approve_plan, record_plan

from tavus_provider.digest import canonical_json, digest_of, seal
from tavus_provider.exceptions import (
    LedgerUnavailableError,
    TavusError,
    TavusRetryableError,
    TavusValidationError,
)
from tavus_provider.outcomes import ORDER
from tavus_provider.sandbox import Sandbox
from tavus_provider.storage.attempts import read_attempts
from tavus_provider.storage.ledger import ledger_root, list_jobs
from tavus_provider.storage.ledger_verify import verify
from tavus_provider.storage.plan_store import load
from tavus_provider.storage.recorded_deletes import list_deletes


def test_plan_is_executed_and_the_report_is_pushed(sandbox, plan):
    ti = Ti()
    report = run(apply_task(plan), ti)
    assert {d["replica_id"] for d in sandbox.state()["deletes"]} == EXPIRED
    assert report["counts"]["deleted"] == 6 == sum(report["counts"].values())
    assert (report["plan_digest"], report["hard"], report["dry_run"]) == (plan["digest"], False, False)
    assert ti.pushed["return_value"] == report


def test_permanent_plan_is_executed_if_it_was_approved(sandbox):
    plan = approve_plan(planned(hard=True))
    run(apply_task(plan, hard=True))
    assert {d["replica_id"] for d in sandbox.state()["deletes"] if d["hard"]} == EXPIRED


def test_ledger_records_rule_policy_and_people(sandbox):
    plan = approve_plan(planned(hard=True))
    report = run(apply_task(plan, hard=True))
    attempts = read_attempts(ledger_root(), list_jobs(ledger_root()))
    rows = [row for row in list_deletes(attempts) if row["attempt"] == report["ledger"]]
    assert {row["replica_id"]: row["rule"] for row in rows} == {
        row["replica_id"]: row["rule"] for row in plan["delete"]
    }
    assert {(row["policy"], row["policy_digest"], row["hard"]) for row in rows} == {
        (plan["policy"]["name"], plan["policy_digest"], True)
    }
    assert all(row["approved_by"] for row in rows)
    (last,) = [attempt for attempt in attempts if attempt.name == report["ledger"]]
    assert report["ledger_head"] == last.records[-2]["digest"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda plan: plan | {"listed": 1}, "does not match its digest", id="changed"),
        pytest.param(lambda plan: with_digest(plan, hard=True), "it was made for hard=True", id="hard"),
        pytest.param(
            lambda plan: with_digest(plan, tavus_conn_id="eu"), "for connection 'eu'", id="connection"
        ),
        pytest.param(
            lambda plan: with_digest(plan, origin="https://tavusapi.com"),
            "connection now points to",
            id="origin",
        ),
        pytest.param(
            lambda plan: with_digest(plan, valid_until="2026-01-01T00:00:00Z"), "it expired at", id="expired"
        ),
        pytest.param(str, "set render_template_as_native_obj=True on the DAG", id="text"),
        pytest.param(lambda plan: None, "it is of type NoneType", id="none"),
        pytest.param(lambda plan: [plan], "it is of type list", id="list"),
    ],
)
def test_plan_that_does_not_match_deletes_nothing_and_is_not_retried(sandbox, plan, change, message):
    before = requests(sandbox)
    changed = change(plan)
    if isinstance(changed, dict) and changed["digest"] == digest_of(changed):
        record_plan(changed)
    with pytest.raises(AirflowFailException, match=message):
        run(apply_task(changed))
    assert requests(sandbox) == before


def test_dry_run_sends_nothing_and_skips_everything(sandbox, plan):
    before = requests(sandbox)
    report = run(apply_task(plan, dry_run=True))
    assert requests(sandbox) == before
    assert report["dry_run"] is True
    assert report["counts"]["skipped"] == 6 == sum(report["counts"].values())


@pytest.mark.parametrize(
    ("fault", "outcome", "error"),
    [
        pytest.param({"status": 409}, "failed", AirflowFailException, id="failed"),
        pytest.param({"status": 202, "times": None}, "unknown", TavusRetryableError, id="unknown"),
        pytest.param({"status": 429, "times": None}, "failed", TavusRetryableError, id="rate-limited"),
    ],
)
def test_unfinished_replica_fails_the_task_after_the_report(sandbox, plan, log, *, fault, outcome, error):
    sandbox.switch(faults=[{"method": "DELETE", "path": f"/v2/replicas/{OLD}", **fault}])
    ti = Ti()
    with pytest.raises(error, match=r"^1 of 6 planned replicas may still exist: see the report$"):
        run(apply_task(plan), ti)
    assert ti.pushed["return_value"]["counts"][outcome] == 1
    assert ti.pushed["return_value"]["counts"]["deleted"] == 5
    assert [line for line in log() if f" {outcome} " in line and OLD in line]


def test_summary_is_pushed_before_the_task_fails(sandbox):
    plan = planned()
    sandbox.switch(faults=[{"method": "DELETE", "status": 400, "times": None}])
    ti = Ti()
    with pytest.raises(AirflowFailException):
        run(apply_task(plan), ti)
    assert ti.pushed["summary"] == "6 planned (soft): 6 failed"


def test_plan_and_apply_push_the_summary_that_they_log(sandbox, log):
    ti = Ti()
    plan = run(plan_task(), ti)
    assert ti.pushed["summary"] in "\n".join(log())
    assert ti.pushed["summary"].startswith("6 of 26 replicas to delete")
    ti = Ti()
    run(apply_task(plan, dry_run=True), ti)
    assert ti.pushed["summary"] == "6 planned (dry run, nothing was sent): 6 skipped"


def test_skipped_replica_does_not_fail_the_task(sandbox, plan):
    sandbox.put("replicas", {"replica_id": OLD, "replica_name": "another"})
    assert run(apply_task(plan))["counts"] == dict.fromkeys(ORDER, 0) | {"deleted": 5, "skipped": 1}


def test_limit_that_is_exceeded_only_now_deletes_nothing(sandbox, plan):
    for row in sandbox.state()["replicas"]:
        if row["replica_id"] not in EXPIRED:
            sandbox.put("replicas", {"replica_id": row["replica_id"], "deleted": "hard"})
    ti = Ti()
    with pytest.raises(
        AirflowFailException, match=r"^6 of 6 replicas would be deleted, max_deletion_percent"
    ):
        run(apply_task(plan), ti)
    assert ti.pushed["return_value"]["counts"]["not_attempted"] == 6
    assert requests(sandbox, "DELETE") == []


def test_plan_is_rejected_if_most_replicas_are_missing_without_a_record(sandbox, plan):
    gone = [row["replica_id"] for row in plan["delete"]][:5]
    sandbox.put("replicas", *({"replica_id": replica_id, "deleted": "hard"} for replica_id in gone))
    ti = Ti()
    with pytest.raises(AirflowFailException, match=r"^5 of 6 planned replicas are no longer listed"):
        run(apply_task(plan), ti)
    assert requests(sandbox, "DELETE") == []
    assert ti.pushed["return_value"]["counts"]["not_attempted"] == 6


def test_nothing_is_deleted_without_a_record(sandbox, plan, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path / "file" / "ledger"))
    for task in (apply_task(plan), delete(), delete(hard=True)):
        with pytest.raises(
            LedgerUnavailableError, match=r"^the (ledger|plan) cannot be (written|read) at .* set ledger"
        ):
            run(task)
    assert requests(sandbox, "DELETE") == []


# -- interruptions and retries


def test_interrupted_apply_has_pushed_a_correct_report(sandbox, plan, monkeypatch):
    operator = apply_task(plan, concurrency=1)
    real = operator.log.info

    def info(text, *args):
        if "1 of 6 done" in str(args):
            raise KeyboardInterrupt
        real(text, *args)

    monkeypatch.setattr(operator.log, "info", info)
    ti = Ti()
    with pytest.raises(KeyboardInterrupt):
        run(operator, ti)
    report = ti.pushed["return_value"]
    deleted = {d["replica_id"] for d in sandbox.state()["deletes"]}
    assert deleted == {i["replica_id"] for i in report["items"] if i["outcome"] == "deleted"}
    assert sum(report["counts"].values()) == 6


def test_retry_continues_from_the_ledger_and_keeps_earlier_outcomes(sandbox, plan):
    sandbox.switch(faults=[{"method": "DELETE", "path": f"/v2/replicas/{OLD}", "status": 500, "times": None}])
    with pytest.raises(TavusRetryableError):
        run(apply_task(plan), Ti(try_number=1))
    sandbox.switch(faults=[])
    before = len(requests(sandbox, "DELETE"))
    report = run(apply_task(plan), Ti(try_number=2))
    assert report["counts"]["deleted"] == 6
    assert len(requests(sandbox, "DELETE")) == before + 1
    details = {item["replica_id"]: item["detail"] for item in report["items"]}
    assert sum(detail.startswith("by an earlier attempt of this task") for detail in details.values()) == 5
    assert details[OLD].startswith(f"DELETE /v2/replicas/{OLD} returned 200")


def test_retry_that_cannot_read_the_account_keeps_earlier_outcomes(sandbox, plan):
    sandbox.switch(faults=[{"method": "DELETE", "path": f"/v2/replicas/{OLD}", "status": 500, "times": None}])
    with pytest.raises(TavusRetryableError):
        run(apply_task(plan), Ti(try_number=1))
    sandbox.switch(faults=[{"method": "GET", "path": "/v2/personas", "status": 400, "times": None}])
    ti = Ti(try_number=2)
    with pytest.raises((AirflowFailException, TavusError)):
        run(apply_task(plan), ti)
    report = ti.pushed["return_value"]
    assert (report["counts"]["deleted"], report["counts"]["not_attempted"]) == (5, 1)
    details = {item["replica_id"]: item["detail"] for item in report["items"]}
    assert sum(detail == "by an earlier attempt of this task" for detail in details.values()) == 5


def test_another_run_does_not_claim_the_outcomes_of_this_one(sandbox, plan):
    for run_id in ("one", "two"):
        record_plan(plan, run_id=run_id)
    assert run(apply_task(plan), Ti(run_id="one"))["counts"]["deleted"] == 6
    assert run(apply_task(plan), Ti(run_id="two"))["counts"]["already_gone"] == 6


# -- concurrency and rate


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"concurrency": 0}, "concurrency is 0: expected a whole number from 1 to 64"),
        ({"concurrency": True}, "concurrency is of type bool"),
        ({"concurrency": "8"}, "concurrency is of type str"),
        (
            {"requests_per_second": 0},
            "requests_per_second is 0: expected a number greater than 0, at most 1000",
        ),
    ],
)
def test_option_out_of_range_is_rejected_when_the_dag_is_parsed(given, message):
    with pytest.raises(TavusValidationError, match=message):
        apply_task({}, **given)


@pytest.mark.parametrize("value", [0, -1, True, 1.5, "4", 1_025], ids=repr)
def test_parallel_tasks_must_be_a_whole_number_in_range(value):
    with pytest.raises(TavusValidationError, match=r"^parallel_tasks is"):
        apply_task({}, parallel_tasks=value)


@pytest.mark.parametrize(("asked", "allowed", "most"), [(1, 8, 1), (8, 2, 2)])
def test_concurrency_is_limited_by_operator_and_connection(sandbox, connect, asked, allowed, most):
    connect(sandbox.url, extra={"concurrency": allowed})
    plan = planned()
    sandbox.switch(latency=0.01)
    run(apply_task(plan, concurrency=asked))
    seen = [r["in_flight"] for r in sandbox.state()["requests"] if r["method"] == "DELETE"]
    assert max(seen) <= most


# -- plans that are too large for an XCom


@pytest.mark.parametrize("hard", [False, True])
def test_stored_plan_is_executed(sandbox, small_xcoms, hard):
    reference = planned(hard=hard)
    assert set(reference) >= {"plan_at", "digest", "counts"}
    assert "delete" not in reference
    more = {"hard": hard}
    if hard:
        approve_plan(load(reference["digest"]))
    one, two = split(reference, 3)
    assert apply_batch(reference, one, **more)["counts"]["deleted"] == 3
    assert run(apply_task(reference, **more))["counts"] == dict.fromkeys(ORDER, 0) | {
        "deleted": 3,
        "already_gone": 3,
    }
    assert {d["replica_id"] for d in sandbox.state()["deletes"] if d["hard"] is hard} == EXPIRED
    assert summarize(reference, [apply_batch(reference, part, **more) for part in (one, two)])


def test_stored_plan_beyond_a_limit_is_pushed_before_the_task_fails(sandbox, small_xcoms):
    ti = Ti()
    with pytest.raises(AirflowFailException, match=r"replicas would be deleted, max_deletions is 1"):
        run(plan_task(POLICY | {"limits": {"max_deletions": 1}}), ti)
    assert "plan_at" in ti.pushed["return_value"]


def test_stored_plan_that_was_changed_deletes_nothing(sandbox, small_xcoms, tmp_path):
    reference = planned()
    (file,) = (tmp_path / "ledger" / "_plans").iterdir()
    file.write_text(file.read_text().replace(OLD, "rd6a1c3f7e82"))
    with pytest.raises(AirflowFailException, match="is not the plan that was stored there"):
        run(apply_task(reference))
    assert requests(sandbox, "DELETE") == []


def test_hold_of_the_deployment_after_the_plan_keeps_the_replica(sandbox, plan, held):
    report = run(apply_task(plan))
    outcomes = {item["replica_id"]: item["outcome"] for item in report["items"]}
    assert outcomes == dict.fromkeys(EXPIRED - {OLD}, "deleted") | {OLD: "skipped"}


# -- past use


UNUSED = {
    "expire": [{"rule": "unused", "unused_for": "90d"}],
    "limits": {"max_deletions": 10, "max_deletion_percent": 100},
}


@pytest.fixture
def small_history(connect):
    """Two replicas and 300 ended conversations of another one, listed from the newest to the oldest."""
    rows = [
        {"conversation_id": f"past{n:03}", "replica_id": "other", "age": f"{n}d", "updated": f"{n}d"}
        for n in range(300, 0, -1)
    ]
    replicas = [{"replica_id": f"unused{n}", "replica_name": f"unused {n}", "age": "200d"} for n in (1, 2)]
    seed = {"replicas": replicas, "conversations": rows}
    with Sandbox(seed, key=KEY) as sandbox:
        sandbox.switch(order="newest")
        connect(sandbox.url)
        yield sandbox


def queries(sandbox, operator):
    """Run a task, and return its result and the queries for conversations that it sent."""
    before = len(sandbox.state()["requests"])
    result = run(operator)
    sent = sandbox.state()["requests"][before:]
    return result, [one["query"] for one in sent if one["path"] == "/v2/conversations"]


def test_past_use_is_read_once_per_run(small_history):
    plan, by_plan = queries(small_history, plan_task(UNUSED))
    assert {row["replica_id"] for row in plan["delete"]} == {"unused1", "unused2"}
    small_history.put("conversations", {"conversation_id": "new", "replica_id": "unused1", "age": "0s"})
    report, by_apply = queries(small_history, apply_task(plan))
    assert len([query for query in by_plan if not query.startswith("status")]) > 3
    assert [query for query in by_apply if "limit=100" in query] == [
        "limit=100&page=1",
        "status=active&limit=100&page=1",
    ]
    assert [item["outcome"] for item in report["items"]] == ["skipped", "deleted"]


def reseal(file):
    """Remove all use from what a plan read, and make the digest anew."""
    document = json.loads(file.read_bytes())
    file.write_bytes(canonical_json(seal(document | {"ended": [], "active": []})))


@pytest.mark.parametrize("damage", [lambda file: file.unlink(), lambda file: file.write_text("{}"), reseal])
def test_past_use_is_read_again_if_what_the_plan_read_is_not_available(small_history, tmp_path, damage):
    plan = run(plan_task(UNUSED))
    (file,) = (tmp_path / "ledger" / "_plans").glob("*.use.json")
    damage(file)
    small_history.put("conversations", {"conversation_id": "new", "replica_id": "unused1", "age": "0s"})
    report, by_apply = queries(small_history, apply_task(plan))
    assert len([query for query in by_apply if not query.startswith("status")]) > 3
    assert [item["outcome"] for item in report["items"]] == ["skipped", "deleted"]


def test_files_beside_a_plan_are_those_of_its_record(small_history, tmp_path, monkeypatch):
    monkeypatch.setattr("tavus_provider.planning.verdicts.MAX_ROWS", 1)
    plan = run(plan_task(UNUSED))
    files = {file.name: file for file in (tmp_path / "ledger" / "_plans").iterdir()}
    assert files.keys() == {f"{plan['digest']}.{end}" for end in ("json", "use.json", "verdicts.json")}
    assert verify(ledger_root())[1] == []
    reseal(files[f"{plan['digest']}.use.json"])
    files[f"{plan['digest']}.verdicts.json"].write_text('{"rows":[]}')
    assert verify(ledger_root())[1] == [
        f"_plans/{plan['digest']}.{end} is not the file that was stored with the plan: it was changed or "
        "replaced"
        for end in ("use.json", "verdicts.json")
    ]


def test_dry_run_stores_no_past_use(small_history, tmp_path):
    run(plan_task(UNUSED, dry_run=True))
    assert not list(tmp_path.rglob("*.use.json"))
