"""What was decided about one replica, as a value and as the rows of the documents that carry it."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple

from tavus_provider.models import Replica

MAX_NAME: Final = 256


class Source(StrEnum):
    """What makes a replica due for deletion."""

    RULE = "rule"
    """A rule of the policy matches it."""
    SOFT_DELETED = "soft_deleted"
    """This package soft-deleted it at least ``hard_delete_after`` ago."""


class Verdict(NamedTuple):
    """
    What was decided about one replica, and why. A named tuple, because one is made per replica.

    :param status: ``expired``, ``scheduled``, ``kept``, ``held``, ``undetermined``, ``out_of_scope`` or
        ``not_expired``; only ``expired`` replicas may be deleted
    :param reason_code: machine-readable reason; reports count by it
    :param reason: one sentence that a person can check
    :param next_reason: what would decide if this reason did not apply; ``None`` if nothing would
    :param rule: name of the rule that matched; ``None`` unless ``source`` is a rule that matched
    :param age_days: whole days since the replica was created; ``None`` if unknown
    :param last_used_at: last use; ``None`` if never used, not read or unknown
    :param due_at: when the grace period ends or ended; ``None`` if the rule has none
    :param listed: whether Tavus listed the replica; if not, it comes from the ledger
    :param source: what makes an expired replica due for deletion
    """

    replica: Replica
    status: str
    reason_code: str
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
            "replica_name": shorten_name(self.replica.replica_name),
            "created_at": format_time(self.replica.created_at),
            "age_days": self.age_days,
            "last_used_at": format_time(self.last_used_at),
            "rule": self.rule,
            "source": self.source.value,
            "reason": self.reason,
        }

    def to_json(self) -> dict[str, Any]:
        """Return the row of the ``verdicts`` document, with the reasons for and against."""
        return {
            "replica_id": self.replica.replica_id,
            "replica_name": shorten_name(self.replica.replica_name),
            "status": self.status,
            "reason_code": self.reason_code,
            "reason": self.reason,
            "next_reason": self.next_reason,
            "age_days": self.age_days,
        }


def shorten_name(name: str | None) -> str | None:
    """Return a replica name as plans hold it: unchanged, or its beginning and the SHA-256 of all of it."""
    if name is None or len(name) <= MAX_NAME:
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    return f"{name[: MAX_NAME - 80]}... sha256:{digest}"


def format_time(moment: datetime | None) -> str | None:
    """Return a time as ISO 8601 in UTC, as plans and reports hold it."""
    return None if moment is None else moment.astimezone(UTC).isoformat().replace("+00:00", "Z")
