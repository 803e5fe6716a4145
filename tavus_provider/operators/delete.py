"""Delete one replica, and look at it before."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from tavus_provider.exceptions import PlanRejectedError, ReplicaNotFoundError, TavusError
from tavus_provider.models import check_bool, check_replica_id
from tavus_provider.operators import base
from tavus_provider.operators.base import (
    TavusOperator,
    final_errors_do_not_retry,
    switch,
    task_identity,
    try_number,
)
from tavus_provider.outcomes import Outcome

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tavus_provider.planning.plan import Plan


class DeleteReplicaOperator(TavusOperator):
    """
    Delete one Tavus replica. There is no undelete, whether ``hard`` or not.

    Retries of the task are safe: a replica is deleted once, and what cannot be healed by a retry
    (a bad id, 400, 401, 403) fails at once, as does what the file ``[tavus] policy`` names as held. Use
    ``.expand(replica_id=[...])`` for a few replicas, and :class:`PlanRetentionOperator` with
    :class:`ApplyRetentionOperator` for many.

    The XCom is ``{"replica_id", "hard", "outcome", "detail"}`` with the outcome ``deleted``,
    ``confirmed`` (no clean answer, but a look-up shows it gone) or ``already_gone``.

    .. seealso:: https://docs.tavus.io/api-reference/phoenix-replica-model/delete-replica

    :param replica_id: id of the replica; templated
    :param hard: delete the training footage too; not templated, so that no trigger form can set it
    :param ignore_if_missing: succeed as ``already_gone`` where Tavus does not know the id; otherwise the
        task fails, because a typing error must not look like a success
    :param plan: the plan of this one replica that a person has approved, from
        :class:`LookUpReplicaOperator`: it is looked at once more, and not deleted if it is in use by now, is
        another than the one that was shown, or the time of the plan is up; templated
    :param approved_digest: ``approve.output["approved_digest"]``, the digest of that plan; templated
    :param tavus_conn_id: id of the Airflow connection; templated
    """

    template_fields: Sequence[str] = (
        "replica_id",
        "ignore_if_missing",
        "plan",
        "approved_digest",
        "tavus_conn_id",
    )

    def __init__(
        self,
        *,
        replica_id: str,
        hard: bool = False,
        ignore_if_missing: bool | str = False,
        plan: Any = None,
        approved_digest: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.approved_digest = approved_digest
        # A plan that was to come from another task and did not is not the same as none.
        self._needs_plan = plan is not None
        self.replica_id = replica_id
        self.hard = check_bool("hard", hard)
        self.ignore_if_missing = switch("ignore_if_missing", ignore_if_missing)

    def execute(self, context: Context) -> dict[str, Any]:
        """Delete the replica and say what came of it."""
        with final_errors_do_not_retry(), contextlib.closing(self.hook):
            replica_id = check_replica_id(self.replica_id)
            context["map_index_template"] = "{{ task.replica_id }}"
            ignore = check_bool("ignore_if_missing", self.ignore_if_missing)
            with self._recorded(context, replica_id) as (record, begun_before):
                self._look_again(replica_id, begun_before)
                try:
                    done = self.hook.delete_replica(replica_id, hard=self.hard)
                except ReplicaNotFoundError as error:
                    detail = f"{error}; the replica does not exist, is gone already, or is another account's"
                    if begun_before or try_number(context) > 1:
                        detail = f"{error}; possibly deleted by an earlier attempt of this task"
                    if not ignore and not begun_before:
                        raise ReplicaNotFoundError(
                            f"{detail}. If that is fine, set ignore_if_missing=True", status=error.status
                        ) from None
                    outcome = Outcome.ALREADY_GONE
                else:
                    outcome, detail = done.outcome, done.detail
                record[replica_id] = outcome
            self.log.info("%s: %s (%s)", outcome, replica_id, detail)
            return {"replica_id": replica_id, "hard": self.hard, "outcome": str(outcome), "detail": detail}

    def _look_again(self, replica_id: str, begun_before: bool) -> None:
        """Refuse what is held, and what is no longer as it was approved."""
        try:
            _refuse_if_held(replica_id)
            if self._needs_plan:
                self._refuse_if_changed(replica_id)
        except PlanRejectedError as error:
            if not begun_before:
                raise
            refusal = re.split(r"[.;] nothing was deleted", str(error), flags=re.IGNORECASE)[0]
        else:
            return
        raise PlanRejectedError(f"{refusal}; this try sent nothing, an earlier one may have deleted it")

    def _refuse_if_changed(self, replica_id: str) -> None:
        from tavus_provider.execution.inventory import evaluate_one
        from tavus_provider.execution.revalidation import difference

        plan = self.good_plan(self.plan, hard=self.hard, approved_digest=self.approved_digest)
        row = next((row for row in plan["delete"] if row["replica_id"] == replica_id), None)
        if row is None:
            raise PlanRejectedError(f"replica {replica_id} is not in the plan; nothing was deleted")
        verdict = evaluate_one(self.hook, replica_id, now=base.now, ignore_if_missing=True)
        if verdict.listed and (changed := difference(row, verdict.replica)):
            raise PlanRejectedError(
                f"replica {replica_id}: {changed}; nothing was deleted, trigger a new run"
            )

    @contextlib.contextmanager
    def _recorded(self, context: Context, replica_id: str) -> Iterator[tuple[dict[str, str], bool]]:
        """Record the intent before and the outcome after; tell if an earlier try may have sent its delete."""
        from tavus_provider.storage.ledger import job_name

        ledger, who = self.ledger, task_identity(context)
        if self.hard:
            ledger.require_shared("a permanent delete")
        work = job_name("delete", who["dag_id"], who["run_id"], who["task_id"], who["map_index"])
        tries = ledger.attempts(work)
        begun_before = any(
            replica_id in one.intended
            and one.outcomes.get(replica_id, Outcome.UNKNOWN)
            not in (Outcome.FAILED, Outcome.ALREADY_GONE, Outcome.NOT_ATTEMPTED)
            for one in tries
        )
        entry = ledger.begin_attempt(
            work,
            **who,
            hard=self.hard,
            intent=[replica_id],
            prior_attempts={one.name: one.last_digest for one in tries},
        )
        outcomes: dict[str, str] = {replica_id: Outcome.UNKNOWN}
        try:
            yield outcomes, begun_before
        except TavusError as error:
            outcomes[replica_id] = error.outcome
            raise
        finally:
            entry.close(outcomes=outcomes)


class LookUpReplicaOperator(TavusOperator):
    """
    Read one replica and what uses it, and refuse it if it may not be deleted by hand.

    The task fails for replicas that are not of the type ``user``, for replicas in use as a persona's default,
    in an active conversation or in an unfinished video, and for replicas that the file ``[tavus] policy``
    names as held. The XCom is a plan with this one replica, made for a permanent delete, so that
    :class:`ApproveRetentionOperator` can show it.

    :param replica_id: id of the replica; templated
    :param ignore_if_missing: go on where Tavus does not know the id (it may be soft-deleted); templated
    :param tavus_conn_id: id of the Airflow connection; templated
    """

    template_fields: Sequence[str] = ("replica_id", "ignore_if_missing", "tavus_conn_id")

    def __init__(self, *, replica_id: str, ignore_if_missing: bool | str = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.replica_id = replica_id
        self.ignore_if_missing = switch("ignore_if_missing", ignore_if_missing)

    def execute(self, context: Context) -> Plan:
        """Return the plan of one."""
        from tavus_provider.execution.inventory import MANUAL_POLICY, evaluate_one
        from tavus_provider.planning.plan import make_plan
        from tavus_provider.retention.engine import Decision

        with final_errors_do_not_retry(), contextlib.closing(self.hook):
            context["map_index_template"] = "{{ task.replica_id }}"
            ignore = check_bool("ignore_if_missing", self.ignore_if_missing)
            _refuse_if_held(check_replica_id(self.replica_id))
            verdict = evaluate_one(self.hook, self.replica_id, now=base.now, ignore_if_missing=ignore)
            self.log.info("%s: %s", verdict.replica.replica_id, verdict.reason)
            return make_plan(
                Decision((verdict,), MANUAL_POLICY.limits),
                MANUAL_POLICY,
                now=base.now(),
                hard=True,
                tavus_conn_id=self.tavus_conn_id,
                origin=self.hook.origin,
            )


def _refuse_if_held(replica_id: str) -> None:
    """Raise PlanRejectedError if the policy of the deployment, should it have one, holds this replica."""
    from airflow.configuration import conf

    location = conf.get("tavus", "policy", fallback="")
    if not location:
        return
    from tavus_provider.storage.policy_files import read_legal_holds, read_policy

    holds = read_policy(location).legal_holds
    if holds is not None and replica_id in read_legal_holds(holds, now=base.now()):
        raise PlanRejectedError(f"replica {replica_id} is under legal hold; nothing was deleted")
