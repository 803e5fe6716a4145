"""
What a policy is evaluated on: the inventory, and indexes over it, computed once per evaluation.

Everything that more than one check needs, or that needs more than one replica, is computed here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import NamedTuple

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.keys import fold
from tavus_provider.models import Conversation, Persona, Replica, UnreadableRow, Video
from tavus_provider.retention.fields import LONG_AGO, REPLICA_STATUSES, ZERO, Duration, quote_field
from tavus_provider.retention.grouping import compile_group
from tavus_provider.retention.known_use import KnownUse
from tavus_provider.retention.policy import Policy, Rule
from tavus_provider.retention.quota import Ranking, rank
from tavus_provider.retention.usage import Usage
from tavus_provider.sanitize import LOST, REPLACEMENT, escape_line, quote


@dataclass(frozen=True, slots=True)
class History:
    """
    What earlier runs did, from the ledger.

    :param scheduled: since when each id has been scheduled without a break under this policy
    :param soft_deleted: when this package soft-deleted each id
    :param due: the day for which each id was announced under this policy, also of ids that are not scheduled
        any more; no rule of the policy deletes it earlier
    :param erasures: the request of each id that belongs to an open request for an erasure
    """

    scheduled: Mapping[str, datetime] = field(default_factory=dict)
    soft_deleted: Mapping[str, datetime] = field(default_factory=dict)
    due: Mapping[str, datetime] = field(default_factory=dict)
    erasures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Inventory:
    """
    Everything that a decision is made from.

    :param replicas: the complete listing, except for unreadable rows
    :param personas, conversations, videos: complete, as far as :attr:`.Policy.needs` names them, except for
        unreadable rows; without ended conversations unless the policy asks about the past
    :param unreadable: the unreadable rows of all listings
    :param known_use: what a task that carries out the decision need not read again
    :param held: ids under legal hold
    :param read_at: when it was read, for the argument ``now`` of :func:`.evaluate`. Without it this is a time
        before all dates, at which everything is kept.
    """

    replicas: Sequence[Replica]
    personas: Sequence[Persona] = ()
    conversations: Sequence[Conversation] = ()
    videos: Sequence[Video] = ()
    held: frozenset[str] = frozenset()
    history: History = field(default_factory=History)
    read_at: datetime = LONG_AGO
    unreadable: Sequence[UnreadableRow] = ()
    known_use: KnownUse | None = None

    @property
    def unreadable_replicas(self) -> tuple[UnreadableRow, ...]:
        """The unreadable rows of the listing of replicas."""
        return tuple(row for row in self.unreadable if row.kind == Replica.kind)


@dataclass(slots=True)
class ReplicaFacts:
    """
    What is known of one replica, whichever check asks. Made by :meth:`Context.find_facts`.

    An unknown length of time is zero, which reaches no limit.

    :param age: time since it was created
    :param idle: time since its last use, and at most its age
    :param last_used_at: ``None`` if it was never used or this is unknown
    :param possible_use: what makes ``idle`` shorter because it may have used this replica
    :param unknown_use: why the last use is unknown
    :param out_of_scope: why the policy does not consider it
    :param undetermined: why nothing can be decided about it
    :param rule: the first rule that matches it
    :param in_excess: whether it is one of the least recently used ones, no rule matches it, and the account
        has more replicas than its quota
    """

    replica: Replica
    age: timedelta
    idle: timedelta
    last_used_at: datetime | None
    possible_use: str | None
    unknown_use: str | None
    out_of_scope: str | None
    undetermined: str | None = None
    rule: Rule | None = None
    in_excess: bool = False

    @property
    def is_due(self) -> bool:
        """Whether a rule matches it, or the quota of the account is exceeded by it."""
        return self.rule is not None or self.in_excess


class Context:
    """
    A policy, an inventory, and indexes over both.

    :param now: the time by the wall clock, with a time zone
    :param hard: whether the decision is for permanent deletes
    :raises TavusInvalidResponseError: if it is unknown which replica an unfinished conversation or video uses
    :raises TavusValidationError: if ``now`` has no time zone
    """

    def __init__(self, policy: Policy, inventory: Inventory, *, now: datetime, hard: bool) -> None:
        if not isinstance(now, datetime) or now.utcoffset() is None:
            raise TavusValidationError(f"now: must be a datetime with a time zone, not {quote(str(now))}")
        now = now.astimezone(UTC)
        # A plain datetime: subclasses such as those of pendulum have a slower arithmetic of their own.
        self.now = datetime.combine(now.date(), now.time(), UTC)
        self.hard = hard
        self.policy = policy
        self.keep = policy.keep
        self.held = inventory.held
        self.history = inventory.history
        self.erasures = {fold(key): request for key, request in inventory.history.erasures.items()}
        """The open request for an erasure to which each object belongs, by its folded key."""
        self.hard_delete_after = policy.hard_delete_after if hard else None
        self.min_age = policy.narrow.older_than
        self.protected = frozenset(policy.keep.protected_ids)
        self.expected = frozenset(policy.account.expect_present if policy.account is not None else ())
        self.rules_by_status: dict[str, tuple[Rule, ...]] = {
            status: tuple(rule for rule in policy.expire if status in rule.status)
            for status in REPLICA_STATUSES
        }
        self._conditions_by_status = {
            status: tuple(dict.fromkeys(type(condition) for rule in rules for condition in rule.conditions))
            for status, rules in self.rules_by_status.items()
        }
        self._models = frozenset(policy.scope.model_names)
        names = (("scope", policy.scope.filter), ("narrow", policy.narrow.filter))
        self._filters = [(where, globs) for where, globs in names if globs is not None]
        self.unreadable = inventory.unreadable_replicas
        self.unreadable_ids = {
            replica_id: describe_unreadable(row) for row in self.unreadable for replica_id in row.own_ids
        }
        """Why each id that an unreadable row of the listing shows is undetermined, readable rows included."""
        self._usage = Usage(policy, inventory, self.now)
        self.in_use = self._usage.in_use
        self.replicas = [self.find_facts(replica) for replica in inventory.replicas]
        self.ranking = self._rank_least_recently_used()
        """The places of the replicas for the quota; ``None`` without one."""
        self.places = self._rank_newest()
        """The place of each replica that is counted for ``keep_last``, by id."""

    def find_listed(self, replica_id: str) -> ReplicaFacts | None:
        """Return what is known of a listed replica; ```None`` if unlisted or unreadable."""
        return self._facts_by_id.get(replica_id)

    @cached_property
    def _facts_by_id(self) -> dict[str, ReplicaFacts]:
        return {facts.replica.replica_id: facts for facts in self.replicas}

    def find_facts(self, replica: Replica) -> ReplicaFacts:
        """Return what is known of a replica."""
        created_at, now = replica.created_at, self.now
        age = max(now - created_at, ZERO) if created_at is not None else ZERO
        idle, possible_use = age, None
        last_used_at = self._usage.last_used.get(fold(replica.replica_id))
        unknown_use = self._usage.unknown.get(fold(replica.replica_id))
        if unknown_use is not None:
            idle, last_used_at = ZERO, None
        else:
            if last_used_at is not None:
                idle = min(age, now - last_used_at)
            unattributed = self._usage.unattributed
            if unattributed is not None and now - unattributed.used_at < idle:
                idle = now - unattributed.used_at
                possible_use = f"{unattributed.label} does not name its replica"
        facts = ReplicaFacts(
            replica,
            age,
            idle,
            last_used_at,
            possible_use,
            None if unknown_use is None else unknown_use.reason,
            self._find_out_of_scope(replica),
        )
        for rule in self.rules_by_status.get(replica.status or "", ()):
            for condition in rule.conditions:
                if not condition.holds(facts):
                    break
            else:
                facts.rule = rule
                break
        facts.undetermined = self._find_undetermined(facts)
        return facts

    def describe_presumed_ended(self, facts: ReplicaFacts) -> str | None:
        """Return why an active conversation does not count as use of a replica; ``None`` without such one."""
        return self._usage.describe_presumed_ended(facts.replica.replica_id)

    def due_at(self, facts: ReplicaFacts) -> datetime | None:
        """
        Return the day before which a replica that is due is not deleted, or ``None`` without such a day.

        It is the end of the grace period, and never before the day that was announced, which also applies
        to a rule without grace.
        """
        if not facts.is_due:
            return None
        announced = self.history.due.get(facts.replica.replica_id)
        ends = self.grace_ends(facts)
        if ends is None:
            return None if announced is None or announced <= self.now else announced
        return ends if announced is None else max(ends, announced)

    def grace_ends(self, facts: ReplicaFacts) -> datetime | None:
        """Return when the grace period of a replica ends, or ``None`` without one."""
        grace = self.grace_of(facts)
        if grace is None:
            return None
        since = self.history.scheduled.get(facts.replica.replica_id, self.now)
        return min(since, self.now) + grace.delta

    def grace_of(self, facts: ReplicaFacts) -> Duration | None:
        """Return the grace period of what makes a replica due."""
        if facts.rule is not None:
            return facts.rule.grace
        return self.policy.quota.grace if facts.in_excess and self.policy.quota is not None else None

    def _find_out_of_scope(self, replica: Replica) -> str | None:
        if self._models and replica.model_name not in self._models:
            return f"model_name is {quote_field(replica.model_name)}, not one of scope.model_names"
        for where, names in self._filters:
            if (reason := names.find_mismatch(replica, where=where, against="the scope")) is not None:
                return reason
        return None

    def describe_scope(self, replica: Replica) -> str:
        """Return which patterns and models include a replica that is in scope."""
        parts = [f"model_name is {quote_field(replica.model_name)}"] if self._models else []
        parts += [names.describe_match(replica, where=where) for where, names in self._filters]
        return "; ".join(parts) or "the scope includes every replica"

    def _find_undetermined(self, facts: ReplicaFacts) -> str | None:
        replica = facts.replica
        created_at, status = replica.created_at, replica.status
        if replica.replica_id in self.unreadable_ids:
            return self.unreadable_ids[replica.replica_id]
        if replica.unreadable:
            for key in ("created_at", "replica_name", "status"):
                if key in replica.unreadable:
                    return escape_line(replica.unreadable[key])
        if created_at is None:
            return "created_at is not given"
        if created_at > self.now:
            return f"created_at {created_at:%Y-%m-%dT%H:%M:%SZ} is in the future"
        conditions = self._conditions_by_status.get(status or "")
        if conditions is None:
            return f"status is {quote_field(status)}, not one of {', '.join(REPLICA_STATUSES)}"
        if status == "error":  # when it failed decides; without updated_at, created_at is taken for it
            if "updated_at" in replica.unreadable:
                return escape_line(replica.unreadable["updated_at"])
            if replica.updated_at is not None and replica.updated_at > self.now:
                return f"updated_at {replica.updated_at:%Y-%m-%dT%H:%M:%SZ} is in the future"
        for condition in conditions:
            if (reason := condition.find_unknown(facts)) is not None:
                return reason
        return None

    def _rank_least_recently_used(self) -> Ranking | None:
        quota = self.policy.quota
        if quota is None:
            return None
        soft_deleted = self.history.soft_deleted.keys()
        ranking = rank(quota, self.replicas, now=self.now, soft_deleted=soft_deleted)
        for facts in self.replicas:
            facts.in_excess = ranking.is_candidate(facts)
            if facts.in_excess and facts.undetermined is None and facts.unknown_use is not None:
                facts.undetermined = f"last use is unknown: {facts.unknown_use}"
        return ranking

    def _rank_newest(self) -> dict[str, Place]:
        """
        Return the place of each replica that is counted for ``keep_last`` in its group, the newest first.

        Only completed replicas are counted, and no undetermined or soft-deleted ones: a failed training must
        not take the place of a replica that works.
        """
        if self.keep.keep_last is None:
            return {}
        find_group = None if self.keep.group_by is None else compile_group(self.keep.group_by)
        groups: defaultdict[tuple[str, str | None], list[Replica]] = defaultdict(list)
        for facts in self.replicas:
            replica = facts.replica
            if replica.replica_type != "user" or facts.out_of_scope or facts.undetermined:
                continue
            if replica.status != "completed":
                continue
            if replica.replica_id in self.history.soft_deleted:
                continue
            if find_group is None:
                groups["", None].append(replica)
                continue
            group = None if replica.is_name_cut else find_group(replica.name_for_patterns)
            if group is not None and (REPLACEMENT in group or LOST in group):
                group = None  # names that differ in unsafe characters only must not share a group
            groups["" if group is not None else replica.replica_id, group].append(replica)
        places = {}
        for (only_member, group), members in groups.items():
            where = f" in group '{escape_line(group, 40)}'" if group is not None else ""
            where = " in a group of its own" if only_member else where
            members.sort(key=lambda replica: replica.replica_id)
            members.sort(key=lambda replica: replica.created_at or LONG_AGO, reverse=True)
            for number, replica in enumerate(members, start=1):
                places[replica.replica_id] = Place(number, len(members), where)
        return places


class Place(NamedTuple):
    """The place of a replica among the replicas of its group, the newest first, from 1."""

    number: int
    total: int
    where: str
    """The group in words, with a space before them; empty if there is only one group."""

    def __str__(self) -> str:
        return f"number {self.number} of {self.total}{self.where}, newest first"


def describe_unreadable(row: UnreadableRow) -> str:
    """Return why a replica is undetermined whose row in the listing cannot be read."""
    return f"a row of the listing cannot be read: {escape_line(row.reason)}"
