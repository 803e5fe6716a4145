"""What was decided about one replica, and the rows of documents that are made of it."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, NamedTuple

from tavus_provider.models import Replica


class Status(StrEnum):
    """What was decided about a replica."""

    OUT_OF_SCOPE = "out_of_scope"
    """The policy does not consider it."""
    HELD = "held"
    """It is under legal hold."""
    UNDETERMINED = "undetermined"
    """It is kept because a fact is missing or unreadable."""
    KEPT = "kept"
    """Something keeps it, whether a rule matches or not."""
    SCHEDULED = "scheduled"
    """A rule matches, and the grace period of the rule is not over."""
    EXPIRED = "expired"
    """It may be deleted."""
    NOT_EXPIRED = "not_expired"
    """No rule matches."""


class ReasonCode(StrEnum):
    """
    Machine-readable reason of a verdict: which check decided.

    The first ones are in the order of :data:`tavus_provider.retention.checks.CHECKS`.
    """

    NOT_USER = "not_user"
    OUT_OF_SCOPE = "out_of_scope"
    HELD = "held"
    ERASURE_OPEN = "erasure_open"
    SOFT_DELETED = "soft_deleted"
    NO_HARD_DELETE_AFTER = "no_hard_delete_after"
    HARD_DELETE_AFTER = "hard_delete_after"
    UNDETERMINED = "undetermined"
    PROTECTED = "protected"
    IN_USE = "in_use"
    TRAINING = "training"
    FAILED_RECENTLY = "failed_recently"
    KEEP_WITHIN = "keep_within"
    KEEP_LAST = "keep_last"
    TOO_YOUNG = "too_young"
    SCHEDULED = "scheduled"
    EXPIRED = "expired"
    QUOTA = "quota"
    NOT_EXPIRED = "not_expired"

    UNREADABLE_ROW = "unreadable_row"
    """No check: a row of the listing that cannot be read."""
    MANUAL = "by_hand"
    """No check: a person chose a replica that Tavus does not show."""


class Source(StrEnum):
    """Why a replica is due for deletion."""

    RULE = "rule"
    """A rule of the policy matches it."""
    QUOTA = "quota"
    """It is one of the least recently used replicas of an account that has more than its quota."""
    SOFT_DELETED = "soft_deleted"
    """This package soft-deleted it at least ``hard_delete_after`` ago."""


class Verdict(NamedTuple):
    """
    What was decided about one replica, and why.

    A named tuple, because a decision makes one for every replica of an account.

    :param reason_code: as reports count it
    :param reason: one sentence that a person can check
    :param next_reason: what would decide if this reason did not apply, as ``reason_code: reason``; ``None``
        if nothing would
    :param rule: name of the rule that matches; ``None`` if the replica is neither expired nor scheduled, or
        is due from another source
    :param age_days: whole days since the replica was created; ``None`` if unknown
    :param last_used_at: ``None`` if the replica was never used, and if its use was not read or is unknown
    :param due_at: when the grace period ends or ended; ``None`` without a grace period
    :param listed: whether Tavus listed the replica; if not, it is known from the ledger
    :param source: why the replica is due, if it is expired or scheduled
    """

    replica: Replica
    status: Status
    reason_code: ReasonCode
    reason: str
    next_reason: str | None = None
    rule: str | None = None
    age_days: int | None = None
    last_used_at: datetime | None = None
    due_at: datetime | None = None
    listed: bool = True
    source: Source = Source.RULE

    def to_row(self) -> dict[str, Any]:
        """Return the row of a plan: ages in whole days, dates in ISO 8601."""
        return {
            "replica_id": self.replica.replica_id,
            "replica_name": self.replica.replica_name,
            "created_at": format_time(self.replica.created_at),
            "age_days": self.age_days,
            "last_used_at": format_time(self.last_used_at),
            "rule": self.rule,
            "source": self.source.value,
            "reason": self.reason,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the row of the ``verdicts`` document."""
        return {
            "replica_id": self.replica.replica_id,
            "replica_name": self.replica.replica_name,
            "status": self.status.value,
            "reason_code": self.reason_code.value,
            "reason": self.reason,
            "next_reason": self.next_reason,
            "age_days": self.age_days,
        }


def format_time(moment: datetime | None) -> str | None:
    """Return a time as plans and reports hold it: ISO 8601 in UTC, such as ``2026-09-01T12:00:00Z``."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
