"""Show a plan for permanent deletes to a person, and wait for approval."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, cast

from airflow.providers.common.compat.sdk import AirflowSkipException, DownstreamTasksSkipped
from airflow.providers.standard.operators.hitl import ApprovalOperator

from tavus_provider.exceptions import PlanRejectedError, TavusValidationError
from tavus_provider.links.tavus import TavusPageLink
from tavus_provider.operators import base
from tavus_provider.operators.base import LINKS, fail_without_retry, find_trigger, load_any_plan, try_number
from tavus_provider.validity import PLAN_VALID_FOR

if TYPE_CHECKING:
    from airflow.sdk import Context
    from airflow.sdk.types import TaskInstanceKey

    from tavus_provider.planning.erasure import ErasurePlan
    from tavus_provider.rendering.approval import Inquiry
    from tavus_provider.storage.plan_store import AnyPlan

FIXED_ARGUMENTS: Final = ("defaults", "subject", "body", "assigned_users")
"""Arguments of ``ApprovalOperator`` that a DAG cannot set."""


class ApproveRetentionOperator(ApprovalOperator):
    """
    Show a plan for permanent deletes, of a policy or of an erasure, to a person, and wait for approval.

    The page, under Required Actions in the Airflow UI, is made from the stored plan with the digest in the
    XCom, which a plan task of the same run must have made. Before the task waits, the ledger records the
    digests of plan and shown text, and the text is stored; the answer is recorded with the user. An approval
    is valid only for that plan and this run. :class:`.ApplyErasureOperator`, and with ``hard=True``
    :class:`.ApplyRetentionOperator` and :class:`.DeleteReplicaOperator` demand it. Put this task between them
    and the plan.

    - *Approve* lets the tasks that follow run. *Reject* skips them.
    - If the plan deletes nothing, the task is skipped. It fails instead if replicas are overdue
      (``overdue_after``), because no task would say so otherwise.
    - A second attempt fails, because Airflow would show the page of the first one: trigger a new run.
    - Only the users in ``[tavus] approvers`` may answer; if it is empty, every user who may by Airflow.
      With ``[tavus] approver_must_differ``, who triggered the run may not approve it.

    :param plan: the output of a plan task with ``hard=True``, or of :class:`.PlanErasureOperator`; templated
    :param response_timeout: how long to wait; default: as long as a plan is valid (:data:`.PLAN_VALID_FOR`)
    :raises TavusValidationError: for an argument that would change the page, the answer or who may answer
    """

    operator_extra_links = LINKS
    template_fields = ("plan",)

    def __init__(self, *, plan: Any, response_timeout: timedelta = PLAN_VALID_FOR, **kwargs: Any) -> None:
        for name in FIXED_ARGUMENTS:
            if name in kwargs:
                raise TavusValidationError(
                    f"{name}: cannot be set. The page is made from the plan, the run fails without an "
                    "answer, and approvers in section [tavus] of the configuration sets who may approve"
                )
        super().__init__(
            subject="Delete Tavus replicas permanently?", response_timeout=response_timeout, **kwargs
        )
        self.plan = plan

    def execute(self, context: Context) -> Any:
        """Show the page and wait."""
        from tavus_provider.rendering.approval import Inquiry
        from tavus_provider.storage.authority import approver_must_differ, approvers

        with fail_without_retry(context):
            if try_number(context) > 1:
                raise PlanRejectedError(
                    "a second attempt cannot ask for approval, because Airflow would show the page of the "
                    "first: trigger a new run"
                )
            plan, authority = load_any_plan(self.plan, context)
            if plan["hard"] is not True:
                raise PlanRejectedError(
                    "plan: must be the output of a plan task with hard=True; no other plan can be approved"
                )
            if not plan["delete"]:
                if message := _overdue_message(plan):
                    raise PlanRejectedError(f"The plan deletes nothing. {message}")
                raise AirflowSkipException("The plan deletes nothing, so no approval is needed.")
            trigger = find_trigger(context)
            if approver_must_differ() and trigger.is_manual and trigger.user is None:
                raise PlanRejectedError(
                    "approver_must_differ in section tavus of the configuration is on, but Airflow does not "
                    "know who triggered this run, so nobody can approve it: trigger a new run as a user"
                )
            allowed = approvers()
            deadline = datetime.fromisoformat(plan["valid_until"])
            if self.response_timeout is not None:
                deadline = min(deadline, base.now() + self.response_timeout)
            inquiry = Inquiry(
                deadline=deadline,
                triggered_by=trigger.user,
                is_manual=trigger.is_manual,
                approvers=tuple(allowed),
                must_differ=approver_must_differ(),
                # A task instance has all fields of its key.
                all_rows=TavusPageLink().get_link(self, ti_key=cast("TaskInstanceKey", context["ti"])),
            )
            self.subject, self.body = _render(plan, inquiry)
            authority.record_shown(plan, subject=self.subject, body=self.body)
            self.assigned_users = [{"id": name, "name": name} for name in allowed] or None
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Record the answer, and skip the tasks that follow if it was *Reject*."""
        from tavus_provider.storage.authority import APPROVE, REJECT

        # Before Airflow's method, which leaves by an exception after some rejections.
        if event.get("chosen_options") in ([self.APPROVE], [self.REJECT]):
            with fail_without_retry(context):
                approved = event["chosen_options"] == [self.APPROVE]
                plan, authority = load_any_plan(self.plan, context)
                digest, objection = authority.record_answer(
                    APPROVE if approved else REJECT,
                    person=event.get("responded_by_user") or {},
                    answered_at=event["responded_at"].isoformat(),
                    trigger=find_trigger(context),
                )
                if approved and digest != plan["digest"]:
                    raise PlanRejectedError("the plan is not the one that was shown: trigger a new run")
                if approved and objection:
                    raise PlanRejectedError(f"{objection}. Nothing was deleted; trigger a new run")
        answer = super().execute_complete(context, event)
        if event.get("chosen_options") == [self.REJECT]:
            self._skip_in_mapped_group(context)
        return answer

    def _skip_in_mapped_group(self, context: Context) -> None:
        """
        Skip the tasks that follow in the same instance of a mapped task group, if this task is in one.

        Airflow 3.1 to 3.3 do not: they look for the answer of an approval that is not mapped. Without this,
        the tasks that follow would run and fail, because the plan was rejected.

        :raises DownstreamTasksSkipped: with these tasks, if there are any
        """
        if (group := self.get_closest_mapped_task_group()) is None:
            return
        following = [
            (task.task_id, context["ti"].map_index)
            for task in self.get_direct_relatives(upstream=False)
            if task.get_closest_mapped_task_group() is group and not task.is_teardown
        ]
        if following:
            raise DownstreamTasksSkipped(tasks=following)  # type: ignore[no-untyped-call]  # not annotated


def _overdue_message(plan: AnyPlan) -> str | None:
    """Return the sentences about overdue replicas in the plan of a policy, or ``None`` without any."""
    from tavus_provider.planning.overdue import find_overdue, overdue_message

    return None if "request" in plan else overdue_message(plan, find_overdue(plan))


def _render(plan: AnyPlan, inquiry: Inquiry) -> tuple[str, str]:
    """Return headline and page for a plan of a policy or of an erasure."""
    from tavus_provider.rendering.approval import approval_page, approval_subject
    from tavus_provider.rendering.erasure import erasure_page, erasure_subject

    if "request" in plan:
        erasure = cast("ErasurePlan", plan)
        return erasure_subject(erasure), erasure_page(erasure, inquiry)
    return approval_subject(plan), approval_page(plan, inquiry)
