"""
The plan: which replicas are to be deleted, as a JSON document that travels from task to task.

One task makes a plan, a person reads it, and another task carries it out, perhaps hours later and on another
machine. The digest shows that it is still the plan that was decided and approved. A plan is valid for one
connection and for :data:`.PLAN_VALID_FOR`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, Literal, NotRequired, TypedDict, cast

from tavus_provider.digest import digest_of, seal
from tavus_provider.exceptions import PlanRejectedError
from tavus_provider.models import check_replica_id
from tavus_provider.planning.documents import find_mismatch
from tavus_provider.retention.engine import Decision
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.verdict import Verdict, format_time
from tavus_provider.validity import PLAN_VALID_FOR

__all__ = [
    "MAX_XCOM_BYTES",
    "OverdueRow",
    "Plan",
    "PlanReference",
    "PlanRow",
    "ScheduledRow",
    "UndeterminedRow",
    "check_plan",
    "fits_xcom",
    "format_time",
    "make_plan",
    "overdue_rows",
    "plan_reference",
    "verify_digest",
]

VERSION: Final = 1
MAX_XCOM_BYTES: Final = 900_000
"""The largest JSON document that is pushed as an XCom, which should not exceed 1 MB."""
MAX_SCHEDULED: Final = 4_000
MAX_UNDETERMINED: Final = 4_500
MAX_OVERDUE: Final = 4_000


class PlanRow(TypedDict):
    """A replica that is to be deleted. Times are ISO 8601 in UTC, ages whole days."""

    replica_id: str
    replica_name: str | None
    created_at: str | None
    age_days: int | None
    last_used_at: str | None
    rule: str | None
    source: Literal["rule", "quota", "soft_deleted"]
    reason: str


class ScheduledRow(PlanRow):
    """A replica that is to be deleted when its grace period ends."""

    due_at: str | None


class UndeterminedRow(TypedDict):
    """A replica that is kept because a fact about it is missing or unreadable."""

    replica_id: str
    reason: str


class OverdueRow(TypedDict):
    """A replica that is older than ``overdue_after`` and stays; ``age_days`` is null if unknown."""

    replica_id: str
    reason: str
    age_days: int | None


class Plan(TypedDict):
    """
    A plan. ``digest`` is the SHA-256 of everything else in it.

    ``delete`` is complete. ``scheduled``, ``undetermined`` and ``overdue`` are cut after some thousand rows;
    ``left_out`` then says how many rows of which are missing. ``overdue`` is there if the policy has
    ``overdue_after``.
    """

    version: Literal[1]
    policy: dict[str, Any]
    policy_digest: str
    digest: str
    made_at: str
    valid_until: str
    hard: bool
    tavus_conn_id: str
    origin: str
    listed: int
    limits: dict[str, Any]
    delete: list[PlanRow]
    scheduled: list[ScheduledRow]
    keep: dict[str, int]
    undetermined: list[UndeterminedRow]
    overdue: NotRequired[list[OverdueRow]]
    left_out: NotRequired[dict[str, int]]


class PlanReference(TypedDict):
    """What is pushed as XCom in place of a plan that is too large: digest, counts and location."""

    version: Literal[1]
    plan_at: str
    digest: str
    policy_digest: str
    made_at: str
    valid_until: str
    hard: bool
    tavus_conn_id: str
    origin: str
    listed: int
    limits: dict[str, Any]
    keep: dict[str, int]
    counts: dict[str, int]


def make_plan(
    decision: Decision,
    policy: Policy,
    *,
    now: datetime,
    hard: bool,
    tavus_conn_id: str,
    origin: str,
) -> Plan:
    """
    Make the plan of a decision.

    :param now: the wall clock, aware; the plan is valid for :data:`.PLAN_VALID_FOR` from then
    :param hard: whether the replicas are to be deleted permanently
    :param tavus_conn_id: the Airflow connection that the decision was made for
    :param origin: the URL that this connection stands for
    """
    delete = [cast("PlanRow", verdict.to_row()) for verdict in decision.delete]
    scheduled = [
        cast("ScheduledRow", {**verdict.to_row(), "due_at": format_time(verdict.due_at)})
        for verdict in decision.scheduled[:MAX_SCHEDULED]
    ]
    undetermined: list[UndeterminedRow] = [
        {"replica_id": verdict.replica.replica_id, "reason": verdict.reason}
        for verdict in decision.undetermined[:MAX_UNDETERMINED]
    ]
    plan: dict[str, Any] = {
        "version": VERSION,
        "policy": policy.to_json(),
        "policy_digest": policy.digest,
        "made_at": format_time(now),
        "valid_until": format_time(now + PLAN_VALID_FOR),
        "hard": hard,
        "tavus_conn_id": tavus_conn_id,
        "origin": origin,
        "listed": decision.listed,
        "limits": policy.to_json()["limits"],
        "delete": delete,
        "scheduled": scheduled,
        "keep": decision.keep,
        "undetermined": undetermined,
    }
    overdue = decision.overdue
    if policy.overdue_after is not None:
        plan["overdue"] = overdue_rows(overdue[:MAX_OVERDUE])
    left_out = {
        name: missing
        for name, missing in (
            ("scheduled", len(decision.scheduled) - len(scheduled)),
            ("undetermined", len(decision.undetermined) - len(undetermined)),
            ("overdue", len(overdue) - len(plan.get("overdue", ()))),
        )
        if missing
    }
    if left_out:
        plan["left_out"] = left_out
    return cast("Plan", seal(plan))


def ids_by_rule(rows: Iterable[PlanRow]) -> dict[str, list[str]]:
    """Return the ids of rows by the rule that expired them. A row without a rule is left out."""
    ids: dict[str, list[str]] = {}
    for row in rows:
        if row["rule"] is not None:
            ids.setdefault(row["rule"], []).append(row["replica_id"])
    return ids


def overdue_rows(verdicts: Sequence[Verdict]) -> list[OverdueRow]:
    """Return the rows of a plan for :attr:`.Decision.overdue`."""
    return [
        {"replica_id": verdict.replica.replica_id, "reason": verdict.reason, "age_days": verdict.age_days}
        for verdict in verdicts
    ]


def fits_xcom(document: Mapping[str, Any]) -> bool:
    """Return whether a JSON document is small enough to be pushed as an XCom."""
    return len(json.dumps(document)) <= MAX_XCOM_BYTES


def plan_reference(plan: Plan, *, plan_at: str) -> PlanReference:
    """
    Return what is pushed as XCom in place of a plan that is too large.

    :param plan_at: where the plan is stored, for people to read
    """
    left_out = plan.get("left_out", {})
    return {
        "version": 1,
        "plan_at": plan_at,
        "digest": plan["digest"],
        "policy_digest": plan["policy_digest"],
        "made_at": plan["made_at"],
        "valid_until": plan["valid_until"],
        "hard": plan["hard"],
        "tavus_conn_id": plan["tavus_conn_id"],
        "origin": plan["origin"],
        "listed": plan["listed"],
        "limits": plan["limits"],
        "keep": plan["keep"],
        "counts": {
            "delete": len(plan["delete"]),
            "scheduled": len(plan["scheduled"]) + left_out.get("scheduled", 0),
            "undetermined": len(plan["undetermined"]) + left_out.get("undetermined", 0),
            "overdue": len(plan.get("overdue", ())) + left_out.get("overdue", 0),
        },
    }


def verify_digest(value: object) -> Plan:
    """
    Return a plan whose content matches its digest.

    :raises PlanRejectedError: if it is not a plan, or was changed after it was made
    """
    plan = _parse(value)
    if not _digest_matches(plan):
        raise _rejected(["its content does not match its digest, so it was changed after it was made"])
    return plan


def check_plan(
    value: object,
    *,
    now: datetime,
    hard: bool,
    tavus_conn_id: str,
    origin: str,
) -> Plan:
    """
    Return a plan if this task may carry it out now.

    :param value: the plan as it was made; the digest is computed from its content
    :param now: the wall clock, aware
    :param hard: whether the task deletes permanently
    :param tavus_conn_id: the Airflow connection of the task
    :param origin: the URL that this connection stands for
    :raises PlanRejectedError: if it is not a plan of this version, or may not be carried out; names
        everything that is wrong
    :raises TavusValidationError: if a ``replica_id`` is not one
    """
    plan = _parse(value)
    faults = []
    if not _digest_matches(plan):
        faults.append("its content does not match its digest, so it was changed after it was made")
    if plan["hard"] is not hard:
        faults.append(f"it was made for hard={plan['hard']}, this task has hard={hard}")
    faults += find_plan_faults(plan, now=now, tavus_conn_id=tavus_conn_id, origin=origin)
    if len({check_replica_id(row["replica_id"]) for row in plan["delete"]}) < len(plan["delete"]):
        faults.append("it names a replica twice")
    if faults:
        raise _rejected(faults)
    return plan


def find_plan_faults(plan: Mapping[str, Any], *, now: datetime, tavus_conn_id: str, origin: str) -> list[str]:
    """
    Return why a plan of any kind may not be carried out here and now.

    :param plan: has ``tavus_conn_id``, ``origin`` and ``valid_until``
    :param now: the wall clock, aware
    :param tavus_conn_id: the Airflow connection of the task
    :param origin: the URL that this connection stands for
    """
    faults = []
    if plan["tavus_conn_id"] != tavus_conn_id:
        faults.append(f"it is for connection {plan['tavus_conn_id']!r}, this task has {tavus_conn_id!r}")
    if plan["origin"] != origin:
        faults.append(f"it was made for {plan['origin']}, the connection now points to {origin}")
    if (valid_until := _parse_time(plan["valid_until"])) is None:
        faults.append(f"valid_until is {plan['valid_until'][:40]!r}, not an ISO 8601 time with a time zone")
    elif now >= valid_until:
        faults.append(f"it expired at {plan['valid_until']}")
    return faults


def _parse(value: object) -> Plan:
    if not isinstance(value, dict):
        raise _rejected(
            [
                f"it is of type {type(value).__name__}, not a JSON object (pass the output of the plan task, "
                "and set render_template_as_native_obj=True on the DAG)"
            ]
        )
    if value.get("version", VERSION) != VERSION:
        raise _rejected(
            [f"plan.version is {ascii(value['version'])[:40]}, this release of the provider reads {VERSION}"]
        )
    if value.get("kind") == "erasure":
        raise _rejected(["it is the plan of an erasure, for ApplyErasureOperator"])
    if mismatch := find_mismatch(value, Plan, name="plan"):
        raise _rejected([mismatch])
    return cast("Plan", value)


def _digest_matches(plan: Plan) -> bool:
    try:
        return plan["digest"] == digest_of(plan)
    except (TypeError, ValueError):  # the policy holds a value that JSON cannot express, such as NaN
        return False


def _parse_time(text: str) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return None
    return None if moment.utcoffset() is None else moment


def _rejected(faults: list[str]) -> PlanRejectedError:
    return PlanRejectedError(
        f"the plan is rejected: {'; '.join(faults)}. Nothing was deleted; trigger a new run"
    )
