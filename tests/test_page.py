"""The Tavus page in a browser, on a running Airflow."""

from __future__ import annotations

import urllib.parse
from typing import Any

import pytest
from airflow_server import ROOT
from browser import in_browser, save_screenshot


@pytest.fixture(scope="module")
def airflow(start_airflow):
    """Airflow with the DAGs of the project."""
    return start_airflow(ROOT / "dags")


def tavus_page(page, airflow):
    """Open the Tavus page from the navigation and return its frame after it has loaded its data."""
    page.goto(airflow.url)
    page.get_by_role("link", name="Tavus", exact=True).first.click()
    frame = page.frame_locator("iframe[title=Tavus]")
    frame.locator("#runs table").wait_for()
    frame.locator("#replicas tbody tr").first.wait_for()
    return frame


@in_browser
def test_browser_page_shows_the_account_of_the_sandbox(airflow, sign_in):
    run = airflow.trigger("tavus_prune_replicas", dry_run=True)
    assert airflow.finished(run)[0] == "success"
    own = [
        row
        for row in airflow.state()["replicas"]
        if not row["deleted"] and row["replica_type"].startswith("user")
    ]
    planned = airflow.xcom(run, "plan")["delete"]
    for scheme in ("dark", "light"):
        page = sign_in("viewer", scheme)
        frame = tavus_page(page, airflow)
        assert frame.locator("html").get_attribute("data-theme") == scheme
        tiles = frame.locator("#tiles li strong").all_inner_texts()
        assert tiles[:2] == [str(len(own)), str(len(planned))]
        save_screenshot(page, f"page-{scheme}")
    shown = set(frame.locator("#replicas td.id").all_inner_texts())
    assert shown == {row["replica_id"] for row in own}
    assert frame.locator("img").count() == 0
    # search, filter, and sort by keyboard
    frame.locator("#search").fill("rhostilereject")
    (name,) = frame.locator("#replicas td.name").all_inner_texts()
    assert name.startswith("Reject <img src=x onerror=alert(1)> **b**")
    assert "\\u202egpj.exe" in name
    frame.locator("#search").fill("")
    frame.locator("#verdict").select_option("expired")
    assert set(frame.locator("#replicas td.id").all_inner_texts()) == {row["replica_id"] for row in planned}
    frame.get_by_role("button", name="age").focus()
    page.keyboard.press("Enter")
    ages = [
        int(text.split()[0].replace(",", ""))
        for text in frame.locator("#replicas td.number").all_inner_texts()
    ]
    assert ages == sorted(ages, reverse=True)
    assert frame.locator("th[aria-sort=descending]").inner_text().startswith("age")
    # the history shows the counts of the reports
    (counts,) = [
        row.locator("td.number").all_inner_texts()
        for row in frame.locator("#runs tbody tr").all()
        if run.split("/")[4] in urllib.parse.unquote(row.locator("a").first.get_attribute("href"))
    ]
    assert counts[:4] == [str(len(planned)), "0", "0", str(len(planned))]
    # a link to the run leaves the frame
    frame.get_by_role("link", name="Open the run").click()
    page.wait_for_url("**/dags/tavus_prune_replicas/runs/**")


@in_browser
def test_browser_task_link_opens_the_plan_of_its_run(airflow, sign_in):
    run = airflow.trigger("tavus_prune_replicas", dry_run=True, older_than="250d")
    assert airflow.finished(run)[0] == "success"
    links = airflow.api(f"{run}/taskInstances/apply/links")["extra_links"]
    assert links["Replicas at Tavus"] == "https://platform.tavus.io/dev/replicas"
    last = airflow.trigger("tavus_prune_replicas", dry_run=True)
    assert airflow.finished(last)[0] == "success"
    page = sign_in("viewer")
    page.goto(links["Tavus page"])
    frame = page.frame_locator("iframe[title=Tavus]")
    frame.locator("#replicas tbody tr").first.wait_for()
    assert airflow.xcom(run, "plan")["digest"][:16] in frame.locator("#about").inner_text()


@in_browser
def test_browser_page_tells_users_without_permission_and_shows_no_data(airflow, sign_in):
    page = sign_in(None)
    page.goto(f"{airflow.url}/tavus/")
    page.get_by_text("You are not signed in to Airflow").wait_for()
    assert not page.locator("#content, #history").first.is_visible()
    page.route("**/api/v2/**", lambda route: route.fulfill(status=403, json={"detail": "Forbidden"}))
    page.reload()
    page.get_by_text("Your Airflow role may not read this").wait_for()
    assert not page.locator("#content, #history").first.is_visible()
    page.unroute_all()
    page.route("**/api/v2/**", lambda route: route.fulfill(json={"task_instances": [], "total_entries": 0}))
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("No plan has been made yet").wait_for()
    save_screenshot(page, "page-empty")


@in_browser
def test_browser_page_shows_5000_replicas_in_pages_and_a_plan_without_verdicts(airflow, sign_in):
    rows = [
        {
            "replica_id": f"r{n:05}",
            "replica_name": f"person {n}",
            "status": ("kept", "not_expired", "held", "expired")[n % 4],
            "reason_code": "any",
            "reason": f"{n % 700} days old",
            "next_reason": None,
            "age_days": n % 700,
        }
        for n in range(5_000)
    ]
    plan = {"listed": 5_000, "delete": [], "scheduled": [], "undetermined": [], "keep": {"in_use": 5_000}}
    task = {
        "dag_id": "d",
        "dag_run_id": "r",
        "task_id": "plan",
        "map_index": -1,
        "state": "success",
        "id": "1",
    }
    tasks = [{**task, "operator_name": "PlanRetentionOperator", "run_after": "2026-01-01T00:00:00Z"}]
    verdicts: dict[str, Any] = {"value": {"version": 1, "rows": rows, "counts": {"in_use": 5_000}}}

    def reply(route):
        url = route.request.url
        if "/xcomEntries/verdicts" in url:
            return route.fulfill(json=verdicts)
        if "/xcomEntries/return_value" in url:
            return route.fulfill(json={"value": plan})
        return route.fulfill(json={"task_instances": tasks, "total_entries": 1})

    page = sign_in("viewer")
    page.route("**/api/v2/**", reply)
    page.goto(f"{airflow.url}/tavus/")
    page.get_by_text("1 to 100 of 5,000 replicas").wait_for()
    assert page.locator("#replicas tbody tr").count() == 100
    page.get_by_role("button", name="Next", exact=True).click()
    page.get_by_text("101 to 200 of 5,000 replicas").wait_for()
    page.fill("#search", "person 4999")
    page.get_by_text("1 to 1 of 1 replica").wait_for()
    save_screenshot(page, "page-5000")
    verdicts["value"] = {
        "version": 1,
        "rows": [],
        "counts": {"in_use": 6_000},
        "notice": "6000 verdicts are too many for an XCom",
    }
    page.reload()
    page.get_by_text("6000 verdicts are too many for an XCom").wait_for()
    assert page.locator("#deciders-table td").first.inner_text().startswith("in use")
    save_screenshot(page, "page-counts")
