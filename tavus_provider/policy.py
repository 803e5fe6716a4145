"""
The words of a policy: what may stand in it, and the sentence for what may not.

Each reader returns the value or raises the sentence that the user will see. Beside it stands what an
editor is told (``schema.py`` puts that together); where JSON Schema cannot say as much as the reader, it
says less, never more. Knows neither Airflow nor HTTP nor the clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function

from tavus_provider.exceptions import InvalidInput
from tavus_provider.replica import NO_ID, check_replica_id, one_line

STATUSES: Final = ("started", "completed", "error")
KINDS: Final = ("persona", "conversation", "video")
ZERO: Final = timedelta()
_UNITS: Final = {
    "w": (7 * 86_400, "week"),
    "d": (86_400, "day"),
    "h": (3_600, "hour"),
    "m": (60, "minute"),
}


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time, written back as it was read: ``90d``, ``12h``, ``30m``, ``2w``."""

    text: str
    delta: timedelta

    def __le__(self, other: Duration) -> bool:
        return self.delta <= other.delta

    def __lt__(self, other: Duration) -> bool:
        return self.delta < other.delta

    def __str__(self) -> str:
        return self.text

    def of(self, age: timedelta) -> str:
        """Say ``age`` in the unit of this limit, rounded down, so that a person can compare the two."""
        seconds, word = _UNITS[self.text[-1]]
        count = (age.days * 86_400 + age.seconds) // seconds
        return f"{count} {word}" if count == 1 else f"{count} {word}s"


NO_TIME: Final = Duration("0d", ZERO)
_LONGEST: Final = 36_500 * 86_400


def show(value: object) -> str:
    """Return a value as it is quoted in a sentence: short, escaped, never the inside of a collection."""
    if not isinstance(value, str | int | float | None):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() > 128:
        return "a huge number"
    shown = ascii(value[:40] if isinstance(value, str) else value)
    return shown if len(shown) <= 40 else shown[:37] + "..."


def _up_to(most: int) -> str:
    """Return a regular expression for the whole numbers from 1 to ``most``, without leading zeros."""
    digits = str(most)
    found = [f"[1-9][0-9]{{0,{len(digits) - 2}}}"]
    for at, digit in enumerate(digits):  # of as many digits: the first that differs is smaller
        low, left = int(at == 0), len(digits) - at - 1
        if low < int(digit):
            found.append(f"{digits[:at]}[{low}-{int(digit) - 1}]{f'[0-9]{{{left}}}' if left else ''}")
    return "|".join([*found, digits])


def _duration(value: object) -> Duration:
    if isinstance(value, Duration):
        return value
    said, units = show(value), "(units: w, d, h, m)"
    text = str(value) if isinstance(value, str) or type(value) is int else ""
    if re.fullmatch("0*[1-9][0-9]{0,8}", text):
        raise ValueError(f"{said} has no unit, write {text}d {units}")
    match = re.fullmatch("0*([0-9]{1,9})([wdhm])", text)
    if match is None:
        raise ValueError(f"{said} is not a duration, write one number and one unit such as 90d {units}")
    count, unit = int(match[1]), _UNITS[match[2]][0]
    if not 0 < count <= _LONGEST // unit:
        raise ValueError(f"{said} is not above zero and at most 36500d")
    return Duration(text, timedelta(seconds=count * unit))


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{show(value)} is not text")
    if not value.strip() or value == "None":
        raise ValueError(f"{show(value)} is blank, or what a template makes of a missing value")
    if value != value.strip() or not value.isprintable():
        raise ValueError(f"{show(value)} begins or ends with a space or holds an invisible character")
    return value


def _id(value: object) -> str:
    try:
        return check_replica_id(value)
    except InvalidInput:
        pass
    raise ValueError(f"{show(value)} is not a replica id such as 'rf4e9d9790f0'")


def _pattern(value: object) -> str:
    text = _text(value)
    try:
        groups = re.compile(text).groupindex
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{show(value)} is not a regular expression: {one_line(str(error), 80)}") from None
    if "group" not in groups:
        raise ValueError(f"{show(value)} has no group named 'group', write (?P<group>...)")
    return text


def as_list(value: object) -> tuple[object, ...]:
    """
    Return a list as a tuple.

    :raises ValueError: if it is something else, such as text that would be read letter by letter
    """
    if not isinstance(value, list | tuple):
        raise ValueError(f"{show(value)} is not a list")
    return tuple(value)


def _some_of(known: Sequence[str]) -> BeforeValidator:
    def read(value: object) -> tuple[object, ...]:
        items = as_list(value)
        for at, item in enumerate(items):
            if item not in known:
                raise ValueError(f"{show(item)} is not one of {', '.join(known)}")
            if item in items[:at]:
                raise ValueError(f"{show(item)} is named twice")
        return items

    return BeforeValidator(read)


def _whole(low: int, high: int | None = None, hint: str = "") -> BeforeValidator:
    def read(value: object) -> int:
        if type(value) is not int:  # not isinstance: True would be 1
            raise ValueError(f"{show(value)} is not a whole number")
        if value < low or (high is not None and value > high):
            raise ValueError(f"{show(value)} is below {low}{f' or above {high}' if high else ''}{hint}")
        return value

    return BeforeValidator(read)


@dataclass(frozen=True, slots=True)
class OrDefault:
    """``None`` means the default here; it is refused wherever a condition or a guard would go missing."""

    default: object

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: object) -> object:
            return self.default if value is None else value

        return no_info_before_validator_function(read, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(schema), {"type": "null"}]}


def _told(**said: object) -> WithJsonSchema:
    """What an editor is told of a word."""
    return WithJsonSchema(dict(said))


def _some(known: Sequence[str], at_least: int = 0) -> WithJsonSchema:
    return _told(type="array", items={"enum": list(known)}, uniqueItems=True, minItems=at_least)


_SEEN: Final = r"[^\s\x00-\x1f\x7f-\x9f]"
_TEXT: Final = {
    "type": "string",
    "pattern": rf"^(?!None$){_SEEN}(({_SEEN}| )*{_SEEN})?$",
    "patternErrorMessage": "write text that is not blank and neither begins nor ends with a space",
}
_ID: Final = {
    "type": "string",
    "pattern": "^(?!({})$)[A-Za-z0-9][A-Za-z0-9_-]{{1,63}}$".format(
        "|".join("".join(f"[{c.upper()}{c}]" for c in word) for word in sorted(NO_ID))
    ),
    "patternErrorMessage": "write the id of a replica such as rf4e9d9790f0",
    "examples": ["rf4e9d9790f0"],
}
_DURATION: Final = {
    "type": "string",
    "pattern": "^0*({})$".format(
        "|".join(f"({_up_to(_LONGEST // unit)}){letter}" for letter, (unit, _) in _UNITS.items())
    ),
    "patternErrorMessage": "write one number and one unit such as 90d (units: w, d, h, m), at most 36500d",
    "examples": ["90d", "2w", "12h"],
}

OptionalDuration = Annotated[
    Duration | None, BeforeValidator(_duration), PlainSerializer(str), _told(**_DURATION)
]
Text = Annotated[str, BeforeValidator(_text), _told(**_TEXT)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(as_list), _told(type="array", items=_TEXT)]
Ids = Annotated[
    tuple[Annotated[str, BeforeValidator(_id)], ...],
    BeforeValidator(as_list),
    _told(type="array", items=_ID),
]


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
    status: Annotated[tuple[str, ...], _some_of(STATUSES), _some(STATUSES, 1)] = ("completed", "error")
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

    older_than: Annotated[
        Duration | None,
        BeforeValidator(lambda value: None if value is None else _duration(value)),
        PlainSerializer(str, when_used="unless-none"),
        _told(anyOf=[_DURATION, {"type": "null"}]),
    ] = None
    """An age that all that goes must have, whatever rule it goes by."""


class Keep(Part):
    """What stays although a rule matches."""

    model_config = ConfigDict(json_schema_extra={"dependencies": {"group_by": ["keep_last"]}})

    protected_ids: Ids = ()
    """Ids that never go; a preference, for a duty use legal_holds."""
    keep_within: OptionalDuration = None
    """Whatever was created within this time stays."""
    keep_last: Annotated[
        int | None,
        _whole(1, hint=": to keep none by number leave it out"),
        _told(type="integer", minimum=1),
    ] = None
    """How many of each group stay, the newest, counted over all of the group and not only the expired."""
    group_by: Annotated[
        str | None,
        BeforeValidator(_pattern),
        _told(**_TEXT, allOf=[{"pattern": r"\(\?P<group>"}], examples=["^(?P<group>[^_]+)_"]),
    ] = None
    """Regular expression (Python's) on the name, whose group named 'group' is what keep_last counts by."""
    in_use: Annotated[tuple[str, ...], _some_of(KINDS), _some(KINDS)] = KINDS
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
    max_age: Annotated[Duration, BeforeValidator(_duration), PlainSerializer(str), _told(**_DURATION)]
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

    max_deletions: Annotated[int, _whole(0), _told(type="integer", minimum=0)] = 10
    """The most replicas that one run may delete; 0 allows none."""
    max_deletion_percent: Annotated[int, _whole(0, 100), _told(type="integer", minimum=0, maximum=100)] = 25
    """The most that one run may delete, in percent of what is listed; 0 allows none."""
    max_undetermined_percent: Annotated[
        int | None, _whole(0, 100), _told(type="integer", minimum=0, maximum=100)
    ] = None
    """How much of the account may be in doubt before a run stops, in percent; no limit if left out."""

    def breach(self, *, delete: int, listed: int, undetermined: int = 0) -> str | None:
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
