"""Find out which replicas are still listed after the deletes, and what that says about their outcomes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any, Protocol

from tavus_provider.exceptions import TavusError
from tavus_provider.models import Replica, UnreadableRow
from tavus_provider.outcomes import GONE, Outcome
from tavus_provider.planning.attempts import PriorAttempts
from tavus_provider.planning.report import Result


class ListingClient(Protocol):
    """The client method that lists the replicas."""

    def list_replicas(self, *, while_deleting: bool = False) -> Sequence[Replica | UnreadableRow]: ...


@dataclass(frozen=True, slots=True)
class Verification:
    """
    What a list of the replicas after the deletes showed.

    :param results: the new result of each replica that was looked for
    :param record: the fields of the ledger record
    """

    results: Mapping[str, Result]
    record: Mapping[str, Any]


def verify_absence(
    client: ListingClient,
    results: Mapping[str, Result],
    *,
    hard: bool,
    unlisted: Set[str],
    prior: PriorAttempts,
    while_deleting: bool,
    log: Callable[[str], None],
) -> Verification | None:
    """
    List the replicas, and correct the results of those that were deleted, or may have been.

    :param results: the result of each replica of this task
    :param hard: whether the deletes were permanent
    :param unlisted: ids that were not listed before the deletes, so that their absence proves nothing
    :param prior: what earlier attempts recorded
    :param while_deleting: whether other tasks delete replicas at the same time
    :param log: called with one line if the list cannot be read
    :returns: ``None`` if no result depends on the list, which is then not read
    """
    sought = {replica_id: result for replica_id, result in results.items() if _depends_on_list(result)}
    if not sought:
        return None
    try:
        rows = client.list_replicas(while_deleting=while_deleting)
    except TavusError as error:
        log(f"The replicas could not be listed after the deletes, so their absence is not verified: {error}")
        unverified = {
            replica_id: Result(outcome, f"{detail}; its absence could not be verified")
            for replica_id, (outcome, detail) in sought.items()
            if outcome is not Outcome.ALREADY_GONE
        }
        return Verification(unverified, {"listed": None})
    unreadable = [row for row in rows if isinstance(row, UnreadableRow)]
    listed = {row.replica_id for row in rows if not isinstance(row, UnreadableRow)}
    listed.update(replica_id for row in unreadable for replica_id in row.own_ids)
    hides_ids = any(row.hides_its_id for row in unreadable)
    verified = judge_absence(sought, listed, hard=hard, unlisted=unlisted, hides_ids=hides_ids, prior=prior)
    still_listed = sorted(sought.keys() & listed)
    return Verification(verified, {"listed": len(rows), "still_listed": still_listed})


def judge_absence(
    results: Mapping[str, Result],
    listed: Set[str],
    *,
    hard: bool,
    unlisted: Set[str],
    hides_ids: bool,
    prior: PriorAttempts,
) -> dict[str, Result]:
    """
    Return the results of deleted replicas, corrected by a list that was read after the deletes.

    A replica that is still listed after a hard delete is not deleted, whatever the response was. After a soft
    delete the same holds, unless the account lists soft-deleted replicas.

    :param results: results with the outcome ``deleted``, ``confirmed``, ``unknown`` or ``already_gone``
    :param listed: the ids of all replicas that Tavus lists now, also of rows that cannot be read otherwise
    :param unlisted: ids that were not listed before the deletes, so that their absence proves nothing
    :param hides_ids: whether the list has a row without a readable id, so that no absence was seen
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
            confirmed = outcome is Outcome.UNKNOWN and replica_id not in unlisted
            verified[replica_id] = Result(
                Outcome.CONFIRMED if confirmed else outcome, f"{detail}; it is no longer listed"
            )
        elif outcome is not Outcome.UNKNOWN and (
            lists_soft_deleted or _may_be_soft_deleted(replica_id, hard=hard, prior=prior)
        ):
            unseen = "this account lists soft-deleted replicas, so its absence could not be seen"
            verified[replica_id] = Result(outcome, f"{detail}; {unseen}")
        else:
            verified[replica_id] = Result(Outcome.UNKNOWN, f"{detail}; it is still listed")
    return verified


def _depends_on_list(result: Result) -> bool:
    return result.outcome in GONE or result.outcome in (Outcome.UNKNOWN, Outcome.ALREADY_GONE)


def _may_be_soft_deleted(replica_id: str, *, hard: bool, prior: PriorAttempts) -> bool:
    """Whether an attempt that was killed began to soft-delete it, or a later attempt found that it had."""
    return not hard and replica_id in prior.own and prior.own[replica_id] in (None, Outcome.ALREADY_GONE)
