"""
Read the fields of a row of Tavus: ids, references, texts and dates.

An empty string counts as null. Text is made safe; see :func:`.make_safe`.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from tavus_provider.exceptions import TavusInvalidResponseError
from tavus_provider.json_parser import ConflictingValues, UnusableNumber
from tavus_provider.sanitize import make_safe, quote

_ISO_8601: Final = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})[T ](?!24)([0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?)"
    r"(?:Z| ?UTC| ?GMT|( ?[+-][0-9]{2}(?::?[0-5][0-9])?))"
)
_RFC_1123: Final = re.compile(
    r"[A-Z][a-z]{2}, [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9]{2}:[0-9]{2}:[0-9]{2} "
    r"(GMT|UTC|(?!-0000)[+-][0-9]{2}[0-5][0-9])"
)
_WITHOUT_ZONE: Final = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]+)?)?)?"
)
# No replica can be older: Tavus did not exist. Rejects 1970-01-01, which stands for a missing date.
EARLIEST: Final = datetime(2015, 1, 1, tzinfo=UTC)


def parse_time(value: object) -> datetime:
    """
    Parse a date of Tavus: ISO 8601 or RFC 1123, with a time zone.

    The API returns both: ``2026-01-05T09:30:12.345678Z`` for replicas, personas and conversations,
    ``Mon, 14 Jul 2025 09:14:24 GMT`` for videos (Tavus OpenAPI document, and responses seen). It also
    uses dates without a time zone in callbacks; these are rejected, because they are ambiguous, and so are
    numbers. Accepted as well are a blank for the ``T``, and the zones ``+00``, ``+0000`` and `` UTC``.

    :returns: an aware datetime in UTC, 2015 or later, possibly in the future
    :raises ValueError: if the date counts as unknown. The message continues a sentence that begins
        with the name of the field: ``is missing``, ``'2024-01-24' has no time zone``
    """
    if value is None:
        raise ValueError("is missing")
    if not isinstance(value, str):
        raise ValueError(f"is {describe(value)}, not a date")
    if _WITHOUT_ZONE.fullmatch(value):
        raise ValueError(f"{quote(value)} has no time zone")
    moment: datetime | None = None
    try:
        if iso := _ISO_8601.fullmatch(value):
            day, time, offset = iso.groups("Z")
            moment = datetime.fromisoformat(f"{day}T{time}{offset.strip()}").astimezone(UTC)
        elif _RFC_1123.fullmatch(value):
            moment = parsedate_to_datetime(value).astimezone(UTC)
    except (ValueError, OverflowError):
        pass  # such as 30 February
    if moment is None:
        raise ValueError(f"{quote(value)} is not an ISO 8601 or RFC 1123 date")
    if moment < EARLIEST:
        raise ValueError(f"{quote(value)} is before 2015, earlier than Tavus existed")
    return moment


class RowError(TavusInvalidResponseError):
    """
    A row that cannot be read.

    :param problem: what is wrong, beginning with the name of the field
    """

    def __init__(self, problem: str) -> None:
        super().__init__(f"Tavus returned a row that cannot be read: {problem}")
        self.problem = problem


def json_object(row: object, kind: str) -> Mapping[str, Any]:
    """
    Return a row that is a JSON object.

    :param kind: what the row is of, for the message
    :raises RowError: if it is not an object
    """
    if isinstance(row, dict):
        return row
    raise RowError(f"the {kind} is {quote(row, none='null')}; expected a JSON object")


def one_of(row: Mapping[str, Any], *keys: str) -> Any:
    """
    Return the value of whichever key the row has, or ``None``. An empty string counts as null.

    :raises RowError: if it has several of them with different values
    """
    values = [value for key in keys if (value := row.get(key)) is not None and value != ""]
    if any(value != values[0] for value in values[1:]):
        raise RowError(f"{' and '.join(keys)} have different values; expected equal values")
    return values[0] if values else None


def own_id(row: Mapping[str, Any], *keys: str) -> str:
    """
    Return the id of a persona, conversation or video.

    :raises RowError: if it is missing or not a string
    """
    value = one_of(row, *keys)
    if isinstance(value, str):
        return make_safe(value).text
    raise RowError(f"{keys[0]} is {describe(value)}; expected a non-empty string")


def reference(row: Mapping[str, Any], *keys: str) -> str | None:
    """
    Return the id of another object that a row names, or ``None``. Blanks around it are ignored.

    :raises RowError: if it is not a string
    """
    value = one_of(row, *keys)
    if value is None:
        return None
    if isinstance(value, str) and (found := value.strip()):
        return sys.intern(make_safe(found).text)
    raise RowError(f"{keys[0]} is {describe(value)}; expected an id or null")


def raw_text(row: Mapping[str, Any], unreadable: dict[str, str], *keys: str) -> str | None:
    """
    Return a text as it is, or ``None``; not safe yet.

    :param unreadable: gets a sentence, under the first key, if the value is not a string
    """
    value = one_of(row, *keys)
    if value is None or isinstance(value, str):
        return value
    unreadable[keys[0]] = f"{keys[0]} is {describe(value)}, not a string"
    return None


def text_field(row: Mapping[str, Any], unreadable: dict[str, str], *keys: str) -> str | None:
    """Return a safe text, or ``None``, as :func:`raw_text`. For fields with few different values."""
    value = raw_text(row, unreadable, *keys)
    return None if value is None else sys.intern(make_safe(value).text)


def time_field(row: Mapping[str, Any], unreadable: dict[str, str], key: str) -> datetime | None:
    """
    Return a date, or ``None``.

    :param unreadable: gets a sentence, under the key, if :func:`parse_time` rejects the value
    """
    value = one_of(row, key)
    if value is None:
        return None
    try:
        return parse_time(value)
    except ValueError as error:
        unreadable[key] = f"{key} {error}"
        return None


def last_change(row: Mapping[str, Any]) -> datetime | None:
    """Return the later of the two dates; ``None`` if none is readable, or if the last change is not."""
    unreadable: dict[str, str] = {}
    dates = [time_field(row, unreadable, key) for key in ("created_at", "updated_at")]
    return None if "updated_at" in unreadable else max(filter(None, dates), default=None)


def describe(value: object) -> str:
    """Return a value as a sentence quotes it."""
    if isinstance(value, ConflictingValues | UnusableNumber):
        return str(value)
    return quote(value, none="missing")


def shown_texts(row: Mapping[str, Any], keys: Iterable[str]) -> tuple[str, ...]:
    """Return every text that the row has under these keys, also in lists and objects."""
    found = (make_safe(text.strip()).text for key in keys for text in _texts_in(row.get(key)))
    return tuple(dict.fromkeys(text for text in found if text))


def _texts_in(value: object, depth: int = 3) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth:
        values = value.values if isinstance(value, ConflictingValues) else value
        values = values.values() if isinstance(values, dict) else values
        for inner in values if isinstance(values, Iterable) else ():
            yield from _texts_in(inner, depth - 1)


def fingerprint_of(row: object) -> str:
    """Return a SHA-256 of the whole row, which is equal for equal rows."""
    try:
        text = json.dumps(row, sort_keys=True, separators=(",", ":"), default=repr)
    except RecursionError:  # a row that could just be parsed
        text = "nested too deeply"
    return hashlib.sha256(text.encode()).hexdigest()
