"""Delete one replica, and look at it before."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from tavus_provider.exceptions import (
    PlanRejectedError,
    ReplicaNotFoundError,
    TavusError,
    TavusRetryableError,
)
from tavus_provider.models import check_bool, check_replica_id
from tavus_provider.operators import base
from tavus_provider.operators.base import (
    TavusOperator,
    check_bool_or_template,
    find_trigger,
    task_identity,
    try_number,
)
from tavus_provider.operators.metrics import send_outcomes, timed
from tavus_provider.outcomes import NOT_DELETED, Outcome

if TYPE_CHECKING:
    from airflow.sdk import Context

    from tavus_provider.execution.freshness import Freshness
    from tavus_provider.planning.plan import Plan, PlanRow
    from tavus_provider.storage.ledger import Ledger


@dataclass
class _Record:
    """
    The ledger record of this attempt.

    :param begun_before: whether an earlier attempt of this task may have deleted the replica
    """

    begun_before: bool
    outcome: Outcome = Outcome.UNKNOWN


class DeleteReplicaOperator(TavusOperator):
    """
    Delete one Tavus replica. This cannot be undone, with or without ``hard``.

    What was read of the replica, of legal holds and of erasures is at most 60 seconds old when the delete is
    sent: if it has to wait for a rate limit, they are read again.

    Retries of the task are safe: the replica is deleted at most once. An error that a retry cannot fix (an
    invalid id, 400, 401, 403, a legal hold of the deployment) fails without a retry. Use
    ``.expand(replica_id=[...])`` for a few replicas, and :class:`.PlanRetentionOperator` with
    :class:`.ApplyRetentionOperator` for many.

    The XCom is ``{"replica_id", "hard", "outcome", "detail"}``. The outcome is ``deleted``, ``confirmed`` (no
    clear response to the delete, but a later request shows that the replica is gone) or ``already_gone``.

    .. seealso:: https://docs.tavus.io/api-reference/phoenix-replica-model/delete-replica

    :param replica_id: id of the replica; templated
    :param hard: also delete the training footage; default: False; not templated, so that no trigger form can
        set it
    :param ignore_if_missing: succeed with ``already_gone`` if Tavus does not know the id; default: False,
        because a mistyped id must not look like a success; templated
    :param plan: a plan with this replica that a task of the same run made, such as
        :class:`LookUpReplicaOperator`; if ``hard``, a person must have approved it there. The replica is read
        again, and is not deleted if it is in use, has changed, or the plan has expired. Only the digest is
        taken from the XCom; templated
    :param tavus_conn_id: id of the Airflow connection; templated
    :param strict_conf: fail, before anything is read, if the run was triggered with a conf key that is no
        param of the DAG; default: False; not templated
    :raises TavusValidationError: if ``hard`` or ``ignore_if_missing`` is invalid
    """

    template_fields: Sequence[str] = ("replica_id", "ignore_if_missing", "plan", "tavus_conn_id")

    def __init__(
        self,
        *,
        replica_id: str,
        hard: bool = False,
        ignore_if_missing: bool | str = False,
        plan: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        # If the plan of another task is missing when this task runs, that is not the same as no plan.
        self._needs_plan = plan is not None
        self.replica_id = replica_id
        self.hard = check_bool("hard", hard)
        self.ignore_if_missing = check_bool_or_template("ignore_if_missing", ignore_if_missing)

    def execute(self, context: Context) -> dict[str, Any]:
        """Delete the replica, and return the outcome."""
        with self.running(context, label="{{ task.replica_id }}"):
            replica_id = check_replica_id(self.replica_id)
            ignore_if_missing = check_bool("ignore_if_missing", self.ignore_if_missing)
            with self._recorded(context, replica_id) as record:
                with _caveat(begun_before=record.begun_before):
                    freshness = self._check_replica(context, replica_id)
                try:
                    with timed("delete", tavus_conn_id=self.tavus_conn_id):
                        deletion = self.hook.delete_replica(
                            replica_id, hard=self.hard, before_send=lambda: freshness.confirm(replica_id)
                        )
                except TavusRetryableError:
                    if (objection := freshness.objections.get(replica_id)) is None:
                        raise
                    with _caveat(begun_before=record.begun_before):
                        raise PlanRejectedError(objection) from None
                except ReplicaNotFoundError as error:
                    detail = f"{error}; it does not exist, was already deleted, or belongs to another account"
                    if record.begun_before or try_number(context) > 1:
                        detail = f"{error}; possibly deleted by an earlier attempt of this task"
                    if not ignore_if_missing and not record.begun_before:
                        raise ReplicaNotFoundError(
                            f"{detail}. To accept a missing replica, set ignore_if_missing=True",
                            status=error.status,
                        ) from None
                    record.outcome = Outcome.ALREADY_GONE
                else:
                    record.outcome, detail = deletion.outcome, deletion.detail
            outcome = record.outcome.value
            self.log.info("%s: %s (%s)", outcome, replica_id, detail)
            return {"replica_id": replica_id, "hard": self.hard, "outcome": outcome, "detail": detail}

    def _check_replica(self, context: Context, replica_id: str) -> Freshness:
        """
        Refuse a replica that is held, belongs to an erasure, or is not as it was approved.

        :returns: checks it again before the delete is sent, if that has to wait
        """
        from tavus_provider.execution.freshness import Freshness

        started = base.monotonic()
        plan = row = None
        _refuse_if_held(replica_id)
        _refuse_if_erasure_is_open(self.ledger, replica_id)
        if self._needs_plan:
            authority = self.authority(context)
            plan = self.check_plan(self.plan, hard=self.hard, authority=authority)
            row = next((row for row in plan["delete"] if row["replica_id"] == replica_id), None)
            if row is None:
                raise PlanRejectedError(f"replica {replica_id} is not in the plan; nothing was deleted")
            self._refuse_if_changed(row)
            _refuse_beyond_limits(plan, replica_id, deleted=authority.begun_deletes())
            authority.record_deleting(plan, replica_id)
            # Again, because a task that runs at the same time may have recorded its delete meanwhile.
            _refuse_beyond_limits(plan, replica_id, deleted=authority.begun_deletes())
        return Freshness(
            lambda: self._find_objections(replica_id, row),
            valid_until=None if plan is None else datetime.fromisoformat(plan["valid_until"]),
            now=base.now,
            read_at=started,
            clock=base.monotonic,
        )

    def _find_objections(self, replica_id: str, row: PlanRow | None) -> dict[str, str]:
        """Read again what forbids the delete, and return why it must not be sent, if so."""
        try:
            _refuse_if_held(replica_id)
            _refuse_if_erasure_is_open(self.ledger, replica_id)
            if row is not None:
                self._refuse_if_changed(row)
        except PlanRejectedError as error:
            return {replica_id: str(error)}
        return {}

    def _refuse_if_changed(self, row: PlanRow) -> None:
        from tavus_provider.execution.inventory import evaluate_one
        from tavus_provider.execution.revalidation import difference

        replica_id = row["replica_id"]
        verdict = evaluate_one(self.hook, replica_id, now=base.now, ignore_if_missing=True)
        if verdict.listed and (changed := difference(row, verdict.replica)):
            raise PlanRejectedError(
                f"replica {replica_id}: {changed}; nothing was deleted, trigger a new run"
            )

    @contextlib.contextmanager
    def _recorded(self, context: Context, replica_id: str) -> Iterator[_Record]:
        """Write the intent to the ledger before the delete, and the outcome after it."""
        from tavus_provider.storage.ledger import job_name

        ledger, task = self.ledger, task_identity(context)
        if self.hard or self._needs_plan:
            ledger.require_shared("a permanent delete" if self.hard else "a delete with a plan")
        job = job_name("delete", task["dag_id"], task["run_id"], task["task_id"], task["map_index"])
        attempts = ledger.attempts(job)
        record = _Record(
            begun_before=any(
                replica_id in attempt.intended
                and attempt.outcomes.get(replica_id, Outcome.UNKNOWN) not in NOT_DELETED
                for attempt in attempts
            )
        )
        writer = ledger.begin_attempt(
            job,
            **task,
            hard=self.hard,
            triggered_by=find_trigger(context).user,
            intent=[replica_id],
            prior_attempts={attempt.name: attempt.last_digest for attempt in attempts},
        )
        try:
            yield record
        except TavusError as error:
            record.outcome = error.outcome
            raise
        finally:
            writer.close(outcomes={replica_id: record.outcome.value})
            send_outcomes([record.outcome.value], hard=self.hard, tavus_conn_id=self.tavus_conn_id)


class LookUpReplicaOperator(TavusOperator):
    """
    Read one replica and what uses it, and fail if it may not be deleted by hand.

    It may not if its type is not ``user``, if it is the default of a persona, in an active conversation or in
    an unfinished video, or if the deployment has it under legal hold. The XCom is a plan with
    this one replica, which :class:`.ApproveRetentionOperator` can show if it is for a permanent delete. The
    plan is stored, and the ledger records that this run made it.

    :param replica_id: id of the replica; templated
    :param permanent: whether the plan is for a permanent delete; default: True; templated. ``hard`` of
        ``DeleteReplicaOperator`` decides how it deletes; it refuses the other kind of plan
    :param ignore_if_missing: succeed if Tavus does not know the id, because the replica may be soft-deleted;
        default: False; templated
    :param tavus_conn_id: id of the Airflow connection; templated
    :param strict_conf: fail, before anything is read, if the run was triggered with a conf key that is no
        param of the DAG; default: False; not templated
    :raises TavusValidationError: if ``permanent`` or ``ignore_if_missing`` is invalid
    """

    template_fields: Sequence[str] = ("replica_id", "permanent", "ignore_if_missing", "tavus_conn_id")

    def __init__(
        self,
        *,
        replica_id: str,
        permanent: bool | str = True,
        ignore_if_missing: bool | str = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.permanent = check_bool_or_template("permanent", permanent)
        self.replica_id = replica_id
        self.ignore_if_missing = check_bool_or_template("ignore_if_missing", ignore_if_missing)

    def execute(self, context: Context) -> Plan:
        """Return the plan with this one replica."""
        from tavus_provider.execution.inventory import MANUAL_POLICY, evaluate_one
        from tavus_provider.planning.plan import make_plan
        from tavus_provider.retention.engine import Decision
        from tavus_provider.storage.plan_store import store

        with self.running(context, label="{{ task.replica_id }}"):
            ignore_if_missing = check_bool("ignore_if_missing", self.ignore_if_missing)
            _refuse_if_held(check_replica_id(self.replica_id))
            _refuse_if_erasure_is_open(self.ledger, self.replica_id)
            verdict = evaluate_one(
                self.hook, self.replica_id, now=base.now, ignore_if_missing=ignore_if_missing
            )
            self.log.info("%s: %s", verdict.replica.replica_id, verdict.reason)
            plan = make_plan(
                Decision((verdict,), MANUAL_POLICY.limits),
                MANUAL_POLICY,
                now=base.now(),
                hard=check_bool("permanent", self.permanent),
                tavus_conn_id=self.tavus_conn_id,
                origin=self.hook.origin,
            )
            self.ledger.require_shared("a delete with a plan")
            store(plan)
            self.authority(context).record_plan(plan)
            return plan


@contextlib.contextmanager
def _caveat(*, begun_before: bool) -> Iterator[None]:
    """Correct "nothing was deleted" in a rejection, if an earlier attempt may have deleted the replica."""
    try:
        yield
    except PlanRejectedError as error:
        if not begun_before:
            raise
        reason = re.split(r"[.;] nothing was deleted", str(error), flags=re.IGNORECASE)[0]
    else:
        return
    raise PlanRejectedError(
        f"{reason}; this attempt deleted nothing, but an earlier attempt may have deleted it"
    )


def _refuse_beyond_limits(plan: Plan, replica_id: str, *, deleted: Set[str]) -> None:
    """Raise PlanRejectedError if one more delete would exceed a limit of the plan, for the whole DAG run."""
    from tavus_provider.retention.policy import Policy

    planned = {row["replica_id"] for row in plan["delete"]}
    exceeded = Policy.parse(plan["policy"]).limits.exceeded(
        delete=len(deleted | {replica_id}),
        listed=plan["listed"],
        unlisted=len(deleted - planned),
        earlier=len(deleted - {replica_id}),
    )
    if exceeded is not None:
        raise PlanRejectedError(exceeded)


def _refuse_if_held(replica_id: str) -> None:
    """Raise PlanRejectedError if the deployment has this replica under legal hold."""
    from tavus_provider.keys import is_named
    from tavus_provider.storage.binding_holds import read_binding_holds

    if is_named(replica_id, read_binding_holds(now=base.now())):
        raise PlanRejectedError(f"replica {replica_id} is under legal hold; nothing was deleted")


def _refuse_if_erasure_is_open(ledger: Ledger, replica_id: str) -> None:
    """Raise PlanRejectedError if the replica belongs to an open request for an erasure."""
    from tavus_provider.keys import fold
    from tavus_provider.storage.erasures import open_erasures

    requests = {fold(key): request for key, request in open_erasures(ledger).items()}
    if request := requests.get(fold(replica_id)):
        raise PlanRejectedError(
            f"replica {replica_id} belongs to the erasure {request}, which is open and deletes it "
            "permanently with everything made with it: run tavus_erase_person, or add "
            f"{ledger.tavus_conn_id}/{request} to closed_erasures in section tavus of the configuration; "
            "nothing was deleted"
        )
