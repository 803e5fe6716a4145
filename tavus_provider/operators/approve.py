"""Show a plan for permanent deletes to a person, and wait for approval."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.providers.standard.operators.hitl import ApprovalOperator

from tavus_provider.exceptions import PlanRejectedError, TavusValidationError
from tavus_provider.operators.base import LINKS, fail_without_retry, push_xcom, task_identity, try_number

if TYPE_CHECKING:
    from airflow.sdk import Context

FIXED_ARGUMENTS: Final = ("defaults", "subject", "body", "assigned_users")
"""Arguments of ``ApprovalOperator`` that a DAG cannot set."""


class ApproveRetentionOperator(ApprovalOperator):
    """
    Show a plan for permanent deletes to a person, and wait for approval.

    The page, under Required Actions in the Airflow UI, is made from the plan that this task gets. An approval
    is valid only for the digest of that plan: pass ``approve.output["approved_digest"]`` to
    :class:`.ApplyRetentionOperator`. For a plan with one replica, the XCom ``approved_replica_id`` is its id,
    for :class:`.DeleteReplicaOperator`.

    - *Approve* pushes these XComs. *Reject* skips the tasks that follow. Without an answer the task fails.
    - If the plan deletes nothing, the task is skipped.
    - A second attempt fails, because Airflow would show the page of the first one: trigger a new run.
    - Only the users in ``[tavus] approvers`` may answer; if it is empty, every user who may by Airflow.

    :param plan: the output of a plan task with ``hard=True``; templated
    :param response_timeout: how long to wait; default: 24 hours, which is how long a plan is valid
    :raises TavusValidationError: for an argument that would change the page, the answer or who may answer
    """

    operator_extra_links = LINKS
    template_fields = ("plan",)

    def __init__(
        self, *, plan: Any, response_timeout: timedelta = timedelta(hours=24), **kwargs: Any
    ) -> None:
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
        from tavus_provider.rendering.approval import approval_page, approval_subject

        with fail_without_retry():
            if try_number(context) > 1:
                raise PlanRejectedError(
                    "a second attempt cannot ask for approval, because Airflow would show the page of the "
                    "first: trigger a new run"
                )
            digest = self._load_plan()
            if not self.plan["delete"]:
                raise AirflowSkipException("The plan deletes nothing, so no approval is needed.")
            self.subject, self.body = approval_subject(self.plan), approval_page(self.plan)
            self.assigned_users = _approvers()
            push_xcom(context, "shown_digest", digest)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Push the digest if the plan that was shown was approved."""
        answer = super().execute_complete(context, event)
        if event["chosen_options"] == [self.APPROVE]:
            with fail_without_retry():
                digest = self._load_plan()
                shown = context["ti"].xcom_pull(task_ids=self.task_id, key="shown_digest")
                if shown is None or shown != digest:
                    raise PlanRejectedError("the plan is not the one that was shown: trigger a new run")
                self._record(context, event)
                push_xcom(context, "approved_digest", shown)
                if len(self.plan["delete"]) == 1:
                    push_xcom(context, "approved_replica_id", self.plan["delete"][0]["replica_id"])
        return answer

    def _load_plan(self) -> str:
        """Replace a reference to a stored plan by the plan, and return the digest of its content."""
        from tavus_provider.digest import digest_of
        from tavus_provider.storage.plan_store import from_xcom

        self.plan = from_xcom(self.plan)
        if isinstance(self.plan, dict) and self.plan.get("hard") is True:
            digest = digest_of(self.plan)
            if digest == self.plan.get("digest"):
                return digest
        raise PlanRejectedError(
            "plan: must be the unchanged output of a plan task with hard=True; no other plan can be approved"
        )

    def _record(self, context: Context, event: Mapping[str, Any]) -> None:
        from tavus_provider.storage.ledger import Ledger, job_name

        user = event.get("responded_by_user") or {}
        writer = Ledger(self.plan["origin"], self.plan["tavus_conn_id"]).begin_attempt(
            job_name("plan", self.plan["digest"]),
            **task_identity(context),
            hard=True,
            plan_digest=self.plan["digest"],
            policy_digest=self.plan["policy_digest"],
            approved_by=str(user.get("id")),
        )
        writer.close()


def _approvers() -> list[Any] | None:
    from airflow.configuration import conf

    names = [name.strip() for name in conf.get("tavus", "approvers", fallback="").split(",")]
    return [{"id": name, "name": name} for name in names if name] or None
