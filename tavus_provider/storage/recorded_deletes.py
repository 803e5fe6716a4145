"""What the ledger says about deletes: who deleted what, when, under which rule, approved by whom."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TypedDict

from tavus_provider.outcomes import Outcome
from tavus_provider.storage.attempts import Attempt

_APPROVE = "approve"


class RecordedDelete(TypedDict):
    """
    What one attempt recorded about one replica. ``None`` is a fact that the records do not have.

    A repeated outcome of an earlier attempt of the same job is left out.
    """

    at: str
    """When the outcome was recorded; when the attempt started, if it has only the intent."""
    replica_id: str
    outcome: str
    """A value of :class:`.Outcome`; ``unknown`` if only the intent was recorded."""
    hard: bool | None
    rule: str | None
    policy: str | None
    policy_digest: str | None
    plan_digest: str | None
    request: str | None
    """The reference of a request for an erasure."""
    approved_by: str | None
    """Id of the Airflow user who approved the plan in this run."""
    triggered_by: str | None
    """Id of the Airflow user who triggered the run."""
    dag_id: str | None
    run_id: str | None
    task_id: str | None
    map_index: int | None
    tavus_conn_id: str | None
    origin: str | None
    attempt: str
    """The name of the attempt, which reports have as ``ledger``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeleteFilter:
    """
    Which recorded deletes are wanted. Everything that is ``None`` is not restricted.

    :param person: id of the Airflow user who approved or triggered it
    :param since, until: first and last day, in UTC
    """

    replica_id: str | None = None
    dag_id: str | None = None
    run_id: str | None = None
    person: str | None = None
    since: date | None = None
    until: date | None = None

    def accepts(self, row: RecordedDelete) -> bool:
        """Return whether a recorded delete is wanted."""
        day = datetime.fromisoformat(row["at"]).astimezone(UTC).date()
        return (
            self.replica_id in (None, row["replica_id"], row["replica_id"].removeprefix("replica/"))
            and self.dag_id in (None, row["dag_id"])
            and self.run_id in (None, row["run_id"])
            and self.person in (None, row["approved_by"], row["triggered_by"])
            and (self.since is None or self.since <= day)
            and (self.until is None or day <= self.until)
        )


def list_deletes(attempts: Sequence[Attempt]) -> list[RecordedDelete]:
    """
    Return what attempts recorded about deletes, in the order of their times.

    :param attempts: all attempts of a ledger, in the order in which they started
    """
    approvals = [
        attempt.begin_record
        for attempt in attempts
        if attempt.begin_record.get("kind") == "answered" and attempt.begin_record["answer"] == _APPROVE
    ]
    rows: list[RecordedDelete] = []
    recorded: set[tuple[str, str, str]] = set()
    for attempt in attempts:
        begin = attempt.begin_record
        approved_by = [one["answered_by"] for one in approvals if _is_approval_of(one, begin)]
        rules = {i: rule for rule, ids in begin.get("rules", {}).items() for i in ids}
        for replica_id, outcome, at in _outcomes(attempt):
            key = (attempt.job, replica_id, outcome)
            if key in recorded and replica_id not in attempt.intended:
                continue
            recorded.add(key)
            rows.append(
                {
                    "at": at,
                    "replica_id": replica_id,
                    "outcome": outcome,
                    "hard": begin.get("hard"),
                    "rule": rules.get(replica_id),
                    "policy": begin.get("policy"),
                    "policy_digest": begin.get("policy_digest"),
                    "plan_digest": begin.get("plan_digest"),
                    "request": begin.get("request"),
                    "approved_by": ", ".join(dict.fromkeys(approved_by)) or None,
                    "triggered_by": begin.get("triggered_by"),
                    "dag_id": begin.get("dag_id"),
                    "run_id": begin.get("run_id"),
                    "task_id": begin.get("task_id"),
                    "map_index": begin.get("map_index"),
                    "tavus_conn_id": begin.get("tavus_conn_id"),
                    "origin": begin.get("origin"),
                    "attempt": attempt.name,
                }
            )
    return sorted(rows, key=lambda row: datetime.fromisoformat(row["at"]))


def _outcomes(attempt: Attempt) -> Iterator[tuple[str, str, str]]:
    """Yield each id with its last outcome and the time at which that was first recorded."""
    at: dict[tuple[str, str], str] = {}
    for record in attempt.records:
        for replica_id, outcome in record.get("outcomes", {}).items():
            at.setdefault((replica_id, outcome), record["at"])
    outcomes = attempt.outcomes
    for replica_id in sorted(attempt.intended | outcomes.keys()):
        outcome = outcomes.get(replica_id, Outcome.UNKNOWN.value)
        yield replica_id, outcome, at.get((replica_id, outcome), str(attempt.begin_record["at"]))


def _is_approval_of(answer: object, begin: object) -> bool:
    if not isinstance(answer, dict) or not isinstance(begin, dict) or begin.get("hard") is not True:
        return False
    account = ("origin", "tavus_conn_id", "dag_id", "run_id")
    plans = (None, answer["plan_digest"])
    return all(answer.get(key) == begin.get(key) for key in account) and begin.get("plan_digest") in plans
