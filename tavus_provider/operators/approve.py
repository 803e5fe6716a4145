"""Approve: show a person exactly one plan, and wait."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.providers.standard.operators.hitl import ApprovalOperator

from tavus_provider.exceptions import PlanRejectedError, TavusValidationError
from tavus_provider.operators.base import (
    LINKS,
    final_errors_do_not_retry,
    opened,
    push,
    task_identity,
    try_number,
)

if TYPE_CHECKING:
    from airflow.sdk import Context


class ApproveRetentionOperator(ApprovalOperator):
    """
    Show a person a plan for permanent deletes, and wait.

    The page, under Required Actions in the Airflow UI, is made of the plan that this task is handed,
    and an approval counts for its digest only: pass ``approve.output["approved_digest"]`` on to
    :class:`ApplyRetentionOperator`, or, where the plan is of one replica, ``approved_replica_id`` to
    :class:`DeleteReplicaOperator` too. Reject skips what follows; no answer fails the run; with nothing to
    delete the task is skipped. A second try of this task fails, because Airflow would show the page of
    the first: trigger a new run. Only those named in ``[tavus] approvers`` may answer, if any are.

    :param plan: the output of a plan task with ``hard=True``
    :param response_timeout: how long to wait; 24 hours, as long as a plan is good, unless set
    """

    operator_extra_links = LINKS
    template_fields = ("plan",)

    def __init__(
        self, *, plan: Any, response_timeout: timedelta = timedelta(hours=24), **kwargs: Any
    ) -> None:
        for fixed in ("defaults", "subject", "body", "assigned_users"):
            if fixed in kwargs:
                raise TavusValidationError(
                    f"{fixed} cannot be given: the page is made of the plan, silence fails the run, and who "
                    "may approve is set by approvers in section [tavus] of the configuration"
                )
        super().__init__(
            subject="Delete Tavus replicas permanently?", response_timeout=response_timeout, **kwargs
        )
        self.plan = plan

    def execute(self, context: Context) -> Any:
        """Show the page and wait."""
        from tavus_provider.rendering.approval import approval_page, approval_subject

        with final_errors_do_not_retry():
            if try_number(context) > 1:
                raise PlanRejectedError(
                    "an approval is asked for once, a second page could show another plan: trigger a new run"
                )
            self.plan = opened(self.plan)
            digest = self._digest()
            if not self.plan["delete"]:
                raise AirflowSkipException("Nothing to delete, so nobody is asked.")
            self.subject, self.body = approval_subject(self.plan), approval_page(self.plan)
            self.assigned_users = _approvers()
            push(context, "shown_digest", digest)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        """Pass the digest on if this very plan was approved."""
        answer = super().execute_complete(context, event)
        if event["chosen_options"] == [self.APPROVE]:
            with final_errors_do_not_retry():
                self.plan = opened(self.plan)
                shown = context["ti"].xcom_pull(task_ids=self.task_id, key="shown_digest")
                if shown is None or shown != self._digest():
                    raise PlanRejectedError("the plan is not the one that was shown: trigger a new run")
                self._record(context, event)
                push(context, "approved_digest", shown)
                if len(self.plan["delete"]) == 1:
                    push(context, "approved_replica_id", self.plan["delete"][0]["replica_id"])
        return answer

    def _record(self, context: Context, event: Mapping[str, Any]) -> None:
        from tavus_provider.storage.ledger import Ledger, job_name

        by = event.get("responded_by_user") or {}
        entry = Ledger(self.plan["origin"], self.plan["tavus_conn_id"]).begin_attempt(
            job_name("plan", self.plan["digest"]),
            **task_identity(context),
            hard=True,
            plan_digest=self.plan["digest"],
            policy_digest=self.plan["policy_digest"],
            approved_by=str(by.get("id")),
        )
        entry.close()

    def _digest(self) -> str:
        from tavus_provider.digest import digest_of

        if isinstance(self.plan, dict) and self.plan.get("hard") is True:
            digest = digest_of(self.plan)
            if digest == self.plan.get("digest"):
                return digest
        raise PlanRejectedError(
            "plan is not the unchanged output of a plan task with hard=True, and only such a plan is approved"
        )


def _approvers() -> list[Any] | None:
    from airflow.configuration import conf

    names = [name.strip() for name in conf.get("tavus", "approvers", fallback="").split(",")]
    return [{"id": name, "name": name} for name in names if name] or None
