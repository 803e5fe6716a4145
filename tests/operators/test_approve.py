"""Approve a plan: the page, the answers, and which plans are shown."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from types import SimpleNamespace

import pytest
from airflow.providers.common.compat.sdk import (
    AirflowFailException,
    AirflowSkipException,
    DownstreamTasksSkipped,
)
from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, task_group
from operators.tasks import EXPIRED, Ti, apply_task, planned, run, with_digest
from plans import record_plan

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.operators import base
from tavus_provider.operators.tavus import ApplyRetentionOperator, ApproveRetentionOperator
from tavus_provider.storage.ledger import ledger_root
from tavus_provider.storage.ledger_verify import verify


def waiting() -> type[BaseException]:
    """Return the exception by which a task asks and waits."""
    try:
        from airflow.sdk.exceptions import TaskAwaitingInput
    except ImportError:  # before 3.3
        from airflow.providers.common.compat.sdk import TaskDeferred

        return TaskDeferred
    return TaskAwaitingInput


def approve(plan, **more):
    return ApproveRetentionOperator(task_id="approve", plan=plan, **more)


def ask(operator, ti=None, **context):
    """Execute the task until it waits, and return its task instance."""
    ti = ti or Ti()
    with pytest.raises(waiting()) as caught:
        run(operator, ti, **context)
    assert caught.value.method_name == "execute_complete"
    return ti


def answer(operator, ti, option, **context):
    """Resume the task with an answer of the user alice."""
    from airflow.sdk.timezone import utcnow

    event = {
        "chosen_options": [option],
        "params_input": {},
        "responded_at": utcnow(),
        "responded_by_user": {"id": "alice", "name": "alice"},
    }
    return operator.execute_complete({"ti": ti, "task_instance": ti, "task": operator} | context, event)


def records():
    """Return the first record of each attempt of the run about its plans."""
    return [attempt.records[0] for attempt in verify(ledger_root())[0] if "/run-" in attempt.name]


@pytest.mark.parametrize("fixed", ["defaults", "subject", "body", "assigned_users"])
def test_dag_cannot_set_the_page_the_answer_or_the_approvers(fixed):
    with pytest.raises(TavusValidationError, match=f"^{fixed}: cannot be set. The page is made"):
        approve({}, **{fixed: "Approve"})


def test_page_is_made_from_the_plan_and_its_digest_is_pushed(page, hard_plan):
    ti = ask(approve(hard_plan))
    assert ti.pushed == {}
    _, shown = records()
    assert (shown["kind"], shown["plan_digest"]) == ("shown", hard_plan["digest"])
    (text,) = (ledger_root() / "_plans").glob("*.md")
    assert text.read_text() == f"{page['subject']}\n\n{page['body']}"
    assert text.name == f"{hard_plan['digest']}.{shown['shown_digest']}.md"
    assert sha256(text.read_bytes()).hexdigest() == shown["shown_digest"]
    assert page["subject"] == "Delete 6 Tavus replicas permanently?"
    assert hard_plan["digest"] in page["body"]
    assert all(f"| {replica_id} |" in page["body"] for replica_id in EXPIRED)
    assert (page["options"], page["defaults"], page["assigned_users"]) == (["Approve", "Reject"], None, None)


@pytest.mark.parametrize(("hours", "until"), [(1, "2026-06-01 13:00"), (48, "2026-06-02 12:00")])
def test_page_says_who_asks_whom_and_until_when(page, hard_plan, monkeypatch, hours, until):
    """The deadline is the earlier one of response_timeout and of the time until which the plan is valid."""
    monkeypatch.setattr(base, "now", lambda: datetime(2026, 6, 1, 12, tzinfo=UTC))
    monkeypatch.setenv("AIRFLOW__TAVUS__APPROVERS", "alice, bob")
    monkeypatch.setenv("AIRFLOW__TAVUS__APPROVER_MUST_DIFFER", "True")
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://airflow.test")
    plan = record_plan(with_digest(hard_plan, valid_until="2026-06-02T12:00:00Z"))
    dag_run = SimpleNamespace(triggering_user_name="maria", run_type="manual")
    ask(approve(plan, response_timeout=timedelta(hours=hours)), dag_run=dag_run)
    assert "- **Triggered by** maria. **May answer:** alice, bob, but not maria.\n" in page["body"]
    assert f"- **Answer until {until} UTC**, or nothing is deleted." in page["body"]
    assert "](<https://airflow.test/plugin/tavus?dag_id=dag&run_id=manual__1&task_id=" in page["body"]


def test_only_configured_approvers_may_answer(page, hard_plan, monkeypatch):
    monkeypatch.setenv("AIRFLOW__TAVUS__APPROVERS", " alice, bob ,")
    ask(approve(hard_plan))
    assert page["assigned_users"] == [{"id": "alice", "name": "alice"}, {"id": "bob", "name": "bob"}]


def test_response_timeout_is_a_day_by_default(hard_plan):
    assert approve(hard_plan).response_timeout == timedelta(hours=24)
    assert approve(hard_plan, response_timeout=timedelta(hours=1)).response_timeout == timedelta(hours=1)


@pytest.mark.parametrize("option", ["Approve", "Reject"])
def test_answer_is_recorded_with_the_user(page, hard_plan, option):
    operator = approve(hard_plan)
    ti = ask(operator)
    answer(operator, ti, option)
    _, shown, answered = records()
    assert answered["kind"] == "answered"
    assert (answered["answer"], answered["answered_by"]) == (option.lower(), "alice")
    assert (answered["plan_digest"], answered["shown_digest"]) == (hard_plan["digest"], shown["shown_digest"])
    assert ti.pushed == {}
    assert verify(ledger_root())[1] == []


@pytest.mark.parametrize("leave", [DownstreamTasksSkipped, AirflowFailException])
def test_rejection_is_recorded_before_airflow_skips(page, hard_plan, monkeypatch, leave):
    """Case C16."""
    operator = approve(hard_plan)
    ti = ask(operator)

    def execute_complete(*args, **kwargs):
        raise leave(tasks=[]) if leave is DownstreamTasksSkipped else leave("rejected")

    monkeypatch.setattr(ApprovalOperator, "execute_complete", execute_complete)
    with pytest.raises(leave):
        answer(operator, ti, "Reject")
    assert records()[-1]["answer"] == "reject"
    with pytest.raises(AirflowFailException, match=r"^the plan was rejected by 'alice'"):
        run(apply_task(hard_plan, hard=True))


def test_mapped_approval_is_of_its_own_plan(page, hard_plan):
    """Case C2."""
    other = planned(hard=True)
    tis = [ask(approve(one), Ti(map_index=index)) for index, one in enumerate((hard_plan, other))]
    answer(approve(hard_plan), tis[0], "Approve")
    assert run(apply_task(hard_plan, hard=True))["counts"]["deleted"] == 6
    with pytest.raises(AirflowFailException, match="no record of an approval"):
        run(apply_task(other, hard=True))


@pytest.mark.parametrize("option", ["Approve", "Reject"])
def test_rejection_in_a_mapped_task_group_skips_what_follows_in_its_instance(page, hard_plan, option):
    """Case C2."""
    with DAG("mapped", schedule=None) as dag:

        @task_group
        def purge(tavus_conn_id):
            operator = approve(hard_plan)
            operator >> ApplyRetentionOperator(
                task_id="apply", hard=True, plan=hard_plan, tavus_conn_id=tavus_conn_id
            )

        purge.expand(tavus_conn_id=["a", "b"])
    operator = dag.get_task("purge.approve")
    ti = ask(operator, Ti(map_index=1))
    if option == "Approve":
        answer(operator, ti, option)
        return
    with pytest.raises(DownstreamTasksSkipped) as caught:
        answer(operator, ti, option)
    assert caught.value.tasks == [("purge.apply", 1)]
    assert records()[-1]["answer"] == "reject"


# -- who may approve


def test_approval_of_another_user_than_the_configured_ones_is_not_valid(page, hard_plan, monkeypatch):
    operator = approve(hard_plan)
    ti = ask(operator)
    monkeypatch.setenv("AIRFLOW__TAVUS__APPROVERS", "bob")
    with pytest.raises(AirflowFailException, match=r"^'alice' answered, who is not in approvers"):
        answer(operator, ti, "Approve")
    with pytest.raises(AirflowFailException, match=r"^'alice' answered, who is not in approvers"):
        run(apply_task(hard_plan, hard=True))
    assert records()[-1]["answered_by"] == "alice"


@pytest.mark.parametrize(
    ("trigger", "valid"),
    [
        pytest.param({"triggering_user_name": "alice", "run_type": "manual"}, False, id="same"),
        pytest.param({"triggering_user_name": "bob", "run_type": "manual"}, True, id="other"),
        pytest.param({"triggering_user_name": None, "run_type": "scheduled"}, True, id="schedule"),
    ],
)
def test_person_who_triggered_may_not_approve_if_configured(page, hard_plan, monkeypatch, trigger, valid):
    operator, dag_run = approve(hard_plan), SimpleNamespace(**trigger)
    ti = ask(operator, dag_run=dag_run)
    monkeypatch.setenv("AIRFLOW__TAVUS__APPROVER_MUST_DIFFER", "True")
    if valid:
        answer(operator, ti, "Approve", dag_run=dag_run)
        assert run(apply_task(hard_plan, hard=True))["counts"]["deleted"] == 6
        return
    for task in (
        lambda: answer(operator, ti, "Approve", dag_run=dag_run),
        lambda: run(apply_task(hard_plan, hard=True)),
    ):
        with pytest.raises(AirflowFailException, match=r"^'alice' answered, who triggered the run"):
            task()


def test_manual_run_of_an_unknown_user_is_not_shown_if_approver_must_differ(page, hard_plan, monkeypatch):
    monkeypatch.setenv("AIRFLOW__TAVUS__APPROVER_MUST_DIFFER", "True")
    with pytest.raises(AirflowFailException, match="nobody can approve it"):
        run(approve(hard_plan))
    assert page == {}


def test_plan_that_was_not_shown_is_not_approved(page, hard_plan):
    ti = ask(approve(hard_plan))
    other = record_plan(with_digest(hard_plan, delete=hard_plan["delete"][:1]))
    with pytest.raises(
        AirflowFailException, match=r"^the plan is not the one that was shown: trigger a new run"
    ):
        answer(approve(other), ti, "Approve")
    with pytest.raises(AirflowFailException, match="no record of an approval of this plan"):
        run(apply_task(other, hard=True))


def test_answer_without_a_shown_plan_approves_nothing(hard_plan):
    ti = Ti()
    ti.task_id = "approve"
    with pytest.raises(AirflowFailException, match=r"^the ledger has no record that this task"):
        answer(approve(hard_plan), ti, "Approve")


def test_timeout_fails_the_task(page, hard_plan):
    operator = approve(hard_plan)
    ti = ask(operator)
    with pytest.raises(Exception, match="timeout"):
        operator.execute_complete({"ti": ti}, {"error": "timeout", "error_type": "timeout"})
    assert [record["kind"] for record in records()] == ["planned", "shown"]


@pytest.mark.parametrize("try_number", [2, 3])
def test_second_attempt_does_not_ask(page, hard_plan, try_number):
    with pytest.raises(AirflowFailException, match=r"^a second attempt cannot ask .*: trigger a new run$"):
        run(approve(hard_plan), Ti(try_number=try_number))
    assert page == {}


def test_plan_without_deletes_is_skipped(page, hard_plan):
    with pytest.raises(AirflowSkipException, match=r"^The plan deletes nothing, so no approval is needed\.$"):
        run(approve(record_plan(with_digest(hard_plan, delete=[]))))
    assert page == {}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda plan: plan | {"listed": 1}, "was changed after it was made", id="changed"),
        pytest.param(lambda plan: plan | {"delete": []}, "was changed after it was made", id="emptied"),
        pytest.param(
            lambda plan: record_plan(with_digest(plan, hard=False)),
            "must be the output of a plan task with hard=True",
            id="soft",
        ),
        pytest.param(lambda plan: with_digest(plan, hard=1), "must be true or false", id="hard-is-1"),
        pytest.param(str, "it is of type str", id="text"),
        pytest.param(lambda plan: None, "it is of type NoneType", id="none"),
        pytest.param(lambda plan: {}, "is missing", id="empty"),
    ],
)
def test_only_an_unchanged_plan_for_permanent_deletes_is_shown(page, hard_plan, change, message):
    with pytest.raises(AirflowFailException, match=message):
        run(approve(change(hard_plan)))
    assert page == {}


def test_stored_plan_is_shown_and_approved(page, sandbox, small_xcoms):
    reference = planned(hard=True)
    ti = ask(approve(reference))
    assert page["subject"] == "Delete 6 Tavus replicas permanently?"
    assert reference["digest"] in page["body"]
    answer(approve(reference), ti, "Approve")  # in another process than the one that asked
    assert run(apply_task(reference, hard=True))["counts"]["deleted"] == 6
