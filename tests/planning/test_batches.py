"""Batches: parts of a plan."""

from __future__ import annotations

import json

import pytest

from tavus_provider.digest import seal
from tavus_provider.exceptions import PlanRejectedError, TavusValidationError
from tavus_provider.planning.batches import MAX_BATCHES, Batch, check_batch_size, split


def plan_of(count):
    """Return what batches use of a plan."""
    rows = [{"replica_id": f"r{n:05}", "replica_name": "anna", "rule": "old"} for n in range(count)]
    return seal({"hard": False, "delete": rows})


@pytest.mark.parametrize("count", [0, 1, 2, 9, 10, 11, 99, 100, 2_000])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 10, 99, 100, 101, 100_000])
@pytest.mark.parametrize("max_batches", [1, 7, MAX_BATCHES])
def test_batches_partition_the_plan_in_its_order(count, batch_size, max_batches):
    plan = plan_of(count)
    batches = split(plan, batch_size=batch_size, max_batches=max_batches)
    rows = [batch.rows(plan) for batch in batches]
    assert [row for some in rows for row in some] == plan["delete"]
    assert len(batches) <= max_batches
    sizes = {len(some) for some in rows}
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert 0 not in sizes
    if count <= batch_size * max_batches:
        assert not sizes or max(sizes) <= batch_size


def test_batches_of_100000_replicas_can_be_mapped_and_stored_by_airflow():
    plan = plan_of(100_000)
    batches = split(plan, batch_size=1)
    assert len(batches) == MAX_BATCHES < 1_024
    assert len(json.dumps([{"batch": batch.to_json()} for batch in batches])) < 2**20
    assert sum(len(batch.rows(plan)) for batch in batches) == 100_000


def test_batch_document_names_no_replica():
    (batch,) = split(plan_of(3), batch_size=3)
    assert batch.to_json() == {"version": 1, "plan_digest": plan_of(3)["digest"], "number": 1, "of": 1}


def test_label_says_which_rows_a_batch_covers():
    plan = plan_of(2_500)
    assert [batch.label(plan) for batch in split(plan, batch_size=1_000)] == [
        "1 to 833 of 2,500",
        "834 to 1,666 of 2,500",
        "1,667 to 2,500 of 2,500",
    ]


def test_batch_survives_a_json_round_trip():
    plan = plan_of(10)
    for batch in split(plan, batch_size=3):
        assert Batch.parse(json.loads(json.dumps(batch.to_json())), plan=plan) == batch


def test_batch_of_another_plan_is_rejected():
    (batch,) = split(plan_of(3), batch_size=3)
    with pytest.raises(
        PlanRejectedError,
        match=r"^the batch belongs to another plan: pass the same plan .* Nothing was deleted",
    ):
        Batch.parse(batch.to_json(), plan=plan_of(4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"number": 0}, "invalid batch 0 of 4.", id="zero"),
        pytest.param({"number": -1}, "invalid batch -1 of 4.", id="negative"),
        pytest.param({"number": 5}, "invalid batch 5 of 4.", id="above of"),
        pytest.param({"of": 0}, "invalid batch 1 of 0.", id="of zero"),
        pytest.param({"number": True}, "batch.number must be an integer, not true or false", id="bool"),
        pytest.param({"number": "1"}, "batch.number must be an integer, not a string", id="text"),
        pytest.param({"number": 1.0}, "batch.number must be an integer, not a fraction", id="fraction"),
        pytest.param({"of": None}, "batch.of must be an integer, not null", id="null"),
        pytest.param({"plan_digest": None}, "batch.plan_digest must be a string, not null", id="no digest"),
        pytest.param({"version": 2}, "batch.version must be 1, not 2", id="version"),
        pytest.param({"delete": [{"replica_id": "r1"}]}, "unknown key 'delete'", id="additional key"),
    ],
)
def test_malformed_batch_is_rejected(change, message):
    plan = plan_of(8)
    good = {"version": 1, "plan_digest": plan["digest"], "number": 1, "of": 4}
    assert Batch.parse(good, plan=plan)
    with pytest.raises(PlanRejectedError) as caught:
        Batch.parse(good | change, plan=plan)
    assert message in str(caught.value)
    assert str(caught.value).endswith("Nothing was deleted")


@pytest.mark.parametrize("value", [[], "1", 1, ["plan_digest", "number", "of"]], ids=repr)
def test_value_that_is_not_an_object_is_rejected_as_a_batch(value):
    with pytest.raises(PlanRejectedError, match=r"^invalid batch: batch must be an object, not "):
        Batch.parse(value, plan=plan_of(1))


@pytest.mark.parametrize("key", ["version", "plan_digest", "number", "of"])
def test_batch_without_one_of_its_keys_is_rejected(key):
    plan = plan_of(8)
    batch = split(plan, batch_size=2)[0].to_json()
    del batch[key]
    with pytest.raises(PlanRejectedError, match=rf"^invalid batch: batch\.{key} is missing"):
        Batch.parse(batch, plan=plan)


@pytest.mark.parametrize("value", [0, -1, 100_001, True, 1.5, "10", None, "{{ x }}"], ids=repr)
def test_batch_size_out_of_bounds_is_rejected(value):
    with pytest.raises(
        TavusValidationError, match=r"^batch_size is .*: expected an integer from 1 to 100000$"
    ):
        check_batch_size(value)


@pytest.mark.parametrize("value", [1, 100_000])
def test_batch_size_within_bounds_is_returned(value):
    assert check_batch_size(value) == value
