"""The ``difference`` document: what changed since the plan before, for people and for the page."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Literal, NotRequired, TypedDict, cast

from tavus_provider.planning.documents import find_mismatch
from tavus_provider.planning.verdicts import Verdicts
from tavus_provider.retention.engine import Decision
from tavus_provider.retention.verdict import ReasonCode, Status, Verdict

MAX_ROWS: Final = 200
"""The largest number of rows of one kind. ``counts`` are complete."""

_DUE: Final = frozenset({Status.EXPIRED, Status.SCHEDULED})


class DifferenceRow(TypedDict):
    """
    A replica about which the two plans differ.

    ``reason`` is that of this plan; for a replica that is gone, that of the plan before.
    """

    replica_id: str
    replica_name: str | None
    reason: str
    by_use: NotRequired[bool]


class Difference(TypedDict):
    """
    How a plan differs from the one before it: of the same DAG, task and account.

    ``new`` are replicas to be deleted that were not in the plan before. ``saved`` were to be deleted or
    scheduled there, and are now kept; ``by_use`` says whether because they were used. ``gone`` are no longer
    listed. ``counts`` has their numbers, those saved by use, and the ``unchanged`` deletes. A document
    without a plan to compare with has only ``notice``, which says why.
    """

    version: Literal[1]
    made_at: NotRequired[str]
    """When the plan before was made."""
    same_policy: NotRequired[bool]
    """Whether both plans have the same policy and the same choices of a trigger form."""
    counts: NotRequired[dict[str, int]]
    new: NotRequired[list[DifferenceRow]]
    saved: NotRequired[list[DifferenceRow]]
    gone: NotRequired[list[DifferenceRow]]
    notice: NotRequired[str]


class _PlanBefore(TypedDict):
    """What is read of the plan before, which is a plan or a reference to one."""

    made_at: str
    policy_digest: str
    tavus_conn_id: str
    origin: str


def make_difference(
    decision: Decision,
    plan: Mapping[str, Any],
    *,
    plan_before: object,
    verdicts_before: object,
) -> Difference:
    """
    Return how a decision differs from the verdicts of the plan before.

    :param plan: the plan of the decision
    :param plan_before: the XCom ``return_value`` of the plan task in the run before, as it was pulled
    :param verdicts_before: its XCom ``verdicts``
    """
    if plan_before is None:
        return _without("There is no plan before this one")
    if find_mismatch(plan_before, _PlanBefore, name="plan") or find_mismatch(
        verdicts_before, Verdicts, name="verdicts"
    ):
        return _without("The plan before this one cannot be read")
    before, verdicts = cast("_PlanBefore", plan_before), cast("Verdicts", verdicts_before)
    if (before["tavus_conn_id"], before["origin"]) != (plan["tavus_conn_id"], plan["origin"]):
        return _without("The plan before this one is of another account")
    if verdicts.get("notice"):
        return _without("The plan before this one has too many verdicts to compare with")
    known = {row["replica_id"]: row for row in verdicts["rows"]}
    now = {verdict.replica.replica_id: verdict for verdict in decision.verdicts}
    was_due = {replica_id for replica_id, row in known.items() if row["status"] in _DUE}
    was_expired = {replica_id for replica_id, row in known.items() if row["status"] == Status.EXPIRED}
    new = [_row(verdict) for verdict in decision.delete if verdict.replica.replica_id not in was_expired]
    saved: list[DifferenceRow] = [
        {**_row(verdict), "by_use": _is_used_since(verdict, before["made_at"])}
        for verdict in decision.verdicts
        if verdict.replica.replica_id in was_due and verdict.status not in _DUE
    ]
    gone: list[DifferenceRow] = [
        {"replica_id": replica_id, "replica_name": row["replica_name"], "reason": row["reason"]}
        for replica_id, row in known.items()
        if replica_id not in now
    ]
    return {
        "version": 1,
        "made_at": before["made_at"],
        "same_policy": before["policy_digest"] == plan["policy_digest"],
        "counts": {
            "new": len(new),
            "saved": len(saved),
            "saved_by_use": sum(row["by_use"] for row in saved),
            "gone": len(gone),
            "unchanged": len(decision.delete) - len(new),
        },
        "new": new[:MAX_ROWS],
        "saved": saved[:MAX_ROWS],
        "gone": gone[:MAX_ROWS],
    }


def _row(verdict: Verdict) -> DifferenceRow:
    return {
        "replica_id": verdict.replica.replica_id,
        "replica_name": verdict.replica.replica_name,
        "reason": verdict.reason,
    }


def _is_used_since(verdict: Verdict, made_at: str) -> bool:
    """Return whether a replica is in use, or was used after the plan before was made."""
    if verdict.reason_code == ReasonCode.IN_USE:
        return True
    try:
        return verdict.last_used_at is not None and verdict.last_used_at > datetime.fromisoformat(made_at)
    except (ValueError, TypeError):  # made_at is no time, or one without a zone
        return False


def _without(notice: str) -> Difference:
    return {"version": 1, "notice": notice}
