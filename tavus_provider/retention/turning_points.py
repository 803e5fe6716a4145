"""When the results of the checks can change if only time passes, for the simulation of the next days."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from tavus_provider.retention.conditions import add_spans
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.fields import ZERO, Duration
from tavus_provider.retention.policy import Policy

# Tavus refunds a failed training, but not if its replica is deleted before the failure was registered.
REFUND_WINDOW: Final = Duration("72h", timedelta(hours=72))


def no_points(policy: Policy, inventory: Inventory) -> Iterator[datetime]:
    """Yield nothing: time alone does not change the result."""
    yield from ()


def hard_delete_points(policy: Policy, inventory: Inventory) -> Iterator[datetime]:
    """Yield when soft-deleted replicas are due for a permanent delete."""
    if policy.hard_delete_after is not None:
        yield from add_spans(inventory.history.soft_deleted.values(), policy.hard_delete_after.delta)


def date_points(policy: Policy, inventory: Inventory) -> Iterator[datetime]:
    """Yield the dates of replicas: one in the future is unknown until then."""
    for replica in inventory.replicas:
        yield from add_spans((replica.created_at, replica.updated_at), ZERO)


def refund_points(policy: Policy, inventory: Inventory) -> Iterator[datetime]:
    """Yield when a delete can no longer lose the refund of a training."""
    for replica in inventory.replicas:
        yield from add_spans((replica.created_at, replica.updated_at), REFUND_WINDOW.delta)


def age_points(limit: Duration | None, inventory: Inventory) -> Iterator[datetime]:
    """Yield when replicas reach an age; nothing if there is no limit."""
    if limit is not None:
        yield from add_spans((replica.created_at for replica in inventory.replicas), limit.delta)


def use_points(policy: Policy, inventory: Inventory) -> Iterator[datetime]:
    """Yield when conversations are too old to count as active."""
    active = (row.used_at for row in inventory.conversations if not row.is_finished)
    yield from add_spans(active, policy.keep.active_for.delta)


def grace_points(policy: Policy, inventory: Inventory) -> Iterator[datetime]:
    """Yield announced days, and when grace periods end."""
    yield from inventory.history.due.values()
    for grace in policy.graces:
        yield from add_spans(inventory.history.scheduled.values(), grace.delta)


def condition_points(policy: Policy, inventory: Inventory) -> Iterator[datetime]:
    """Yield when the conditions of the rules change."""
    for condition in {condition for rule in policy.expire for condition in rule.conditions}:
        yield from condition.turning_points(inventory)


def quota_points(policy: Policy, inventory: Inventory) -> Iterator[datetime]:
    """Yield when the order of replicas by last use can change, and when they are old enough for the quota."""
    if policy.quota is not None:
        yield from age_points(policy.quota.older_than, inventory)
        for activities in (inventory.conversations, inventory.videos):
            yield from add_spans((activity.used_at for activity in activities), ZERO)
