"""``overdue_after``: the plan names what is overdue, and the task that deletes fails after its deletes."""

from __future__ import annotations

import json
import re

import pytest
import requests
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from operators.tasks import (
    EXPIRED,
    POLICY,
    Ti,
    apply_batch,
    apply_task,
    plan_task,
    planned,
    run,
    split,
    summarize,
)

from tavus_provider.operators.tavus import ApproveRetentionOperator

OVERDUE = {**POLICY, "overdue_after": "100d", "limits": {"max_deletions": 9, "max_deletion_percent": 100}}
STAYS = "r9d6a2b4f8e1"
"""A replica of the built-in seed whose status is unknown, older than 100 days."""


def ids(plan):
    return {row["replica_id"] for row in plan["overdue"]}


def deletes(sandbox):
    return {row["replica_id"] for row in sandbox.state()["deletes"]}


def test_plan_names_what_is_overdue_and_does_not_fail(sandbox, log):
    plan = planned(policy=OVERDUE)
    assert STAYS in ids(plan)
    assert not ids(plan) & EXPIRED
    (row,) = (row for row in plan["overdue"] if row["replica_id"] == STAYS)
    assert row["reason"] == "status is 'archived', not one of started, completed, error"
    assert row["age_days"] > 100
    lines = "\n".join(log())
    assert f"; {len(plan['overdue'])} overdue" in lines
    assert f"{len(plan['overdue'])} replicas older than overdue_after (100d) are still there: " in lines
    assert re.search("overdue_after: the age of . replicas is unknown", lines)


def test_plan_without_the_setting_has_no_such_key(sandbox):
    assert "overdue" not in planned()


def test_apply_fails_after_its_deletes(sandbox):
    ti = Ti()
    with pytest.raises(AirflowFailException) as caught:
        run(apply_task(planned(policy=OVERDUE)), ti)
    assert deletes(sandbox) == EXPIRED
    assert ti.pushed["return_value"]["counts"]["deleted"] == 6
    message = str(caught.value)
    assert message.startswith("8 replicas older than overdue_after (100d) are still there: ")
    assert f"{STAYS} (" in message
    assert message.endswith(
        "Remove what keeps each of them, delete it with the DAG tavus_delete_replica, put it under a legal "
        "hold, or raise overdue_after"
    )


def test_plan_that_deletes_nothing_fails_too(sandbox):
    nothing = {**OVERDUE, "scope": {"include": ["nothing"]}, "overdue_after": "1y"}
    plan = planned(policy=nothing)
    assert plan["delete"] == []
    with pytest.raises(AirflowFailException, match=r"are still there"):
        run(apply_task(plan))


def test_apply_succeeds_if_nothing_is_overdue(sandbox):
    run(apply_task(planned(policy={**OVERDUE, "overdue_after": "9y"})))
    assert deletes(sandbox) == EXPIRED


def test_dry_run_only_warns(sandbox, log):
    plan = run(plan_task(policy=OVERDUE, dry_run=True))
    log()
    run(apply_task(plan, dry_run=True))
    assert any("8 replicas older than overdue_after (100d) are still there" in line for line in log())


def test_replica_that_somebody_deleted_meanwhile_is_not_overdue(sandbox):
    plan = planned(policy=OVERDUE)
    for replica_id in ids(plan):
        url = f"{sandbox.url}/v2/replicas/{replica_id}"
        requests.delete(url, headers={"x-api-key": sandbox.key}, timeout=10).raise_for_status()
    run(apply_task(plan))
    assert deletes(sandbox) == EXPIRED | ids(plan)


@pytest.mark.parametrize("spell", [str, str.upper])
def test_replica_that_is_held_meanwhile_is_not_overdue(sandbox, tmp_path, spell):
    holds = tmp_path / "holds.json"
    holds.write_text("[]")
    policy = {**OVERDUE, "legal_holds": {"file": str(holds), "max_age": "1d"}}
    plan = planned(policy=policy)
    holds.write_text(json.dumps([spell(replica_id) for replica_id in sorted(ids(plan))]))
    run(apply_task(plan))
    assert deletes(sandbox) == EXPIRED


def test_planned_replica_that_could_not_be_deleted_is_overdue(sandbox):
    plan = planned(policy={**OVERDUE, "overdue_after": "650d"})
    old = "r3f6a2e9d815"  # 700 days old
    assert old not in ids(plan)
    sandbox.switch(faults=[{"method": "DELETE", "path": f"/v2/replicas/{old}", "status": 422, "times": None}])
    with pytest.raises(
        AirflowFailException, match=rf"^1 of 6 planned .*still there: .*{old} \(700 days old: failed: "
    ):
        run(apply_task(plan))


def test_batches_leave_it_to_the_summary(sandbox):
    plan = planned(policy=OVERDUE)
    reports = [apply_batch(plan, batch) for batch in split(plan, 3)]
    assert deletes(sandbox) == EXPIRED
    ti = Ti()
    with pytest.raises(AirflowFailException, match=r"^8 replicas older than overdue_after \(100d\)"):
        summarize(plan, reports, ti)
    assert ti.pushed["return_value"]["counts"]["deleted"] == 6


@pytest.mark.parametrize("spell", [str, str.upper])
@pytest.mark.parametrize("batched", [False, True])
def test_planned_replica_that_is_held_meanwhile_is_not_overdue(sandbox, tmp_path, batched, spell):
    holds, old = tmp_path / "holds.json", "r3f6a2e9d815"  # 700 days old
    holds.write_text("[]")
    policy = {**OVERDUE, "overdue_after": "650d", "legal_holds": {"file": str(holds), "max_age": "1d"}}
    plan = planned(policy=policy)
    holds.write_text(json.dumps([spell(replica_id) for replica_id in (old, *ids(plan))]))
    if batched:
        report = summarize(plan, [apply_batch(plan, batch) for batch in split(plan, 3)])
    else:
        report = run(apply_task(plan))
    assert report["counts"]["skipped"] == 1
    assert deletes(sandbox) == EXPIRED - {old}


def test_summary_that_cannot_read_the_holds_counts_a_held_replica_as_overdue(sandbox, tmp_path):
    holds, old = tmp_path / "holds.json", "r3f6a2e9d815"
    policy = {**OVERDUE, "overdue_after": "650d", "legal_holds": {"file": str(holds), "max_age": "1d"}}
    holds.write_text("[]")
    plan = planned(policy=policy)
    holds.write_text(json.dumps([old, *ids(plan)]))
    reports = [apply_batch(plan, batch) for batch in split(plan, 3)]
    holds.unlink()
    with pytest.raises(AirflowFailException, match=rf"{old} \(700 days old: skipped"):
        summarize(plan, reports)


def test_approval_of_an_empty_plan_fails_instead_of_being_skipped(sandbox):
    empty = {**OVERDUE, "scope": {"include": ["nothing"]}}
    plan = planned(policy=empty, hard=True)
    assert plan["delete"] == []
    with pytest.raises(AirflowFailException, match=r"^The plan deletes nothing\. \d+ replicas older than"):
        run(ApproveRetentionOperator(task_id="approve", plan=plan))
    fine = planned(policy={**empty, "overdue_after": "9y"}, hard=True)
    with pytest.raises(AirflowSkipException):
        run(ApproveRetentionOperator(task_id="approve", plan=fine))
