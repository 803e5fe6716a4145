"""
The field types of a policy, and the sentences about values that are not accepted.

A type validates, and describes itself to editors as JSON Schema: what the schema cannot express it leaves
out, so the schema accepts everything that the type accepts. Where pydantic has a constraint, the type is that
constraint; :func:`describe_errors` turns the errors of all types into sentences.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import NoneType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import CoreSchema, core_schema

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.keys import NON_IDS
from tavus_provider.models import check_replica_id
from tavus_provider.retention.grouping import find_group_problem
from tavus_provider.sanitize import escape_line, quote
from tavus_provider.units import DAY, UNITS, pattern_up_to

ZERO: Final = timedelta()
LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
"""Before every date that Tavus can return."""
_MAX_SECONDS: Final = 36_500 * DAY
_UNIT_HINT: Final = f"(units: {', '.join(UNITS)})"


@dataclass(frozen=True, slots=True)
class Duration:
    """
    A length of time as it is written in a policy, such as ``90d``, ``12h``, ``30min``, ``2w`` or ``1y``.

    There is no unit for months: their length varies, and ``6m`` could also mean minutes.

    :param text: one number and one unit: years of 365 days, weeks, days, hours or minutes
    :param delta: the same length; greater than 0 and at most 36500 days
    """

    text: str
    delta: timedelta

    @classmethod
    def parse(cls, value: object) -> Duration:
        """
        Return the duration that a text describes.

        :raises ValueError: if it describes no duration
        """
        if isinstance(value, Duration):
            return value
        text = str(value) if isinstance(value, str) or type(value) is int else ""
        if re.fullmatch("0*[1-9][0-9]{0,8}", text):
            raise ValueError(f"{quote(value)} has no unit; write {text}d {_UNIT_HINT}")
        if match := re.fullmatch("0*([1-9][0-9]{0,5})(m|mo|mon|months?)", text, re.IGNORECASE):
            days = 30 * int(match[1])
            if match[2] in "mM":
                raise ValueError(f"{quote(value)} is ambiguous; write {match[1]}min or {days}d {_UNIT_HINT}")
            raise ValueError(f"{quote(value)} is in months, which vary; write {days}d {_UNIT_HINT}")
        match = re.fullmatch(f"0*([0-9]{{1,9}})({'|'.join(UNITS)})", text)
        if match is None:
            raise ValueError(f"must be one number and one unit such as 90d {_UNIT_HINT}, not {quote(value)}")
        seconds = int(match[1]) * UNITS[match[2]][0]
        if not 0 < seconds <= _MAX_SECONDS:
            raise ValueError(f"must be greater than 0 and at most 36500d, not {quote(value)}")
        return cls(text, timedelta(seconds=seconds))

    def __str__(self) -> str:
        return self.text

    def format(self, span: timedelta) -> str:
        """Return a length of time in the unit of this one, rounded down, so that both can be compared."""
        seconds, unit = UNITS[self.text.lstrip("0123456789")]
        count = (span.days * DAY + span.seconds) // seconds
        return f"{count} {unit}" if count == 1 else f"{count} {unit}s"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(
        cls, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        counts = (f"({pattern_up_to(_MAX_SECONDS // seconds)}){unit}" for unit, (seconds, _) in UNITS.items())
        return {
            "type": "string",
            "pattern": f"^0*({'|'.join(counts)})$",
            "patternErrorMessage": f"write one number and one unit such as 90d {_UNIT_HINT}, at most 36500d",
            "examples": ["90d", "2w", "12h"],
        }


LONGEST_CALL: Final = Duration("1h", timedelta(hours=1))
"""``max_call_duration`` is at most 3600 s (Tavus API reference, "Create Conversation")."""


def _check_call_duration(duration: Duration) -> Duration:
    if duration.delta < LONGEST_CALL.delta:
        raise ValueError(
            f"must be at least {LONGEST_CALL}, as long as a call can last, not {quote(str(duration))}"
        )
    return duration


CallDuration = Annotated[Duration, AfterValidator(_check_call_duration)]


# --- null -----------------------------------------------------------------------------------------------


class _NotNull:
    """Makes an optional field one that can be left out but is not null: a null guard would be no guard."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        inner = [kind for kind in get_args(source) if kind is not NoneType]
        return handler.generate_schema(Union[tuple(inner)])  # noqa: UP007  # the types are known at runtime only


class NullMeansOmitted:
    """Marks a field whose null counts as left out; only for fields whose default is as safe as any value."""

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        return {"anyOf": [handler(schema), {"type": "null"}]}


class NeedsName:
    """Marks a field that is evaluated on the names of replicas; see :meth:`Part.find_name_setting`."""


T = TypeVar("T")
NOT_NULL: Final = _NotNull()
Omittable = Annotated[T | None, NOT_NULL]


# --- mappings -------------------------------------------------------------------------------------------


class Part(BaseModel):
    """A mapping with known keys only: a guard with a mistyped name must not be a guard that is left out."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", protected_namespaces=(), use_attribute_docstrings=True
    )

    @model_validator(mode="before")
    @classmethod
    def _check_keys(cls, value: object) -> object:
        if isinstance(value, cls):
            return value
        known = ", ".join(cls.model_fields)
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a mapping with keys of {known}, not {quote(value)}")
        if unknown := [quote(key) for key in value if key not in cls.model_fields]:
            raise ValueError(f"unknown key {', '.join(unknown[:5])}; known: {known}")
        return {
            key: inner
            for key, inner in value.items()
            if inner is not None or NullMeansOmitted not in map(type, cls.model_fields[key].metadata)
        }

    def find_name_setting(self) -> str | None:
        """Return the path of the first setting that depends on the names of replicas, or ``None``."""
        for key, field in type(self).model_fields.items():
            value = getattr(self, key)
            parts = (
                {f"{key}.{n}": one for n, one in enumerate(value)}
                if isinstance(value, tuple)
                else {key: value}
            )
            for path, part in parts.items():
                if isinstance(part, Part) and (inner := part.find_name_setting()) is not None:
                    return f"{path}.{inner}"
            if NeedsName in map(type, field.metadata) and value is not None and value not in ((), ("*",)):
                return key
        return None


# --- text -----------------------------------------------------------------------------------------------


def _check_text(text: str) -> str:
    if not text.strip():
        raise ValueError(f"must be text that is not blank, not {quote(text)}")
    if text == "None":
        raise ValueError("must be text that is not blank, not 'None' (a template with a missing value)")
    if text != text.strip() or not text.isprintable():
        raise ValueError(_not_printable(quote(text)))
    return text


def _not_printable(quoted: str) -> str:
    return f"must be text without invisible characters or spaces at its ends, not {quoted}"


def _check_id(value: object) -> str:
    try:
        return check_replica_id(value)
    except TavusValidationError:
        pass
    raise ValueError(f"must be a replica id such as 'rf4e9d9790f0', not {quote(value)}")


def _check_group_pattern(text: str) -> str:
    if (problem := find_group_problem(text)) is not None:
        raise ValueError(problem)
    return text


_VISIBLE: Final = r"[^\s\x00-\x1f\x7f-\x9f]"
_TEXT_SCHEMA: Final = {
    "type": "string",
    "pattern": rf"^(?!None$){_VISIBLE}(({_VISIBLE}| )*{_VISIBLE})?$",
    "patternErrorMessage": "write text that is not blank and neither begins nor ends with a space",
}
_ID_SCHEMA: Final = {
    "type": "string",
    "pattern": "^(?!({})$)[A-Za-z0-9][A-Za-z0-9_-]{{1,63}}$".format(
        "|".join("".join(f"[{c.upper()}{c}]" for c in word) for word in sorted(NON_IDS))
    ),
    "patternErrorMessage": "write the id of a replica such as rf4e9d9790f0",
    "examples": ["rf4e9d9790f0"],
}
_GROUP_PATTERN_SCHEMA: Final = {
    **_TEXT_SCHEMA,
    "allOf": [{"pattern": r"\(\?P<group>"}],
    "examples": ["^(?P<group>[^_]+)_"],
}

Text = Annotated[str, Field(strict=True), AfterValidator(_check_text), WithJsonSchema(_TEXT_SCHEMA)]
ReplicaId = Annotated[str, BeforeValidator(_check_id), WithJsonSchema(_ID_SCHEMA)]
GroupPattern = Annotated[Text, AfterValidator(_check_group_pattern), WithJsonSchema(_GROUP_PATTERN_SCHEMA)]


# --- lists and numbers ----------------------------------------------------------------------------------


def _check_list(value: object) -> object:
    # pydantic would also accept a set, whose order differs from process to process, and with it the digest.
    if isinstance(value, list | tuple):
        return value
    raise ValueError(f"must be a list, not {quote(value)}")


def _check_unique(values: tuple[T, ...]) -> tuple[T, ...]:
    for at, value in enumerate(values):
        if value in values[:at]:
            raise ValueError(f"must contain {quote(value)} only once")
    return values


AS_LIST: Final = BeforeValidator(_check_list)
UNIQUE: Final = AfterValidator(_check_unique)
_UNIQUE_SCHEMA: Final = {"uniqueItems": True}

Texts = Annotated[tuple[Text, ...], AS_LIST]
SomeTexts = Annotated[tuple[Text, ...], Field(min_length=1), AS_LIST]
ModelNames = Annotated[
    tuple[Text, ...], Field(min_length=1, json_schema_extra=_UNIQUE_SCHEMA), AS_LIST, UNIQUE
]
ReplicaIds = Annotated[tuple[ReplicaId, ...], AS_LIST]

ReplicaStatus = Literal["started", "completed", "error"]
REPLICA_STATUSES: Final[tuple[ReplicaStatus, ...]] = get_args(ReplicaStatus)
Statuses = Annotated[
    tuple[ReplicaStatus, ...], Field(min_length=1, json_schema_extra=_UNIQUE_SCHEMA), AS_LIST, UNIQUE
]

UseKind = Literal["persona", "conversation", "video"]
USE_KINDS: Final[tuple[UseKind, ...]] = get_args(UseKind)
UseKinds = Annotated[tuple[UseKind, ...], Field(json_schema_extra=_UNIQUE_SCHEMA), AS_LIST, UNIQUE]

# Strict: True is no number, and neither is text.
Count = Annotated[int, Field(strict=True, ge=0)]
PositiveCount = Annotated[int, Field(strict=True, ge=1)]
Percent = Annotated[int, Field(strict=True, ge=0, le=100)]


def quote_field(value: str | None) -> str:
    """Return the value of a field of Tavus as a reason quotes it."""
    return "not given" if value is None else f"'{escape_line(value, 40)}'"


# --- messages -------------------------------------------------------------------------------------------

_Detail = Mapping[str, Any]
_Sentence = Callable[[_Detail, str], str]
_SENTENCES: Final[Mapping[str, _Sentence]] = {
    "missing": lambda ctx, value: "is missing",
    "value_error": lambda ctx, value: str(ctx["error"]),
    "int_type": lambda ctx, value: f"must be a whole number, not {value}",
    "string_type": lambda ctx, value: f"must be text, not {value}",
    "string_unicode": lambda ctx, value: _not_printable(value),
    "literal_error": lambda ctx, value: f"must be {ctx['expected']}, not {value}",
    "less_than_equal": lambda ctx, value: f"must be <= {ctx['le']}, not {value}",
    # A user who writes 0 where 1 is the minimum wants to disable the setting.
    "greater_than_equal": lambda ctx, value: (
        f"must be >= {ctx['ge']}, not {value}" + ("; omit it to disable" if ctx["ge"] > 0 else "")
    ),
    "too_short": lambda ctx, value: "must not be empty; name at least one",
}


def describe_errors(error: ValidationError) -> list[str]:
    """Return one sentence for each error: the path in the policy, what must be there, and what is there."""
    problems = []
    for detail in error.errors(include_url=False):
        if detail["type"] == "too_short" and detail["input"]:
            continue  # pydantic counts the items that are right; of the wrong ones there is an error each
        path = ".".join(str(step) for step in detail["loc"])
        sentence: _Sentence | None = _SENTENCES.get(detail["type"])
        problem = (
            detail["msg"] if sentence is None else sentence(detail.get("ctx", {}), quote(detail["input"]))
        )
        problems.append(f"{path}: {problem}" if path else problem)
    return problems
