"""What a list after the deletes says about their outcomes: tables of pure judgements."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tavus_provider.exceptions import TavusRetryableError
from tavus_provider.execution.verification import judge_absence, verify_absence
from tavus_provider.models import Replica, parse_row
from tavus_provider.outcomes import Outcome
from tavus_provider.planning.attempts import PriorAttempts
from tavus_provider.planning.report import Result

UNSEEN = "; this account lists soft-deleted replicas, so its absence could not be seen"
LISTED = "; it is still listed"
ABSENT = "; it is no longer listed"


def judge(outcomes, listed, *, hard=False, unlisted=(), hides_ids=False, prior=None):
    results = {replica_id: Result(outcome, "") for replica_id, outcome in outcomes.items()}
    verified = judge_absence(
        results,
        set(listed),
        hard=hard,
        unlisted=set(unlisted),
        hides_ids=hides_ids,
        prior=prior or PriorAttempts(),
    )
    return {replica_id: tuple(result) for replica_id, result in verified.items()}


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        pytest.param(Outcome.DELETED, Outcome.DELETED, id="deleted"),
        pytest.param(Outcome.CONFIRMED, Outcome.CONFIRMED, id="confirmed"),
        pytest.param(Outcome.UNKNOWN, Outcome.CONFIRMED, id="unknown becomes confirmed"),
    ],
)
def test_replica_that_is_no_longer_listed_is_gone(outcome, expected, hard):
    assert judge({"r1": outcome}, [], hard=hard) == {"r1": (expected, ABSENT)}


def test_absence_of_a_replica_that_was_never_listed_confirms_nothing():
    assert judge({"r1": Outcome.UNKNOWN}, [], hard=True, unlisted=["r1"]) == {"r1": (Outcome.UNKNOWN, ABSENT)}


def test_already_gone_replica_that_is_not_listed_stays_as_it_is():
    assert judge({"r1": Outcome.ALREADY_GONE}, []) == {}


@pytest.mark.parametrize(
    "outcome", [Outcome.DELETED, Outcome.CONFIRMED, Outcome.UNKNOWN, Outcome.ALREADY_GONE]
)
def test_replica_that_is_listed_after_a_hard_delete_is_unknown(outcome):
    assert judge({"r1": outcome}, ["r1"], hard=True) == {"r1": (Outcome.UNKNOWN, LISTED)}


@pytest.mark.parametrize("outcome", [Outcome.DELETED, Outcome.CONFIRMED])
def test_all_soft_deleted_replicas_still_listed_means_that_the_account_lists_them(outcome):
    assert judge({"r1": outcome, "r2": Outcome.DELETED}, ["r1", "r2"]) == {
        "r1": (outcome, UNSEEN),
        "r2": (Outcome.DELETED, UNSEEN),
    }


def test_soft_deleted_replica_is_unknown_if_another_one_is_no_longer_listed():
    assert judge({"r1": Outcome.DELETED, "r2": Outcome.DELETED}, ["r1"]) == {
        "r1": (Outcome.UNKNOWN, LISTED),
        "r2": (Outcome.DELETED, ABSENT),
    }


def test_unknown_stays_unknown_where_soft_deleted_replicas_are_listed():
    assert judge({"r1": Outcome.UNKNOWN, "r2": Outcome.DELETED}, ["r1", "r2"]) == {
        "r1": (Outcome.UNKNOWN, LISTED),
        "r2": (Outcome.DELETED, UNSEEN),
    }


def test_only_unknown_outcomes_do_not_show_that_soft_deleted_replicas_are_listed():
    assert judge({"r1": Outcome.UNKNOWN, "r2": Outcome.ALREADY_GONE}, ["r1", "r2"]) == {
        "r1": (Outcome.UNKNOWN, LISTED),
        "r2": (Outcome.UNKNOWN, LISTED),
    }


@pytest.mark.parametrize("recorded", [None, Outcome.ALREADY_GONE])
def test_replica_that_a_killed_attempt_may_have_soft_deleted_stays_already_gone(recorded):
    prior = PriorAttempts(own={"r1": recorded})
    assert judge({"r1": Outcome.ALREADY_GONE}, ["r1"], prior=prior) == {"r1": (Outcome.ALREADY_GONE, UNSEEN)}
    assert judge({"r1": Outcome.ALREADY_GONE}, ["r1"], prior=prior, hard=True) == {
        "r1": (Outcome.UNKNOWN, LISTED)
    }


@pytest.mark.parametrize("recorded", [Outcome.FAILED, Outcome.UNKNOWN, Outcome.SKIPPED])
def test_other_recorded_outcomes_do_not_explain_a_listed_replica(recorded):
    prior = PriorAttempts(own={"r1": recorded})
    assert judge({"r1": Outcome.ALREADY_GONE}, ["r1"], prior=prior) == {"r1": (Outcome.UNKNOWN, LISTED)}


# -- with the read


def verify(results, list_replicas, *, lines):
    client = SimpleNamespace(list_replicas=list_replicas)
    return verify_absence(
        client,
        results,
        hard=True,
        unlisted=frozenset(),
        prior=PriorAttempts(),
        while_deleting=True,
        log=lines.append,
    )


def test_list_is_not_read_if_no_result_depends_on_it():
    def list_replicas(**_):
        raise AssertionError

    results = {
        "r1": Result(Outcome.SKIPPED, ""),
        "r2": Result(Outcome.FAILED, ""),
        "r3": Result(Outcome.NOT_ATTEMPTED, ""),
    }
    assert verify(results, list_replicas, lines=[]) is None


def test_record_says_how_many_replicas_are_listed_and_which_of_ours_still_are():
    def list_replicas(*, while_deleting):
        assert while_deleting
        return [SimpleNamespace(replica_id=replica_id) for replica_id in ("r2", "other", "r3")]

    results = {
        "r1": Result(Outcome.DELETED, ""),
        "r2": Result(Outcome.DELETED, ""),
        "r3": Result(Outcome.SKIPPED, ""),
    }
    done = verify(results, list_replicas, lines=[])
    assert done.record == {"listed": 3, "still_listed": ["r2"]}
    assert done.results == {"r1": (Outcome.DELETED, ABSENT), "r2": (Outcome.UNKNOWN, LISTED)}


def test_id_that_an_unreadable_row_shows_is_still_listed():
    rows = [parse_row(Replica, {"replica_id": "r1", "face_id": "r2"}), Replica("r9")]
    results = {i: Result(Outcome.DELETED, "") for i in ("r1", "r2", "r3")}
    done = verify(results, lambda **_: rows, lines=[])
    assert done.record == {"listed": 2, "still_listed": ["r1", "r2"]}
    assert {i: result.outcome for i, result in done.results.items()} == {
        "r1": Outcome.UNKNOWN,
        "r2": Outcome.UNKNOWN,
        "r3": Outcome.DELETED,
    }
    assert done.results["r3"].detail == ABSENT


def test_absence_is_not_seen_in_a_list_with_a_row_that_shows_no_id():
    rows = [parse_row(Replica, None), Replica("r2")]
    results = {
        "r1": Result(Outcome.DELETED, "returned 200"),
        "r2": Result(Outcome.DELETED, ""),
        "r3": Result(Outcome.UNKNOWN, "returned 500"),
        "r4": Result(Outcome.ALREADY_GONE, "returned 404"),
    }
    done = verify(results, lambda **_: rows, lines=[])
    unseen = "; the list has a row without a readable id, so its absence could not be verified"
    assert done.results == {
        "r1": (Outcome.DELETED, f"returned 200{unseen}"),
        "r2": (Outcome.UNKNOWN, LISTED),
        "r3": (Outcome.UNKNOWN, f"returned 500{unseen}"),
    }
    assert done.record == {"listed": 2, "still_listed": ["r2"]}


def test_unreadable_list_leaves_outcomes_and_says_that_absence_is_unverified():
    def list_replicas(**_):
        raise TavusRetryableError("GET /v2/replicas returned 503")

    lines: list[str] = []
    results = {
        "r1": Result(Outcome.DELETED, "returned 200"),
        "r2": Result(Outcome.ALREADY_GONE, "returned 404"),
    }
    done = verify(results, list_replicas, lines=lines)
    assert done.record == {"listed": None}
    assert done.results == {"r1": (Outcome.DELETED, "returned 200; its absence could not be verified")}
    assert lines == [
        "The replicas could not be listed after the deletes, so their absence is not verified: "
        "GET /v2/replicas returned 503"
    ]
