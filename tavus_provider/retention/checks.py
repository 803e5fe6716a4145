"""
The ladder: each rung answers with the reason why a replica stops there, or with nothing.

``CHECKS`` is the order in which they are asked; the first that answers decides. Knows neither Airflow nor
HTTP nor the clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from tavus_provider.models import Replica
from tavus_provider.retention.context import Case, Facts, said
from tavus_provider.retention.fields import NO_TIME, ZERO, Duration
from tavus_provider.retention.policy import Narrow, Rule
from tavus_provider.retention.verdict import Source, Verdict
from tavus_provider.sanitize import escape_line

# Tavus refunds a failed training, but not if its replica is deleted before the failure was registered.
REFUND_WINDOW: Final = timedelta(hours=72)
_HOURS: Final = Duration("72h", REFUND_WINDOW)


class CheckResult(NamedTuple):
    """What one rung of the ladder says of a replica; ``reason`` is ``None`` if it says nothing."""

    status: str
    reason_code: str
    reason: str | None


def _not_user(case: Case, facts: Facts) -> str | None:
    replica = case.replica
    if "replica_type" in replica.unreadable:
        return escape_line(replica.unreadable["replica_type"])
    if replica.replica_type != "user":
        return f"replica_type is {said(replica.replica_type)}, not 'user'"
    return None


def _out_of_scope(case: Case, facts: Facts) -> str | None:
    return case.outside


def _younger_than_asked(case: Case, facts: Facts) -> str | None:
    limit = facts.narrow.older_than
    if limit is None or case.replica.created_at is None or case.age >= limit.delta:
        return None
    return f"{limit.of(case.age)} old, narrow.older_than is {limit}"


def _held(case: Case, facts: Facts) -> str | None:
    return "is under legal hold" if case.replica.replica_id in facts.held else None


def _undetermined(case: Case, facts: Facts) -> str | None:
    return case.doubt


def _protected(case: Case, facts: Facts) -> str | None:
    if case.replica.replica_id in facts.protected:
        return "is in keep.protected_ids"
    return "is in account.expect_present" if case.replica.replica_id in facts.sentinels else None


def _soft_deleted(case: Case, facts: Facts) -> str | None:
    since = facts.history.soft_deleted.get(case.replica.replica_id)
    if since is None or (facts.hard and facts.hard_delete_after is None):
        return None
    if facts.hard_delete_after is None:
        return f"soft-deleted on {since:%Y-%m-%d}, still listed"
    if facts.now - since >= facts.hard_delete_after.delta:
        return None
    return f"{_since(since, facts)}, hard_delete_after is {facts.hard_delete_after}"


def _due_for_good(case: Case, facts: Facts) -> str | None:
    since, limit = facts.history.soft_deleted.get(case.replica.replica_id), facts.hard_delete_after
    if since is None or limit is None or facts.now - since < limit.delta:
        return None
    if _protected(case, facts) is not None or _in_use(case, facts) is not None:
        return None
    younger = facts.narrow.older_than
    if younger is not None and case.age < younger.delta:  # an age in doubt is none
        return None
    return f"{_since(since, facts)}, hard_delete_after is {limit}"


def _since(since: datetime, facts: Facts) -> str:
    days = (facts.now - since).days
    return f"soft-deleted by this package {days} day{'s' * (days != 1)} ago"


def _in_use(case: Case, facts: Facts) -> str | None:
    return facts.in_use.get(case.replica.replica_id)


def _training(case: Case, facts: Facts) -> str | None:
    if case.replica.status != "started" or facts.rules_for["started"]:
        return None
    return "is still in training, and no rule names status 'started'"


def _failed_recently(case: Case, facts: Facts) -> str | None:
    if case.replica.status != "error":
        return None
    updated_at = case.replica.updated_at
    since = case.age if updated_at is None else min(case.age, facts.now - updated_at)
    if since >= REFUND_WINDOW:
        return None
    return f"failed {_HOURS.of(since)} ago, a delete within {_HOURS} can lose the refund of the training"


def _keep_within(case: Case, facts: Facts) -> str | None:
    limit = facts.keep.keep_within
    if limit is None or case.age >= limit.delta:
        return None
    return f"{limit.of(case.age)} old, keep_within is {limit}"


def _keep_last(case: Case, facts: Facts) -> str | None:
    return facts.places.get(case.replica.replica_id)


def _scheduled(case: Case, facts: Facts) -> str | None:
    rule = case.rule
    if rule is None or rule.grace is None or facts.now >= (due := _due_at(case, rule, facts)):
        return None
    return f"{_expired(case, facts)}; grace of {rule.grace} ends on {due:%Y-%m-%d at %H:%M} UTC"


def _due_at(case: Case, rule: Rule, facts: Facts) -> datetime:
    since = facts.history.scheduled.get(case.replica.replica_id, facts.now)
    return min(since, facts.now) + (rule.grace or NO_TIME).delta


def _expired(case: Case, facts: Facts) -> str | None:
    if case.rule is None:
        return None
    return "; ".join([f"{so}, limit is {limit}" for so, limit in _conditions(case.rule, case)])


def _not_expired(case: Case, facts: Facts) -> str | None:
    rules = facts.rules_for.get(case.replica.status or "")
    if not rules:
        return f"no rule matches status '{case.replica.status}'"
    nearest = rules[0] if len(rules) == 1 else min(rules, key=lambda rule: _wait(rule, case))
    asks = facts.asks[nearest.rule]
    unmet = _conditions(nearest, case, unmet=True)
    return "; ".join([f"{so}, {asks} {limit}" for so, limit in unmet])


class Step(NamedTuple):
    """
    One step of the ladder.

    :param rung: the rung it belongs to
    :param word: what reports count by
    :param asks: returns the reason why a replica stops here
    """

    status: str
    reason_code: str
    asks: Callable[[Case, Facts], str | None]
    source: Source = Source.RULE


# From the top; the first rung that answers decides, the last one always does.
CHECKS: Final = (
    Step("out_of_scope", "not_user", _not_user),
    Step("out_of_scope", "out_of_scope", _out_of_scope),
    Step("held", "held", _held),
    # What must go, as opposed to what may, stands here: below a hold, above doubt and preference.
    Step("kept", "soft_deleted", _soft_deleted),
    Step("expired", "hard_delete_after", _due_for_good, Source.SOFT_DELETED),
    Step("undetermined", "undetermined", _undetermined),
    Step("kept", "protected", _protected),
    Step("kept", "in_use", _in_use),
    Step("kept", "training", _training),
    Step("kept", "failed_recently", _failed_recently),
    Step("kept", "keep_within", _keep_within),
    Step("kept", "keep_last", _keep_last),
    Step("kept", "too_young", _younger_than_asked),
    Step("scheduled", "scheduled", _scheduled),
    Step("expired", "expired", _expired),
    Step("not_expired", "not_expired", _not_expired),
)


def asked(case: Case, facts: Facts) -> Iterator[CheckResult]:
    """Yield what each step says of one replica, from the top, down to the first doubt."""
    for step in CHECKS:
        reason = step.asks(case, facts)
        yield CheckResult(step.status, step.reason_code, reason)
        if step.reason_code == "undetermined" and reason is not None:
            return  # below doubt a rung would answer from what is in doubt


def _answers(case: Case, facts: Facts) -> Iterator[tuple[Step, str]]:
    for step in CHECKS:
        reason = step.asks(case, facts)
        if reason is not None:
            yield step, reason


def decide_replica(case: Case, facts: Facts) -> Verdict:
    """Return what is decided about one replica."""
    answers = _answers(case, facts)
    step, reason = next(answers)
    rule = case.rule if step.reason_code in ("expired", "scheduled") else None
    # Below doubt a rung would answer from what is in doubt.
    against = next(answers, None) if step.status in ("held", "kept") else None
    created = case.replica.created_at
    return Verdict(
        replica=case.replica,
        status=step.status,
        reason_code=step.reason_code,
        reason=reason,
        next_reason=None if against is None else f"{against[0].reason_code}: {against[1]}",
        rule=None if rule is None else rule.rule,
        age_days=None if created is None or created > facts.now else case.age.days,
        last_used_at=case.last_used_at,
        due_at=None if rule is None or rule.grace is None else _due_at(case, rule, facts),
        source=step.source,
    )


def no_longer_listed(facts: Facts, listed: Set[str]) -> Iterator[Verdict]:
    """What was soft-deleted and is due for good, whether or not Tavus still lists it."""
    if facts.narrow != Narrow():
        return  # without a name or a date it cannot be told if the form means it
    for replica_id in sorted(facts.history.soft_deleted.keys() - listed):
        case = facts.case(Replica(replica_id))
        if (for_good := _due_for_good(case, facts)) is None:
            continue
        held = _held(case, facts)
        yield Verdict(
            replica=case.replica,
            status="expired" if held is None else "held",
            reason_code="hard_delete_after" if held is None else "held",
            reason=f"{for_good}; no longer listed" if held is None else held,
            next_reason=None if held is None else f"hard_delete_after: {for_good}",
            listed=False,
            source=Source.SOFT_DELETED,
        )


def _wait(rule: Rule, case: Case) -> timedelta:
    """How long it takes until all conditions of a rule hold; none if they do."""
    age = rule.older_than.delta - case.age if rule.older_than is not None else ZERO
    idle = rule.unused_for.delta - case.idle if rule.unused_for is not None else ZERO
    return max(age, idle, ZERO)


def _conditions(rule: Rule, case: Case, *, unmet: bool = False) -> Iterator[tuple[str, Duration]]:
    """What is so, and the limit to hold it against; of all conditions, or of the unmet ones."""
    if (limit := rule.older_than) is not None and not (unmet and case.age >= limit.delta):
        yield f"{limit.of(case.age)} old", limit
    if (limit := rule.unused_for) is not None and not (unmet and case.idle >= limit.delta):
        idle = limit.of(case.idle)
        if case.perhaps is not None:
            so = f"perhaps used {idle} ago, {case.perhaps}"
        elif case.last_used_at is None:
            so = f"never used since it was created {idle} ago"
        else:
            so = f"unused for {idle}"
        yield so, limit
