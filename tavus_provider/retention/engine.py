"""
Evaluate a policy: which replicas may be deleted, which are kept, and one sentence with the reason for each.

Pure: no I/O and no clock. A replica is kept if anything about it is unknown.
"""

from __future__ import annotations

import contextlib
import gc
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final

from tavus_provider.exceptions import TavusInvalidResponseError
from tavus_provider.keys import is_named
from tavus_provider.models import Replica, UnreadableRow
from tavus_provider.retention.checks import (
    CHECKS,
    KEEPS_SOFT_DELETED,
    Check,
    CheckResult,
    run_checks,
)
from tavus_provider.retention.context import Context, Inventory, ReplicaFacts, describe_unreadable
from tavus_provider.retention.fields import LONG_AGO
from tavus_provider.retention.policy import Limits, Narrow, Policy
from tavus_provider.retention.verdict import ReasonCode, Source, Status, Verdict
from tavus_provider.sanitize import escape_line


def evaluate(policy: Policy, inventory: Inventory, *, now: datetime, hard: bool = False) -> Decision:
    """
    Decide about every replica.

    :param inventory: complete, as far as :attr:`.Policy.needs` asks
    :param now: the time by the wall clock, with a time zone
    :param hard: whether the decision is for permanent deletes
    :raises TavusInvalidResponseError: if an id was listed twice, if it is unknown which replica an unfinished
        conversation or video uses, or if a replica of ``account.expect_present`` is not listed
    :raises TavusValidationError: if ``now`` has no time zone
    """
    with _without_garbage_collection():
        context = _checked_context(policy, inventory, now=now, hard=hard)
        verdicts = [_decide(facts, context) for facts in context.replicas]
        verdicts += _decide_unlisted(context)
        verdicts += map(_decide_unreadable, context.unreadable)
        verdicts.sort(key=_reading_order)
        return Decision(tuple(verdicts), policy.limits, context.unreadable, context)


def explain(
    policy: Policy, inventory: Inventory, replica_id: str, *, now: datetime, hard: bool = False
) -> list[CheckResult]:
    """
    Return the result of every check for one replica, in their order; the first with a reason decides.

    The checks after ``undetermined`` are left out if it has a reason: they would use facts that are unknown.

    Arguments and errors as for :func:`evaluate`.

    :returns: an empty list if the replica is neither listed nor soft-deleted by this package
    """
    context = _checked_context(policy, inventory, now=now, hard=hard)
    return list(_explain(replica_id, context))


def _explain(replica_id: str, context: Context) -> Iterator[CheckResult]:
    facts = context.find_listed(replica_id)
    if facts is not None:
        yield from run_checks(facts, context)
    elif (reason := context.unreadable_ids.get(replica_id)) is not None:
        yield CheckResult(Status.UNDETERMINED, ReasonCode.UNREADABLE_ROW, reason, seen=reason, decides=True)
    elif replica_id in context.history.soft_deleted:
        yield from _explain_unlisted(replica_id, context)


def _explain_unlisted(replica_id: str, context: Context) -> Iterator[CheckResult]:
    """Yield the results of the checks that can decide about a replica that is no longer listed."""
    is_narrowed = context.policy.narrow != Narrow()
    if is_narrowed:
        reason = "is no longer listed, so it has neither name nor date to check against the form"
        yield CheckResult(Status.OUT_OF_SCOPE, ReasonCode.OUT_OF_SCOPE, reason, seen=reason, decides=True)
        return
    facts = context.find_facts(Replica(replica_id))
    for result in run_checks(facts, context, _FOR_UNLISTED):
        if result.reason_code == ReasonCode.HARD_DELETE_AFTER and result.reason is not None:
            reason = f"{result.reason}; no longer listed"
            yield result._replace(reason=reason, seen=reason)
        else:
            yield result


_FOR_UNLISTED: Final = tuple(
    check for check in CHECKS if check in KEEPS_SOFT_DELETED or check.source is Source.SOFT_DELETED
)


def _checked_context(policy: Policy, inventory: Inventory, *, now: datetime, hard: bool) -> Context:
    context = Context(policy, inventory, now=now, hard=hard)
    ids = [replica.replica_id for replica in inventory.replicas]
    listed = set(ids)
    if len(listed) < len(ids):
        (replica_id, _), *_ = Counter(ids).most_common(1)
        raise TavusInvalidResponseError(
            f"replica {escape_line(replica_id)} was listed twice; nothing may be deleted"
        )
    if missing := sorted(context.expected - listed - context.unreadable_ids.keys()):
        raise TavusInvalidResponseError(
            f"account.expect_present names {', '.join(missing[:3])}, not listed here: it is the wrong "
            "account, or a replica is gone that should not be; nothing may be deleted"
        )
    return context


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


def _decide(facts: ReplicaFacts, context: Context) -> Verdict:
    reasons = _find_reasons(facts, context, CHECKS)
    check, reason = next(reasons)
    # Of an undetermined replica the following checks would use facts that are unknown.
    next_one = next(reasons, None) if check.status in _HAS_NEXT_REASON else None
    is_due = check.status in _IS_DUE and check.source is not Source.SOFT_DELETED
    rule = facts.rule if is_due else None
    replica = facts.replica
    is_age_known = replica.created_at is not None and replica.created_at <= context.now
    return Verdict(
        replica=replica,
        status=check.status,
        reason_code=check.reason_code,
        reason=reason,
        next_reason=None if next_one is None else f"{next_one[0].reason_code}: {next_one[1]}",
        rule=None if rule is None else rule.rule,
        age_days=facts.age.days if is_age_known else None,
        last_used_at=facts.last_used_at,
        due_at=context.due_at(facts) if is_due else None,
        source=Source.QUOTA if is_due and rule is None else check.source,
    )


_HAS_NEXT_REASON: Final = (Status.HELD, Status.KEPT)
_IS_DUE: Final = (Status.EXPIRED, Status.SCHEDULED)


def _find_reasons(
    facts: ReplicaFacts, context: Context, checks: Iterable[Check]
) -> Iterator[tuple[Check, str]]:
    for check in checks:
        reason = check.find_reason(facts, context)
        if reason is not None:
            yield check, reason


def _decide_unlisted(context: Context) -> Iterator[Verdict]:
    """Decide about replicas that are due for a permanent delete although Tavus no longer lists them."""
    if context.policy.narrow != Narrow():
        return  # they have no name and no date, so it is unknown whether the form includes them
    listed = {facts.replica.replica_id for facts in context.replicas}
    for replica_id in sorted(context.history.soft_deleted.keys() - listed):
        facts = context.find_facts(Replica(replica_id))
        reasons = list(_find_reasons(facts, context, _FOR_UNLISTED))
        due = next((reason for check, reason in reasons if check.source is Source.SOFT_DELETED), None)
        if due is None:
            continue
        check, reason = reasons[0]
        is_kept = check.source is not Source.SOFT_DELETED
        yield Verdict(
            replica=facts.replica,
            status=check.status,
            reason_code=check.reason_code,
            reason=reason if is_kept else f"{due}; no longer listed",
            next_reason=f"{ReasonCode.HARD_DELETE_AFTER}: {due}" if is_kept else None,
            listed=False,
            source=check.source,
        )


def _decide_unreadable(row: UnreadableRow) -> Verdict:
    """Decide about a row that cannot be read: it counts as listed and is never deleted."""
    return Verdict(
        replica=Replica(row.shown_id),
        status=Status.UNDETERMINED,
        reason_code=ReasonCode.UNREADABLE_ROW,
        reason=describe_unreadable(row),
    )


def _reading_order(verdict: Verdict) -> tuple[Any, ...]:
    replica_id = verdict.replica.replica_id
    if verdict.status == Status.EXPIRED:
        return 0, verdict.replica.created_at or LONG_AGO, replica_id
    if verdict.status == Status.SCHEDULED:
        return 1, verdict.due_at, replica_id
    return 2 if verdict.status == Status.UNDETERMINED else 3, verdict.reason_code, replica_id


@dataclass(frozen=True, slots=True)
class Decision:
    """
    A verdict for every replica that is listed or due, in an order that does not depend on the listing.

    ``unreadable`` are the rows of the listing that cannot be read. There is a verdict for each of them.
    ``context`` is what the verdicts were decided from.

    First expired replicas, the oldest first; then scheduled ones, the next due first; then undetermined ones;
    then the others by reason code.
    """

    verdicts: tuple[Verdict, ...]
    limits: Limits
    unreadable: tuple[UnreadableRow, ...] = ()
    context: Context | None = field(default=None, repr=False, compare=False)

    def checks_of(self, verdict: Verdict) -> list[tuple[str, str]]:
        """
        Return what each check saw, up to and including the one that decided, as ``(reason_code, seen)``.

        It needs the context; without it, only the check that decided is returned.
        """
        seen = []
        if self.context is not None and verdict.reason_code != ReasonCode.UNREADABLE_ROW:
            for result in _explain(verdict.replica.replica_id, self.context):
                seen.append((result.reason_code.value, result.seen))
                if result.decides:
                    return seen
        return [(verdict.reason_code.value, verdict.reason)]

    @property
    def listed(self) -> int:
        """Number of replicas that Tavus listed."""
        return sum(verdict.listed for verdict in self.verdicts)

    @property
    def unlisted(self) -> int:
        """Number of replicas to delete that Tavus does not list, because they are soft-deleted."""
        return sum(not verdict.listed for verdict in self.delete)

    @property
    def delete(self) -> tuple[Verdict, ...]:
        """Replicas that may be deleted now."""
        return self._with_status(Status.EXPIRED)

    @property
    def scheduled(self) -> tuple[Verdict, ...]:
        """Replicas that may be deleted when their grace period is over."""
        return self._with_status(Status.SCHEDULED)

    @property
    def undetermined(self) -> tuple[Verdict, ...]:
        """Replicas that are kept because a fact is missing or unreadable."""
        return self._with_status(Status.UNDETERMINED)

    @property
    def keep(self) -> dict[str, int]:
        """How many of the others are kept, by reason code."""
        counted_apart = (Status.EXPIRED, Status.SCHEDULED, Status.UNDETERMINED)
        counts = Counter(v.reason_code.value for v in self.verdicts if v.status not in counted_apart)
        return dict(sorted(counts.items()))

    @property
    def warnings(self) -> list[str]:
        """One sentence for each thing that a person should look at, beside the verdicts."""
        found = [self.quota_shortfall, self._unknown_age]
        return [sentence for sentence in found if sentence is not None]

    @property
    def overdue(self) -> tuple[Verdict, ...]:
        """
        Replicas that are older than ``overdue_after`` and stay, the oldest first.

        Not those under a legal hold, stock replicas, and those that this package soft-deleted.
        """
        if self.context is None or (limit := self.context.policy.overdue_after) is None:
            return ()
        ages = [(self._least_age(verdict), verdict) for verdict in self._staying()]
        old = [(age, verdict) for age, verdict in ages if age is not None and age >= limit.delta]
        old.sort(key=lambda one: (-one[0], one[1].replica.replica_id))
        return tuple(verdict for _, verdict in old)

    @property
    def _unknown_age(self) -> str | None:
        """The sentence about replicas of which it is unknown whether they are overdue, or ``None``."""
        if self.context is None or self.context.policy.overdue_after is None:
            return None
        undated = sorted(v.replica.replica_id for v in self._staying() if self._least_age(v) is None)
        if not undated:
            return None
        named = ", ".join(map(escape_line, undated[:3])) + (", ..." if len(undated) > 3 else "")
        return (
            f"overdue_after: the age of {len(undated)} replica{'s' * (len(undated) != 1)} is unknown "
            f"({named}), so they are kept and never overdue; delete them by hand if they should go"
        )

    def _staying(self) -> Iterator[Verdict]:
        """Yield the replicas of the account itself that stay without a legal hold."""
        held = frozenset[str]() if self.context is None else self.context.held
        for verdict in self.verdicts:
            is_soft_deleted = verdict.reason_code == ReasonCode.SOFT_DELETED
            is_own = verdict.replica.replica_type != "system" and not is_soft_deleted
            stays = verdict.listed and verdict.status not in (Status.EXPIRED, Status.HELD)
            if stays and is_own and not is_named(verdict.replica.replica_id, held):
                yield verdict

    def _least_age(self, verdict: Verdict) -> timedelta | None:
        """Return the age of a replica, or how old it is at least; ``None`` if no date shows that."""
        if self.context is None:
            return None
        replica, now = verdict.replica, self.context.now
        if replica.created_at is not None and replica.created_at <= now:
            return now - replica.created_at
        if replica.updated_at is not None and replica.updated_at <= now:
            return now - replica.updated_at
        return None

    @property
    def quota_shortfall(self) -> str | None:
        """The sentence that says why the account stays above its quota, or ``None`` if it does not."""
        ranking = None if self.context is None else self.context.ranking
        if ranking is None or not ranking.excess:
            return None
        due = sum(verdict.replica.replica_id in ranking.places for verdict in (*self.delete, *self.scheduled))
        if (left := ranking.counted - due) <= ranking.quota.down_to:
            return None
        return (
            f"quota: {left} of {ranking.counted} replicas will be left, down_to is {ranking.quota.down_to}; "
            "the others that were used least recently are kept, see their reasons"
        )

    @property
    def limit_exceeded(self) -> str | None:
        """The sentence that names the limits which this decision exceeds, or ``None``."""
        return self.find_exceeded_limit()

    def find_exceeded_limit(self, *, deleted: Set[str] = frozenset()) -> str | None:
        """
        Return the sentence that names the limits which this decision exceeds, or ``None``.

        :param deleted: ids that the same run has deleted already, or may have; they count too
        """
        deleted = deleted - {verdict.replica.replica_id for verdict in self.delete}
        known = {verdict.replica.replica_id for verdict in self.verdicts}
        return self.limits.exceeded(
            delete=len(self.delete) + len(deleted),
            listed=self.listed,
            unlisted=self.unlisted + len(deleted - known),
            undetermined=len(self.undetermined),
            unreadable=len(self.unreadable),
            earlier=len(deleted),
        )

    def _with_status(self, status: Status) -> tuple[Verdict, ...]:
        return tuple(verdict for verdict in self.verdicts if verdict.status == status)
