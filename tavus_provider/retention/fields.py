"""
The words that may stand in a policy, and the sentence for what may not.

Each reader returns the value or raises the sentence that the user will see. Beside it stands what an
editor is told (``schema.py`` puts that together); where JSON Schema cannot say as much as the reader, it
says less, never more. Knows neither Airflow nor HTTP nor the clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated, Any, Final

from pydantic import (
    BeforeValidator,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_before_validator_function

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.models import NON_IDS, check_replica_id
from tavus_provider.sanitize import escape_line

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
    except TavusValidationError:
        pass
    raise ValueError(f"{show(value)} is not a replica id such as 'rf4e9d9790f0'")


def _pattern(value: object) -> str:
    text = _text(value)
    try:
        groups = re.compile(text).groupindex
    except (re.error, RecursionError, OverflowError) as error:
        raise ValueError(
            f"{show(value)} is not a regular expression: {escape_line(str(error), 80)}"
        ) from None
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
        "|".join("".join(f"[{c.upper()}{c}]" for c in word) for word in sorted(NON_IDS))
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
RequiredDuration = Annotated[Duration, BeforeValidator(_duration), PlainSerializer(str), _told(**_DURATION)]
# A form sends null for a field that was left empty.
DurationOfAForm = Annotated[
    Duration | None,
    BeforeValidator(lambda value: None if value is None else _duration(value)),
    PlainSerializer(str, when_used="unless-none"),
    _told(anyOf=[_DURATION, {"type": "null"}]),
]
Text = Annotated[str, BeforeValidator(_text), _told(**_TEXT)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(as_list), _told(type="array", items=_TEXT)]
Ids = Annotated[
    tuple[Annotated[str, BeforeValidator(_id)], ...],
    BeforeValidator(as_list),
    _told(type="array", items=_ID),
]
Grouping = Annotated[
    str | None,
    BeforeValidator(_pattern),
    _told(**_TEXT, allOf=[{"pattern": r"\(\?P<group>"}], examples=["^(?P<group>[^_]+)_"]),
]
Statuses = Annotated[tuple[str, ...], _some_of(STATUSES), _some(STATUSES, 1)]
Kinds = Annotated[tuple[str, ...], _some_of(KINDS), _some(KINDS)]
Count = Annotated[int, _whole(0), _told(type="integer", minimum=0)]
OptionalCount = Annotated[
    int | None,
    _whole(1, hint=": to keep none by number leave it out"),
    _told(type="integer", minimum=1),
]
Percent = Annotated[int, _whole(0, 100), _told(type="integer", minimum=0, maximum=100)]
OptionalPercent = Annotated[int | None, _whole(0, 100), _told(type="integer", minimum=0, maximum=100)]
