"""The ``forecast`` document: how many replicas a policy will delete in the coming months."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, NotRequired, TypedDict

from tavus_provider.retention.context import Inventory
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.simulation import simulate
from tavus_provider.retention.verdict import Verdict

DAYS: Final = 90
MAX_NAMED_DATES: Final = 10
"""On how many dates, from the first one on which something is deleted, replicas are named."""
MAX_NAMES: Final = 5
"""The largest number of replicas of one date that are named."""
MAX_REPLICAS: Final = 5_000
"""For this many replicas, a simulation takes up to some seconds; above, there is no forecast."""


class ForecastWeek(TypedDict):
    """The number of deletes from one date to another, both included."""

    first: str
    last: str
    count: int


class ForecastReplica(TypedDict):
    """A replica that will be deleted."""

    replica_id: str
    replica_name: str | None


class ForecastDate(TypedDict):
    """The deletes of one date: their number, and on the first dates the first few of them."""

    date: str
    count: int
    replicas: list[ForecastReplica]


class ForecastStop(TypedDict):
    """Days on which every run stops at a limit, both dates included."""

    first: str
    last: str
    reason: str


class Forecast(TypedDict):
    """
    What will be deleted in the next 90 days, if the policy runs once a day and nothing is used or created.

    A run that stops at a limit deletes nothing. Without a simulation there is only ``notice``.

    ``narrowed_by`` has the fields by which a trigger form narrowed the run of this plan; without any, other
    runs have the same policy. ``begins_at`` is the time of the plan in ISO 8601; the deletes of its date are
    those of the plan itself. ``dates`` has the dates on which something is deleted.
    """

    version: Literal[1]
    narrowed_by: list[str]
    begins_at: NotRequired[str]
    days: NotRequired[int]
    next_30_days: NotRequired[int]
    dates: NotRequired[list[ForecastDate]]
    weeks: NotRequired[list[ForecastWeek]]
    stops: NotRequired[list[ForecastStop]]
    notice: NotRequired[str]


def make_forecast(policy: Policy, inventory: Inventory, *, now: datetime, hard: bool) -> Forecast:
    """
    Simulate a policy over the next 90 days, with one run on each day, within its limits.

    :param policy, inventory, now, hard: as for :func:`.evaluate`
    """
    narrowed_by = sorted(policy.narrowing_fields())
    if (number := len(inventory.replicas)) > MAX_REPLICAS:
        return {
            "version": 1,
            "narrowed_by": narrowed_by,
            "notice": f"There is no forecast for {number} replicas, only for up to {MAX_REPLICAS}",
        }
    simulation = simulate(policy, inventory, now=now, days=DAYS, hard=hard)
    days = [delete.day for delete in simulation.deletes]
    by_day: dict[int, list[Verdict]] = {}
    for delete in simulation.deletes:
        by_day.setdefault(delete.day, []).append(delete.verdict)
    return {
        "version": 1,
        "narrowed_by": narrowed_by,
        "begins_at": now.isoformat(),
        "days": DAYS,
        "next_30_days": sum(day <= 30 for day in days),
        "dates": [
            {
                "date": simulation.date_of(day).isoformat(),
                "count": len(verdicts),
                "replicas": [
                    {
                        "replica_id": verdict.replica.replica_id,
                        "replica_name": verdict.replica.replica_name,
                    }
                    for verdict in (verdicts[:MAX_NAMES] if position < MAX_NAMED_DATES else ())
                ],
            }
            for position, (day, verdicts) in enumerate(by_day.items())
        ],
        "weeks": [
            {
                "first": simulation.date_of(first).isoformat(),
                "last": simulation.date_of(min(first + 6, DAYS)).isoformat(),
                "count": sum(first <= day < first + 7 for day in days),
            }
            for first in range(0, DAYS + 1, 7)
        ],
        "stops": [
            {
                "first": simulation.date_of(stop.first).isoformat(),
                "last": simulation.date_of(stop.last).isoformat(),
                "reason": stop.reason,
            }
            for stop in simulation.stops
        ],
    }
