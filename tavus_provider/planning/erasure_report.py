"""
What became of an erasure: the outcome of each object, what was seen afterwards, and what is still open.

The same functions judge a report and a certificate, so that both say the same.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Literal, NotRequired, TypedDict

from tavus_provider.keys import Kind, parse_key
from tavus_provider.outcomes import GONE, HELD, ORDER, UNFINISHED, Outcome
from tavus_provider.planning.erasure import ErasurePlan, Reference
from tavus_provider.planning.plan import MAX_XCOM_BYTES, fits_xcom
from tavus_provider.planning.report import Result, unread_result

PERSONA: Final = "persona"
"""Personas are read but not deleted, so they are no :class:`.Kind`."""

LISTS: Final = (*(kind.value for kind in Kind), PERSONA)
"""The lists that are read after the deletes."""

SAMPLE: Final = 20
"""Subjects that one open point names. The rest is in the items of the report or certificate."""


class State(StrEnum):
    """How far a request is."""

    COMPLETE = "complete"
    """Nothing of the request was found by any read after the deletes."""
    PARTLY_REFUSED = "partly_refused"
    """The same, except for objects under legal hold."""
    INCOMPLETE = "incomplete"
    """Something is open: it still exists, or it is not known whether it does."""


class Asked(StrEnum):
    """What Tavus answered when it was asked for one object after the deletes."""

    NOT_FOUND = "not_found"
    FOUND = "found"
    UNKNOWN = "unknown"
    """It could not be asked, or the response could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """
    What was read after the deletes.

    :param asked: what Tavus answered about each object
    :param listings: for each of ``LISTS``, whether it was read completely
    :param still_listed: keys of the plan that are still in a list
    :param found: other objects that were made with a replica of the request
    :param undetermined: rows that may be of the person and that the plan did not have
    :param references: personas that name a replica of the request
    """

    asked: Mapping[str, str] = field(default_factory=dict)
    listings: Mapping[str, bool] = field(default_factory=dict)
    still_listed: frozenset[str] = frozenset()
    found: frozenset[str] = frozenset()
    undetermined: frozenset[str] = frozenset()
    references: tuple[Reference, ...] = ()

    def shows_gone(self, key: str) -> bool:
        """Return whether everything that was read shows that an object does not exist any more."""
        return (
            self.asked.get(key) == Asked.NOT_FOUND
            and key not in self.still_listed
            and self.listings.get(parse_key(key)[0].value) is True
        )

    def is_listed(self, key: str) -> bool | None:
        """Return whether an object is still listed; ``None`` if its list was not read completely."""
        if key in self.still_listed:
            return True
        return False if self.listings.get(parse_key(key)[0].value) else None

    def to_record(self) -> dict[str, object]:
        """Return the fields of the ledger record of this look."""
        return {
            "asked": dict(self.asked),
            "lists": dict(self.listings),
            "still_listed": sorted(self.still_listed),
            "found": sorted(self.found),
            "undetermined": sorted(self.undetermined),
            "references": [dict(reference) for reference in self.references],
        }


class OpenPoint(TypedDict):
    """
    Something that is not done. ``subjects`` are keys or ids, at most ``SAMPLE`` of ``count``.
    """

    what: str
    count: int
    subjects: list[str]
    next_step: str


class ErasureItem(TypedDict):
    """
    What became of one object.

    ``outcome`` is a value of :class:`.Outcome` or ``held``. ``asked`` is a value of :class:`Asked`, and
    ``listed`` says whether it is still in the complete list of its kind; both are null if that was not read.
    """

    key: str
    outcome: str
    detail: str
    asked: str | None
    listed: bool | None


class ErasureReport(TypedDict):
    """The report of an apply task about a plan of an erasure. ``counts`` add up to the size of the plan."""

    version: Literal[1]
    kind: Literal["erasure"]
    request: str
    plan_digest: str
    state: str
    counts: dict[str, int]
    open: list[OpenPoint]
    items: list[ErasureItem]
    ledger: str | None
    items_left_out: NotRequired[int]


def find_open(
    plan: ErasurePlan,
    *,
    outcomes: Mapping[str, Outcome | None],
    held: Iterable[str],
    look: Look | None,
) -> list[OpenPoint]:
    """
    Return what is not done, or not known to be done.

    :param outcomes: the last outcome of each object of the plan; ``None`` if only the intent is recorded
    :param held: the keys that were not deleted because of a legal hold
    :param look: what was read after the deletes; ``None`` if nothing was
    """
    points = _Points()
    held = set(held)
    if look is None:
        points.add(_NO_LOOK, [plan["request"]])
        return points.to_json()
    unknown_to_tavus = {row["key"] for row in plan["delete"] if not row["is_known"]}
    keys = [row["key"] for row in plan["delete"] if row["key"] not in held]
    for key in [*keys, *(row["key"] for row in plan["gone"])]:
        if reason := _find_evidence(key, look):
            points.add(reason, [key])
        elif key in unknown_to_tavus and outcomes.get(key) not in GONE:
            points.add(_FOOTAGE, [key])
        elif (outcome := outcomes.get(key)) is Outcome.SKIPPED:
            points.add(_SKIPPED, [key])
        elif outcome in UNFINISHED and key in keys:
            points.add(_UNFINISHED, [key])
    incomplete = [name for name in LISTS if look.listings.get(name) is not True]
    points.add(_NOT_LISTED, [f"the list of {name}s" for name in incomplete])
    points.add(_FOUND, look.found)
    points.add(_UNDETERMINED, [row["row"] for row in plan["undetermined"] if not row["is_left"]])
    points.add(_APPEARED, look.undetermined)
    if (more := plan["undetermined_count"] - len(plan["undetermined"])) > 0:
        points.add(_TOO_MANY, [f"{more:,} more rows"])
    if plan["on_reference"] != "leave":
        points.add(_REFERENCE, [one["persona_id"] for one in look.references])
    return points.to_json()


def find_state(open_points: Iterable[OpenPoint], *, held: Iterable[str]) -> State:
    """Return how far a request is, from what is open and what is held."""
    if list(open_points):
        return State.INCOMPLETE
    return State.PARTLY_REFUSED if list(held) else State.COMPLETE


def make_erasure_report(
    plan: ErasurePlan,
    *,
    results: Mapping[str, Result],
    held: Mapping[str, str],
    look: Look | None,
    ledger: str | None,
) -> ErasureReport:
    """
    Make the report about a plan.

    :param results: the result of each object that is not held
    :param held: why objects are held
    :param look: what was read after the deletes
    :param ledger: the name of the recorded attempt
    """
    items: list[ErasureItem] = []
    for row in (*plan["delete"], *plan["held"]):
        key = row["key"]
        result = results.get(key)
        items.append(
            {
                "key": key,
                "outcome": HELD if result is None else result.outcome.value,
                "detail": held.get(key, row["reason"]) if result is None else result.detail,
                "asked": None if look is None else look.asked.get(key),
                "listed": None if look is None or result is None else look.is_listed(key),
            }
        )
    counts = Counter(item["outcome"] for item in items)
    held_keys = [item["key"] for item in items if item["outcome"] == HELD]
    outcomes = {key: result.outcome for key, result in results.items()}
    points = find_open(plan, outcomes=outcomes, held=held_keys, look=look)
    return {
        "version": 1,
        "kind": "erasure",
        "request": plan["request"],
        "plan_digest": plan["digest"],
        "state": find_state(points, held=held_keys).value,
        "counts": {name: counts[name] for name in (*(one.value for one in ORDER), HELD)},
        "open": points,
        "items": items,
        "ledger": ledger,
    }


def unread_erasure_report(plan: ErasurePlan, reason: str, *, retried: bool) -> ErasureReport:
    """Make the report of an attempt that ended early; see :func:`.unread_result`."""
    result = unread_result(reason, retried=retried)
    results = {row["key"]: result for row in plan["delete"]}
    return make_erasure_report(plan, results=results, held={}, look=None, ledger=None)


def truncate_erasure_report(report: ErasureReport) -> ErasureReport:
    """Return a report that fits into an XCom: unfinished items first, and as many as fit."""
    if fits_xcom(report):
        return report
    unfinished = {outcome.value for outcome in UNFINISHED}
    items = sorted(report["items"], key=lambda item: item["outcome"] not in unfinished)
    sizes = itertools.accumulate(len(json.dumps(item)) + 2 for item in items)
    frame = len(json.dumps({**report, "items": [], "items_left_out": len(items)}))
    kept = sum(size <= MAX_XCOM_BYTES - frame for size in sizes)
    return {**report, "items": items[:kept], "items_left_out": len(items) - kept}


def open_sentences(points: Iterable[OpenPoint]) -> list[str]:
    """Return one sentence for each open point."""
    return [
        f"{point['what']}: {', '.join(point['subjects'])}"
        + (f" and {more:,} more" if (more := point["count"] - len(point["subjects"])) else "")
        + f". {point['next_step']}"
        for point in points
    ]


_Reason = tuple[str, str]
"""What is open, and the next step."""

_AGAIN: Final = "Trigger a new run of this request"
_CLOSE: Final = (
    "add the request, as connection_id/reference, to closed_erasures in section [tavus] of the configuration"
)
_NO_LOOK: Final = ("Nothing was read after the deletes", _AGAIN)
_STILL_THERE: Final = ("Tavus still returns it", _AGAIN)
_STILL_LISTED: Final = ("It is still listed", f"{_AGAIN}; if it stays, ask Tavus")
_NOT_ASKED: Final = ("It is not known whether it exists", _AGAIN)
_FOOTAGE: Final = (
    "It was soft-deleted before and Tavus does not know the id any more, so it cannot be seen whether its "
    "training footage was deleted",
    f"Ask Tavus to confirm it, keep the confirmation, and {_CLOSE}",
)
_SKIPPED: Final = ("It changed after the plan was made, so it was not deleted", _AGAIN)
_UNFINISHED: Final = ("Its delete failed or has an unknown outcome", _AGAIN)
_NOT_LISTED: Final = ("It could not be read completely", _AGAIN)
_FOUND: Final = ("It was made after the plan", _AGAIN)
_UNDETERMINED: Final = (
    "It may be of this person, which cannot be seen",
    "Look at it in Tavus. If it is, name its id in a new run; if it is not, set on_undetermined='leave' in "
    "the DAG file",
)
_APPEARED: Final = (
    "It appeared during the run, and it cannot be seen whose it is",
    "Look at it in Tavus. If it is of this person, name its id in a new run; if it is not, "
    f"{_CLOSE} when everything else is done",
)
_TOO_MANY: Final = (
    "There are too many rows that may be of this person",
    "Ask Tavus which of the videos and conversations without a replica are of this person, and name their "
    f"ids in a new run; then keep the answer, and {_CLOSE}",
)
_REFERENCE: Final = (
    "The persona names a replica of the request",
    "Change its default replica in Tavus and trigger a new run",
)


class _Points:
    """Collects open points, one for each reason."""

    def __init__(self) -> None:
        self._subjects: dict[_Reason, list[str]] = {}

    def add(self, reason: _Reason, subjects: Iterable[str]) -> None:
        """Add subjects for which something is open."""
        if found := sorted(subjects):
            self._subjects.setdefault(reason, []).extend(found)

    def to_json(self) -> list[OpenPoint]:
        """Return the points."""
        return [
            {"what": what, "count": len(subjects), "subjects": subjects[:SAMPLE], "next_step": next_step}
            for (what, next_step), subjects in self._subjects.items()
        ]


def _find_evidence(key: str, look: Look) -> _Reason | None:
    """Return what was read that does not show that an object is gone."""
    asked = look.asked.get(key, Asked.UNKNOWN)
    if asked == Asked.FOUND:
        return _STILL_THERE
    if key in look.still_listed:
        return _STILL_LISTED
    return None if asked == Asked.NOT_FOUND else _NOT_ASKED
