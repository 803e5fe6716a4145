"""Grace periods and ``hard_delete_after`` with the real operators, ledger and sandbox, on different days."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from plans import approve_plan

from tavus_provider.exceptions import TavusRetryableError, TavusValidationError
from tavus_provider.operators import base
from tavus_provider.operators.tavus import ApplyRetentionOperator, PlanRetentionOperator
from tavus_provider.storage.ledger import ledger_root
from tavus_provider.storage.ledger_verify import compare_report, verify

DAY = timedelta(days=1)
WORLD = {
    "replicas": [
        {"replica_id": "old1", "replica_name": "Ada of old", "age": "200d"},
        {"replica_id": "old2", "replica_name": "Bob of old", "age": "300d"},
        *({"replica_id": f"new{n}", "replica_name": f"Eve {n}", "age": "1d"} for n in range(5)),
    ]
}
RULE = {"rule": "stale", "older_than": "90d", "unused_for": "30d"}

LIMITS = {"limits": {"max_deletions": 20, "max_deletion_percent": 100}}
GRACE = {"name": "stale", "expire": [RULE | {"grace": "14d"}], **LIMITS}
PLAIN = {"name": "plain", "expire": [RULE], **LIMITS}
PURGE = {"name": "purge", "expire": [{"older_than": "3000d"}], "hard_delete_after": "30d", **LIMITS}


class World:
    """A sandbox, the number of days since the start, and the tasks that run on them."""

    def __init__(self, sandbox, run_task, monkeypatch) -> None:
        self.sandbox = sandbox
        self.run_task = run_task
        self.days = 0.0
        monkeypatch.setattr(base, "now", lambda: datetime.now(UTC) + timedelta(days=self.days))

    def plan(self, policy=GRACE, *, run_id="manual__1", **arguments):
        operator = PlanRetentionOperator(task_id="plan", policy=policy, **arguments)
        ti = self.run_task(operator, run_id=run_id)
        if ti.error:
            raise ti.error
        return ti

    def apply(self, plan, *, hard=False, **attempt):
        """Apply a plan; return the outcome and detail of each id, and the error of the task."""
        if hard:
            approve_plan(plan, run_id=attempt.get("run_id", "manual__1"))
        operator = ApplyRetentionOperator(task_id="apply", plan=plan, hard=hard)
        ti = self.run_task(operator, **attempt)
        report = ti.pushed["return_value"]
        assert report["ledger"] is None or compare_report(verify(ledger_root())[0], report) == []
        return {item["replica_id"]: (item["outcome"], item["detail"]) for item in report["items"]}, ti.error

    def plan_and_apply(self, policy=GRACE, *, hard=False, **arguments):
        """Return the ids that were deleted."""
        run_id = f"day {self.days}"
        plan = self.plan(policy, hard=hard, run_id=run_id, **arguments).pushed["return_value"]
        items, error = self.apply(plan, hard=hard, run_id=run_id)
        if error:
            raise error
        return {replica_id for replica_id, (outcome, _) in items.items() if outcome == "deleted"}

    @property
    def deletes(self):
        """The deletes that the sandbox applied: id, and whether it was permanent."""
        return {(row["replica_id"], row["hard"]) for row in self.sandbox.state()["deletes"]}

    def use(self, replica_id):
        row = {"conversation_id": f"c{self.days}", "replica_id": replica_id, "status": "ended", "age": "0s"}
        self.sandbox.put("conversations", row)


@pytest.fixture
def world(serve, clock, run_task, monkeypatch):
    return World(serve(WORLD), run_task, monkeypatch)


@pytest.fixture
def log(capsys):
    def text():
        captured = capsys.readouterr()
        return captured.out + captured.err

    return text


def ids(rows):
    return {row["replica_id"] for row in rows}


# -- grace periods


def test_expired_replica_is_scheduled_and_announced_before_it_is_deleted(world, log):
    ti = world.plan()
    plan = ti.pushed["return_value"]
    assert (plan["delete"], ids(plan["scheduled"])) == ([], {"old1", "old2"})
    (row,) = (row for row in plan["scheduled"] if row["replica_id"] == "old1")
    due = datetime.fromisoformat(row["due_at"])
    assert timedelta(days=13.9) < due - datetime.now(UTC) < timedelta(days=14)
    assert row["reason"] == (
        "200 days old, limit is 90d; never used in 200 days, limit is 30d; "
        f"grace of 14d ends on {due:%Y-%m-%d at %H:%M} UTC"
    )
    logged = log()
    assert "2 replicas are now scheduled and will be deleted after their grace period: old1, old2" in logged
    assert row["reason"] in logged
    assert ti.events == [
        {
            "asset": "tavus_replicas_scheduled",
            "tavus_conn_id": "tavus_default",
            "origin": plan["origin"],
            "replica_ids": ["old1", "old2"],
            "count": 2,
            "policy": "stale",
        }
    ]
    (schedule,) = (one for one in verify(ledger_root())[0] if "/schedule-" in one.name)
    assert set(schedule.begin_record["scheduled"]) == {"old1", "old2"}
    assert world.apply(plan) == ({}, None)
    assert world.deletes == set()


def test_scheduled_replica_is_deleted_after_grace_and_announced_once(world, log):
    world.plan_and_apply()
    log()
    world.days = 13.9
    ti = world.plan()
    assert ti.pushed["return_value"]["delete"] == ti.events == []
    assert "now scheduled" not in log()
    world.days = 14.1
    assert world.plan_and_apply() == {"old1", "old2"}
    assert world.deletes == {("old1", False), ("old2", False)}


CANCELS = [
    pytest.param(
        lambda world: GRACE | {"keep": {"protected_ids": ["old1"]}}, lambda world: GRACE, id="protected"
    ),
    pytest.param(lambda world: world.use("old1") or GRACE, lambda world: GRACE, id="used"),
    pytest.param(
        lambda world: (
            world.sandbox.put("personas", {"persona_id": "p", "default_replica_id": "old1", "age": "1d"})
            or GRACE
        ),
        lambda world: world.sandbox.put("personas", {"persona_id": "p", "default_replica_id": None}) or GRACE,
        id="in-use",
    ),
    pytest.param(
        lambda world: world.sandbox.put("replicas", {"replica_id": "old1", "status": "odd"}) or GRACE,
        lambda world: world.sandbox.put("replicas", {"replica_id": "old1", "status": "completed"}) or GRACE,
        id="undetermined",
    ),
    pytest.param(
        lambda world: GRACE | {"scope": {"exclude": ["Ada*"]}}, lambda world: GRACE, id="out-of-scope"
    ),
    pytest.param(
        lambda world: GRACE | {"account": {"expect_present": ["old1"]}},
        lambda world: GRACE,
        id="expected-present",
    ),
]


@pytest.mark.parametrize(("cancel", "resume"), CANCELS)
def test_reason_to_keep_cancels_the_schedule_and_grace_starts_again(world, cancel, resume):
    world.plan_and_apply()
    world.days = 10
    policy = cancel(world)
    assert "old1" not in ids(world.plan(policy).pushed["return_value"]["scheduled"])
    world.days = 50  # by then it is unused for 30 days again
    policy = resume(world)
    ti = world.plan(policy)
    assert ids(ti.pushed["return_value"]["scheduled"]) == {"old1"}
    assert ids(ti.pushed["return_value"]["delete"]) == {"old2"}
    assert ti.events[0]["replica_ids"] == ["old1"]
    world.days = 63
    assert "old1" not in ids(world.plan(policy).pushed["return_value"]["delete"])
    world.days = 65
    assert "old1" in ids(world.plan(policy).pushed["return_value"]["delete"])


SHORT = {"rule": "short", "older_than": "180d", "grace": "1d"}
AT_ONCE = {"rule": "at once", "older_than": "180d"}
LATER_RULES = [
    pytest.param([SHORT, GRACE["expire"][0]], id="a rule with a shorter grace takes over"),
    pytest.param([RULE | {"grace": "1d"}], id="grace is shortened"),
    pytest.param([AT_ONCE, GRACE["expire"][0]], id="a rule without grace takes over"),
    pytest.param([AT_ONCE], id="grace is removed"),
]


@pytest.mark.parametrize("rules", LATER_RULES)
@pytest.mark.parametrize("used", [False, True])
def test_replica_is_not_deleted_before_its_announced_day(world, rules, used):
    """Case E8. Use cancels the announcement, but not the day."""
    world.plan_and_apply()
    world.days = 5
    if used:
        world.use("old1")
        world.use("old2")
        assert world.plan_and_apply() == set()
        rules = [{**rule, "unused_for": "1d"} if "unused_for" in rule else rule for rule in rules]
    policy = GRACE | {"expire": rules}
    for days in (6.5, 8, 13.9):
        world.days = days
        assert world.plan_and_apply(policy) == set()
    row = world.plan(policy).pushed["return_value"]["scheduled"][0]
    assert abs(datetime.fromisoformat(row["due_at"]) - datetime.now(UTC) - timedelta(days=14)) < DAY / 9
    world.days = 14.1
    assert world.plan_and_apply(policy) == {"old1", "old2"}


def test_announced_day_is_in_the_reason(world):
    world.plan_and_apply()
    world.days = 5
    ti = world.plan(GRACE | {"expire": [AT_ONCE]})
    (row,) = (row for row in ti.pushed["return_value"]["scheduled"] if row["replica_id"] == "old1")
    due = datetime.fromisoformat(row["due_at"])
    assert row["reason"] == f"205 days old, limit is 180d; was announced for {due:%Y-%m-%d at %H:%M} UTC"


def test_longer_grace_moves_the_day(world):
    world.plan_and_apply()
    policy = GRACE | {"expire": [RULE | {"grace": "20d"}]}
    world.days = 15
    assert world.plan_and_apply(policy) == set()
    world.days = 20.1
    assert world.plan_and_apply(policy) == {"old1", "old2"}


def test_schedule_is_written_while_grace_is_removed(world):
    """Otherwise a replica that was kept meanwhile would count as announced all the time."""
    world.plan_and_apply()
    world.days = 5
    world.plan(GRACE | {"expire": [AT_ONCE], "keep": {"protected_ids": ["old1"]}})
    world.days = 16
    plan = world.plan().pushed["return_value"]
    assert (ids(plan["scheduled"]), ids(plan["delete"])) == ({"old1"}, {"old2"})


def test_another_name_forgets_the_announced_day(world):
    world.plan_and_apply()
    assert world.plan_and_apply(PLAIN) == {"old1", "old2"}


def test_legal_hold_cancels_the_schedule_and_counts_between_plan_and_apply(world, tmp_path):
    held = tmp_path / "holds.yaml"
    policy = GRACE | {"legal_holds": {"file": str(held), "max_age": "2d"}}

    def hold(*replica_ids):
        moment = datetime.now(UTC) + timedelta(days=world.days)
        held.write_text(f"replica_ids: [{', '.join(replica_ids)}]\nas_of: {moment.isoformat()}")

    hold()
    world.plan_and_apply(policy)
    world.days = 15
    hold()
    plan = world.plan(policy).pushed["return_value"]
    assert ids(plan["delete"]) == {"old1", "old2"}
    hold("old1")
    items, error = world.apply(plan)
    assert error is None
    assert items["old1"] == ("skipped", "no longer expired: is under legal hold")
    assert items["old2"][0] == "deleted"
    world.plan(policy)
    hold()
    assert ids(world.plan(policy).pushed["return_value"]["scheduled"]) == {"old1"}


@pytest.mark.parametrize("damage", ["missing", "stale", "odd"])
def test_unreadable_legal_holds_stop_plan_and_apply_before_the_first_delete(world, tmp_path, damage):
    held = tmp_path / "holds.yaml"
    policy = PLAIN | {"legal_holds": {"file": str(held), "max_age": "2d"}}
    held.write_text("[]")
    plan = world.plan(policy).pushed["return_value"]
    if damage == "missing":
        held.unlink()
    elif damage == "stale":
        held.write_text("replica_ids: []\nas_of: 2026-01-01T00:00:00Z")
    else:
        held.write_text("[old1, '']")
    with pytest.raises(
        AirflowFailException, match="it is not known which replicas are held, so nothing may be deleted"
    ):
        world.plan(policy)
    items, error = world.apply(plan)
    assert "it is not known which replicas are held" in str(error)
    assert {outcome for outcome, _ in items.values()} == {"not_attempted"}
    assert world.deletes == set()


def test_replica_used_after_the_plan_is_skipped(world):
    world.plan_and_apply()
    world.days = 15
    plan = world.plan().pushed["return_value"]
    world.use("old1")
    items, error = world.apply(plan)
    assert error is None
    assert items["old1"][0] == "skipped"
    assert items["old1"][1].startswith("no longer expired: ")
    assert world.deletes == {("old2", False)}


def test_relative_ledger_ends_grace_and_keeps_earlier_attempts(world, monkeypatch, tmp_path):
    """Case A8: a relative ledger was written in the current directory and read somewhere else."""
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", f"relative-{tmp_path.name}")
    monkeypatch.chdir(tmp_path)
    world.plan()
    monkeypatch.chdir("/")
    world.days = 14.1
    plan = world.plan().pushed["return_value"]
    assert ids(plan["delete"]) == {"old1", "old2"}
    items, error = world.apply(plan)
    assert (error, {outcome for outcome, _ in items.values()}) == (None, {"deleted"})
    monkeypatch.chdir(tmp_path)
    items, error = world.apply(plan, try_number=2)
    assert (error, {outcome for outcome, _ in items.values()}) == (None, {"deleted"})
    assert len(world.sandbox.state()["deletes"]) == 2
    attempts, findings = verify(ledger_root())
    assert (len(attempts), findings) == (6, [])


def test_dry_run_schedules_nothing(world):
    ti = world.plan(dry_run=True)
    assert ids(ti.pushed["return_value"]["scheduled"]) == {"old1", "old2"}
    assert ti.events == []
    assert [one.records[0]["kind"] for one in verify(ledger_root())[0]] == ["planned"]
    world.days = 15
    assert world.plan_and_apply() == set()


def test_replica_excluded_by_the_form_is_neither_cancelled_nor_announced(world):
    first = world.plan(narrow={"include": ["Ada*"]})
    assert first.events[0]["replica_ids"] == ["old1"]
    world.days = 5
    second = world.plan(narrow={"include": ["Bob*"]})
    assert second.events[0]["replica_ids"] == ["old2"]
    world.days = 14.1
    assert ids(world.plan().pushed["return_value"]["delete"]) == {"old1"}
    assert world.plan_and_apply(narrow={"include": ["Bob*"]}) == set()
    world.days = 19.1
    assert world.plan_and_apply() == {"old1", "old2"}


def test_damaged_schedule_starts_every_grace_period_again(world):
    world.plan_and_apply()
    (schedule,) = (one for one in verify(ledger_root())[0] if "/schedule-" in one.name)
    path = ledger_root() / schedule.name / "000001.json"
    path.write_bytes(path.read_bytes().replace(b'"old1"', b'"old9"'))
    world.days = 15
    ti = world.plan()
    assert ids(ti.pushed["return_value"]["scheduled"]) == {"old1", "old2"}
    assert ti.events[0]["count"] == 2
    assert verify(ledger_root())[1] != []


def test_schedule_damaged_between_plan_and_apply_deletes_nothing(world):
    world.plan_and_apply()
    world.days = 15
    plan = world.plan().pushed["return_value"]
    schedules = [one.name for one in verify(ledger_root())[0] if "/schedule-" in one.name]
    last = ledger_root() / schedules[-1] / "000001.json"
    last.write_bytes(b"{}")
    items, error = world.apply(plan)
    assert error is None
    assert {outcome for outcome, _ in items.values()} == {"skipped"}
    assert world.deletes == set()


def test_plan_fails_if_the_schedule_cannot_be_written(world, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", str(tmp_path / "file" / "ledger"))
    with pytest.raises(Exception, match="the ledger cannot be"):
        world.plan()


def test_policy_with_grace_needs_a_name():
    with pytest.raises(TavusValidationError, match=r"^policy: name: is missing; with grace it is required"):
        PlanRetentionOperator(task_id="plan", policy={"expire": [RULE | {"grace": "14d"}]})


@pytest.mark.parametrize(
    ("policy", "hard", "what"),
    [
        (GRACE, False, "grace"),
        (PURGE, True, "a permanent"),
        (PLAIN, True, "a per"),
        (PLAIN, False, "a run"),
    ],
)
def test_local_ledger_is_refused_before_anything_is_read(world, monkeypatch, policy, hard, what):
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    with pytest.raises(AirflowFailException, match=f"^{what}.* needs a ledger that all workers share"):
        world.plan(policy, hard=hard)
    assert world.sandbox.state()["requests"] == []


def test_permanent_apply_with_a_local_ledger_is_refused_with_remote_workers(world, monkeypatch):
    plan = world.plan(PLAIN, hard=True).pushed["return_value"]
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor,CeleryExecutor")
    approve_plan(plan)
    ti = world.run_task(ApplyRetentionOperator(task_id="apply", plan=plan, hard=True))
    assert "a permanent delete needs a ledger that all workers share" in str(ti.error)
    assert world.deletes == set()


# -- guards against a wrong account


def test_missing_expected_replica_stops_plan_and_apply(world):
    policy = PLAIN | {"account": {"expect_present": ["new0", "new1"]}}
    plan = world.plan(policy).pushed["return_value"]
    world.sandbox.put("replicas", {"replica_id": "new1", "deleted": "hard"})
    message = "account.expect_present names new1, not listed here: it is the wrong account"
    with pytest.raises(Exception, match=message):
        world.plan(policy)
    items, error = world.apply(plan)
    assert message in str(error)
    assert {outcome for outcome, _ in items.values()} == {"not_attempted"}
    assert world.deletes == set()


@pytest.mark.parametrize(("percent", "stops"), [(0, True), (14, True), (15, False), (None, False)])
def test_too_many_undetermined_replicas_stop_plan_and_apply(world, percent, stops):
    limits = LIMITS["limits"] | ({} if percent is None else {"max_undetermined_percent": percent})
    policy = PLAIN | {"limits": limits}
    plan = world.plan(policy).pushed["return_value"]
    world.sandbox.put("replicas", {"replica_id": "new1", "status": "odd"})  # 1 of 7 is 14.3 %
    if not stops:
        assert world.plan_and_apply(policy) == {"old1", "old2"}
        return
    message = f"^1 of 7 replicas are undetermined, max_undetermined_percent is {percent}: "
    with pytest.raises(AirflowFailException, match=message):
        world.plan(policy)
    _, error = world.apply(plan)
    assert "1 of 7 replicas are undetermined" in str(error)
    assert world.deletes == set()


@pytest.mark.parametrize("ahead", [-400, 400])
def test_clock_difference_stops_the_plan(world, ahead):
    moment = datetime.now(UTC) + timedelta(seconds=ahead)
    fault = {
        "path": "/v2/videos",
        "status": 200,
        "body": '{"data": [], "total_count": 0}',
        "headers": {"Date": f"{moment:%a, %d %b %Y %H:%M:%S} GMT"},
    }
    world.sandbox.switch(faults=[fault])
    with pytest.raises(AirflowFailException, match="the clocks of Tavus and of this worker differ by"):
        world.plan(PLAIN)


# -- permanent deletes of soft-deleted replicas


@pytest.mark.parametrize("listed", ["hidden", "listed"])
def test_soft_deleted_replica_is_planned_permanently_after_hard_delete_after(world, listed):
    world.sandbox.switch(soft_deleted=listed, soft_then_hard="works")
    world.plan_and_apply(PLAIN)
    world.days = 29.9
    assert world.plan(PURGE, hard=True).pushed["return_value"]["delete"] == []
    world.days = 30.1
    plan = world.plan(PURGE, hard=True).pushed["return_value"]
    assert {(row["replica_id"], row["rule"], row["source"]) for row in plan["delete"]} == {
        ("old1", None, "soft_deleted"),
        ("old2", None, "soft_deleted"),
    }
    more = "; no longer listed" if listed == "hidden" else ""
    assert {row["reason"] for row in plan["delete"]} == {
        f"soft-deleted by this package 30 days ago, hard_delete_after is 30d{more}"
    }
    ti = world.run_task(ApplyRetentionOperator(task_id="apply", plan=plan, hard=True))
    assert "no record of an approval of this plan in this run" in str(ti.error)
    assert ("old1", True) not in world.deletes
    items, error = world.apply(plan, hard=True)
    assert (error, {outcome for outcome, _ in items.values()}) == (None, {"deleted"})
    assert world.deletes == {(i, hard) for i in ("old1", "old2") for hard in (False, True)}
    assert world.plan(PURGE, hard=True).pushed["return_value"]["delete"] == []


@pytest.mark.parametrize("listed", ["hidden", "listed"])
def test_soft_deleted_replica_that_tavus_does_not_know_is_unknown(world, listed):
    world.sandbox.switch(soft_deleted=listed)  # and a permanent delete of it is refused
    world.plan_and_apply(PLAIN)
    world.days = 31
    plan = world.plan(PURGE, hard=True).pushed["return_value"]
    items, error = world.apply(plan, hard=True)
    assert isinstance(error, AirflowFailException)
    assert {outcome for outcome, _ in items.values()} == {"unknown"}
    for replica_id, (_, detail) in items.items():
        assert detail.startswith(
            f"DELETE /v2/replicas/{replica_id}?hard=true returned 400: Invalid replica_id; Tavus no longer "
            "knows the id, so it cannot be confirmed that its training footage was deleted"
        )


def test_many_unknown_replicas_do_not_stop_the_others(serve, world):
    rows = [{"replica_id": f"old{n}", "replica_name": f"O{n}", "age": "200d"} for n in range(9)]
    rows += [{"replica_id": f"new{n}", "replica_name": f"N{n}", "age": "1d"} for n in range(9)]
    world.sandbox = serve({"replicas": rows})
    assert len(world.plan_and_apply(PLAIN)) == 9
    world.sandbox.put("replicas", {"replica_id": "older", "replica_name": "x", "age": "3000d"})
    world.days = 31
    plan = world.plan(PURGE, hard=True).pushed["return_value"]
    assert len(plan["delete"]) == 10
    items, _ = world.apply(plan, hard=True)
    assert items["older"][0] == "deleted"
    assert [outcome for outcome, _ in items.values()].count("unknown") == 9


@pytest.mark.parametrize("listed", ["hidden", "listed"])
@pytest.mark.parametrize("by", ["held", "protected", "in-use"])
def test_soft_deleted_replica_with_a_reason_to_keep_is_not_planned(world, tmp_path, listed, by):
    world.sandbox.switch(soft_deleted=listed, soft_then_hard="works")
    world.plan_and_apply(PLAIN)
    world.days = 31
    moment = datetime.now(UTC) + timedelta(days=world.days)
    (tmp_path / "holds").write_text(f"replica_ids: [old1]\nas_of: {moment.isoformat()}")
    policy = {
        "held": PURGE | {"legal_holds": {"file": str(tmp_path / "holds"), "max_age": "2d"}},
        "protected": PURGE | {"keep": {"protected_ids": ["old1"]}},
        "in-use": PURGE,
    }[by]
    if by == "in-use":
        row = {"persona_id": "p1", "default_replica_id": "old1", "age": "1d"}
        world.sandbox.put("personas", row)
    assert world.plan_and_apply(policy, hard=True) == {"old2"}
    assert ("old1", True) not in world.deletes


def test_ledger_is_not_used_without_hard_delete_after_or_in_a_soft_plan(world):
    world.plan_and_apply(PLAIN)
    world.days = 31
    assert world.plan(PLAIN | {"name": "x"}, hard=True).pushed["return_value"]["delete"] == []
    assert world.plan(PURGE).pushed["return_value"]["delete"] == []


def test_listed_soft_deleted_replica_is_not_planned_by_rules(world):
    """Case E11."""
    world.sandbox.switch(soft_deleted="listed", soft_then_hard="works")
    world.plan_and_apply(PLAIN)
    world.days = 31
    ti = world.plan(PLAIN | {"name": "x"}, hard=True)
    assert ti.pushed["return_value"]["delete"] == []
    assert ti.pushed["return_value"]["keep"]["no_hard_delete_after"] == 2
    found = {row["replica_id"]: row for row in ti.pushed["verdicts"]["rows"]}["old1"]
    assert found["reason"] == (
        f"soft-deleted by this package on {datetime.now(UTC):%Y-%m-%d}, and the policy has no "
        "hard_delete_after"
    )
    assert found["next_reason"].startswith("expired: ")


def test_narrowed_plan_omits_replicas_that_are_not_listed(world):
    world.plan_and_apply(PLAIN)
    world.days = 31
    narrowed = world.plan(PURGE, hard=True, narrow={"include": ["*"], "exclude": ["x"]})
    assert narrowed.pushed["return_value"]["delete"] == []


def test_listed_soft_deleted_replica_is_not_soft_deleted_again(world):
    world.sandbox.switch(soft_deleted="listed")
    world.plan_and_apply(PLAIN)
    ti = world.plan(PLAIN)
    assert ti.pushed["return_value"]["delete"] == []
    reasons = {row["replica_id"]: row["reason"] for row in ti.pushed["verdicts"]["rows"]}
    assert reasons["old1"] == f"soft-deleted on {datetime.now(UTC):%Y-%m-%d}, still listed"
    assert ti.pushed["return_value"]["keep"]["soft_deleted"] == 2


def test_listed_soft_deleted_replica_takes_no_place_of_keep_last(world):
    world.sandbox.switch(soft_deleted="listed")
    rows = [{"replica_id": f"mid{n}", "replica_name": f"mid {n}", "age": f"{100 + n}d"} for n in range(2)]
    gone = [{"replica_id": f"new{n}", "deleted": "hard"} for n in range(5)]
    world.sandbox.put("replicas", *rows, *gone)
    assert world.plan_and_apply(PLAIN | {"scope": {"include": ["mid *"]}}) == {"mid0", "mid1"}
    kept = world.plan(PLAIN | {"keep": {"keep_last": 2}}).pushed
    assert kept["return_value"]["delete"] == []
    assert {row["reason_code"] for row in kept["verdicts"]["rows"]} == {"soft_deleted", "keep_last"}
    assert ids(world.plan(PLAIN).pushed["return_value"]["delete"]) == {"old1", "old2"}


def test_age_of_the_form_applies_to_listed_soft_deleted_replicas(world):
    world.sandbox.switch(soft_deleted="listed", soft_then_hard="works")
    world.plan_and_apply(PLAIN)
    world.days = 31
    for age, planned in (("365d", set()), ("230d", {"old1", "old2"})):
        ti = world.plan(PURGE, hard=True, narrow={"older_than": age})
        assert ids(ti.pushed["return_value"]["delete"]) == planned
        words = {row["replica_id"]: row["reason_code"] for row in ti.pushed["verdicts"]["rows"]}
        assert words["old1"] == ("hard_delete_after" if planned else "too_young")


def test_unlisted_replica_is_not_confirmed_by_its_absence(world):
    world.sandbox.switch(soft_then_hard="works")
    world.plan_and_apply(PLAIN)
    world.days = 31
    plan = world.plan(PURGE, hard=True).pushed["return_value"]
    world.sandbox.switch(
        faults=[{"method": "DELETE", "path": "/v2/replicas/old1", "status": 202, "times": None}]
    )
    items, error = world.apply(plan, hard=True)
    assert isinstance(error, TavusRetryableError)
    assert items["old1"][0] == "unknown"
    assert items["old2"][0] == "deleted"
    assert ("old1", True) not in world.deletes
    world.sandbox.switch(faults=[])
    items, error = world.apply(plan, hard=True, try_number=2)
    assert (error, items["old1"][0]) == (None, "deleted")


@pytest.mark.parametrize("knows", [True, False])
def test_replica_soft_deleted_between_plan_and_permanent_apply_is_not_already_gone(world, knows):
    """Case E13: its training footage still exists."""
    if knows:
        world.sandbox.switch(soft_then_hard="works")
    plan = world.plan(PLAIN, hard=True, run_id="purge").pushed["return_value"]
    assert world.plan_and_apply(PLAIN) == {"old1", "old2"}
    items, _ = world.apply(plan, hard=True, run_id="purge")
    assert {outcome for outcome, _ in items.values()} == {"deleted" if knows else "unknown"}
    if not knows:
        assert {"training footage" in detail for _, detail in items.values()} == {True}
    assert {i for i, hard in world.deletes if hard} == ({"old1", "old2"} if knows else set())


# -- the ledger


def test_ledger_contains_no_names(world, tmp_path):
    world.sandbox.switch(soft_then_hard="works")
    world.plan_and_apply()
    world.days = 15
    world.plan_and_apply()
    world.days = 50
    world.sandbox.put("replicas", {"replica_id": "older", "replica_name": "Zoe of old", "age": "4000d"})
    assert world.plan_and_apply(PURGE, hard=True) == {"old1", "old2", "older"}
    written = b"".join(path.read_bytes() for path in (tmp_path / "ledger").glob("[!_]*/**/*.json"))
    assert b'"older"' in written
    for row in world.sandbox.state()["replicas"]:
        name = row["replica_name"].encode()
        assert name not in written
        assert name.split()[0] not in written
