"""Which replicas are the least recently used ones, if an account has more than its quota."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from tavus_provider.retention.fields import LONG_AGO

if TYPE_CHECKING:
    from tavus_provider.retention.context import ReplicaFacts
    from tavus_provider.retention.policy import Quota

STATUSES: Final = ("completed", "error")
"""The statuses of replicas that a quota expires; those in training are counted only."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """
    The places of the replicas of an account, the least recently used one first, from 1.

    Every replica of the account itself has a place, whether something keeps it or not, and is not replaced
    by another if it is kept. So a hold, a protection, a scope or a form never makes another replica expire.
    Replicas that a rule matches have the first places, because they go as well. Then come those whose last
    use is unknown, because they may be the least recently used ones.

    :param quota: the setting
    :param counted: number of replicas that the account has, without soft-deleted ones
    :param places: by id; of a replica that may have been used later, the latest possible place
    """

    quota: Quota
    counted: int
    places: dict[str, int] = field(default_factory=dict)

    @property
    def excess(self) -> int:
        """How many replicas are to go; 0 if the quota is not exceeded."""
        return self.counted - self.quota.down_to if self.counted > self.quota.above else 0

    def is_candidate(self, facts: ReplicaFacts) -> bool:
        """Return whether a replica is to go, unless it is kept."""
        place = self.places.get(facts.replica.replica_id)
        return (
            facts.rule is None
            and place is not None
            and place <= self.excess
            and facts.replica.status in STATUSES
            and facts.age >= self.quota.older_than.delta
        )

    def describe(self, facts: ReplicaFacts) -> str:
        """Return the count and the place of a replica in words."""
        quota, place = self.quota, self.places.get(facts.replica.replica_id)
        counts = f"{self.counted} replicas, quota.above is {quota.above}"
        if place is None:
            return f"{counts}; this one does not count"
        if not self.excess:
            return counts
        use = f"possibly {place}" if facts.possible_use is not None else f"number {place}"
        return f"{counts}, down_to is {quota.down_to}; {use} of {self.counted}, least recently used first"


def rank(quota: Quota, replicas: Sequence[ReplicaFacts], *, now: datetime, soft_deleted: Set[str]) -> Ranking:
    """
    Rank the replicas of an account.

    :param soft_deleted: ids that this package soft-deleted; they do not count, even if they are listed
    """
    counted = [
        facts
        for facts in replicas
        if facts.replica.replica_type == "user" and facts.replica.replica_id not in soft_deleted
    ]
    ordered = sorted((_key(facts, now), facts.replica.replica_id) for facts in counted)
    keys = [key for key, _ in ordered]
    places = {replica_id: number for number, (_, replica_id) in enumerate(ordered, start=1)}
    for facts in counted:
        if facts.rule is None and facts.possible_use is not None:
            places[facts.replica.replica_id] = bisect_right(keys, (True, now - facts.idle))
    return Ranking(quota, len(counted), places)


def _key(facts: ReplicaFacts, now: datetime) -> tuple[bool, datetime]:
    created_at = facts.replica.created_at
    last_used_at = facts.last_used_at or created_at
    if facts.unknown_use is not None or last_used_at is None or last_used_at > now:
        last_used_at = LONG_AGO
    return facts.rule is None, last_used_at
