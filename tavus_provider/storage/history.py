"""
What a decision must know that Tavus does not tell: who is held, scheduled, and soft-deleted by us.

The schedule of a policy is kept in the ledger under the policy's name. Each plan writes the whole of it
anew, so that the last one alone says since when each replica has been scheduled without a break.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from tavus_provider.retention.context import History
from tavus_provider.retention.engine import Decision
from tavus_provider.retention.policy import Policy
from tavus_provider.storage.ledger import Ledger, job_name

_GONE = {"deleted", "confirmed"}


def read_history(ledger: Ledger, policy: Policy) -> History:
    """
    Return what earlier runs did.

    :raises LedgerUnavailableError: if the ledger cannot be read
    """
    return History(
        scheduled=_schedule(ledger, policy) if policy.has_grace else {}, soft_deleted=soft_deleted(ledger)
    )


def soft_deleted(ledger: Ledger) -> dict[str, datetime]:
    """
    Return when this package deleted each replica softly that it has not deleted for good since.

    What a try had begun to delete when it was killed, and a later one found gone, counts as well.
    """
    softly: dict[str, datetime] = {}
    for_good: set[str] = set()
    begun: defaultdict[str, set[str]] = defaultdict(set)
    tries = [*ledger.attempts_of_kind("plan"), *ledger.attempts_of_kind("delete")]
    for one in sorted(tries, key=lambda one: str(one.begin_record.get("at"))):
        work, outcomes = one.name.rpartition("/")[0], one.outcomes
        gone = {replica_id for replica_id, outcome in outcomes.items() if outcome in _GONE}
        gone |= {i for i in begun[work] if outcomes.get(i) == "already_gone"}
        begun[work] |= {i for i in one.intended if outcomes.get(i, "unknown") == "unknown"}
        if gone and one.begin_record["hard"]:
            for_good |= gone
        elif gone:
            # The first counts: a later try of the same task repeats what was done by an earlier one.
            softly = dict.fromkeys(gone, datetime.fromisoformat(one.begin_record["at"])) | softly
    return {replica_id: at for replica_id, at in softly.items() if replica_id not in for_good}


def record_schedule(
    ledger: Ledger,
    policy: Policy,
    decision: Decision,
    *,
    unnarrowed: Decision,
    history: History,
    now: datetime,
    context: Mapping[str, Any],
) -> frozenset[str]:
    """
    Write the schedule as it is after a decision.

    What is no longer to go loses its place; what only the trigger form left out this time keeps it.

    :param unnarrowed: the decision had the form said nothing
    :param context: who decides (dag, run, task, try), for the record
    :returns: the ids that are scheduled for the first time, or anew
    :raises LedgerUnavailableError: if it could not be written
    """
    due = {verdict.replica.replica_id for verdict in decision.verdicts if verdict.due_at is not None}
    left_out = {verdict.replica.replica_id for verdict in unnarrowed.verdicts if verdict.due_at is not None}
    since = {
        replica_id: history.scheduled.get(replica_id, now)
        for replica_id in due | (left_out & history.scheduled.keys())
    }
    work = job_name("schedule", policy.name)
    entry = ledger.begin_attempt(
        work,
        **context,
        prior_attempts={one.name: one.last_digest for one in ledger.attempts(work)[-1:]},
        policy_digest=policy.digest,
        scheduled={replica_id: at.isoformat() for replica_id, at in since.items()},
        cancelled=sorted(history.scheduled.keys() - since.keys()),
    )
    entry.close()
    return frozenset(since.keys() - history.scheduled.keys())


def _schedule(ledger: Ledger, policy: Policy) -> dict[str, datetime]:
    tries = [one for one in ledger.attempts(job_name("schedule", policy.name)) if one.records or one.flaws]
    if not tries or tries[-1].flaws:
        return {}  # of a damaged schedule nothing is believed: every grace begins again
    scheduled = tries[-1].begin_record.get("scheduled", {})
    return {replica_id: datetime.fromisoformat(at) for replica_id, at in scheduled.items()}
