"""
Tests on a running Airflow, as ``make airflow`` starts it: approvals, forms, restarts.

``dag.test`` cannot answer an approval, so everything that needs one is tested here, over the REST API.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from airflow.sdk import ObjectStoragePath
from airflow_server import ROOT, Airflow
from browser import in_browser, save_screenshot

from tavus_provider.storage.ledger_verify import compare_report, verify


@pytest.fixture(scope="module")
def airflow(start_airflow, tmp_path_factory):
    """Airflow with the DAGs of the project and two copies of the purge DAG with one line changed."""
    dags = tmp_path_factory.mktemp("dags")
    for file in (ROOT / "dags").glob("*.py"):
        (dags / file.name).write_text(file.read_text())
    purge = (ROOT / "dags" / "tavus_purge_replicas.py").read_text()
    for name, old, new in (
        ("impatient", 'task_id="approve",', 'task_id="approve", response_timeout=timedelta(seconds=1),'),
        ("three", '"include": ["*"]', '"include": ["product-launch_*"]'),
        (
            "many",
            '{"max_deletions": 10, "max_deletion_percent": 25}',
            '{"max_deletions": 400, "max_deletion_percent": 100}',
        ),
        ("held", '"limits":', f'"legal_holds": {{"file": "{dags}/holds.json", "max_age": "7d"}}, "limits":'),
    ):
        assert purge.count(old) == 1
        changed = purge.replace(old, new).replace("tavus_purge_replicas", f"purge_{name}")
        changed = changed.replace("import UTC, datetime", "import UTC, datetime, timedelta")
        (dags / f"{name}.py").write_text(changed)
    accounts = (ROOT / "dags" / "tavus_purge_accounts.py").read_text()
    for old, new in (
        ('"tavus_purge_accounts"', '"purge_two"'),
        ('["tavus_default"]', '["tavus_default", "second"]'),
    ):
        assert accounts.count(old) == 1
        accounts = accounts.replace(old, new)
    (dags / "two_accounts.py").write_text(accounts)
    (dags / "holds.json").write_text("[]")
    return start_airflow(dags)


def test_rejected_purge_deletes_nothing_and_approved_purge_deletes_what_was_shown(airflow):
    rejected = airflow.trigger("tavus_purge_replicas", include=["spring-*", "summer-*"])
    page = airflow.page(rejected)
    digest = airflow.xcom(rejected, "plan")["digest"]
    assert page["options"] == ["Approve", "Reject"]
    assert page["subject"] == "Delete 2 Tavus replicas permanently?"
    assert digest in page["body"]
    assert "r1a0c5e8f3b2" in page["body"]
    assert "r2b9d41c07ae" in page["body"]
    airflow.answer(rejected, "Reject")
    assert airflow.finished(rejected) == (
        "success",
        {"plan": "success", "approve": "success", "apply": "skipped"},
    )
    assert airflow.state()["deletes"] == []

    approved = airflow.trigger("tavus_purge_replicas", include=["spring-*", "summer-*"])
    airflow.page(approved)
    assert airflow.state()["deletes"] == []
    airflow.answer(approved, "Approve")
    assert airflow.finished(approved) == (
        "success",
        {"plan": "success", "approve": "success", "apply": "success"},
    )
    plan, report = airflow.xcom(approved, "plan"), airflow.xcom(approved, "apply")
    assert plan["digest"] == report["plan_digest"]
    assert report["counts"]["deleted"] == 2
    deletes = airflow.state()["deletes"]
    assert sorted(row["replica_id"] for row in deletes) == ["r1a0c5e8f3b2", "r2b9d41c07ae"]
    assert all(row["hard"] for row in deletes)

    attempts, findings = verify(ObjectStoragePath(str(airflow.home / "tavus-ledger")))
    assert findings == []
    assert compare_report(attempts, report) == []
    begun = [
        attempt.begin_record
        for attempt in attempts
        if attempt.begin_record.get("plan_digest") == plan["digest"]
    ]
    assert [began["kind"] for began in begun] == ["planned", "shown", "answered", "begin"]
    assert (begun[2]["answer"], begun[2]["answered_by"]) == ("approve", "admin")


def test_each_account_of_a_purge_has_its_own_approval(airflow):
    second = {"connection_id": "second", "conn_type": "tavus", "host": airflow.sandbox, "password": "sandbox"}
    airflow.api("/connections", "POST", json=second)
    row = {"replica_id": "rtwo00000001", "replica_name": "two-accounts_1", "age": "200d"}
    airflow.control_sandbox("replicas", [row])
    run = airflow.trigger("purge_two", include=["two-accounts_*"])
    for at, connection in enumerate(("tavus_default", "second")):
        assert connection in airflow.page(run, map_index=at)["body"].replace("&#95;", "_")
    before = airflow.state()["deletes"]
    airflow.answer(run, "Reject", map_index=0)
    airflow.answer(run, "Approve", map_index=1)
    state, tasks = airflow.finished(run)
    assert (state, tasks["apply[0]"], tasks["apply[1]"]) == ("success", "skipped", "success")
    assert airflow.xcom(run, "apply", map_index=1)["tavus_conn_id"] == "second"
    assert airflow.state()["deletes"][len(before) :] == [{"replica_id": "rtwo00000001", "hard": True}]


def test_log_of_a_refusal_begins_with_one_line_that_says_why(airflow):
    run = airflow.trigger("tavus_prune_replicas", dryrun=True)
    assert airflow.finished(run)[0] == "failed"
    content = airflow.api(f"{run}/taskInstances/plan/logs/1?full_content=true")["content"]
    errors = [line for line in content if isinstance(line, dict) and line.get("level") == "error"]
    assert len(errors) == 2, errors
    assert errors[0]["event"].startswith("conf: unknown key 'dryrun'; known: older_than, ")
    assert errors[1]["event"] == "Task failed with exception"  # by Airflow
    assert "error_detail" not in errors[0]
    (detail,) = errors[1]["error_detail"]
    assert detail["exc_value"] == errors[0]["event"]
    frames = [frame["filename"].split("/")[-1] for frame in detail["frames"]]
    assert "run_conf.py" not in frames
    assert len(frames) <= 10, frames


def test_permanent_delete_of_one_replica_waits_for_approval(airflow):
    before = len(airflow.state()["deletes"])
    run = airflow.trigger("tavus_delete_replica", replica_id="r3f6a2e9d815", permanent=True)
    page = airflow.page(run)
    assert page["subject"] == "Delete 1 Tavus replica permanently?"
    assert "chosen by hand" in page["body"]
    assert len(airflow.state()["deletes"]) == before
    airflow.answer(run, "Approve")
    state, tasks = airflow.finished(run)
    assert state == "success"
    assert tasks["delete"] == "skipped"
    assert airflow.xcom(run, "delete_permanently")["outcome"] == "deleted"
    assert airflow.state()["deletes"][before:] == [{"replica_id": "r3f6a2e9d815", "hard": True}]


def test_cleared_approval_fails_and_deletes_nothing(airflow):
    run = airflow.trigger("tavus_purge_replicas", include=["black-friday_*", "webinar_*"])
    airflow.page(run)
    airflow.answer(run, "Reject")
    airflow.finished(run)
    before = airflow.state()["deletes"]
    airflow.clear(run, "approve")
    assert airflow.finished(run)[1]["approve"] == "failed"
    assert airflow.state()["deletes"] == before


def test_approval_that_times_out_fails_the_run_and_deletes_nothing(airflow):
    before = airflow.state()["deletes"]
    run = airflow.trigger("purge_impatient", include=["webinar_*"])
    assert airflow.finished(run) == (
        "failed",
        {"plan": "success", "approve": "failed", "apply": "upstream_failed"},
    )
    assert airflow.state()["deletes"] == before


def test_legal_hold_added_after_approval_is_respected(airflow):
    before = len(airflow.state()["deletes"])
    run = airflow.trigger("purge_held", include=["webinar_*", "onboarding_*"])
    airflow.page(run)
    planned = {row["replica_id"] for row in airflow.xcom(run, "plan")["delete"]}
    held = "r4c81b7f0d3e"
    assert planned == {held, "r5e27d9a6c40"}
    (airflow.dags / "holds.json").write_text(f'["{held}"]')
    airflow.answer(run, "Approve")
    assert airflow.finished(run)[0] == "success"
    items = {item["replica_id"]: item for item in airflow.xcom(run, "apply")["items"]}
    assert (items[held]["outcome"], items[held]["detail"]) == (
        "skipped",
        "no longer expired: is under legal hold",
    )
    assert {row["replica_id"] for row in airflow.state()["deletes"][before:]} == planned - {held}


def test_connection_test_reports_an_accepted_key(airflow):
    answer = airflow.api(
        "/connections/test",
        "POST",
        json={
            "connection_id": "tried",
            "conn_type": "tavus",
            "host": airflow.sandbox,
            "password": "sandbox",
            "extra": '{"timeout": null}',
        },
    )
    assert answer == {"status": True, "message": "Tavus accepted the API key."}


def test_connection_test_works_without_a_port(airflow):
    made = {"connection_id": "no_port", "conn_type": "tavus", "host": airflow.sandbox, "password": "sandbox"}
    airflow.api("/connections", "POST", json=made)
    # Exactly what the UI of Airflow 3.3.2 sends.
    sent = {**made, "description": "", "extra": "{}", "login": "", "password": "***", "port": 0, "schema": ""}
    answer = airflow.api("/connections/test", "POST", json=sent)
    assert answer == {"status": True, "message": "Tavus accepted the API key."}


def test_masked_password_from_the_form_does_not_replace_the_key(airflow):
    made = {"connection_id": "masked", "conn_type": "tavus", "host": airflow.sandbox, "password": "sandbox"}
    shown = airflow.api("/connections", "POST", json=made)
    assert shown["password"] == "***"
    airflow.api("/connections/masked", "PATCH", json={**shown, "extra": '{"timeout": 20}'})
    known = {"connection_id": "masked", "conn_type": "tavus"}
    assert airflow.api("/connections/test", "POST", json=known)["message"] == "Tavus accepted the API key."
    before = len(airflow.state()["requests"])
    airflow.api("/connections", "POST", json={**made, "connection_id": "mask_only", "password": "***"})
    answer = airflow.api("/connections/test", "POST", json={**known, "connection_id": "mask_only"})
    assert answer["message"] == "The API key is missing or invalid: enter it in the field API key."
    assert len(airflow.state()["requests"]) == before


# -- in a browser

HOSTILE = "<img src=x onerror=alert(1)> **b** [x](javascript:alert(1)) \u202egpj.exe"


def open_connection_form(page, airflow, conn_id: str):
    """Open the form of a new connection of type Tavus, and return the page."""
    page.goto(f"{airflow.url}/connections")
    page.get_by_role("button", name="Add Connection").click()
    page.fill("input[name=connection_id]", conn_id)
    page.locator("[role=dialog] input[role=combobox]").first.click()
    page.keyboard.type("Tavus")
    page.keyboard.press("Enter")
    page.get_by_text("Base URL").wait_for()
    return page


@in_browser
def test_browser_creates_and_tests_a_connection_in_the_form(airflow, sign_in):
    page = open_connection_form(sign_in(), airflow, "created_in_the_form")
    assert page.get_by_placeholder("https://tavusapi.com").is_visible()
    assert page.locator("input[name=password]").get_attribute("type") == "password"
    assert page.locator("input[name=port], input[name=login], input[name=schema]").count() == 0
    page.fill("input[name=host]", airflow.sandbox)
    page.fill("input[name=password]", "sandbox")
    save_screenshot(page, "connection-form")
    page.get_by_role("button", name="Save").click()
    page.get_by_role("button", name="Test Connection").first.click()
    page.get_by_text("Tavus accepted the API key.").wait_for()
    assert airflow.api("/connections/created_in_the_form")["port"] is None


@in_browser
def test_browser_form_does_not_save_a_timeout_below_its_bound(airflow, sign_in):
    """Case F13: the form puts a value out of bounds to the nearest bound."""
    page = open_connection_form(sign_in(), airflow, "short_timeout")
    page.fill("input[name=password]", "sandbox")
    page.get_by_role("button", name="Extra Fields", exact=True).click()
    field = page.get_by_role("spinbutton").first
    field.fill("-5")
    field.press("Tab")
    page.wait_for_function("document.querySelector('[role=spinbutton]').value === '1'")
    save_screenshot(page, "connection-bounds")
    page.get_by_role("button", name="Save").click()
    page.get_by_text("short_timeout").first.wait_for()
    saved = airflow.wait_for(lambda: airflow.request("/connections/short_timeout").json().get("extra"))
    assert json.loads(saved)["timeout"] == 1


@in_browser
def test_browser_deletes_one_replica_from_the_form_and_rejects_an_invalid_id(airflow, sign_in):
    airflow.control_sandbox(
        "replicas", [{"replica_id": "rbrowser0001", "replica_name": "from the form", "age": "3d"}]
    )
    runs = len(airflow.api("/dags/tavus_delete_replica/dagRuns")["dag_runs"])
    page = sign_in()
    page.goto(f"{airflow.url}/dags/tavus_delete_replica")
    page.get_by_role("button", name="Trigger").first.click()
    submit = page.locator("[role=dialog]").get_by_role("button", name="Trigger")
    field = page.locator("[name=element_replica_id]")
    field.wait_for()
    assert submit.is_disabled()
    assert page.get_by_text("Cannot be undone").is_visible()
    save_screenshot(page, "trigger-form")
    field.fill("r1/../r2")
    submit.click()
    page.get_by_text("Invalid input for param replica_id").first.wait_for()
    assert len(airflow.api("/dags/tavus_delete_replica/dagRuns")["dag_runs"]) == runs
    field.fill("rbrowser0001")
    submit.press("Enter")  # the message about the invalid id can cover the button
    run = airflow.wait_for(
        lambda: [
            run
            for run in airflow.api("/dags/tavus_delete_replica/dagRuns")["dag_runs"]
            if run["conf"].get("replica_id") == "rbrowser0001"
        ]
    )[0]
    assert airflow.finished(f"/dags/tavus_delete_replica/dagRuns/{run['dag_run_id']}")[0] == "success"
    assert {"replica_id": "rbrowser0001", "hard": False} in airflow.state()["deletes"]


@in_browser
@pytest.mark.parametrize(("answer", "deleted"), [("Reject", False), ("Approve", True)])
def test_browser_answers_an_approval_that_shows_names_as_plain_text(airflow, sign_in, answer, deleted):
    replica_id = f"rhostile{answer.lower()}"
    names = {
        replica_id: f"{answer} {HOSTILE}",
        f"rlink{answer.lower()}": f"{answer} https://evil.test a@evil.test",
    }
    airflow.control_sandbox(
        "replicas", [{"replica_id": key, "replica_name": name, "age": "300d"} for key, name in names.items()]
    )
    run = airflow.trigger("tavus_purge_replicas", include=[f"{answer} *"])
    airflow.page(run)
    for scheme in ("dark", "light"):
        page = sign_in(scheme=scheme)
        page.goto(f"{airflow.url}{run.replace('/dagRuns/', '/runs/')}/tasks/approve/required_actions")
        page.get_by_text("onerror").first.wait_for()
        assert page.locator("img[src=x], a[href^=javascript], a[href*=evil]").count() == 0
        assert page.get_by_text("This cannot be undone").is_visible()
        save_screenshot(page, f"approval-hostile-{scheme}")
    page.get_by_role("button", name=answer).first.click()
    assert airflow.finished(run)[0] == "success"
    assert ({"replica_id": replica_id, "hard": True} in airflow.state()["deletes"]) == deleted


def open_approval(page, airflow, run: str):
    """Open the approval of a run and return its buttons."""
    page.goto(f"{airflow.url}{run.replace('/dagRuns/', '/runs/')}/tasks/approve/required_actions")
    page.get_by_text("This cannot be undone").wait_for()
    return [page.get_by_role("button", name=name, exact=True) for name in ("Approve", "Reject")]


@in_browser
def test_browser_shows_an_approval_of_three_replicas_on_one_screen(airflow, sign_in):
    """Case F10: everything that a person needs to answer is in view at 1280x720."""
    names = ["product-launch_elena", "product-launch_jonas", "product-launch_2024"]
    rows = [
        {"replica_id": f"r7c{number}e19a4d0b", "replica_name": name, "age": f"{420 - 90 * number}d"}
        for number, name in enumerate(names)
    ]
    airflow.control_sandbox("replicas", rows)
    run = airflow.trigger("purge_three")
    digest = airflow.page(run)["body"].split("`")[1]
    shown = [
        "Delete 3 Tavus replicas permanently?",
        "This cannot be undone",
        "older than 90 days",
        "Triggered by",
        "May answer:",
        "Answer until",
        *names,
        digest,
    ]
    for scheme in ("dark", "light"):
        page = sign_in(scheme=scheme, width=1280, height=720)
        buttons = open_approval(page, airflow, run)
        for element in [*(page.get_by_text(text).first for text in shown), *buttons]:
            box = element.bounding_box()
            assert 0 <= box["y"] <= box["y"] + box["height"] <= 720
        save_screenshot(page, f"approval-{scheme}")
    with page.context.expect_page() as opened:
        page.get_by_role("link", name="All replicas, with reasons").click()
    assert opened.value.url.startswith(f"{airflow.url}/plugin/tavus?dag_id=purge_three&")
    airflow.answer(run, "Reject")


@in_browser
def test_browser_shows_the_buttons_of_a_large_approval_on_the_second_screen(airflow, sign_in):
    """Case F10."""
    rows = [
        {
            "replica_id": f"r{number:03}5d2f90c1e",
            "replica_name": f"{('archive_sales', 'archive_support', 'archive_webinar')[number % 3]}-{number}",
            "age": f"{100 + number}d",
        }
        for number in range(300)
    ]
    airflow.control_sandbox("replicas", rows)
    run = airflow.trigger("purge_many", include=["archive_*"])
    assert airflow.page(run)["subject"] == "Delete 300 Tavus replicas permanently?"
    page = sign_in(width=1280, height=1440)
    for button in open_approval(page, airflow, run):
        box = button.bounding_box()
        assert box["y"] + box["height"] <= 1440
    assert page.get_by_text("the 20 oldest of 300").is_visible()
    save_screenshot(page, "approval-300")
    airflow.answer(run, "Reject")


def hanging_delete(replica_id: str, when: str) -> dict[str, Any]:
    """Return a fault that delays the response to a delete longer than any client waits."""
    return {"method": "DELETE", "path": f"/v2/replicas/{replica_id}", "delay": 600, "when": when}


def kill_and_finish(airflow: Airflow, run: str, planned: set[str]) -> dict[str, dict[str, str]]:
    """Kill the process of the task, clear the task, and return the report items of its second attempt."""
    airflow.task_process().kill()
    state, tasks = airflow.finished(run)
    assert (state, tasks["apply"]) == ("failed", "failed")
    airflow.control_sandbox("switches", faults=[])
    airflow.clear(run, "apply")
    state, tasks = airflow.finished(run)
    assert (state, tasks["apply"]) == ("success", "success")
    effects = [row["replica_id"] for row in airflow.state()["deletes"]]
    assert sorted(effects) == sorted(planned)
    report = airflow.xcom(run, "apply")
    assert {item["replica_id"] for item in report["items"]} == planned
    attempts, findings = verify(ObjectStoragePath(str(airflow.home / "tavus-ledger")))
    assert compare_report(attempts, report) == []
    killed, last = (
        attempt
        for attempt in attempts
        if attempt.begin_record.get("plan_digest") == report["plan_digest"] and attempt.intended
    )
    assert (killed.begin_record["try_number"], last.begin_record["try_number"]) == (1, 2)
    assert (killed.is_closed, last.is_closed) == (False, True)
    assert not [finding for finding in findings if killed.name not in finding]
    return {item["replica_id"]: item for item in report["items"]}


def test_next_attempt_finishes_a_prune_after_its_worker_was_killed(airflow):
    airflow.control_sandbox("reset")
    answered = {"r1a0c5e8f3b2", "r2b9d41c07ae", "r3f6a2e9d815", "r6d3b8f1e5a7"}
    before, after = "r4c81b7f0d3e", "r5e27d9a6c40"
    airflow.control_sandbox(
        "switches", faults=[hanging_delete(before, "before"), hanging_delete(after, "after")]
    )
    run = airflow.trigger("tavus_prune_replicas")
    airflow.wait_for(lambda: airflow.deleted() == answered | {after})
    items = kill_and_finish(airflow, run, answered | {before, after})
    assert items[before]["outcome"] == "deleted"
    for replica_id in answered | {after}:
        assert "by an earlier attempt of this task" in items[replica_id]["detail"]


def test_next_attempt_finishes_an_approved_purge_without_a_new_approval(airflow):
    airflow.control_sandbox("reset")
    done, left = "r1a0c5e8f3b2", "r2b9d41c07ae"
    airflow.control_sandbox("switches", faults=[hanging_delete(left, "before")])
    run = airflow.trigger("tavus_purge_replicas", include=["spring-*", "summer-*"])
    airflow.page(run)
    airflow.answer(run, "Approve")
    airflow.wait_for(lambda: airflow.deleted() == {done})
    items = kill_and_finish(airflow, run, {done, left})
    assert items[left]["outcome"] == "deleted"
    assert "by an earlier attempt of this task" in items[done]["detail"]
