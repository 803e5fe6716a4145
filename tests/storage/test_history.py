"""What the ledger says about earlier runs: soft-deleted replicas and the schedule of a policy."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from airflow.sdk import ObjectStoragePath

from tavus_provider.digest import canonical_json, digest_of
from tavus_provider.models import Replica
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy
from tavus_provider.storage.history import read_history, record_schedule, soft_deleted
from tavus_provider.storage.ledger import Ledger, job_name
from tavus_provider.storage.ledger_verify import verify

START = datetime(2026, 9, 1, 12, tzinfo=UTC)
POLICY = Policy.parse({"name": "stale", "expire": [{"rule": "old", "older_than": "90d", "grace": "14d"}]})
SCHEDULE = job_name("schedule", "stale")
TASK = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}


class Clock:
    """The clock of the ledger. ``clock.set(3)`` sets it to the third day after the start."""

    def __init__(self) -> None:
        self.time = START

    def __call__(self) -> datetime:
        return self.time

    def set(self, days: float) -> datetime:
        self.time = START + timedelta(days=days)
        return self.time


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def ledger(tmp_path, clock):
    root = ObjectStoragePath(str(tmp_path / "ledger"))
    return Ledger("https://tavusapi.com", "tavus_default", root, now=clock)


def record_outcome(ledger, outcome, *, hard=False, kind="plan", replica_id="r1", plan="a"):
    """Record an attempt that ended with one outcome."""
    writer = ledger.begin_attempt(job_name(kind, plan * 64), hard=hard, intent=[replica_id])
    writer.close(outcomes={replica_id: outcome})
    return writer


# -- soft-deleted replicas


@pytest.mark.parametrize("kind", ["plan", "delete"])
@pytest.mark.parametrize(
    ("outcome", "counts"),
    [
        ("deleted", True),
        ("confirmed", True),
        ("already_gone", False),
        ("failed", False),
        ("unknown", False),
        ("not_attempted", False),
        ("skipped", False),
    ],
)
def test_only_deleted_and_confirmed_replicas_are_soft_deleted(ledger, clock, kind, outcome, counts):
    deleted_at = clock.set(3)
    record_outcome(ledger, outcome, kind=kind)
    assert soft_deleted(ledger) == ({"r1": deleted_at} if counts else {})


def test_first_soft_delete_counts_if_a_later_attempt_repeats_its_outcome(ledger, clock):
    record_outcome(ledger, "deleted")
    clock.set(5)
    record_outcome(ledger, "deleted")
    assert soft_deleted(ledger) == {"r1": START}


@pytest.mark.parametrize("outcome", ["deleted", "confirmed"])
def test_permanently_deleted_replica_is_not_soft_deleted(ledger, clock, outcome):
    record_outcome(ledger, "deleted")
    clock.set(31)
    record_outcome(ledger, outcome, hard=True, plan="b")
    assert soft_deleted(ledger) == {}


def test_cleared_soft_task_does_not_undo_a_permanent_delete(ledger, clock):
    record_outcome(ledger, "deleted")
    clock.set(31)
    record_outcome(ledger, "deleted", hard=True, plan="b")
    clock.set(32)
    record_outcome(ledger, "deleted")  # its report repeats the outcomes of earlier attempts
    assert soft_deleted(ledger) == {}


@pytest.mark.parametrize("outcome", ["failed", "unknown", "already_gone", "not_attempted"])
def test_unsuccessful_permanent_delete_leaves_a_replica_soft_deleted(ledger, outcome):
    record_outcome(ledger, "deleted")
    record_outcome(ledger, outcome, hard=True, plan="b")
    assert soft_deleted(ledger) == {"r1": START}


def test_outcome_recorded_before_a_kill_counts(ledger):
    writer = ledger.begin_attempt(job_name("plan", "a" * 64), hard=False, intent=["r1", "r2"])
    writer.write("outcome", outcomes={"r1": "deleted"})
    assert soft_deleted(ledger) == {"r1": START}


@pytest.mark.parametrize(("hard", "expected"), [(False, {"r1": START + timedelta(days=1)}), (True, {})])
def test_replica_gone_after_a_killed_attempt_counts_as_deleted_by_it(ledger, clock, hard, expected):
    ledger.begin_attempt(job_name("plan", "a" * 64), hard=hard, intent=["r1"])
    clock.set(1)  # two attempts that start in the same microsecond have no order
    record_outcome(ledger, "already_gone", hard=hard)
    record_outcome(ledger, "already_gone", hard=hard, replica_id="r2")
    assert soft_deleted(ledger) == expected


@pytest.mark.parametrize("outcome", ["failed", "not_attempted", "skipped"])
def test_replica_gone_after_an_attempt_without_a_delete_does_not_count(ledger, outcome):
    record_outcome(ledger, outcome)
    record_outcome(ledger, "already_gone")
    assert soft_deleted(ledger) == {}


def test_intent_of_another_plan_does_not_count(ledger):
    ledger.begin_attempt(job_name("plan", "b" * 64), hard=False, intent=["r1"])
    record_outcome(ledger, "already_gone")
    assert soft_deleted(ledger) == {}


def test_attempt_that_does_not_say_whether_it_is_soft_does_not_count(ledger):
    ledger.begin_attempt(job_name("plan", "a" * 64), intent=["r1"]).close(outcomes={"r1": "deleted"})
    assert soft_deleted(ledger) == {}


def test_records_after_a_flaw_do_not_count(ledger):
    writer = record_outcome(ledger, "deleted")
    (writer.folder / "000002.json").write_bytes(b"{}")
    assert soft_deleted(ledger) == {}


def test_approvals_and_incomplete_attempts_are_ignored(ledger):
    ledger.begin_attempt(job_name("plan", "a" * 64), hard=True).close()
    incomplete = ledger.begin_attempt(job_name("plan", "a" * 64), hard=False, intent=["r1"])
    (incomplete.folder / "000001.json").write_bytes(b'{"at":')
    record_outcome(ledger, "deleted", plan="b")
    assert soft_deleted(ledger) == {"r1": START}


# -- the schedule


def plan(ledger, now, *, age=200, policy=POLICY, narrow=None, task=TASK):
    """
    Evaluate the policy on r1 and r2 as the plan task does, and record the schedule.

    :param age: age of r1 in days at the start; r2 is 200 days old
    :returns: the newly scheduled ids, and the ids to be deleted
    """
    replicas = [
        Replica(i, replica_name=i, replica_type="user", status="completed", created_at=START - span)
        for i, span in (("r1", timedelta(days=age)), ("r2", timedelta(days=200)))
    ]
    narrowed = policy if narrow is None else Policy.parse({**policy.to_json(), "narrow": narrow})
    inventory = Inventory(replicas, history=read_history(ledger, policy))
    decision = evaluate(narrowed, inventory, now=now)
    scheduled = record_schedule(
        ledger,
        narrowed,
        decision,
        unnarrowed=evaluate(policy, inventory, now=now),
        history=inventory.history,
        now=now,
        context=task,
    )
    return set(scheduled), {verdict.replica.replica_id for verdict in decision.delete}


def test_scheduled_replica_is_deleted_after_its_grace_period(ledger, clock):
    assert plan(ledger, clock.set(0)) == ({"r1", "r2"}, set())
    assert plan(ledger, clock.set(13.9)) == (set(), set())
    assert plan(ledger, clock.set(14)) == (set(), {"r1", "r2"})
    assert plan(ledger, clock.set(15)) == (set(), {"r1", "r2"})
    assert read_history(ledger, POLICY).scheduled == {"r1": START, "r2": START}


def test_grace_period_ends_with_a_relative_ledger(monkeypatch, tmp_path, clock):
    """Case A8: a relative ledger was written and never read, so that no grace period ended."""
    monkeypatch.setenv("AIRFLOW__TAVUS__LEDGER", f"relative-{tmp_path.name}")
    monkeypatch.chdir(tmp_path)
    ledger = Ledger("https://tavusapi.com", "tavus_default", now=clock)
    assert plan(ledger, clock.set(0)) == ({"r1", "r2"}, set())
    assert plan(ledger, clock.set(14)) == (set(), {"r1", "r2"})
    record_outcome(ledger, "deleted")
    assert soft_deleted(ledger) == {"r1": clock.time}
    attempts, findings = verify(ledger.root)
    assert (len(attempts), findings) == (3, [])


def test_plan_without_a_replica_cancels_its_schedule(ledger, clock):
    plan(ledger, clock.set(0))
    assert plan(ledger, clock.set(5), age=10) == (set(), set())
    assert read_history(ledger, POLICY).scheduled == {"r2": START}
    assert ledger.attempts(SCHEDULE)[-1].begin_record["cancelled"] == ["r1"]
    assert plan(ledger, clock.set(14)) == ({"r1"}, {"r2"})
    assert plan(ledger, clock.set(28)) == (set(), {"r1", "r2"})


def test_replica_excluded_by_the_form_keeps_its_place_and_gets_none(ledger, clock):
    assert plan(ledger, clock.set(0), narrow={"include": ["r1"]}) == ({"r1"}, set())
    assert plan(ledger, clock.set(3), narrow={"include": ["r2"]}) == ({"r2"}, set())
    assert plan(ledger, clock.set(14)) == (set(), {"r1"})
    assert plan(ledger, clock.set(17)) == (set(), {"r1", "r2"})


def test_retry_announces_what_the_failed_attempt_scheduled(ledger, clock):
    plan(ledger, clock.set(0), narrow={"include": ["r1"]})
    later, retry = {**TASK, "run_id": "r2"}, {**TASK, "run_id": "r2", "try_number": 2}
    assert plan(ledger, clock.set(1), task=later) == ({"r2"}, set())
    assert plan(ledger, clock.set(1.1), task=retry) == ({"r2"}, set())
    assert plan(ledger, clock.set(2), task={**TASK, "run_id": "r3"}) == (set(), set())
    assert read_history(ledger, POLICY).scheduled["r2"] == START + timedelta(days=1)


def test_two_policies_of_one_name_are_a_warning(ledger, clock, caplog):
    other = Policy.parse({**POLICY.to_json(), "scope": {"include": ["r2"]}})
    plan(ledger, clock.set(0))
    plan(ledger, clock.set(1), age=10, task={**TASK, "dag_id": "e"}, policy=other)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("1 replicas that DAG 'd' announced under the name 'stale' are not due here")
    assert "such as r1. If that DAG has another policy, give one of the two another name" in message
    caplog.clear()
    plan(ledger, clock.set(2), task={**TASK, "dag_id": "e"})
    plan(ledger, clock.set(3), age=10, task={**TASK, "dag_id": "e"})
    assert caplog.records == []


@pytest.mark.parametrize("damage", ["changed", "incomplete", "removed", "end-changed"])
def test_damaged_schedule_is_not_trusted(ledger, clock, damage):
    plan(ledger, clock.set(0))
    plan(ledger, clock.set(13))
    folder = ledger.root / ledger.attempts(SCHEDULE)[-1].name
    first = folder / "000001.json"
    if damage == "changed":
        first.write_bytes(first.read_bytes().replace(b"2026-09-01", b"2026-01-01"))
    elif damage == "incomplete":
        first.write_bytes(first.read_bytes()[:-1])
    elif damage == "removed":
        first.unlink()
    else:
        (folder / "000002.json").write_bytes(b"{}")
    assert read_history(ledger, POLICY).scheduled == {}
    assert plan(ledger, clock.set(14)) == ({"r1", "r2"}, set())
    assert plan(ledger, clock.set(28)) == (set(), {"r1", "r2"})


def test_plan_killed_before_its_first_record_changes_nothing(ledger, clock):
    plan(ledger, clock.set(0))
    (ledger.root / f"{ledger.account_folder}/{SCHEDULE}/20990101T000000.000000Z-00").mkdir()
    assert read_history(ledger, POLICY).scheduled == {"r1": START, "r2": START}


def test_schedules_of_policies_and_accounts_are_separate(ledger, clock):
    plan(ledger, clock.set(0))
    assert read_history(ledger, Policy.parse({**POLICY.to_json(), "name": "other"})).scheduled == {}
    other_account = Ledger("https://tavusapi.com", "eu", ledger.root)
    assert read_history(other_account, POLICY).scheduled == {}
    assert set(read_history(ledger, POLICY).scheduled) == {"r1", "r2"}


def without_announced_days(ledger):
    """Rewrite the records of the schedule as releases before the announced day wrote them."""
    for path in Path(f"{ledger.root.path}/{ledger.account_folder}/{SCHEDULE}").rglob("000001.json"):
        record = json.loads(path.read_bytes())
        end = path.with_name("000002.json")
        last = json.loads(end.read_bytes())
        del record["due"]
        record["digest"] = last["previous"] = digest_of(record)
        last["digest"] = digest_of(last)
        path.write_bytes(canonical_json(record))
        end.write_bytes(canonical_json(last))


def test_announced_day_of_an_old_record_is_by_the_longest_grace(ledger, clock):
    plan(ledger, clock.set(0))
    without_announced_days(ledger)
    rules = [{"older_than": "90d", "grace": "20d"}, {"older_than": "900d", "grace": "14d"}]
    policy = Policy.parse({"name": "stale", "expire": rules})
    due = START + timedelta(days=20)
    assert read_history(ledger, policy).due == {"r1": due, "r2": due}


def test_clock_set_back_does_not_extend_a_grace_period(ledger, clock):
    plan(ledger, clock.set(100))
    without_announced_days(ledger)
    history = read_history(ledger, POLICY)
    assert history.scheduled["r1"] == START + timedelta(days=100)
    replica = Replica(
        "r1",
        replica_name="x",
        replica_type="user",
        status="completed",
        created_at=START - timedelta(days=200),
    )
    inventory = Inventory([replica], history=replace(history, due={}))
    (verdict,) = evaluate(POLICY, inventory, now=START).scheduled
    assert verdict.due_at == START + timedelta(days=14)


def test_announced_day_remains_until_it_has_come(ledger, clock):
    plan(ledger, clock.set(0))
    due = START + timedelta(days=14)
    for days in (5, 13):
        plan(ledger, clock.set(days), age=10)
        history = read_history(ledger, POLICY)
        assert (set(history.scheduled), history.due["r1"]) == ({"r2"}, due)
    plan(ledger, clock.set(14), age=10)
    assert "r1" not in read_history(ledger, POLICY).due


def test_announced_day_holds_if_the_schedule_is_damaged(ledger, clock):
    plan(ledger, clock.set(0))
    plan(ledger, clock.set(1))
    first = ledger.root / ledger.attempts(SCHEDULE)[-1].name / "000001.json"
    first.write_bytes(first.read_bytes()[:-1])
    assert set(read_history(ledger, POLICY).due) == {"r1", "r2"}


def test_policy_without_grace_keeps_the_announced_days(ledger, clock):
    plan(ledger, clock.set(0))
    policy = Policy.parse({"name": "stale", "expire": [{"older_than": "90d"}]})
    assert set(read_history(ledger, policy).due) == {"r1", "r2"}
    without_announced_days(ledger)
    ledger = replace(ledger)  # as another process, which has not read the records
    assert read_history(ledger, policy).due == read_history(ledger, policy).scheduled
    other = Policy.parse({"name": "other", "expire": [{"older_than": "90d"}]})
    assert read_history(ledger, other) == History()


def test_removed_schedule_is_a_finding(ledger, clock):
    plan(ledger, clock.set(0))
    plan(ledger, clock.set(1))
    name = ledger.attempts(SCHEDULE)[0].name
    assert verify(ledger.root)[1] == []
    ledger.root.fs.rm((ledger.root / name).path, recursive=True)
    assert verify(ledger.root)[1] == [f"{name} is missing, but a later attempt refers to it"]
