"""What the Tavus page says about the next deletes, in a browser on a stand-in for Airflow's REST API."""

from __future__ import annotations

import pytest
from browser import frame_of, in_browser
from fake_airflow import NEXT_RUN, NOW, POLICY, Run, company, erasure, replicas
from page_runs import (
    HOUR,
    WIDE,
    failed_since_yesterday,
    nightly,
    one_old_replica,
    over_the_limit,
    refused_key,
    run,
    scheduled,
    stopped,
    two_accounts,
    waiting,
    with_erasures,
)

from tavus_provider.outcomes import Outcome

pytestmark = in_browser


def next_deletes(frame) -> list[str]:
    """Return the lines, once everything was read."""
    frame.locator("#refresh:enabled").wait_for()
    return [" ".join(text.split()) for text in frame.locator("#next li").all_inner_texts()]


def test_next_deletes_are_those_that_wait_and_then_those_of_the_schedule(fake, open_page):
    fake.runs = company()
    frame = frame_of(open_page())
    waits, then = next_deletes(frame)
    assert waits.startswith(
        "Once approved 8 replicas, permanently · tavus_purge_replicas A person can approve it until "
    )
    assert ". Without an answer nothing is deleted. Open the approval onboarding_anna-weber, " in waits
    assert waits.endswith(" and 5 more")
    assert then.startswith(f"{NEXT_RUN:%Y-%m-%d %H:%M} Nothing: a dry run · tavus_prune_replicas ")
    assert " Without dry run it would delete 7 replicas, soft delete. onboarding_anna-weber, " in then
    told = frame.locator("#next-30-days").inner_text()
    assert told == (
        "Forecast: 11 deletes in 30 days, if the policy of the newest plan runs daily and not as a dry run."
    )


def test_next_run_says_what_also_waits_for_an_approval(fake, open_page):
    fake.runs = company()
    fake.dag = {"params": {"dry_run": {"value": False}}}
    _, then = next_deletes(frame_of(open_page()))
    assert " 7 replicas, soft delete · tavus_prune_replicas Needs no approval. Deletes, unless it is " in then
    assert then.endswith(" and 4 more, unless used in the meantime. All 7 are also listed above")


LATER = "The run of {next} finds nothing expired yet. Needs no approval."


@pytest.mark.parametrize(
    ("age", "said"),
    [
        (88, "{in_2_days} or later 1 replica, soft delete · {dag} {later} a, unless used in the meantime"),
        (89, "{next} 1 replica, soft delete · {dag} Needs no approval. a, unless used in the meantime"),
        (1, "{in_89_days} or later 1 replica, soft delete · {dag} {later} a, unless used in the meantime"),
        (500, "{next} Nothing · {dag} Nothing expires in the 90 days from {today} on."),
    ],
)
def test_next_run_says_what_the_newest_plan_expects(fake, open_page, age, said):
    fake.add(one_old_replica(age).applied())
    words = {f"in_{days}_days": f"{NOW + days * 24 * HOUR:%Y-%m-%d}" for days in (2, 89)}
    words |= {"today": f"{NOW:%Y-%m-%d}", "next": f"{NEXT_RUN:%Y-%m-%d %H:%M}", "dag": "tavus_prune_replicas"}
    words["later"] = LATER.format(**words)
    assert next_deletes(frame_of(open_page())) == [said.format(**words)]


@pytest.mark.parametrize(
    ("ages", "said", "which"),
    [
        ((500, 89), "2 replicas", "1 of them expires about then: this run deletes it, or the run after."),
        ((89,), "1 replica", "It expires about then: this run deletes it, or the run after."),
    ],
)
def test_replica_that_may_expire_after_the_next_run_is_counted_with_a_note(
    fake, open_page, ages, said, which
):
    """The forecast has one run a day, at the time of day of the plan."""
    policy = {**WIDE, "expire": [{"rule": "old", "older_than": "90d"}]}
    rows = replicas(names=[(f"a{age}", age, "completed") for age in ages])
    policy["limits"] = {"max_deletions": 9, "max_deletion_percent": 100}
    fake.add(scheduled("failed", when=NOW).planned(rows, policy=policy).add("apply", "failed"))
    fake.next_run = NOW + 10 * HOUR
    (line,) = next_deletes(frame_of(open_page()))
    assert f" {said}, soft delete · tavus_prune_replicas May fail again: the latest run failed (" in line
    assert f" {which} " in line


@pytest.mark.parametrize(
    ("dag", "scheduler", "reason"),
    [
        ({}, "healthy", "Can start at any moment"),
        ({}, "unhealthy", "Airflow's scheduler is down: the run starts when it is back"),
        (
            {"active_runs_count": 1},
            "healthy",
            "Starts when the run of this Dag that is under way has ended",
        ),
    ],
)
def test_overdue_run_says_why_it_has_not_started(fake, open_page, dag, scheduler, reason):
    """The dry run that a person triggered says nothing about the runs of the schedule."""
    fake.add(one_old_replica(500, user="jo.fischer").applied(dry_run=True))
    fake.next_run, fake.dag, fake.health = NOW - 25 * HOUR, dag, {"scheduler": {"status": scheduler}}
    (line,) = next_deletes(frame_of(open_page()))
    assert line == (
        "Overdue 1 replica, soft delete · tavus_prune_replicas "
        f"{reason}; was due {fake.next_run:%Y-%m-%d %H:%M}. "
        f"Needs no approval. Deletes for real: its dry run is off, unlike in the run of {NOW:%Y-%m-%d}. "
        "a, unless used in the meantime"
    )


def test_run_of_a_dag_without_a_param_for_it_may_be_a_dry_run(fake, open_page):
    fake.add(one_old_replica(500).applied(dry_run=True))
    fake.dag = {"params": {}}
    (line,) = next_deletes(frame_of(open_page()))
    assert (
        f" Needs no approval. Nothing if it is a dry run, as the run of {NOW:%Y-%m-%d} was. a, unless" in line
    )


@pytest.mark.parametrize(
    ("age", "said"),
    [
        (500, "Without dry run it would delete 1 replica, soft delete. a, unless used in the meantime"),
        (
            88,
            "Without dry run it would delete 1 replica, soft delete, from {in_2_days} on. "
            "a, unless used in the meantime",
        ),
    ],
)
def test_scheduled_dry_run_deletes_nothing_next(fake, open_page, age, said):
    fake.add(one_old_replica(age).applied(dry_run=True))
    (line,) = next_deletes(frame_of(open_page()))
    said = said.format(in_2_days=f"{NOW + 48 * HOUR:%Y-%m-%d}")
    assert line == f"{NEXT_RUN:%Y-%m-%d %H:%M} Nothing: a dry run · tavus_prune_replicas {said}"


def test_dag_without_a_date_of_its_next_run_is_scheduled_too(fake, open_page):
    """Airflow 3.1 names no next run while a run is under way; a Dag that waits for an asset never has one."""
    fake.add(one_old_replica(500, user="jo.fischer").applied(dry_run=True))
    fake.next_run = None
    (line,) = next_deletes(frame_of(open_page()))
    assert line.startswith("No date yet 1 replica, soft delete · tavus_prune_replicas ")
    assert " Starts by its schedule, 0 0 * * *. Needs no approval. Deletes for real: " in line


def test_run_that_deletes_now_is_not_counted_again_for_the_next_one(fake, open_page):
    fake.add(scheduled("running", when=NOW).planned(policy=WIDE).add("apply", "running"))
    now, later = next_deletes(frame_of(open_page()))
    assert now.startswith(
        "Now 8 replicas, soft delete · tavus_prune_replicas The run is deleting. onboarding_anna-weber, "
    )
    assert " or later 1 replica, soft delete · tavus_prune_replicas The run of " in later
    assert " finds nothing expired yet. Needs no approval. product-tour_kavya-rao, " in later


def test_dry_run_under_way_deletes_nothing(fake, open_page):
    made = fake.add(
        scheduled("running", when=NOW, user="jo.fischer").planned(policy=WIDE).add("apply", "running")
    )
    made.conf = {"dry_run": True}
    (line,) = next_deletes(frame_of(open_page()))
    assert not line.startswith("Now ")
    assert " 8 replicas, soft delete " in line


def test_erasure_that_waits_is_among_the_next_deletes(fake, open_page):
    fake.runs = with_erasures()
    lines = next_deletes(frame_of(open_page()))
    waiting = "Once approved Erasure request DSR-2026-0151, permanently · tavus_erase_person"
    assert f"{waiting} A person can approve it. Open the run" in lines


def test_deletes_of_30_days_are_without_those_of_a_run_that_has_deleted(fake, open_page):
    fake.add(scheduled(when=NOW).planned(policy=WIDE).applied())
    frame = frame_of(open_page())
    next_deletes(frame)
    assert frame.locator("#next-30-days").inner_text().startswith("Forecast: 3 deletes in 30 days, ")
    frame.locator("#forecast .columns li").first.wait_for()
    weeks = [int(text) for text in frame.locator("#forecast .column-count").all_inner_texts()]
    assert weeks[0] == 0
    told = frame.locator("#forecast p").first.inner_text()
    assert told.endswith(f": {sum(weeks)} in 90 days, without those of this run.")


def test_long_name_is_shortened_in_next_deletes(fake, open_page):
    name = "🙂" * 90
    made = scheduled(when=NOW, user="jo.fischer").planned(
        replicas(names=[(name, 500, "completed")]), policy=WIDE
    )
    fake.add(made.applied(dry_run=True))
    (line,) = next_deletes(frame_of(open_page()))
    assert f" {name[:40]}…, unless" in line


def test_next_run_tries_again_what_a_failed_run_has_left(fake, open_page):
    fake.add(scheduled("failed").planned(policy=WIDE).add("apply", "upstream_failed"))
    (line,) = next_deletes(frame_of(open_page()))
    assert " 8 replicas, soft delete · tavus_prune_replicas May fail again: the latest run failed (" in line


def test_next_run_deletes_what_the_latest_one_has_left(fake, open_page):
    made = fake.add(stopped())
    (line,) = next_deletes(frame_of(open_page()))
    name = made.plan["delete"][0]["replica_name"]
    assert " 1 replica, soft delete · tavus_prune_replicas May fail again: the latest run failed (" in line
    assert line.endswith(f" {name}, unless used in the meantime")
    assert line.startswith(f"{NEXT_RUN:%Y-%m-%d %H:%M} ")


def test_next_run_that_a_limit_stops_says_so(fake, open_page):
    fake.add(over_the_limit())
    frame = frame_of(open_page())
    (line,) = next_deletes(frame)
    assert " Nothing: a limit stops it · tavus_prune_replicas 8 of 24 replicas to delete, " in line
    assert ", at most 5 and at most 25 % are allowed. A person must look, " in line
    assert frame.locator("#next-30-days").inner_text() == ""


def test_next_run_after_one_that_failed_says_what_must_be_mended(fake, open_page):
    fake.runs = failed_since_yesterday()
    (line,) = next_deletes(frame_of(open_page()))
    assert (
        " Nothing: Tavus refuses the API key · tavus_prune_replicas Each run fails and deletes nothing "
        in line
    )
    assert " Once it is corrected: 1 replica, soft delete, " in line
    assert " or later. Needs no approval. product-tour_kavya-rao, " in line


def test_plan_that_a_form_narrowed_is_no_forecast_of_its_dag(fake, open_page):
    fake.add(
        scheduled(run_id="s1", when=NOW - 25 * HOUR).planned(policy=WIDE).add("apply", "upstream_failed")
    )
    narrow = {**WIDE, "narrow": {"include": ["webinar-*"]}}
    fake.add(run(dag="tavus_prune_replicas", hard=False, run_id="m1").planned(policy=narrow).applied())
    (line,) = next_deletes(frame_of(open_page()))
    # without the one that the narrowed run has deleted
    assert " 7 replicas, soft delete " in line
    assert "webinar-" not in line


def test_plan_of_a_form_that_narrows_nothing_is_one_of_its_dag(fake, open_page):
    """A form always sends the age of the policy."""
    same = {**WIDE, "narrow": {"older_than": "14d", "include": ["*"]}}
    fake.add(run(dag="tavus_prune_replicas", hard=False).planned(policy=same).applied(dry_run=True))
    frame = frame_of(open_page())
    (line,) = next_deletes(frame)
    assert " 8 replicas, soft delete " in line
    assert "Narrowed by the form" not in frame.locator("#plan-facts").inner_text()


def test_form_that_narrows_is_shown(fake, open_page):
    narrow = {**WIDE, "narrow": {"older_than": "300d", "include": ["webinar-*"]}}
    fake.add(run(dag="tavus_prune_replicas", hard=False).planned(policy=narrow).applied(dry_run=True))
    frame = frame_of(open_page())
    (line,) = next_deletes(frame)
    assert (
        " Not known · tavus_prune_replicas Its newest runs made no plan of the whole policy. A dry run "
        in line
    )
    assert "only webinar-*; older than 300d" in frame.locator("#plan-facts").inner_text()


def test_paused_dag_deletes_nothing_next(fake, open_page):
    fake.paused = {"tavus_prune_replicas"}
    fake.add(scheduled().planned(policy=WIDE).applied(dry_run=True))
    told = next_deletes(frame_of(open_page()))
    assert told == ["No date Nothing is scheduled tavus_prune_replicas is paused."]


def test_card_of_each_account_says_what_is_deleted_next(fake, open_page):
    fake.runs = [*nightly(), *two_accounts()[-1:]]
    frame = frame_of(open_page())
    cards = frame.locator("#accounts button")
    frame.locator("#refresh:enabled").wait_for()
    first, second = (" ".join(text.split()) for text in cards.all_inner_texts())
    assert "tavus_eu" in first
    assert ": 1 replica, soft delete Forecast: " in first
    assert f"{NEXT_RUN:%Y-%m-%d %H:%M}: 1 replica, soft delete Forecast: " in second


# -- what the page must not claim


def params(dry_run: bool) -> dict:
    return {"params": {"dry_run": {"value": dry_run}}}


def merged(made: Run, other: Run, suffix: str) -> Run:
    """Add the tasks and XComs of another run, with a suffix, and who follows whom in both."""
    for task in other.tasks:
        made.tasks.append({**task, "task_id": task["task_id"] + suffix, "id": task["id"] + suffix})
    made.xcoms |= {(task + suffix, index, key): value for (task, index, key), value in other.xcoms.items()}
    return made


def structure(*chains: tuple[str, ...]) -> list[dict]:
    pairs = [pair for chain in chains for pair in zip(chain, (*chain[1:], None), strict=True)]
    return [{"task_id": task, "downstream_task_ids": [after] if after else []} for task, after in pairs]


def mapped(connection: str, index: int, made: Run) -> Run:
    """Make the tasks and XComs of a run those of one account of a mapped Dag."""
    for task in made.tasks:
        task |= {"map_index": index, "id": f"{task['id']}/{index}"}
        task["rendered_fields"] = {"tavus_conn_id": connection} if task["task_id"] != "approve" else {}
    made.xcoms = {(task, index, key): value for (task, _, key), value in made.xcoms.items()}
    return made


def test_default_that_the_last_scheduled_run_contradicts_is_no_proof_of_a_dry_run(fake, open_page):
    fake.dag = params(True)
    fake.add(scheduled(when=NOW).planned(policy=WIDE).applied())
    (line,) = next_deletes(frame_of(open_page()))
    assert " or later 1 replica, soft delete " in line
    assert " Nothing if it is a dry run, which is the default of the Dag; but the scheduled run of " in line


def test_run_under_way_whose_default_is_a_dry_run_is_not_hidden(fake, open_page):
    fake.dag = params(True)
    fake.add(scheduled("running", when=NOW).planned(policy=WIDE).add("apply", "running"))
    now, then = next_deletes(frame_of(open_page()))
    assert " Nothing if it is a dry run, as is the default of the Dag." in now
    assert " Without dry run it would delete 8 replicas, soft delete. " in then


def test_fields_of_the_tasks_say_that_a_run_under_way_is_a_dry_run(fake, open_page):
    made = fake.add(scheduled("running", when=NOW).planned(policy=WIDE).add("apply", "running"))
    for task in made.tasks:
        task["rendered_fields"]["dry_run"] = "True"
    (line,) = next_deletes(frame_of(open_page()))
    assert not line.startswith("Now ")


@pytest.mark.parametrize("state", ["queued", None])
def test_run_whose_approval_is_not_asked_for_yet_waits_for_it(fake, open_page, state):
    fake.add(run("running").planned(policy=WIDE).add("approve", state).add("apply", None))
    first, _ = next_deletes(frame_of(open_page()))
    assert first.startswith("Once approved 8 replicas, permanently ")


def test_purge_that_waits_behind_many_newer_runs_is_found(fake, open_page):
    fake.add(waiting(when=NOW - 13 * HOUR))
    for number in range(12):
        fake.add(one_old_replica(1, when=NOW - number * HOUR, run_id=f"s{number}").applied())
    first, *_ = next_deletes(frame_of(open_page()))
    assert first.startswith("Once approved 8 replicas, permanently ")


def test_key_that_has_worked_since_does_not_block(fake, open_page):
    fake.add(scheduled(run_id="s1", when=NOW - 25 * HOUR).planned(policy=WIDE).applied())
    fake.add(refused_key())
    fake.add(run(when=NOW).planned(policy=WIDE).asked("Reject").add("apply", "skipped"))
    (line,) = next_deletes(frame_of(open_page()))
    assert " May fail again: the latest run failed (plan failed: API key refused). " in line
    assert " Nothing: " not in line


def test_account_of_a_run_that_failed_in_another_account_has_not_failed(fake, open_page):
    made = mapped(
        "tavus_us",
        0,
        run("failed", dag="tavus_prune_accounts", hard=False, user=None, connection="tavus_us")
        .planned(policy=WIDE)
        .applied(),
    )
    other = mapped("tavus_eu", 1, refused_key())
    fake.add(made).tasks.extend(
        {**task, "dag_id": made.dag_id, "dag_run_id": made.run_id} for task in other.tasks
    )
    made.xcoms |= other.xcoms
    frame = frame_of(open_page(path="/plugin/tavus?connection=tavus_us"))
    frame.locator("#accounts button", has_text="tavus_us").click()
    frame.locator("#account dd", has_text="tavus_us").wait_for()
    (line,) = next_deletes(frame)
    assert "failed" not in line
    assert "8 deleted; another account of this run failed" in frame.locator("#state").inner_text()
    assert frame.locator("#state .badge").inner_text() == "Failed"


def test_approval_is_of_the_plan_that_it_follows(fake, open_page):
    """A Dag with two plans: one is soft, the other permanent and approved."""
    made = scheduled("running", when=NOW - HOUR).planned(policy=WIDE).add("apply", "running")
    permanent = scheduled(when=NOW - HOUR, hard=True).planned(
        policy={**WIDE, "scope": {"include": ["webinar-*"]}}
    )
    permanent.asked(state="awaiting_input").add("apply", None)
    fake.add(merged(made, permanent, "_hard"))
    fake.structure = structure(("plan", "apply"), ("plan_hard", "approve_hard", "apply_hard"))
    lines = next_deletes(frame_of(open_page()))
    soft = [line for line in lines if "soft delete" in line]
    assert soft[0].startswith("Now 8 replicas, soft delete ")
    assert " tavus_prune_replicas / plan " in soft[1]
    assert "Needs no approval." in soft[1]
    permanently = [line for line in lines if "permanently" in line]
    assert permanently[0].startswith("Once approved 1 replica, permanently ")
    assert "Only if a person approves it." in permanently[1]


def test_dag_that_only_plans_deletes_nothing(fake, open_page):
    fake.add(scheduled().planned(policy=WIDE))
    (line,) = next_deletes(frame_of(open_page()))
    assert line.endswith(" Nothing: it only plans · tavus_prune_replicas No task of the Dag deletes.")


def test_limit_counts_what_several_days_add_up_to(fake, open_page):
    fake.next_run = NOW + 14 * 24 * HOUR
    eight = {**WIDE, "limits": {"max_deletions": 8, "max_deletion_percent": 50}}
    fake.add(scheduled(when=NOW, user="jo.fischer").planned(policy=eight).applied(dry_run=True))
    (line,) = next_deletes(frame_of(open_page()))
    assert " Nothing: a limit stops it · tavus_prune_replicas 9 of 24 replicas to delete, at most 8 " in line


def test_limit_that_stops_later_runs_is_not_called_nothing_expires(fake, open_page):
    rows = replicas(NOW, [("a", 85, "completed"), ("b", 85, "completed"), ("c", 1, "completed")])
    low = {
        **WIDE,
        "expire": [{"rule": "old", "older_than": "90d"}],
        "limits": {"max_deletions": 9, "max_deletion_percent": 25},
    }
    fake.add(scheduled(when=NOW).planned(rows, policy=low).applied())
    (line,) = next_deletes(frame_of(open_page()))
    assert " Nothing · tavus_prune_replicas From " in line
    assert " on a limit stops each run: 2 of 3 replicas " in line


def test_plan_that_is_older_than_its_forecast_is_no_forecast(fake, open_page):
    fake.add(one_old_replica(1, when=NOW - 100 * 24 * HOUR).applied())
    (line,) = next_deletes(frame_of(open_page()))
    assert " Number not known, soft delete " in line
    assert ", too old for a forecast." in line


def test_dry_run_over_a_limit_is_still_a_dry_run(fake, open_page):
    low = {**POLICY, "limits": {"max_deletions": 5, "max_deletion_percent": 25}}
    fake.add(scheduled().planned(policy=low).applied(dry_run=True))
    (line,) = next_deletes(frame_of(open_page()))
    assert (
        " Nothing: a dry run · tavus_prune_replicas Without dry run a limit would stop it: 8 of 24 " in line
    )


def test_dag_whose_file_is_gone_does_not_run(fake, open_page):
    fake.next_run, fake.dag = NOW - 25 * HOUR, {"is_stale": True}
    fake.add(one_old_replica(500, when=NOW - 49 * HOUR).applied(dry_run=True))
    (line,) = next_deletes(frame_of(open_page()))
    assert line.endswith(
        " Nothing: the Dag does not run · tavus_prune_replicas Its file is gone or has an import error."
    )


def test_first_run_that_reads_the_account_has_no_plan_yet(fake, open_page):
    fake.add(scheduled("running", when=NOW).add("plan", "running").add("apply", None))
    now, line = next_deletes(frame_of(open_page()))
    assert now == "Now Not planned yet · tavus_prune_replicas The run is reading the account."
    assert line.endswith(" Not known · tavus_prune_replicas Its run under way has no plan yet.")


def test_page_works_without_the_health_of_airflow(fake, open_page):
    fake.next_run = NOW - HOUR
    fake.add(one_old_replica(500, when=NOW - 25 * HOUR).applied(dry_run=True))
    fake.dag = params(False)
    page = open_page(path="/tavus/")
    page.route("**/monitor/health", lambda route: route.fulfill(status=503, json={}))
    page.reload()
    page.locator("#refresh:enabled").wait_for()
    assert "Can start at any moment; " in page.locator("#next").inner_text()
    assert not page.locator("#problem").is_visible()


def test_task_that_the_time_limit_of_its_run_skipped_has_deleted(fake, open_page):
    made = scheduled("failed").planned(policy=WIDE).add("apply", "skipped")
    left = (Outcome.NOT_ATTEMPTED, "the task received a request to stop")
    made.push("apply", made.report(a=left))
    made.tasks[-1]["try_number"] = 1
    fake.add(made)
    frame = frame_of(open_page())
    assert frame.locator("#headline").inner_text().startswith("7 of 8 deleted")
    (line,) = next_deletes(frame)
    assert " 1 replica, soft delete " in line


def test_approvals_of_a_mapped_dag_are_of_their_accounts(fake, open_page):
    made = (
        run(dag="tavus_purge_accounts", connection="tavus_us")
        .planned(policy=WIDE)
        .asked("Reject")
        .add("apply", "skipped")
    )
    other = (
        run(dag="tavus_purge_accounts", connection="tavus_eu").planned(policy=WIDE).asked("Approve").applied()
    )
    mapped("tavus_us", 0, made)
    mapped("tavus_eu", 1, other)
    made.tasks += other.tasks
    made.hitl += other.hitl
    made.xcoms |= other.xcoms
    fake.add(made)
    frame = frame_of(open_page())
    for account, said in (
        ("tavus_us", "never; the only request was rejected"),
        ("tavus_eu", "by maria.santos "),
    ):
        frame.locator("#accounts button", has_text=account).click()
        frame.locator("#account dd strong", has_text=account).wait_for()
        approved = frame.locator("#account div:has(dt:text-is('Last purge approved')) dd")
        approved.get_by_text(said).or_(approved.filter(has_text=said)).first.wait_for()


def test_long_name_of_a_dag_does_not_make_the_page_wider(fake, open_page):
    fake.add(
        one_old_replica(
            500, dag="customer_success_platform_tavus_prune_replicas_of_all_webinar_speakers"
        ).applied(dry_run=True)
    )
    frame = frame_of(open_page(width=390))
    next_deletes(frame)
    assert frame.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_absence_of_an_approval_says_how_far_back_was_read(fake, open_page):
    """Also if the page was opened by the link of an older run."""
    for number in range(130):
        fake.add(scheduled(run_id=f"s{number}", when=NOW - number * HOUR).add("plan").add("apply"))
    frame = frame_of(
        open_page(path="/plugin/tavus?dag_id=tavus_prune_replicas&run_id=s120&task_id=plan&map_index=-1")
    )
    next_deletes(frame)
    approved = frame.locator("#account div:has(dt:text-is('Last purge approved')) dd").inner_text()
    assert approved == f"none since {NOW - 99 * HOUR:%Y-%m-%d}, 100 runs read"


def test_approval_is_found_although_its_account_is_learned_late(fake, open_page):
    """Airflow 3.1 does not say of which account a task is: it is read from the plans."""
    for number in range(4):
        fake.add(
            scheduled(dag=f"team{number}_prune", when=NOW - number * HOUR)
            .planned(policy=WIDE)
            .applied(dry_run=True)
        )
    fake.add(run(when=NOW - 48 * HOUR).planned(policy=WIDE).asked("Approve").applied())
    for made in fake.runs:
        for task in made.tasks:
            task["rendered_fields"] = {}
    frame = frame_of(open_page())
    next_deletes(frame)
    approved = frame.locator("#account div:has(dt:text-is('Last purge approved')) dd").inner_text()
    assert approved.startswith("by maria.santos ")


def deleted_in_portions() -> list[Run]:
    low = {**POLICY, "limits": {"max_deletions": 6, "max_deletion_percent": 50}}
    over = scheduled("failed", run_id="s1", when=NOW - 10 * HOUR).planned(policy=low, state="failed")
    part = run(dag="tavus_prune_replicas", hard=False, when=NOW - 2 * HOUR)
    part.planned(policy={**low, "narrow": {"include": ["onboarding*", "sales*"]}}).applied()
    return [over.add("apply", "upstream_failed"), part]


def plans_in_a_row() -> list[Run]:
    made = scheduled("running").planned(policy=WIDE).add("apply", "running")
    after = scheduled(hard=True).add("plan", None).add("approve", None).add("apply", None)
    return [merged(made, after, "_hard")]


def deleted_and_notifying() -> list[Run]:
    return [scheduled("running").planned(policy=WIDE).applied().add("notify", "running")]


def over_the_limit_and_tried_again() -> list[Run]:
    low = {**POLICY, "limits": {"max_deletions": 5, "max_deletion_percent": 25}}
    return [scheduled("running").planned(policy=low, state="up_for_retry").add("apply", None)]


def reading_again() -> list[Run]:
    before = scheduled(run_id="s1", when=NOW - 24 * HOUR).planned(policy=WIDE).add("apply", "upstream_failed")
    return [before, scheduled("running", when=NOW).add("plan", "running").add("apply", None)]


def batch_without_a_report() -> list[Run]:
    made = scheduled("failed").planned(policy=WIDE).add("split")
    for number in range(3):
        made.add("apply", "failed" if number == 2 else "success", map_index=number)
        items = made.report()["items"][3 * number : 3 * number + 3]
        if number < 2:
            made.push("apply", {**made.report(), "items": items, "counts": {"deleted": 3}}, map_index=number)
    return [made]


def deletes_by_id() -> list[Run]:
    return [scheduled("running", dag="cleanup_prune_by_id").add("delete", "running")]


def approval_of_airflow() -> list[Run]:
    made = scheduled("running").planned(policy=WIDE).add("ask", "awaiting_input").add("apply", None)
    made.tasks[-2] |= {"operator": "ApprovalOperator", "operator_name": "ApprovalOperator"}
    return [made]


def hourly_and_weekly() -> list[Run]:
    hours = [
        scheduled(run_id=f"s{n}", dag="hourly_prune", when=NOW - n * HOUR).add("plan") for n in range(110)
    ]
    return [*hours, scheduled(dag="weekly_prune", when=NOW - 120 * HOUR).planned(policy=WIDE).applied()]


def erasing() -> list[Run]:
    request = erasure("DSR-2026-0151", "running", when=NOW - 2 * HOUR, due="2099-01-31")
    request.tasks[1]["state"], request.tasks[2]["state"] = "success", "running"
    return [run().planned(policy=WIDE).asked("Reject").add("apply", "skipped"), request]


def refused_before_a_look() -> list[Run]:
    before = scheduled(run_id="s1", when=NOW - 25 * HOUR).planned(policy=WIDE).add("apply", "upstream_failed")
    look = run(dag="tavus_delete_replica", when=NOW).add("look").add("approve", "skipped").add("delete")
    return [before, refused_key(), look]


@pytest.mark.parametrize(
    ("make", "first", "absent"),
    [
        (deleted_in_portions, "{next} 4 replicas, soft delete · ", "a limit stops it"),
        (plans_in_a_row, "Now 8 replicas, soft delete · ", "Once approved"),
        (deleted_and_notifying, "{in_8_days} or later 1 replica, soft delete · ", "Now "),
        (over_the_limit_and_tried_again, "{next} Nothing: a limit stops it · ", "Now "),
        (
            reading_again,
            "Now Not planned yet · tavus_prune_replicas The run is reading the account. Then it del",
            "Nothing",
        ),
        (batch_without_a_report, "{next} 2 replicas, soft delete · ", "finds nothing"),
        (
            deletes_by_id,
            "Now Deletes by id · cleanup_prune_by_id The run is deleting.",
            "Nothing is scheduled",
        ),
        (approval_of_airflow, "Once approved 8 replicas, soft delete · ", "Needs no approval"),
        (erasing, "Now Erasure request DSR-2026-0151, permanently · ", "Once approved"),
        (refused_before_a_look, "{next} 8 replicas, soft delete · ", "refuses the API key"),
    ],
)
def test_what_is_said_is_what_can_happen(fake, open_page, make, first, absent):
    fake.runs = make()
    fake.structure = structure(("plan", "apply", "plan_hard", "approve_hard", "apply_hard"))
    lines = next_deletes(frame_of(open_page()))
    words = {"next": f"{NEXT_RUN:%Y-%m-%d %H:%M}", "in_8_days": f"{NOW + 8 * 24 * HOUR:%Y-%m-%d}"}
    assert lines[0].startswith(first.format(**words))
    assert absent not in " ".join(lines)


def test_dags_that_were_not_read_are_not_called_absent(fake, open_page):
    fake.runs = hourly_and_weekly()
    lines = next_deletes(frame_of(open_page()))
    assert lines[-1] == f"Not known Dags without a run since {NOW - 99 * HOUR:%Y-%m-%d} are not listed."


def test_approvals_of_two_accounts_in_one_dag_are_of_their_accounts(fake, open_page):
    made = run(connection="tavus_us").planned(policy=WIDE).asked("Reject").add("apply", "skipped")
    other = run(connection="tavus_eu").planned(policy=WIDE).asked("Approve").applied()
    for task in [*made.tasks, *other.tasks]:
        if task["task_id"] == "approve":
            task["rendered_fields"] = {}
    for answer in other.hitl:
        asked = answer["task_instance"]
        answer["task_instance"] = {**asked, "task_id": "approve_eu", "id": asked["id"] + "_eu"}
    made.hitl += other.hitl
    fake.add(merged(made, other, "_eu"))
    fake.structure = structure(("plan", "approve", "apply"), ("plan_eu", "approve_eu", "apply_eu"))
    frame = frame_of(open_page(path="/plugin/tavus?connection=tavus_us"))
    frame.locator("#refresh:enabled").wait_for()
    frame.locator("#accounts button", has_text="tavus_us").click()
    frame.locator("#account dd strong", has_text="tavus_us").wait_for()
    approved = frame.locator("#account div:has(dt:text-is('Last purge approved')) dd")
    approved.get_by_text("never; the only request was rejected").wait_for()
