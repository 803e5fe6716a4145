"""
What a policy would do to an account: the same decision, day by day into the future.

The account stays as it is now but for what goes; use stays as it is too. Decides with
:func:`.evaluate` and nothing else. Knows neither Airflow nor HTTP nor the clock.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from tavus_provider.retention.checks import REFUND_WINDOW
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.engine import Decision, evaluate
from tavus_provider.retention.fields import ZERO
from tavus_provider.retention.policy import Narrow, Policy
from tavus_provider.retention.verdict import Verdict

_DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Departure:
    """
    One replica that goes.

    :param day: 0 for today
    :param announced: when its grace began; ``None`` if its rule has none
    """

    day: int
    verdict: Verdict
    announced: datetime | None


@dataclass(frozen=True, slots=True)
class Stop:
    """Days on which a run would stop at a limit: from the ``first`` to the ``last``, and what it says."""

    first: int
    last: int
    reason: str


@dataclass(frozen=True, slots=True)
class Simulation:
    """
    What goes when, over some days with a run on each.

    :param begins: the time of the run of today; those of the other days are at the same time of day
    :param days: how many days after today were looked at
    :param listed: how many replicas are listed now
    :param gone: in the order in which they go
    :param stops: when a run would stop instead; nothing goes then
    :param end: what is decided on the last day
    """

    policy: Policy
    begins: datetime
    days: int
    listed: int
    gone: tuple[Departure, ...]
    stops: tuple[Stop, ...]
    end: Decision

    def at(self, day: int) -> date:
        """Return the date of a day."""
        return (self.begins + day * _DAY).date()

    def periods(self) -> list[tuple[str, int]]:
        """Return how many go in each day, week or month, whichever gives the fewest lines worth reading."""
        name = _by_day if self.days <= 31 else _by_week if self.days <= 120 else _by_month
        counts = Counter(name(self.at(departure.day)) for departure in self.gone)
        names = dict.fromkeys(name(self.at(day)) for day in range(self.days + 1))
        return [(period, counts[period]) for period in names]

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "policy": self.policy.to_json(),
            "from": self.begins.isoformat(),
            "days": self.days,
            "listed": self.listed,
            "gone": [
                {
                    "date": self.at(departure.day).isoformat(),
                    "day": departure.day,
                    **departure.verdict.to_row(),
                    "announced": None if departure.announced is None else departure.announced.isoformat(),
                }
                for departure in self.gone
            ],
            "stops": [
                {
                    "from": self.at(stop.first).isoformat(),
                    "to": self.at(stop.last).isoformat(),
                    "reason": stop.reason,
                }
                for stop in self.stops
            ],
            "last_day": dict(sorted(Counter(verdict.reason_code for verdict in self.end.verdicts).items())),
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
    Decide once a day, from now on, and let go what goes.

    It is decided only on days on which something can be other than the day before: a limit of time is
    reached, or something went or was scheduled the day before. A run that stops at a limit on deletions
    stops on all days after it too, for time only moves replicas towards deletion.

    :param policy, inventory, now, hard: as for :func:`.evaluate`, with its errors
    :param days: how many days after today
    :param with_limits: whether runs stop at limits; if not, as if somebody raised them each time
    """
    listed = len(inventory.replicas)
    to_look_at = {0, days, *(_first_day(at, now) for at in _moments(policy, inventory))}
    narrowed = policy.has_grace and policy.narrow != Narrow()
    unnarrowed = policy.model_copy(update={"narrow": Narrow()}) if narrowed else None
    gone: list[Departure] = []
    stops: list[Stop] = []
    for day in range(days + 1):
        if day not in to_look_at:
            if stops and stops[-1].last == day - 1:
                stops[-1] = replace(stops[-1], last=day)
            continue
        at = now + day * _DAY
        decision = evaluate(policy, inventory, now=at, hard=hard)
        before, due = inventory.history, _due(decision)
        scheduled = before.scheduled
        if unnarrowed is not None:  # what only the form leaves out keeps its place, as in the plan task
            whole = evaluate(unnarrowed, inventory, now=at, hard=hard)
            due |= _due(whole) & scheduled.keys()
        if policy.has_grace:
            history = replace(before, scheduled={i: scheduled.get(i, at) for i in due})
            inventory = replace(inventory, history=history)
        to_look_at |= {_first_day(v.due_at, now) for v in decision.scheduled if v.due_at is not None}
        ids: set[str] = set()
        if with_limits and (reason := decision.limit_exceeded):
            if stops and stops[-1].last == day - 1:
                stops[-1] = replace(stops[-1], last=day)
            else:
                stops.append(Stop(day, day, reason))
            if policy.limits.exceeded(delete=len(decision.delete), listed=decision.listed):
                to_look_at = {days}
        else:
            ids = {verdict.replica.replica_id for verdict in decision.delete}
            since = inventory.history.scheduled
            gone += [Departure(day, v, since.get(v.replica.replica_id)) for v in decision.delete]
            inventory = _without(inventory, ids)
        if ids or inventory.history != before:  # fewer are listed, or more scheduled: enough to pass a limit
            to_look_at.add(day + 1)
    return Simulation(policy, now, days, listed, tuple(gone), tuple(stops), decision)


def _moments(policy: Policy, inventory: Inventory) -> Iterator[datetime]:
    """When anything that a rung of the ladder compares with the time can become true or untrue."""
    unused_for = [rule.unused_for.delta for rule in policy.expire if rule.unused_for is not None]
    ages = {ZERO, REFUND_WINDOW, *unused_for}
    ages |= {rule.older_than.delta for rule in policy.expire if rule.older_than is not None}
    ages |= {
        limit.delta for limit in (policy.keep.keep_within, policy.narrow.older_than) if limit is not None
    }
    for replica in inventory.replicas:
        yield from _after(replica.created_at, ages)
        yield from _after(replica.updated_at, (ZERO, REFUND_WINDOW))
    if unused_for:
        for activity in (*inventory.conversations, *inventory.videos):
            yield from _after(activity.used_at, (ZERO, *unused_for))
    for rule in policy.expire:
        if rule.grace is not None:
            for since in inventory.history.scheduled.values():
                yield from _after(since, (rule.grace.delta,))
    if policy.hard_delete_after is not None:
        for since in inventory.history.soft_deleted.values():
            yield from _after(since, (policy.hard_delete_after.delta,))


def _after(moment: datetime | None, spans: Iterable[timedelta]) -> Iterator[datetime]:
    """The moments so long after this one, but for those that no calendar has."""
    if moment is None:
        return
    for span in spans:
        with contextlib.suppress(OverflowError):
            yield moment + span


def _first_day(moment: datetime, now: datetime) -> int:
    """The first day whose run is not before the moment."""
    return -((now - moment) // _DAY)


def _due(decision: Decision) -> set[str]:
    return {verdict.replica.replica_id for verdict in decision.verdicts if verdict.due_at is not None}


def _without(inventory: Inventory, gone: Set[str]) -> Inventory:
    history = inventory.history
    return replace(
        inventory,
        replicas=[replica for replica in inventory.replicas if replica.replica_id not in gone],
        history=History(
            scheduled={i: at for i, at in history.scheduled.items() if i not in gone},
            soft_deleted={i: at for i, at in history.soft_deleted.items() if i not in gone},
        ),
    )


def _by_day(day: date) -> str:
    return day.isoformat()


def _by_week(day: date) -> str:
    return f"week of {day - day.weekday() * _DAY}"


def _by_month(day: date) -> str:
    return f"{day:%Y-%m}"
