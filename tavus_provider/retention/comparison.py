"""Compare two decisions about the same account: what would another policy decide differently?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tavus_provider.models import Replica
from tavus_provider.retention.engine import Decision
from tavus_provider.retention.verdict import Status, Verdict

_IS_DUE: Final = {Status.SCHEDULED: 1, Status.EXPIRED: 2}
"""How close a status is to a delete; others are not."""


class Change(NamedTuple):
    """
    A replica with two different verdicts.

    :param old: ``None`` if only the other decision has a verdict, because the replica is not listed
    """

    replica: Replica
    old: Verdict | None
    new: Verdict | None

    @property
    def is_newly_due(self) -> bool:
        """Whether the new decision deletes the replica, or schedules it, and the old one did not yet."""
        return _closeness(self.new) > _closeness(self.old)

    def to_json(self) -> dict[str, Any]:
        """Return the change as plain data."""
        return {
            "replica_id": self.replica.replica_id,
            "replica_name": self.replica.replica_name,
            "newly_due": self.is_newly_due,
            "old": _to_json(self.old),
            "new": _to_json(self.new),
        }


def compare(old: Decision, new: Decision) -> list[Change]:
    """
    Return the replicas whose status, reason code or rule differs; those that are newly due come first.

    Verdicts that differ in their sentence only, for example because a limit is another one, are equal.
    """
    return sorted(_find_changes(old, new), key=lambda change: (not change.is_newly_due, _place(change)))


def _find_changes(old: Decision, new: Decision) -> Iterator[Change]:
    before = {verdict.replica.replica_id: verdict for verdict in old.verdicts}
    after = {verdict.replica.replica_id: verdict for verdict in new.verdicts}
    for replica_id in sorted(before.keys() | after.keys()):
        was, now = before.get(replica_id), after.get(replica_id)
        either = now or was
        if either is not None and _essence(was) != _essence(now):
            yield Change(either.replica, was, now)


def _essence(verdict: Verdict | None) -> tuple[str | None, ...]:
    return () if verdict is None else (verdict.status, verdict.reason_code, verdict.rule)


def _closeness(verdict: Verdict | None) -> int:
    return 0 if verdict is None else _IS_DUE.get(verdict.status, 0)


def _place(change: Change) -> tuple[int, str]:
    return -_closeness(change.new), change.replica.replica_id


def _to_json(verdict: Verdict | None) -> dict[str, Any] | None:
    if verdict is None:
        return None
    return {
        "status": verdict.status.value,
        "reason_code": verdict.reason_code.value,
        "rule": verdict.rule,
        "reason": verdict.reason,
    }
