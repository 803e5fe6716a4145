"""What earlier attempts recorded."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tavus_provider.outcomes import Outcome
from tavus_provider.planning.attempts import PriorAttempts, last_outcomes

TASK = {"dag_id": "dag", "run_id": "run", "task_id": "apply", "map_index": -1}
ROWS = frozenset({"r1", "r2", "r3"})


@dataclass(frozen=True)
class Attempt:
    """An attempt as the ledger returns it."""

    name: str = "job/a1"
    intended: frozenset[str] = frozenset()
    outcomes: dict[str, str] = field(default_factory=dict)
    begin_record: dict[str, object] = field(default_factory=dict)
    last_digest: str | None = "d1"


def attempt(*intended, name="job/a1", outcomes=None, **fields):
    begin = {**TASK, "intent": sorted(intended), **fields}
    return Attempt(name, frozenset(intended), outcomes or {}, begin)


def prior(*attempts, batch=None, retried=False, task=TASK):
    return PriorAttempts.from_ledger(attempts, task=task, replica_ids=ROWS, batch=batch, retried=retried)


def test_without_attempts_nothing_is_known():
    assert prior() == PriorAttempts()


def test_the_last_outcome_of_each_id_counts_and_an_intent_alone_is_none():
    found = prior(
        attempt("r1", "r2", outcomes={"r1": "unknown", "r3": "skipped"}),
        attempt("r2", "r3", name="job/a2", outcomes={"r3": "deleted"}),
    )
    assert found.own == {"r1": Outcome.UNKNOWN, "r2": None, "r3": Outcome.DELETED}
    assert found.recorded == {"r1", "r2", "r3"}
    assert found.begun


def test_a_later_intent_replaces_an_earlier_outcome():
    assert last_outcomes([attempt(outcomes={"r1": "failed"}), attempt("r1")]) == {"r1": None}


@pytest.mark.parametrize("key", TASK)
def test_attempts_of_other_tasks_are_recorded_but_not_own(key):
    found = prior(attempt("r1", **{key: "other"}))
    assert found.own == {}
    assert found.begun
    assert found.recorded == {"r1"}


def test_attempts_of_other_batches_are_not_earlier_attempts():
    batch, other = {"number": 1}, {"number": 2}
    found = prior(
        attempt("r9", name="job/a1", batch=other), attempt("r1", name="job/a2", batch=batch), batch=batch
    )
    assert found.own == {"r1": None}
    assert found.recorded == {"r1", "r9"}
    assert found.last_digests == {"job/a2": "d1"}


def test_a_task_has_begun_only_if_it_intended_to_delete_one_of_the_rows():
    assert not prior(attempt("r9")).begun
    assert not prior(attempt(outcomes={"r1": "already_gone"})).begun
    assert prior(attempt("r9", "r2")).begun


def test_records_without_an_intent_are_not_attempts_to_delete():
    approval = Attempt("job/a1", begin_record={**TASK, "approved_by": "alice"})
    assert prior(approval).last_digests == {}


def test_an_outcome_of_another_release_is_unknown():
    assert last_outcomes([attempt("r1", outcomes={"r1": "vanished"})]) == {"r1": Outcome.UNKNOWN}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        pytest.param(PriorAttempts(), False, id="first attempt"),
        pytest.param(PriorAttempts(retried=True), True, id="retry without a record"),
        pytest.param(PriorAttempts(own={"r1": None}), True, id="intent recorded"),
        pytest.param(PriorAttempts(own={"r2": None}), False, id="another replica recorded"),
    ],
)
def test_an_earlier_attempt_may_have_deleted_a_replica(found, expected):
    assert found.may_have_deleted("r1") is expected
