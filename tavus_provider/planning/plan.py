"""
The plan as it travels: plain JSON, sealed by its digest, good for one connection and for a day.

A plan is made by one task, read by a person, and carried out by another task, perhaps hours later and
on another machine. Whoever holds it can show that it is the one that was decided and approved.
Knows neither Airflow nor HTTP nor the clock.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from tavus_provider.digest import digest_of, seal
from tavus_provider.exceptions import PlanRejectedError
from tavus_provider.models import check_replica_id
from tavus_provider.retention.engine import Decision
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.verdict import MAX_NAME, format_time, shorten_name

GOOD_FOR = timedelta(hours=24)
MAX_VERDICTS = 4_500
MAX_BYTES = 900_000
"""An XCom should hold 1 MB at most."""
MAX_SCHEDULED = 4_000

Plan = dict[str, Any]

__all__ = [
    "MAX_NAME",
    "Plan",
    "check_plan",
    "fits_xcom",
    "format_time",
    "make_plan",
    "reference_to",
    "shorten_name",
    "verdict_rows",
]


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
    Return a decision as the plan that is pushed, shown and carried out; it names all that goes.

    Of what stays it names the first few thousand; ``left_out`` says how many it does not.
    """
    plan: Plan = {
        "policy": policy.to_json(),
        "policy_digest": policy.digest,
        "made_at": format_time(now),
        "valid_until": format_time(now + GOOD_FOR),
        "hard": hard,
        "tavus_conn_id": tavus_conn_id,
        "origin": origin,
        "listed": decision.listed,
        "limits": policy.to_json()["limits"],
        "delete": [verdict.to_row() for verdict in decision.delete],
        "scheduled": [
            {**verdict.to_row(), "due_at": format_time(verdict.due_at)}
            for verdict in decision.scheduled[:MAX_SCHEDULED]
        ],
        "keep": decision.keep,
        "undetermined": [
            {"replica_id": verdict.replica.replica_id, "reason": verdict.reason}
            for verdict in decision.undetermined[:MAX_VERDICTS]
        ],
    }
    left_out = {
        name: more
        for name, all_of in (("scheduled", decision.scheduled), ("undetermined", decision.undetermined))
        if (more := len(all_of) - len(plan[name]))
    }
    if left_out:
        plan["left_out"] = left_out
    return seal(plan)


def fits_xcom(value: Mapping[str, Any]) -> bool:
    """Whether this is small enough to travel as an XCom."""
    return len(json.dumps(value)) <= MAX_BYTES


def reference_to(plan: Plan, plan_at: str) -> dict[str, Any]:
    """
    Return what travels in the place of a plan that does not fit into an XCom: its digest and its counts.

    :param plan_at: where the plan itself lies, for people to read
    """
    kept = ("digest", "policy_digest", "made_at", "valid_until", "hard", "tavus_conn_id", "origin", "listed")
    return {
        "plan_at": plan_at,
        **{name: plan[name] for name in kept},
        "limits": plan["limits"],
        "keep": plan["keep"],
        "counts": {
            name: len(plan[name]) + plan.get("left_out", {}).get(name, 0)
            for name in ("delete", "scheduled", "undetermined")
        },
    }


def verdict_rows(decision: Decision) -> list[dict[str, Any]] | dict[str, Any]:
    """
    Return every verdict with its reasons for and against.

    Above ``MAX_VERDICTS`` rows, or ``MAX_BYTES`` of JSON, only how many of which.
    """
    rows = [verdict.to_json() for verdict in decision.verdicts[: MAX_VERDICTS + 1]]
    if len(rows) <= MAX_VERDICTS and len(json.dumps(rows, separators=(",", ":"))) <= MAX_BYTES:
        return rows
    counts = dict(sorted(Counter(verdict.reason_code for verdict in decision.verdicts).items()))
    return {
        "counts": counts,
        "notice": f"{decision.listed} verdicts are too many for XCom, see the log of the task",
    }


def check_plan(
    plan: object,
    *,
    now: datetime,
    hard: bool,
    tavus_conn_id: str,
    origin: str,
    approved_digest: object = None,
) -> Plan:
    """
    Return the plan if it may be carried out now, on this connection, in this way.

    The digest is computed from the content, so a plan changed on its way is another plan.

    :param approved_digest: what a person approved; a hard plan needs it, a soft one may have it
    :raises PlanRejectedError: saying what does not fit
    """
    if not isinstance(plan, dict):
        raise PlanRejectedError(
            f"plan is of type {type(plan).__name__}, not the JSON of a plan: give the output of the plan "
            "task and let the DAG render native objects"
        )
    faults = []
    try:
        if plan["digest"] != digest_of(plan):
            faults.append("its content does not match its digest, so it was changed after it was made")
        if plan["hard"] is not hard:
            faults.append(f"it was made for hard={plan['hard']}, this task has hard={hard}")
        if plan["tavus_conn_id"] != tavus_conn_id:
            faults.append(f"it is for connection {plan['tavus_conn_id']!r}, this task has {tavus_conn_id!r}")
        if plan["origin"] != origin:
            faults.append(f"it was made for {plan['origin']}, the connection now means {origin}")
        if now >= datetime.fromisoformat(plan["valid_until"]):
            faults.append(f"its time was up at {plan['valid_until']}")
        if hard and approved_digest is None:
            faults.append("a permanent delete needs the digest that a person approved, and there is none")
        elif approved_digest is not None and approved_digest != plan["digest"]:
            faults.append("the digest that was approved is that of another plan")
        if not isinstance(plan["policy"], dict):
            raise TypeError
        planned = [
            (check_replica_id(row["replica_id"]), row["replica_name"], row["created_at"])
            for row in plan["delete"]
        ]
        if len({replica_id for replica_id, *_ in planned}) < len(planned):
            faults.append("it names a replica twice")
    except (KeyError, TypeError, ValueError):
        faults.append("it is not the JSON of a plan")
    if faults:
        raise PlanRejectedError(
            f"the plan is refused: {'; '.join(faults)}. Nothing was deleted; trigger a new run"
        )
    return plan
