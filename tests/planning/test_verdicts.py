"""The ``verdicts`` document."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from tavus_provider.models import Replica
from tavus_provider.planning.plan import MAX_XCOM_BYTES
from tavus_provider.planning.verdicts import MAX_ROWS, fit_xcom, make_verdicts, with_location
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
POLICY = Policy.parse({"name": "stale", "expire": [{"rule": "old", "older_than": "90d"}]})


def replica(replica_id, days=200, *, name=None):
    created_at = None if days is None else NOW - timedelta(days=days)
    return Replica(
        replica_id,
        replica_name=name or f"name of {replica_id}",
        status="completed",
        replica_type="user",
        created_at=created_at,
        updated_at=created_at,
    )


def verdicts(*replicas):
    """Return the verdicts as they are pushed."""
    return fit_xcom(make_verdicts(evaluate(POLICY, Inventory(replicas), now=NOW)))


def test_verdicts_have_every_replica_with_its_reason():
    found = verdicts(replica("r1"), replica("r2", days=3), replica("r3", days=None))
    for row in found["rows"]:
        assert row.pop("checks")[-1] == [row["reason_code"], row["reason"]]
    assert found == {
        "version": 1,
        "rows": [
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
        ],
        "counts": {"expired": 1, "not_expired": 1, "undetermined": 1},
    }


def test_row_has_what_each_check_saw_up_to_the_deciding_one():
    (row,) = verdicts(replica("r2", days=3))["rows"]
    assert row["checks"] == [
        ["not_user", "replica_type is 'user'"],
        ["out_of_scope", "the scope includes every replica"],
        ["held", "no legal hold"],
        ["erasure_open", "no open erasure"],
        ["soft_deleted", "not soft-deleted by this package"],
        ["no_hard_delete_after", "not soft-deleted by this package"],
        ["hard_delete_after", "not soft-deleted by this package"],
        ["undetermined", "status is 'completed', created on 2026-05-29"],
        ["protected", "in no list of protected ids"],
        ["in_use", "no persona and no active conversation and no unfinished video has it"],
        ["training", "status is 'completed'"],
        ["failed_recently", "status is 'completed'"],
        ["keep_within", "keep_within is not set"],
        ["keep_last", "keep_last is not set"],
        ["too_young", "narrow.older_than is not set"],
        ["scheduled", "no rule matches"],
        ["expired", "3 days old, rule 'old' asks for 90d"],
        ["quota", "quota is not set"],
        ["not_expired", "3 days old, rule 'old' asks for 90d"],
    ]


def test_checks_are_left_out_where_the_document_would_not_fit_an_xcom():
    rows = [replica(f"r{n}x", days=3) for n in range(700)]
    assert all("checks" in row for row in verdicts(*rows)["rows"])
    rows = [replica(f"r{n}x", days=3) for n in range(1_500)]
    document = verdicts(*rows)
    assert len(document["rows"]) == 1_500
    assert not any("checks" in row for row in document["rows"])
    complete = make_verdicts(evaluate(POLICY, Inventory(rows), now=NOW))
    assert fit_xcom(complete) == document
    assert all(row["checks"] for row in complete["rows"])


@pytest.mark.parametrize("count", [870, 890, 910, 930])
def test_document_with_checks_is_never_larger_than_an_xcom(count):
    document = verdicts(*(replica(f"r{n}x", days=3) for n in range(count)))
    assert len(json.dumps(document["rows"], separators=(",", ":"))) <= MAX_XCOM_BYTES


def test_size_of_names_is_measured_as_json():
    rows = [replica(f"r{n}x", days=3, name="\U0001f600" * 40) for n in range(1_600)]
    assert verdicts(*rows)["rows"] == []


def test_more_than_4500_verdicts_are_replaced_by_counts_and_a_notice():
    rows = [replica(f"r{n}x", days=3) for n in range(MAX_ROWS)]
    complete = verdicts(*rows)
    assert len(complete["rows"]) == MAX_ROWS == 4_500
    assert "notice" not in complete
    assert verdicts(*rows, replica("r1")) == {
        "version": 1,
        "rows": [],
        "counts": {"expired": 1, "not_expired": 4_500},
        "notice": "4501 verdicts are too many for an XCom",
    }


def test_location_of_the_complete_document_is_named():
    where = "s3://b/x.verdicts.json"
    few = verdicts(replica("r1"))
    assert with_location(few, where) == few | {"verdicts_at": where}
    assert with_location(few, None) == few
    none = verdicts() | {"notice": "4501 verdicts are too many for an XCom"}
    assert with_location(none, where) == none | {
        "verdicts_at": where,
        "notice": f"4501 verdicts are too many for an XCom; they are stored at {where}",
    }
    assert with_location(none, None)["notice"] == (
        "4501 verdicts are too many for an XCom and could not be stored; the log of the task says why"
    )
