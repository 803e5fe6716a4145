"""What ``explain`` says that each check saw of a replica."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from retention.samples import NOW, UNUSED, ago, conversation, policy, replica

from tavus_provider.models import Persona, Replica
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.engine import evaluate, explain
from tavus_provider.retention.policy import Policy


def seen(
    one: Replica, *others: Replica, by: Policy | None = None, use: Inventory = UNUSED, hard: bool = False
) -> dict[str, str]:
    inventory = replace(use, replicas=(one, *others))
    results = explain(by or policy(), inventory, one.replica_id, now=NOW, hard=hard)
    return {result.reason_code: result.seen for result in results}


@pytest.mark.parametrize(
    ("parts", "facts", "check", "expected"),
    [
        pytest.param({}, {}, "not_user", "replica_type is 'user'", id="type"),
        pytest.param({}, {}, "held", "no legal hold", id="no hold"),
        pytest.param(
            {"scope": {"include": ["x*", "demo_*"], "exclude": ["vip_*"]}},
            {},
            "out_of_scope",
            "name matches scope.include 'demo_*'",
            id="patterns",
        ),
        pytest.param(
            {"scope": {"exclude": ["vip_*"]}, "narrow": {"include": ["*_1"]}},
            {},
            "out_of_scope",
            "name matches no pattern of scope.exclude; name matches narrow.include '*_1'",
            id="scope and form",
        ),
        pytest.param(
            {"scope": {"model_names": ["phoenix-4"]}},
            {},
            "out_of_scope",
            "model_name is 'phoenix-4'",
            id="model",
        ),
        pytest.param(
            {"narrow": {"include": ["demo_?"]}},
            {},
            "out_of_scope",
            "name matches narrow.include 'demo_?'",
            id="form",
        ),
        pytest.param({}, {}, "undetermined", "status is 'completed', created on 2026-02-13", id="facts"),
        pytest.param(
            {"keep": {"protected_ids": ["r2"]}}, {}, "protected", "in no list of protected ids", id="lists"
        ),
        pytest.param(
            {"keep": {"in_use": ["persona", "video"]}},
            {},
            "in_use",
            "no persona and no unfinished video has it",
            id="kinds of use",
        ),
        pytest.param({"keep": {"in_use": []}}, {}, "in_use", "keep.in_use is empty", id="no kind of use"),
        pytest.param({}, {"status": "error"}, "failed_recently", "failed 4800 hours ago", id="failure"),
        pytest.param(
            {"keep": {"keep_within": "7d"}}, {}, "keep_within", "200 days old, keep_within is 7d", id="age"
        ),
        pytest.param(
            {"keep": {"keep_last": 2}},
            {"status": "error"},
            "keep_last",
            "takes no place of keep_last: status is 'error'",
            id="no place",
        ),
        pytest.param(
            {"narrow": {"older_than": "100d"}},
            {},
            "too_young",
            "200 days old, narrow.older_than is 100d",
            id="age of the form",
        ),
        pytest.param({}, {}, "scheduled", "rule 'stale' has no grace", id="no grace"),
        pytest.param({}, {}, "expired", "200 days old, limit is 90d", id="rule that matches"),
        pytest.param({}, {}, "not_expired", "rule 'stale' matches", id="rule that matches, later"),
        pytest.param({}, {"status": "started"}, "expired", "no rule matches status 'started'", id="status"),
    ],
)
def test_check_says_what_it_saw(
    parts: dict[str, Any], facts: dict[str, Any], check: str, expected: str
) -> None:
    assert seen(replica(**facts), by=policy(**parts))[check] == expected


def test_place_in_the_group_is_seen_also_beyond_keep_last() -> None:
    by = policy(keep={"keep_last": 2, "group_by": "^(?P<group>[^_]+)_"})
    others = [
        replica(f"r{n}", replica_name=f"acme_{n}", age=timedelta(days=100 * n)) for n in (1, 2, 4, 5, 6)
    ]
    one = replica("r3", replica_name="acme_3", age=timedelta(days=300))
    assert (
        seen(one, *others, by=by)["keep_last"]
        == "number 3 of 6 in group 'acme', newest first, keep_last is 2"
    )


def test_every_rule_is_seen_with_what_it_asks_for() -> None:
    by = policy(
        {"rule": "idle", "unused_for": "90d"}, {"rule": "old", "older_than": "1y"}, {"older_than": "500d"}
    )
    use = Inventory((), conversations=[conversation(at=ago(days=12))])
    assert seen(replica(), by=by, use=use)["expired"] == (
        "used 12 days ago, rule 'idle' asks for 90d; 0 years old, rule 'old' asks for 1y; "
        "200 days old, rule 'rule 3' asks for 500d"
    )


def test_only_five_rules_are_shown() -> None:
    by = policy(*({"rule": f"x{n}", "older_than": f"{900 - n}d"} for n in range(7)))
    found = seen(replica(), by=by)["expired"]
    assert found.count("asks for") == 5
    assert found.endswith("; and 2 more rules")


def test_end_of_grace_is_seen() -> None:
    by = policy({"rule": "old", "older_than": "90d", "grace": "14d"}, name="x")
    use = replace(UNUSED, history=History(scheduled={"r1": ago(days=20)}))
    assert seen(replica(), by=by, use=use)["scheduled"] == "grace of 14d ended on 2026-08-26 at 12:00 UTC"


@pytest.mark.parametrize(
    ("parts", "use", "expected"),
    [
        pytest.param(
            {},
            UNUSED,
            "soft-deleted on 2026-07-23; hard_delete_after is not set",
            id="without hard_delete_after",
        ),
        pytest.param(
            {"hard_delete_after": "60d"},
            UNUSED,
            "soft-deleted by this package 40 days ago, hard_delete_after is 60d",
            id="not yet due",
        ),
        pytest.param(
            {"hard_delete_after": "30d"},
            Inventory((), personas=[Persona("p1", "r1")]),
            "soft-deleted by this package 40 days ago, hard_delete_after is 30d, but in_use: is the default "
            "of persona p1",
            id="in use",
        ),
    ],
)
def test_soft_delete_that_is_not_due_is_seen(parts: dict[str, Any], use: Inventory, expected: str) -> None:
    use = replace(use, history=History(soft_deleted={"r1": ago(days=40)}))
    assert seen(replica(), by=policy(**parts), use=use, hard=True)["hard_delete_after"] == expected


def test_exactly_one_check_decides_and_its_reason_is_what_it_saw() -> None:
    results = explain(policy(), Inventory([replica()]), "r1", now=NOW)
    (deciding,) = [result for result in results if result.decides]
    assert (deciding.reason_code, deciding.seen) == ("expired", deciding.reason)
    assert deciding.to_json() == {
        "status": "expired",
        "reason_code": "expired",
        "reason": "200 days old, limit is 90d",
        "seen": "200 days old, limit is 90d",
        "decides": True,
    }


def test_checks_of_a_decision_end_with_the_one_that_decides() -> None:
    held = replace(UNUSED, replicas=[replica()], held=frozenset({"r1"}))
    decision = evaluate(policy(), held, now=NOW)
    assert decision.checks_of(decision.verdicts[0]) == [
        ("not_user", "replica_type is 'user'"),
        ("out_of_scope", "the scope includes every replica"),
        ("held", "is under legal hold"),
    ]


# --- replicas that are no longer listed (case C4) -------------------------------------------------------


def explain_gone(
    *, hard: bool = True, since: timedelta = timedelta(days=40), held: bool = False, **parts: Any
) -> list[tuple[str, str]]:
    history = History(soft_deleted={"gone1": NOW - since})
    inventory = Inventory([replica()], history=history, held=frozenset({"gone1"} if held else ()))
    results = explain(policy(**parts), inventory, "gone1", now=NOW, hard=hard)
    return [(result.reason_code, result.seen) for result in results if result.decides]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param(
            {"hard_delete_after": "30d"},
            (
                "hard_delete_after",
                "soft-deleted by this package 40 days ago, hard_delete_after is 30d; no longer listed",
            ),
            id="due",
        ),
        pytest.param(
            {"hard_delete_after": "60d"},
            ("soft_deleted", "soft-deleted by this package 40 days ago, hard_delete_after is 60d"),
            id="not yet due",
        ),
        pytest.param(
            {},
            (
                "no_hard_delete_after",
                "soft-deleted by this package on 2026-07-23, and the policy has no hard_delete_after",
            ),
            id="without hard_delete_after",
        ),
        pytest.param(
            {"hard_delete_after": "30d", "hard": False},
            ("soft_deleted", "soft-deleted on 2026-07-23, no longer listed"),
            id="soft plan",
        ),
        pytest.param({"hard_delete_after": "30d", "held": True}, ("held", "is under legal hold"), id="held"),
        pytest.param(
            {"hard_delete_after": "30d", "keep": {"protected_ids": ["gone1"]}},
            ("protected", "is in keep.protected_ids"),
            id="protected",
        ),
        pytest.param(
            {"hard_delete_after": "30d", "narrow": {"include": ["x"]}},
            (
                "out_of_scope",
                "is no longer listed, so it has neither name nor date to check against the form",
            ),
            id="form",
        ),
    ],
)
def test_soft_deleted_replica_that_is_no_longer_listed_is_explained(
    options: dict[str, Any], expected: tuple[str, str]
) -> None:
    assert explain_gone(**options) == [expected]


def test_replica_that_is_neither_listed_nor_soft_deleted_is_not_explained() -> None:
    assert explain(policy(), Inventory([replica()]), "gone1", now=NOW) == []


def test_replica_of_a_quota_whose_status_no_rule_names_says_so():
    rule = {"rule": "young", "status": ["started"], "older_than": "1d"}
    by = policy(rule, quota={"above": 1, "down_to": 1, "older_than": "1d"})
    rows = [replica("r1", age=timedelta(days=300)), replica("r2")]
    results = explain(by, replace(UNUSED, replicas=rows), "r1", now=NOW)
    seen = {one.reason_code: one.seen for one in results}
    assert seen["not_expired"] == "no rule matches status 'completed'"
