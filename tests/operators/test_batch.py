"""Split a plan into batches, apply them, and summarize their reports."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from operators.tasks import (
    EXPIRED,
    POLICY,
    Ti,
    apply_batch,
    apply_task,
    planned,
    requests,
    run,
    split,
    summarize,
)
from plans import approve_plan

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.operators.tavus import SplitRetentionOperator
from tavus_provider.storage.ledger import ledger_root
from tavus_provider.storage.ledger_verify import compare_report, verify


def test_batches_are_executed_by_separate_tasks_and_summarized(sandbox, plan):
    one, two = split(plan, 3)
    first = apply_batch(plan, one)
    assert [item["replica_id"] for item in first["items"]] == [
        row["replica_id"] for row in plan["delete"][:3]
    ]
    assert len(sandbox.state()["deletes"]) == first["counts"]["deleted"] == 3
    second = apply_batch(plan, two)
    assert second["counts"]["deleted"] == 3
    assert {d["replica_id"] for d in sandbox.state()["deletes"]} == EXPIRED
    summary = summarize(plan, [second, first])
    assert (summary["counts"]["deleted"], summary["plan_digest"]) == (6, plan["digest"])
    attempts, findings = verify(ledger_root())
    assert findings == []
    for report in (first, second, summary):
        assert compare_report(attempts, report) == []


def test_batch_of_another_plan_deletes_nothing(sandbox, plan):
    other = planned(narrow={"include": ["spring-*"]})
    (batch,) = split(other, 10)
    with pytest.raises(AirflowFailException, match=r"^the batch belongs to another plan: pass the same plan"):
        apply_batch(plan, batch)
    assert requests(sandbox, "DELETE") == []


def test_batch_that_split_did_not_make_deletes_nothing(sandbox, plan):
    with pytest.raises(AirflowFailException, match=r"^invalid batch: .* Nothing was deleted$"):
        run(apply_task(plan, batch={"plan_digest": plan["digest"], "replica_ids": ["r1"]}))
    assert requests(sandbox, "DELETE") == []


def test_permanent_batches_need_an_approval_of_the_whole_plan(sandbox):
    plan = planned(hard=True)
    one, two = split(plan, 3)
    with pytest.raises(AirflowFailException, match=r"no record of an approval of this plan in this run"):
        apply_batch(plan, one, hard=True)
    assert requests(sandbox, "DELETE") == []
    approve_plan(plan)
    for batch in (one, two):
        assert apply_batch(plan, batch, hard=True)["counts"]["deleted"] == 3
    assert {d["replica_id"] for d in sandbox.state()["deletes"] if d["hard"]} == EXPIRED


def test_label_of_a_batch_is_its_part_of_the_plan(sandbox, plan):
    batch = split(plan, 3)[1]
    ti = Ti()
    context = {"ti": ti}
    apply_task(plan, batch=batch, dry_run=True).execute(context)
    assert context["map_index_template"] == "4 to 6 of 6"


# -- limits


def test_plan_beyond_its_limits_is_rejected_in_every_batch(sandbox):
    plan = planned(policy=POLICY | {"limits": {"max_deletions": 4}}, dry_run=True)
    for batch in split(plan, 2):
        with pytest.raises(
            AirflowFailException, match=r"^6 of 26 replicas would be deleted, max_deletions is"
        ):
            apply_batch(plan, batch)
    assert requests(sandbox, "DELETE") == []


def test_deletes_of_other_batches_count_against_the_limits(sandbox):
    plan = planned(
        policy=POLICY | {"limits": {"max_deletions": 4, "max_deletion_percent": 100}}, dry_run=True
    )
    one, two = split(plan, 3)
    for row in plan["delete"][:2]:
        sandbox.put("replicas", {"replica_id": row["replica_id"], "replica_name": "another"})
    with pytest.raises(AirflowFailException, match=r"^6 of 26 replicas would be deleted, max_deletions is 4"):
        apply_batch(plan, two)
    assert apply_batch(plan, one)["counts"]["deleted"] == 1  # with 3 of the other batch these are 4
    with pytest.raises(
        AirflowFailException, match=r"^6 of 26 .* 1 of them were deleted by this run .*max_deletions is 4"
    ):
        apply_batch(plan, two)
    assert len(requests(sandbox, "DELETE")) == 1


def test_keep_last_ignores_replicas_of_other_batches(serve):
    """It is unknown what they have deleted. If the kept replica is gone, each one may be the newest left."""
    rows = [
        {"replica_id": f"r{n}{n}", "replica_name": f"team_{n}", "age": age}
        for n, age in enumerate(("200d", "210d", "220d"))
    ]
    sandbox = serve({"replicas": rows})
    keep = {"keep_last": 1, "group_by": "^(?P<group>[^_]+)_"}
    limits = {"max_deletions": 2, "max_deletion_percent": 100}
    plan = planned(policy=POLICY | {"keep": keep, "limits": limits})
    assert [row["replica_id"] for row in plan["delete"]] == ["r22", "r11"]
    sandbox.put("replicas", {"replica_id": "r00", "deleted": "hard"})
    for batch in split(plan, 1):
        assert apply_batch(plan, batch)["counts"]["skipped"] == 1
    assert requests(sandbox, "DELETE") == []


def test_percentage_is_of_the_account_before_the_first_batch(serve):
    old = [{"replica_id": f"old{n:02}", "replica_name": "x", "age": "200d"} for n in range(5)]
    young = [{"replica_id": f"new{n:02}", "replica_name": "x", "age": "5d"} for n in range(15)]
    serve({"replicas": old + young})
    plan = planned(policy=POLICY | {"limits": {"max_deletions": 5, "max_deletion_percent": 25}})
    for batch in split(plan, 1):
        assert apply_batch(plan, batch)["counts"]["deleted"] == 1


# -- missing replicas


def test_replicas_deleted_by_other_batches_are_not_missing(sandbox, plan):
    batches = split(plan, 1)
    assert apply_batch(plan, batches[0])["counts"]["deleted"] == 1
    gone = [row["replica_id"] for row in plan["delete"][1:]]
    sandbox.put("replicas", *({"replica_id": replica_id, "deleted": "hard"} for replica_id in gone))
    with pytest.raises(AirflowFailException, match=r"^5 of 6 planned replicas are no longer listed"):
        apply_batch(plan, batches[1])


def test_all_batches_in_sequence_are_the_same_account(sandbox, plan):
    batches = split(plan, 1)
    counts = [apply_batch(plan, batch)["counts"] for batch in batches]
    assert [count["deleted"] for count in counts] == [1] * 6


def test_batch_is_rejected_if_most_of_its_replicas_are_missing(serve):
    old = [{"replica_id": f"old{n:02}", "replica_name": "x", "age": f"{400 - n}d"} for n in range(30)]
    sandbox = serve({"replicas": old})
    plan = planned(policy=POLICY | {"limits": {"max_deletions": 30, "max_deletion_percent": 100}})
    one, two, three = split(plan, 10)
    gone = [row["replica_id"] for row in plan["delete"][10:16]]
    sandbox.put("replicas", *({"replica_id": replica_id, "deleted": "hard"} for replica_id in gone))
    assert apply_batch(plan, one)["counts"]["deleted"] == 10
    with pytest.raises(AirflowFailException, match=r"^6 of 10 planned replicas are no longer listed"):
        apply_batch(plan, two)
    assert apply_batch(plan, three)["counts"]["deleted"] == 10


def test_verification_uses_only_the_ids_of_its_batch(sandbox, plan):
    sandbox.switch(soft_deleted="listed")
    one, two = split(plan, 3)
    details = [item["detail"] for batch in (one, two) for item in apply_batch(plan, batch)["items"]]
    assert len(details) == 6
    assert all(
        detail.endswith("this account lists soft-deleted replicas, so its absence could not be seen")
        for detail in details
    )


# -- killed tasks


def test_batch_of_a_killed_task_is_completed_by_its_retry(sandbox, plan):
    one, two = split(plan, 3)
    killed = """
import json, os, signal, sys
from tavus_provider.hooks.tavus import TavusHook
from tavus_provider.operators.tavus import ApplyRetentionOperator

real, calls = TavusHook.delete_replica, []

def delete(self, replica_id, **options):
    done = real(self, replica_id, **options)
    calls.append(replica_id)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return done

TavusHook.delete_replica = delete

class Ti:
    dag_id, run_id, task_id, map_index, try_number = "dag", "manual__1", "apply", 0, 1

plan, batch = json.load(sys.stdin)
ApplyRetentionOperator(task_id="apply", plan=plan, batch=batch, concurrency=1).execute({"ti": Ti})
"""
    done = subprocess.run(
        [sys.executable, "-c", killed],
        input=json.dumps([plan, one]),
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert len(sandbox.state()["deletes"]) == 2
    second = apply_batch(plan, two)
    assert second["counts"]["deleted"] == 3
    assert not [item for item in second["items"] if "earlier attempt" in item["detail"]]
    again = apply_batch(plan, one, Ti(try_number=2, map_index=0))
    assert (again["counts"]["already_gone"], again["counts"]["deleted"]) == (2, 1)
    details = [item["detail"] for item in again["items"] if item["outcome"] == "already_gone"]
    assert all("possibly deleted by an earlier attempt of this task" in detail for detail in details)
    assert sorted(d["replica_id"] for d in sandbox.state()["deletes"]) == sorted(EXPIRED)
    assert summarize(plan, [again, second])["counts"] == dict.fromkeys(again["counts"], 0) | {
        "deleted": 4,
        "already_gone": 2,
    }
    assert verify(ledger_root())[1] == []


def test_attempts_of_other_batches_are_not_earlier_attempts(sandbox, plan):
    one, two = split(plan, 3)
    apply_batch(plan, one)
    apply_batch(plan, two)
    begins = [a.begin_record for a in verify(ledger_root())[0] if "intent" in a.begin_record]
    assert [begin["batch"]["number"] for begin in begins] == [1, 2]
    for begin in begins:  # only the record of the plan
        assert ["/run-" in name for name in begin["prior_attempts"]] == [True]


def test_summary_without_a_report_uses_the_ledger(sandbox, plan):
    one, _ = split(plan, 3)
    report = apply_batch(plan, one)
    ti = Ti()
    with pytest.raises(AirflowFailException, match=r"^3 of 6 planned replicas may still exist"):
        summarize(plan, [report], ti)
    assert ti.pushed["return_value"]["counts"]["not_attempted"] == 3
    assert summarize_failing(plan, [])["counts"]["deleted"] == 3


@pytest.mark.parametrize(
    "forge",
    [
        lambda report: report | {"items": [item | {"outcome": "deleted"} for item in report["items"]]},
        lambda report: report | {"items": [item | {"outcome": "skipped"} for item in report["items"]]},
        lambda report: report | {"dry_run": True, "ledger": None},
    ],
    ids=["deleted", "skipped", "dry run"],
)
def test_changed_report_does_not_make_the_summary_succeed(sandbox, plan, forge):
    one, _ = split(plan, 3)
    report = run(apply_task(plan, dry_run=True))
    assert summarize_failing(plan, [forge(report)])["counts"]["not_attempted"] == 6
    sandbox.switch(faults=[{"method": "DELETE", "status": 403, "times": None}])
    with pytest.raises(AirflowFailException):
        apply_batch(plan, one)
    counts = summarize_failing(plan, [forge(report)])["counts"]
    assert counts["failed"] >= 1
    assert counts["failed"] + counts["not_attempted"] == 6


def test_summary_of_a_dry_run(sandbox):
    plan = planned(dry_run=True)
    reports = [apply_batch(plan, batch, dry_run=True) for batch in split(plan, 3)]
    assert summarize(plan, reports)["counts"]["skipped"] == 6
    with pytest.raises(AirflowFailException):
        summarize(plan, [])


def summarize_failing(plan, reports):
    """Run a summary that must fail, and return its report."""
    ti = Ti()
    with pytest.raises(AirflowFailException):
        summarize(plan, reports, ti)
    return ti.pushed["return_value"]


# -- invalid arguments


@pytest.mark.parametrize("make", [lambda plan: split(plan, 3), lambda plan: summarize(plan, [])])
@pytest.mark.parametrize(
    "change", [lambda plan: plan | {"listed": 1}, str, lambda plan: None, lambda plan: {}]
)
def test_changed_plan_is_neither_split_nor_summarized(sandbox, plan, make, change):
    with pytest.raises(AirflowFailException, match=r"^the plan is rejected: .*Nothing was deleted"):
        make(change(plan))


@pytest.mark.parametrize("value", [0, True, 1.5, None], ids=repr)
def test_invalid_batch_size_is_rejected_when_the_dag_is_parsed(value):
    with pytest.raises(TavusValidationError, match=r"^batch_size is"):
        SplitRetentionOperator(task_id="split", plan={}, batch_size=value)


def test_batch_size_that_was_rendered_to_text_is_rejected(plan):
    operator = SplitRetentionOperator(task_id="split", plan=plan, batch_size="{{ params.batch_size }}")
    operator.batch_size = "3"
    with pytest.raises(AirflowFailException, match=r"^batch_size is '3': expected an integer"):
        run(operator)


def test_batches_get_larger_if_airflow_cannot_map_as_many(plan, monkeypatch, log):
    monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", "2")
    assert [batch["of"] for batch in split(plan, 1)] == [2, 2]
    warning = "batch_size 1 would make more than 2 batches, so batches have up to 3 replicas"
    assert any(warning in line for line in log())
