"""Users of Airflow can write every XCom and mark every task; only the ledger says what may be deleted."""

from __future__ import annotations

import errno
import shutil
from datetime import UTC, datetime

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from operators.tasks import (
    EXPIRED,
    OLD,
    POLICY,
    Ti,
    apply_task,
    delete,
    look_up,
    plan_task,
    planned,
    requests,
    run,
    split,
    summarize,
    with_digest,
)
from plans import TASK, approve_plan, authority

from tavus_provider.exceptions import (
    LedgerUnavailableError,
    PlanRejectedError,
    TavusError,
    TavusOutcomeUnknownError,
)
from tavus_provider.operators.tavus import (
    ApplyRetentionOperator,
    ApproveRetentionOperator,
    DeleteReplicaOperator,
)
from tavus_provider.storage.authority import RunAuthority, Trigger
from tavus_provider.storage.ledger import Ledger, job_name, ledger_root
from tavus_provider.storage.ledger_verify import verify
from tavus_provider.storage.plan_store import store

REJECTED = (AirflowFailException, LedgerUnavailableError)


@pytest.mark.parametrize("kind", [ApplyRetentionOperator, DeleteReplicaOperator])
def test_no_argument_replaces_an_approval(kind):
    """Cases E1 and E4: ``approve`` marked as success, or no such task, with any XCom."""
    assert not [name for name in kind.template_fields if "approve" in name]


def test_permanent_plan_that_nobody_approved_deletes_nothing(sandbox, hard_plan):
    """Cases E1 and E4."""
    with pytest.raises(AirflowFailException, match="no record of an approval of this plan in this run"):
        run(apply_task(hard_plan, hard=True))
    assert requests(sandbox, "DELETE") == []


@pytest.mark.parametrize(
    "approval",
    [
        pytest.param({"run_id": "manual__2"}, id="another run"),
        pytest.param({"dag_id": "another"}, id="another DAG"),
        pytest.param({"answer": "reject"}, id="rejected"),
    ],
)
def test_other_answers_do_not_count(sandbox, hard_plan, approval):
    approve_plan(hard_plan, **approval)
    with pytest.raises(AirflowFailException, match=r"no record of an approval|was rejected by"):
        run(apply_task(hard_plan, hard=True))
    assert requests(sandbox, "DELETE") == []


def test_rejection_outweighs_an_approval(sandbox, hard_plan):
    approve_plan(hard_plan, task_id="first")
    approve_plan(hard_plan, task_id="second", answer="reject")
    with pytest.raises(AirflowFailException, match="was rejected by 'alice'"):
        run(apply_task(hard_plan, hard=True))
    assert requests(sandbox, "DELETE") == []


def test_plan_exchanged_while_the_approver_looks_is_not_approved(sandbox, hard_plan):
    """Case E2."""
    small = planned(policy=POLICY | {"scope": {"include": ["spring-*"]}}, hard=True)
    approve_plan(small)
    with pytest.raises(AirflowFailException, match="no record of an approval"):
        run(apply_task(hard_plan, hard=True))
    assert requests(sandbox, "DELETE") == []


def test_answer_is_for_what_the_same_task_has_shown(sandbox, hard_plan):
    small = planned(policy=POLICY | {"scope": {"include": ["spring-*"]}}, hard=True)
    authority(small, task_id="first").record_shown(small, subject="Delete?", body="1")
    authority(hard_plan, task_id="second").record_shown(hard_plan, subject="Delete?", body="6")
    alice = {"id": "alice", "name": "alice"}
    at = datetime.now(UTC).isoformat()
    answered, objection = authority(small, task_id="first").record_answer(
        "approve", person=alice, answered_at=at, trigger=Trigger(user="bob")
    )
    assert (answered, objection) == (small["digest"], None)
    with pytest.raises(PlanRejectedError, match="no record of an approval"):
        authority(hard_plan).require_approval(hard_plan)


@pytest.mark.parametrize(
    ("trigger", "valid"),
    [
        pytest.param(Trigger(user="Alice"), False, id="the same by name"),
        pytest.param(Trigger(user="7"), False, id="the same by id"),
        pytest.param(Trigger(), False, id="unknown"),
        pytest.param(Trigger(is_manual=False), True, id="schedule"),
        pytest.param(Trigger(user="bob"), True, id="another"),
    ],
)
def test_person_who_may_have_triggered_the_run_does_not_count(hard_plan, monkeypatch, trigger, valid):
    monkeypatch.setenv("AIRFLOW__TAVUS__APPROVER_MUST_DIFFER", "True")
    records = authority(hard_plan, task_id="approve")
    records.record_shown(hard_plan, subject="Delete?", body="6")
    person, at = {"id": "7", "name": "Alice"}, datetime.now(UTC).isoformat()
    _, objection = records.record_answer("approve", person=person, answered_at=at, trigger=trigger)
    assert (objection is None) is valid


def test_answer_to_a_text_that_was_not_shown_does_not_count(sandbox, hard_plan):
    answer = {"plan_digest": hard_plan["digest"], "shown_digest": "0" * 64, "answer": "approve"}
    answer |= {"answered_by": "alice", "answered_at": "2026-01-01T00:00:00Z", "triggered_by_other": True}
    ledger = Ledger(hard_plan["origin"], hard_plan["tavus_conn_id"])
    ledger.begin_attempt(job_name("run", "dag", "manual__1"), kind="answered", **TASK, **answer).close()
    assert authority(hard_plan).find_answer(hard_plan["digest"]) is not None
    with pytest.raises(PlanRejectedError, match="no record of an approval"):
        authority(hard_plan).require_approval(hard_plan)


def test_records_that_were_copied_from_another_run_do_not_count(sandbox, hard_plan, tmp_path):
    approve_plan(hard_plan, run_id="manual__2")
    (folder,) = (tmp_path / "ledger").rglob(job_name("run", "dag", "manual__2"))
    for attempt in [path for path in folder.iterdir() if path.is_dir()]:
        shutil.copytree(attempt, folder.parent / job_name("run", "dag", "manual__1") / attempt.name)
    with pytest.raises(PlanRejectedError, match="no record of an approval"):
        authority(hard_plan).require_approval(hard_plan)


def test_records_of_a_damaged_attempt_do_not_count(sandbox, hard_plan, tmp_path):
    """The record of the answer is as it was, the one after it is not."""
    approve_plan(hard_plan)
    (folder,) = (tmp_path / "ledger").rglob(job_name("run", "dag", "manual__1"))
    (answered,) = (path for path in folder.iterdir() if b'"answered"' in (path / "000001.json").read_bytes())
    (answered / "000002.json").write_bytes(b"{}")
    with pytest.raises(PlanRejectedError, match="no record of an approval"):
        authority(hard_plan).require_approval(hard_plan)


def test_plan_that_was_made_for_real_once_is_not_one_of_a_dry_run(sandbox, plan):
    authority(plan).record_plan(plan, dry_run=True)
    assert not authority(plan).is_dry_run(plan)


def forged(plan):
    """Return a plan with other limits, a replica more and a correct digest."""
    row = plan["delete"][0] | {"replica_id": "rd6a1c3f7e82"}
    return with_digest(plan, limits={"max_deletions": 1_000}, delete=[*plan["delete"], row])


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("hard", [False, True])
def test_exchanged_plan_is_rejected_by_every_task(sandbox, stored, hard):
    """Case E3."""
    plan = planned(hard=hard)
    if hard:
        approve_plan(plan)
    other = forged(plan)
    if stored:  # a plan of another run, for example
        store(other)
    (batch,) = split(plan, 100)
    for task in (
        lambda: run(apply_task(other, hard=hard)),
        lambda: run(apply_task(other, hard=hard, batch=batch)),
        lambda: run(delete(OLD, plan=other, hard=hard)),
        lambda: split(other, 3),
        lambda: summarize(other, []),
        lambda: run(ApproveRetentionOperator(task_id="approve", plan=other)),
    ):
        with pytest.raises(REJECTED, match=r"no record that a plan task|the XCom was changed"):
            task()
    assert requests(sandbox, "DELETE") == []


def test_plan_of_another_run_is_rejected(sandbox, plan):
    with pytest.raises(AirflowFailException, match="no record that a plan task of this run made the plan"):
        run(apply_task(plan), Ti(run_id="manual__2"))
    assert requests(sandbox, "DELETE") == []


@pytest.mark.parametrize("change", [{"listed": 1}, {"delete": []}, {"plan_at": "elsewhere"}, {"digest": "0"}])
def test_changed_xcom_is_rejected_although_its_digest_is_not(sandbox, plan, change):
    with pytest.raises(AirflowFailException):
        run(apply_task(plan | change))
    assert requests(sandbox, "DELETE") == []


@pytest.mark.parametrize("hard", [False, True])
def test_mapped_deletes_with_one_plan(sandbox, hard):
    plan = planned(hard=hard)
    if hard:
        approve_plan(plan)
    for index, replica_id in enumerate(sorted(EXPIRED)):
        done = run(delete(replica_id, plan=plan, hard=hard), Ti(map_index=index))
        assert done["outcome"] == "deleted"
    assert {row["replica_id"] for row in sandbox.state()["deletes"]} == EXPIRED


def test_replica_in_use_is_not_deleted_by_a_cleared_soft_delete(sandbox):
    """Case E10."""
    plan = run(look_up(permanent=False))
    assert plan["hard"] is False
    task = delete(plan=plan)
    sandbox.put("personas", {"persona_id": "p1", "default_replica_id": OLD})
    with pytest.raises(AirflowFailException, match="cannot be deleted by hand: is the default of persona p1"):
        run(task)
    assert requests(sandbox, "DELETE") == []


@pytest.mark.parametrize(
    "make",
    [
        pytest.param(apply_task, id="apply"),
        pytest.param(lambda plan: delete(plan=plan), id="delete with a plan"),
        pytest.param(lambda plan: delete(hard=True), id="permanent delete"),
        pytest.param(lambda plan: look_up(), id="look-up"),
    ],
)
def test_ledger_that_the_workers_do_not_share_deletes_nothing(sandbox, plan, monkeypatch, make):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    with pytest.raises(AirflowFailException, match="set ledger_is_shared there to True"):
        run(make(plan))
    assert requests(sandbox, "DELETE") == []


def test_attempt_names_the_records_of_its_approval(sandbox, hard_plan):
    approve_plan(hard_plan)
    run(apply_task(hard_plan, hard=True))
    attempts = verify(ledger_root())[0]
    (applied,) = [attempt for attempt in attempts if attempt.intended]
    named = applied.begin_record["prior_attempts"]
    kinds = {attempt.begin_record["kind"] for attempt in attempts if attempt.name in named}
    assert kinds == {"planned", "shown", "answered"}


# -- limits


LIMITED = POLICY | {"limits": {"max_deletions": 6, "max_deletion_percent": 25}}


def add(sandbox, number):
    for n in range(6):
        row = {"replica_id": f"x{number}{n}", "replica_name": f"x {number} {n}", "replica_type": "user"}
        sandbox.put("replicas", row | {"status": "completed", "age": "200d"})


def test_cleared_run_does_not_delete_more_than_its_limits(sandbox):
    """Case E5."""
    run(apply_task(planned(policy=LIMITED)))
    assert len(requests(sandbox, "DELETE")) == 6
    add(sandbox, 1)
    ti = Ti(try_number=2)
    with pytest.raises(
        AirflowFailException, match=r"^12 of 32 .* deleted, 6 of them were deleted by this run"
    ):
        run(plan_task(LIMITED), ti)
    with pytest.raises(
        AirflowFailException, match=r"^12 of 32 .* deleted, 6 of them were deleted by this run"
    ):
        run(apply_task(ti.pushed["return_value"]), Ti(try_number=2))
    assert len(requests(sandbox, "DELETE")) == 6


def test_single_deletes_with_a_plan_count_against_the_limits_of_the_run(sandbox):
    limits = {"limits": {"max_deletions": 4, "max_deletion_percent": 100}}
    narrow = {"narrow": {"include": ["spring-*", "summer-*", "black-*", "onboarding*"]}}
    first = planned(policy=POLICY | limits, **narrow)
    run(apply_task(first))
    deleted = len(requests(sandbox, "DELETE"))
    assert deleted == 4
    ti = Ti(try_number=2)
    with pytest.raises(AirflowFailException, match="4 of them were deleted by this run"):
        run(plan_task(POLICY | limits), ti)
    other = ti.pushed["return_value"]
    left = other["delete"][0]["replica_id"]
    with pytest.raises(AirflowFailException, match=r"^5 of .* 4 of them were deleted by this run"):
        run(delete(left, plan=other))
    assert len(requests(sandbox, "DELETE")) == deleted


def test_single_deletes_count_each_other(sandbox):
    plan = planned(
        policy=POLICY | {"limits": {"max_deletions": 2, "max_deletion_percent": 100}}, dry_run=True
    )
    ids = [row["replica_id"] for row in plan["delete"]]
    for index, replica_id in enumerate(ids[:2]):
        assert run(delete(replica_id, plan=plan), Ti(map_index=index))["outcome"] == "deleted"
    with pytest.raises(AirflowFailException, match="2 of them were deleted by this run"):
        run(delete(ids[2], plan=plan), Ti(map_index=2))
    run(delete(ids[1], plan=plan), Ti(map_index=1, try_number=2))  # a retry counts once
    assert len({row["replica_id"] for row in sandbox.state()["deletes"]}) == 2


def test_single_deletes_at_the_same_time_count_each_other(sandbox, monkeypatch):
    plan = planned(
        policy=POLICY | {"limits": {"max_deletions": 1, "max_deletion_percent": 100}}, dry_run=True
    )
    other, real = plan["delete"][0]["replica_id"], RunAuthority.record_deleting

    def record_deleting(self, plan, replica_id):
        real(authority(plan, task_id="other"), plan, other)
        real(self, plan, replica_id)

    monkeypatch.setattr(RunAuthority, "record_deleting", record_deleting)
    with pytest.raises(AirflowFailException, match="1 of them were deleted by this run"):
        run(delete(plan=plan))
    assert requests(sandbox, "DELETE") == []


def test_apply_and_plan_count_single_deletes_of_the_run(sandbox):
    policy = POLICY | {"limits": {"max_deletions": 6, "max_deletion_percent": 100}}
    run(delete(plan=planned(policy=policy)))
    add(sandbox, 1)
    ti = Ti(try_number=2)
    with pytest.raises(AirflowFailException, match=r"^7 of .*, 1 of them were deleted by this run"):
        run(plan_task(policy, narrow={"include": ["x 1*"]}), ti)
    with pytest.raises(AirflowFailException, match=r"^7 of .*, 1 of them were deleted by this run"):
        run(apply_task(ti.pushed["return_value"]), Ti(try_number=2))
    assert len(requests(sandbox, "DELETE")) == 1


SENT_WITHOUT_A_RESPONSE = [
    {"method": "DELETE", "status": 500, "when": "after", "times": None},
    {"method": "GET", "path": f"/v2/replicas/{OLD}", "delay": 0.001},  # before the delete
    {"method": "GET", "path": f"/v2/replicas/{OLD}", "status": 500, "times": None},
]


@pytest.mark.parametrize(
    ("faults", "error", "counts"),
    [
        pytest.param([{"method": "DELETE", "status": 400}], AirflowFailException, False, id="rejected"),
        pytest.param(SENT_WITHOUT_A_RESPONSE, TavusOutcomeUnknownError, True, id="unknown"),
    ],
)
def test_failed_single_delete_counts_unless_it_was_certainly_not_applied(sandbox, faults, error, counts):
    plan = planned(
        policy=POLICY | {"limits": {"max_deletions": 1, "max_deletion_percent": 100}}, dry_run=True
    )
    other = plan["delete"][0]["replica_id"]
    sandbox.switch(faults=[*faults])
    with pytest.raises(error):
        run(delete(plan=plan))
    sandbox.switch(faults=[])
    if counts:
        with pytest.raises(AirflowFailException, match="1 of them were deleted by this run"):
            run(delete(other, plan=plan), Ti(map_index=1))
    else:
        assert run(delete(other, plan=plan), Ti(map_index=1))["outcome"] == "deleted"


def test_refused_single_delete_that_is_retried_counts_again(sandbox):
    plan = planned(
        policy=POLICY | {"limits": {"max_deletions": 1, "max_deletion_percent": 100}}, dry_run=True
    )
    sandbox.switch(faults=[{"method": "DELETE", "status": 400}])
    with pytest.raises(AirflowFailException):
        run(delete(plan=plan))
    assert run(delete(plan=plan), Ti(try_number=2))["outcome"] == "deleted"
    with pytest.raises(AirflowFailException, match="1 of them were deleted by this run"):
        run(delete(plan["delete"][0]["replica_id"], plan=plan), Ti(map_index=1))


def test_another_run_has_limits_of_its_own(sandbox):
    run(apply_task(planned(policy=LIMITED)))
    add(sandbox, 1)
    other = run(plan_task(LIMITED), Ti(run_id="manual__2"))
    assert run(apply_task(other), Ti(run_id="manual__2"))["counts"]["deleted"] == 6


# -- a dry run where nothing can be written


def test_dry_run_needs_no_store(sandbox, monkeypatch, log):
    def read_only(path, data):
        raise OSError(errno.EROFS, "read-only")

    monkeypatch.setattr("tavus_provider.storage.object_storage._create_local_file", read_only)
    with pytest.raises(TavusError, match="cannot be"):
        run(plan_task())
    plan = run(plan_task(dry_run=True))
    assert "The plan of this dry run is not stored and recorded" in "\n".join(log())
    assert run(apply_task(plan, dry_run=True))["counts"]["skipped"] == 6
    with pytest.raises(LedgerUnavailableError):
        run(apply_task(plan))
    assert requests(sandbox, "DELETE") == []


def test_damaged_records_do_not_count(sandbox, hard_plan, tmp_path):
    approve_plan(hard_plan)
    authority(hard_plan).require_approval(hard_plan)
    for path in (tmp_path / "ledger").rglob("run-*/*/000001.json"):
        path.write_bytes(path.read_bytes().replace(b'"alice"', b'"bobby"'))
    with pytest.raises(AirflowFailException, match="no record of an approval"):
        run(apply_task(hard_plan, hard=True))
    assert requests(sandbox, "DELETE") == []
