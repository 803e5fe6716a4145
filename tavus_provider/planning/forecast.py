"""The ``forecast`` document: how many replicas a policy will delete in the coming months."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal, NotRequired, TypedDict

from tavus_provider.retention.context import Inventory
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.simulation import simulate

DAYS: Final = 90
MAX_REPLICAS: Final = 5_000
"""For this many replicas, a simulation takes up to some seconds; above, there is no forecast."""


class ForecastWeek(TypedDict):
    """The number of deletes from one date to another, both included."""

    first: str
    last: str
    count: int


class ForecastStop(TypedDict):
    """Days on which every run stops at a limit, both dates included."""

    first: str
    last: str
    reason: str


class Forecast(TypedDict):
    """
    What will be deleted in the next 90 days, if the policy runs once a day and nothing is used or created.

    A run that stops at a limit deletes nothing. Without a simulation there is only ``notice``.
    """

    version: Literal[1]
    days: NotRequired[int]
    next_30_days: NotRequired[int]
    weeks: NotRequired[list[ForecastWeek]]
    stops: NotRequired[list[ForecastStop]]
    notice: NotRequired[str]


def make_forecast(policy: Policy, inventory: Inventory, *, now: datetime, hard: bool) -> Forecast:
    """
    Simulate a policy over the next 90 days, with one run on each day, within its limits.

    :param policy, inventory, now, hard: as for :func:`.evaluate`
    """
    if (number := len(inventory.replicas)) > MAX_REPLICAS:
        return {
            "version": 1,
            "notice": f"There is no forecast for {number} replicas, only for up to {MAX_REPLICAS}",
        }
    simulation = simulate(policy, inventory, now=now, days=DAYS, hard=hard)
    days = [delete.day for delete in simulation.deletes]
    return {
        "version": 1,
        "days": DAYS,
        "next_30_days": sum(day <= 30 for day in days),
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
