"""Replicas that are older than a policy allows and still there."""

from __future__ import annotations

from collections.abc import Sequence, Set
from datetime import datetime, timedelta
from typing import Final

from tavus_provider.keys import is_named
from tavus_provider.outcomes import ABSENT
from tavus_provider.planning.plan import OverdueRow, Plan, PlanRow
from tavus_provider.planning.report import Report, ReportItem
from tavus_provider.retention.fields import Duration

_MAX_NAMED: Final = 10


def find_overdue(
    plan: Plan,
    report: Report | None = None,
    *,
    listed: Set[str] | None = None,
    held: frozenset[str] = frozenset(),
) -> list[OverdueRow]:
    """
    Return the replicas that are overdue, the oldest first.

    :param report: what became of the plan, with all items. Planned replicas that may still exist are then
        overdue too, if they are old enough. ``None`` before the plan is carried out
    :param listed: the ids that were listed after the plan was made; ``None`` if not read again
    :param held: ids under legal hold, as read last; they are never overdue
    """
    rows = [row for row in plan.get("overdue", ()) if listed is None or row["replica_id"] in listed]
    limit = _limit(plan)
    if limit is not None and report is not None:
        planned = {row["replica_id"]: row for row in plan["delete"]}
        rows += [
            _to_row(planned[item["replica_id"]], item)
            for item in report["items"]
            if item["outcome"] not in ABSENT and _is_older(planned[item["replica_id"]], plan, limit)
        ]
        rows.sort(key=lambda row: (-(row["age_days"] or 0), row["replica_id"]))
    return [row for row in rows if not is_named(row["replica_id"], held)]


def overdue_message(plan: Plan, rows: Sequence[OverdueRow]) -> str | None:
    """Return the sentences about overdue replicas, with what a person can do, or ``None`` without any."""
    limit = _limit(plan)
    if limit is None:
        return None
    return describe_overdue(rows, after=limit, left_out=plan.get("left_out", {}).get("overdue", 0))


def describe_overdue(rows: Sequence[OverdueRow], *, after: Duration, left_out: int = 0) -> str | None:
    """
    Return what :func:`overdue_message` does.

    :param after: ``overdue_after`` of the policy
    :param left_out: how many more there are
    """
    count = len(rows) + left_out
    if not count:
        return None
    named = ", ".join(f"{row['replica_id']} ({_describe(row)})" for row in rows[:_MAX_NAMED])
    more = f" and {count - _MAX_NAMED:,} more" if count > _MAX_NAMED else ""
    return (
        f"{count:,} replica{'s' * (count != 1)} older than overdue_after ({after}) "
        f"{'is' if count == 1 else 'are'} still there: {named}{more}. Remove what keeps each of them, "
        "delete it with the DAG tavus_delete_replica, put it under a legal hold, or raise overdue_after"
    )


def _describe(row: OverdueRow) -> str:
    age = "" if row["age_days"] is None else f"{row['age_days']:,} days old: "
    return f"{age}{row['reason']}"


def _to_row(row: PlanRow, item: ReportItem) -> OverdueRow:
    reason = f"{item['outcome'].replace('_', ' ')}: {item['detail']}"
    return {"replica_id": row["replica_id"], "reason": reason, "age_days": row["age_days"]}


def _is_older(row: PlanRow, plan: Plan, limit: Duration) -> bool:
    if row["created_at"] is None:
        return False
    return _age(row["created_at"], plan) >= limit.delta


def _age(created_at: str, plan: Plan) -> timedelta:
    return datetime.fromisoformat(plan["made_at"]) - datetime.fromisoformat(created_at)


def _limit(plan: Plan) -> Duration | None:
    written = plan["policy"].get("overdue_after")
    return None if written is None else Duration.parse(written)
