"""
The conditions of a rule: one class for each, with everything that the package knows about it.

To add a condition, write its class here and add it to :data:`CONDITIONS`; then add its row to the table of
fields in the documentation, and its tests. Nothing else lists the conditions; only
``operators/policy_templates.py`` names those that may be templates.
"""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Final

from tavus_provider.retention.fields import USE_KINDS, ZERO, Duration, ModelNames, quote_field
from tavus_provider.retention.names import RuleNames, includes_all_of
from tavus_provider.sanitize import escape_line

if TYPE_CHECKING:
    from tavus_provider.retention.context import Inventory, ReplicaFacts
    from tavus_provider.retention.policy import Scope


class Condition(ABC):
    """
    A condition with its value in one rule.

    A subclass is a frozen dataclass whose only field is that value.
    """

    __slots__ = ()

    if TYPE_CHECKING:  # what the dataclasses have in common

        def __init__(self, value: Any) -> None: ...

    key: ClassVar[str]
    """The name of its field in a rule."""
    field_type: ClassVar[Any]
    """The pydantic type of that field."""
    description: ClassVar[str]
    """What the field means, for editors."""
    suffices: ClassVar[bool] = True
    """Whether a rule may have it as its only condition."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """The kinds of use, of :data:`.USE_KINDS`, whose past must be read to test it, so finished use too."""

    needs_name: ClassVar[bool] = False
    """Whether it depends on the name, so that an account that was saved without names cannot answer it."""

    @property
    def globs(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Its globs on names, each list with the path of its field in the rule."""
        return ()

    @property
    def models(self) -> tuple[str, ...]:
        """The models that it asks for."""
        return ()

    @property
    @abstractmethod
    def requirement(self) -> str:
        """What it asks for, in words, such as ``older than 180 days``."""

    @abstractmethod
    def holds(self, facts: ReplicaFacts) -> bool:
        """Return whether it holds for a replica."""

    @abstractmethod
    def describe_met(self, facts: ReplicaFacts) -> str:
        """Return why it holds, as a part of a reason."""

    @abstractmethod
    def describe_unmet(self, facts: ReplicaFacts, rule: str) -> str:
        """
        Return why it does not hold, as a part of a reason.

        :param rule: the rule as a reason names it, such as ``rule 'stale'``
        """

    @property
    def min_age(self) -> Duration | None:
        """The age below which it never holds, or ``None`` if it can hold at every age."""
        return None

    def time_left(self, facts: ReplicaFacts) -> timedelta:
        """Return how long it takes until it holds if only time passes; zero if it holds."""
        return ZERO if self.holds(facts) else timedelta.max

    def implies(self, other: Condition) -> bool:
        """Return whether ``other`` holds for every replica for which this one holds."""
        return self == other

    def find_conflict(self, scope: Scope) -> str | None:
        """Return why it never holds for a replica in scope, as far as that can be decided, or ``None``."""
        return None

    def turning_points(self, inventory: Inventory) -> Iterator[datetime]:
        """Yield every time at which its result can change for a replica if only time passes."""
        yield from ()

    @classmethod
    def find_unknown(cls, facts: ReplicaFacts) -> str | None:
        """Return why it cannot be tested for a replica, or ``None``; such a replica is undetermined."""
        return None


class _AtLeast(Condition):
    """Holds if a length of time has reached a limit."""

    __slots__ = ()

    limit: Duration
    field_type = Duration

    @property
    def min_age(self) -> Duration | None:
        """The limit: no length of time of a replica is longer than its age."""
        return self.limit

    @abstractmethod
    def span(self, facts: ReplicaFacts) -> timedelta:
        """Return the length of time."""

    @abstractmethod
    def describe(self, facts: ReplicaFacts) -> str:
        """Return the length of time in words, in the unit of the limit."""

    def holds(self, facts: ReplicaFacts) -> bool:
        return self.span(facts) >= self.limit.delta

    def describe_met(self, facts: ReplicaFacts) -> str:
        return f"{self.describe(facts)}, limit is {self.limit}"

    def describe_unmet(self, facts: ReplicaFacts, rule: str) -> str:
        return f"{self.describe(facts)}, {rule} asks for {self.limit}"

    def time_left(self, facts: ReplicaFacts) -> timedelta:
        return max(self.limit.delta - self.span(facts), ZERO)


@dataclass(frozen=True, slots=True)
class OlderThan(_AtLeast):
    """Created at least this long ago."""

    limit: Duration

    key = "older_than"
    description = "Created at least this long ago."

    @property
    def requirement(self) -> str:
        """The age, in words."""
        return f"older than {self.limit.format(self.limit.delta)}"

    def span(self, facts: ReplicaFacts) -> timedelta:
        """Return the age."""
        return facts.age

    def describe(self, facts: ReplicaFacts) -> str:
        """Return the age in words."""
        return f"{self.limit.format(facts.age)} old"

    def implies(self, other: Condition) -> bool:
        """Return whether ``other`` asks for at most this age."""
        return isinstance(other, OlderThan) and other.limit.delta <= self.limit.delta

    def turning_points(self, inventory: Inventory) -> Iterator[datetime]:
        """Yield when each replica reaches the age."""
        return add_spans((replica.created_at for replica in inventory.replicas), self.limit.delta)


@dataclass(frozen=True, slots=True)
class UnusedFor(_AtLeast):
    """No conversation and no video for this long; a replica that was never used counts from its creation."""

    limit: Duration

    key = "unused_for"
    description = "No conversation and no video for this long; what was never used counts from its creation."
    needs = frozenset(USE_KINDS)

    @property
    def requirement(self) -> str:
        """The time without use, in words."""
        return f"unused for {self.limit.format(self.limit.delta)}"

    def span(self, facts: ReplicaFacts) -> timedelta:
        """Return the time since the last use."""
        return facts.idle

    def describe(self, facts: ReplicaFacts) -> str:
        """Return the time since the last use in words: if it was used, and if that is certain."""
        idle = self.limit.format(facts.idle)
        if facts.possible_use is not None:
            return f"possibly used {idle} ago ({facts.possible_use})"
        if facts.last_used_at is None:
            return f"never used in {idle}"
        return f"unused for {idle}"

    def describe_unmet(self, facts: ReplicaFacts, rule: str) -> str:
        """Return when it was last used, and how long ago that must be."""
        if facts.possible_use is not None or facts.last_used_at is None:
            return _AtLeast.describe_unmet(self, facts, rule)
        return f"used {self.limit.format(facts.idle)} ago, {rule} asks for {self.limit}"

    def implies(self, other: Condition) -> bool:
        """Return whether ``other`` asks for at most this time; a replica is at least as old as unused."""
        return isinstance(other, UnusedFor | OlderThan) and other.limit.delta <= self.limit.delta

    def turning_points(self, inventory: Inventory) -> Iterator[datetime]:
        """Yield when the limit is reached, and when a use that is dated in the future begins to count."""
        yield from add_spans((replica.created_at for replica in inventory.replicas), self.limit.delta)
        for activities in (inventory.conversations, inventory.videos):
            yield from add_spans((activity.used_at for activity in activities), ZERO, self.limit.delta)

    @classmethod
    def find_unknown(cls, facts: ReplicaFacts) -> str | None:
        """Return why the time of a use is unknown, or ``None``."""
        return None if facts.unknown_use is None else f"last use is unknown: {facts.unknown_use}"


@dataclass(frozen=True, slots=True)
class HasName(Condition):
    """The name matches the globs. Without a name it does not hold, whatever the globs are."""

    value: RuleNames

    key = "names"
    field_type = RuleNames
    description = "Globs on the name: the rule is only for these replicas, beside the scope of the policy."
    suffices = False
    needs_name = True

    @property
    def globs(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """Include and exclude."""
        return ("names.include", self.value.include), ("names.exclude", self.value.exclude)

    @property
    def requirement(self) -> str:
        """The globs, in words."""
        excluded = f" but not {_join(self.value.exclude)}" if self.value.exclude else ""
        return f"named {_join(self.value.include)}{excluded}"

    def holds(self, facts: ReplicaFacts) -> bool:
        """Return whether the name matches."""
        return self._find_mismatch(facts) is None

    def describe_met(self, facts: ReplicaFacts) -> str:
        """Return which glob includes the name."""
        names = self.value.filter
        return "any name" if names is None else names.describe_match(facts.replica, where=self.key)

    def describe_unmet(self, facts: ReplicaFacts, rule: str) -> str:
        """Return why the name is not included."""
        return f"{self._find_mismatch(facts)} of {rule}"

    def implies(self, other: Condition) -> bool:
        """Return whether ``other`` includes all of these names."""
        return isinstance(other, HasName) and includes_all_of(other.value, [self.value])

    def find_conflict(self, scope: Scope) -> str | None:
        """Return that no name is included both by the scope and here, if that is so."""
        if includes_all_of(None, [self.value]):
            return "names.exclude covers everything that names.include names"
        return (
            "scope and names have no name in common" if includes_all_of(None, [self.value, scope]) else None
        )

    def _find_mismatch(self, facts: ReplicaFacts) -> str | None:
        names = self.value.filter
        return None if names is None else names.find_mismatch(facts.replica, where=self.key, against=self.key)


@dataclass(frozen=True, slots=True)
class HasModel(Condition):
    """The model is one of these."""

    value: tuple[str, ...]

    key = "model_names"
    field_type = ModelNames
    description = "The rule is only for replicas of these models, such as phoenix-3."
    suffices = False

    @property
    def models(self) -> tuple[str, ...]:
        """The value."""
        return self.value

    @property
    def requirement(self) -> str:
        """The models, in words."""
        return f"of model {_join(self.value)}"

    def holds(self, facts: ReplicaFacts) -> bool:
        """Return whether the model is one of them."""
        return facts.replica.model_name in self.value

    def describe_met(self, facts: ReplicaFacts) -> str:
        """Return the model."""
        return f"model_name is {quote_field(facts.replica.model_name)}"

    def describe_unmet(self, facts: ReplicaFacts, rule: str) -> str:
        """Return the model, and those that the rule asks for."""
        asked = escape_line(" or ".join(f"'{escape_line(name, 40)}'" for name in self.value), 120)
        return f"model_name is {quote_field(facts.replica.model_name)}, {rule} asks for {asked}"

    def implies(self, other: Condition) -> bool:
        """Return whether ``other`` has all of these models."""
        return isinstance(other, HasModel) and set(self.value) <= set(other.value)

    def find_conflict(self, scope: Scope) -> str | None:
        """Return that no model is in both lists, if that is so."""
        if not scope.model_names or set(scope.model_names) & set(self.value):
            return None
        return "scope.model_names has none of its model_names"


CONDITIONS: Final[tuple[type[Condition], ...]] = (OlderThan, UnusedFor, HasName, HasModel)
"""Every condition that a rule can have, in the order in which reasons name them."""


def add_spans(moments: Iterable[datetime | None], *spans: timedelta) -> Iterator[datetime]:
    """Yield each time plus each span, without the sums that are later than the last date of a calendar."""
    for moment in moments:
        if moment is None:
            continue
        for span in spans:
            with contextlib.suppress(OverflowError):
                yield moment + span


def _join(texts: Iterable[str]) -> str:
    return escape_line(" or ".join(escape_line(text, 40) for text in texts), 200)
