"""What another policy would decide differently."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from retention.test_laws import NOW, decide, deleted, law, listings, policies, uses

from tavus_provider.models import Replica
from tavus_provider.retention.comparison import compare
from tavus_provider.retention.context import Inventory


@law
@given(policies, listings, uses)
def test_policy_does_not_differ_from_itself(
    policy: dict[str, Any], listing: list[Replica], use: Inventory
) -> None:
    assert compare(decide(policy, listing, use), decide(policy, listing, use)) == []


@law
@given(policies, policies, listings, uses)
def test_changes_are_the_difference_between_both_decisions(
    old: dict[str, Any], new: dict[str, Any], listing: list[Replica], use: Inventory
) -> None:
    before, after = decide(old, listing, use), decide(new, listing, use)
    changes = compare(before, after)
    assert {change.replica.replica_id for change in changes if change.is_newly_due} == (
        deleted(after) - deleted(before)
    )
    changed = {change.replica.replica_id for change in changes}
    statuses = {v.replica.replica_id: v.status for v in before.verdicts}
    for verdict in after.verdicts:
        if verdict.replica.replica_id not in changed:
            assert verdict.status == statuses[verdict.replica.replica_id]
    assert [change.is_newly_due for change in changes] == sorted(
        (change.is_newly_due for change in changes), reverse=True
    )


def test_replica_that_only_one_decision_knows_is_a_change() -> None:
    policy = {"expire": [{"older_than": "90d"}]}
    sections: dict[str, Any] = {part: {} for part in ("scope", "narrow", "keep")}
    decision = decide(policy | sections, [Replica("r1", "a", "completed", "user")], Inventory(()))
    none = replace(decision, verdicts=())
    assert [(c.old, c.new is None) for c in compare(none, decision)] == [(None, False)]
    assert [(c.old is None, c.new) for c in compare(decision, none)] == [(False, None)]
    assert NOW
