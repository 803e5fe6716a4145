"""
What the ledger has about requests for erasures.

Each request has a job of its own in the ledger of its account, of the kind ``erasure``. Each plan of the
request adds a ``requested`` record with the keys that it found, and each certificate a ``certified`` record.
What was deleted is in the jobs of the plans, as for a retention plan.

The folder ``_erasures`` in the root has an empty file for each of these records, named by time, event and
request, so that one listing shows which requests are open. What counts is in the records.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from airflow.configuration import conf
from airflow.sdk import ObjectStoragePath

from tavus_provider.exceptions import LedgerUnavailableError, TavusValidationError
from tavus_provider.outcomes import Outcome
from tavus_provider.planning.attempts import last_outcomes
from tavus_provider.planning.erasure import ErasurePlan
from tavus_provider.planning.erasure_report import Look, State
from tavus_provider.planning.erasure_request import check_reference
from tavus_provider.sanitize import quote
from tavus_provider.storage.ledger import ERASURES_FOLDER, Ledger, job_name
from tavus_provider.storage.object_storage import StorageError, list_names, write_once

if TYPE_CHECKING:
    from tavus_provider.planning.certificate import Certificate
    from tavus_provider.storage.attempts import Attempt

_REQUESTED: Final = "requested"
_CERTIFIED: Final = "certified"
_COMPLETE: Final = "complete"
_MARK: Final = re.compile("[0-9]{8}T[0-9]{12}Z_(?P<event>requested|complete)_(?P<request>.+)")


class RequestHistory:
    """
    What the ledger has about one request.

    :param ledger: the ledger of the account
    :param request: the reference of the request
    :param only: names of the attempts to use; default: all
    """

    def __init__(self, ledger: Ledger, request: str, *, only: Mapping[str, str | None] | None = None) -> None:
        self.request = request
        self._ledger = ledger
        self._only = only
        self._attempts = self._read(job_name("erasure", request))

    @property
    def flaws(self) -> list[str]:
        """What shows that records of the request were changed or removed."""
        return [f"{attempt.name} {flaw}" for attempt in self._attempts for flaw in attempt.flaws]

    @property
    def heads(self) -> dict[str, str | None]:
        """The name of each attempt of the request, and the digest of its last record."""
        return {attempt.name: attempt.last_digest for attempt in self._attempts}

    @property
    def requested(self) -> list[Mapping[str, Any]]:
        """The record of each plan of the request, from the oldest to the newest."""
        return self._records(_REQUESTED)

    @property
    def certified(self) -> list[Mapping[str, Any]]:
        """The record of each certificate of the request, from the oldest to the newest."""
        return self._records(_CERTIFIED)

    def find_certificate(self, digest: str) -> Attempt | None:
        """Return the record of a certificate, with that which closes it."""
        return next(
            (one for one in self._attempts if one.begin_record.get("certificate_digest") == digest), None
        )

    @property
    def plan_digests(self) -> list[str]:
        """The digests of all plans of the request, from the oldest to the newest."""
        return list(dict.fromkeys(record["plan_digest"] for record in self.requested))

    @property
    def due_dates(self) -> list[date]:
        """All due dates that the plans of the request had."""
        return [date.fromisoformat(record["due_on"]) for record in self.requested]

    @property
    def recorded(self) -> frozenset[str]:
        """The keys of all plans of the request, whether they were approved or not."""
        return frozenset(key for record in self.requested for key in record["keys"])

    @property
    def suspects(self) -> frozenset[str]:
        """The rows that appeared while a run of the request deleted; nobody knows whose they are."""
        return frozenset(row for record in self.certified for row in record.get("undetermined", ()))

    @cached_property
    def deleting(self) -> list[Attempt]:
        """The attempts at plans of the request that were about to delete, in the order of their start."""
        attempts = [
            attempt
            for digest in self.plan_digests
            for attempt in self._read(job_name("plan", digest))
            if "intent" in attempt.begin_record
        ]
        return sorted(attempts, key=lambda attempt: attempt.name.rpartition("/")[2])

    @property
    def approved(self) -> frozenset[str]:
        """The keys that attempts at approved plans of the request were about."""
        return frozenset(key for attempt in self.deleting for key in attempt.begin_record.get("keys", ()))

    @property
    def outcomes(self) -> dict[str, Outcome | None]:
        """The last outcome of each key in any attempt; ``None`` if only the intent is recorded."""
        return last_outcomes(self.deleting)

    @property
    def accepted(self) -> frozenset[str]:
        """The keys whose delete Tavus confirmed in any attempt of the request."""
        return frozenset(
            key
            for attempt in self.deleting
            for key, outcome in attempt.outcomes.items()
            if outcome == Outcome.DELETED
        )

    def _read(self, job: str) -> list[Attempt]:
        attempts = self._ledger.attempts(job)
        return [one for one in attempts if self._only is None or one.name in self._only]

    def _records(self, kind: str) -> list[Mapping[str, Any]]:
        return [
            attempt.begin_record
            for attempt in self._attempts
            if not attempt.flaws
            and attempt.begin_record.get("kind") == kind
            and attempt.begin_record.get("request") == self.request
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStatus:
    """
    Where a request stands.

    :param received_on: when it was received; ``None`` if its records were changed and none is left
    :param due_on: until when it must be answered; ``None`` likewise
    :param state: that of its last certificate; ``None`` if nothing was certified since its last plan
    :param is_closed: whether ``[tavus] closed_erasures`` names it
    :param keys: all keys of the request
    :param held: the keys that its last certificate refuses, and what the hold of each names
    :param erased: the keys that no read found after the deletes, according to all certificates
    :param flaws: what shows that records of the request were changed or removed
    """

    request: str
    received_on: date | None
    due_on: date | None
    state: State | None
    is_closed: bool
    keys: frozenset[str]
    held: Mapping[str, str]
    erased: frozenset[str]
    flaws: Sequence[str] = ()

    @property
    def is_open(self) -> bool:
        """Whether something of the request may still have to be deleted."""
        return not self.is_closed and self.state is not State.COMPLETE


def record_request(ledger: Ledger, plan: ErasurePlan, *, task: Mapping[str, Any]) -> None:
    """
    Record that a plan was made for a request, with the keys that it found.

    :param task: what the task is (``dag_id``, ``run_id``, ``task_id``, ...)
    :raises LedgerUnavailableError: if it cannot be recorded
    """
    job = job_name("erasure", plan["request"])
    _mark(ledger, plan["request"], _REQUESTED)  # first: without it, nobody would look for the record
    writer = ledger.begin_attempt(
        job,
        kind=_REQUESTED,
        **task,
        prior_attempts=RequestHistory(ledger, plan["request"]).heads,
        request=plan["request"],
        received_on=plan["received_on"],
        due_on=plan["due_on"],
        plan_digest=plan["digest"],
        keys=plan_keys(plan),
    )
    writer.close()


def record_certificate(
    ledger: Ledger,
    certificate: Certificate,
    *,
    page_digest: str,
    held: Mapping[str, str],
    suspects: Iterable[str],
    erased: Sequence[str],
    task: Mapping[str, Any],
) -> None:
    """
    Record that a certificate was made.

    :param page_digest: SHA-256 of its HTML page
    :param held: the keys that it refuses, and what the hold of each names
    :param suspects: rows that appeared during the run and of which nobody knows whose they are
    :param erased: the keys that no read found after the deletes
    :param task: what the task is
    :raises LedgerUnavailableError: if it cannot be recorded
    """
    job = job_name("erasure", certificate["request"])
    writer = ledger.begin_attempt(
        job,
        kind=_CERTIFIED,
        **task,
        prior_attempts=RequestHistory(ledger, certificate["request"]).heads,
        request=certificate["request"],
        plan_digest=certificate["plan_digest"],
        state=certificate["state"],
        certificate=certificate["number"],
        certificate_digest=certificate["digest"],
        page_digest=page_digest,
        held=dict(held),
        undetermined=sorted(suspects),
        erased=list(erased),
    )
    writer.close()
    if certificate["state"] == State.COMPLETE:
        _mark(ledger, certificate["request"], _COMPLETE)


def plan_keys(plan: ErasurePlan) -> list[str]:
    """Return the keys of all objects that a plan is about, also of those that it does not delete."""
    keys = [row["key"] for rows in (plan["delete"], plan["held"], plan["left"]) for row in rows]
    return sorted({*keys, *(row["key"] for row in plan["gone"])})


def find_held(attempts: Sequence[Attempt], *, plan_digest: str) -> dict[str, str]:
    """
    Return the keys that the last attempt at a plan did not delete, and what the hold of each names.

    :param attempts: attempts of the request, in the order of their start
    """
    held: dict[str, str] = {}
    for attempt in [one for one in attempts if one.begin_record.get("plan_digest") == plan_digest][-1:]:
        for record in attempt.records:
            held |= record.get("held", {})
    return held


def find_look(attempts: Sequence[Attempt], *, plan_digest: str) -> Look | None:
    """
    Return what the last attempt at a plan read after its deletes, or ``None`` if it read nothing.

    :param attempts: attempts of the request, in the order of their start
    """
    of_plan = [one for one in attempts if one.begin_record.get("plan_digest") == plan_digest]
    if not of_plan:
        return None
    records = [record for record in of_plan[-1].records if "asked" in record]
    if not records:
        return None
    record = records[-1]
    return Look(
        asked=record["asked"],
        listings=record["lists"],
        still_listed=frozenset(record["still_listed"]),
        found=frozenset(record["found"]),
        undetermined=frozenset(record["undetermined"]),
        references=tuple(
            {"persona_id": one["persona_id"], "replica_id": one["replica_id"]} for one in record["references"]
        ),
    )


def read_statuses(ledger: Ledger) -> list[RequestStatus]:
    """
    Return where each request of an account stands, by due date.

    :raises LedgerUnavailableError: if the ledger cannot be read
    :raises TavusValidationError: if ``[tavus] closed_erasures`` is invalid
    """
    closed = closed_erasures(ledger.tavus_conn_id)
    statuses = [_read_status(ledger, name, is_closed=name in closed) for name in sorted(_read_marks(ledger))]
    found = [status for status in statuses if status is not None]
    return sorted(found, key=lambda status: (status.due_on or date.min, status.request))


def open_erasures(ledger: Ledger) -> dict[str, str]:
    """
    Return the keys of all objects of open requests, and the request of each.

    Requests that are complete or closed are not read, so that the cost does not grow with them.

    :raises LedgerUnavailableError: if the ledger cannot be read, or all records of an open request were
        changed, so that it is unknown what belongs to it
    :raises TavusValidationError: if ``[tavus] closed_erasures`` is invalid
    """
    closed, keys = closed_erasures(ledger.tavus_conn_id), dict[str, str]()
    for request, event in sorted(_read_marks(ledger).items()):
        if event == _COMPLETE or request in closed:
            continue
        status = _read_status(ledger, request, is_closed=False)
        if status is not None and status.due_on is None:
            raise LedgerUnavailableError(
                f"the ledger has no readable record of the erasure {request} ({status.flaws[0]}), so it is "
                "unknown which replicas belong to it. Nothing was deleted: trigger a new run of the request, "
                f"or add {ledger.tavus_conn_id}/{request} to closed_erasures in section tavus of the "
                "configuration"
            )
        if status is not None and status.is_open:
            keys |= dict.fromkeys(sorted(status.keys), request)
    return keys


def _mark(ledger: Ledger, request: str, event: str) -> None:
    """Add an empty file for an event of a request."""
    name = f"{ledger.now().astimezone(UTC):%Y%m%dT%H%M%S%fZ}_{event}_{request}"
    try:
        write_once(_marks_folder(ledger) / name, b"")
    except StorageError as error:
        fault = _unavailable("written", error)
    else:
        return
    raise fault


def _read_marks(ledger: Ledger) -> dict[str, str]:
    """Return the last event of each request."""
    try:
        names = list_names(_marks_folder(ledger))
    except StorageError as error:
        fault = _unavailable("read", error)
    else:
        matches = (_MARK.fullmatch(name) for name in sorted(names))
        return {match["request"]: match["event"] for match in matches if match is not None}
    raise fault


def _marks_folder(ledger: Ledger) -> ObjectStoragePath:
    return ledger.root / ERASURES_FOLDER / ledger.account_folder


def _unavailable(action: str, error: StorageError) -> LedgerUnavailableError:
    return LedgerUnavailableError(
        f"the ledger cannot be {action} at {error.location!a} ({error.reason}), and nothing is deleted "
        "without knowing which requests for erasures are open: set ledger in section tavus of the "
        "configuration to a location that works"
    )


def closed_erasures(tavus_conn_id: str) -> frozenset[str]:
    """
    Return the references of requests of an account that ended without a complete certificate.

    They are in ``[tavus] closed_erasures``, as ``connection_id/reference`` for one account, or as a reference
    alone for every account.

    :param tavus_conn_id: id of the Airflow connection of the account
    :raises TavusValidationError: if an entry, also one of another account, is neither
    """
    entries = [entry.strip() for entry in conf.get("tavus", "closed_erasures", fallback="").split(",")]
    closed = set()
    for entry in filter(None, entries):
        conn_id, slash, request = entry.rpartition("/")
        try:
            check_reference(request)
            is_valid = bool(conn_id) or not slash
        except TavusValidationError:
            is_valid = False
        if not is_valid:
            raise TavusValidationError(
                f"[tavus] closed_erasures: {quote(entry)} is neither a reference such as DSR-2026-0142, for "
                f"all accounts, nor one of one account such as {tavus_conn_id}/DSR-2026-0142"
            )
        if not slash or conn_id == tavus_conn_id:
            closed.add(request)
    return frozenset(closed)


def _read_status(ledger: Ledger, request: str, *, is_closed: bool) -> RequestStatus | None:
    history = RequestHistory(ledger, request)
    requested, certified = history.requested, history.certified
    if not requested and not history.flaws:
        return None  # a plan task was stopped before it recorded anything
    if not requested:
        return RequestStatus(
            request=request,
            received_on=None,
            due_on=None,
            state=None,
            is_closed=is_closed,
            keys=frozenset(),
            held={},
            erased=frozenset(),
            flaws=history.flaws,
        )
    last = requested[-1]
    certificate = next((one for one in certified if one["plan_digest"] == last["plan_digest"]), None)
    if certified and certified[-1]["plan_digest"] == last["plan_digest"]:
        certificate = certified[-1]
    return RequestStatus(
        request=request,
        received_on=date.fromisoformat(last["received_on"]),
        due_on=date.fromisoformat(last["due_on"]),
        state=None if certificate is None else State(certificate["state"]),
        is_closed=is_closed,
        keys=frozenset(last["keys"]) | history.approved,
        held={} if certificate is None else certificate["held"],
        erased=frozenset(key for one in certified for key in one["erased"]),
        flaws=history.flaws,
    )
