"""Reports: of one task, of a dry run, of all batches, and cut to the size of an XCom."""

from __future__ import annotations

import json
import random

import pytest

from tavus_provider.digest import seal
from tavus_provider.exceptions import PlanRejectedError
from tavus_provider.outcomes import ORDER, UNFINISHED, Outcome
from tavus_provider.planning.batches import split
from tavus_provider.planning.report import (
    Result,
    dry_run_report,
    make_report,
    summarize,
    truncate_report,
    unfinished_message,
)

EACH_KEY = ("version", "plan_digest", "hard", "dry_run", "counts", "items", "ledger")


def plan_of(count, *, hard=False):
    """Return what reports use of a plan."""
    rows = [{"replica_id": f"r{n:05}", "replica_name": "anna", "rule": "old"} for n in range(count)]
    account = {"tavus_conn_id": "eu", "origin": "https://tavusapi.com"}
    return seal({**account, "hard": hard, "delete": rows})


def ids(rows):
    return [row["replica_id"] for row in rows]


def batch_reports(plan, batch_size, outcome=Outcome.DELETED, **fields):
    return [
        make_report(
            plan,
            batch.rows(plan),
            dict.fromkeys(ids(batch.rows(plan)), Result(outcome, "returned 200")),
            **({"dry_run": False, "ledger": "job/attempt"} | fields),
        )
        for batch in split(plan, batch_size=batch_size)
    ]


def summary_of(plan, reports, recorded=None, *, is_dry_run=False):
    """Summarize; without ``recorded`` the ledger has the outcomes that the reports claim."""
    if recorded is None:
        recorded = {item["replica_id"]: Outcome(item["outcome"]) for one in reports for item in one["items"]}
    return summarize(plan, reports, recorded=recorded, is_dry_run=is_dry_run, ledger="job")


# -- one report


def test_report_counts_every_outcome_and_sums_to_the_plan():
    plan = plan_of(len(ORDER), hard=True)
    results = {
        row["replica_id"]: Result(outcome, "detail")
        for row, outcome in zip(plan["delete"], ORDER, strict=True)
    }
    report = make_report(plan, plan["delete"], results, dry_run=False, ledger=None)
    assert json.loads(json.dumps(report)) == {
        "version": 1,
        "plan_digest": plan["digest"],
        "tavus_conn_id": "eu",
        "origin": "https://tavusapi.com",
        "hard": True,
        "dry_run": False,
        "counts": dict.fromkeys([outcome.value for outcome in ORDER], 1),
        "items": [
            {"replica_id": replica_id, "outcome": outcome.value, "detail": "detail"}
            for replica_id, outcome in zip(ids(plan["delete"]), ORDER, strict=True)
        ],
        "ledger": None,
    }


def test_report_holds_plain_strings():
    """Airflow shows an XCom by its repr, in which a member of an enumeration is hard to read."""
    (report,) = batch_reports(plan_of(1), 1)
    assert {type(item["outcome"]) for item in report["items"]} == {str}
    assert {type(outcome) for outcome in report["counts"]} == {str}


def test_dry_run_report_skips_every_replica():
    plan = plan_of(3)
    report = dry_run_report(plan)
    assert (report["dry_run"], report["counts"]["skipped"], report["ledger"]) == (True, 3, None)
    assert {(item["outcome"], item["detail"]) for item in report["items"]} == {("skipped", "dry run")}
    assert ids(dry_run_report(plan, plan["delete"][:1])["items"]) == ["r00000"]


@pytest.mark.parametrize("outcome", ORDER)
def test_unfinished_message_is_given_for_exactly_the_unfinished_outcomes(outcome):
    plan = plan_of(3)
    results = dict.fromkeys(ids(plan["delete"]), Result(Outcome.DELETED, ""))
    results["r00001"] = Result(outcome, "")
    message = unfinished_message(make_report(plan, plan["delete"], results, dry_run=False, ledger=None))
    expected = "1 of 3 planned replicas may still exist: see the report"
    assert message == (expected if outcome in UNFINISHED else None)


# -- the report of all batches


def test_summary_is_the_report_of_the_plan_in_any_order_of_the_reports():
    plan = plan_of(10)
    reports = batch_reports(plan, 3)
    random.Random(5).shuffle(reports)
    summary = summary_of(plan, reports)
    assert ids(summary["items"]) == ids(plan["delete"])
    assert summary == {
        "version": 1,
        "plan_digest": plan["digest"],
        "tavus_conn_id": "eu",
        "origin": "https://tavusapi.com",
        "hard": False,
        "dry_run": False,
        "counts": dict.fromkeys(ORDER, 0) | {"deleted": 10},
        "items": [
            {"replica_id": row["replica_id"], "outcome": "deleted", "detail": "returned 200"}
            for row in plan["delete"]
        ],
        "ledger": "job",
    }


def test_replicas_without_a_report_get_the_outcome_of_the_ledger():
    plan = plan_of(6)
    recorded = dict.fromkeys(["r00000", "r00001", "r00002", "r00003"], Outcome.DELETED) | {"r00004": None}
    summary = summary_of(plan, batch_reports(plan, 3)[:1], recorded)
    assert [(item["outcome"], item["detail"]) for item in summary["items"][3:]] == [
        ("deleted", "not in the reports; outcome taken from the ledger"),
        ("unknown", "not in the reports; the ledger has only the intent to delete it"),
        ("not_attempted", "in neither the reports nor the ledger"),
    ]
    assert sum(summary["counts"].values()) == 6


@pytest.mark.parametrize(
    ("recorded", "outcome", "detail"),
    [
        pytest.param({}, "not_attempted", "but it is not in the ledger", id="nothing"),
        pytest.param({"r00000": None}, "unknown", "the ledger has only the intent", id="intent"),
        pytest.param({"r00000": Outcome.FAILED}, "failed", "taken from the ledger", id="failed"),
        pytest.param({"r00000": Outcome.SKIPPED}, "skipped", "taken from the ledger", id="skipped"),
    ],
)
def test_outcome_of_the_ledger_wins_over_a_report(recorded, outcome, detail):
    plan = plan_of(1)
    (item,) = summary_of(plan, batch_reports(plan, 1), recorded)["items"]
    assert (item["outcome"], item["detail"].split(" says ")[0]) == (outcome, "the report of its task")
    assert detail in item["detail"]


def test_outcome_of_the_ledger_wins_over_a_report_that_claims_less():
    plan = plan_of(1)
    reports = batch_reports(plan, 1, outcome=Outcome.SKIPPED)
    assert summary_of(plan, reports, {"r00000": Outcome.DELETED})["counts"]["deleted"] == 1


@pytest.mark.parametrize(
    ("is_dry_run", "recorded"),
    [
        pytest.param(False, {}, id="the run is real"),
        pytest.param(True, {"r00000": Outcome.DELETED}, id="something is recorded"),
    ],
)
def test_report_cannot_claim_a_dry_run(is_dry_run, recorded):
    plan = plan_of(3)
    reports = batch_reports(plan, 3, outcome=Outcome.SKIPPED, dry_run=True, ledger=None)
    summary = summary_of(plan, reports, recorded, is_dry_run=is_dry_run)
    assert (summary["dry_run"], summary["counts"]["skipped"]) == (False, 0)
    assert unfinished_message(summary)


def test_summary_without_reports_has_attempted_nothing():
    assert summary_of(plan_of(3), [], {})["counts"]["not_attempted"] == 3


def test_summary_of_dry_runs_is_a_dry_run_even_if_items_were_left_out():
    plan = plan_of(6)
    reports = batch_reports(plan, 3, outcome=Outcome.SKIPPED, dry_run=True, ledger=None)
    reports[1]["items"] = []
    summary = summary_of(plan, reports, {}, is_dry_run=True)
    assert (summary["dry_run"], summary["counts"]["skipped"]) == (True, 6)


def test_summary_with_one_real_run_is_not_a_dry_run():
    plan = plan_of(6)
    reports = [
        batch_reports(plan, 3, outcome=Outcome.SKIPPED, dry_run=True)[0],
        batch_reports(plan, 3)[1],
    ]
    assert summary_of(plan, reports, {}, is_dry_run=True)["dry_run"] is False


@pytest.mark.parametrize("report", [None, {}, [], "x", {"plan_digest": "0" * 64, "items": []}], ids=repr)
def test_value_that_is_not_a_report_is_rejected(report):
    with pytest.raises(PlanRejectedError, match=r"^a report is not one of this plan: report"):
        summary_of(plan_of(3), [report], {})


def test_report_of_another_plan_is_rejected():
    with pytest.raises(PlanRejectedError, match=r"report\.plan_digest is that of another plan"):
        summary_of(plan_of(3), batch_reports(plan_of(4), 4), {})


@pytest.mark.parametrize("key", EACH_KEY)
def test_report_without_one_of_its_keys_is_rejected(key):
    plan = plan_of(3)
    (report,) = batch_reports(plan, 3)
    del report[key]
    with pytest.raises(PlanRejectedError, match=rf"report\.{key} is missing"):
        summary_of(plan, [report], {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"version": 2}, "report.version must be 1, not 2", id="version"),
        pytest.param(
            {"dry_run": "False"}, "report.dry_run must be true or false, not a string", id="dry_run"
        ),
        pytest.param({"items": [{}]}, "report.items[0].replica_id is missing", id="item"),
        pytest.param(
            {"items": [{"replica_id": "r00000", "outcome": "vanished", "detail": ""}]},
            "report has the unknown outcome 'vanished'",
            id="outcome",
        ),
    ],
)
def test_malformed_report_is_rejected(change, message):
    plan = plan_of(3)
    (report,) = batch_reports(plan, 3)
    with pytest.raises(PlanRejectedError) as caught:
        summary_of(plan, [report | change], {})
    assert message in str(caught.value)


def test_replica_in_two_reports_is_rejected():
    plan = plan_of(6)
    with pytest.raises(PlanRejectedError, match=r"^replica r00000 is in two reports"):
        summary_of(plan, [batch_reports(plan, 3)[0], batch_reports(plan, 6)[0]])


def test_replica_that_is_not_in_the_plan_is_rejected():
    plan = plan_of(6)
    report = batch_reports(plan, 6)[0]
    report["items"].append({"replica_id": "r9", "outcome": "deleted", "detail": "?"})
    with pytest.raises(
        PlanRejectedError, match=r"^replica r9 is in two reports, or in a report but not in the plan"
    ):
        summary_of(plan, [report])


# -- a report as an XCom


def test_report_of_100000_is_cut_to_an_xcom_with_all_counts_and_unfinished_items_first():
    plan = plan_of(100_000)
    results = {row["replica_id"]: Result(Outcome.DELETED, "DELETE returned 200") for row in plan["delete"]}
    results |= {
        "r99998": Result(Outcome.UNKNOWN, "no response"),
        "r99999": Result(Outcome.FAILED, "409"),
    }
    whole = make_report(plan, plan["delete"], results, dry_run=False, ledger="job/attempt")
    cut = truncate_report(whole)
    assert 800_000 < len(json.dumps(cut)) <= 900_000
    assert cut["counts"] == whole["counts"]
    assert ids(cut["items"][:3]) == ["r99998", "r99999", "r00000"]
    assert len(cut["items"]) + cut["items_left_out"] == 100_000


def test_report_that_fits_is_not_changed():
    (report,) = batch_reports(plan_of(3), 3)
    assert truncate_report(report) is report
