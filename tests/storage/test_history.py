"""What is known from the ledger and from the file of holds; told in days, by a clock of the test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from airflow.sdk import ObjectStoragePath

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.models import Replica
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy
from tavus_provider.storage import ledger as ledger_room
from tavus_provider.storage.history import read_history, record_schedule, soft_deleted
from tavus_provider.storage.ledger import Ledger, job_name
from tavus_provider.storage.ledger_verify import verify
from tavus_provider.storage.policy_files import read_legal_holds

START = datetime(2026, 9, 1, 12, tzinfo=UTC)
POLICY = Policy.parse({"name": "stale", "expire": [{"rule": "old", "older_than": "90d", "grace": "14d"}]})
WHO = {"dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1, "try_number": 1}


@pytest.fixture
def day(monkeypatch):
    """Set the day that the ledger's clock shows: ``day(3)``."""

    def show(days):
        class Clock(datetime):
            @classmethod
            def now(cls, tz=None):
                return START + timedelta(days=days)

        monkeypatch.setattr(ledger_room, "datetime", Clock)
        return START + timedelta(days=days)

    show(0)
    return show


@pytest.fixture
def ledger(tmp_path, day):
    return Ledger("https://tavusapi.com", "tavus_default", ObjectStoragePath(str(tmp_path / "ledger")))


def did(ledger, outcome, *, hard=False, kind="plan", replica_id="r1", plan="a"):
    entry = ledger.begin_attempt(job_name(kind, plan * 64), hard=hard, intent=[replica_id])
    entry.close(outcomes={replica_id: outcome})
    return entry


# -- soft-deleted


@pytest.mark.parametrize("kind", ["plan", "delete"])
@pytest.mark.parametrize(
    ("outcome", "known"),
    [
        ("deleted", True),
        ("confirmed", True),
        *((word, False) for word in ("already_gone", "failed", "unknown", "not_attempted", "skipped")),
    ],
)
def test_only_what_this_package_has_seen_gone_is_soft_deleted_by_it(ledger, day, kind, outcome, known):
    when = day(3)
    did(ledger, outcome, kind=kind)
    assert soft_deleted(ledger) == ({"r1": when} if known else {})


def test_the_first_soft_delete_counts_also_where_a_later_try_repeats_it(ledger, day):
    did(ledger, "deleted")
    day(5)
    did(ledger, "deleted")
    assert soft_deleted(ledger) == {"r1": START}


@pytest.mark.parametrize("hard", ["deleted", "confirmed"])
def test_what_was_deleted_for_good_is_no_longer_soft_deleted(ledger, day, hard):
    did(ledger, "deleted")
    day(31)
    did(ledger, hard, hard=True, plan="b")
    assert soft_deleted(ledger) == {}


def test_a_cleared_soft_task_does_not_bring_back_what_was_deleted_for_good_since(ledger, day):
    did(ledger, "deleted")
    day(31)
    did(ledger, "deleted", hard=True, plan="b")
    day(32)
    did(ledger, "deleted")  # its report keeps the outcomes of earlier tries
    assert soft_deleted(ledger) == {}


@pytest.mark.parametrize("outcome", ["failed", "unknown", "already_gone", "not_attempted"])
def test_a_permanent_delete_that_was_not_seen_done_leaves_it_soft_deleted(ledger, outcome):
    did(ledger, "deleted")
    did(ledger, outcome, hard=True, plan="b")
    assert soft_deleted(ledger) == {"r1": START}


def test_an_outcome_that_was_recorded_before_the_process_was_killed_counts(ledger):
    entry = ledger.begin_attempt(job_name("plan", "a" * 64), hard=False, intent=["r1", "r2"])
    entry.write("outcome", outcomes={"r1": "deleted"})
    assert soft_deleted(ledger) == {"r1": START}


@pytest.mark.parametrize(("hard", "known"), [(False, {"r1": START + timedelta(days=1)}), (True, {})])
def test_what_a_killed_try_had_begun_to_delete_and_the_next_found_gone_is_ours(ledger, day, hard, known):
    ledger.begin_attempt(job_name("plan", "a" * 64), hard=hard, intent=["r1"])
    day(1)  # two tries that began in one microsecond have no order
    did(ledger, "already_gone", hard=hard)
    did(ledger, "already_gone", hard=hard, replica_id="r2")
    assert soft_deleted(ledger) == known


@pytest.mark.parametrize("outcome", ["failed", "not_attempted", "skipped"])
def test_what_a_try_did_not_delete_and_another_found_gone_is_not_ours(ledger, outcome):
    did(ledger, outcome)
    did(ledger, "already_gone")
    assert soft_deleted(ledger) == {}


def test_what_another_plan_had_begun_to_delete_is_not_taken_for_this_ones(ledger):
    ledger.begin_attempt(job_name("plan", "b" * 64), hard=False, intent=["r1"])
    did(ledger, "already_gone")
    assert soft_deleted(ledger) == {}


def test_what_stands_behind_a_flaw_is_not_believed(ledger):
    entry = did(ledger, "deleted")
    (entry.folder / "000002.json").write_bytes(b"{}")
    assert soft_deleted(ledger) == {}


def test_an_approval_and_a_try_whose_first_record_is_torn_stop_nothing(ledger):
    ledger.begin_attempt(job_name("plan", "a" * 64), hard=True, approved_by="alice").close()
    torn = ledger.begin_attempt(job_name("plan", "a" * 64), hard=False, intent=["r1"])
    (torn.folder / "000001.json").write_bytes(b'{"at":')
    did(ledger, "deleted", plan="b")
    assert soft_deleted(ledger) == {"r1": START}


# -- the schedule


def decided(ledger, now, *, age=200, policy=POLICY, narrow=None):
    """Decide about r1 and r2 as the plan task does, write the schedule, and return what is scheduled anew."""
    replicas = [
        Replica(i, replica_name=i, replica_type="user", status="completed", created_at=START - span)
        for i, span in (("r1", timedelta(days=age)), ("r2", timedelta(days=200)))
    ]
    narrowed = policy
    if narrow is not None:
        narrowed = Policy.parse({**policy.to_json(), "narrow": narrow})
    inventory = Inventory(replicas, history=read_history(ledger, policy))
    decision = evaluate(narrowed, inventory, now=now)
    unnarrowed = evaluate(policy, inventory, now=now)
    new = record_schedule(
        ledger,
        narrowed,
        decision,
        unnarrowed=unnarrowed,
        history=inventory.history,
        now=now,
        context=WHO,
    )
    return set(new), {v.replica.replica_id for v in decision.delete}


def test_a_replica_keeps_the_day_on_which_it_was_scheduled_until_it_goes(ledger, day):
    assert decided(ledger, day(0)) == ({"r1", "r2"}, set())
    assert decided(ledger, day(13.9)) == (set(), set())
    assert decided(ledger, day(14)) == (set(), {"r1", "r2"})
    assert decided(ledger, day(15)) == (set(), {"r1", "r2"})
    assert read_history(ledger, POLICY).scheduled == {"r1": START, "r2": START}


def test_one_plan_without_it_cancels_and_the_next_begins_anew(ledger, day):
    decided(ledger, day(0))
    assert decided(ledger, day(5), age=10) == (set(), set())
    assert read_history(ledger, POLICY).scheduled == {"r2": START}
    assert ledger.attempts(job_name("schedule", "stale"))[-1].begin_record["cancelled"] == ["r1"]
    assert decided(ledger, day(14)) == ({"r1"}, {"r2"})
    assert decided(ledger, day(28)) == (set(), {"r1", "r2"})


def test_what_a_form_leaves_out_keeps_its_place_and_is_given_none(ledger, day):
    assert decided(ledger, day(0), narrow={"include": ["r1"]}) == ({"r1"}, set())
    assert decided(ledger, day(3), narrow={"include": ["r2"]}) == ({"r2"}, set())
    assert decided(ledger, day(14)) == (set(), {"r1"})
    assert decided(ledger, day(17)) == (set(), {"r1", "r2"})


@pytest.mark.parametrize("damage", ["flipped", "torn", "removed"])
def test_of_a_damaged_schedule_nothing_is_believed_and_every_grace_begins_again(ledger, day, damage):
    decided(ledger, day(0))
    decided(ledger, day(13))
    first = ObjectStoragePath(
        f"{ledger.root}/{ledger.attempts(job_name('schedule', 'stale'))[-1].name}/000001.json"
    )
    if damage == "flipped":
        first.write_bytes(first.read_bytes().replace(b"2026-09-01", b"2026-01-01"))
    elif damage == "torn":
        first.write_bytes(first.read_bytes()[:-1])
    else:
        first.unlink()
    assert read_history(ledger, POLICY).scheduled == {}
    assert decided(ledger, day(14)) == ({"r1", "r2"}, set())
    assert decided(ledger, day(28)) == (set(), {"r1", "r2"})


def test_a_plan_killed_before_it_wrote_its_schedule_leaves_the_one_before(ledger, day):
    decided(ledger, day(0))
    (
        ledger.root / f"{ledger.account_folder}/{job_name('schedule', 'stale')}/20990101T000000.000000Z-00"
    ).mkdir()
    assert read_history(ledger, POLICY).scheduled == {"r1": START, "r2": START}


def test_each_policy_and_each_account_has_a_schedule_of_its_own(ledger, day):
    decided(ledger, day(0))
    other = Policy.parse({**POLICY.to_json(), "name": "other"})
    assert read_history(ledger, other).scheduled == {}
    elsewhere = Ledger("https://tavusapi.com", "eu", ledger.root)
    assert read_history(elsewhere, POLICY).scheduled == {}
    assert set(read_history(ledger, POLICY).scheduled) == {"r1", "r2"}


def test_a_clock_that_was_set_back_makes_no_grace_longer_than_it_is(ledger, day):
    decided(ledger, day(100))
    assert decided(ledger, day(0)) == (set(), set())
    (due,) = {
        v.due_at
        for v in evaluate(
            POLICY,
            Inventory(
                [
                    Replica(
                        "r1",
                        replica_name="x",
                        replica_type="user",
                        status="completed",
                        created_at=START - timedelta(days=200),
                    )
                ],
                history=read_history(ledger, POLICY),
            ),
            now=START,
        ).scheduled
    }
    assert due == START + timedelta(days=14)


def test_without_grace_no_schedule_is_read(ledger, day):
    decided(ledger, day(0))
    plain = Policy.parse({"name": "stale", "expire": [{"older_than": "90d"}]})
    assert read_history(ledger, plain) == History()


def test_a_schedule_that_was_removed_is_found(ledger, day):
    decided(ledger, day(0))
    decided(ledger, day(1))
    name = ledger.attempts(job_name("schedule", "stale"))[0].name
    assert verify(ledger.root)[1] == []
    ledger.root.fs.rm((ledger.root / name).path, recursive=True)
    assert verify(ledger.root)[1] == [f"{name} is missing, a later try names it"]


# -- holds


def test_a_list_of_holds_that_cannot_be_read_is_an_error_and_not_nobody(ledger, tmp_path):
    held = {"file": str(tmp_path / "holds"), "max_age": "2d"}
    policy = Policy.parse({**POLICY.to_json(), "legal_holds": held})
    with pytest.raises(TavusValidationError, match="it is not known which replicas are held"):
        read_legal_holds(policy.legal_holds, now=START)
    (tmp_path / "holds").write_text("{replica_ids: [r1], as_of: 2026-09-01T11:00:00Z}")
    assert read_legal_holds(policy.legal_holds, now=START) == {"r1"}
