"""
A retention policy: its parts, and which of them are wrong or have no effect.

A policy is made by :meth:`Policy.parse` from a mapping, as a file or a DAG holds it.
"""

from __future__ import annotations

from collections import Counter
from functools import cached_property
from typing import Annotated, Any, Final, Self, TypeVar, cast

from pydantic import ConfigDict, Field, ValidationError, create_model, field_validator, model_validator

from tavus_provider.digest import canonical_digest
from tavus_provider.exceptions import TavusValidationError
from tavus_provider.retention.conditions import CONDITIONS, Condition
from tavus_provider.retention.fields import (
    AS_LIST,
    NOT_NULL,
    USE_KINDS,
    CallDuration,
    Count,
    Duration,
    GroupPattern,
    NeedsName,
    NullMeansOmitted,
    Omittable,
    Part,
    Percent,
    PositiveCount,
    ReplicaIds,
    Statuses,
    Text,
    Texts,
    UseKinds,
    describe_errors,
)
from tavus_provider.retention.names import Names, includes_all_of
from tavus_provider.sanitize import escape_line, quote

MAX_UNREADABLE_PERCENT = 50
"""Percentage of unreadable rows above which a run stops, if ``max_undetermined_percent`` is left out."""
_MAX_PROBLEMS = 5
"""Number of problems that an error message describes; more are counted."""


_SUFFICIENT: Final = tuple(kind for kind in CONDITIONS if kind.suffices)

P = TypeVar("P", bound=type[Part])


def _with_conditions(model: P) -> P:
    """Return a model of a rule with a field for each condition."""
    fields: dict[str, Any] = {
        kind.key: (
            Annotated[kind.field_type | None, NOT_NULL, *([NeedsName()] if kind.needs_name else [])],
            Field(default=None, description=kind.description),
        )
        for kind in CONDITIONS
    }
    combined = create_model(
        model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__, **fields
    )
    return cast("P", combined)


@_with_conditions
class Rule(Part):
    """Expires a replica that has one of these statuses and for which all conditions hold."""

    model_config = ConfigDict(json_schema_extra={"anyOf": [{"required": [kind.key]} for kind in _SUFFICIENT]})

    rule: Text = ""
    """Name of the rule in reasons, plans and reports. Default: 'rule 1' and so on."""
    status: Statuses = ("completed", "error")
    """Statuses that a replica may have: 'started' is in training. Default: 'completed' and 'error'."""
    grace: Omittable[Duration] = None
    """How long an expired replica is announced in ledger, log and asset event before it is deleted."""

    @cached_property
    def conditions(self) -> tuple[Condition, ...]:
        """The conditions of this rule, in the order of :data:`.CONDITIONS`."""
        values = ((kind, getattr(self, kind.key)) for kind in CONDITIONS)
        return tuple(kind(value) for kind, value in values if value is not None)

    @cached_property
    def label(self) -> str:
        """The rule as reasons name it, such as ``rule 'stale'``."""
        return f"rule '{escape_line(self.rule, 60)}'"

    @property
    def requirement(self) -> str:
        """What the rule asks for, in words, such as ``older than 180 days and unused for 90 days``."""
        parts = [condition.requirement for condition in self.conditions]
        if self.status != type(self).model_fields["status"].default:
            parts.append(f"with status {' or '.join(self.status)}")
        return " and ".join(parts)

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if not any(condition.suffices for condition in self.conditions):
            raise ValueError(f"must have a condition: {', '.join(kind.key for kind in _SUFFICIENT)}")
        return self

    @property
    def min_age(self) -> Duration | None:
        """The age below which this rule never matches, or ``None`` if it can match at every age."""
        ages = [condition.min_age for condition in self.conditions if condition.min_age is not None]
        return max(ages, key=lambda age: age.delta, default=None)

    def covers(self, other: Rule) -> bool:
        """Return whether this rule matches every replica that the other rule matches."""
        return set(other.status) <= set(self.status) and all(
            any(theirs.implies(own) for theirs in other.conditions) for own in self.conditions
        )

    def makes_needless(self, earlier: Rule) -> bool:
        """Return whether a rule before this one only repeats it for some names or models."""
        narrows = any(not condition.suffices for condition in earlier.conditions)
        same_grace = (self.grace and self.grace.delta) == (earlier.grace and earlier.grace.delta)
        return narrows and same_grace and self.covers(earlier)


class Scope(Names):
    """Which replicas the policy considers; the others are never deleted."""

    model_names: Texts = ()
    """Only replicas of these models, such as phoenix-3, are considered. Default: every model."""


class Narrow(Names):
    """A second scope, from a trigger form. A replica must be in both, so a form can only narrow."""

    older_than: Duration | None = None
    """Minimum age of every replica that is deleted, whatever its rule."""


class Keep(Part):
    """Which replicas are kept although a rule matches."""

    model_config = ConfigDict(json_schema_extra={"dependencies": {"group_by": ["keep_last"]}})

    protected_ids: ReplicaIds = ()
    """Ids that are never deleted. This is a preference; where keeping is a duty, use legal_holds."""
    keep_within: Omittable[Duration] = None
    """Replicas created within this time are kept."""
    keep_last: Omittable[PositiveCount] = None
    """How many of the newest completed replicas of each group are kept, whether the others expired or not."""
    group_by: Annotated[Omittable[GroupPattern], NeedsName()] = None
    """Regular expression (RE2) on the name; its group 'group' is what keep_last counts by."""
    in_use: UseKinds = USE_KINDS
    """What counts as use: default of a persona, active conversation, unfinished video. Default: all."""
    active_for: CallDuration = Duration.parse("24h")
    """How long a conversation can be active; after that it counts as ended. At least 1h. Default: 24h."""

    @model_validator(mode="after")
    def _group_by_needs_keep_last(self) -> Self:
        if self.group_by is not None and self.keep_last is None:
            raise ValueError("group_by has no effect without keep_last; add keep_last or omit group_by")
        return self


class Quota(Part):
    """Expires the least recently used replicas if the account has too many."""

    above: PositiveCount
    """If the account has more replicas than this, the least recently used ones expire."""
    down_to: PositiveCount
    """How many replicas are left then, if nothing keeps one of those that expire; at most above."""
    older_than: Duration
    """Replicas created within this time are kept; another one does not expire instead."""
    grace: Omittable[Duration] = None
    """How long an expired replica is announced in ledger, log and asset event before it is deleted."""

    @property
    def requirement(self) -> str:
        """What the quota asks for, in words."""
        age = self.older_than.format(self.older_than.delta)
        which = f"the least recently used down to {self.down_to:,}, older than {age}"
        return f"above {self.above:,} replicas, {which}"

    @model_validator(mode="after")
    def _is_not_above(self) -> Self:
        if self.down_to > self.above:
            raise ValueError(f"down_to must be <= above, not {self.down_to} with above {self.above}")
        return self


class LegalHolds(Part):
    """A file with the ids under legal hold (any Airflow object storage path) and its maximum age."""

    file: Text
    """YAML or JSON: a list of ids, or a mapping with replica_ids and as_of, the time at which it was true."""
    max_age: Duration
    """Maximum age of the list. If it is older or cannot be read, nothing is deleted."""


class AccountCheck(Part):
    """How a run recognizes the right account."""

    expect_present: ReplicaIds = ()
    """Ids that must be listed and are never deleted. If one is not listed, nothing is deleted."""


class Limits(Part):
    """How much one run may delete; ``0`` allows nothing. A run beyond a limit deletes nothing."""

    max_deletions: Count = 10
    """Maximum number of replicas that one run deletes; 0 allows none."""
    max_deletion_percent: Percent = 25
    """Maximum percentage of the replicas that one run deletes, but at least one; 0 allows none."""
    max_undetermined_percent: Omittable[Percent] = None
    """Maximum percentage of undetermined replicas; above it a run stops. They are kept in any case."""

    def exceeded(
        self,
        *,
        delete: int,
        listed: int,
        unlisted: int = 0,
        undetermined: int = 0,
        unreadable: int = 0,
        earlier: int = 0,
    ) -> str | None:
        """
        Return the sentence that names every limit which these numbers exceed, or ``None``.

        A percentage other than 0 always allows one replica. Otherwise nothing could ever be deleted in a
        small account.

        :param delete: number of replicas to delete, listed or not
        :param listed: number of replicas that Tavus listed
        :param unlisted: how many of those to delete are not listed; the percentage is of all that exist
        :param undetermined: number of undetermined replicas
        :param unreadable: how many of them are rows of the listing that cannot be read
        :param earlier: how many of ``delete`` the same run has deleted already, or may have
        """
        max_undetermined = self.max_undetermined_percent
        if max_undetermined is not None and 100 * undetermined > max_undetermined * listed:
            return (
                f"{undetermined} of {listed} replicas are undetermined, max_undetermined_percent is "
                f"{max_undetermined}: see the reasons in the log of the plan; nothing was deleted"
            )
        if max_undetermined is None and 100 * unreadable > MAX_UNREADABLE_PERCENT * listed:
            return (
                f"{unreadable} of {listed} rows of the listing cannot be read, more than "
                f"{MAX_UNREADABLE_PERCENT} %: see the reasons in the log of the plan, or set "
                "limits.max_undetermined_percent to accept them; nothing was deleted"
            )
        limits = []
        if delete > self.max_deletions:
            limits.append(f"max_deletions is {self.max_deletions}")
        total = listed + unlisted
        if delete > self._share(total):
            limits.append(f"max_deletion_percent is {self.max_deletion_percent}")
        if not limits:
            return None
        before = f"{earlier} of them were deleted by this run before, " if earlier else ""
        return (
            f"{delete} of {total} replicas would be deleted, {before}{' and '.join(limits)}: "
            "narrow the policy or raise its limit; nothing was deleted"
        )

    def _share(self, total: int) -> int:
        """Return the number of replicas that ``max_deletion_percent`` allows."""
        if self.max_deletion_percent == 0:
            return 0
        return max(1, int(self.max_deletion_percent * total // 100))


_HAS_GRACE: Final[dict[str, Any]] = {"type": "object", "required": ["grace"]}
_NO_NULL: Final[dict[str, Any]] = {"type": "object"}


class Policy(Part):
    """Which replicas expire, which are kept, and how many one run may delete."""

    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": ["expire"]}, {"required": ["quota"], "properties": {"quota": _NO_NULL}}],
            "if": {
                "anyOf": [
                    {"properties": {"expire": {"contains": _HAS_GRACE}}, "required": ["expire"]},
                    {"properties": {"quota": _HAS_GRACE}, "required": ["quota"]},
                ]
            },
            "then": {"required": ["name"], "properties": {"name": {"type": "string"}}},
        }
    )

    name: Annotated[Text, NullMeansOmitted()] = "retention"
    """Name of the policy. With grace it is required: the schedule is stored under it."""
    expire: Annotated[tuple[Rule, ...], Field(min_length=1), AS_LIST] = ()
    """Rules. A replica expires if one of them matches and nothing keeps it. Required without quota."""
    quota: Quota | None = None
    scope: Scope = Scope()
    narrow: Narrow = Narrow()
    keep: Keep = Keep()
    legal_holds: LegalHolds | None = None
    account: AccountCheck | None = None
    hard_delete_after: Omittable[Duration] = None
    """How long after this package soft-deleted a replica a plan for permanent deletes includes it."""
    overdue_after: Omittable[Duration] = None
    """Age at which a run fails after its deletes if a replica is still there without a legal hold."""
    limits: Annotated[Limits, NullMeansOmitted()] = Limits()

    @field_validator("expire", mode="after")
    @classmethod
    def _name_rules(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        rules = tuple(
            rule if rule.rule else rule.model_copy(update={"rule": f"rule {number}"})
            for number, rule in enumerate(rules, start=1)
        )
        for name, count in Counter(rule.rule for rule in rules).items():
            if count > 1:
                raise ValueError(f"{count} rules are named {quote(name)}; give each rule its own name")
        return rules

    @model_validator(mode="after")
    def _has_a_rule(self) -> Self:
        if not self.expire and self.quota is None:
            raise ValueError("expire: is missing")
        return self

    @model_validator(mode="after")
    def _grace_needs_a_name(self) -> Self:
        if self.has_grace and "name" not in self.model_fields_set:
            raise ValueError("name: is missing; with grace it is required: the schedule is stored under it")
        return self

    @classmethod
    def parse(cls, value: object) -> Self:
        """
        Return the policy that a mapping describes.

        :param value: a mapping as YAML or JSON holds it, or a policy, which is returned as it is
        :raises TavusValidationError: in one line: what is wrong, where, and what would be right
        """
        if isinstance(value, cls):
            return value
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            problems = describe_errors(error)
        more = len(problems) - _MAX_PROBLEMS
        raise TavusValidationError(
            f"policy: {'; '.join(problems[:_MAX_PROBLEMS])}{f'; and {more} more' if more > 0 else ''}"
        )

    @classmethod
    def find_problems(cls, value: object) -> list[str]:
        """Return one sentence for each part of a policy that is wrong or has no effect."""
        try:
            return cls.model_validate(value).problems()
        except ValidationError as error:
            return describe_errors(error)

    def problems(self) -> list[str]:
        """Return one sentence for each part of the policy that can never have an effect."""
        found = []
        for number, rule in enumerate(self.expire):
            earlier = next((one for one in self.expire[:number] if one.covers(rule)), None)
            later = next((one for one in self.expire[number + 1 :] if one.makes_needless(rule)), None)
            if earlier is None and later is not None:
                found.append(
                    f"expire.{number}: rule {quote(rule.rule)} has no effect, because rule "
                    f"{quote(later.rule)} after it matches every replica that it matches, at no higher age; "
                    f"exclude them from that rule or remove this one"
                )
            if earlier is not None:
                found.append(
                    f"expire.{number}: rule {quote(rule.rule)} has no effect, because rule "
                    f"{quote(earlier.rule)} before it matches every replica that it matches; move it before "
                    "that rule or remove it"
                )
        if includes_all_of(None, [self.scope]):
            found.append("scope: exclude covers everything that include names, so no rule can match")
        else:
            for number, rule in enumerate(self.expire):
                found += [
                    f"expire.{number}: rule {quote(rule.rule)} has no effect: {problem}"
                    for condition in rule.conditions
                    if (problem := condition.find_conflict(self.scope)) is not None
                ]
        floor = self.min_age
        if self.overdue_after is not None and floor is not None and self.overdue_after.delta < floor.delta:
            found.append(
                f"overdue_after: {self.overdue_after} is lower than {floor}, the age that the policy asks "
                f"for, so replicas would be overdue before they expire; write {floor} or more"
            )
        if (problem := self.narrow_age_problem()) is not None:
            found.append(problem)
        return found

    @property
    def min_age(self) -> Duration | None:
        """The age below which no rule matches, or ``None`` if a rule can match at every age."""
        ages = [rule.min_age for rule in self.expire if rule.min_age is not None]
        if len(ages) < len(self.expire):
            return None
        if self.quota is not None:
            ages.append(self.quota.older_than)
        return min(ages, key=lambda age: age.delta)

    def narrowing_fields(self) -> frozenset[str]:
        """Return the fields of ``narrow`` that can keep a replica. The age of the policy itself cannot."""
        age, floor = self.narrow.older_than, self.min_age
        can_keep = {
            "include": bool(self.narrow.include) and tuple(self.narrow.include) != ("*",),
            "exclude": bool(self.narrow.exclude),
            "older_than": age is not None and (floor is None or age.delta > floor.delta),
        }
        return frozenset(name for name, can in can_keep.items() if can)

    def narrow_age_problem(self) -> str | None:
        """Return why the age of the trigger form has no effect: it can raise the age of the rules only."""
        age, floor = self.narrow.older_than, self.min_age
        if self.hard_delete_after is not None:
            return None  # what this package soft-deleted may be younger, and the age applies to it too
        if age is None or floor is None or age.delta >= floor.delta:
            return None
        return (
            f"narrow.older_than: {age} is lower than {floor}, the age that the policy asks for; a "
            f"trigger form "
            f"can only raise it: write {floor} or more"
        )

    def to_json(self) -> dict[str, Any]:
        """Return the whole policy with its defaults; :meth:`parse` makes an equal policy of it."""
        values = self.model_dump(mode="json", exclude_none=True)
        return values if self.expire else {key: value for key, value in values.items() if key != "expire"}

    @property
    def digest(self) -> str:
        """The SHA-256 of the whole policy as canonical JSON."""
        return canonical_digest(self.to_json())

    @property
    def has_grace(self) -> bool:
        """Whether there is a grace period between announcement and delete."""
        return bool(self.graces)

    @property
    def graces(self) -> frozenset[Duration]:
        """The grace periods of all rules and of the quota."""
        sources = (*self.expire, self.quota)
        return frozenset(one.grace for one in sources if one is not None and one.grace is not None)

    @property
    def as_planned(self) -> Self:
        """
        The policy by which a plan is checked before it is carried out.

        The plan has shown that the quota is exceeded. It stays so until ``down_to`` replicas are left, also
        after a part of the plan was carried out.
        """
        if self.quota is None:
            return self
        quota = self.quota.model_copy(update={"above": self.quota.down_to})
        return self.model_copy(update={"quota": quota})

    @property
    def asks_about_past(self) -> bool:
        """Whether something depends on past use. Otherwise ended conversations are not needed to decide."""
        needs = (condition.needs for rule in self.expire for condition in rule.conditions)
        return self.quota is not None or any(needs)

    @property
    def needs(self) -> frozenset[str]:
        """
        Which of ``personas``, ``conversations`` and ``videos`` must be read to decide.

        Each must be complete; but see :attr:`asks_about_past`.
        """
        kinds: set[str] = set(self.keep.in_use if self.quota is None else USE_KINDS)
        for rule in self.expire:
            for condition in rule.conditions:
                kinds |= condition.needs
        if "conversation" in kinds:
            kinds.add("persona")  # a conversation may name only its persona, whose default replica it uses
        return frozenset(f"{kind}s" for kind in kinds)
