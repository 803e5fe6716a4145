"""The Tavus page in a browser, on a running Airflow. test_page.py has states that take long to reach here."""

from __future__ import annotations

import os
import urllib.parse
from pathlib import Path

import pytest
from airflow_server import ROOT
from browser import in_browser, save_screenshot
from fake_airflow import FakeAirflow, company


@pytest.fixture(scope="module")
def airflow(start_airflow, tmp_path_factory):
    """Airflow with the DAGs of the project, and with changed copies of them."""
    dags = tmp_path_factory.mktemp("dags")
    for file in (ROOT / "dags").glob("*.py"):
        (dags / file.name).write_text(file.read_text())

    def copy(source: str, dag_id: str, *changes: tuple[str, str]) -> None:
        text = (ROOT / "dags" / f"{source}.py").read_text()
        for old, new in (
            (f'"{source}"', f'"{dag_id}"'),
            ("datetime import", "datetime import timedelta,"),
            *changes,
        ):
            assert text.count(old) == 1
            text = text.replace(old, new)
        (dags / f"{dag_id}.py").write_text(text)

    limits = '"limits": {"max_deletions": 10, "max_deletion_percent": 25}'
    high = '"limits": {"max_deletions": 9_000, "max_deletion_percent": 100}'
    seconds = "response_timeout=timedelta(seconds=1)"
    copy("tavus_purge_replicas", "purge_impatient", ('task_id="approve",', f'task_id="approve", {seconds},'))
    copy("tavus_prune_replicas", "prune_strict", (limits, limits.replace("10", "1")))
    copy("tavus_prune_replicas", "prune_large", (limits, high))
    copy("tavus_prune_replicas_batched", "prune_batched", (limits, high))
    copy("tavus_prune_accounts", "prune_two", ('["tavus_default"]', '["tavus_default", "tavus_eu"]'))
    running = start_airflow(dags)
    second = {
        "connection_id": "tavus_eu",
        "conn_type": "tavus",
        "host": running.sandbox,
        "password": "sandbox",
    }
    running.api("/connections", "POST", json=second)
    return running


def tavus_page(page, airflow):
    """Open the Tavus page from the navigation and return its frame after the first picture."""
    page.goto(airflow.url)
    page.get_by_role("link", name="Tavus", exact=True).first.click()
    return frame_of(page)


def frame_of(page):
    frame = page.frame_locator("iframe[title=Tavus]")
    frame.locator("#content:not([aria-busy])").wait_for()
    frame.locator("#runs .badge").first.wait_for()
    return frame


def open_run(page, airflow, run: str):
    """Open the page at a run."""
    _, _, dag_id, _, run_id = run.split("/")
    query = urllib.parse.urlencode({"dag_id": dag_id, "run_id": run_id})
    page.goto(f"{airflow.url}/plugin/tavus?{query}")
    return frame_of(page)


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
        page = sign_in("viewer", scheme, width=1280, height=720)
        frame = tavus_page(page, airflow)
        assert frame.locator("html").get_attribute("data-theme") == scheme
        assert (
            frame.locator("#headline").inner_text().startswith(f"Dry run: {len(planned)} would be deleted, ")
        )
        assert frame.locator("#groups button").first.inner_text() == f"{len(own)} all"
        colour = "getComputedStyle(document.documentElement).getPropertyValue('--chakra-colors-bg')"
        assert page.frames[-1].evaluate(colour) == page.evaluate(colour)
        assert page.frames[-1].evaluate("location.pathname") == "/tavus/"
        save_screenshot(page, f"airflow-{scheme}")
    frame.locator("#refresh:enabled").wait_for()
    # The latest run was a dry run of a person; those of the schedule have the default of the DAG, and delete.
    assert f"{len(planned)} replicas, soft delete" in frame.locator("#next").inner_text()
    assert (
        "Deletes for real: its dry run is off, unlike in the run of " in frame.locator("#next").inner_text()
    )
    assert "Narrowed by the form" not in frame.locator("#plan-facts").inner_text()
    facts = frame.locator("#account").inner_text()
    assert "tavus_default" in facts
    assert airflow.sandbox.removeprefix("http://") in facts
    shown = set(frame.locator("#replicas td.replica .id").all_inner_texts())
    assert shown == {row["replica_id"] for row in own}
    assert frame.locator("img").count() == 0
    # search, filter, and sort by keyboard
    frame.locator("#search").fill("r1a0c5e8f3b2")
    assert frame.locator("#replicas td.replica .name").all_inner_texts() == ["spring-campaign_anna"]
    frame.locator("#search").fill("")
    frame.locator("#groups button", has_text="to delete").click()
    assert set(frame.locator("#replicas td.replica .id").all_inner_texts()) == {
        row["replica_id"] for row in planned
    }
    frame.get_by_role("button", name="Age", exact=True).focus()
    page.keyboard.press("Enter")
    ages = [
        int(text.split()[0].replace(",", ""))
        for text in frame.locator("#replicas td.number").all_inner_texts()
    ]
    assert ages == sorted(ages, reverse=True)
    assert frame.locator("th[aria-sort=descending]").inner_text().startswith("Age")
    # a link to the run leaves the frame
    frame.get_by_role("link", name="Open the run").click()
    page.wait_for_url("**/dags/tavus_prune_replicas/runs/**")


@in_browser
def test_browser_names_are_shown_as_plain_text(airflow, sign_in):
    hostile = "<img src=x onerror=alert(1)> **b** [x](javascript:alert(1)) \u202egpj.exe"
    airflow.control_sandbox(
        "replicas", [{"replica_id": "rhostilename", "replica_name": hostile, "age": "300d"}]
    )
    run = airflow.trigger("tavus_prune_replicas", dry_run=True, include=["<img*"])
    assert airflow.finished(run)[0] == "success"
    frame = open_run(sign_in("viewer"), airflow, run)
    frame.locator("#search").fill("rhostilename")
    (name,) = frame.locator("#replicas .name").all_inner_texts()
    assert name.startswith("<img src=x onerror=alert(1)> **b**")
    assert "\\u202egpj.exe" in name
    assert frame.locator("#replicas img").count() == 0


@in_browser
def test_browser_page_says_who_answered_and_what_failed(airflow, sign_in):
    chosen = {"include": ["spring-*", "summer-*"]}
    rejected = airflow.trigger("tavus_purge_replicas", **chosen)
    airflow.page(rejected)
    page = sign_in("viewer")
    frame = open_run(page, airflow, rejected)
    assert "waits for approval until" in frame.locator("#state").inner_text()
    airflow.answer(rejected, "Reject")
    # the page follows without a click
    frame.get_by_text("rejected by admin, ").first.wait_for()
    assert airflow.finished(rejected)[0] == "success"

    late = airflow.trigger("purge_impatient", **chosen)
    assert airflow.finished(late)[0] == "failed"
    frame = open_run(page, airflow, late)
    assert "Not approved: nobody answered" in frame.locator("#alert").inner_text()
    assert frame.locator("#state .badge").inner_text() == "Failed"

    missing = airflow.trigger("tavus_delete_replica", replica_id="rmissing00")
    assert airflow.finished(missing)[0] == "failed"
    frame = open_run(page, airflow, missing)
    assert frame.locator("#headline").inner_text() == "Look failed"
    assert "rmissing00" in frame.locator("#alert").inner_text()

    approved = airflow.trigger("tavus_purge_replicas", **chosen)
    airflow.page(approved)
    airflow.answer(approved, "Approve")
    assert airflow.finished(approved)[0] == "success"
    frame = open_run(page, airflow, approved)
    assert "2 of 2 deleted permanently" in frame.locator("#headline").inner_text()
    timeline = frame.locator("#timeline").inner_text()
    assert "by admin" in timeline
    assert "2 no longer listed" in timeline
    assert "only spring-*, summer-*" in frame.locator("#plan-facts").inner_text()
    # the plan before had the same two
    assert "no difference, 2 deletes in both" in frame.locator("#difference").inner_text()

    batched = airflow.trigger("tavus_prune_replicas_batched", batch_size=1)
    assert airflow.finished(batched)[0] == "success"
    frame = open_run(page, airflow, batched)
    assert "deleted" in frame.locator("#timeline").inner_text()
    assert frame.locator("#state .badge").inner_text() == "Success"


@in_browser
def test_browser_refused_key_is_named(airflow, sign_in):
    airflow.control_sandbox("switches", faults=[{"method": "GET", "status": 401, "times": None}])
    run = airflow.trigger("tavus_prune_replicas", dry_run=True)
    assert airflow.finished(run)[0] == "failed"
    airflow.control_sandbox("switches", faults=[])
    frame = open_run(sign_in("viewer"), airflow, run)
    assert frame.locator("#headline").inner_text() == "Plan failed: API key refused"
    assert frame.locator("#alert .error").count() == 1


def in_all_looks(page, name: str) -> None:
    """Save screenshots at three widths and in both themes. Check that nothing is wider than the window."""
    for width, height in ((390, 844), (1280, 720), (1440, 900)):
        page.set_viewport_size({"width": width, "height": height})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.frame_locator("iframe[title=Tavus]").locator(f"html[data-theme={scheme}]").wait_for(
                state="attached"
            )
            save_screenshot(page, f"real-{name}-{width}-{scheme}")
            assert page.frames[-1].evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.set_viewport_size({"width": 1400, "height": 1000})


@in_browser
def test_browser_failed_runs_say_why(airflow, sign_in):
    """Cases F1 and F6."""
    rows = [{"replica_id": f"r{n}overlimit", "replica_name": f"over_{n}", "age": "200d"} for n in range(2)]
    airflow.control_sandbox("replicas", rows)
    over = airflow.trigger("prune_strict", include=["over_*"])
    nothing = airflow.trigger("tavus_purge_replicas", older_than="5000d")
    assert airflow.finished(over)[0] == "failed"
    assert airflow.finished(nothing)[0] == "success"
    airflow.control_sandbox(
        "replicas", [{"replica_id": "rfails00001", "replica_name": "left-over_1", "age": "200d"}]
    )
    fault = {"method": "DELETE", "path": "/v2/replicas/rfails00001", "status": 403, "times": None}
    airflow.control_sandbox("switches", faults=[fault])
    failed = airflow.trigger("tavus_prune_replicas", include=["left-over_*"])
    assert airflow.finished(failed)[0] == "failed"
    airflow.control_sandbox("switches", faults=[])

    page = sign_in("viewer")
    frame = open_run(page, airflow, over)
    assert frame.locator("#headline").inner_text().startswith("Nothing deleted, ")
    assert "Over the limit, nothing was deleted" in frame.locator("#alert .error").inner_text()
    assert frame.locator("#state .badge").inner_text() == "Failed"
    in_all_looks(page, "limit")
    frame = open_run(page, airflow, nothing)
    assert frame.locator("#headline").inner_text().startswith("This run found nothing to delete, ")
    assert "not needed, nothing to delete" in frame.locator("#timeline").inner_text()
    assert frame.locator("#alert .error").count() == 0
    in_all_looks(page, "nothing")
    frame = open_run(page, airflow, failed)
    assert frame.locator("#headline").inner_text().startswith("0 of 1 deleted, ")
    assert "1 of 1 replica may still exist" in frame.locator("#alert .error").inner_text()
    frame.locator("#replicas .toggle").first.click()
    assert "403" in frame.locator("tr.detail").inner_text()
    in_all_looks(page, "failed")


@in_browser
def test_browser_one_account_at_a_time(airflow, sign_in):
    """Cases F4 and F5."""
    run = airflow.trigger("prune_two", dry_run=True)
    assert airflow.finished(run)[0] == "success"
    page = sign_in("viewer", width=1280, height=720)
    frame = tavus_page(page, airflow)
    frame.locator("#accounts button", has_text="tavus_eu").click()
    frame.locator("#account dd", has_text="tavus_eu").wait_for()
    frame.locator("#content:not([aria-busy])").wait_for()
    assert frame.locator("#runs-choice option").count() == 1
    assert airflow.xcom(run, "plan", map_index=1)["digest"][:12] in frame.locator("#plan-facts").inner_text()
    page.wait_for_function("location.search.includes('connection=tavus_eu')")
    page.reload()
    frame = frame_of(page)
    assert frame.locator("#account dd strong").first.inner_text() == "tavus_eu"
    in_all_looks(page, "accounts")


@in_browser
def test_browser_plan_that_is_too_large_for_xcom(airflow, sign_in):
    """Cases F2, F7 and F8."""
    rows = [
        {
            "replica_id": f"r{number:05}large",
            "replica_name": f"archive-{number % 7}_take-{number}",
            "age": f"{100 + number % 600}d",
        }
        for number in range(6_000)
    ]
    airflow.control_sandbox("replicas", rows)
    try:
        run = airflow.trigger("prune_large", dry_run=True, include=["archive-*"])
        assert airflow.finished(run)[0] == "success"
        plan = airflow.xcom(run, "plan")
        page = sign_in("viewer", width=1280, height=720)
        frame = open_run(page, airflow, run)
        assert frame.locator("#headline").inner_text().startswith("Dry run: 6,000 would be deleted, ")
        chip = frame.locator("#groups button", has_text="to delete")
        assert chip.inner_text() == "6,000 planned to delete"
        assert chip.is_disabled(), "there are no rows to show"
        notice = frame.locator("#notice").inner_text()
        assert plan["plan_at"] in notice
        assert "python -m tavus_provider explain" in notice
        in_all_looks(page, "large")
    finally:
        airflow.control_sandbox("reset")


@in_browser
def test_browser_run_with_many_batches(airflow, sign_in):
    """Case F3; PAGE_BATCHES=118 for the number in it, which takes minutes."""
    count = int(os.environ.get("PAGE_BATCHES", "3"))
    rows = [
        {"replica_id": f"r{number:04}batch", "replica_name": f"batch_{number}", "age": "300d"}
        for number in range(count)
    ]
    airflow.control_sandbox("replicas", rows)
    run = airflow.trigger("prune_batched", include=["batch_*"], batch_size=1)
    assert airflow.finished(run)[0] == "success"
    page = sign_in("viewer", width=1280, height=720)
    frame = open_run(page, airflow, run)
    assert frame.locator("#headline").inner_text().startswith(f"{count} of {count} deleted, ")
    mark = "performance.getEntriesByName('tavus-first-picture')[0].startTime"
    sent = f"performance.getEntriesByType('resource').filter((one) => one.startTime < {mark})"
    read = page.frames[-1].evaluate(f"{sent}.filter(({{ name }}) => name.includes('/api/v2/')).length")
    assert read <= 10
    in_all_looks(page, "batches")


@in_browser
def test_browser_form_explains_an_age_that_is_refused(airflow, sign_in):
    """Case F12."""
    page = sign_in(width=1280, height=720)
    page.goto(f"{airflow.url}/dags/tavus_prune_replicas")
    page.get_by_role("button", name="Trigger").first.click()
    field = page.locator("[name=element_older_than]")
    field.wait_for()
    assert page.get_by_text("Trigger deletes now").is_visible()
    runs = airflow.api("/dags/tavus_prune_replicas/dagRuns")["total_entries"]
    field.fill("30d")
    page.locator("[role=dialog]").get_by_role("button", name="Trigger").click()
    page.get_by_text("a whole number and a unit (y, w, d, h, min), 90d or more").first.wait_for()
    save_screenshot(page, "real-refused-age")
    assert airflow.api("/dags/tavus_prune_replicas/dagRuns")["total_entries"] == runs


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
    frame = frame_of(page)
    assert airflow.xcom(run, "plan")["digest"][:12] in frame.locator("#plan-facts").inner_text()
    # another choice is in the address, and a reload opens it
    frame.locator("#runs-choice").select_option(index=0)
    frame.locator("#content:not([aria-busy])").wait_for()
    last_id = urllib.parse.quote(last.split("/")[4], safe="")
    page.wait_for_function("(id) => location.search.includes(id)", arg=last_id.replace("%3A", "%3A"))
    page.reload()
    frame = frame_of(page)
    assert airflow.xcom(last, "plan")["digest"][:12] in frame.locator("#plan-facts").inner_text()


@in_browser
def test_browser_page_tells_users_without_permission_and_shows_no_data(airflow, sign_in):
    page = sign_in(None)
    page.goto(f"{airflow.url}/tavus/")
    page.get_by_text("You are not signed in to Airflow").wait_for()
    assert not page.locator("#content").is_visible()


@in_browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_browser_pictures_of_the_documentation(sign_in, scheme):
    """
    The page in Airflow's UI with the runs of a company; DOCS_PICTURES names the folder to save them in.

    Only the requests of the page itself get the responses of the stand-in.
    """
    fake = FakeAirflow()
    fake.runs = company()
    fake.next_run = fake.next_run.replace(hour=0, minute=0, second=0)

    def respond(route):
        url = urllib.parse.urlsplit(route.request.url)
        if route.request.frame.parent_frame is None:
            return route.continue_()
        found = fake.respond(url.path.split("/api/v2/")[1], urllib.parse.parse_qs(url.query))
        return route.fulfill(status=404 if found is None else 200, json=found or {})

    page = sign_in("admin", scheme, width=1400, height=1000)
    page.route("**/api/v2/**", respond)
    page.goto(f"{page.url.split('/', 3)[0]}//{page.url.split('/', 3)[2]}/plugin/tavus")
    frame = frame_of(page)
    frame.locator("#account dt", has_text="Last purge rejected").wait_for()
    frame.locator("#account dd", has_text="by maria.santos").first.wait_for()
    frame.locator("#difference .change").first.wait_for()
    assert frame.locator("#headline").inner_text() == "8 to delete permanently, 1 undetermined, 15 kept"
    page.wait_for_load_state("networkidle")
    if folder := os.environ.get("DOCS_PICTURES"):
        page.screenshot(path=Path(folder) / f"page-{scheme}.png")
    save_screenshot(page, f"docs-{scheme}")
