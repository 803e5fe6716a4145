"""``quota``: the least recently used replicas expire if the account has too many."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from retention.samples import NOW, UNUSED, ago, conversation, policy, replica

from tavus_provider.exceptions import TavusValidationError
from tavus_provider.models import Conversation, Replica, UnreadableRow, parse_row
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.engine import Decision, evaluate
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.simulation import simulate

QUOTA = {"above": 5, "down_to": 3, "older_than": "30d"}
OFTEN = {"max_deletions": 100, "max_deletion_percent": 100}


def by(**parts: Any) -> Policy:
    return Policy.parse({"quota": QUOTA, "limits": OFTEN, **parts})


def account(count: int, *, use: Inventory = UNUSED, **parts: Any) -> Inventory:
    """Return replicas r1, r2, ... of which r1 was created 101 days ago, r2 102 days ago and so on."""
    replicas = [replica(f"r{n}", age=timedelta(days=100 + n)) for n in range(1, count + 1)]
    return replace(use, replicas=replicas, **parts)


def decide(inventory: Inventory, policy: Policy | None = None, **options: Any) -> Decision:
    return evaluate(policy or by(), inventory, now=NOW, **options)


def deleted(inventory: Inventory, policy: Policy | None = None, **options: Any) -> list[str]:
    return [verdict.replica.replica_id for verdict in decide(inventory, policy, **options).delete]


def test_quota_that_is_not_exceeded_deletes_nothing() -> None:
    found = decide(account(5))
    assert found.delete == ()
    assert {verdict.reason for verdict in found.verdicts} == {"5 replicas, quota.above is 5"}


def test_least_recently_used_ones_go_until_down_to_are_left() -> None:
    use = Inventory((), conversations=[conversation("r6", at=ago(days=1))])
    found = decide(account(6, use=use))
    assert [verdict.replica.replica_id for verdict in found.delete] == ["r5", "r4", "r3"]
    assert found.delete[0].reason == (
        "6 replicas, quota.above is 5, down_to is 3; number 1 of 6, least recently used first; never used in "
        "105 days; 105 days old, quota.older_than is 30d"
    )
    assert found.warnings == []


def test_row_of_a_quota_is_known_by_its_source_and_not_by_a_name() -> None:
    rules = [{"rule": "quota", "older_than": "106d"}]
    found = decide(account(6), by(expire=rules))
    assert [(v.replica.replica_id, v.rule, v.source, v.reason_code) for v in found.delete] == [
        ("r6", "quota", "rule", "expired"),
        ("r5", None, "quota", "quota"),
        ("r4", None, "quota", "quota"),
    ]
    assert found.delete[1].to_row()["source"] == "quota"


def test_replicas_that_a_rule_deletes_count_as_gone() -> None:
    """Otherwise fewer than ``down_to`` would be left."""
    inventory = account(6)
    inventory = replace(inventory, conversations=[conversation("r6", at=ago(days=1))])
    assert sorted(deleted(inventory, by(expire=[{"older_than": "106d"}]))) == ["r4", "r5", "r6"]


@pytest.mark.parametrize(
    ("parts", "inventory", "left"),
    [
        pytest.param({"keep": {"protected_ids": ["r6"]}}, {}, ["r5", "r4"], id="protected"),
        pytest.param({}, {"held": frozenset({"r6", "r5"})}, ["r4"], id="held"),
        pytest.param({"scope": {"exclude": ["demo_1"]}}, {}, [], id="out of scope"),
        pytest.param({"narrow": {"include": ["x*"]}}, {}, [], id="narrowed by the form"),
        pytest.param({"narrow": {"older_than": "105d"}}, {}, ["r6", "r5"], id="age of the form"),
        pytest.param({"keep": {"keep_within": "105d"}}, {}, ["r6", "r5"], id="keep_within"),
        pytest.param({"quota": {**QUOTA, "older_than": "105d"}}, {}, ["r6", "r5"], id="older_than"),
        pytest.param(
            {},
            {"conversations": [conversation("r6", status="active", at=ago(hours=1))]},
            ["r5", "r4", "r3"],
            id="in use",
        ),
    ],
)
def test_kept_candidate_is_not_replaced_by_another(
    parts: dict[str, Any], inventory: dict[str, Any], left: list[str]
) -> None:
    assert deleted(account(6, **inventory), by(**parts)) == left


def test_kept_candidates_are_named_in_a_warning() -> None:
    found = decide(account(6), by(keep={"protected_ids": ["r6"]}))
    assert found.warnings == [
        "quota: 4 of 6 replicas will be left, down_to is 3; the others that were used least recently are "
        "kept, see their reasons"
    ]


@pytest.mark.parametrize(
    "facts",
    [
        pytest.param({"replica_type": "system"}, id="stock replica"),
        pytest.param({"replica_type": None}, id="unknown type"),
    ],
)
def test_only_replicas_of_the_account_itself_count(facts: dict[str, Any]) -> None:
    other = [replica(f"s{n}", **facts) for n in range(9)]
    inventory = account(5)
    assert deleted(replace(inventory, replicas=[*inventory.replicas, *other])) == []


def test_soft_deleted_replicas_that_are_still_listed_do_not_count() -> None:
    history = History(soft_deleted={"r6": ago(days=1)})
    assert deleted(account(6, history=history)) == []
    assert deleted(account(7, history=history)) == ["r7", "r5", "r4"]


def test_unreadable_rows_do_not_count() -> None:
    row = parse_row(Replica, None)
    assert isinstance(row, UnreadableRow)
    assert deleted(account(5, unreadable=(row,))) == []


@pytest.mark.parametrize("status", ["started", "archived"])
def test_replicas_in_training_or_of_unknown_status_count_but_do_not_expire(status: str) -> None:
    inventory = account(5)
    other = replica("r9", age=timedelta(days=300), status=status)
    assert deleted(replace(inventory, replicas=[*inventory.replicas, other])) == ["r5", "r4"]


def test_replica_in_training_does_not_expire_even_if_a_rule_is_for_training() -> None:
    rules = [{"status": ["started"], "older_than": "400d"}]
    other = replica("r9", age=timedelta(days=300), status="started")
    inventory = account(5)
    assert deleted(replace(inventory, replicas=[*inventory.replicas, other]), by(expire=rules)) == [
        "r5",
        "r4",
    ]


def test_unknown_last_use_is_undetermined_and_takes_a_place() -> None:
    use = Inventory((), conversations=[conversation("r1", at=None)])
    found = decide(account(6, use=use))
    assert [verdict.replica.replica_id for verdict in found.delete] == ["r6", "r5"]
    (unknown,) = found.undetermined
    assert (unknown.replica.replica_id, unknown.reason) == (
        "r1",
        "last use is unknown: conversation c1 has no readable date",
    )


def test_unknown_last_use_does_not_matter_if_the_quota_is_not_exceeded() -> None:
    use = Inventory((), conversations=[conversation("r1", at=None)])
    assert decide(account(5, use=use)).undetermined == ()


@pytest.mark.parametrize("created_at", [None, NOW + timedelta(days=1)])
def test_unknown_date_takes_a_place(created_at: Any) -> None:
    inventory = account(5)
    odd = replica("r9", created_at=created_at)
    assert deleted(replace(inventory, replicas=[*inventory.replicas, odd])) == ["r5", "r4"]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        pytest.param(ago(days=1), [], id="any may have been used last"),
        pytest.param(ago(days=104), ["r6", "r5", "r4"], id="the last places are certain"),
        pytest.param(ago(days=103, hours=1), ["r6", "r5", "r4"], id="between"),
        pytest.param(ago(days=102, hours=1), [], id="four were not used since"),
    ],
)
def test_use_that_names_no_replica_may_have_been_that_of_a_candidate(at: Any, expected: list[str]) -> None:
    use = Inventory((), conversations=[Conversation("c1", None, None, "ended", at)])
    assert deleted(account(6, use=use)) == expected


def test_grace_announces_first() -> None:
    policy = by(name="q", quota={**QUOTA, "grace": "14d"})
    found = decide(account(6), policy)
    assert (found.delete, len(found.scheduled)) == ((), 3)
    first = found.scheduled[0]
    assert (first.rule, first.source, first.due_at) == (None, "quota", NOW + timedelta(days=14))
    assert first.reason.endswith("; grace of 14d ends on 2026-09-15 at 12:00 UTC")
    since = History(scheduled={f"r{n}": ago(days=15) for n in (4, 5, 6)})
    assert deleted(account(6, history=since), policy) == ["r6", "r5", "r4"]


def test_announced_day_of_a_rule_holds_for_the_quota_too() -> None:
    policy = by(name="q", expire=[{"older_than": "400d", "grace": "14d"}])
    history = History(due={"r6": NOW + timedelta(days=3)})
    assert deleted(account(6, history=history), policy) == ["r5", "r4"]


def test_limits_apply_to_the_quota() -> None:
    assert decide(account(6), by(limits={"max_deletions": 2, "max_deletion_percent": 100})).limit_exceeded


def test_failed_training_within_the_refund_window_is_kept() -> None:
    inventory = account(6)
    failed = [replace(one, status="error", updated_at=ago(hours=1)) for one in inventory.replicas]
    assert deleted(replace(inventory, replicas=failed)) == []


def test_quota_reads_all_past_use() -> None:
    policy = by(keep={"in_use": []})
    assert policy.needs == {"personas", "conversations", "videos"}
    assert policy.asks_about_past


def test_plan_that_was_carried_out_in_part_goes_on_until_down_to_are_left() -> None:
    """Otherwise the rest of a plan would be skipped as soon as ``above`` is reached."""
    planned = deleted(account(6))
    inventory = account(6)
    rest = replace(inventory, replicas=[one for one in inventory.replicas if one.replica_id != planned[0]])
    assert deleted(rest) == []
    assert deleted(rest, by().as_planned) == planned[1:]
    fewer = replace(inventory, replicas=inventory.replicas[3:])
    assert deleted(fewer, by().as_planned) == []


def test_simulation_deletes_down_to_the_quota_once() -> None:
    found = simulate(by(), account(7), now=NOW, days=60)
    assert [(delete.day, delete.verdict.replica.replica_id) for delete in found.deletes] == [
        (0, "r7"), (0, "r6"), (0, "r5"), (0, "r4"),
    ]  # fmt: skip
    assert found.remaining == 3


def test_simulation_waits_until_a_candidate_is_old_enough() -> None:
    found = simulate(by(quota={**QUOTA, "older_than": "107d"}), account(6), now=NOW, days=60)
    assert [(delete.day, delete.verdict.replica.replica_id) for delete in found.deletes] == [(1, "r6")]
    assert found.remaining == 5  # the quota is not exceeded any more


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        pytest.param({"down_to": 6}, "quota: down_to must be <= above, not 6 with above 5", id="upside down"),
        pytest.param({"down_to": None}, "quota.down_to: must be a whole number, not None", id="no number"),
        pytest.param(
            {"above": 0, "down_to": 1}, "quota.above: must be >= 1, not 0; omit it to disable", id="zero"
        ),
        pytest.param({"down_to": "3"}, "quota.down_to: must be a whole number, not '3'", id="text"),
        pytest.param(
            {"grace": "1d"},
            "name: is missing; with grace it is required: the schedule is stored under it",
            id="grace without a name",
        ),
        pytest.param(
            {"keep": 3}, "quota: unknown key 'keep'; known: above, down_to, older_than, grace", id="unknown"
        ),
    ],
)
def test_invalid_quota_is_rejected(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(TavusValidationError) as caught:
        by(quota={**QUOTA, **changes})
    assert str(caught.value) == f"policy: {problem}"


@pytest.mark.parametrize("key", QUOTA)
def test_nothing_of_a_quota_has_a_default(key: str) -> None:
    with pytest.raises(TavusValidationError, match=rf"^policy: quota\.{key}: is missing$"):
        by(quota={name: value for name, value in QUOTA.items() if name != key})


def test_policy_needs_a_rule_or_a_quota() -> None:
    with pytest.raises(TavusValidationError, match=r"^policy: expire: is missing$"):
        Policy.parse({"limits": OFTEN})
    with pytest.raises(TavusValidationError, match=r"^policy: expire: must not be empty"):
        by(expire=[])


def test_policy_of_a_quota_alone_travels_as_json() -> None:
    again = Policy.parse(by().to_json())
    assert (again, again.digest) == (by(), by().digest)
    assert policy(quota=None).to_json() == policy().to_json()


def test_age_of_a_form_below_that_of_the_quota_is_a_problem() -> None:
    (problem,) = by(narrow={"older_than": "29d"}).problems()
    assert problem.startswith("narrow.older_than: 29d is lower than 30d, the age that the policy asks for")
