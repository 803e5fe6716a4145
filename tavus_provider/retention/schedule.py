"""The schedule of a policy with grace periods: which replicas are announced, and for which day."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from tavus_provider.retention.context import History

if TYPE_CHECKING:
    from tavus_provider.retention.engine import Decision


def update_schedule(history: History, decision: Decision, *, unnarrowed: Decision, now: datetime) -> History:
    """
    Return a history with the schedule that follows from a decision.

    A replica that is not to be deleted any more leaves the schedule. Its announced day remains until then: it
    is not deleted earlier, whichever rule matches it next. A replica that only the trigger form excluded
    keeps its place.

    :param history: what the decision was based on
    :param unnarrowed: the decision without what the trigger form narrows
    :param now: start of the grace period of newly scheduled replicas
    """
    excluded = {i: at for i, at in _due(unnarrowed).items() if i in history.scheduled}
    due = excluded | _due(decision)
    return replace(
        history,
        scheduled={replica_id: history.scheduled.get(replica_id, now) for replica_id in due},
        due={replica_id: at for replica_id, at in history.due.items() if at > now} | due,
    )


def _due(decision: Decision) -> dict[str, datetime]:
    return {
        verdict.replica.replica_id: verdict.due_at
        for verdict in decision.verdicts
        if verdict.due_at is not None
    }
