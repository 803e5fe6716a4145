from __future__ import annotations

import json
import random

import pytest

from tavus_provider.digest import seal
from tavus_provider.exceptions import PlanRejectedError, TavusValidationError
from tavus_provider.execution.executor import OUTCOMES, fitted, report_of
from tavus_provider.planning.batches import MAX_BATCHES, Batch, check_batch_size, split, summarize


def plan_of(many):
    """What of a plan the batches look at."""
    rows = [{"replica_id": f"r{n:05}", "replica_name": "anna", "rule": "old"} for n in range(many)]
    return seal({"hard": False, "delete": rows})


def ids(rows):
    return [row["replica_id"] for row in rows]


# -- what a batch is


@pytest.mark.parametrize("many", [0, 1, 2, 9, 10, 11, 99, 100, 2_000])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 10, 99, 100, 101, 100_000])
@pytest.mark.parametrize("max_batches", [1, 7, MAX_BATCHES])
def test_all_batches_are_the_plan_in_its_order_and_no_two_share_a_replica(many, batch_size, max_batches):
    plan = plan_of(many)
    batches = split(plan, batch_size=batch_size, max_batches=max_batches)
    rows = [batch.rows(plan) for batch in batches]
    assert [row for some in rows for row in some] == plan["delete"]
    assert len(batches) <= max_batches
    sizes = {len(some) for some in rows}
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert 0 not in sizes
    if many <= batch_size * max_batches:
        assert not sizes or max(sizes) <= batch_size


def test_batches_of_100000_replicas_stay_within_what_airflow_maps_and_stores():
    plan = plan_of(100_000)
    batches = split(plan, batch_size=1)
    assert len(batches) == MAX_BATCHES < 1_024
    assert len(json.dumps([{"batch": batch.as_json()} for batch in batches])) < 2**20
    assert sum(len(batch.rows(plan)) for batch in batches) == 100_000


def test_a_batch_names_no_replica():
    (batch,) = split(plan_of(3), batch_size=3)
    assert batch.as_json() == {"plan_digest": plan_of(3)["digest"], "number": 1, "of": 1}


def test_a_batch_says_which_part_of_the_plan_it_is():
    plan = plan_of(2_500)
    assert [batch.label(plan) for batch in split(plan, batch_size=1_000)] == [
        "1 to 833 of 2,500",
        "834 to 1,666 of 2,500",
        "1,667 to 2,500 of 2,500",
    ]


def test_a_batch_comes_back_from_json_as_it_was():
    plan = plan_of(10)
    for batch in split(plan, batch_size=3):
        assert Batch.read(json.loads(json.dumps(batch.as_json())), plan) == batch


def test_a_batch_of_another_plan_is_refused():
    (batch,) = split(plan_of(3), batch_size=3)
    with pytest.raises(PlanRejectedError, match=r"^the batch is one of another plan\. Nothing was deleted"):
        Batch.read(batch.as_json(), plan_of(4))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"number": 0}, id="zero"),
        pytest.param({"number": -1}, id="negative"),
        pytest.param({"number": 5}, id="beyond"),
        pytest.param({"of": 0}, id="of-none"),
        pytest.param({"number": True}, id="bool"),
        pytest.param({"number": "1"}, id="text"),
        pytest.param({"number": 1.0}, id="fraction"),
        pytest.param({"of": None}, id="null"),
        pytest.param({"plan_digest": None}, id="no-digest"),
        pytest.param({"delete": [{"replica_id": "r1"}]}, id="with-ids"),
    ],
)
def test_what_no_split_task_has_made_is_no_batch(change):
    plan = plan_of(8)
    good = {"plan_digest": plan["digest"], "number": 1, "of": 4}
    assert Batch.read(good, plan)
    with pytest.raises(PlanRejectedError, match="Nothing was deleted"):
        Batch.read(good | change, plan)


@pytest.mark.parametrize("value", [[], "1", 1, {}, ["plan_digest", "number", "of"]], ids=repr)
def test_what_is_no_mapping_of_its_three_parts_is_no_batch(value):
    with pytest.raises(
        PlanRejectedError, match=r"^batch is not what a split task makes, with plan_digest, number"
    ):
        Batch.read(value, plan_of(1))


@pytest.mark.parametrize("value", [0, -1, 100_001, True, 1.5, "10", None, "{{ x }}"], ids=repr)
def test_a_batch_size_is_a_whole_number_within_its_bounds(value):
    with pytest.raises(
        TavusValidationError, match=r"^batch_size is .*: expected a whole number from 1 to 100000$"
    ):
        check_batch_size(value)


# -- the one report


def reports_of(plan, batch_size, outcome="deleted", **more):
    return [
        report_of(
            plan,
            batch.rows(plan),
            dict.fromkeys(ids(batch.rows(plan)), (outcome, "said so")),
            **({"dry_run": False, "ledger": "a/try"} | more),
        )
        for batch in split(plan, batch_size=batch_size)
    ]


def summary_of(plan, reports, recorded=None):
    return summarize(plan, reports, recorded=recorded or {}, ledger="a/work")


def test_the_summary_of_all_reports_is_the_report_of_the_plan_whatever_their_order():
    plan = plan_of(10)
    reports = reports_of(plan, 3)
    random.Random(5).shuffle(reports)
    summary = summary_of(plan, reports)
    assert ids(summary["items"]) == ids(plan["delete"])
    assert summary == {
        "plan_digest": plan["digest"],
        "hard": False,
        "dry_run": False,
        "counts": dict.fromkeys(OUTCOMES, 0) | {"deleted": 10},
        "items": [
            {"replica_id": row["replica_id"], "outcome": "deleted", "detail": "said so"}
            for row in plan["delete"]
        ],
        "ledger": "a/work",
    }


def test_what_no_report_tells_of_is_told_by_the_ledger_or_was_not_attempted():
    plan = plan_of(6)
    recorded = {"r00003": "deleted", "r00004": None}
    summary = summary_of(plan, reports_of(plan, 3)[:1], recorded)
    assert [(item["outcome"], item["detail"]) for item in summary["items"][3:]] == [
        ("deleted", "in no report; the ledger says so"),
        ("unknown", "in no report; the ledger has its intent only"),
        ("not_attempted", "neither a report nor the ledger tells of it"),
    ]
    assert sum(summary["counts"].values()) == 6


def test_without_any_report_nothing_was_attempted():
    assert summary_of(plan_of(3), [])["counts"]["not_attempted"] == 3


def test_the_summary_of_dry_runs_is_a_dry_run_also_where_items_were_left_out():
    plan = plan_of(6)
    reports = reports_of(plan, 3, outcome="skipped", dry_run=True, ledger=None)
    reports[1]["items"] = []
    summary = summary_of(plan, reports)
    assert (summary["dry_run"], summary["counts"]["skipped"]) == (True, 6)


def test_one_report_that_was_no_dry_run_makes_the_summary_none():
    plan = plan_of(6)
    reports = [reports_of(plan, 3, outcome="skipped", dry_run=True)[0], reports_of(plan, 3)[1]]
    assert summary_of(plan, reports)["dry_run"] is False


@pytest.mark.parametrize("report", [None, {}, [], "x", {"plan_digest": "0" * 64, "items": []}], ids=repr)
def test_a_report_of_another_plan_is_refused(report):
    with pytest.raises(PlanRejectedError, match=r"^a report is not one of this plan"):
        summary_of(plan_of(3), [report])


def test_a_replica_in_two_reports_is_refused():
    plan = plan_of(6)
    with pytest.raises(PlanRejectedError, match=r"^replica r00000 stands in two reports"):
        summary_of(plan, [reports_of(plan, 3)[0], reports_of(plan, 6)[0]])


def test_a_replica_that_is_not_in_the_plan_is_refused():
    plan = plan_of(6)
    report = reports_of(plan, 6)[0]
    report["items"].append({"replica_id": "r9", "outcome": "deleted", "detail": "?"})
    with pytest.raises(
        PlanRejectedError, match=r"^replica r9 stands in two reports, or in one and not in the plan"
    ):
        summary_of(plan, [report])


# -- a report as an XCom


def test_a_report_of_100000_fits_into_an_xcom_with_all_its_counts_and_what_is_red_first():
    plan = plan_of(100_000)
    outcomes = {row["replica_id"]: ("deleted", "DELETE returned 200") for row in plan["delete"]}
    outcomes |= {"r99998": ("unknown", "no answer"), "r99999": ("failed", "409")}
    whole = report_of(plan, plan["delete"], outcomes, dry_run=False, ledger="a/try")
    cut = fitted(whole)
    assert 800_000 < len(json.dumps(cut)) <= 900_000
    assert cut["counts"] == whole["counts"]
    assert ids(cut["items"][:3]) == ["r99998", "r99999", "r00000"]
    assert len(cut["items"]) + cut["items_left_out"] == 100_000


def test_a_report_that_fits_is_left_as_it_is():
    plan = plan_of(3)
    (report,) = reports_of(plan, 3)
    assert fitted(report) is report
