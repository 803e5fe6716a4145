"""What a list after the deletes says about their outcomes: tables of pure judgements."""

from __future__ import annotations

import pytest

from tavus_provider.exceptions import ReplicaNotFoundError, TavusRetryableError
from tavus_provider.execution.verification import (
    LIST_WAITS,
    LookUp,
    judge_absence,
    judge_unlisted,
    look_up,
    verify_absence,
)
from tavus_provider.models import Replica, parse_row
from tavus_provider.outcomes import Outcome
from tavus_provider.planning.attempts import PriorAttempts
from tavus_provider.planning.report import Result

UNSEEN = "; this account lists soft-deleted replicas, so its absence could not be seen"
LISTED = "; it is still listed"
ABSENT = "; it is no longer listed"
RETURNED = "Tavus still returns it when it is read"
GONE = LookUp(exists=False)
EXISTS = LookUp(exists=True)
ROW = {"replica_id": "r1", "replica_name": "n", "created_at": None}
UNREADABLE = LookUp(exists=None, detail="GET returned 503")


def judge(outcomes, listed, *, hard=False, hides_ids=False, prior=None, found=None):
    results = {replica_id: Result(outcome, "") for replica_id, outcome in outcomes.items()}
    verified = judge_absence(
        results,
        set(listed),
        hard=hard,
        hides_ids=hides_ids,
        prior=prior or PriorAttempts(),
        found=found or {},
    )
    return {replica_id: tuple(result) for replica_id, result in verified.items()}


@pytest.mark.parametrize("hard", [False, True])
@pytest.mark.parametrize(
    ("outcome", "expected"),
    [
        pytest.param(Outcome.DELETED, Outcome.DELETED, id="deleted"),
        pytest.param(Outcome.CONFIRMED, Outcome.CONFIRMED, id="confirmed"),
    ],
)
def test_replica_that_is_no_longer_listed_is_gone(outcome, expected, hard):
    assert judge({"r1": outcome}, [], hard=hard) == {"r1": (expected, ABSENT)}


def test_absence_of_a_replica_that_was_never_listed_confirms_nothing():
    assert judge({"r1": Outcome.UNKNOWN}, [], hard=True) == {"r1": (Outcome.UNKNOWN, ABSENT)}


@pytest.mark.parametrize(
    ("found", "soft", "hard", "detail"),
    [
        pytest.param(GONE, Outcome.CONFIRMED, Outcome.CONFIRMED, ABSENT, id="not found"),
        pytest.param(EXISTS, Outcome.UNKNOWN, Outcome.FAILED, f"{ABSENT}, but {RETURNED}", id="found"),
        pytest.param(
            UNREADABLE,
            Outcome.UNKNOWN,
            Outcome.UNKNOWN,
            f"{ABSENT}, but it could not be read: GET returned 503",
            id="unreadable",
        ),
    ],
)
def test_absence_from_a_list_confirms_an_unknown_delete_only_if_the_replica_is_not_found(
    found, soft, hard, detail
):
    assert judge({"r1": Outcome.UNKNOWN}, [], found={"r1": found}) == {"r1": (soft, detail)}
    assert judge({"r1": Outcome.UNKNOWN}, [], hard=True, found={"r1": found}) == {"r1": (hard, detail)}


def test_replica_that_is_listed_is_unknown_whatever_a_look_up_showed():
    assert judge({"r1": Outcome.UNKNOWN}, ["r1"], hard=True, found={"r1": GONE}) == {
        "r1": (Outcome.UNKNOWN, LISTED)
    }


@pytest.mark.parametrize(
    ("found", "soft", "hard"),
    [
        pytest.param(GONE, Outcome.ALREADY_GONE, Outcome.ALREADY_GONE, id="not found"),
        pytest.param(EXISTS, Outcome.SKIPPED, Outcome.FAILED, id="found"),
        pytest.param(UNREADABLE, Outcome.UNKNOWN, Outcome.UNKNOWN, id="unreadable"),
    ],
)
def test_unlisted_replica_is_already_gone_only_if_it_is_not_found(found, soft, hard):
    absent = Result(Outcome.ALREADY_GONE, "is no longer listed")
    for outcome, is_hard in ((soft, False), (hard, True)):
        result = judge_unlisted(ROW, absent, found, hard=is_hard)
        assert result.outcome is outcome
        assert result.detail.startswith("is no longer listed")
        assert ("no delete was sent" in result.detail) == (found is EXISTS)


@pytest.mark.parametrize("hard", [False, True])
def test_unlisted_replica_that_changed_is_skipped(hard):
    absent = Result(Outcome.ALREADY_GONE, "is no longer listed")
    found = LookUp(exists=True, replica=Replica("r1", replica_type="system"))
    assert judge_unlisted(ROW, absent, found, hard=hard) == (
        Outcome.SKIPPED,
        "replica_type is now 'system'",
    )


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


class Client:
    """
    A client whose lists show these ids, one list after the other; the last one stays.

    :param lists: ids, or an error to raise
    :param existing: the ids that can be read, or an error to raise
    """

    def __init__(self, *lists, existing=(), stop_after=99):
        self.lists = list(lists)
        self.existing = existing
        self.stop_after = stop_after
        self.waits: list[float] = []
        self.read: list[str] = []
        self.listings = 0
        self.stopped = False

    def list_replicas(self, *, while_deleting):
        assert while_deleting
        self.listings += 1
        ids = self.lists.pop(0) if len(self.lists) > 1 else self.lists[0]
        if isinstance(ids, Exception):
            raise ids
        return [Replica(one) if isinstance(one, str) else one for one in ids]

    def get_replica(self, replica_id):
        self.read.append(replica_id)
        if isinstance(self.existing, BaseException):
            raise self.existing
        if replica_id not in self.existing:
            raise ReplicaNotFoundError("GET returned 400")

    def stop(self):
        self.stopped = True

    def wait(self, seconds):
        self.waits.append(seconds)
        return len(self.waits) >= self.stop_after


def verify(results, client, *, hard=True, unlisted=(), lines=None):
    return verify_absence(
        client,
        results,
        hard=hard,
        unlisted=set(unlisted),
        prior=PriorAttempts(),
        while_deleting=True,
        concurrency=4,
        log=[].append if lines is None else lines.append,
    )


DELETED = Result(Outcome.DELETED, "")
UNKNOWN = Result(Outcome.UNKNOWN, "")
ALREADY_GONE = Result(Outcome.ALREADY_GONE, "")


@pytest.mark.parametrize("lag", range(len(LIST_WAITS) + 1))
def test_list_that_lags_is_read_again_until_the_deletes_show(lag):
    client = Client(*[["r1", "other"]] * lag, ["other"])
    done = verify({"r1": DELETED}, client)
    assert (done.results, done.may_change) == ({"r1": (Outcome.DELETED, ABSENT)}, set())
    assert client.waits == list(LIST_WAITS[:lag])
    assert client.listings == lag + 1
    assert client.read == []
    assert sum(LIST_WAITS) <= 8


@pytest.mark.parametrize("result", [DELETED, UNKNOWN, ALREADY_GONE])
def test_replica_that_stays_listed_is_unknown_and_a_later_attempt_may_settle_it(result):
    client = Client(["r1"])
    done = verify({"r1": result}, client)
    assert (done.results, done.may_change) == ({"r1": (Outcome.UNKNOWN, LISTED)}, {"r1"})
    assert client.waits == list(LIST_WAITS)
    assert client.read == []


def test_account_that_lists_soft_deleted_replicas_is_told_after_all_waits():
    done = verify({"r1": DELETED}, Client(["r1"]), hard=False)
    assert (done.results, done.may_change) == ({"r1": (Outcome.DELETED, UNSEEN)}, set())


def test_stop_ends_the_waits_and_the_last_list_counts():
    client = Client(["r1"], stop_after=2)
    assert verify({"r1": DELETED}, client).results == {"r1": (Outcome.UNKNOWN, LISTED)}
    assert (client.waits, client.listings) == ([0.5, 1.0], 2)


def test_error_while_a_list_is_read_again_leaves_the_older_list():
    lines: list[str] = []
    done = verify({"r1": DELETED}, Client(["r1"], TavusRetryableError("GET: 503")), lines=lines)
    assert (done.results, done.may_change) == ({"r1": (Outcome.UNKNOWN, LISTED)}, {"r1"})
    assert lines == ["The replicas could not be listed again, so an older list is used: GET: 503"]


def test_only_unknown_deletes_that_left_the_list_are_read():
    results = {
        "r1": DELETED,
        "r2": UNKNOWN,
        "r3": UNKNOWN,
        "r4": UNKNOWN,
        "r5": ALREADY_GONE,
        "r6": Result(Outcome.CONFIRMED, ""),
        "r7": Result(Outcome.FAILED, ""),
    }
    client = Client(["r3"], existing=["r1"])
    done = verify(results, client, unlisted=["r4"])
    assert client.read == ["r2"]
    assert {replica_id: result.outcome for replica_id, result in done.results.items()} == {
        "r1": Outcome.DELETED,
        "r2": Outcome.CONFIRMED,
        "r3": Outcome.UNKNOWN,
        "r4": Outcome.UNKNOWN,
        "r6": Outcome.CONFIRMED,
    }


@pytest.mark.parametrize(
    ("existing", "outcome"),
    [(["r1"], Outcome.FAILED), (TavusRetryableError("GET returned 503"), Outcome.UNKNOWN)],
    ids=["found", "unreadable"],
)
def test_later_attempt_may_settle_what_a_look_up_did_not(existing, outcome):
    done = verify({"r1": UNKNOWN}, Client([], existing=existing))
    assert (done.results["r1"].outcome, done.may_change) == (outcome, {"r1"})


def test_unknown_delete_of_an_unlisted_replica_is_not_settled_by_a_later_attempt():
    done = verify({"r1": UNKNOWN}, Client([]), unlisted=["r1"])
    assert (done.results, done.may_change) == ({"r1": (Outcome.UNKNOWN, ABSENT)}, set())


def test_look_up_without_ids_sends_nothing():
    assert look_up(Client([]), [], concurrency=4) == {}


def test_interrupted_look_up_stops_the_client():
    client = Client([], existing=KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        look_up(client, ["r1", "r2"], concurrency=1)
    assert client.stopped


def test_list_is_not_read_if_no_result_depends_on_it():
    results = {
        "r1": Result(Outcome.SKIPPED, ""),
        "r2": Result(Outcome.FAILED, ""),
        "r3": Result(Outcome.NOT_ATTEMPTED, ""),
    }
    client = Client([])
    assert verify(results, client) is None
    assert client.listings == 0


def test_record_says_how_many_replicas_are_listed_and_which_of_ours_still_are():
    results = {
        "r1": Result(Outcome.DELETED, ""),
        "r2": Result(Outcome.DELETED, ""),
        "r3": Result(Outcome.SKIPPED, ""),
    }
    done = verify(results, Client(["r2", "other", "r3"]))
    assert done.record == {"listed": 3, "still_listed": ["r2"]}
    assert done.results == {"r1": (Outcome.DELETED, ABSENT), "r2": (Outcome.UNKNOWN, LISTED)}


def test_id_that_an_unreadable_row_shows_is_still_listed():
    rows = [parse_row(Replica, {"replica_id": "r1", "face_id": "r2"}), Replica("r9")]
    results = {i: Result(Outcome.DELETED, "") for i in ("r1", "r2", "r3")}
    done = verify(results, Client(rows))
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
    done = verify(results, Client(rows))
    unseen = "; the list has a row without a readable id, so its absence could not be verified"
    assert done.results == {
        "r1": (Outcome.DELETED, f"returned 200{unseen}"),
        "r2": (Outcome.UNKNOWN, LISTED),
        "r3": (Outcome.UNKNOWN, f"returned 500{unseen}"),
    }
    assert done.record == {"listed": 2, "still_listed": ["r2"]}


def test_unreadable_list_leaves_outcomes_and_says_that_absence_is_unverified():
    lines: list[str] = []
    results = {
        "r1": Result(Outcome.DELETED, "returned 200"),
        "r2": Result(Outcome.ALREADY_GONE, "returned 404"),
    }
    client = Client(TavusRetryableError("GET /v2/replicas returned 503"))
    done = verify(results, client, lines=lines)
    assert done.record == {"listed": None}
    assert done.results == {"r1": (Outcome.DELETED, "returned 200; its absence could not be verified")}
    assert lines == [
        "The replicas could not be listed after the deletes, so their absence is not verified: "
        "GET /v2/replicas returned 503"
    ]
