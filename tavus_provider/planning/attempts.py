"""What earlier attempts recorded in the ledger about the replicas of a plan."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from tavus_provider.outcomes import MAY_BE_DELETED, Outcome

_TASK_KEYS: Final = ("dag_id", "run_id", "task_id", "map_index")


class RecordedAttempt(Protocol):
    """One attempt of one task, as the ledger recorded it."""

    @property
    def name(self) -> str: ...
    @property
    def begin_record(self) -> Mapping[str, Any]: ...
    @property
    def last_digest(self) -> str | None: ...
    @property
    def intended(self) -> frozenset[str]: ...
    @property
    def outcomes(self) -> Mapping[str, str]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class PriorAttempts:
    """
    What earlier attempts did, for the rows that one task carries out.

    :param own: the last recorded outcome of each id in earlier attempts of this task; ``None`` if only the
        intent to delete it was recorded
    :param retried: whether this task had an earlier attempt, of which perhaps no record survived
    :param begun: whether any task has begun to delete replicas of these rows
    :param recorded: the ids that any attempt at any row of the plan recorded
    :param last_digests: for each earlier attempt at these rows, the digest of its last record
    :param deleted_in_run: the ids that the same DAG run has deleted already, or may have, with any plan
    """

    own: Mapping[str, Outcome | None] = field(default_factory=dict)
    retried: bool = False
    begun: bool = False
    recorded: Set[str] = frozenset()
    last_digests: Mapping[str, str | None] = field(default_factory=dict)
    deleted_in_run: Set[str] = frozenset()

    @classmethod
    def from_ledger(
        cls,
        attempts: Sequence[RecordedAttempt],
        *,
        task: Mapping[str, object],
        replica_ids: Set[str],
        batch: Mapping[str, object] | None,
        retried: bool,
        other_plans: Sequence[RecordedAttempt] = (),
        single_deletes: Set[str] = frozenset(),
    ) -> PriorAttempts:
        """
        Read what all attempts of a plan recorded.

        :param task: ``dag_id``, ``run_id``, ``task_id`` and ``map_index`` of the task
        :param replica_ids: the ids of the rows that the task carries out
        :param batch: the JSON of the batch that the task carries out; ``None`` for the whole plan
        :param other_plans: the attempts at other plans of the same DAG run
        :param single_deletes: the ids that tasks of the same DAG run deleted one by one, or may have
        """
        # Tasks of other batches run at the same time as this one, so they are not earlier attempts of it.
        before = [
            attempt
            for attempt in attempts
            if "intent" in attempt.begin_record and attempt.begin_record.get("batch") == batch
        ]
        return cls(
            own=last_outcomes(
                attempt
                for attempt in before
                if all(attempt.begin_record.get(key) == task[key] for key in _TASK_KEYS)
            ),
            retried=retried,
            begun=any(not replica_ids.isdisjoint(attempt.intended) for attempt in attempts),
            recorded=frozenset(last_outcomes(attempts)),
            last_digests={attempt.name: attempt.last_digest for attempt in before},
            deleted_in_run=find_deleted([*attempts, *other_plans], task) | single_deletes,
        )

    def may_have_deleted(self, replica_id: str) -> bool:
        """Return whether an earlier attempt of this task may have deleted a replica."""
        return self.retried or replica_id in self.own


def last_outcomes(attempts: Iterable[RecordedAttempt]) -> dict[str, Outcome | None]:
    """
    Return the last outcome that attempts recorded for each id.

    :param attempts: in the order in which they began
    :returns: ``None`` for an id of which only the intent to delete it was recorded
    """
    found: dict[str, Outcome | None] = {}
    for attempt in attempts:
        found |= dict.fromkeys(attempt.intended)
        found |= {replica_id: _outcome(text) for replica_id, text in attempt.outcomes.items()}
    return found


def find_deleted(attempts: Iterable[RecordedAttempt], task: Mapping[str, object]) -> frozenset[str]:
    """
    Return the ids that a DAG run has deleted, or may have.

    :param task: ``dag_id`` and ``run_id`` of the run
    """
    deleted: set[str] = set()
    for attempt in attempts:
        if all(attempt.begin_record.get(key) == task[key] for key in ("dag_id", "run_id")):
            found = last_outcomes([attempt])
            deleted |= {i for i, outcome in found.items() if outcome is None or outcome in MAY_BE_DELETED}
    return frozenset(deleted)


def _outcome(text: str) -> Outcome:
    try:
        return Outcome(text)
    except ValueError:  # recorded by another release, so it does not show that nothing was deleted
        return Outcome.UNKNOWN
