"""Plans: what they hold, how large they get, and which of them may be carried out."""

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
    MAX_UNDETERMINED,
    check_plan,
    fits_xcom,
    make_plan,
    plan_reference,
    verify_digest,
)
from tavus_provider.planning.verdicts import make_verdicts
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
POLICY = Policy.parse({"name": "stale", "expire": [{"rule": "old", "older_than": "90d"}]})
CONNECTION = {"tavus_conn_id": "tavus_default", "origin": "https://tavusapi.com"}


def replica(replica_id, days=200, **fields):
    fields = {"replica_name": f"name of {replica_id}", "status": "completed", "replica_type": "user"} | fields
    created_at = None if days is None else NOW - timedelta(days=days)
    return Replica(replica_id, created_at=created_at, updated_at=created_at, **fields)


def decide(*replicas, policy=POLICY):
    return evaluate(policy, Inventory(replicas), now=NOW)


def plan_for(*replicas, hard=False, policy=POLICY):
    return make_plan(decide(*replicas, policy=policy), policy, now=NOW, hard=hard, **CONNECTION)


def check(plan, *, now=NOW, hard=False, **arguments):
    return check_plan(plan, now=now, hard=hard, **(CONNECTION | arguments))


def sealed(plan, **changes):
    """Return a plan with other content and the digest of that content."""
    changed = copy.deepcopy(plan) | changes
    return changed | {"digest": digest_of(changed)}


@pytest.fixture
def soft():
    return plan_for(replica("r1"), replica("r2", days=3), replica("r3", days=None))


@pytest.fixture
def hard():
    return plan_for(replica("r1"), replica("r2", days=3), hard=True)


# -- content


def test_plan_has_exactly_the_documented_keys(soft):
    assert set(soft) == {
        *("version", "policy", "policy_digest", "digest", "made_at", "valid_until", "hard", "tavus_conn_id"),
        *("origin", "listed", "limits", "delete", "scheduled", "keep", "undetermined"),
    }
    assert soft["version"] == 1
    (row,) = soft["delete"]
    assert set(row) == {
        *("replica_id", "replica_name", "created_at", "age_days", "last_used_at", "rule", "source", "reason"),
    }
    assert [set(row) for row in soft["undetermined"]] == [{"replica_id", "reason"}]


def test_plan_names_each_replica_with_its_rule_and_reason(soft):
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


def test_plan_contains_the_policy_with_its_defaults(soft):
    assert soft["limits"] == soft["policy"]["limits"] == {"max_deletions": 10, "max_deletion_percent": 25}
    assert soft["policy"]["keep"]["in_use"] == ["persona", "conversation", "video"]
    assert Policy.parse(soft["policy"]) == POLICY
    assert soft["policy_digest"] == POLICY.digest


def test_plan_is_valid_for_24_hours_of_the_given_clock(soft):
    assert (soft["made_at"], soft["valid_until"]) == ("2026-06-01T12:00:00Z", "2026-06-02T12:00:00Z")


def test_digest_is_the_sha256_of_the_canonical_json_without_it():
    plan = plan_for(replica("r1", replica_name='Zoë \u202e 山 "quoted"\n'))
    rest = {key: value for key, value in plan.items() if key != "digest"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    assert plan["digest"] == hashlib.sha256(text.encode("utf-8")).hexdigest()


def test_plan_survives_a_json_round_trip(soft):
    assert check(json.loads(json.dumps(soft))) == soft


def test_plan_does_not_depend_on_the_order_of_the_listing():
    rows = [replica(f"r{n}", days=100 + n % 3) for n in range(10)]
    assert plan_for(*rows)["digest"] == plan_for(*reversed(rows))["digest"]


def test_name_with_a_lone_surrogate_survives_planning_and_checking():
    plan = plan_for(replica("r1", replica_name="broken \ud83d name"))
    assert check(json.loads(json.dumps(plan)))["delete"][0]["replica_name"] == "broken \ud83d name"


# -- size


def test_plan_of_4000_deletes_fits_an_xcom_and_one_of_8000_does_not():
    def of(count):
        return plan_for(*(replica(f"r{n:011x}", replica_name="spring-campaign_anna") for n in range(count)))

    assert fits_xcom(of(4_000))
    assert not fits_xcom(of(8_000))


def test_size_is_measured_in_bytes_as_airflow_writes_them():
    assert fits_xcom({"name": "e" * 800_000})
    assert not fits_xcom({"name": "\u00e9" * 800_000})


@pytest.mark.parametrize("name", ["n" * 2**20, "\u0301" * 200_000, "a\ud83d", "a\0"], ids=ascii)
def test_no_name_from_tavus_breaks_a_plan_or_verdicts(name):
    row = {"replica_id": "r1", "replica_name": name, "replica_type": "user", "status": "completed"}
    decision = decide(Replica.from_api({**row, "created_at": "2026-01-01T00:00:00Z"}))
    plan = make_plan(decision, POLICY, now=NOW, hard=False, **CONNECTION)
    for document in (plan, make_verdicts(decision)):
        text = json.dumps(document, ensure_ascii=False)
        assert len(text.encode()) < 5_000
        assert "\0" not in text
        assert "\\u0000" not in json.dumps(document)
    assert plan["delete"][0]["replica_name"] == Replica.from_api(row).replica_name


def test_rows_left_out_are_counted_in_plan_and_reference():
    plan = plan_for(*(replica(f"r{n}x", days=None) for n in range(MAX_UNDETERMINED + 3)))
    assert (len(plan["undetermined"]), plan["left_out"]) == (MAX_UNDETERMINED, {"undetermined": 3})
    reference = plan_reference(plan, plan_at="place")
    assert reference["counts"] == {"delete": 0, "scheduled": 0, "undetermined": 4_503, "overdue": 0}
    assert "left_out" not in plan_for(replica("r1"))


def test_reference_has_the_plan_without_its_rows(soft):
    left_out = {"policy", "delete", "scheduled", "undetermined"}
    reference = plan_reference(soft, plan_at="s3://bucket/plan.json")
    assert reference == {
        **{key: value for key, value in soft.items() if key not in left_out},
        "plan_at": "s3://bucket/plan.json",
        "counts": {"delete": 1, "scheduled": 0, "undetermined": 1, "overdue": 0},
    }


# -- which plans may be carried out


def test_unchanged_plan_is_accepted(soft, hard):
    assert check(soft) is soft
    assert check(hard, hard=True) is hard


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"listed": 4}, id="count"),
        pytest.param({"hard": True}, id="hard"),
        pytest.param({"policy": {}}, id="policy"),
        pytest.param({"delete": []}, id="fewer deletes"),
        pytest.param({"valid_until": "2126-06-02T12:00:00Z"}, id="valid_until"),
        pytest.param({"more": 1}, id="additional key"),
        pytest.param({"digest": "0" * 64}, id="digest"),
    ],
)
def test_changed_plan_is_rejected(soft, change):
    for read in (check, verify_digest):
        with pytest.raises(
            PlanRejectedError, match="its content does not match its digest, so it was changed"
        ):
            read(soft | change)


def test_plan_with_a_null_digest_is_rejected(soft):
    with pytest.raises(PlanRejectedError, match=r"plan\.digest must be a string, not null"):
        check(soft | {"digest": None})


def test_plan_with_an_added_replica_is_rejected(soft):
    soft["delete"].append(soft["delete"][0] | {"replica_id": "r2"})
    with pytest.raises(PlanRejectedError, match="its content does not match its digest"):
        check(soft)


def test_unchanged_plan_has_a_verified_digest(hard):
    assert verify_digest(hard) is hard


@pytest.mark.parametrize(("planned", "task"), [(False, True), (True, False)])
def test_plan_is_valid_for_one_kind_of_delete_only(planned, task):
    plan = plan_for(replica("r1"), hard=planned)
    with pytest.raises(PlanRejectedError, match=f"it was made for hard={planned}, this task has hard={task}"):
        check(plan, hard=task)


@pytest.mark.parametrize("value", [1, 0, "False", None])
def test_plan_whose_hard_is_not_a_boolean_is_rejected(soft, value):
    with pytest.raises(PlanRejectedError, match=r"plan\.hard must be true or false, not "):
        check(sealed(soft, hard=value))


def test_plan_of_another_connection_is_rejected(soft):
    with pytest.raises(
        PlanRejectedError, match="it is for connection 'tavus_default', this task has 'tavus_eu'"
    ):
        check(soft, tavus_conn_id="tavus_eu")


def test_plan_is_rejected_if_its_connection_now_points_elsewhere(soft):
    with pytest.raises(
        PlanRejectedError, match=r"made for https://tavusapi.com, the connection now points to http://x"
    ):
        check(soft, origin="http://x")


def test_plan_expires_exactly_at_valid_until(soft):
    limit = NOW + timedelta(hours=24)
    assert check(soft, now=limit - timedelta(microseconds=1)) is soft
    with pytest.raises(PlanRejectedError, match="it expired at 2026-06-02T12:00:00Z"):
        check(soft, now=limit)


@pytest.mark.parametrize("value", [None, "", "{}", "None", [], 7, True, object()], ids=repr)
def test_value_that_is_not_an_object_is_rejected_with_a_hint(value):
    with pytest.raises(PlanRejectedError) as caught:
        check(value)
    assert str(caught.value) == (
        f"the plan is rejected: it is of type {type(value).__name__}, not a JSON object (pass the output of "
        "the plan task, and set render_template_as_native_obj=True on the DAG). Nothing was deleted; trigger "
        "a new run"
    )


@pytest.mark.parametrize("version", [0, 2, "1", 1.5, None, [1]], ids=repr)
def test_plan_of_another_version_is_rejected(soft, version):
    with pytest.raises(PlanRejectedError) as caught:
        check(sealed(soft, version=version))
    assert f"plan.version is {version!r}, this release of the provider reads 1" in str(caught.value)


@pytest.mark.parametrize("version", [True, 1.0], ids=repr)
def test_version_that_only_equals_1_is_rejected(soft, version):
    with pytest.raises(PlanRejectedError, match=r"plan\.version must be 1, not "):
        check(sealed(soft, version=version))


@pytest.mark.parametrize(
    "key",
    [
        *("version", "policy", "policy_digest", "digest", "made_at", "valid_until", "hard", "tavus_conn_id"),
        *("origin", "listed", "limits", "delete", "scheduled", "keep", "undetermined"),
    ],
)
def test_plan_without_one_of_its_keys_is_rejected_even_with_a_matching_digest(soft, key):
    del soft[key]
    plan = soft if key == "digest" else soft | {"digest": digest_of(soft)}
    for read in (check, verify_digest):
        with pytest.raises(PlanRejectedError, match=rf"plan\.{key} is missing\. Nothing was deleted"):
            read(plan)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"delete": None}, "plan.delete must be a list, not null", id="delete is null"),
        pytest.param({"delete": "r1"}, "plan.delete must be a list, not a string", id="delete is text"),
        pytest.param(
            {"delete": {"r1": 1}}, "plan.delete must be a list, not an object", id="delete is an object"
        ),
        pytest.param({"delete": ["r1"]}, "plan.delete[0] must be an object, not a string", id="row is text"),
        pytest.param(
            {"delete": [{"replica_id": "r1"}]},
            "plan.delete[0].replica_name is missing",
            id="row without name",
        ),
        pytest.param({"valid_until": "tomorrow"}, "valid_until is 'tomorrow', not an ISO 8601", id="no time"),
        pytest.param(
            {"valid_until": "2126-06-02T12:00:00"}, "not an ISO 8601 time with a time zone", id="no time zone"
        ),
        pytest.param({"valid_until": None}, "plan.valid_until must be a string, not null", id="null time"),
        pytest.param(
            {"listed": float("nan")}, "plan.listed must be an integer, not a fraction", id="nan as count"
        ),
        pytest.param(
            {"listed": True}, "plan.listed must be an integer, not true or false", id="bool as count"
        ),
        pytest.param({"policy": {"x": float("nan")}}, "does not match its digest", id="nan in the policy"),
        pytest.param({"policy": {"x": {1}}}, "does not match its digest", id="not JSON in the policy"),
        pytest.param(
            {"keep": {"kept": "3"}}, "plan.keep.kept must be an integer, not a string", id="text count"
        ),
    ],
)
def test_malformed_plan_is_rejected_with_the_place(soft, change, message):
    try:
        plan = sealed(soft, **change)
    except (TypeError, ValueError):
        plan = soft | change
    with pytest.raises(PlanRejectedError) as caught:
        check(plan)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(
            {"source": "by_name"},
            "source must be 'rule' or 'quota' or 'soft_deleted', not 'by_name'",
            id="source",
        ),
        pytest.param({"replica_name": 7}, "replica_name must be a string or null, not an integer", id="name"),
        pytest.param({"age_days": 1.5}, "age_days must be an integer or null, not a fraction", id="age"),
        pytest.param({"reason": None}, "reason must be a string, not null", id="reason"),
    ],
)
def test_malformed_row_is_rejected_with_the_place(soft, change, message):
    row = soft["delete"][0]
    with pytest.raises(PlanRejectedError) as caught:
        check(sealed(soft, delete=[row, row | change]))
    assert str(caught.value) == (
        f"the plan is rejected: plan.delete[1].{message}. Nothing was deleted; trigger a new run"
    )


@pytest.mark.parametrize("bad", ["..", "x?hard=true", "None", "", "a/b", "r1\n"], ids=repr)
def test_invalid_replica_id_rejects_the_whole_plan(soft, bad):
    row = soft["delete"][0]
    with pytest.raises(TavusError, match="is not a replica id"):
        check(sealed(soft, delete=[row, row | {"replica_id": bad}]))


@pytest.mark.parametrize("bad", [None, 1000], ids=repr)
def test_replica_id_of_another_type_rejects_the_whole_plan(soft, bad):
    row = soft["delete"][0]
    with pytest.raises(PlanRejectedError, match=r"plan\.delete\[1\]\.replica_id must be a string, not "):
        check(sealed(soft, delete=[row, row | {"replica_id": bad}]))


def test_plan_that_names_a_replica_twice_is_rejected(soft):
    with pytest.raises(PlanRejectedError, match="it names a replica twice"):
        check(sealed(soft, delete=soft["delete"] * 2))


def test_all_faults_are_named_on_one_line(hard):
    with pytest.raises(PlanRejectedError) as caught:
        check(hard, now=NOW + timedelta(days=2), origin="http://x")
    message = str(caught.value)
    assert "hard=True" in message
    assert "http://x" in message
    assert "it expired" in message
    assert message.endswith("Nothing was deleted; trigger a new run")
    assert "\n" not in message
