"""Which rows of a plan are still valid: tables of pure decisions."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tavus_provider.execution.revalidation import (
    difference,
    find_exceeded_limit,
    find_wrong_account,
    revalidate,
)
from tavus_provider.models import Replica, parse_row
from tavus_provider.outcomes import Outcome
from tavus_provider.planning.attempts import PriorAttempts
from tavus_provider.planning.plan import make_plan
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.verdict import format_time

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)


def policy(*, max_deletions=100, max_deletion_percent=100):
    return Policy.parse(
        {
            "name": "stale",
            "expire": [{"rule": "old", "older_than": "90d"}],
            "limits": {"max_deletions": max_deletions, "max_deletion_percent": max_deletion_percent},
        }
    )


def replica(replica_id, days=200, **fields):
    created_at = NOW - timedelta(days=days)
    fields = {"replica_name": f"name of {replica_id}", "status": "completed", "replica_type": "user"} | fields
    return Replica(replica_id, created_at=created_at, updated_at=created_at, **fields)


def decide(replicas, rules=None):
    return evaluate(rules or policy(), Inventory(replicas), now=NOW)


def plan_for(*replica_ids, hard=False, source="rule"):
    plan = make_plan(
        decide([replica(replica_id) for replica_id in replica_ids]),
        policy(),
        now=NOW,
        hard=hard,
        tavus_conn_id="tavus_default",
        origin="https://tavusapi.com",
    )
    for row in plan["delete"]:
        row["source"] = source
    return plan


def settle(*listed, hard=False, prior=None):
    """Revalidate a plan of the replica r1, and return its result, or ``None`` if it is to be deleted."""
    plan = plan_for("r1", hard=hard)
    done = revalidate(plan, plan["delete"], decide(listed), prior=prior or PriorAttempts())
    assert [row["replica_id"] for row in done.to_delete] == ([] if done.settled else ["r1"])
    return done.settled.get("r1")


def settle_with(row, *, hard=False, prior=None):
    """Revalidate a plan of the replica r1, whose listing has only this unreadable row."""
    plan = plan_for("r1", hard=hard)
    decision = evaluate(policy(), Inventory([], unreadable=[parse_row(Replica, row)]), now=NOW)
    done = revalidate(plan, plan["delete"], decision, prior=prior or PriorAttempts())
    assert not done.to_delete
    return done.settled["r1"]


def own(outcome):
    return PriorAttempts(own={"r1": outcome})


# -- rows


def test_unchanged_replica_is_deleted():
    assert settle(replica("r1")) is None


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize("row", [{"replica_id": "r1", "face_id": "r2"}, {"replica_id": " r1 "}])
def test_replica_whose_row_cannot_be_read_is_skipped(row, hard):
    outcome, detail = settle_with(row, hard=hard)
    assert outcome is Outcome.SKIPPED
    assert detail.startswith("its row in the listing cannot be read: replica_id ")


def test_replica_whose_row_cannot_be_read_stays_deleted_by_an_earlier_attempt():
    """Verification finds that it is still listed."""
    row = {"replica_id": "r1", "face_id": "r2"}
    assert settle_with(row, prior=own(Outcome.DELETED)) == (
        Outcome.DELETED,
        "by an earlier attempt of this task",
    )


def test_missing_replica_is_not_gone_if_a_row_shows_no_id():
    outcome, detail = settle_with(None)
    assert outcome is Outcome.SKIPPED
    assert detail == (
        "is missing from the listing, which has a row without a readable id, so it may still exist"
    )
    assert settle_with({"replica_id": "r.9"}) == (Outcome.ALREADY_GONE, "is no longer listed")


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        pytest.param({"replica_name": "other"}, "replica_name changed since the plan was made", id="name"),
        pytest.param({"replica_name": None}, "replica_name changed since the plan was made", id="no name"),
        pytest.param({"days": 201}, "created_at changed since the plan was made", id="created_at"),
        pytest.param({"replica_type": "system"}, "replica_type is now 'system'", id="type"),
        pytest.param(
            {"status": "started"},
            "no longer expired: is still in training, and no rule names status 'started'",
            id="status",
        ),
    ],
)
def test_changed_replica_is_skipped(change, detail):
    assert settle(replica("r1", **change)) == (Outcome.SKIPPED, detail)


@pytest.mark.parametrize(
    ("planned", "now", "is_same"),
    [
        pytest.param("12:00:00.327123", "12:00:00.327", True, id="milliseconds"),
        pytest.param("12:00:00.327123", "12:00:00", True, id="seconds"),
        pytest.param("12:00:00.7", "12:00:01", True, id="rounded"),
        pytest.param("12:00:00", "12:00:01", False, id="a second later"),
        pytest.param("12:00:01", "12:00:00", False, id="a second earlier"),
    ],
)
def test_created_at_with_fewer_digits_is_no_change(planned, now, is_same):
    """A list and a look-up may differ in them; every permanent delete was skipped then."""
    made, seen = (
        Replica.from_api({"replica_id": "r1", "replica_type": "user", "created_at": f"2026-01-01T{time}Z"})
        for time in (planned, now)
    )
    row = {"replica_name": None, "created_at": format_time(made.created_at)}
    assert (difference(row, seen) is None) is is_same


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(
    ("prior", "detail"),
    [
        pytest.param(PriorAttempts(), "is no longer listed", id="first attempt"),
        pytest.param(
            PriorAttempts(retried=True),
            "is no longer listed; possibly deleted by an earlier attempt of this task",
            id="retry",
        ),
        pytest.param(
            own(None),
            "is no longer listed; possibly deleted by an earlier attempt of this task",
            id="intent recorded",
        ),
        pytest.param(
            own(Outcome.UNKNOWN),
            "is no longer listed; possibly deleted by an earlier attempt of this task",
            id="outcome unknown",
        ),
    ],
)
def test_missing_replica_is_already_gone(prior, detail, hard):
    assert settle(hard=hard, prior=prior) == (Outcome.ALREADY_GONE, detail)


@pytest.mark.parametrize("done", [Outcome.DELETED, Outcome.CONFIRMED])
@pytest.mark.parametrize("hard", [False, True])
def test_missing_replica_that_an_earlier_attempt_deleted_keeps_its_outcome(done, hard):
    assert settle(hard=hard, prior=own(done)) == (done, "by an earlier attempt of this task")


@pytest.mark.parametrize("done", [Outcome.DELETED, Outcome.CONFIRMED])
def test_listed_replica_is_not_soft_deleted_twice_but_hard_deleted_again(done):
    assert settle(replica("r1"), prior=own(done)) == (done, "by an earlier attempt of this task")
    assert settle(replica("r1"), hard=True, prior=own(done)) is None


def test_listed_replica_that_was_already_gone_is_not_soft_deleted_again():
    detail = "Tavus did not know it; possibly deleted by an earlier attempt of this task"
    assert settle(replica("r1"), prior=own(Outcome.ALREADY_GONE)) == (Outcome.ALREADY_GONE, detail)
    assert settle(replica("r1"), hard=True, prior=own(Outcome.ALREADY_GONE)) is None


@pytest.mark.parametrize(
    "done", [None, Outcome.FAILED, Outcome.UNKNOWN, Outcome.NOT_ATTEMPTED, Outcome.SKIPPED]
)
@pytest.mark.parametrize("hard", [False, True])
def test_listed_replica_that_no_attempt_deleted_is_deleted(done, hard):
    assert settle(replica("r1"), hard=hard, prior=own(done)) is None


def test_replica_that_is_only_in_the_ledger_is_deleted_and_its_absence_proves_nothing():
    plan = plan_for("r1", hard=True, source="soft_deleted")
    decision = decide([replica("r1")])
    unlisted = [verdict._replace(listed=False) for verdict in decision.verdicts]
    done = revalidate(
        plan, plan["delete"], type(decision)(tuple(unlisted), decision.limits), prior=PriorAttempts()
    )
    assert (done.to_delete, done.unlisted) == (plan["delete"], {"r1"})


@pytest.mark.parametrize(
    ("hard", "soft_deleted", "held", "deleted", "settled"),
    [
        pytest.param(True, {"r1"}, set(), True, None, id="purge-after-a-prune"),
        pytest.param(True, {"r1"}, {"r1"}, False, Outcome.SKIPPED, id="held"),
        pytest.param(True, set(), set(), False, Outcome.ALREADY_GONE, id="gone"),
        pytest.param(False, {"r1"}, set(), False, Outcome.ALREADY_GONE, id="prune-after-a-prune"),
    ],
)
def test_missing_replica_that_was_soft_deleted_is_deleted_permanently_only(
    hard, soft_deleted, held, deleted, settled
):
    """Its training footage still exists."""
    plan = plan_for("r1", "r2", hard=hard)
    done = revalidate(
        plan,
        plan["delete"][:1],
        decide([replica("r2")]),
        prior=PriorAttempts(),
        soft_deleted=soft_deleted,
        held=frozenset(held),
    )
    assert [row["replica_id"] for row in done.to_delete] == (["r1"] if deleted else [])
    assert done.unlisted == ({"r1"} if deleted else set())
    assert {key: result.outcome for key, result in done.settled.items()} == (
        {"r1": settled} if settled else {}
    )
    assert done.absent == ({"r1"} if settled is Outcome.ALREADY_GONE else set())


def test_difference_of_an_unchanged_replica_is_none():
    (row,) = plan_for("r1")["delete"]
    assert difference(row, replica("r1")) is None


# -- wrong account


@pytest.mark.parametrize(
    ("planned", "missing", "rejected"),
    [
        pytest.param(5, 5, True, id="all of 5"),
        pytest.param(4, 3, False, id="3 of 4"),
        pytest.param(9, 5, True, id="5 of 9"),
        pytest.param(10, 5, False, id="exactly half"),
        pytest.param(10, 6, True, id="6 of 10"),
    ],
)
def test_plan_is_of_another_account_if_at_least_5_and_more_than_half_are_missing(planned, missing, rejected):
    plan = plan_for(*(f"r{n}x" for n in range(planned)))
    known = {row["replica_id"] for row in plan["delete"][missing:]}
    message = find_wrong_account(plan, plan["delete"], known=known)
    assert (message is not None) is rejected
    if message:
        assert message.startswith(f"{missing} of {planned} planned replicas are no longer listed")
        assert "Nothing was deleted" in message


@pytest.mark.parametrize("planned", [1, 4])
def test_plan_is_of_another_account_if_all_of_it_is_missing(planned):
    """Case E15."""
    plan = plan_for(*(f"r{n}x" for n in range(planned)))
    message = find_wrong_account(plan, plan["delete"], known={"other"})
    assert message.startswith(
        f"all {planned} planned replicas are no longer listed, and the ledger shows no run"
    )
    assert find_wrong_account(plan, plan["delete"], known={"r0x"}) is None


def test_rows_of_the_task_are_judged_as_well_as_the_whole_plan():
    plan = plan_for(*(f"r{n:02}" for n in range(20)))
    known = {row["replica_id"] for row in plan["delete"][5:]}
    assert find_wrong_account(plan, plan["delete"][:5], known=known).startswith("5 of 5 ")
    assert find_wrong_account(plan, plan["delete"][5:], known=known) is None
    fewer = {row["replica_id"] for row in plan["delete"][11:]}
    assert find_wrong_account(plan, plan["delete"][11:], known=fewer).startswith("11 of 20 ")


def test_soft_deleted_rows_do_not_count_as_missing():
    plan = plan_for(*(f"r{n}x" for n in range(9)), hard=True, source="soft_deleted")
    assert find_wrong_account(plan, plan["delete"], known=set()) is None


def test_name_of_a_rule_does_not_make_a_row_soft_deleted():
    plan = plan_for(*(f"r{n}x" for n in range(9)), hard=True)
    for row in plan["delete"]:
        row["rule"] = "hard_delete_after"
    assert find_wrong_account(plan, plan["delete"], known=set()) is not None


# -- limits


def exceeded(plan, rows, listed, *, prior=None, **limits):
    decision = decide(listed, policy(**limits))
    done = revalidate(plan, rows, decision, prior=prior or PriorAttempts())
    return find_exceeded_limit(plan, rows, decision, done.to_delete, prior=prior or PriorAttempts())


def test_skipped_replicas_do_not_count_against_the_limit():
    plan = plan_for("r1", "r2")
    listed = [replica("r1", replica_name="other"), replica("r2")]
    assert exceeded(plan, plan["delete"], listed, max_deletions=1) is None
    assert exceeded(plan, plan["delete"], [replica("r1"), replica("r2")], max_deletions=1) is not None


def test_limit_of_zero_allows_no_delete():
    plan = plan_for("r1")
    for limit in ("max_deletions", "max_deletion_percent"):
        assert f"{limit} is 0" in exceeded(plan, plan["delete"], [replica("r1")], **{limit: 0})


def test_deletes_of_earlier_attempts_count_against_the_limit():
    plan = plan_for("r1", "r2", "r3")
    prior = PriorAttempts(own={"r1": Outcome.DELETED, "r2": None})
    assert exceeded(plan, plan["delete"], [replica("r3")], prior=prior, max_deletions=2) is not None
    assert exceeded(plan, plan["delete"], [replica("r3")], prior=prior, max_deletions=3) is None


def test_rows_of_other_batches_count_against_the_limit_although_they_are_not_in_the_decision():
    plan = plan_for("r1", "r2", "r3", "r4")
    rows, listed = plan["delete"][:1], [replica("r1")]
    assert exceeded(plan, rows, listed, max_deletions=3) is not None
    assert exceeded(plan, rows, listed, max_deletions=4) is None


def test_percentage_is_of_all_replicas_before_the_first_delete():
    """Otherwise a retry, or a later batch, would see fewer replicas and fail."""
    plan = plan_for("r1", "r2")
    young = [replica(f"y{n}x", days=3) for n in range(2)]
    prior = PriorAttempts(own={"r1": Outcome.DELETED})
    assert (
        exceeded(plan, plan["delete"], [replica("r2"), *young], prior=prior, max_deletion_percent=50) is None
    )
    assert exceeded(plan, plan["delete"], [replica("r2"), *young], prior=prior, max_deletion_percent=49)
