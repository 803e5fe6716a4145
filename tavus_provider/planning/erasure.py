"""
The plan of an erasure: everything of one person that is to be deleted, as a JSON document without names.

A plan is made from a request (:mod:`.erasure_request`) and from what was read of the account. The rules of a
retention policy do not hold against it: no protected ids, no ``keep_last``, no 72 hours. Legal holds do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, TypedDict, cast

from tavus_provider.digest import digest_of, seal
from tavus_provider.exceptions import PlanRejectedError, TavusValidationError
from tavus_provider.keys import Kind, parse_key
from tavus_provider.models import Activity, Item, Replica
from tavus_provider.planning.beyond_reach import BeyondReach, find_beyond_reach
from tavus_provider.planning.documents import find_mismatch
from tavus_provider.planning.erasure_holds import HoldScope, find_holds
from tavus_provider.planning.erasure_request import ErasureRequest
from tavus_provider.planning.plan import find_plan_faults, format_time
from tavus_provider.validity import PLAN_VALID_FOR

VERSION: Final = 1
MAX_UNDETERMINED: Final = 1_000
"""Undetermined rows that a plan names. If there are more, the request cannot be shown to be complete."""


class ErasureRow(TypedDict):
    """
    One object of the request. Times are ISO 8601 in UTC.

    :param replica_id: the replica that a video or conversation was made with, if its row names one
    :param via: why it belongs to the request: it was ``named``, it was made with a ``replica`` of the
        request, or an approved ``earlier`` run of the request was about it
    :param is_known: whether Tavus showed it. A replica that this package soft-deleted may be unknown; the
        delete is sent all the same
    """

    key: str
    kind: str
    created_at: str | None
    replica_id: str | None
    via: Literal["named", "replica", "earlier"]
    is_known: bool
    reason: str


class HeldRow(ErasureRow):
    """
    An object under legal hold.

    :param held_by: the key or id that the hold names: the object itself, or one that it is related to
    """

    held_by: str


class GoneRow(TypedDict):
    """An object of the request that Tavus did not know any more when the plan was made."""

    key: str
    reason: str


class UndeterminedRow(TypedDict):
    """
    A row of a list that may be of the person, which cannot be seen. It is not deleted.

    :param row: its key; if it has no valid id, what it shows in place of one
    :param is_left: whether the author of the DAG decided to leave such rows (``on_undetermined="leave"``)
    """

    row: str
    reason: str
    is_left: bool


class Reference(TypedDict):
    """A persona that names a replica of the request."""

    persona_id: str
    replica_id: str


class ErasurePlan(TypedDict):
    """
    A plan for an erasure. ``digest`` is the SHA-256 of everything else in it.

    ``end`` has the keys of the conversations that are ended first. ``left`` has objects of kinds that the
    request does not name. ``counts`` has the size of ``delete`` by kind, ``listed`` the number of rows of the
    request in each complete list. ``undetermined_count`` is the number of all undetermined rows.
    """

    version: Literal[1]
    kind: Literal["erasure"]
    digest: str
    request: str
    received_on: str
    due_on: str
    ground: str
    kinds: list[str]
    replica_ids: list[str]
    hold_covers: str
    legal_holds: dict[str, Any]
    on_reference: str
    end: list[str]
    delete: list[ErasureRow]
    held: list[HeldRow]
    left: list[ErasureRow]
    gone: list[GoneRow]
    undetermined: list[UndeterminedRow]
    undetermined_count: int
    references: list[Reference]
    beyond_reach: list[BeyondReach]
    counts: dict[str, int]
    listed: dict[str, int]
    limits: dict[str, Any]
    hard: Literal[True]
    made_at: str
    valid_until: str
    tavus_conn_id: str
    origin: str


class ErasureReference(TypedDict):
    """What is pushed as XCom in place of a plan that is too large: digest, counts and location."""

    version: Literal[1]
    kind: Literal["erasure"]
    plan_at: str
    digest: str
    request: str
    received_on: str
    due_on: str
    ground: str
    kinds: list[str]
    counts: dict[str, int]
    held_count: int
    undetermined_count: int
    limits: dict[str, Any]
    hard: Literal[True]
    made_at: str
    valid_until: str
    tavus_conn_id: str
    origin: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureFacts:
    """
    What was read for one request.

    :param items: every object of the request that Tavus shows, by key
    :param missing: keys that were named, or that an earlier run was about, and that Tavus does not know
    :param earlier: keys that approved runs of this request were about
    :param recorded: keys that any plan of this request had
    :param soft_deleted: when this package soft-deleted each replica
    :param undetermined: rows that may be of the person, and why this cannot be seen; at most
        ``MAX_UNDETERMINED``
    :param undetermined_count: the number of all such rows
    :param suspects: rows that appeared while an earlier run of this request deleted; they are never left
    :param references: personas that name a replica of the request
    :param listed: the number of rows of the request in each complete list
    """

    items: Mapping[str, Item]
    missing: frozenset[str] = frozenset()
    earlier: frozenset[str] = frozenset()
    recorded: frozenset[str] = frozenset()
    soft_deleted: Mapping[str, datetime] = field(default_factory=dict)
    undetermined: Mapping[str, str] = field(default_factory=dict)
    undetermined_count: int = 0
    suspects: frozenset[str] = frozenset()
    references: Sequence[Reference] = ()
    listed: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ErasureOptions:
    """
    What the author of the DAG decided.

    :param leave_references: carry out a plan although a persona names a replica of the request
    :param leave_undetermined: do not count undetermined rows as open
    :param hold_covers: what a legal hold covers
    :param max_replicas: maximum number of replicas in a plan; 0 allows none
    :param max_items: maximum number of objects in a plan; 0 allows none
    """

    leave_references: bool = False
    leave_undetermined: bool = False
    hold_covers: HoldScope = HoldScope.RELATED
    max_replicas: int = 5
    max_items: int = 10_000


def make_erasure_plan(
    request: ErasureRequest,
    facts: ErasureFacts,
    *,
    options: ErasureOptions,
    held: frozenset[str],
    now: datetime,
    tavus_conn_id: str,
    origin: str,
    legal_holds: Mapping[str, Any] | None = None,
) -> ErasurePlan:
    """
    Decide what is deleted for a request.

    :param held: ids and keys under legal hold
    :param now: the wall clock, aware; the plan is valid for :data:`.PLAN_VALID_FOR` from then
    :param legal_holds: ``file`` and ``max_age`` of the DAG's own legal holds, which are read again later
    :raises TavusValidationError: if an id is unknown, or is that of a stock replica
    """
    _refuse_foreign(request, facts)
    rows: list[ErasureRow] = []
    gone: list[GoneRow] = []
    for key in sorted({*request.keys, *facts.earlier, *facts.items}, key=_sort_key):
        if (item := facts.items.get(key)) is not None:
            rows.append(_make_row(key, item, request, facts))
        elif key not in facts.missing:
            continue  # it cannot be read, so it is undetermined
        elif key in facts.soft_deleted:
            rows.append(_make_unknown_row(key, request, facts))
        elif parse_key(key)[0] in request.kinds:
            reason = "an earlier run of this request was about it; Tavus does not know it any more"
            gone.append({"key": key, "reason": reason})
    undetermined: list[UndeterminedRow] = [
        {"row": row, "reason": reason, "is_left": options.leave_undetermined and row not in facts.suspects}
        for row, reason in sorted(facts.undetermined.items())
    ]
    holds = find_holds(rows, held, covers=options.hold_covers, undetermined=undetermined)
    chosen = [row for row in rows if row["kind"] in request.kinds]
    delete = [row for row in chosen if row["key"] not in holds]
    left = [row for row in rows if row["kind"] not in request.kinds]
    active = {
        key
        for key, item in facts.items.items()
        if isinstance(item, Activity) and item.kind == Kind.CONVERSATION and not item.is_finished
    }
    plan: dict[str, Any] = {
        "version": VERSION,
        "kind": "erasure",
        "request": request.request,
        "received_on": request.received_on.isoformat(),
        "due_on": request.due_on.isoformat(),
        "ground": request.ground.value,
        "kinds": [kind.value for kind in request.kinds],
        "replica_ids": sorted(find_replica_ids(request, facts.earlier)),
        "hold_covers": options.hold_covers.value,
        "legal_holds": dict(legal_holds or {}),
        "on_reference": "leave" if options.leave_references else "fail",
        "end": [row["key"] for row in delete if row["key"] in active],
        "delete": delete,
        "held": [
            {**row, "reason": holds[row["key"]].reason, "held_by": holds[row["key"]].held_by}
            for row in chosen
            if row["key"] in holds
        ],
        "left": [{**row, "reason": "the request does not name this kind"} for row in left],
        "gone": gone,
        "undetermined": undetermined,
        "undetermined_count": max(facts.undetermined_count, len(facts.undetermined)),
        "references": [dict(one) for one in facts.references],
        "beyond_reach": find_beyond_reach(request.kinds),
        "counts": count_kinds(row["key"] for row in delete),
        "listed": dict(facts.listed),
        "limits": {"max_replicas": options.max_replicas, "max_items": options.max_items},
        "hard": True,
        "made_at": format_time(now),
        "valid_until": format_time(now + PLAN_VALID_FOR),
        "tavus_conn_id": tavus_conn_id,
        "origin": origin,
    }
    return cast("ErasurePlan", seal(plan))


def find_replica_ids(request: ErasureRequest, earlier: Iterable[str]) -> frozenset[str]:
    """
    Return the replicas that show the person: those of this run, and those of approved earlier runs.

    :param earlier: the keys that approved earlier runs were about
    """
    return frozenset(request.replica_ids) | {key for key in earlier if parse_key(key)[0] is Kind.REPLICA}


def find_obstacle(plan: ErasurePlan, *, deleted: Iterable[str]) -> str | None:
    """
    Return why a plan must not be shown to an approver: a persona names a replica, or a limit is exceeded.

    :param deleted: the keys that the same run has deleted already, or may have
    """
    if plan["references"] and plan["on_reference"] != "leave":
        named = ", ".join(
            f"persona {one['persona_id']} (replica {one['replica_id']})" for one in plan["references"][:10]
        )
        more = len(plan["references"]) - 10
        return (
            f"{named}{f' and {more} more' if more > 0 else ''} would name a replica that no longer exists: "
            "change its default replica in Tavus and trigger a new run, or set on_reference='leave' in the "
            "DAG file. Nothing was deleted"
        )
    keys = {row["key"] for row in plan["delete"]} | set(deleted)
    replicas = sum(parse_key(key)[0] is Kind.REPLICA for key in keys)
    for count, name, what in (
        (replicas, "max_replicas", "replicas"),
        (len(keys), "max_items", "objects"),
    ):
        limit = plan["limits"][name]
        if count > limit:
            return (
                f"the request is about {count:,} {what}, {name} in the DAG file is {limit:,}. Nothing was "
                "deleted"
            )
    return None


def count_kinds(keys: Iterable[str]) -> dict[str, int]:
    """Return the number of objects of each kind."""
    counts = Counter(parse_key(key)[0].value for key in keys)
    return {kind.value: counts[kind.value] for kind in Kind}


def erasure_reference(plan: ErasurePlan, *, plan_at: str) -> ErasureReference:
    """
    Return what is pushed as XCom in place of a plan that is too large.

    :param plan_at: where the plan is stored, for people to read
    """
    return {
        "version": 1,
        "kind": "erasure",
        "plan_at": plan_at,
        "digest": plan["digest"],
        "request": plan["request"],
        "received_on": plan["received_on"],
        "due_on": plan["due_on"],
        "ground": plan["ground"],
        "kinds": plan["kinds"],
        "counts": plan["counts"],
        "held_count": len(plan["held"]),
        "undetermined_count": plan["undetermined_count"],
        "limits": plan["limits"],
        "hard": plan["hard"],
        "made_at": plan["made_at"],
        "valid_until": plan["valid_until"],
        "tavus_conn_id": plan["tavus_conn_id"],
        "origin": plan["origin"],
    }


def verify_erasure_digest(value: object) -> ErasurePlan:
    """
    Return a plan for an erasure whose content matches its digest.

    :raises PlanRejectedError: if it is not such a plan, or was changed after it was made
    """
    if mismatch := find_mismatch(value, ErasurePlan, name="plan"):
        raise _rejected([mismatch])
    plan = cast("ErasurePlan", value)
    if plan["digest"] != digest_of(plan):
        raise _rejected(["its content does not match its digest, so it was changed after it was made"])
    return plan


def check_erasure_plan(value: object, *, now: datetime, tavus_conn_id: str, origin: str) -> ErasurePlan:
    """
    Return a plan for an erasure if this task may carry it out now.

    :param now: the wall clock, aware
    :param tavus_conn_id: the Airflow connection of the task
    :param origin: the URL that this connection stands for
    :raises PlanRejectedError: naming everything that is wrong
    :raises TavusValidationError: if a key is not one
    """
    plan = verify_erasure_digest(value)
    faults = find_plan_faults(plan, now=now, tavus_conn_id=tavus_conn_id, origin=origin)
    keys = [row["key"] for rows in (plan["delete"], plan["held"], plan["left"]) for row in rows]
    keys += [row["key"] for row in plan["gone"]]
    for key in keys:
        parse_key(key)
    if len(set(keys)) < len(keys):
        faults.append("it names an object twice")
    if stray := set(plan["end"]) - {row["key"] for row in plan["delete"]}:
        faults.append(f"it ends {min(stray)}, which it does not delete")
    if faults:
        raise _rejected(faults)
    return plan


def _refuse_foreign(request: ErasureRequest, facts: ErasureFacts) -> None:
    """Refuse ids that are not the account's own: unknown ones, and stock replicas of Tavus."""
    accepted = facts.recorded | facts.earlier | facts.soft_deleted.keys()
    unknown = [key for key in request.keys if key in facts.missing and key not in accepted]
    if unknown:
        raise TavusValidationError(
            f"Tavus does not know {_enumerate(unknown)}: mistyped, of another account, or deleted before. "
            "Leave out what is gone. Nothing was deleted"
        )
    foreign = [
        key for key, item in facts.items.items() if isinstance(item, Replica) and item.replica_type != "user"
    ]
    if foreign:
        raise TavusValidationError(
            f"{_enumerate(foreign)}: not a replica of this account (a stock replica of Tavus, or its type is "
            "not known). Nothing was deleted"
        )


def _make_row(key: str, item: Item, request: ErasureRequest, facts: ErasureFacts) -> ErasureRow:
    replica_id = item.replica_id if isinstance(item, Activity) else None
    via, reason = _find_origin(key, replica_id, request)
    return {
        "key": key,
        "kind": item.kind,
        "created_at": format_time(item.created_at),
        "replica_id": replica_id,
        "via": via,
        "is_known": True,
        "reason": reason,
    }


def _make_unknown_row(key: str, request: ErasureRequest, facts: ErasureFacts) -> ErasureRow:
    via, reason = _find_origin(key, None, request)
    since = facts.soft_deleted[key]
    return {
        "key": key,
        "kind": Kind.REPLICA.value,
        "created_at": None,
        "replica_id": None,
        "via": via,
        "is_known": False,
        "reason": f"{reason}; this package soft-deleted it on {since:%Y-%m-%d}, and Tavus does not show it",
    }


def _find_origin(
    key: str, replica_id: str | None, request: ErasureRequest
) -> tuple[Literal["named", "replica", "earlier"], str]:
    if key in request.keys:
        return "named", "named in the request"
    if replica_id in request.replica_ids:
        return "replica", f"made with replica {replica_id}"
    return "earlier", "an earlier run of this request was about it" + (
        f"; made with replica {replica_id}" if replica_id else ""
    )


def _sort_key(key: str) -> tuple[int, str]:
    kind, item_id = parse_key(key)
    return list(Kind).index(kind), item_id


def _enumerate(keys: Sequence[str]) -> str:
    more = f" and {len(keys) - 5} more" if len(keys) > 5 else ""
    return f"{', '.join(keys[:5])}{more}"


def _rejected(faults: list[str]) -> PlanRejectedError:
    return PlanRejectedError(
        f"the plan is rejected: {'; '.join(faults)}. Nothing was deleted; trigger a new run"
    )
