"""Approve a plan: the page, the answers, and which plans are shown."""

from __future__ import annotations

from datetime import timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException
from operators.tasks import EXPIRED, Ti, planned, run, with_digest

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.operators.tavus import ApproveRetentionOperator


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


def ask(operator, ti=None):
    """Execute the task until it waits, and return its task instance."""
    ti = ti or Ti()
    with pytest.raises(waiting()) as caught:
        run(operator, ti)
    assert caught.value.method_name == "execute_complete"
    return ti


def answer(operator, ti, option):
    """Resume the task with an answer of the user alice."""
    from airflow.sdk.timezone import utcnow

    event = {
        "chosen_options": [option],
        "params_input": {},
        "responded_at": utcnow(),
        "responded_by_user": {"id": "alice", "name": "alice"},
    }
    return operator.execute_complete({"ti": ti, "task_instance": ti, "task": operator}, event)


@pytest.mark.parametrize("fixed", ["defaults", "subject", "body", "assigned_users"])
def test_dag_cannot_set_the_page_the_answer_or_the_approvers(fixed):
    with pytest.raises(TavusValidationError, match=f"^{fixed}: cannot be set. The page is made"):
        approve({}, **{fixed: "Approve"})


def test_page_is_made_from_the_plan_and_its_digest_is_pushed(page, hard_plan):
    ti = ask(approve(hard_plan))
    assert ti.pushed == {"shown_digest": hard_plan["digest"]}
    assert page["subject"] == "Delete 6 Tavus replicas permanently?"
    assert hard_plan["digest"] in page["body"]
    assert all(f"| {replica_id} |" in page["body"] for replica_id in EXPIRED)
    assert (page["options"], page["defaults"], page["assigned_users"]) == (["Approve", "Reject"], None, None)


def test_only_configured_approvers_may_answer(page, hard_plan, monkeypatch):
    monkeypatch.setenv("AIRFLOW__TAVUS__APPROVERS", " alice, bob ,")
    ask(approve(hard_plan))
    assert page["assigned_users"] == [{"id": "alice", "name": "alice"}, {"id": "bob", "name": "bob"}]


def test_response_timeout_is_a_day_by_default(hard_plan):
    assert approve(hard_plan).response_timeout == timedelta(hours=24)
    assert approve(hard_plan, response_timeout=timedelta(hours=1)).response_timeout == timedelta(hours=1)


def test_approval_pushes_the_digest_that_was_shown(page, hard_plan):
    operator = approve(hard_plan)
    ti = ask(operator)
    answer(operator, ti, "Approve")
    assert ti.pushed["approved_digest"] == hard_plan["digest"]


def test_rejection_pushes_no_digest(page, hard_plan):
    operator = approve(hard_plan)
    ti = ask(operator)
    answer(operator, ti, "Reject")
    assert "approved_digest" not in ti.pushed


def test_plan_that_was_not_shown_is_not_approved(page, hard_plan):
    ti = ask(approve(hard_plan))
    other = with_digest(hard_plan, delete=hard_plan["delete"][:1])
    with pytest.raises(
        AirflowFailException, match=r"^the plan is not the one that was shown: trigger a new run"
    ):
        answer(approve(other), ti, "Approve")
    assert "approved_digest" not in ti.pushed


def test_answer_without_a_shown_plan_approves_nothing(hard_plan):
    ti = Ti()
    ti.task_id = "approve"
    with pytest.raises(AirflowFailException, match=r"^the plan is not the one that was shown"):
        answer(approve(hard_plan), ti, "Approve")


def test_timeout_fails_the_task(page, hard_plan):
    operator = approve(hard_plan)
    ti = ask(operator)
    with pytest.raises(Exception, match="timeout"):
        operator.execute_complete({"ti": ti}, {"error": "timeout", "error_type": "timeout"})
    assert "approved_digest" not in ti.pushed


@pytest.mark.parametrize("try_number", [2, 3])
def test_second_attempt_does_not_ask(page, hard_plan, try_number):
    with pytest.raises(AirflowFailException, match=r"^a second attempt cannot ask .*: trigger a new run$"):
        run(approve(hard_plan), Ti(try_number=try_number))
    assert page == {}


def test_plan_without_deletes_is_skipped(page, hard_plan):
    with pytest.raises(AirflowSkipException, match=r"^The plan deletes nothing, so no approval is needed\.$"):
        run(approve(with_digest(hard_plan, delete=[])))
    assert page == {}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda plan: plan | {"listed": 1}, id="changed"),
        pytest.param(lambda plan: plan | {"delete": []}, id="emptied"),
        pytest.param(lambda plan: with_digest(plan, hard=False), id="soft"),
        pytest.param(lambda plan: with_digest(plan, hard=1), id="hard-is-1"),
        pytest.param(str, id="text"),
        pytest.param(lambda plan: None, id="none"),
        pytest.param(lambda plan: {}, id="empty"),
    ],
)
def test_only_an_unchanged_plan_for_permanent_deletes_is_shown(page, hard_plan, change):
    with pytest.raises(
        AirflowFailException, match=r"^plan: must be the unchanged output of a plan task with hard=True"
    ):
        run(approve(change(hard_plan)))
    assert page == {}


def test_stored_plan_is_shown_and_approved(page, sandbox, small_xcoms):
    reference = planned(hard=True)
    ti = ask(approve(reference))
    assert page["subject"] == "Delete 6 Tavus replicas permanently?"
    assert reference["digest"] in page["body"]
    answer(approve(reference), ti, "Approve")  # in another process than the one that asked
    assert ti.pushed["approved_digest"] == reference["digest"]
