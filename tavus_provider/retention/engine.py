"""
Which replicas may go and which stay, and for each of them one sentence that says why.

A policy decides and does nothing else: no I/O, no clock, neither Airflow nor HTTP. What it is not
sure of stays.
"""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from tavus_provider.exceptions import TavusInvalidResponseError, TavusValidationError
from tavus_provider.retention.checks import CheckResult, asked, decide_replica, no_longer_listed
from tavus_provider.retention.context import LONG_AGO, Case, Facts, Inventory
from tavus_provider.retention.fields import show
from tavus_provider.retention.policy import Limits, Policy
from tavus_provider.retention.verdict import Verdict
from tavus_provider.sanitize import escape_line


def evaluate(policy: Policy, inventory: Inventory, *, now: datetime, hard: bool = False) -> Decision:
    """
    Return a verdict for every replica.

    :param inventory: complete, as far as :attr:`.Policy.needs` asks
    :param now: the time by the wall clock, with a time zone
    :param hard: whether the decision is for permanent deletes
    :raises TavusInvalidResponseError: if an id was listed twice, if it is unknown which replica an unfinished
        conversation or video uses, or if a replica of ``account.expect_present`` is not listed
    :raises TavusValidationError: if ``now`` has no time zone
    """
    with _without_garbage_collection():
        facts, cases = _facts(policy, inventory, now, hard=hard)
        listed = {case.replica.replica_id for case in cases}
        verdicts = [decide_replica(case, facts) for case in cases]
        verdicts += no_longer_listed(facts, listed)
        return Decision(tuple(sorted(verdicts, key=_reading_order)), policy.limits)


def explain(
    policy: Policy, inventory: Inventory, replica_id: str, *, now: datetime, hard: bool = False
) -> list[CheckResult]:
    """
    Return the result of every check for one replica, in order; the first with a reason decides.

    Arguments and errors as for :func:`evaluate`. Empty if the replica is not listed.
    """
    facts, cases = _facts(policy, inventory, now, hard=hard)
    return [one for case in cases if case.replica.replica_id == replica_id for one in asked(case, facts)]


def _facts(policy: Policy, inventory: Inventory, now: datetime, *, hard: bool) -> tuple[Facts, list[Case]]:
    if not isinstance(now, datetime) or now.utcoffset() is None:
        raise TavusValidationError(f"now must be a datetime with a time zone, not {show(str(now))}")
    now = now.astimezone(UTC)
    now = datetime.combine(now.date(), now.time(), UTC)  # pendulum's would do sums in its own way
    facts = Facts(policy, inventory, now, hard=hard)
    cases = [facts.case(replica) for replica in inventory.replicas]
    listed = {case.replica.replica_id for case in cases}
    if len(listed) < len(cases):
        (replica_id, _), *_ = Counter(case.replica.replica_id for case in cases).most_common(1)
        raise TavusInvalidResponseError(
            f"replica {escape_line(replica_id)} was listed twice; nothing may be deleted"
        )
    if missing := sorted(facts.sentinels - listed):
        raise TavusInvalidResponseError(
            f"account.expect_present names {', '.join(missing[:3])}, not listed here: it is the wrong "
            "account, or a replica is gone that should not be; nothing may be deleted"
        )
    facts.rank(cases)
    return facts, cases


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """Pause the search for reference cycles: a decision makes none, and the heap of Airflow is large."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _reading_order(verdict: Verdict) -> tuple[Any, ...]:
    replica_id = verdict.replica.replica_id
    if verdict.status == "expired":
        return 0, verdict.replica.created_at or LONG_AGO, replica_id
    if verdict.status == "scheduled":
        return 1, verdict.due_at, replica_id
    return 2 if verdict.status == "undetermined" else 3, verdict.reason_code, replica_id


@dataclass(frozen=True, slots=True)
class Decision:
    """
    One verdict for every replica that was listed, in an order that does not depend on the listing.

    First what is expired, the oldest first, then what is scheduled, the next one first, then what is
    undetermined, then the others by word.
    """

    verdicts: tuple[Verdict, ...]
    limits: Limits

    @property
    def listed(self) -> int:
        """How many replicas Tavus listed."""
        return sum(verdict.listed for verdict in self.verdicts)

    @property
    def delete(self) -> tuple[Verdict, ...]:
        """What may go now."""
        return self._on("expired")

    @property
    def scheduled(self) -> tuple[Verdict, ...]:
        """What has expired and goes when its grace is over."""
        return self._on("scheduled")

    @property
    def undetermined(self) -> tuple[Verdict, ...]:
        """What stays because it is in doubt."""
        return self._on("undetermined")

    @property
    def keep(self) -> dict[str, int]:
        """How many of the others stay for which word."""
        counts = Counter(v.reason_code for v in self.verdicts if v.status not in _SHOWN_APART)
        return dict(sorted(counts.items()))

    @property
    def limit_exceeded(self) -> str | None:
        """The sentence that names the limits which this decision exceeds; ``None`` if it exceeds none."""
        return self.limits.exceeded(
            delete=len(self.delete), listed=self.listed, undetermined=len(self.undetermined)
        )

    def _on(self, rung: str) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.status == rung)


_SHOWN_APART: Final = frozenset({"expired", "scheduled", "undetermined"})
