"""
The words of a policy: what may stand in it, and the sentence for what may not.

Each reader returns the value or raises the sentence that the user will see. Knows neither Airflow nor
HTTP nor the clock.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, model_validator

from tavus_provider.exceptions import InvalidInput
from tavus_provider.replica import check_replica_id, one_line

STATUSES: Final = ("started", "completed", "error")
KINDS: Final = ("persona", "conversation", "video")
ZERO: Final = timedelta()
_UNITS: Final = {
    "w": (timedelta(weeks=1), "week"),
    "d": (timedelta(days=1), "day"),
    "h": (timedelta(hours=1), "hour"),
    "m": (timedelta(minutes=1), "minute"),
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
        unit, word = _UNITS[self.text[-1]]
        count = age // unit
        return f"{count} {word}" if count == 1 else f"{count} {word}s"


NO_TIME: Final = Duration("0d", ZERO)


def show(value: object) -> str:
    """Return a value as it is quoted in a sentence: short, escaped, never the inside of a collection."""
    if not isinstance(value, str | int | float | None):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and value.bit_length() > 128:
        return "a huge number"
    shown = ascii(value[:40] if isinstance(value, str) else value)
    return shown if len(shown) <= 40 else shown[:37] + "..."


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
    delta = int(match[1]) * _UNITS[match[2]][0]
    if not ZERO < delta <= timedelta(days=36500):
        raise ValueError(f"{said} is not above zero and at most 36500d")
    return Duration(text, delta)


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


def or_default(default: object) -> BeforeValidator:
    """``None`` is refused wherever it would mean that a condition or a guard has gone missing."""
    return BeforeValidator(lambda value: default if value is None else value)


OptionalDuration = Annotated[Duration | None, BeforeValidator(_duration), PlainSerializer(str)]
Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(as_list)]
Ids = Annotated[tuple[Annotated[str, BeforeValidator(_id)], ...], BeforeValidator(as_list)]


class Part(BaseModel):
    """A mapping of known keys only: a guard whose name is mistyped must not be a guard left out."""

    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())

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

    rule: Text = ""  # the policy fills in "rule 1"
    older_than: OptionalDuration = None
    unused_for: OptionalDuration = None
    status: Annotated[tuple[str, ...], _some_of(STATUSES)] = ("completed", "error")
    grace: OptionalDuration = None

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
    exclude: Texts = ()


class Scope(Names):
    """What the policy considers at all."""

    model_names: Texts = ()


class Narrow(Names):
    """A second scope, what a trigger form said; ``older_than`` is an age which all that goes must have."""

    older_than: Annotated[
        Duration | None,
        BeforeValidator(lambda value: None if value is None else _duration(value)),
        PlainSerializer(str, when_used="unless-none"),
    ] = None


class Keep(Part):
    """What stays although a rule matches."""

    protected_ids: Ids = ()
    keep_within: OptionalDuration = None
    keep_last: Annotated[int | None, _whole(1, hint=": to keep none by number leave it out")] = None
    group_by: Annotated[str | None, BeforeValidator(_pattern)] = None
    in_use: Annotated[tuple[str, ...], _some_of(KINDS)] = KINDS

    @model_validator(mode="after")
    def _groups_for_something(self) -> Keep:
        if self.group_by is not None and self.keep_last is None:
            raise ValueError("group_by without keep_last groups nothing, add keep_last or leave group_by out")
        return self


class LegalHolds(Part):
    """Ids that a legal hold keeps, in a file (any Airflow object storage path) not older than ``max_age``."""

    file: Text
    max_age: Annotated[Duration, BeforeValidator(_duration), PlainSerializer(str)]


class AccountCheck(Part):
    """How it is told that this is the right account: replicas that must be listed, and never go."""

    expect_present: Ids = ()


class Limits(Part):
    """
    How much one run may delete; ``0`` allows nothing.

    ``max_undetermined_percent`` is how much of the account may be in doubt before the run stops; if it is
    not set the run goes on, for what is in doubt stays in any case.
    """

    max_deletions: Annotated[int, _whole(0)] = 10
    max_deletion_percent: Annotated[int, _whole(0, 100)] = 25
    max_undetermined_percent: Annotated[int | None, _whole(0, 100)] = None

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
