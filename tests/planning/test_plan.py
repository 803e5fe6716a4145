from __future__ import annotations

import copy
import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest

from tavus_provider.digest import digest_of
from tavus_provider.exceptions import PlanRejectedError, TavusError
from tavus_provider.models import Replica
from tavus_provider.planning.plan import (
    MAX_VERDICTS,
    check_plan,
    fits_xcom,
    make_plan,
    reference_to,
    verdict_rows,
)
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
POLICY = Policy.parse({"name": "stale", "expire": [{"rule": "old", "older_than": "90d"}]})
HERE = {"tavus_conn_id": "tavus_default", "origin": "https://tavusapi.com"}


def replica(replica_id, days=200, **known):
    known = {"replica_name": f"name of {replica_id}", "status": "completed", "replica_type": "user"} | known
    created_at = None if days is None else NOW - timedelta(days=days)
    return Replica(replica_id, created_at=created_at, updated_at=created_at, **known)


def decide(*replicas, policy=POLICY):
    return evaluate(policy, Inventory(replicas), now=NOW)


def made(*replicas, hard=False, policy=POLICY):
    return make_plan(decide(*replicas, policy=policy), policy, now=NOW, hard=hard, **HERE)


def check(plan, *, now=NOW, hard=False, **more):
    return check_plan(plan, now=now, hard=hard, **(HERE | more))


def sealed(plan, **changes):
    """A plan with other content, and the digest that fits it."""
    changed = copy.deepcopy(plan) | changes
    return changed | {"digest": digest_of(changed)}


@pytest.fixture
def soft():
    return made(replica("r1"), replica("r2", days=3), replica("r3", days=None))


@pytest.fixture
def hard():
    return made(replica("r1"), replica("r2", days=3), hard=True)


# -- what a plan is


def test_a_plan_has_exactly_the_keys_of_the_contract(soft):
    assert set(soft) == {
        *("policy", "policy_digest", "digest", "made_at", "valid_until", "hard", "tavus_conn_id", "origin"),
        *("listed", "limits", "delete", "scheduled", "keep", "undetermined"),
    }
    (row,) = soft["delete"]
    assert set(row) == {
        *("replica_id", "replica_name", "created_at", "age_days", "last_used_at", "rule", "source", "reason"),
    }
    assert [set(doubt) for doubt in soft["undetermined"]] == [{"replica_id", "reason"}]


def test_a_plan_says_who_goes_under_which_rule_and_why(soft):
    assert soft["delete"] == [
        {
            "replica_id": "r1",
            "replica_name": "name of r1",
            "created_at": "2025-11-13T12:00:00Z",
            "age_days": 200,
            "last_used_at": None,
            "rule": "old",
            "source": "rule",
            "reason": "200 days old, limit is 90d",
        }
    ]
    assert soft["keep"] == {"not_expired": 1}
    assert soft["undetermined"] == [{"replica_id": "r3", "reason": "created_at is not given"}]
    assert soft["listed"] == 3
    assert soft["scheduled"] == []


def test_a_plan_holds_the_whole_policy_with_its_defaults(soft):
    assert soft["limits"] == soft["policy"]["limits"] == {"max_deletions": 10, "max_deletion_percent": 25}
    assert soft["policy"]["keep"]["in_use"] == ["persona", "conversation", "video"]
    assert Policy.parse(soft["policy"]) == POLICY
    assert soft["policy_digest"] == POLICY.digest


def test_a_plan_is_good_for_a_day_of_the_wall_clock_it_was_given(soft):
    assert (soft["made_at"], soft["valid_until"]) == ("2026-06-01T12:00:00Z", "2026-06-02T12:00:00Z")


def test_the_digest_is_the_sha256_of_the_canonical_json_without_it():
    plan = made(replica("r1", replica_name='Zoë \u202e 山 "quoted"\n'))
    rest = {key: value for key, value in plan.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert plan["digest"] == hashlib.sha256(text.encode("utf-8")).hexdigest()


def test_a_plan_comes_back_from_json_as_it_was(soft):
    assert check(json.loads(json.dumps(soft))) == soft


def test_a_plan_does_not_depend_on_the_order_of_the_listing():
    rows = [replica(f"r{n}", days=100 + n % 3) for n in range(10)]
    assert made(*rows)["digest"] == made(*reversed(rows))["digest"]


def test_a_name_with_half_a_surrogate_pair_can_be_planned_and_checked():
    plan = made(replica("r1", replica_name="broken \ud83d name"))
    assert check(json.loads(json.dumps(plan)))["delete"][0]["replica_name"] == "broken \ud83d name"


# -- how large it may be


def test_a_plan_of_some_4000_deletes_fits_into_an_xcom_and_one_of_8000_does_not():
    def of(many):
        return made(*(replica(f"r{n:011x}", replica_name="spring-campaign_anna") for n in range(many)))

    assert fits_xcom(of(4_000))
    assert not fits_xcom(of(8_000))


def test_what_fits_is_told_by_its_bytes_as_airflow_writes_them():
    assert fits_xcom({"name": "e" * 800_000})
    assert not fits_xcom({"name": "\u00e9" * 800_000})


def test_one_name_of_a_megabyte_does_not_make_a_plan_of_a_megabyte():
    decision = decide(replica("r1", replica_name="n" * 2**20))
    plan = make_plan(decision, POLICY, now=NOW, hard=False, **HERE)
    assert len(json.dumps(plan)) < 5_000
    assert len(json.dumps(verdict_rows(decision))) < 5_000


def test_names_that_differ_only_in_their_end_are_not_planned_alike():
    one, other = (made(replica("r1", replica_name="n" * 5_000 + end)) for end in "ab")
    assert one["delete"][0]["replica_name"] != other["delete"][0]["replica_name"]


def test_verdicts_hold_every_replica_with_its_reason():
    assert verdict_rows(decide(replica("r1"), replica("r2", days=3), replica("r3", days=None))) == [
        {
            "replica_id": "r1",
            "replica_name": "name of r1",
            "status": "expired",
            "reason_code": "expired",
            "reason": "200 days old, limit is 90d",
            "next_reason": None,
            "age_days": 200,
        },
        {
            "replica_id": "r3",
            "replica_name": "name of r3",
            "status": "undetermined",
            "reason_code": "undetermined",
            "reason": "created_at is not given",
            "next_reason": None,
            "age_days": None,
        },
        {
            "replica_id": "r2",
            "replica_name": "name of r2",
            "status": "not_expired",
            "reason_code": "not_expired",
            "reason": "3 days old, rule 'old' asks for 90d",
            "next_reason": None,
            "age_days": 3,
        },
    ]


def test_what_is_left_out_of_a_plan_is_counted_in_it_and_in_what_travels_for_it():
    plan = made(*(replica(f"r{n}x", days=None) for n in range(MAX_VERDICTS + 3)))
    assert (len(plan["undetermined"]), plan["left_out"]) == (MAX_VERDICTS, {"undetermined": 3})
    assert reference_to(plan, "place")["counts"] == {"delete": 0, "scheduled": 0, "undetermined": 4_503}
    assert "left_out" not in made(replica("r1"))


def test_names_that_are_long_as_json_are_measured_as_json():
    rows = [replica(f"r{n}x", days=3, replica_name="\U0001f600" * 40) for n in range(1_600)]
    assert set(verdict_rows(decide(*rows))) == {"counts", "notice"}


def test_above_4500_verdicts_only_counts_are_pushed_and_a_notice_says_so():
    rows = [replica(f"r{n}x", days=3) for n in range(MAX_VERDICTS)]
    assert len(verdict_rows(decide(*rows))) == MAX_VERDICTS == 4_500
    assert verdict_rows(decide(*rows, replica("r1"))) == {
        "counts": {"not_expired": 4_500, "expired": 1},
        "notice": "4501 verdicts are too many for XCom, see the log of the task",
    }


# -- what may be carried out


def test_a_soft_plan_may_be_carried_out_where_and_while_it_is_good(soft):
    assert check(soft) is soft
    assert check(soft, approved_digest=soft["digest"]) is soft


def test_a_hard_plan_may_be_carried_out_with_the_digest_that_was_approved(hard):
    assert check(hard, hard=True, approved_digest=hard["digest"]) is hard


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"listed": 4}, "does not match its digest", id="a-count"),
        pytest.param({"hard": True}, "does not match its digest", id="hard"),
        pytest.param({"policy": {}}, "does not match its digest", id="the-policy"),
        pytest.param({"delete": []}, "does not match its digest", id="fewer-deletes"),
        pytest.param({"valid_until": "2126-06-02T12:00:00Z"}, "does not match its digest", id="its-time"),
        pytest.param({"more": 1}, "does not match its digest", id="another-key"),
        pytest.param({"digest": "0" * 64}, "does not match its digest", id="the-digest"),
        pytest.param({"digest": None}, "does not match its digest", id="no-digest"),
    ],
)
def test_a_plan_that_was_changed_on_its_way_is_refused(soft, change, said):
    with pytest.raises(PlanRejectedError, match=said):
        check(soft | change)


def test_a_replica_added_to_a_plan_on_its_way_is_refused(soft):
    soft["delete"].append(soft["delete"][0] | {"replica_id": "r2"})
    with pytest.raises(
        PlanRejectedError, match="its content does not match its digest, so it was changed after"
    ):
        check(soft)


@pytest.mark.parametrize(("planned", "task"), [(False, True), (True, False)])
def test_a_plan_is_good_for_one_kind_of_delete_only(planned, task):
    plan = made(replica("r1"), hard=planned)
    with pytest.raises(PlanRejectedError, match=f"it was made for hard={planned}, this task has hard={task}"):
        check(plan, hard=task, approved_digest=plan["digest"])


@pytest.mark.parametrize("value", [1, 0, "False", None])
def test_a_plan_whose_hard_is_no_bool_is_refused(soft, value):
    with pytest.raises(PlanRejectedError, match="this task has hard=False"):
        check(sealed(soft, hard=value))


def test_a_plan_of_another_connection_is_refused(soft):
    with pytest.raises(
        PlanRejectedError, match="it is for connection 'tavus_default', this task has 'tavus_eu'"
    ):
        check(soft, tavus_conn_id="tavus_eu")


def test_a_plan_is_refused_once_the_connection_means_another_tavus(soft):
    with pytest.raises(
        PlanRejectedError, match=r"made for https://tavusapi.com, the connection now means http://x"
    ):
        check(soft, origin="http://x")


def test_a_plan_is_good_until_its_time_and_not_at_it(soft):
    limit = NOW + timedelta(hours=24)
    assert check(soft, now=limit - timedelta(microseconds=1)) is soft
    with pytest.raises(PlanRejectedError, match="its time was up at 2026-06-02T12:00:00Z"):
        check(soft, now=limit)


def test_a_permanent_delete_without_an_approved_digest_is_refused(hard):
    with pytest.raises(PlanRejectedError, match="needs the digest that a person approved, and there is none"):
        check(hard, hard=True)


@pytest.mark.parametrize("approved", ["", "0" * 64, True, 1, [], {}])
def test_a_digest_that_is_not_that_of_the_plan_approves_nothing(soft, hard, approved):
    for plan, kind in ((soft, False), (hard, True)):
        with pytest.raises(PlanRejectedError, match="the digest that was approved is that of another plan"):
            check(plan, hard=kind, approved_digest=approved)


@pytest.mark.parametrize("value", [None, "", "{}", "None", [], 7, True, object()], ids=repr)
def test_what_is_no_mapping_is_no_plan(value):
    with pytest.raises(
        PlanRejectedError, match=f"^plan is of type {type(value).__name__}, not the JSON of a plan"
    ):
        check(value)


@pytest.mark.parametrize(
    "key", ["digest", "hard", "tavus_conn_id", "origin", "valid_until", "delete", "policy"]
)
def test_a_plan_without_one_of_its_parts_is_refused_although_its_digest_fits(soft, key):
    del soft[key]
    plan = soft if key == "digest" else soft | {"digest": digest_of(soft)}
    with pytest.raises(PlanRejectedError, match="it is not the JSON of a plan"):
        check(plan)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"delete": None}, id="no-list"),
        pytest.param({"delete": "r1"}, id="text"),
        pytest.param({"delete": {"r1": 1}}, id="mapping"),
        pytest.param({"delete": [{"replica_id": "r1"}]}, id="row-without-name-and-date"),
        pytest.param({"valid_until": "tomorrow"}, id="unreadable-time"),
        pytest.param({"valid_until": "2126-06-02T12:00:00"}, id="time-without-zone"),
        pytest.param({"valid_until": None}, id="no-time"),
        pytest.param({"listed": float("nan")}, id="no-json"),
    ],
)
def test_what_only_looks_like_a_plan_is_refused(soft, change):
    try:
        plan = sealed(soft, **change)
    except ValueError:
        plan = soft | change
    with pytest.raises(PlanRejectedError, match="it is not the JSON of a plan"):
        check(plan)


@pytest.mark.parametrize("bad", ["..", "x?hard=true", "None", "", "a/b", None, 1000, "r1\n"], ids=repr)
def test_an_id_that_cannot_be_one_refuses_the_whole_plan(soft, bad):
    row = soft["delete"][0]
    plan = sealed(soft, delete=[row, row | {"replica_id": bad}])
    with pytest.raises(TavusError, match="is not a replica id"):
        check(plan)


def test_a_plan_that_names_an_id_twice_is_refused(soft):
    with pytest.raises(PlanRejectedError, match="it names a replica twice"):
        check(sealed(soft, delete=soft["delete"] * 2))


def test_all_that_does_not_fit_is_said_at_once_on_one_line(hard):
    with pytest.raises(PlanRejectedError) as caught:
        check(hard, now=NOW + timedelta(days=2), origin="http://x")
    said = str(caught.value)
    assert "hard=True" in said
    assert "http://x" in said
    assert "time was up" in said
    assert said.endswith("Nothing was deleted; trigger a new run")
    assert "\n" not in said
