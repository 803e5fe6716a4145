"""The simulation: the same as evaluating every day, with fewer evaluations."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from hypothesis import given, settings
from hypothesis import strategies as st

from tavus_provider.models import Conversation, Persona, Replica, Video
from tavus_provider.retention import simulation
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.simulation import simulate

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
ALL = {"max_deletions": 100, "max_deletion_percent": 100}


def replica(replica_id: str, days: float, **facts) -> Replica:
    facts = {"replica_name": replica_id, "status": "completed", "replica_type": "user"} | facts
    return Replica(replica_id, created_at=NOW - timedelta(days=days), **facts)


def simulated(policy, *replicas, days=30, hard=False, with_limits=True, **parts):
    inventory = Inventory(replicas, **parts)
    return simulate(Policy.parse(policy), inventory, now=NOW, days=days, hard=hard, with_limits=with_limits)


def deleted(found) -> list[tuple[int, str]]:
    return [(delete.day, delete.verdict.replica.replica_id) for delete in found.deletes]


def every_day(policy, inventory, *, days, hard):
    """Evaluate on every day, delete what is due, and write the schedule again."""
    found, stopped, overdue = [], [], []
    for day in range(days + 1):
        at = NOW + day * DAY
        decision = evaluate(policy, inventory, now=at, hard=hard)
        overdue += [(day, v.replica.replica_id) for v in decision.overdue]
        listing, history = inventory.replicas, inventory.history
        scheduled = {
            v.replica.replica_id: history.scheduled.get(v.replica.replica_id, at)
            for v in decision.verdicts
            if v.due_at is not None
        }
        days_due = {i: when for i, when in history.due.items() if when > at}
        days_due |= {v.replica.replica_id: v.due_at for v in decision.verdicts if v.due_at is not None}
        soft_deleted = dict(history.soft_deleted)
        if decision.limit_exceeded:
            stopped.append(day)
        else:
            found += [(day, v.replica.replica_id, v.reason) for v in decision.delete]
            ids = {v.replica.replica_id for v in decision.delete}
            listing = [one for one in listing if one.replica_id not in ids]
            soft_deleted = {i: when for i, when in soft_deleted.items() if i not in ids}
        inventory = replace(inventory, replicas=listing, history=History(scheduled, soft_deleted, days_due))
    return found, stopped, overdue


def test_date_near_the_end_of_the_calendar_is_undetermined_and_stops_no_simulation():
    last = datetime.max.replace(tzinfo=UTC)
    odd = Replica("r1", "r1", "completed", "user", created_at=last, updated_at=last)
    policy = {
        "name": "n",
        "expire": [{"older_than": "90d", "unused_for": "1d", "grace": "2d"}],
        "limits": ALL,
    }
    found = simulated(
        policy, odd, replica("r3", 100), conversations=[Conversation("c1", "r2", None, "ended", last)]
    )
    assert deleted(found) == [(2, "r3")]


IDS = ["a_1", "a_2", "a_3", "b_1", "b_2", "c_1"]
moments = st.sampled_from(
    [NOW + timedelta(days=days, seconds=s) for days in (-40, -12, -5, -3, -1, 0, 2, 6) for s in (-1, 0, 1)]
)
rows = st.tuples(moments, st.sampled_from(["completed", "completed", "error", "started", "x"]), moments)
listings = st.lists(st.one_of(rows, rows, st.none()), min_size=2, max_size=6).map(
    lambda found: [
        Replica(
            replica_id,
            replica_name=replica_id,
            replica_type="user",
            status=row[1] if row else "completed",
            created_at=row[0] if row else None,
            updated_at=row[2] if row else None,
        )
        for replica_id, row in zip(IDS, found, strict=False)
    ]
)
conversations = st.lists(
    st.builds(
        Conversation, st.just("k"), st.sampled_from([*IDS, None]), st.none(), st.just("ended"), moments
    ),
    max_size=3,
)
rules = st.sampled_from(
    [
        {"older_than": "7d"},
        {"older_than": "7d", "grace": "3d"},
        {"unused_for": "5d", "status": ["completed"]},
        {"older_than": "4d", "unused_for": "6d", "grace": "30h"},
        {"older_than": "1d", "status": ["error", "started"], "grace": "2d"},
        {"older_than": "2d", "names": {"include": ["a_*"], "exclude": ["*_3"]}},
        {"unused_for": "3d", "names": {"exclude": ["b_1"]}, "grace": "1d"},
    ]
)
policies = st.fixed_dictionaries(
    {
        "name": st.just("x"),
        "expire": st.lists(rules, min_size=1, max_size=2),
        "narrow": st.sampled_from([{}, {}, {"older_than": "9d"}]),
        "keep": st.sampled_from(
            [{}, {"keep_within": "8d"}, {"keep_last": 1, "group_by": "^(?P<group>.)"}, {"keep_last": 2}]
        ),
        "limits": st.sampled_from(
            [
                ALL,
                {"max_deletions": 1, "max_deletion_percent": 100},
                {**ALL, "max_undetermined_percent": 20},
                {},
            ]
        ),
        "hard_delete_after": st.sampled_from(["4d", "10d"]),
    },
    optional={
        "overdue_after": st.sampled_from(["5d", "12d"]),
        "quota": st.sampled_from(
            [
                {"above": 3, "down_to": 2, "older_than": "4d"},
                {"above": 2, "down_to": 1, "older_than": "9d", "grace": "2d"},
                {"above": 5, "down_to": 1, "older_than": "1d"},
            ]
        ),
    },
)
histories = st.builds(
    History,
    st.dictionaries(st.sampled_from(IDS), st.sampled_from([NOW - DAY, NOW - 2.5 * DAY]), max_size=2),
    st.dictionaries(st.sampled_from([*IDS, "gone"]), st.sampled_from([NOW, NOW - 6.5 * DAY]), max_size=2),
    st.dictionaries(st.sampled_from(IDS), st.sampled_from([NOW, NOW + 3 * DAY, NOW + 7.5 * DAY]), max_size=2),
)
inventories = st.builds(
    Inventory,
    listings,
    st.just([Persona("p", "b_2")]),
    conversations,
    held=st.lists(st.sampled_from(IDS), max_size=1).map(frozenset),
    history=histories,
)


@settings(deadline=None, max_examples=150, derandomize=True, database=None)
@given(policies, inventories, st.booleans())
def test_same_deletes_and_stops_as_evaluating_every_day(policy, inventory, hard):
    read = Policy.parse(policy)
    if read.narrow.older_than is not None:  # a test of its own has a form and a schedule
        history = replace(inventory.history, scheduled={}, due={})
        inventory = replace(inventory, history=history)
    found = simulate(read, inventory, now=NOW, days=14, hard=hard)
    expected, stopped, overdue = every_day(read, inventory, days=14, hard=hard)
    assert [(d.day, d.verdict.replica.replica_id, d.verdict.reason) for d in found.deletes] == expected
    assert [day for stop in found.stops for day in range(stop.first, stop.last + 1)] == stopped
    spans = ((one, one.verdict.replica.replica_id) for one in found.overdue)
    assert sorted(
        (day, replica_id) for one, replica_id in spans for day in range(one.first, one.last + 1)
    ) == sorted(overdue)


def test_each_replica_is_deleted_on_the_day_it_expires():
    found = simulated(
        {"expire": [{"older_than": "90d"}], "limits": ALL},
        *(replica("r12", 95), replica("r13", 80.5), replica("r14", 59), replica("r15", 20)),
    )
    assert deleted(found) == [(0, "r12"), (10, "r13")]
    assert found.deletes[1].verdict.reason == "90 days old, limit is 90d"
    assert [one.replica.replica_id for one in found.last_decision.verdicts] == ["r14", "r15"]


def test_grace_begins_with_the_announcement_and_scheduled_replicas_keep_their_date():
    policy = {"name": "x", "expire": [{"older_than": "90d", "grace": "14d"}], "limits": ALL}
    found = simulated(
        policy,
        *(replica("r12", 95), replica("r13", 95)),
        history=History(scheduled={"r13": NOW - 10 * DAY}),
    )
    assert deleted(found) == [(4, "r13"), (14, "r12")]
    assert [delete.announced_at for delete in found.deletes] == [NOW - 10 * DAY, NOW]


def test_replica_that_only_the_form_leaves_out_stays_scheduled():
    policy = {
        "name": "x",
        "expire": [{"older_than": "90d", "grace": "14d"}],
        "narrow": {"older_than": "100d"},
        "limits": ALL,
    }
    history = History(scheduled={"r12": NOW - 10 * DAY})
    assert deleted(simulated(policy, replica("r12", 95), history=history)) == [(5, "r12")]


def test_run_that_stops_at_a_limit_and_all_runs_after_it_delete_nothing():
    policy = {"expire": [{"older_than": "90d"}], "limits": {**ALL, "max_deletions": 1}}
    found = simulated(policy, replica("r12", 95), replica("r13", 85), replica("r14", 85))
    assert deleted(found) == [(0, "r12")]
    (stop,) = found.stops
    assert (stop.first, stop.last) == (5, 30)
    assert stop.reason.startswith("2 of 2 replicas would be deleted, max_deletions is 1")
    lifted = simulated(policy, replica("r12", 95), replica("r13", 85), replica("r14", 85), with_limits=False)
    assert deleted(lifted) == [(0, "r12"), (5, "r13"), (5, "r14")]
    assert lifted.stops == ()


def test_stop_because_of_undetermined_replicas_ends_when_they_are_determined():
    policy = {"expire": [{"older_than": "90d"}], "limits": {**ALL, "max_undetermined_percent": 10}}
    found = simulated(policy, replica("r12", 95), replica("r13", -7))
    assert [(stop.first, stop.last) for stop in found.stops] == [(0, 6)]
    assert deleted(found) == [(7, "r12")]


def test_use_does_not_change():
    policy = {"expire": [{"older_than": "90d"}], "limits": ALL}
    active = Video("v12", "r12", None, "generating", NOW)
    found = simulated(policy, replica("r12", 95), days=3650, videos=[active])
    assert deleted(found) == []
    assert found.last_decision.verdicts[0].reason == "is in video v12, which is generating"


def test_active_conversation_ends_in_a_simulation():
    policy = {"expire": [{"older_than": "90d"}], "limits": ALL, "keep": {"active_for": "49h"}}
    active = Conversation("c12", "r12", None, "active", NOW)
    assert deleted(simulated(policy, replica("r12", 95), days=30, conversations=[active])) == [(3, "r12")]


def test_soft_deleted_replica_is_deleted_in_a_simulation_of_permanent_deletes_only():
    policy = {"expire": [{"older_than": "90d"}], "limits": ALL, "hard_delete_after": "30d"}
    history = History(soft_deleted={"r99": NOW - 20 * DAY})
    assert deleted(simulated(policy, replica("r12", 1), history=history, hard=True)) == [(10, "r99")]
    assert deleted(simulated(policy, replica("r12", 1), history=history)) == []


def test_failed_training_is_deleted_after_the_refund_window():
    policy = {"expire": [{"older_than": "14d"}], "limits": ALL}
    failed = replica("r12", 50, status="error", updated_at=NOW - timedelta(hours=30))
    assert deleted(simulated(policy, failed)) == [(2, "r12")]


def test_unused_replica_is_deleted_when_its_last_use_is_long_enough_ago():
    policy = {"expire": [{"unused_for": "10d"}], "limits": ALL}
    ended = Conversation("c12", "r12", None, "ended", NOW - 5.5 * DAY)
    assert deleted(simulated(policy, replica("r12", 50), conversations=[ended])) == [(5, "r12")]


def test_few_evaluations_are_needed_if_little_happens(monkeypatch):
    asked = []
    monkeypatch.setattr(simulation, "evaluate", lambda *a, **k: asked.append(k["now"]) or evaluate(*a, **k))
    found = simulated({"expire": [{"older_than": "90d"}], "limits": ALL}, replica("r12", 50), days=3650)
    assert deleted(found) == [(40, "r12")]
    assert len(asked) < 10


def test_deletes_are_counted_per_day_week_or_month_without_gaps():
    policy = {"expire": [{"older_than": "90d"}], "limits": ALL}
    short, middle, year = (simulated(policy, replica("r12", 81), days=days) for days in (10, 90, 365))
    assert [count for _, count in short.count_by_period()] == [0] * 9 + [1, 0]
    assert short.count_by_period()[9][0] == "2026-09-10"
    assert middle.count_by_period()[1] == ("week of 2026-09-07", 1)
    assert [period for period, _ in year.count_by_period()] == [f"2026-{m:02}" for m in range(9, 13)] + [
        f"2027-{m:02}" for m in range(1, 10)
    ]
