"""
What earlier runs did, from the ledger: the schedule of a policy, and the replicas that were soft-deleted.

Each plan of a policy with grace periods writes the complete schedule as a new attempt of the policy's job.
The last one alone therefore says since when each replica has been scheduled without interruption, and for
which day each one was announced. It keeps that day until it has come.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence, Set
from datetime import datetime
from typing import Any, Final

from tavus_provider.retention.context import History
from tavus_provider.retention.engine import Decision
from tavus_provider.retention.fields import ZERO
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.schedule import update_schedule
from tavus_provider.retention.verdict import ReasonCode
from tavus_provider.sanitize import quote
from tavus_provider.storage.attempts import Attempt
from tavus_provider.storage.checkpoints import Recent
from tavus_provider.storage.erasures import open_erasures
from tavus_provider.storage.ledger import Ledger, job_name

_NOT_DUE: Final = (ReasonCode.OUT_OF_SCOPE, ReasonCode.NOT_EXPIRED)
_TASK_KEYS: Final = ("dag_id", "run_id", "task_id", "map_index")

log = logging.getLogger(__name__)


def read_history(ledger: Ledger, policy: Policy) -> History:
    """
    Return what earlier runs did that matters for a decision under a policy.

    :raises LedgerUnavailableError: if the ledger cannot be read
    """
    # A schedule that is overlooked, such as one that cancels, would end a grace period too early.
    recent = ledger.recent_with(job_name("schedule", policy.name)) if policy.has_grace else ledger.recent()
    scheduled, due = _read_schedule(ledger, policy, recent)
    return History(
        scheduled=scheduled,
        due=due,
        soft_deleted=recent.deletions.soft_only,
        erasures=open_erasures(ledger),
    )


def soft_deleted(ledger: Ledger) -> dict[str, datetime]:
    """
    Return when this package soft-deleted each replica that it has not deleted permanently since.

    :returns: ids, and the start of the attempt that deleted each
    :raises LedgerUnavailableError: if the ledger cannot be read
    """
    return ledger.recent().deletions.soft_only


def deleted_ids(ledger: Ledger) -> frozenset[str]:
    """
    Return the ids that any run of this package deleted, softly or permanently.

    :raises LedgerUnavailableError: if the ledger cannot be read
    """
    return ledger.recent().deletions.ids


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
    Write the schedule that follows from a decision, as :func:`.update_schedule` says.

    :param unnarrowed: the decision without what the trigger form narrows
    :param history: what the decision was based on
    :param now: start of the grace period of newly scheduled replicas
    :param context: what the task is (``dag_id``, ``run_id``, ``task_id``, ...), for the record
    :returns: the ids that were not scheduled before this task, also not by an earlier attempt of it, whose
        asset event may be lost
    :raises LedgerUnavailableError: if it cannot be written
    """
    updated = update_schedule(history, decision, unnarrowed=unnarrowed, now=now)
    job = job_name("schedule", policy.name)
    before = ledger.last_schedules(job)
    _warn_about_other_policy(before[-1:], updated.scheduled, unnarrowed, policy=policy, context=context)
    writer = ledger.begin_attempt(
        job,
        **context,
        prior_attempts={attempt.name: attempt.last_digest for attempt in before[-1:]},
        policy_digest=policy.digest,
        scheduled=_format_times(updated.scheduled),
        due=_format_times(updated.due),
        cancelled=sorted(history.scheduled.keys() - updated.scheduled.keys()),
    )
    writer.close()
    return frozenset(updated.scheduled.keys() - _scheduled_before(before, history, context))


def _scheduled_before(attempts: Sequence[Attempt], history: History, context: Mapping[str, Any]) -> Set[str]:
    """Return the ids that were scheduled before the first attempt of a task."""
    own = [all(one.begin_record.get(key) == context.get(key) for key in _TASK_KEYS) for one in attempts]
    if context.get("try_number", 1) == 1 or True not in own:
        return history.scheduled.keys()
    others = [one for one in attempts[: own.index(True)] if one.records]
    if not others or others[-1].flaws:
        return frozenset()
    return frozenset(others[-1].begin_record.get("scheduled", {}))


def _warn_about_other_policy(
    last: Sequence[Attempt],
    scheduled: Set[str] | Mapping[str, datetime],
    decision: Decision,
    *,
    policy: Policy,
    context: Mapping[str, Any],
) -> None:
    """Warn if another DAG announced replicas that are not due here: it may have another policy."""
    record = last[0].begin_record if last else {}
    other = record.get("dag_id")
    if other is None or other == context.get("dag_id"):
        return
    announced = set(record.get("scheduled", {})) - set(scheduled)
    lost = sorted(
        verdict.replica.replica_id
        for verdict in decision.verdicts
        if verdict.replica.replica_id in announced and verdict.reason_code in _NOT_DUE
    )
    if lost:
        log.warning(
            "%d replicas that DAG %s announced under the name %s are not due here and leave its schedule, "
            "such as %s. If that DAG has another policy, give one of the two another name: else each cancels "
            "what the other announces, and grace never ends",
            len(lost),
            quote(other),
            quote(policy.name),
            lost[0],
        )


def _read_schedule(
    ledger: Ledger, policy: Policy, recent: Recent
) -> tuple[dict[str, datetime], dict[str, datetime]]:
    """Return since when each replica has been scheduled, and the day for which each one was announced."""
    attempts = ledger.last_schedules(job_name("schedule", policy.name), recent=recent)
    # A plan that was killed before its first record has an empty folder, which changes nothing.
    last = next((attempt for attempt in reversed(attempts) if attempt.records or attempt.flaws), None)
    # A damaged schedule is not trusted: every grace period starts again. What was announced still holds.
    is_trusted = last is not None and not last.flaws
    readable = next((attempt.begin_record for attempt in reversed(attempts) if attempt.records), {})
    scheduled = _parse_times(readable.get("scheduled", {}))
    if "due" in readable:
        due = _parse_times(readable["due"])
    else:  # written before announced days were recorded: the latest day that may have been announced
        longest = max((grace.delta for grace in policy.graces), default=ZERO)
        due = {replica_id: at + longest for replica_id, at in scheduled.items()}
    return scheduled if is_trusted else {}, due


def _format_times(times: Mapping[str, datetime]) -> dict[str, str]:
    return {replica_id: at.isoformat() for replica_id, at in times.items()}


def _parse_times(times: Mapping[str, str]) -> dict[str, datetime]:
    return {replica_id: datetime.fromisoformat(at) for replica_id, at in times.items()}
