"""
What a policy says: its parts, and what of it is wrong or without effect.

Knows neither Airflow nor HTTP nor the clock.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from tavus_provider.digest import canonical_digest
from tavus_provider.exceptions import TavusValidationError
from tavus_provider.retention.fields import (
    KINDS,
    NO_TIME,
    Count,
    DurationOfAForm,
    Grouping,
    Ids,
    Kinds,
    OptionalCount,
    OptionalDuration,
    OptionalPercent,
    OrDefault,
    Percent,
    RequiredDuration,
    Statuses,
    Text,
    Texts,
    as_list,
    show,
)


class Part(BaseModel):
    """A mapping of known keys only: a guard whose name is mistyped must not be a guard left out."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _keys(cls, value: object) -> object:
        if isinstance(value, cls):
            return value
        known = ", ".join(cls.model_fields)
        if not isinstance(value, Mapping):
            raise ValueError(f"{show(value)} is not a mapping with keys of: {known}")
        unknown = [show(key) for key in value if key not in cls.model_fields]
        if unknown:
            raise ValueError(f"unknown key {', '.join(unknown[:5])}; known: {known}")
        return dict(value)


class Rule(Part):
    """May go: a replica of one of these statuses for which every condition given here holds."""

    model_config = ConfigDict(
        json_schema_extra={"anyOf": [{"required": ["older_than"]}, {"required": ["unused_for"]}]}
    )

    rule: Text = ""
    """What the rule is called in reasons, plans and reports; 'rule 1' and so on unless named."""
    older_than: OptionalDuration = None
    """Created at least this long ago."""
    unused_for: OptionalDuration = None
    """No conversation and no video for this long; what was never used counts from its creation."""
    status: Statuses = ("completed", "error")
    """What the replica may be: 'started' is still in training. 'completed' and 'error' unless named."""
    grace: OptionalDuration = None
    """How long a replica is announced, in ledger, log and asset event, before it goes."""

    @model_validator(mode="after")
    def _asks_something(self) -> Rule:
        if self.older_than is None and self.unused_for is None:
            raise ValueError("has neither older_than nor unused_for, a rule needs one of them")
        if not self.status:
            raise ValueError("status is empty, name at least one or leave it out")
        return self

    def comes_before(self, later: Rule) -> bool:
        """Whether this rule holds wherever the later one does, so that the later one never decides."""
        age = max(later.older_than or NO_TIME, later.unused_for or NO_TIME)  # unused is never longer than old
        return (
            set(later.status) <= set(self.status)
            and (self.older_than or NO_TIME) <= age
            and (self.unused_for or NO_TIME) <= (later.unused_for or NO_TIME)
        )


class Names(Part):
    """Globs on the name, case-sensitive. No ``include`` means every name; ``exclude`` wins."""

    include: Texts = ()
    """Globs: only replicas with such a name are considered; none means every name."""
    exclude: Texts = ()
    """Globs: replicas with such a name are never considered, whatever include says."""


class Scope(Names):
    """What the policy considers at all; what is outside never goes."""

    model_names: Texts = ()
    """Only replicas of these models, such as phoenix-3; none means every model."""


class Narrow(Names):
    """A second scope, what a trigger form said; ``older_than`` is an age which all that goes must have."""

    older_than: DurationOfAForm = None
    """An age that all that goes must have, whatever rule it goes by."""


class Keep(Part):
    """What stays although a rule matches."""

    model_config = ConfigDict(json_schema_extra={"dependencies": {"group_by": ["keep_last"]}})

    protected_ids: Ids = ()
    """Ids that never go; a preference, for a duty use legal_holds."""
    keep_within: OptionalDuration = None
    """Whatever was created within this time stays."""
    keep_last: OptionalCount = None
    """How many of each group stay, the newest, counted over all of the group and not only the expired."""
    group_by: Grouping = None
    """Regular expression (Python's) on the name, whose group named 'group' is what keep_last counts by."""
    in_use: Kinds = KINDS
    """What counts as use: default of a persona, active conversation, video being made. All unless named."""

    @model_validator(mode="after")
    def _groups_for_something(self) -> Keep:
        if self.group_by is not None and self.keep_last is None:
            raise ValueError("group_by without keep_last groups nothing, add keep_last or leave group_by out")
        return self


class LegalHolds(Part):
    """Ids that a legal hold keeps, in a file (any Airflow object storage path) not older than ``max_age``."""

    file: Text
    """YAML or JSON: a list of ids, or a mapping with replica_ids and as_of, the time it was true."""
    max_age: RequiredDuration
    """How old the list may be; if it is older, or cannot be read, nothing at all is deleted."""


class AccountCheck(Part):
    """How it is told that this is the right account: replicas that must be listed, and never go."""

    expect_present: Ids = ()
    """Ids that must be listed; if one is not, it is the wrong account and nothing is deleted."""


class Limits(Part):
    """
    How much one run may delete; ``0`` allows nothing.

    ``max_undetermined_percent`` is how much of the account may be in doubt before the run stops; if it is
    not set the run goes on, for what is in doubt stays in any case.
    """

    max_deletions: Count = 10
    """The most replicas that one run may delete; 0 allows none."""
    max_deletion_percent: Percent = 25
    """The most that one run may delete, in percent of what is listed; 0 allows none."""
    max_undetermined_percent: OptionalPercent = None
    """How much of the account may be in doubt before a run stops, in percent; no limit if left out."""

    def exceeded(self, *, delete: int, listed: int, undetermined: int = 0) -> str | None:
        """Return the sentence that names each limit which this many would pass, if any."""
        doubted = self.max_undetermined_percent
        if doubted is not None and 100 * undetermined > doubted * listed:
            return (
                f"{undetermined} of {listed} replicas are in doubt, max_undetermined_percent is {doubted}: "
                "see the reasons in the log of the plan; nothing was deleted"
            )
        passed = []
        if delete > self.max_deletions:
            passed.append(f"max_deletions is {self.max_deletions}")
        if 100 * delete > self.max_deletion_percent * listed:
            passed.append(f"max_deletion_percent is {self.max_deletion_percent}")
        if not passed:
            return None
        return (
            f"{delete} of {listed} replicas would be deleted, {' and '.join(passed)}: "
            "narrow the policy or raise the limit in the DAG file; nothing was deleted"
        )


class Policy(Part):
    """
    What may go, what stays, and how much one run may delete; made by :meth:`parse`.

    ``narrow`` is a second scope, what a trigger form said. A replica must pass both, so that a form
    can only make a run smaller. ``hard_delete_after`` lets a permanent plan name what was deleted softly
    that long ago.
    """

    model_config = ConfigDict(
        json_schema_extra={
            "if": {"properties": {"expire": {"contains": {"required": ["grace"]}}}, "required": ["expire"]},
            "then": {"required": ["name"]},
        }
    )

    name: Annotated[Text, OrDefault("retention")] = "retention"
    """What the policy is called; the schedule of a policy with grace is kept under this name."""
    expire: Annotated[tuple[Rule, ...], BeforeValidator(as_list), Field(json_schema_extra={"minItems": 1})]
    """What may go: a replica that one of these rules matches and nothing keeps."""
    scope: Scope = Scope()
    narrow: Narrow = Narrow()
    keep: Keep = Keep()
    legal_holds: LegalHolds | None = None
    account: AccountCheck | None = None
    hard_delete_after: OptionalDuration = None
    """When what was deleted softly by this package comes into a plan for permanent deletes."""
    limits: Annotated[Limits, OrDefault(Limits())] = Limits()

    @field_validator("expire", mode="after")
    @classmethod
    def _names_of_rules(cls, rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
        if not rules:
            raise ValueError("is empty, name at least one rule")
        rules = tuple(
            rule if rule.rule else rule.model_copy(update={"rule": f"rule {number}"})
            for number, rule in enumerate(rules, start=1)
        )
        for name, times in Counter(rule.rule for rule in rules).items():
            if times > 1:
                raise ValueError(f"{times} rules are named {show(name)}, give each a name of its own")
        return rules

    @model_validator(mode="after")
    def _schedule_has_a_name(self) -> Self:
        if self.has_grace and "name" not in self.model_fields_set:
            raise ValueError("name is missing: the schedule of a policy with grace is kept under its name")
        return self

    @classmethod
    def parse(cls, value: object) -> Self:
        """
        Return the policy which a mapping describes.

        :raises TavusValidationError: saying on one line what is wrong, and where
        """
        if isinstance(value, cls):
            return value
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            problems = _in_plain_words(error)
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise TavusValidationError(f"policy: {'; '.join(problems[:5])}{more}")

    @classmethod
    def find_problems(cls, value: object) -> list[str]:
        """Return all that is wrong with a policy, or without effect in it, one sentence each; or nothing."""
        try:
            return cls.model_validate(value).problems()
        except ValidationError as error:
            return _in_plain_words(error)

    def to_json(self) -> dict[str, Any]:
        """Return the whole policy with its defaults; :meth:`parse` makes the same policy of it again."""
        return self.model_dump(mode="json", exclude_none=True)

    @property
    def digest(self) -> str:
        return canonical_digest(self.to_json())

    def problems(self) -> list[str]:
        """Return one sentence for each part of the policy that can never have an effect."""
        found = []
        for at, rule in enumerate(self.expire):
            before = next((one for one in self.expire[:at] if one.comes_before(rule)), None)
            if before is not None:
                found.append(
                    f"expire.{at}: rule {show(rule.rule)} can never decide, for whatever it matches is "
                    f"matched by rule {show(before.rule)} before it: put it first or leave it out"
                )
        include, exclude = set(self.scope.include), set(self.scope.exclude)
        if "*" in exclude or (include and include <= exclude):
            found.append("scope: excludes all that it includes, so no rule can ever match")
        return found

    @property
    def has_grace(self) -> bool:
        """Whether a rule lets time pass between the announcement and the delete."""
        return any(rule.grace is not None for rule in self.expire)

    @property
    def needs(self) -> frozenset[str]:
        """Which of personas, conversations and videos must be known to decide, each complete."""
        kinds = (
            set(KINDS) if any(rule.unused_for is not None for rule in self.expire) else set(self.keep.in_use)
        )
        if "conversation" in kinds:
            kinds.add("persona")  # a conversation may name no replica and use the default of its persona
        return frozenset(f"{kind}s" for kind in kinds)


def _in_plain_words(error: ValidationError) -> list[str]:
    problems = []
    for detail in error.errors(include_url=False):
        where = ".".join(str(step) for step in detail["loc"])
        said = detail.get("ctx", {}).get("error")
        if said is None:
            said = "is missing" if detail["type"] == "missing" else f"{show(detail['input'])} cannot be used"
        problems.append(f"{where}: {said}" if where else str(said))
    return problems
