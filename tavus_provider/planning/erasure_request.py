"""
What a person asked for: the request for an erasure, parsed and checked before anything is read.

No message repeats the value of ``request``: it may be the name or the address of a person.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from enum import StrEnum
from typing import Any, Final

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.keys import Kind, item_key, parse_key
from tavus_provider.sanitize import quote

REQUEST_PATTERN: Final = "^(?=.*[0-9])[A-Za-z0-9][A-Za-z0-9._-]{2,63}$"
"""
What a reference looks like, for a form. A digit is required, because a name has none. An e-mail address does
not match. The reference becomes the name of a folder.
"""

_REQUEST: Final = re.compile(REQUEST_PATTERN[1:-1])
_DATE: Final = re.compile("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_SHAPES: Final[Mapping[str, re.Pattern[str]]] = {
    # As Tavus assigns them. No other kind has ids of this shape.
    **{kind.value: kind.shape for kind in Kind if kind.shape is not None},
    "persona": re.compile("p[0-9a-f]{9,12}"),
}
_BEHIND: Final = timedelta(hours=12)
_AHEAD: Final = timedelta(hours=14)
"""How far the calendars on Earth are behind and ahead of UTC: a date is past if it is past everywhere."""
_NOTHING: Final = "Nothing was read or deleted"


class Ground(StrEnum):
    """Why the data must be erased: Art. 17(1) of the GDPR, or a law of the United States."""

    CONSENT_WITHDRAWN = "consent_withdrawn"
    """Art. 17(1)(b): the person has withdrawn consent."""
    REQUEST = "request"
    """Art. 17(1)(c): the person objects, or asks without another ground."""
    PURPOSE_MET = "purpose_met"
    """Art. 17(1)(a): the data are no longer needed."""
    UNLAWFUL = "unlawful"
    """Art. 17(1)(d): the data were processed unlawfully."""
    CCPA = "ccpa"
    """California Consumer Privacy Act, section 1798.105."""
    BIPA = "bipa"
    """Illinois Biometric Information Privacy Act, section 15(a)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureRequest:
    """
    A request for the erasure of one person.

    :param request: the reference of the request, such as ``DSR-2026-0142``
    :param received_on: when it was received
    :param due_on: until when it must be answered
    :param is_due_date_given: whether ``due_on`` was given and not computed
    :param ground: why the data must be erased
    :param replica_ids: the replicas that show the person; what was made with them is erased too
    :param keys: the keys of everything that was named
    :param kinds: the kinds of objects to erase
    """

    request: str
    received_on: date
    due_on: date
    is_due_date_given: bool
    ground: Ground
    replica_ids: tuple[str, ...]
    keys: tuple[str, ...]
    kinds: tuple[Kind, ...]


def parse_request(
    *,
    request: object,
    received_on: object,
    due_on: object = None,
    ground: object,
    ids: Mapping[Kind, object],
    kinds: object = None,
    now: datetime,
) -> ErasureRequest:
    """
    Check the parts of a request.

    :param request: its reference: 3 to 64 letters, digits, ``.``, ``_`` or ``-``, with at least one digit
    :param received_on: a date, ``YYYY-MM-DD``, not in the future
    :param due_on: a date, not before ``received_on``; default: one calendar month after ``received_on``
    :param ground: a value of :class:`Ground`
    :param ids: for each kind a list of ids, or ``None``; at least one id is needed. Messages call the lists
        by :attr:`.Kind.ids_name`
    :param kinds: the kinds to erase, as words; default: all
    :param now: the wall clock, aware
    :raises TavusValidationError: in one line, naming the first part that is wrong. A due date that is past is
        accepted here; see :func:`find_past_due_date`
    """
    reference = check_reference(request)
    received = _parse_date("received_on", received_on)
    if received > (now + _AHEAD).date():
        raise _error(f"received_on: {received} is in the future")
    due = add_month(received) if due_on in (None, "") else _parse_date("due_on", due_on)
    if due < received:
        raise _error(f"due_on: {due} is before received_on, {received}")
    chosen = _parse_kinds(kinds)
    named = {kind: _parse_ids(kind, ids.get(kind)) for kind in Kind}
    for kind, found in named.items():
        # Replicas say what belongs to the request, also if they are not to be deleted themselves.
        if found and kind not in chosen and kind is not Kind.REPLICA:
            raise _error(f"{kind.ids_name}: has ids, but kinds does not have {kind.value!r}")
    keys = [key for found in named.values() for key in found]
    names = ", ".join(kind.ids_name for kind in Kind)
    if not keys:
        raise _error(f"{names}: all are empty; name at least one id")
    bare = [parse_key(key)[1] for key in keys]
    if twice := next((one for one in bare if bare.count(one) > 1), None):
        raise _error(f"{twice} is in two of {names}")
    return ErasureRequest(
        request=reference,
        received_on=received,
        due_on=due,
        is_due_date_given=due_on not in (None, ""),
        ground=_parse_ground(ground),
        replica_ids=tuple(named[Kind.REPLICA]),
        keys=tuple(keys),
        kinds=chosen,
    )


def find_past_due_date(request: ErasureRequest, *, known: Iterable[date], now: datetime) -> str | None:
    """
    Return why a due date that was given is refused: it is past, and no earlier run of this request had it.

    An overdue request can still be carried out: leave out ``due_on``, or give the date of the earlier runs.

    :param known: the due dates that earlier runs of the request recorded
    :param now: the wall clock, aware
    """
    if not request.is_due_date_given or not is_past(request.due_on, now=now) or request.due_on in known:
        return None
    return (
        f"due_on: {request.due_on} is in the past. To carry out an overdue request, leave due_on empty. "
        f"{_NOTHING}"
    )


def is_past(day: date, *, now: datetime) -> bool:
    """Return whether a day is over everywhere on Earth."""
    return day < (now - _BEHIND).date()


def add_month(day: date) -> date:
    """
    Return the day one calendar month later, the last of that month if it is shorter.

    This is the period of Art. 12(3) of the GDPR, counted as in Regulation (EEC, Euratom) No 1182/71.
    """
    year, month = divmod(day.year * 12 + day.month, 12)
    return date(year, month + 1, min(day.day, calendar.monthrange(year, month + 1)[1]))


def check_reference(value: object) -> str:
    """
    Return the reference of a request.

    :raises TavusValidationError: if it is not one
    """
    if isinstance(value, int | float):
        raise _error(
            "request: a number; use a reference with letters, such as DSR-2026-0142, because a template "
            "changes numbers"
        )
    if isinstance(value, str) and "@" in value:
        raise _error(
            "request: an e-mail address; use a reference such as DSR-2026-0142, because it is stored"
        )
    if not isinstance(value, str) or not _REQUEST.fullmatch(value):
        raise _error(
            "request: must be a reference such as DSR-2026-0142, and not a name, because it is stored: 3 to "
            "64 letters, digits, '.', '_' or '-', at least one digit, beginning with a letter or a digit"
        )
    return value


def _parse_date(name: str, value: object) -> date:
    if isinstance(value, datetime):
        value = value.date()
    if isinstance(value, date):
        return value
    if isinstance(value, str) and _DATE.fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            pass
    raise _error(f"{name}: {quote(value, none='empty')} is not a date such as 2026-11-28")


def _parse_ground(value: object) -> Ground:
    if isinstance(value, str) and value in list(Ground):
        return Ground(value)
    raise _error(f"ground: {quote(value, none='empty')} is not one of {', '.join(Ground)}")


def _parse_kinds(value: object) -> tuple[Kind, ...]:
    if value is None:
        return tuple(Kind)
    names = _parse_list("kinds", value)
    if unknown := [name for name in names if name not in list(Kind)]:
        raise _error(f"kinds: {quote(unknown[0])} is not one of {', '.join(Kind)}")
    if not names:
        raise _error(f"kinds: is empty; leave it out for all kinds, which are {', '.join(Kind)}")
    return tuple(kind for kind in Kind if kind in names)


def _parse_ids(kind: Kind, value: object) -> list[str]:
    """Return the keys of the ids in a list. An id may be written as its key."""
    name = kind.ids_name
    keys: dict[str, None] = {}
    for item in _parse_list(name, () if value is None else value):
        text: Any = item
        if isinstance(item, str) and "/" in item:
            prefix, _, rest = item.partition("/")
            if prefix != kind.value:
                raise _error(f"{name}: {quote(item, limit=80)} is not the id of a {kind.value}")
            text = rest
        for other, shape in _SHAPES.items():
            if other != kind.value and isinstance(text, str) and shape.fullmatch(text):
                raise _error(f"{name}: {text} looks like the id of a {other}, not of a {kind.value}")
        try:
            keys[item_key(kind, text)] = None
        except TavusValidationError:
            problem = f"{name}: {quote(item)} is not the id of a {kind.value}"
        else:
            continue
        raise _error(problem)
    return list(keys)


def _parse_list(name: str, value: object) -> Sequence[object]:
    if isinstance(value, list | tuple):
        return value
    hint = "; set render_template_as_native_obj=True on the DAG" if isinstance(value, str) else ""
    raise _error(f"{name}: must be a list, not {quote(value)}{hint}")


def _error(problem: str) -> TavusValidationError:
    return TavusValidationError(f"{problem}. {_NOTHING}")
