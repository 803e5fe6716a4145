"""Find out which replicas are still listed after the deletes, and what that says about their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

from tavus_provider.exceptions import ReplicaNotFoundError, TavusError
from tavus_provider.execution.dispatch import call_each
from tavus_provider.execution.revalidation import difference
from tavus_provider.models import Replica, UnreadableRow
from tavus_provider.outcomes import ABSENT, GONE, MAY_BE_DELETED, Outcome
from tavus_provider.planning.attempts import PriorAttempts
from tavus_provider.planning.plan import PlanRow
from tavus_provider.planning.report import Result

_STILL_RETURNED = "Tavus still returns it when it is read"

LIST_WAITS: Final = (0.5, 1.0, 2.0, 4.0)
"""Seconds to wait before the replicas are listed again, because a list may lag behind deletes."""


class ListingClient(Protocol):
    """The client methods that show whether replicas exist."""

    def list_replicas(self, *, while_deleting: bool = False) -> Sequence[Replica | UnreadableRow]: ...
    def get_replica(self, replica_id: str) -> Replica: ...
    def stop(self) -> None: ...
    def wait(self, seconds: float) -> bool: ...


class LookUp(NamedTuple):
    """
    What reading one replica showed.

    :param exists: ``None`` if it could not be read
    :param detail: why it could not be read
    :param replica: the replica, if it exists
    """

    exists: bool | None
    detail: str = ""
    replica: Replica | None = None


@dataclass(frozen=True, slots=True)
class Verification:
    """
    What a list of the replicas after the deletes showed.

    :param results: the new result of each replica that was looked for
    :param record: the fields of the ledger record
    :param may_change: the ids about which a later attempt may find out more
    """

    results: Mapping[str, Result]
    record: Mapping[str, Any]
    may_change: frozenset[str] = frozenset()


def look_up(client: ListingClient, replica_ids: Collection[str], *, concurrency: int) -> Mapping[str, LookUp]:
    """
    Read replicas one by one, because the absence from a list alone proves nothing.

    :param concurrency: the maximum number of simultaneous requests
    """
    return call_each(
        replica_ids, partial(_look_up_one, client), concurrency=concurrency, stop_client=client.stop
    )


def _look_up_one(client: ListingClient, replica_id: str) -> LookUp:
    try:
        replica = client.get_replica(replica_id)
    except ReplicaNotFoundError:
        return LookUp(exists=False)
    except TavusError as error:
        return LookUp(exists=None, detail=str(error))
    return LookUp(exists=True, replica=replica)


def judge_unlisted(row: PlanRow, result: Result, found: LookUp, *, hard: bool) -> Result:
    """
    Return the result of a planned replica that is not listed and for which no delete was sent.

    :param result: the result if it does not exist
    :param found: what reading it showed
    """
    if found.exists is None:
        return Result(Outcome.UNKNOWN, f"{result.detail}, but it could not be read: {found.detail}")
    if not found.exists:
        return result
    if found.replica is not None and (changed := difference(row, found.replica)):
        return Result(Outcome.SKIPPED, changed)
    if hard:
        return Result(Outcome.FAILED, f"{result.detail}, but {_STILL_RETURNED}, so no delete was sent")
    return Result(
        Outcome.SKIPPED,
        f"{result.detail}, but {_STILL_RETURNED}, so no delete was sent; it may be soft-deleted already",
    )


class _Listing(NamedTuple):
    """The ids in one list of the replicas, also of rows that cannot be read otherwise."""

    ids: Set[str]
    rows: int
    hides_ids: bool

    @classmethod
    def read(cls, client: ListingClient, *, while_deleting: bool) -> _Listing:
        rows = client.list_replicas(while_deleting=while_deleting)
        unreadable = [row for row in rows if isinstance(row, UnreadableRow)]
        ids = {row.replica_id for row in rows if not isinstance(row, UnreadableRow)}
        ids.update(replica_id for row in unreadable for replica_id in row.own_ids)
        return cls(ids, len(rows), any(row.hides_its_id for row in unreadable))


def verify_absence(
    client: ListingClient,
    results: Mapping[str, Result],
    *,
    hard: bool,
    unlisted: Set[str],
    prior: PriorAttempts,
    while_deleting: bool,
    concurrency: int,
    log: Callable[[str], None],
) -> Verification | None:
    """
    List the replicas, and correct the results of those that were deleted, or may have been.

    While one of them is still listed, the list is read again, up to four times in eight seconds.

    :param results: the result of each replica of this task
    :param hard: whether the deletes were permanent
    :param unlisted: ids that were not listed before the deletes, so that their absence proves nothing
    :param prior: what earlier attempts recorded
    :param while_deleting: whether other tasks delete replicas at the same time
    :param concurrency: the maximum number of simultaneous requests
    :param log: called with one line if the list cannot be read
    :returns: ``None`` if no result depends on the list, which is then not read
    """
    sought = {replica_id: result for replica_id, result in results.items() if _depends_on_list(result)}
    if not sought:
        return None
    try:
        listed = _Listing.read(client, while_deleting=while_deleting)
    except TavusError as error:
        log(f"The replicas could not be listed after the deletes, so their absence is not verified: {error}")
        unverified = {
            replica_id: Result(outcome, f"{detail}; its absence could not be verified")
            for replica_id, (outcome, detail) in sought.items()
            if outcome is not Outcome.ALREADY_GONE
        }
        return Verification(unverified, {"listed": None})
    for seconds in LIST_WAITS:
        if listed.ids.isdisjoint(sought) or client.wait(seconds):
            break
        try:
            listed = _Listing.read(client, while_deleting=while_deleting)
        except TavusError as error:
            log(f"The replicas could not be listed again, so an older list is used: {error}")
            break
    unproven = [
        replica_id
        for replica_id, result in sought.items()
        if result.outcome is Outcome.UNKNOWN
        and not listed.hides_ids
        and replica_id not in listed.ids
        and replica_id not in unlisted
    ]
    found = look_up(client, unproven, concurrency=concurrency)
    verified = judge_absence(
        sought, listed.ids, hard=hard, hides_ids=listed.hides_ids, prior=prior, found=found
    )
    still_listed = sorted(sought.keys() & listed.ids)
    may_change = {i for i in still_listed if verified[i].outcome is Outcome.UNKNOWN}
    may_change |= {i for i, one in found.items() if one.exists is not False}
    return Verification(
        verified, {"listed": listed.rows, "still_listed": still_listed}, frozenset(may_change)
    )


def judge_absence(
    results: Mapping[str, Result],
    listed: Set[str],
    *,
    hard: bool,
    hides_ids: bool,
    prior: PriorAttempts,
    found: Mapping[str, LookUp],
) -> dict[str, Result]:
    """
    Return the results of deleted replicas, corrected by a list that was read after the deletes.

    A replica that is still listed after a hard delete is not deleted, whatever the response was. After a soft
    delete the same holds, unless the account lists soft-deleted replicas.

    :param results: results with the outcome ``deleted``, ``confirmed``, ``unknown`` or ``already_gone``
    :param listed: the ids of all replicas that Tavus lists now, also of rows that cannot be read otherwise
    :param hides_ids: whether the list has a row without a readable id, so that no absence was seen
    :param found: what reading each replica showed whose outcome is ``unknown``, and that is no longer listed
        but was before
    """
    sent = {i for i, result in results.items() if result.outcome is not Outcome.ALREADY_GONE}
    # If everything that was soft-deleted is still listed, this account lists soft-deleted replicas.
    lists_soft_deleted = (
        not hard and any(results[replica_id].outcome in GONE for replica_id in sent) and sent <= listed
    )
    verified = {}
    for replica_id, (outcome, detail) in results.items():
        if replica_id not in listed:
            if outcome is Outcome.ALREADY_GONE:
                continue
            if hides_ids:
                unseen = "the list has a row without a readable id, so its absence could not be verified"
                verified[replica_id] = Result(outcome, f"{detail}; {unseen}")
                continue
            result = Result(outcome, f"{detail}; it is no longer listed")
            if outcome is Outcome.UNKNOWN and replica_id in found:
                result = _judge_unknown(result, found[replica_id], hard=hard)
            verified[replica_id] = result
        elif outcome is not Outcome.UNKNOWN and (
            lists_soft_deleted or _may_be_soft_deleted(replica_id, hard=hard, prior=prior)
        ):
            unseen = "this account lists soft-deleted replicas, so its absence could not be seen"
            verified[replica_id] = Result(outcome, f"{detail}; {unseen}")
        else:
            verified[replica_id] = Result(Outcome.UNKNOWN, f"{detail}; it is still listed")
    return verified


def _judge_unknown(result: Result, found: LookUp, *, hard: bool) -> Result:
    """Return the result of a replica that is no longer listed, and whose delete had an unknown outcome."""
    if found.exists is None:
        return Result(Outcome.UNKNOWN, f"{result.detail}, but it could not be read: {found.detail}")
    if not found.exists:
        return Result(Outcome.CONFIRMED, result.detail)
    # After a soft delete, the account may still return the replica.
    return Result(Outcome.FAILED if hard else Outcome.UNKNOWN, f"{result.detail}, but {_STILL_RETURNED}")


def _depends_on_list(result: Result) -> bool:
    return result.outcome in ABSENT | MAY_BE_DELETED


def _may_be_soft_deleted(replica_id: str, *, hard: bool, prior: PriorAttempts) -> bool:
    """Whether an attempt that was killed began to soft-delete it, or a later attempt found that it had."""
    return not hard and replica_id in prior.own and prior.own[replica_id] in (None, Outcome.ALREADY_GONE)
