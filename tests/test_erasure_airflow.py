"""Erase a person on a running Airflow: the form, the approval, and the certificate in a browser."""

from __future__ import annotations

import json

import pytest
from airflow_server import ROOT
from browser import in_browser, save_screenshot

FACE = "r09d7f2c4b6a"
ACTIVE = "conversation/c0eaa60a267274af"
DAG = "tavus_erase_person"
CONF = {"received_on": "2026-11-01", "replica_ids": [FACE]}


@pytest.fixture(scope="module")
def airflow(start_airflow, tmp_path_factory):
    dags = tmp_path_factory.mktemp("dags")
    for name in (DAG, "tavus_erasures"):
        (dags / f"{name}.py").write_text((ROOT / "dags" / f"{name}.py").read_text())
    return start_airflow(dags)


@pytest.fixture(autouse=True)
def _account(airflow):
    airflow.control_sandbox("reset")


def certificates(airflow, request):
    return airflow.home / "tavus-ledger" / "_certificates" / request


def test_reject_skips_the_certificate_too_and_approve_erases(airflow):
    rejected = airflow.trigger(DAG, request="DSR-2026-0001", **CONF)
    page = airflow.page(rejected)
    assert page["subject"].startswith("Erase a person from Tavus (DSR-2026-0001)?")
    assert ACTIVE.partition("/")[2] in page["body"]
    airflow.answer(rejected, "Reject")
    assert airflow.finished(rejected) == (
        "success",
        {"plan": "success", "approve": "success", "apply": "skipped", "certify": "skipped"},
    )
    assert airflow.state()["deletes"] == []

    approved = airflow.trigger(DAG, request="DSR-2026-0001", **CONF)
    airflow.page(approved)
    airflow.answer(approved, "Approve")
    assert airflow.finished(approved) == (
        "success",
        dict.fromkeys(("plan", "approve", "apply", "certify"), "success"),
    )
    certificate = airflow.xcom(approved, "certify")
    assert certificate["state"] == "complete"
    assert [item["key"] for item in certificate["items"]] == [FACE, ACTIVE]
    assert [one["approved_by"] for one in certificate["approvals"]] == ["admin"]
    stored = certificates(airflow, "DSR-2026-0001") / "1.json"
    assert json.loads(stored.read_text()) == certificate


def test_nothing_left_needs_no_approval_and_is_certified(airflow):
    """A second run after one whose certificate was lost, for example."""
    for state in ("Approve", None):
        run = airflow.trigger(DAG, request="DSR-2026-0002", **CONF)
        if state is not None:
            airflow.page(run)
            airflow.answer(run, state)
        outcome, tasks = airflow.finished(run)
        assert (outcome, tasks["certify"]) == ("success", "success")
    assert tasks["approve"] == "skipped"
    assert airflow.xcom(run, "certify")["number"] == 2


@in_browser
def test_browser_form_approval_and_certificate(airflow, sign_in):
    page = sign_in()
    page.goto(f"{airflow.url}/dags/{DAG}")
    page.get_by_role("button", name="Trigger").first.click()
    submit = page.locator("[role=dialog]").get_by_role("button", name="Trigger")
    reference = page.locator("[name=element_request]")
    reference.wait_for()
    assert page.get_by_text("No name and no e-mail address").is_visible()
    reference.fill("DSR-2026-0003")
    page.locator("[name=element_received_on]").fill("2026-11-01")
    page.locator("[name=element_replica_ids]").fill(FACE)
    save_screenshot(page, "erasure-form")
    submit.click()
    run = airflow.wait_for(
        lambda: [
            run
            for run in airflow.api(f"/dags/{DAG}/dagRuns")["dag_runs"]
            if run["conf"].get("request") == "DSR-2026-0003"
        ]
    )[0]
    path = f"/dags/{DAG}/dagRuns/{run['dag_run_id']}"
    airflow.page(path)
    page.goto(f"{airflow.url}{path.replace('/dagRuns/', '/runs/')}/tasks/approve/required_actions")
    page.get_by_text("what other people said").wait_for()
    for kind in ("Replicas to delete (1)", "Conversations to delete (1)"):
        assert page.get_by_text(kind).is_visible()
    save_screenshot(page, "erasure-approval")
    page.get_by_role("button", name="Approve").first.click()
    assert airflow.finished(path)[0] == "success"
    page.goto((certificates(airflow, "DSR-2026-0003") / "1.html").as_uri())
    assert page.get_by_text("Complete", exact=True).is_visible()
    assert page.get_by_text("user admin on").is_visible()
    save_screenshot(page, "erasure-certificate", full_page=True)


@in_browser
def test_browser_page_has_the_state_of_each_request(airflow, sign_in):
    conf = {**CONF, "received_on": "2026-09-01"}
    waiting = airflow.trigger(DAG, request="DSR-2026-0004", **conf)
    airflow.page(waiting)
    airflow.answer(waiting, "Reject")
    assert airflow.finished(waiting)[0] == "success"
    failed = airflow.trigger(DAG, request="DSR-2026-0005", **CONF | {"replica_ids": ["rmissing00"]})
    assert airflow.finished(failed)[0] == "failed"
    done = airflow.trigger(DAG, request="DSR-2026-0006", **CONF)
    airflow.page(done)
    airflow.answer(done, "Approve")
    assert airflow.finished(done)[0] == "success"
    page = sign_in("viewer")
    page.goto(f"{airflow.url}/plugin/tavus")
    frame = page.frame_locator("iframe[title=Tavus]")
    frame.locator("#erasures tbody tr").first.wait_for()
    rows = {row.split()[0]: row for row in frame.locator("#erasures tbody tr").all_inner_texts()}
    assert "rejected by admin" in rows["DSR-2026-0004"]
    assert "The request is open" in rows["DSR-2026-0004"]
    assert "2026-10-01 overdue" in rows["DSR-2026-0004"]
    assert "rmissing00" in rows["DSR-2026-0005"]
    assert "complete; certificate 1 is at" in rows["DSR-2026-0006"]
    save_screenshot(page, "page-erasures-airflow", full_page=True)
