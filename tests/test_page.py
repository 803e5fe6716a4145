"""
The Tavus page in a browser, on a stand-in for Airflow's REST API (fake_airflow.py).

The XComs are made by the functions of the package. test_page_airflow.py has the page on a real Airflow.
"""

from __future__ import annotations

import os
import sys
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest
from browser import WIDTHS, frame_of, in_browser, save_screenshot, save_whole_screenshot
from fake_airflow import (
    NOW,
    POLICY,
    company,
    erasure,
    many,
    many_verdicts,
    replica_id,
    replicas,
)
from page_runs import (
    HOUR,
    RUNS,
    UNLIMITED,
    WIDE,
    batch_failed,
    batched,
    failed_apply,
    failed_since_yesterday,
    nightly,
    over_the_limit,
    real_deletes_beside_a_purge,
    refused_key,
    run,
    scheduled,
    two_accounts,
    waiting,
    with_erasures,
)

pytestmark = in_browser

AXE = Path(os.environ.get("AXE_CORE", Path(sys.prefix) / "axe.min.js"))


# -- the state of a run, in words


# kind of run: its maker, the badge, the headline, and what the state or (after "!") the error says


@pytest.mark.parametrize("kind", RUNS)
def test_state_comes_from_the_run(fake, open_page, kind):
    make, badge, headline, says = RUNS[kind]
    fake.add(make())
    frame = frame_of(open_page())
    assert frame.locator("#state .badge").inner_text() == badge
    assert frame.locator("#headline").inner_text().startswith(headline)
    is_error = says.startswith("!")
    assert says.lstrip("!") in frame.locator("#alert" if is_error else "#state").inner_text()
    assert frame.locator("#alert .alert.error[role=alert]").count() == is_error
    frame.locator("#runs .badge").first.wait_for()
    assert frame.locator("#runs .badge").first.inner_text() == badge


def test_timeline_says_who_approved_and_what_was_verified(fake, open_page):
    fake.add(run().planned(policy=WIDE).asked("Approve").applied())
    frame = frame_of(open_page())
    steps = [text.split("\n")[:2] for text in frame.locator("#timeline li").all_inner_texts()]
    assert steps == [
        ["Triggered", "by jo.fischer"],
        ["Planned", "8 of 24 replicas to delete"],
        ["Approved", "by maria.santos"],
        ["Deleted", "8 deleted"],
        ["Verified", "8 no longer listed"],
    ]
    link = frame.get_by_role("link", name="Approved", exact=True).get_attribute("href")
    assert link.endswith("/dags/tavus_purge_replicas/runs/manual__1/tasks/approve/required_actions")


def test_rows_show_what_became_of_them_and_unfinished_ones_are_named(fake, open_page):
    made = fake.add(failed_apply())
    frame = frame_of(open_page())
    first, second = (row["replica_name"] for row in made.plan["delete"][:2])
    told = frame.locator("#alert .error").inner_text()
    assert f"{first} " in told
    assert f"{second} " in told
    assert "Another run deletes what is still expired then." in told
    badges = frame.locator("#replicas td.status .badge").all_inner_texts()
    assert (badges.count("Unknown"), badges.count("Deleted"), badges.count("Delete")) == (2, 6, 0)


@pytest.mark.parametrize(
    ("kind", "badge"),
    [
        ("dry run", "Not deleted"),
        ("rejected", "Not deleted"),
        ("limit", "Not deleted"),
        ("waiting", "Delete"),
        ("marked by hand", "Planned"),
    ],
)
def test_badge_of_a_planned_row_says_whether_it_was_deleted(fake, open_page, kind, badge):
    fake.add(RUNS[kind][0]())
    frame = frame_of(open_page())
    assert frame.locator("#replicas td.status .badge").all_inner_texts().count(badge) == 8


def test_stored_plan_shows_its_counts_and_where_its_rows_are(fake, open_page):
    fake.add(run("running", hard=False).planned(replicas(names=many(6_000)), policy=UNLIMITED, stored=True))
    frame = frame_of(open_page())
    made = fake.runs[0]
    counts = made.xcoms["plan", -1, "return_value"]["counts"]
    assert frame.locator("#headline").inner_text().startswith(f"{counts['delete']:,} to delete")
    assert (
        frame.locator("#groups button", has_text="to delete").inner_text()
        == f"{counts['delete']:,} to delete"
    )
    assert f"stored at s3://company-airflow/tavus-ledger/_plans/{made.plan['digest']}.json" in (
        frame.locator("#notice").inner_text()
    )
    assert frame.locator("#deciders li").count() > 1


# -- the number of requests


def requests_before_the_first_picture(frame) -> list[str]:
    return frame.evaluate(
        """() => {
          const { startTime } = performance.getEntriesByName('tavus-first-picture')[0];
          const read = performance.getEntriesByType('resource').filter((one) => one.startTime < startTime);
          return read.map(({ name }) => name).filter((name) => name.includes('/api/v2/'));
        }"""
    )


def test_first_picture_takes_at_most_10_requests_with_500_runs_of_118_tasks(fake, open_page):
    for number in range(500):
        fake.add(
            scheduled(run_id=f"scheduled__{number}", when=NOW - HOUR * (number + 2)).add("plan").add("apply")
        )
    for number in range(20):
        fake.add(batched(run_id=f"manual__{number}", when=NOW - timedelta(minutes=2 + number)))
    failed = batch_failed()
    failed.run_id, failed.when = "manual__failed", NOW
    for task in failed.tasks:
        task.update(dag_run_id="manual__failed", run_after=NOW.isoformat())
    fake.add(failed)
    frame = frame_of(open_page())
    assert frame.locator("#headline").inner_text().startswith("7 of 8 deleted")
    read = requests_before_the_first_picture(frame)
    assert 5 <= len(read) <= 10, read
    # The runs below follow, and are not more than are shown.
    frame.locator("#runs tbody tr").nth(9).locator(".badge").wait_for()
    assert frame.locator("#runs tbody tr").count() == 10
    assert "reading" not in frame.locator("#runs tbody tr").first.inner_text()


def test_header_names_who_approved_last_although_a_later_purge_was_rejected(fake, open_page):
    fake.runs = company()
    frame = frame_of(open_page())
    frame.locator("#account dt", has_text="Last purge rejected").wait_for()
    facts = {
        name: frame.locator(f"#account div:has(dt:text-is('{name}')) dd").inner_text()
        for name in ("Account", "Last purge approved", "Last purge rejected")
    }
    tavus, approved, rejected = facts.values()
    assert tavus == "tavus_default tavusapi.com"
    assert approved.startswith("by maria.santos ")
    assert rejected.startswith("by maria.santos ")
    assert approved < rejected, "by time"


# -- what is deleted next


def test_choice_of_another_account_while_one_is_read(fake, open_page):
    """What arrives late belongs to its own account."""
    fake.runs = two_accounts()
    page = open_page()
    frame = frame_of(page)
    first, second = frame.locator("#accounts button").nth(0), frame.locator("#accounts button").nth(1)
    for _ in range(3):
        second.click()
        first.click()
    second.click()
    frame.locator("#account dd", has_text="eu.example.com").wait_for()
    page.wait_for_load_state("networkidle")
    assert frame.locator("#account dd strong").first.inner_text() == "tavus_eu"
    assert frame.locator("#replicas tbody tr").count() == 14
    assert not frame.locator("#problem").is_visible()


def test_reasons_of_kept_replicas_are_counted_and_show_their_replicas(fake, open_page):
    fake.runs = company()
    frame = frame_of(open_page())
    told = " ".join(frame.locator("#kept").inner_text().split())
    assert told.startswith("Kept because of: ")
    assert sum(int(part) for part in told.split() if part.isdecimal()) == 15
    for number in range(frame.locator("#kept button").count()):
        reason = frame.locator("#kept button").nth(number)
        count, text = reason.inner_text().split(" ", 1)
        reason.click()
        assert frame.locator("#replicas tbody tr").count() == int(count)
        assert set(frame.locator("#replicas td.decider").all_inner_texts()) == {text}
        assert frame.locator("#kept button[aria-pressed=true]").inner_text() == f"{count} {text}"


# -- one account at a time


def test_everything_is_of_the_chosen_account(fake, open_page):
    fake.runs = two_accounts()
    page = open_page()
    frame = frame_of(page)
    cards = frame.locator("#accounts button")
    assert cards.count() == 2
    assert frame.locator("#account dd strong").first.inner_text() == "tavus_default"
    frame.locator("#accounts button", has_text="3 deletes in 30 days").wait_for()
    cards.nth(1).click()
    frame.locator("#account dd", has_text="eu.example.com").wait_for()
    frame.locator("#content:not([aria-busy])").wait_for()
    assert frame.locator("#account dd strong").first.inner_text() == "tavus_eu"
    assert frame.locator("#runs-choice option").count() == 1
    frame.locator("#runs tbody tr .badge").first.wait_for()
    assert frame.locator("#runs tbody tr").count() == 1
    assert "tavus_prune_eu" in frame.locator("#runs").inner_text()
    assert frame.locator("#replicas tbody tr").count() == 14
    assert "connection=tavus_eu" in page.url


def test_accounts_are_known_without_rendered_fields(fake, open_page):
    """Airflow 3.1 does not send them."""
    fake.runs = two_accounts()
    for made in fake.runs:
        for task in made.tasks:
            task["rendered_fields"] = {}
    frame = frame_of(open_page())
    frame.locator("#accounts button", has_text="unknown connection").wait_for(state="detached")
    names = frame.locator("#accounts button strong").all_inner_texts()
    assert names == ["tavus_default", "tavus_eu"]
    assert frame.locator("#account dd strong").first.inner_text() == "tavus_default"
    assert len(requests_before_the_first_picture(frame)) <= 10


def test_accounts_of_airflow_3_1_are_read_after_the_first_picture(fake, open_page):
    """Each plan task of another Dag needs a read there."""
    for number in range(8):
        made = scheduled(
            dag=f"prune_{number}", run_id=f"r{number}", when=NOW - HOUR * number, connection=f"tavus_{number}"
        )
        fake.add(made.planned(policy=WIDE).applied())
    fake.add(batch_failed())
    for made in fake.runs:
        for task in made.tasks:
            task["rendered_fields"] = {}
    page = open_page(path="/plugin/tavus?dag_id=prune_6&run_id=r6")
    frame = frame_of(page)
    assert frame.locator("#account dd strong").first.inner_text() == "tavus_6"
    assert len(requests_before_the_first_picture(frame)) <= 10
    frame.locator("#accounts button").nth(8).wait_for()
    names = set(frame.locator("#accounts button strong").all_inner_texts())
    assert names == {"tavus_default", *(f"tavus_{number}" for number in range(8))}


def test_latest_run_without_a_plan_is_named_above_the_newest_plan(fake, open_page):
    fake.runs = failed_since_yesterday()
    page = open_page()
    frame = frame_of(page)
    frame.locator("#newer", has_text="The latest run, of").wait_for()
    told = frame.locator("#newer.error").inner_text()
    assert "Failed plan failed: API key refused" in " ".join(told.split())
    assert frame.locator("#headline").inner_text().startswith("8 of 8 deleted")
    frame.get_by_role("button", name="Show the latest run").click()
    frame.locator("#headline", has_text="Plan failed: API key refused").wait_for()
    assert not frame.locator("#newer").is_visible()


def test_run_without_a_plan_says_that_it_has_no_reasons(fake, open_page):
    fake.add(refused_key())
    frame = frame_of(open_page())
    frame.get_by_role("button", name="Why is a replica kept?").click()
    told = frame.locator("#no-plan")
    assert told.inner_text() == "This run has no plan, so there are no replicas and no reasons to show."
    assert 0 < told.bounding_box()["y"] < WIDTHS[1280]


def test_stored_plan_says_how_to_see_why_a_replica_is_kept(fake, open_page):
    fake.add(scheduled().planned(replicas(names=many(6_000)), policy=UNLIMITED, stored=True).applied())
    frame = frame_of(open_page())
    frame.get_by_role("button", name="Why is a replica kept?").click()
    told = frame.locator("#notice")
    assert (
        "To see why one replica is kept or not: python -m tavus_provider explain POLICY REPLICA_ID."
        in told.inner_text()
    )
    assert 0 < told.bounding_box()["y"] < WIDTHS[1280] / 2
    assert not frame.locator("#search").is_visible()


def test_open_erasure_requests_are_in_the_facts_of_the_account(fake, open_page):
    fake.runs = with_erasures()
    frame = frame_of(open_page())
    frame.locator("#account dt", has_text="Erasure requests").wait_for()
    told = frame.locator("#account div:has(dt:text-is('Erasure requests')) dd").inner_text()
    assert told == "2 open, 1 overdue, 1 failed"


def test_erasures_are_shown_by_request(fake, open_page):
    fake.runs = with_erasures()
    frame = frame_of(open_page())
    frame.locator("#erasures tbody tr").nth(2).wait_for()
    rows = [" ".join(text.split()) for text in frame.locator("#erasures tbody tr").all_inner_texts()]
    assert rows[0].startswith("DSR-2026-0151")
    assert "waits for approval" in rows[0]
    assert "incomplete; certificate 1 is at" in rows[1]
    assert "Open: Videos that still exist. Trigger the DAG again" in rows[1]
    assert rows[1].endswith("2026-01-31 overdue")
    assert "Success complete; certificate 1 is at" in rows[2]
    assert not rows[2].endswith("overdue")


def test_erasures_with_one_reference_in_two_accounts_are_two(fake, open_page):
    fake.runs = two_accounts()
    found = {"what": "Videos that still exist", "count": 2, "next_step": "Trigger the DAG again"}
    state = {"state": "incomplete", "open": [found]}
    for hours, fields in enumerate(
        ({"certificate": {"state": "complete", "open": []}}, {"certificate": state, "connection": "tavus_eu"})
    ):
        fake.add(erasure("DSR-2026-0160", when=NOW - HOUR * hours, due="2099-01-31", **fields))
    frame = frame_of(open_page())
    frame.locator("#erasures tbody tr").first.wait_for()
    assert "complete" in frame.locator("#erasures tbody tr").inner_text()
    frame.locator("#accounts button", has_text="tavus_eu").click()
    frame.locator("#erasures tbody tr", has_text="incomplete").wait_for()


def test_account_that_becomes_known_after_the_first_picture_is_the_chosen_one(fake, open_page):
    """Airflow 3.1; the address names a run whose plan cannot tell its connection at first."""
    fake.runs = [
        scheduled(dag=f"prune_{number}", run_id="r", when=NOW - HOUR * number, connection=f"tavus_{number}")
        .planned(policy=WIDE)
        .applied()
        for number in range(5)
    ]
    oldest = fake.runs[-1]
    for made in fake.runs:
        for task in made.tasks:
            task["rendered_fields"] = {}
    newer = scheduled("failed", dag=oldest.dag_id, run_id="newer", when=NOW - HOUR * 3.5).add(
        "plan", "failed"
    )
    newer.tasks[0]["rendered_fields"] = {}
    fake.add(newer)
    page = open_page(path=f"/plugin/tavus?dag_id={oldest.dag_id}&run_id=newer")
    frame = frame_of(page)
    frame.locator("#accounts button[aria-pressed=true]", has_text="tavus_4").wait_for()
    assert frame.locator("#account dd strong").first.inner_text() == "tavus_4"
    page.wait_for_function("location.search.includes('connection=tavus_4')")


def test_mapped_plans_of_one_run_are_of_their_accounts(fake, open_page):
    both = scheduled(run_id="scheduled__all")
    for number, (connection, rows) in enumerate((("tavus_eu", 9), ("tavus_us", 24))):
        one = scheduled(run_id="scheduled__all", connection=connection)
        one.planned(replicas()[:rows], policy=WIDE).applied()
        for task in one.tasks:
            both.tasks.append({**task, "map_index": number, "id": f"{task['id']}/{number}"})
        both.xcoms |= {(task, number, key): value for (task, _, key), value in one.xcoms.items()}
    fake.add(both)
    frame = frame_of(open_page())
    for connection, total, deleted in (("tavus_eu", 9, 6), ("tavus_us", 24, 8)):
        frame.locator("#accounts button", has_text=connection).click()
        frame.locator("#account dd", has_text=connection).wait_for()
        frame.locator("#content:not([aria-busy])").wait_for()
        frame.locator("#groups button", has_text=f"{total} all").wait_for()
        assert frame.locator("#headline").inner_text().startswith(f"{deleted} of {deleted} deleted")


def test_address_follows_the_choice_and_reload_opens_the_same(fake, open_page):
    fake.runs = company()
    page = open_page()
    frame = frame_of(page)
    assert "run_id=manual__waiting" in page.url
    rejected = frame.locator("#runs tbody tr", has_text="rejected by")
    rejected.first.wait_for()
    rejected.get_by_role("button").click()
    frame.get_by_text("Rejected, nothing deleted").wait_for()
    assert "run_id=manual__rejected" in page.url
    page.reload()
    frame = frame_of(page)
    assert frame.locator("#headline").inner_text().startswith("Rejected, nothing deleted")
    # the page without the frame opens the same
    page.goto(page.url.replace("/plugin/tavus", "/tavus/"))
    page.get_by_text("Rejected, nothing deleted").wait_for()


# -- the table of replicas


def test_row_opens_into_its_checks_and_its_history_by_keyboard(fake, open_page):
    fake.runs = company()
    page = open_page()
    frame = frame_of(page)
    frame.locator("#search").fill("jonas-berg")
    assert frame.locator("#replicas tbody tr").count() == 1
    frame.locator(".toggle").focus()
    page.keyboard.press("Enter")
    assert frame.locator(".toggle").get_attribute("aria-expanded") == "true"
    checks = frame.locator(".checks li")
    verdict = next(
        row
        for row in fake.runs[-1].xcoms["plan", -1, "verdicts"]["rows"]
        if row["replica_id"] == replica_id(9)
    )
    assert [check for check, _ in verdict["checks"]] == [
        text.replace(" ", "_") for text in frame.locator(".check-name").all_inner_texts()
    ]
    assert "decides" in checks.last.inner_text()
    frame.locator(".history li").first.wait_for()
    history = frame.locator(".history li").all_inner_texts()
    assert "Delete" in history[0]
    assert any("Kept" in text or "Not expired" in text for text in history[1:])
    # focus stays on the row, and the same key closes it
    page.keyboard.press("Enter")
    assert frame.locator(".toggle").get_attribute("aria-expanded") == "false"


def test_page_is_used_by_keyboard_only(fake, open_page):
    """Tab reaches the controls in the order of the page; each shows the focus, and a choice keeps it."""
    fake.runs = two_accounts()
    page = open_page()
    frame = frame_of(page)
    frame.locator("#runs tbody tr .badge").nth(7).wait_for()
    page.wait_for_load_state("networkidle")
    frame.locator("#refresh").focus()
    seen = []
    for _ in range(40):
        page.keyboard.press("Tab")
        place, outline = frame.evaluate(
            """() => {
              const node = document.activeElement;
              const section = node.closest('[id]').id;
              return [`${section}:${node.textContent.slice(0, 20)}`, getComputedStyle(node).outlineStyle];
            }"""
        )
        assert outline != "none", place
        seen.append(place.split(":")[0])
    order = list(dict.fromkeys(seen))
    assert order[:6] == ["accounts", "account", "next", "runs-choice", "state", "timeline"]
    assert order[6:11] == ["plan-facts", "search", "groups", "kept", "replicas"]
    frame.locator("#accounts button").nth(1).focus()
    page.keyboard.press("Enter")
    frame.locator("#account dd", has_text="eu.example.com").wait_for()
    frame.locator("#runs tbody tr .badge").first.wait_for()
    assert frame.evaluate("document.activeElement.getAttribute('aria-pressed')") == "true"
    frame.locator("#groups button", has_text="to delete").focus()
    page.keyboard.press("Space")
    assert frame.locator("#groups [aria-pressed=true]").inner_text().endswith("to delete")
    assert frame.evaluate("document.activeElement.dataset.group") == "to delete"


def test_rows_without_checks_show_their_reason(fake, open_page):
    made = fake.add(scheduled().planned(policy=WIDE).applied(dry_run=True))
    for row in made.xcoms["plan", -1, "verdicts"]["rows"]:
        row.pop("checks")
    frame = frame_of(open_page())
    frame.locator(".toggle").first.click()
    assert "The checks of this run were not pushed" in frame.locator("tr.detail").inner_text()


def test_5000_rows_are_in_pages_and_filtered_by_status_and_text(fake, open_page):
    made = fake.add(scheduled().planned(policy=WIDE).applied(dry_run=True))
    made.push("plan", many_verdicts(5_000), "verdicts")
    frame = frame_of(open_page())
    assert "1 to 100 of 5,000 replicas" in frame.locator("#found").inner_text()
    assert frame.locator("#replicas tbody tr").count() == 100
    frame.get_by_role("button", name="Next", exact=True).click()
    assert "101 to 200 of 5,000 replicas" in frame.locator("#found").inner_text()
    frame.locator("#groups button", has_text="held").click()
    assert "of 1,250 replicas" in frame.locator("#found").inner_text()
    frame.locator("#search").fill("speaker-0002")
    assert frame.locator("#replicas .name").all_inner_texts() == ["sales-intro_speaker-0002"]


def test_status_without_replicas_cannot_be_chosen(fake, open_page):
    fake.runs = company()
    frame = frame_of(open_page())
    assert frame.locator("#groups button", has_text="held").count() == 0
    frame.locator("#groups button", has_text="undetermined").click()
    assert frame.locator("#replicas tbody tr").count() == 1


def test_phone_leads_from_the_first_screen_to_the_reason_of_a_replica(fake, open_page):
    fake.runs = two_accounts()
    page = open_page(width=390)
    frame = frame_of(page)
    frame.get_by_role("button", name="Why is a replica kept?").click()
    assert frame.locator("#groups [aria-pressed=true]").inner_text() == "15 kept"
    assert 0 < frame.locator("#replicas td.reason").first.bounding_box()["y"] < WIDTHS[390] - 40
    page.keyboard.type("ceo")
    (reason,) = frame.locator("#replicas td.reason").all()
    assert reason.inner_text() == "name matches scope.exclude 'brand_*'"
    assert 0 < reason.bounding_box()["y"] < WIDTHS[390] - 40


# -- difference and forecast


def test_difference_and_forecast_are_shown_with_their_numbers(fake, open_page):
    before = fake.add(scheduled(run_id="s1", when=NOW - 25 * HOUR).planned(policy=WIDE).applied(dry_run=True))
    rows = [row for row in replicas() if row.replica_id != replica_id(0)]
    after = scheduled(run_id="s2").planned(rows, policy=WIDE, before=before, used=(2, 6, 1))
    fake.add(after.applied(dry_run=True))
    frame = frame_of(open_page())
    frame.locator("#difference .change").first.wait_for()
    shown = frame.locator("#difference").inner_text()
    assert "1 saved by use" in shown
    assert "onboarding_ben-okafor" in shown
    assert "1 no longer listed" in shown
    weeks = after.xcoms["plan", -1, "forecast"]["weeks"]
    counts = frame.locator("#forecast .column-count").all_inner_texts()
    assert counts == [str(week["count"]) for week in weeks]
    bars = {
        text.split("\n")[0]: text.split("\n")[-1] for text in frame.locator("#deciders li").all_inner_texts()
    }
    assert bars["undetermined"] == "1"


# -- while a run is under way


def test_run_under_way_is_read_again_until_it_ends(fake, open_page):
    made = fake.add(waiting())
    page = open_page()
    frame = frame_of(page)
    frame.locator("#search").fill("onboarding")
    found = frame.locator("#found").inner_text()
    made.hitl.clear()
    made.tasks = made.tasks[:1]
    made.asked("Approve").applied()
    made.state = "success"
    frame.get_by_text("8 of 8 deleted").first.wait_for()
    assert [text.split("\n")[0] for text in frame.locator("#timeline li").all_inner_texts()][-1] == "Verified"
    # what a person has typed stays
    assert frame.locator("#search").input_value() == "onboarding"
    assert frame.locator("#found").inner_text() == found
    count = len(fake.requests)
    page.clock.install()
    page.clock.fast_forward(60_000)
    assert len(fake.requests) <= count + 20, "an ended run is not read again and again"


# -- nothing to show


def test_answer_that_a_role_may_not_read_is_not_called_missing(fake, open_page):
    fake.add(run().planned(policy=WIDE).asked("Approve").applied())
    page = open_page()
    page.route("**/hitlDetails*", partial(refuse, 403))
    page.reload()
    frame = frame_of(page)
    assert "your role may not read the answer" in frame.locator("#timeline").inner_text()
    frame.locator("#runs .badge").first.wait_for()
    page.wait_for_load_state("networkidle")
    approved = frame.locator("#account div:has(dt:text-is('Last purge approved')) dd")
    assert approved.inner_text() == "your role may not read it"
    assert frame.locator("#headline").inner_text().startswith("8 of 8 deleted")
    page.unroute_all()


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("waiting", "never; the first request waits for an answer"),
        ("timeout", "never; nobody answered the only request"),
        ("rejected", "never; the only request was rejected"),
        ("dry run", "never; no run asked for an approval (1 run in Airflow)"),
    ],
)
def test_absence_of_an_approval_is_explained(fake, open_page, kind, said):
    fake.add(RUNS[kind][0]())
    frame = frame_of(open_page())
    frame.locator("#refresh:enabled").wait_for()
    assert frame.locator("#account div:has(dt:text-is('Last purge approved')) dd").inner_text() == said


def test_approval_that_was_marked_by_hand_is_shown(fake, open_page):
    fake.add(run().planned(policy=WIDE).add("approve").applied())
    frame = frame_of(open_page())
    assert "marked as success without an answer" in frame.locator("#timeline").inner_text()


def refuse(status, route):
    route.fulfill(status=status, json={"detail": "no"})


def test_user_without_permission_is_told(fake, open_page):
    page = open_page(path="/tavus/")
    page.get_by_text("No plan has been made yet").wait_for()
    told = {401: "You are not signed in to Airflow", 403: "Your Airflow role may not read this"}
    for status, text in told.items():
        page.route("**/api/v2/**", partial(refuse, status))
        page.reload()
        page.get_by_text(text).wait_for()
        assert not page.locator("#content").is_visible()
        assert not page.locator("#skeleton").is_visible()
        page.unroute_all()
    page.get_by_role("button", name="Try again").click()
    page.get_by_text("No plan has been made yet").wait_for()


# -- looks


MIDNIGHT = (NOW + 24 * HOUR).replace(hour=0, minute=0, second=0)
FIELDS = {
    "overdue": {"next_run": NOW - 3 * HOUR, "health": {"scheduler": {"status": "unhealthy"}}},
}
"""What Airflow says in a state, beside its runs."""
STATES = {
    "overdue": lambda: [
        scheduled(when=NOW - 20 * HOUR, user="jo.fischer").planned(policy=WIDE).applied(dry_run=True)
    ],
    "overlap": real_deletes_beside_a_purge,
    "deleting": lambda: [
        scheduled(run_id="s1", when=NOW - 25 * HOUR).planned(policy=WIDE).applied(dry_run=True),
        scheduled("running", when=NOW).planned(policy=WIDE).add("apply", "running"),
    ],
    "nightly": nightly,
    "newer": failed_since_yesterday,
    "erasures": with_erasures,
    "company": company,
    "accounts": two_accounts,
    "approved": lambda: [run().planned(policy=WIDE).asked("Approve").applied()],
    "failed": lambda: [failed_apply()],
    "limit": lambda: [over_the_limit()],
    "key": lambda: [refused_key()],
    "rejected": lambda: [run().planned(policy=WIDE).asked("Reject").add("apply", "skipped")],
    "stored": lambda: [
        run("running", hard=False)
        .planned(replicas(names=many(6_000)), policy=UNLIMITED, stored=True)
        .add("apply", "running")
    ],
}


def check_look(page, frame) -> None:
    """Check that nothing is clipped, and that axe-core finds nothing."""
    assert frame.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    clipped = frame.evaluate(
        """() => [...document.querySelectorAll('#replicas, #runs, .panel, .facts dd, .badge, button, th')]
          .filter((node) => !node.closest('[hidden]') && node.clientWidth > 2)
          .filter((node) => node.scrollWidth > node.clientWidth + 1)
          .map((node) => node.outerHTML.slice(0, 90))"""
    )
    assert clipped == []
    if not AXE.is_file():
        return
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
    found = frame.evaluate(
        "(tags) => axe.run(document, { runOnly: tags, resultTypes: ['violations'] })", tags
    )
    assert [
        (violation["id"], node["html"][:120], node["failureSummary"][-160:])
        for violation in found["violations"]
        for node in violation["nodes"][:3]
    ] == []


@pytest.mark.parametrize("state", [*STATES, *RUNS])
def test_page_fits_each_width_and_has_no_violation_of_wcag(fake, open_page, state):
    """At three widths and in both themes. Without axe-core (`make browser`) only the widths are checked."""
    fake.runs = STATES[state]() if state in STATES else [RUNS[state][0]()]
    fake.next_run = MIDNIGHT
    for name, value in FIELDS.get(state, {}).items():
        setattr(fake, name, value)
    page = open_page()
    frame = frame_of(page)
    frame.locator("#runs .badge").first.wait_for()
    page.wait_for_load_state("networkidle")
    if frame.locator(".toggle").count():
        # The last row is one that is kept.
        frame.locator(".toggle").last.click()
        frame.locator(".history li").first.wait_for()
    if AXE.is_file():
        # The page forbids scripts of others, and axe-core is one: it is run by the debugger of the browser.
        frame.evaluate(AXE.read_text(encoding="utf-8"))
    for width, height in WIDTHS.items():
        page.set_viewport_size({"width": width, "height": height})
        page.evaluate(f"document.querySelector('nav').style.width = '{0 if width < 500 else 64}px'")
        for scheme in ("light", "dark"):
            page.evaluate(f"document.documentElement.className = '{scheme}'")
            frame.locator(f"html[data-theme={scheme}]").wait_for(state="attached")
            frame.evaluate("scrollTo(0, 0)")
            name = f"page-{state.replace(' ', '-')}-{width}-{scheme}"
            save_screenshot(page, name)
            save_whole_screenshot(page, frame, f"{name}-whole")
            check_look(page, frame)


def test_colours_are_those_of_airflow(fake, open_page):
    fake.runs = company()
    for scheme, colour in (("light", "rgb(253, 253, 253)"), ("dark", "rgb(22, 28, 44)")):
        page = open_page(scheme)
        frame = frame_of(page)
        assert frame.evaluate("getComputedStyle(document.body).backgroundColor") == colour
    # a change of the theme is followed
    page.evaluate("document.documentElement.className = 'light'")
    frame.locator("html[data-theme=light]").wait_for(state="attached")
    assert frame.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(253, 253, 253)"


def test_motion_is_reduced_and_forced_colours_keep_the_words(fake, open_page):
    fake.runs = company()
    page = open_page(reduced_motion="reduce", forced_colors="active")
    frame = frame_of(page)
    assert frame.evaluate("getComputedStyle(document.querySelector('.bone')).animationName") == "none"
    assert frame.evaluate("getComputedStyle(document.querySelector('.toggle .icon')).transitionProperty") in (
        "none",
        "all",
    )
    assert frame.locator("#replicas .badge").first.inner_text() == "Delete"
    border = "getComputedStyle(document.querySelector('#replicas .badge')).borderTopStyle"
    assert frame.evaluate(border) == "solid"
    save_screenshot(page, "page-forced-colours")


def test_print_has_all_rows(fake, open_page):
    rows = replicas(names=many(330))
    fake.add(
        scheduled().planned(
            rows, policy={**POLICY, "limits": {"max_deletions": 400, "max_deletion_percent": 100}}
        )
    )
    page = open_page(path="/tavus/")
    page.locator("#content:not([aria-busy])").wait_for()
    assert page.locator("#replicas tbody tr").count() == 100
    count = "window.printed = document.querySelectorAll('#replicas tbody tr').length"
    buttons = "window.buttons = document.querySelectorAll('#replicas thead button').length"
    page.evaluate(f"addEventListener('beforeprint', () => {{ {count}; {buttons} }})")
    pdf = page.pdf(format="A4")
    if folder := os.environ.get("UI_PICTURES"):
        (Path(folder) / "page.pdf").write_bytes(pdf)
    assert page.evaluate("window.printed") == 330
    assert page.evaluate("window.buttons") == 0, "a head with buttons is not repeated on each page"
    assert page.locator("#replicas tbody tr").count() == 100
    assert pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page ") >= 8
