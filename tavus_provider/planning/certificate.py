"""
The certificate of an erasure: what is known about a request, as a JSON document for people outside.

It is made from the plan and from ledger records alone, so that anybody who has both can make it again and
compare. It claims nothing that was not seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, Final, Literal, TypedDict, cast

from tavus_provider.digest import canonical_json, digest_of, seal
from tavus_provider.exceptions import TavusValidationError
from tavus_provider.keys import Kind, parse_key
from tavus_provider.outcomes import HELD, Outcome
from tavus_provider.planning.beyond_reach import BeyondReach
from tavus_provider.planning.documents import find_mismatch
from tavus_provider.planning.erasure import ErasurePlan, Reference
from tavus_provider.planning.erasure_report import Asked, Look, OpenPoint, find_open, find_state
from tavus_provider.planning.plan import fits_xcom, format_time

VERSION: Final = 1

_PLURALS: Final = [kind.plural for kind in Kind]
METHOD: Final = (
    "A run ends active conversations, and then sends DELETE with hard=true for each object: "
    f"{_PLURALS[0]} first, then {', then '.join(_PLURALS[1:])}. Afterwards it asks Tavus for each object by "
    f"its id, and reads the complete lists of {', '.join(_PLURALS)} and personas. The table says what was "
    "seen."
)
LIMITS: Final = (
    "This certificate says what the API of Tavus returned. It does not say what Tavus stores: not what a "
    "delete with hard=true covers beside the object itself, and nothing of backups and copies."
)


class KindCounts(TypedDict):
    """
    The objects of one kind. The columns are not exclusive: an object can be accepted and not found.

    :param found: objects of the request
    :param accepted: Tavus confirmed the delete with a 2xx response
    :param not_found: Tavus did not know the id when it was asked afterwards
    :param not_listed: not in the complete list that was read afterwards
    :param held: not deleted because of a legal hold
    :param failed: the delete was certainly not applied, and the object still exists or may exist
    :param unknown: it is not known whether it exists
    """

    found: int
    accepted: int
    not_found: int
    not_listed: int
    held: int
    failed: int
    unknown: int


class CertificateItem(TypedDict):
    """One object, with what was seen of it. ``outcome`` is null if only the intent was recorded."""

    key: str
    outcome: str | None
    is_accepted: bool
    asked: str | None
    listed: bool | None


class Refusal(TypedDict):
    """An object that was not deleted because of a legal hold."""

    key: str
    reason: str


class Approval(TypedDict):
    """Who approved a plan of the request, and when."""

    plan_digest: str
    shown_digest: str
    approved_by: str
    approved_at: str


class Certificate(TypedDict):
    """
    A certificate. ``digest`` is the SHA-256 of everything else in it; the ledger has it too.

    ``ledger`` has the name of each attempt that it is made from, and the digest of its last record.
    """

    version: Literal[1]
    kind: Literal["erasure_certificate"]
    digest: str
    number: int
    request: str
    state: str
    received_on: str
    due_on: str
    made_at: str
    days_left: int
    ground: str
    origin: str
    tavus_conn_id: str
    kinds: list[str]
    counts: dict[str, KindCounts]
    method: str
    limits: str
    held: list[Refusal]
    open: list[OpenPoint]
    undetermined: list[str]
    undetermined_count: int
    references: list[Reference]
    left: list[str]
    beyond_reach: list[BeyondReach]
    approvals: list[Approval]
    plan_digest: str
    earlier_plans: list[str]
    dag_id: str
    run_id: str
    ledger: dict[str, str | None]
    versions: dict[str, str]
    items: list[CertificateItem]


class CertificateReference(TypedDict):
    """What is pushed as XCom in place of a certificate that is too large."""

    version: Literal[1]
    kind: Literal["erasure_certificate"]
    certificate_at: str
    digest: str
    number: int
    request: str
    state: str
    due_on: str
    days_left: int
    counts: dict[str, KindCounts]
    open: list[OpenPoint]


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """
    What the ledger has about a request.

    :param outcomes: the last outcome of each object in any attempt of the request; ``None`` if only the
        intent is recorded
    :param accepted: the objects whose delete Tavus confirmed in any attempt of the request
    :param held: the objects of the plan that its last attempt did not delete because of a legal hold, and
        what the hold names
    :param look: what the last attempt at the plan read after the deletes
    :param approvals: who approved the plan of this certificate, and earlier ones of the request
    :param earlier_plans: digests of the other plans of the request
    :param ledger: name of each attempt, and the digest of its last record
    """

    outcomes: Mapping[str, Outcome | None] = field(default_factory=dict)
    accepted: frozenset[str] = frozenset()
    held: Mapping[str, str] = field(default_factory=dict)
    look: Look | None = None
    approvals: Sequence[Approval] = ()
    earlier_plans: Sequence[str] = ()
    ledger: Mapping[str, str | None] = field(default_factory=dict)


def make_certificate(
    plan: ErasurePlan,
    evidence: Evidence,
    *,
    number: int,
    run: Mapping[str, Any],
    versions: Mapping[str, str],
    made_at: datetime,
) -> Certificate:
    """
    Make a certificate.

    :param number: its number among the certificates of the request, from 1
    :param run: ``dag_id`` and ``run_id`` of the DAG run
    :param versions: versions of what made it, by name
    :param made_at: the wall clock, aware
    """
    look = evidence.look
    held = {row["key"]: row["reason"] for row in plan["held"]}
    held |= {key: f"is under the legal hold on {evidence.held[key]}" for key in evidence.held}
    items = [_make_item(key, evidence, held=held) for key in _keys(plan)]
    points = find_open(plan, outcomes=evidence.outcomes, held=held, look=look)
    undetermined = {row["row"] for row in plan["undetermined"]}
    certificate: dict[str, Any] = {
        "version": VERSION,
        "kind": "erasure_certificate",
        "number": number,
        "request": plan["request"],
        "state": find_state(points, held=held).value,
        "received_on": plan["received_on"],
        "due_on": plan["due_on"],
        "made_at": format_time(made_at),
        "days_left": (date.fromisoformat(plan["due_on"]) - made_at.date()).days,
        "ground": plan["ground"],
        "origin": plan["origin"],
        "tavus_conn_id": plan["tavus_conn_id"],
        "kinds": plan["kinds"],
        "counts": {kind: _count(kind, items) for kind in plan["kinds"]},
        "method": METHOD,
        "limits": LIMITS,
        "held": [{"key": key, "reason": held[key]} for key in sorted(held)],
        "open": points,
        "undetermined": sorted(undetermined | (look.undetermined if look else frozenset())),
        "undetermined_count": plan["undetermined_count"],
        "references": list(look.references) if look else plan["references"],
        "left": [row["key"] for row in plan["left"]],
        "beyond_reach": plan["beyond_reach"],
        "approvals": list(evidence.approvals),
        "plan_digest": plan["digest"],
        "earlier_plans": list(evidence.earlier_plans),
        "dag_id": run["dag_id"],
        "run_id": run["run_id"],
        "ledger": dict(evidence.ledger),
        "versions": dict(versions),
        "items": items,
    }
    return cast("Certificate", seal(certificate))


def certificate_xcom(certificate: Certificate, *, certificate_at: str) -> Certificate | CertificateReference:
    """
    Return a certificate as an XCom: the certificate itself, or if it is too large, a reference to it.

    :param certificate_at: where it is stored, for people to read
    """
    if fits_xcom(certificate):
        return certificate
    return {
        "version": 1,
        "kind": "erasure_certificate",
        "certificate_at": certificate_at,
        "digest": certificate["digest"],
        "number": certificate["number"],
        "request": certificate["request"],
        "state": certificate["state"],
        "due_on": certificate["due_on"],
        "days_left": certificate["days_left"],
        "counts": certificate["counts"],
        "open": certificate["open"],
    }


def erased_keys(certificate: Certificate) -> list[str]:
    """Return the keys of the objects that no read found after the deletes."""
    return [
        item["key"]
        for item in certificate["items"]
        if item["asked"] == Asked.NOT_FOUND and item["listed"] is False and item["outcome"] != HELD
    ]


def encode_certificate(certificate: Certificate) -> bytes:
    """Return the certificate as the file that is stored. Another sequence of bytes is not that file."""
    return canonical_json(certificate) + b"\n"


def check_certificate(value: object) -> Certificate:
    """
    Return a certificate whose content matches its digest.

    :raises TavusValidationError: if it is not a certificate, or was changed
    """
    if mismatch := find_mismatch(value, Certificate, name="certificate"):
        raise TavusValidationError(mismatch)
    certificate = cast("Certificate", value)
    if certificate["digest"] != digest_of(certificate):
        raise TavusValidationError("its content does not match its digest: it was changed after it was made")
    return certificate


def _keys(plan: ErasurePlan) -> list[str]:
    rows = [row["key"] for rows in (plan["delete"], plan["held"]) for row in rows]
    return [*rows, *(row["key"] for row in plan["gone"])]


def _make_item(key: str, evidence: Evidence, *, held: Iterable[str]) -> CertificateItem:
    look, outcome = evidence.look, evidence.outcomes.get(key)
    is_held = key in held  # held objects are neither asked for nor looked for
    return {
        "key": key,
        "outcome": HELD if is_held else None if outcome is None else outcome.value,
        "is_accepted": key in evidence.accepted,
        "asked": None if look is None or is_held else look.asked.get(key),
        "listed": None if look is None or is_held else look.is_listed(key),
    }


def _count(kind: str, items: Sequence[CertificateItem]) -> KindCounts:
    of_kind = [item for item in items if parse_key(item["key"])[0] == Kind(kind)]
    erased = {item["key"] for item in of_kind if item["asked"] == Asked.NOT_FOUND and item["listed"] is False}
    failed = [item for item in of_kind if item["outcome"] == Outcome.FAILED and item["key"] not in erased]
    held = [item for item in of_kind if item["outcome"] == HELD]
    known = {item["key"] for item in (*failed, *held)} | erased
    return {
        "found": len(of_kind),
        "accepted": sum(item["is_accepted"] for item in of_kind),
        "not_found": sum(item["asked"] == Asked.NOT_FOUND for item in of_kind),
        "not_listed": sum(item["listed"] is False for item in of_kind),
        "held": len(held),
        "failed": len(failed),
        "unknown": sum(
            item["key"] not in known or (item["key"] in erased and item["outcome"] == Outcome.UNKNOWN)
            for item in of_kind
        ),
    }
