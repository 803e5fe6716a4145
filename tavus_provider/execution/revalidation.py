"""
Decide which rows of a plan are still valid.

Pure functions: they compare a plan with a decision that was made from a fresh inventory. A plan can only get
smaller here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from tavus_provider.keys import is_named
from tavus_provider.models import Replica, UnreadableRow
from tavus_provider.outcomes import ABSENT, GONE, Outcome
from tavus_provider.planning.attempts import PriorAttempts
from tavus_provider.planning.plan import Plan, PlanRow
from tavus_provider.planning.report import Result
from tavus_provider.retention.engine import Decision
from tavus_provider.retention.verdict import Verdict
from tavus_provider.sanitize import escape_line

MIN_MISSING: Final = 5
"""Fewer missing replicas than this are not taken as a sign of a wrong account."""

BY_EARLIER_ATTEMPT: Final = "by an earlier attempt of this task"


@dataclass(frozen=True, slots=True)
class Revalidation:
    """
    Which rows are deleted, and what became of the others.

    :param to_delete: the rows that are still valid, in the order of the plan
    :param settled: the result of each other row, by id
    :param unlisted: ids in ``to_delete`` that Tavus does not list, so that their absence later proves nothing
    :param absent: ids in ``settled`` whose result rests only on their absence from the list
    """

    to_delete: Sequence[PlanRow]
    settled: Mapping[str, Result]
    unlisted: frozenset[str]
    absent: frozenset[str]


def revalidate(
    plan: Plan,
    rows: Sequence[PlanRow],
    decision: Decision,
    *,
    prior: PriorAttempts,
    soft_deleted: Set[str] = frozenset(),
    held: frozenset[str] = frozenset(),
) -> Revalidation:
    """
    Compare planned rows with a fresh decision.

    :param plan: the plan that the rows are from
    :param rows: the rows that this task carries out
    :param decision: made with the plan's policy from an inventory that was read for this task
    :param prior: what earlier attempts recorded
    :param soft_deleted: ids that this package soft-deleted. If one is missing, its training footage still
        exists, so a planned permanent delete is sent
    :param held: ids under legal hold
    """
    verdicts = {verdict.replica.replica_id: verdict for verdict in decision.verdicts}
    unreadable = {replica_id: row for row in decision.unreadable for replica_id in row.own_ids}
    hides_ids = any(row.hides_its_id for row in decision.unreadable)
    to_delete: list[PlanRow] = []
    settled: dict[str, Result] = {}
    unlisted = set()
    absent = set()
    for row in rows:
        replica_id = row["replica_id"]
        verdict = verdicts.get(replica_id)
        if replica_id in unreadable:
            settled[replica_id] = _settle_unreadable(replica_id, unreadable[replica_id], prior=prior)
        elif result := _settle(row, verdict, hard=plan["hard"], hides_ids=hides_ids, prior=prior):
            settled[replica_id] = result
            is_absent = verdict is None and result.outcome is Outcome.ALREADY_GONE
            # An outcome of an earlier attempt shows it other than by the absence from a list.
            if is_absent and prior.own.get(replica_id) not in ABSENT:
                if not plan["hard"] or replica_id not in soft_deleted:
                    absent.add(replica_id)
                elif is_named(replica_id, held):
                    settled[replica_id] = Result(Outcome.SKIPPED, "under legal hold")
                else:
                    del settled[replica_id]
                    to_delete.append(row)
                    unlisted.add(replica_id)
        else:
            to_delete.append(row)
            if verdict is not None and not verdict.listed:
                unlisted.add(replica_id)
    return Revalidation(to_delete, settled, frozenset(unlisted), frozenset(absent))


def _settle_unreadable(replica_id: str, row: UnreadableRow, *, prior: PriorAttempts) -> Result:
    """Return the result of a planned replica whose row in the listing cannot be read: it is not deleted."""
    done = prior.own.get(replica_id)
    if done in GONE:  # verification finds that it is still listed
        return Result(done, BY_EARLIER_ATTEMPT)
    return Result(Outcome.SKIPPED, f"its row in the listing cannot be read: {escape_line(row.reason)}")


def _settle(
    row: PlanRow, verdict: Verdict | None, *, hard: bool, hides_ids: bool, prior: PriorAttempts
) -> Result | None:
    """
    Return the result of a row that is not deleted; ``None`` if it is to be deleted.

    :param hides_ids: whether a row of the listing shows no id, so that a missing replica may still be listed
    """
    replica_id = row["replica_id"]
    done = prior.own.get(replica_id)
    # A soft delete is not sent twice. If the replica is still listed, verification finds out.
    if done in GONE and (verdict is None or not hard):
        return Result(done, BY_EARLIER_ATTEMPT)
    if done is Outcome.ALREADY_GONE and not hard:
        return Result(done, describe_absence(replica_id, "Tavus did not know it", prior=prior))
    if verdict is None and hides_ids:
        problem = "is missing from the listing, which has a row without a readable id, so it may still exist"
        return Result(Outcome.SKIPPED, describe_absence(replica_id, problem, prior=prior))
    if verdict is None:
        detail = describe_absence(replica_id, "is no longer listed", prior=prior)
        return Result(Outcome.ALREADY_GONE, detail)
    if reason := _reason_to_skip(row, verdict):
        return Result(Outcome.SKIPPED, reason)
    return None


def _reason_to_skip(row: PlanRow, verdict: Verdict) -> str | None:
    if verdict.listed and (changed := difference(row, verdict.replica)):
        return changed
    return None if verdict.status == "expired" else f"no longer expired: {verdict.reason}"


def difference(row: PlanRow, replica: Replica) -> str | None:
    """Return how a replica differs from the planned one, if it does: its id may have been reused."""
    if replica.replica_type != "user":
        return f"replica_type is now {ascii(replica.replica_type)[:40]}"
    if replica.replica_name != row["replica_name"]:
        return "replica_name changed since the plan was made"
    if not _is_same_time(row["created_at"], replica.created_at):
        return "created_at changed since the plan was made"
    return None


def _is_same_time(planned: str | None, now: datetime | None) -> bool:
    """Whether two dates are equal to the second: a list and a look-up may give fractions differently."""
    if planned is None or now is None:
        return planned is None and now is None
    return abs(datetime.fromisoformat(planned) - now) < timedelta(seconds=1)


def describe_absence(replica_id: str, detail: str, *, prior: PriorAttempts) -> str:
    """Return the detail of a replica that is already gone; adds that this task may have deleted it before."""
    if prior.may_have_deleted(replica_id):
        return f"{detail}; possibly deleted {BY_EARLIER_ATTEMPT}"
    return detail


def find_wrong_account(plan: Plan, rows: Sequence[PlanRow], *, known: Set[str]) -> str | None:
    """
    Return why the connection seems to point to another account, if it does.

    It does if the whole plan is missing, or at least five rows and more than half of the plan or of the rows
    of this task, although no task has begun to delete them. Rows with the source ``soft_deleted`` do not
    count as missing: Tavus may not list them.

    :param known: ids that Tavus lists, or that an attempt recorded
    """
    for some in (rows, plan["delete"]):
        missing = sum(row["replica_id"] not in known and row["source"] != "soft_deleted" for row in some)
        if missing >= MIN_MISSING and 2 * missing > len(some):
            return (
                f"{missing} of {len(some)} planned replicas are no longer listed, and no task has begun to "
                "delete them: either the connection points to another account, or they were deleted by other "
                "means. Nothing was deleted; make a new plan"
            )
    expected = [row["replica_id"] for row in plan["delete"] if row["source"] != "soft_deleted"]
    if expected and known.isdisjoint(expected):
        return (
            f"all {len(expected)} planned replicas are no longer listed, and the ledger shows no run that "
            "deleted them: either the connection points to another account, or they were deleted by other "
            "means. Nothing was deleted; make a new plan"
        )
    return None


def find_exceeded_limit(
    plan: Plan,
    rows: Sequence[PlanRow],
    decision: Decision,
    to_delete: Sequence[PlanRow],
    *,
    prior: PriorAttempts,
) -> str | None:
    """
    Return which limit of the policy would be exceeded now, if one would.

    Limits apply to the whole DAG run. Replicas that its earlier attempts deleted, or may have, and all rows
    of other batches count as if they were still to be deleted.

    :param rows: the rows that this task carries out
    :param decision: made without the replicas of other batches
    :param to_delete: the rows that are still valid
    """
    known = {verdict.replica.replica_id for verdict in decision.verdicts}
    own = {row["replica_id"] for row in rows}
    deleted = {
        replica_id for replica_id, done in prior.own.items() if replica_id not in known or done in GONE
    } - {row["replica_id"] for row in to_delete}
    earlier = [row for row in rows if row["replica_id"] in deleted]
    others = [row for row in plan["delete"] if row["replica_id"] not in own]
    counted = prior.deleted_in_run | {row["replica_id"] for row in (*to_delete, *earlier, *others)}
    listed = {verdict.replica.replica_id for verdict in decision.verdicts if verdict.listed}
    return decision.limits.exceeded(
        delete=len(counted),
        listed=decision.listed,
        unlisted=len(counted - listed),
        undetermined=len(decision.undetermined),
        unreadable=len(decision.unreadable),
        earlier=len(prior.deleted_in_run - {row["replica_id"] for row in to_delete}),
    )
