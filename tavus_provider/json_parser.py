"""
Parse the JSON of a server, so that an oddity matters only in the field that has it.

JSON allows a key to occur twice, and servers send numbers that JSON does not have, such as ``NaN``. A whole
response must not be lost because of a field that nobody reads. A field that is read must not get one of two
values by chance. So such a value is replaced by an object of this module, which is neither a string nor a
number, and code that reads the field finds a value of the wrong type.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

_MAX_DIGITS: Final = 400
"""Longest whole number that is converted. Python itself refuses more than 4,300 digits."""


@dataclass(frozen=True, slots=True)
class ConflictingValues:
    """The values of a key that occurs several times in one object with different values."""

    values: tuple[Any, ...]

    def __str__(self) -> str:
        return "given more than once, with different values"


@dataclass(frozen=True, slots=True)
class UnusableNumber:
    """A number that is not finite (``NaN``, ``1e999``), or that has too many digits."""

    text: str

    def __str__(self) -> str:
        return self.text


def parse_json(data: bytes) -> Any:
    """
    Return the value of a JSON document.

    A byte order mark is skipped. Bytes that are not UTF-8 become lone surrogates.

    :param data: the document in UTF-8
    :returns: as :func:`json.loads` does, with :class:`ConflictingValues` and :class:`UnusableNumber` in place
        of values that have no single meaning
    :raises ValueError: if it is not JSON
    :raises RecursionError: if it is nested too deeply
    """
    return json.loads(
        data.decode("utf-8-sig", "surrogateescape"),
        object_pairs_hook=_make_object,
        parse_constant=UnusableNumber,
        parse_float=_parse_float,
        parse_int=_parse_int,
    )


def merge_objects(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one object with the values of all: :class:`ConflictingValues` where they are not equal."""
    keys = dict.fromkeys(key for one in objects for key in one)
    return {key: _one_value([one.get(key) for one in objects]) for key in keys}


def _make_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        values: dict[str, list[Any]] = {}
        for key, value in pairs:
            values.setdefault(key, []).append(value)
        found = {key: _one_value(given) for key, given in values.items()}
    return found


def _one_value(given: Sequence[Any]) -> Any:
    if all(type(value) is type(given[0]) and value == given[0] for value in given):
        return given[-1]
    return ConflictingValues(tuple(given))


def _parse_float(text: str) -> float | UnusableNumber:
    number = float(text)
    return number if math.isfinite(number) else UnusableNumber(text[:20])


def _parse_int(text: str) -> int | UnusableNumber:
    return int(text) if len(text) <= _MAX_DIGITS else UnusableNumber("a huge number")
