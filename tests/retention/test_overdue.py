"""``overdue_after``: replicas that are older and stay without a legal hold."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from retention.samples import NOW, SECOND, UNUSED, ago, conversation, policy, replica

from tavus_provider.models import Persona, Replica, parse_row
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.engine import Decision, evaluate
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.simulation import simulate

OLD = timedelta(days=1095)
RULE = {"rule": "stale", "older_than": "90d", "names": {"include": ["demo_*"]}}


def decide(*replicas: Replica, use: Inventory = UNUSED, hard: bool = False, **parts: Any) -> Decision:
    by = policy(RULE, overdue_after="3y", **parts)
    return evaluate(by, replace(use, replicas=replicas), now=NOW, hard=hard)


def overdue(*replicas: Replica, **options: Any) -> list[tuple[str, str, str]]:
    return [
        (verdict.replica.replica_id, verdict.status.value, verdict.reason_code)
        for verdict in decide(*replicas, **options).overdue
    ]


@pytest.mark.parametrize(
    ("facts", "options", "expected"),
    [
        pytest.param({"replica_name": "other"}, {}, ("not_expired", "not_expired"), id="no rule matches"),
        pytest.param({}, {"keep": {"protected_ids": ["r1"]}}, ("kept", "protected"), id="protected"),
        pytest.param({}, {"account": {"expect_present": ["r1"]}}, ("kept", "protected"), id="expected"),
        pytest.param(
            {}, {"use": Inventory((), personas=[Persona("p", "r1")])}, ("kept", "in_use"), id="in use"
        ),
        pytest.param({}, {"keep": {"keep_last": 1}}, ("kept", "keep_last"), id="newest"),
        pytest.param({"status": "archived"}, {}, ("undetermined", "undetermined"), id="undetermined"),
        pytest.param({"status": "started"}, {}, ("kept", "training"), id="in training"),
        pytest.param(
            {}, {"scope": {"exclude": ["demo_*"]}}, ("out_of_scope", "out_of_scope"), id="out of scope"
        ),
        pytest.param(
            {}, {"narrow": {"include": ["x"]}}, ("out_of_scope", "out_of_scope"), id="left out by the form"
        ),
        pytest.param({"replica_type": None}, {}, ("out_of_scope", "not_user"), id="unknown type"),
    ],
)
def test_replica_that_stays_for_any_other_reason_is_overdue(
    facts: dict[str, Any], options: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert overdue(replica(age=OLD, **facts), **options) == [("r1", *expected)]
    assert overdue(replica(age=OLD - SECOND, **facts), **options) == []


@pytest.mark.parametrize(
    ("facts", "options"),
    [
        pytest.param({}, {}, id="this run deletes it"),
        pytest.param({}, {"use": replace(UNUSED, held=frozenset({"r1"}))}, id="held"),
        pytest.param(
            {},
            {"use": replace(UNUSED, held=frozenset({"r1"})), "scope": {"include": ["x"]}},
            id="held and out of scope",
        ),
        pytest.param({"replica_type": "system"}, {}, id="stock replica"),
        pytest.param(
            {}, {"use": replace(UNUSED, history=History(soft_deleted={"r1": ago(days=1)}))}, id="soft-deleted"
        ),
    ],
)
def test_replica_that_goes_or_is_held_is_not_overdue(facts: dict[str, Any], options: dict[str, Any]) -> None:
    assert overdue(replica(age=OLD, **facts), **options) == []


def test_scheduled_replica_is_overdue_until_it_goes() -> None:
    by = policy({**RULE, "grace": "14d"}, name="x", overdue_after="3y")
    found = evaluate(by, Inventory([replica(age=OLD)]), now=NOW)
    assert [verdict.status for verdict in found.overdue] == ["scheduled"]


def test_oldest_come_first_whatever_the_order_of_the_listing() -> None:
    several = [
        replica(f"r{n}", age=OLD + timedelta(days=days), replica_name="x")
        for n, days in enumerate([0, 5, 5, 9])
    ]
    assert [row[0] for row in overdue(*several)] == ["r3", "r1", "r2", "r0"]
    assert overdue(*reversed(several)) == overdue(*several)


def test_without_the_setting_nothing_is_overdue() -> None:
    assert evaluate(policy(RULE), Inventory([replica(age=2 * OLD, status="x")]), now=NOW).overdue == ()


def test_date_of_the_last_change_shows_a_least_age() -> None:
    found = decide(replica(created_at=None, updated_at=NOW - OLD))
    (verdict,) = found.overdue
    assert (verdict.reason, verdict.age_days) == ("created_at is not given", None)
    assert found.warnings == []


def test_unknown_age_is_a_warning_and_not_overdue() -> None:
    rows = (parse_row(Replica, None),)
    use = replace(UNUSED, unreadable=rows)
    found = decide(replica(created_at=None), replica("r2", created_at=NOW + SECOND), use=use)
    assert found.overdue == ()
    (warning,) = found.warnings
    assert warning.startswith("overdue_after: the age of 3 replicas is unknown (")
    assert warning.endswith("so they are kept and never overdue; delete them by hand if they should go")


@pytest.mark.parametrize(
    ("rules", "after", "floor"),
    [
        pytest.param([{"older_than": "90d"}], "89d", "90d", id="lower"),
        pytest.param([{"older_than": "90d"}], "90d", None, id="equal"),
        pytest.param([{"older_than": "90d"}, {"unused_for": "14d"}], "30d", None, id="one rule is lower"),
    ],
)
def test_age_at_which_nothing_can_expire_before_is_a_problem(
    rules: list[dict[str, Any]], after: str, floor: str | None
) -> None:
    problems = Policy.find_problems({"expire": rules, "overdue_after": after})
    assert problems == (
        []
        if floor is None
        else [
            f"overdue_after: {after} is lower than {floor}, the age that the policy asks for, so replicas "
            f"would be overdue before they expire; write {floor} or more"
        ]
    )


def test_simulation_shows_from_when_and_until_when_a_replica_is_overdue() -> None:
    by = policy(RULE, overdue_after="3y", limits={"max_deletions": 9, "max_deletion_percent": 100})
    kept = replica("r1", age=OLD - timedelta(days=3, hours=1), replica_name="other")
    used = replica("r2", age=OLD - timedelta(days=20))
    talks = [conversation("r2", status="active", at=ago(hours=1))]
    found = simulate(by, Inventory([kept, used], conversations=talks), now=NOW, days=30)
    assert [(one.verdict.replica.replica_id, one.first, one.last) for one in found.overdue] == [("r1", 4, 30)]
    assert found.to_json()["overdue"] == [
        {
            "from": "2026-09-05",
            "to": "2026-10-01",
            "replica_id": "r1",
            "reason": "name does not match names.include 'demo_*' of rule 'stale'",
        }
    ]


def test_simulation_shows_what_is_overdue_on_days_on_which_runs_stop() -> None:
    by = policy({"older_than": "90d"}, overdue_after="3y", limits={"max_deletions": 0})
    kept = replica("r2", age=OLD - timedelta(days=5), status="archived")
    found = simulate(by, Inventory([replica(), kept]), now=NOW, days=30)
    assert [(one.verdict.replica.replica_id, one.first, one.last) for one in found.overdue] == [("r2", 5, 30)]
