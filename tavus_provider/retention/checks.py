"""
The checks that decide about a replica.

A check returns the reason why it applies to a replica, or ``None``. :data:`CHECKS` is their order: the first
that returns a reason decides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from tavus_provider.keys import fold, is_named
from tavus_provider.retention.conditions import UnusedFor
from tavus_provider.retention.context import Context, Inventory, ReplicaFacts
from tavus_provider.retention.fields import Duration, quote_field
from tavus_provider.retention.policy import Policy, Rule
from tavus_provider.retention.turning_points import (
    REFUND_WINDOW,
    age_points,
    condition_points,
    date_points,
    grace_points,
    hard_delete_points,
    no_points,
    quota_points,
    refund_points,
    use_points,
)
from tavus_provider.retention.verdict import ReasonCode, Source, Status
from tavus_provider.sanitize import escape_line

_MAX_RULES_SHOWN: Final = 5
_KINDS_OF_USE: Final = {
    "persona": "persona",
    "conversation": "active conversation",
    "video": "unfinished video",
}


def find_not_user(facts: ReplicaFacts, context: Context) -> str | None:
    """Return why a replica is not the account's own: a stock replica, or its type is unknown."""
    replica = facts.replica
    if "replica_type" in replica.unreadable:
        return escape_line(replica.unreadable["replica_type"])
    if replica.replica_type != "user":
        return f"replica_type is {quote_field(replica.replica_type)}, not 'user'"
    return None


def see_type(facts: ReplicaFacts, context: Context) -> str:
    """Return the type of a replica of the account itself."""
    return f"replica_type is {quote_field(facts.replica.replica_type)}"


def find_out_of_scope(facts: ReplicaFacts, context: Context) -> str | None:
    """Return why the scope of the policy or of the form leaves a replica out."""
    return facts.out_of_scope


def see_scope(facts: ReplicaFacts, context: Context) -> str:
    """Return which patterns and models include a replica."""
    return context.describe_scope(facts.replica)


def find_hold(facts: ReplicaFacts, context: Context) -> str | None:
    """Return that a replica is under legal hold."""
    return "is under legal hold" if is_named(facts.replica.replica_id, context.held) else None


def see_no_hold(facts: ReplicaFacts, context: Context) -> str:
    """Return that a replica is under no legal hold."""
    return "no legal hold"


def find_erasure_open(facts: ReplicaFacts, context: Context) -> str | None:
    """Return that a replica belongs to an open request for an erasure, which deletes it permanently."""
    request = context.erasures.get(fold(facts.replica.replica_id))
    return None if request is None else f"belongs to the erasure {request}, which is open"


def see_no_erasure(facts: ReplicaFacts, context: Context) -> str:
    """Return that a replica belongs to no open request for an erasure."""
    return "no open erasure"


def find_soft_deleted(facts: ReplicaFacts, context: Context) -> str | None:
    """Return when this package soft-deleted a replica, until it is due for a permanent delete."""
    since, limit = context.history.soft_deleted.get(facts.replica.replica_id), context.hard_delete_after
    if since is None or (context.hard and limit is None):
        return None
    if limit is None:
        is_listed = context.find_listed(facts.replica.replica_id) is not None
        return f"soft-deleted on {since:%Y-%m-%d}, {'still' if is_listed else 'no longer'} listed"
    if context.now - since >= limit.delta:
        return None
    return _describe_soft_delete(since, limit, context)


def find_no_hard_delete_after(facts: ReplicaFacts, context: Context) -> str | None:
    """Return when this package soft-deleted a replica, if the policy does not say when to finish that."""
    since = context.history.soft_deleted.get(facts.replica.replica_id)
    if since is None or not context.hard or context.hard_delete_after is not None:
        return None
    return f"soft-deleted by this package on {since:%Y-%m-%d}, and the policy has no hard_delete_after"


def find_hard_delete_due(facts: ReplicaFacts, context: Context) -> str | None:
    """Return when this package soft-deleted a replica, once it is due for a permanent delete."""
    since, limit = context.history.soft_deleted.get(facts.replica.replica_id), context.hard_delete_after
    if since is None or limit is None or context.now - since < limit.delta:
        return None
    if facts.replica.replica_id in context.unreadable_ids:
        return None
    if _find_keeper(facts, context) is not None:
        return None
    return _describe_soft_delete(since, limit, context)


def _find_keeper(facts: ReplicaFacts, context: Context) -> str | None:
    """Return what keeps a replica from a permanent delete that is due, as ``reason_code: reason``."""
    reasons = ((check.reason_code, check.find_reason(facts, context)) for check in _KEEPS_DUE)
    return next((f"{code}: {reason}" for code, reason in reasons if reason is not None), None)


def _describe_soft_delete(since: datetime, limit: Duration, context: Context) -> str:
    days = (context.now - since).days
    return f"soft-deleted by this package {days} day{'s' * (days != 1)} ago, hard_delete_after is {limit}"


def see_soft_delete(facts: ReplicaFacts, context: Context) -> str:
    """Return whether this package soft-deleted a replica, and why that does not decide."""
    replica_id = facts.replica.replica_id
    since, limit = context.history.soft_deleted.get(replica_id), context.hard_delete_after
    if since is None:
        return "not soft-deleted by this package"
    if limit is None:
        return f"soft-deleted on {since:%Y-%m-%d}; hard_delete_after is not set"
    described = _describe_soft_delete(since, limit, context)
    if context.now - since < limit.delta:
        return described
    if replica_id in context.unreadable_ids:
        return f"{described}, but its row in the listing cannot be read"
    kept_by = _find_keeper(facts, context)
    return described if kept_by is None else f"{described}, but {kept_by}"


def find_undetermined(facts: ReplicaFacts, context: Context) -> str | None:
    """Return which fact about a replica is missing or unreadable."""
    return facts.undetermined


def see_known(facts: ReplicaFacts, context: Context) -> str:
    """Return the facts that every decision needs."""
    replica = facts.replica
    created = "at an unknown time" if replica.created_at is None else f"on {replica.created_at:%Y-%m-%d}"
    return f"status is {quote_field(replica.status)}, created {created}"


def find_protected(facts: ReplicaFacts, context: Context) -> str | None:
    """Return which list of ids protects a replica."""
    if is_named(facts.replica.replica_id, context.protected):
        return "is in keep.protected_ids"
    return "is in account.expect_present" if is_named(facts.replica.replica_id, context.expected) else None


def see_unprotected(facts: ReplicaFacts, context: Context) -> str:
    """Return that no list of ids protects a replica."""
    return "in no list of protected ids"


def find_use(facts: ReplicaFacts, context: Context) -> str | None:
    """Return what uses a replica: a persona, an active conversation or an unfinished video."""
    return context.in_use.get(fold(facts.replica.replica_id))


def see_unused(facts: ReplicaFacts, context: Context) -> str:
    """Return which kinds of use were looked for."""
    kinds = [_KINDS_OF_USE[kind] for kind in context.keep.in_use]
    return f"no {' and no '.join(kinds)} has it" if kinds else "keep.in_use is empty"


def find_training(facts: ReplicaFacts, context: Context) -> str | None:
    """Return that a replica is in training, unless a rule is for replicas in training."""
    if facts.replica.status != "started" or context.rules_by_status["started"]:
        return None
    return "is still in training, and no rule names status 'started'"


def see_status(facts: ReplicaFacts, context: Context) -> str:
    """Return the status of a replica."""
    return f"status is {quote_field(facts.replica.status)}"


def find_recent_failure(facts: ReplicaFacts, context: Context) -> str | None:
    """Return that a training failed so recently that a delete can lose the refund."""
    replica = facts.replica
    if replica.status != "error":
        return None
    since = _time_since_failure(facts, context)
    if since >= REFUND_WINDOW.delta:
        return None
    return (
        f"failed {REFUND_WINDOW.format(since)} ago, a delete within {REFUND_WINDOW} can lose the refund of "
        "the training"
    )


def see_failure(facts: ReplicaFacts, context: Context) -> str:
    """Return when a training failed, if it did."""
    if facts.replica.status != "error":
        return see_status(facts, context)
    return f"failed {REFUND_WINDOW.format(_time_since_failure(facts, context))} ago"


def _time_since_failure(facts: ReplicaFacts, context: Context) -> timedelta:
    updated_at = facts.replica.updated_at
    return facts.age if updated_at is None else min(facts.age, context.now - updated_at)


def find_keep_within(facts: ReplicaFacts, context: Context) -> str | None:
    """Return that a replica is younger than ``keep.keep_within``."""
    limit = context.keep.keep_within
    if limit is None or facts.age >= limit.delta:
        return None
    return _describe_age(facts, "keep_within", limit)


def see_keep_within(facts: ReplicaFacts, context: Context) -> str:
    """Return the age of a replica that is not younger than ``keep.keep_within``."""
    limit = context.keep.keep_within
    return "keep_within is not set" if limit is None else _describe_age(facts, "keep_within", limit)


def _describe_age(facts: ReplicaFacts, setting: str, limit: Duration) -> str:
    return f"{limit.format(facts.age)} old, {setting} is {limit}"


def find_keep_last(facts: ReplicaFacts, context: Context) -> str | None:
    """Return the place of a replica among the newest of its group."""
    limit, place = context.keep.keep_last, context.places.get(facts.replica.replica_id)
    if limit is None or place is None or place.number > limit:
        return None
    return f"{place}, keep_last is {limit}"


def see_keep_last(facts: ReplicaFacts, context: Context) -> str:
    """Return the place of a replica that is not among the newest of its group, or why it has none."""
    limit, place = context.keep.keep_last, context.places.get(facts.replica.replica_id)
    if limit is None:
        return "keep_last is not set"
    if place is None:
        return f"takes no place of keep_last: {see_status(facts, context)}"
    return f"{place}, keep_last is {limit}"


def find_too_young(facts: ReplicaFacts, context: Context) -> str | None:
    """Return that a replica which is otherwise due is younger than ``narrow.older_than``."""
    limit = context.min_age
    is_due = facts.is_due or facts.replica.replica_id in context.history.soft_deleted
    if limit is None or not is_due or facts.age >= limit.delta:
        return None
    return _describe_age(facts, "narrow.older_than", limit)


def see_form_age(facts: ReplicaFacts, context: Context) -> str:
    """Return the age of a replica and that of the trigger form."""
    limit = context.min_age
    if limit is None:
        return "narrow.older_than is not set"
    return _describe_age(facts, "narrow.older_than", limit)


def find_scheduled(facts: ReplicaFacts, context: Context) -> str | None:
    """Return why a replica is due, while its grace period lasts or its announced day is to come."""
    due_at = context.due_at(facts)
    if due_at is None or context.now >= due_at:
        return None
    is_grace = due_at == context.grace_ends(facts)
    what = f"grace of {context.grace_of(facts)} ends on" if is_grace else "was announced for"
    why = find_expired(facts, context) or find_excess(facts, context)
    return f"{why}; {what} {due_at:%Y-%m-%d at %H:%M} UTC"


def see_grace(facts: ReplicaFacts, context: Context) -> str:
    """Return why no grace period delays a delete."""
    if not facts.is_due:
        return "no rule matches"
    due_at = context.due_at(facts)
    if due_at is None:
        return f"{'quota' if facts.rule is None else facts.rule.label} has no grace"
    is_grace = due_at == context.grace_ends(facts)
    what = f"grace of {context.grace_of(facts)} ended on" if is_grace else "was announced for"
    return f"{what} {due_at:%Y-%m-%d at %H:%M} UTC"


def find_expired(facts: ReplicaFacts, context: Context) -> str | None:
    """Return why a rule matches a replica."""
    return None if facts.rule is None else _describe_match(facts, facts.rule, context)


def see_rules(facts: ReplicaFacts, context: Context) -> str:
    """Return what each rule for the status of a replica still asks for."""
    if facts.rule is not None:
        return f"{facts.rule.label} matches"
    if not context.policy.expire:
        return "the policy has no rules"
    rules = context.rules_by_status.get(facts.replica.status or "", ())
    if not rules:
        return _describe_no_rule(facts)
    shown = [_describe_unmet(facts, rule) for rule in rules[:_MAX_RULES_SHOWN]]
    if more := len(rules) - len(shown):
        shown.append(f"and {more} more rule{'s' * (more > 1)}")
    return "; ".join(shown)


def _describe_unmet(facts: ReplicaFacts, rule: Rule) -> str:
    unmet = [condition for condition in rule.conditions if not condition.holds(facts)]
    return "; ".join(condition.describe_unmet(facts, rule.label) for condition in unmet)


def _describe_match(facts: ReplicaFacts, rule: Rule, context: Context) -> str:
    parts = [condition.describe_met(facts) for condition in rule.conditions]
    if (ended := context.describe_presumed_ended(facts)) is not None:
        parts.append(ended)
    return "; ".join(parts)


def find_excess(facts: ReplicaFacts, context: Context) -> str | None:
    """Return that a replica is one of the least recently used ones of an account that has too many."""
    return see_excess(facts, context) if facts.in_excess else None


def see_excess(facts: ReplicaFacts, context: Context) -> str:
    """Return the place of a replica among all of the account, the least recently used one first."""
    ranking = context.ranking
    if ranking is None:
        return "quota is not set"
    seen = ranking.describe(facts)
    if not ranking.excess:
        return seen
    use = UnusedFor(ranking.quota.older_than).describe(facts)
    age = _describe_age(facts, "quota.older_than", ranking.quota.older_than)
    return f"{seen}; {use}; {age}"


def find_not_expired(facts: ReplicaFacts, context: Context) -> str | None:
    """Return why no rule matches a replica: what the rule that would match first still asks for."""
    if facts.is_due:
        return None
    rules = context.rules_by_status.get(facts.replica.status or "")
    if not rules:
        return _describe_no_rule(facts) if context.policy.expire else see_excess(facts, context)
    rule = rules[0] if len(rules) == 1 else min(rules, key=lambda rule: _time_left(rule, facts))
    return _describe_unmet(facts, rule)


def _describe_no_rule(facts: ReplicaFacts) -> str:
    return f"no rule matches status '{facts.replica.status}'"


def _time_left(rule: Rule, facts: ReplicaFacts) -> timedelta:
    return max(condition.time_left(facts) for condition in rule.conditions)


class Check(NamedTuple):
    """
    A check, and what it decides if it applies.

    :param find_reason: returns why the check applies to a replica, or ``None``
    :param see: returns what the check saw of a replica to which it does not apply, in one short sentence
    :param turning_points: yields every time at which its result can change if only time passes
    :param source: why a replica is due if this check makes it due
    :param yields_to_hard_delete: for a check that keeps replicas: whether a permanent delete that is due
        after a soft one (``hard_delete_after``) happens although this check applies
    """

    status: Status
    reason_code: ReasonCode
    find_reason: Callable[[ReplicaFacts, Context], str | None]
    see: Callable[[ReplicaFacts, Context], str]
    turning_points: Callable[[Policy, Inventory], Iterator[datetime]] = no_points
    source: Source = Source.RULE
    yields_to_hard_delete: bool = False


# hard_delete_after comes before what is undetermined or preferred: these deletes are due, not only allowed.
CHECKS: Final = (
    Check(Status.OUT_OF_SCOPE, ReasonCode.NOT_USER, find_not_user, see_type),
    Check(Status.OUT_OF_SCOPE, ReasonCode.OUT_OF_SCOPE, find_out_of_scope, see_scope),
    Check(Status.HELD, ReasonCode.HELD, find_hold, see_no_hold),
    # A soft delete can get in the way of an erasure: Tavus may not delete permanently what it does not show.
    Check(Status.KEPT, ReasonCode.ERASURE_OPEN, find_erasure_open, see_no_erasure),
    Check(Status.KEPT, ReasonCode.SOFT_DELETED, find_soft_deleted, see_soft_delete),
    Check(Status.KEPT, ReasonCode.NO_HARD_DELETE_AFTER, find_no_hard_delete_after, see_soft_delete),
    Check(
        Status.EXPIRED,
        ReasonCode.HARD_DELETE_AFTER,
        find_hard_delete_due,
        see_soft_delete,
        hard_delete_points,
        Source.SOFT_DELETED,
    ),
    Check(Status.UNDETERMINED, ReasonCode.UNDETERMINED, find_undetermined, see_known, date_points),
    Check(Status.KEPT, ReasonCode.PROTECTED, find_protected, see_unprotected),
    Check(Status.KEPT, ReasonCode.IN_USE, find_use, see_unused, use_points),
    Check(Status.KEPT, ReasonCode.TRAINING, find_training, see_status, yields_to_hard_delete=True),
    Check(
        Status.KEPT,
        ReasonCode.FAILED_RECENTLY,
        find_recent_failure,
        see_failure,
        refund_points,
        yields_to_hard_delete=True,
    ),
    Check(
        Status.KEPT,
        ReasonCode.KEEP_WITHIN,
        find_keep_within,
        see_keep_within,
        lambda policy, inventory: age_points(policy.keep.keep_within, inventory),
        yields_to_hard_delete=True,
    ),
    Check(Status.KEPT, ReasonCode.KEEP_LAST, find_keep_last, see_keep_last, yields_to_hard_delete=True),
    Check(
        Status.KEPT,
        ReasonCode.TOO_YOUNG,
        find_too_young,
        see_form_age,
        lambda policy, inventory: age_points(policy.narrow.older_than, inventory),
    ),
    Check(Status.SCHEDULED, ReasonCode.SCHEDULED, find_scheduled, see_grace, grace_points),
    Check(Status.EXPIRED, ReasonCode.EXPIRED, find_expired, see_rules, condition_points),
    Check(Status.EXPIRED, ReasonCode.QUOTA, find_excess, see_excess, quota_points, Source.QUOTA),
    Check(Status.NOT_EXPIRED, ReasonCode.NOT_EXPIRED, find_not_expired, see_rules),
)
"""All checks in their order. If no other one returns a reason, the last one does."""

KEEPS_SOFT_DELETED: Final = tuple(
    check
    for check in CHECKS
    if check.status in (Status.HELD, Status.KEPT) and not check.yields_to_hard_delete
)
"""
The checks that keep a replica also from the permanent delete after a soft one, in their order.

Every check that keeps replicas is one of them unless it says otherwise. They must work for a replica of which
only the id is known, because Tavus may not list it any more.
"""

_HARD_DELETE: Final = next(check for check in CHECKS if check.source is Source.SOFT_DELETED)
_KEEPS_DUE: Final = [one for one in CHECKS[CHECKS.index(_HARD_DELETE) :] if one in KEEPS_SOFT_DELETED]
"""Those of them that come after ``hard_delete_after``, which asks them; the others decide before it."""


class CheckResult(NamedTuple):
    """
    The result of one check for one replica.

    :param reason: why the check applies; ``None`` if it does not
    :param seen: what the check saw, in one short sentence; the reason, if it applies
    :param decides: whether this is the first check that applies
    """

    status: Status
    reason_code: ReasonCode
    reason: str | None
    seen: str
    decides: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as plain JSON."""
        return {
            "status": self.status.value,
            "reason_code": self.reason_code.value,
            "reason": self.reason,
            "seen": self.seen,
            "decides": self.decides,
        }


def run_checks(
    facts: ReplicaFacts, context: Context, checks: Sequence[Check] = CHECKS
) -> Iterator[CheckResult]:
    """
    Yield the result of each check for one replica, in their order.

    The checks after ``undetermined`` are left out if it applies: they would use facts that are unknown.
    """
    is_decided = False
    for check in checks:
        reason = check.find_reason(facts, context)
        seen = check.see(facts, context) if reason is None else reason
        decides = reason is not None and not is_decided
        yield CheckResult(check.status, check.reason_code, reason, seen, decides)
        if check.status == Status.UNDETERMINED and reason is not None:
            return
        is_decided = is_decided or decides
