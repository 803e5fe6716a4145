"""
Simulate a policy over some days into the future, with one run on each day.

The inventory stays as it is, except that replicas are deleted. Every day is decided by :func:`.evaluate`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Set
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Final

from tavus_provider.retention.checks import CHECKS
from tavus_provider.retention.conditions import add_spans
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.engine import Decision, evaluate
from tavus_provider.retention.fields import ZERO
from tavus_provider.retention.policy import Narrow, Policy
from tavus_provider.retention.schedule import update_schedule
from tavus_provider.retention.verdict import Verdict

_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class SimulatedDelete:
    """
    A replica that is deleted.

    :param day: number of the day, 0 for today
    :param announced_at: when its grace period began; ``None`` if its rule has none
    """

    day: int
    verdict: Verdict
    announced_at: datetime | None


@dataclass(frozen=True, slots=True)
class SimulatedStop:
    """Days, from first to last, on which every run stops at a limit; the reason is that of the first."""

    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class SimulatedOverdue:
    """Days, from first to last, on which a replica is overdue; the verdict is that of the first."""

    first: int
    last: int
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Simulation:
    """
    What is deleted when.

    :param begins_at: time of the run on day 0; the other runs are at the same time of day
    :param days: number of days after day 0
    :param listed: number of replicas that are listed on day 0
    :param deletes: in the order in which they happen
    :param stops: days on which a run stops; nothing is deleted on them
    :param last_decision: the decision of the last day
    :param overdue: replicas that are older than ``overdue_after`` and stay, in the order of their first days
    """

    policy: Policy
    begins_at: datetime
    days: int
    listed: int
    deletes: tuple[SimulatedDelete, ...]
    stops: tuple[SimulatedStop, ...]
    last_decision: Decision
    overdue: tuple[SimulatedOverdue, ...] = ()

    @property
    def remaining(self) -> int:
        """Number of replicas of day 0 that are not deleted."""
        return self.listed - sum(delete.verdict.listed for delete in self.deletes)

    @property
    def last_day(self) -> dict[str, int]:
        """How many replicas have each reason code on the last day."""
        codes = (verdict.reason_code.value for verdict in self.last_decision.verdicts)
        return dict(sorted(Counter(codes).items()))

    def date_of(self, day: int) -> date:
        """Return the date of a day."""
        return (self.begins_at + day * _DAY).date()

    def count_by_period(self) -> list[tuple[str, int]]:
        """Return how many replicas are deleted per day, week or month, whichever fits ``days``."""
        period = _day_name if self.days <= 31 else _week_name if self.days <= 120 else _month_name
        counts = Counter(period(self.date_of(delete.day)) for delete in self.deletes)
        names = dict.fromkeys(period(self.date_of(day)) for day in range(self.days + 1))
        return [(name, counts[name]) for name in names]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "policy": self.policy.to_json(),
            "from": self.begins_at.isoformat(),
            "days": self.days,
            "listed": self.listed,
            "deletes": [
                {
                    "date": self.date_of(delete.day).isoformat(),
                    "day": delete.day,
                    **delete.verdict.to_row(),
                    "announced_at": None if delete.announced_at is None else delete.announced_at.isoformat(),
                }
                for delete in self.deletes
            ],
            "stops": [
                {
                    "from": self.date_of(stop.first).isoformat(),
                    "to": self.date_of(stop.last).isoformat(),
                    "reason": stop.reason,
                }
                for stop in self.stops
            ],
            "overdue": [
                {
                    "from": self.date_of(one.first).isoformat(),
                    "to": self.date_of(one.last).isoformat(),
                    "replica_id": one.verdict.replica.replica_id,
                    "reason": one.verdict.reason,
                }
                for one in self.overdue
            ],
            "last_day": self.last_day,
        }


def simulate(
    policy: Policy,
    inventory: Inventory,
    *,
    now: datetime,
    days: int,
    hard: bool = False,
    with_limits: bool = True,
) -> Simulation:
    """
    Return what a policy deletes when, if it runs once a day from now on.

    Only days on which a decision can differ from that of the day before are evaluated: those on which a check
    has a turning point, and those after a day on which a replica was deleted or scheduled. After a run that
    stops at a limit on deletions all runs stop, because time alone only makes more replicas due,
    except with a quota. With ``overdue_after`` they are still evaluated.

    :param policy, inventory, now, hard: as for :func:`.evaluate`, with its errors
    :param days: number of days after today
    :param with_limits: whether runs stop at limits; otherwise as if the limits were raised each time
    """
    days_to_evaluate = {0, days}
    if policy.overdue_after is not None:
        dates = (date for one in inventory.replicas for date in (one.created_at, one.updated_at))
        overdue_points = add_spans(dates, ZERO, policy.overdue_after.delta)
        days_to_evaluate |= {_first_day(moment, now) for moment in overdue_points}
    for check in CHECKS:
        days_to_evaluate |= {_first_day(moment, now) for moment in check.turning_points(policy, inventory)}
    without_form = policy.model_copy(update={"narrow": Narrow()})
    has_schedule = policy.has_grace or bool(inventory.history.due)
    is_narrowed = has_schedule and policy != without_form
    listed = len(inventory.replicas) + len(inventory.unreadable_replicas)
    deletes: list[SimulatedDelete] = []
    stops: list[SimulatedStop] = []
    overdue: dict[tuple[str, int], SimulatedOverdue] = {}
    open_since: dict[str, int] = {}
    for day in range(days + 1):
        if day not in days_to_evaluate:
            if stops and stops[-1].last == day - 1:
                stops[-1] = replace(stops[-1], last=day)
            for key in open_since.items():
                overdue[key] = replace(overdue[key], last=day)
            continue
        at = now + day * _DAY
        decision = evaluate(policy, inventory, now=at, hard=hard)
        found = {verdict.replica.replica_id: verdict for verdict in decision.overdue}
        open_since = {replica_id: open_since.get(replica_id, day) for replica_id in found}
        for replica_id, first in open_since.items():
            known = overdue.setdefault((replica_id, first), SimulatedOverdue(first, day, found[replica_id]))
            overdue[replica_id, first] = replace(known, last=day)
        history = inventory.history
        unnarrowed = decision
        if is_narrowed:  # as in a plan: what only the form leaves out stays scheduled
            unnarrowed = evaluate(without_form, inventory, now=at, hard=hard)
        if has_schedule:
            updated = update_schedule(history, decision, unnarrowed=unnarrowed, now=at)
            inventory = replace(inventory, history=updated)
        days_to_evaluate |= {
            _first_day(verdict.due_at, now) for verdict in decision.scheduled if verdict.due_at is not None
        }
        deleted: set[str] = set()
        if with_limits and (reason := decision.limit_exceeded):
            if stops and stops[-1].last == day - 1:
                stops[-1] = replace(stops[-1], last=day)
            else:
                stops.append(SimulatedStop(day, day, reason))
            if (
                policy.quota is None
                and policy.overdue_after is None
                and policy.limits.exceeded(
                    delete=len(decision.delete), listed=decision.listed, unlisted=decision.unlisted
                )
            ):
                days_to_evaluate = {days}
        else:
            announced = inventory.history.scheduled
            deletes += [
                SimulatedDelete(day, verdict, announced.get(verdict.replica.replica_id))
                for verdict in decision.delete
            ]
            deleted = {verdict.replica.replica_id for verdict in decision.delete}
            inventory = _without(inventory, deleted)
        if deleted or inventory.history != history:
            # Fewer are listed, or others are scheduled: by that alone a limit may be exceeded.
            days_to_evaluate.add(day + 1)
    return Simulation(
        policy, now, days, listed, tuple(deletes), tuple(stops), decision, tuple(overdue.values())
    )


def _first_day(moment: datetime, now: datetime) -> int:
    """Return the first day whose run is not before the moment."""
    return -((now - moment) // _DAY)


def _without(inventory: Inventory, deleted: Set[str]) -> Inventory:
    history = inventory.history
    return replace(
        inventory,
        replicas=[replica for replica in inventory.replicas if replica.replica_id not in deleted],
        history=replace(
            history,
            scheduled={i: at for i, at in history.scheduled.items() if i not in deleted},
            soft_deleted={i: at for i, at in history.soft_deleted.items() if i not in deleted},
        ),
    )


def _day_name(day: date) -> str:
    return day.isoformat()


def _week_name(day: date) -> str:
    return f"week of {day - day.weekday() * _DAY}"


def _month_name(day: date) -> str:
    return f"{day:%Y-%m}"
