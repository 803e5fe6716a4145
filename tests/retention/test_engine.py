"""The decision: its order, its limits, and what it needs."""

from __future__ import annotations

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from retention.samples import (
    NOW,
    ago,
    conversation,
    decide,
    policy,
    replica,
)

from tavus_provider.exceptions import TavusInvalidResponseError, TavusValidationError
from tavus_provider.models import Persona, Replica
from tavus_provider.retention.checks import CHECKS, KEEPS_SOFT_DELETED
from tavus_provider.retention.context import History, Inventory
from tavus_provider.retention.engine import Decision, evaluate
from tavus_provider.retention.verdict import ReasonCode, Status


def test_decision_is_sorted_and_does_not_depend_on_the_order_of_the_listing() -> None:
    replicas = [
        replica("r_b"),
        replica("r_a"),
        replica("r_old", age=timedelta(days=400)),
        replica("r_undated", created_at=None),
        replica("r_young", age=timedelta(days=1)),
        replica("r_system", replica_type="system"),
        replica("r_safe"),
    ]
    by = policy(keep={"protected_ids": ["r_safe"]})
    expected = ["r_old", "r_a", "r_b", "r_undated", "r_young", "r_system", "r_safe"]
    for _ in range(5):
        random.shuffle(replicas)
        found = decide(*replicas, by=by)
        assert [v.replica.replica_id for v in found.verdicts] == expected
    assert found.listed == 7
    assert [v.replica.replica_id for v in found.delete] == expected[:3]
    assert [v.reason for v in found.undetermined] == ["created_at is not given"]
    assert list(found.keep.items()) == [("not_expired", 1), ("not_user", 1), ("protected", 1)]


def test_empty_account_has_nothing_to_delete() -> None:
    found = decide(by=policy(limits={"max_deletions": 0, "max_deletion_percent": 0}))
    assert (found.listed, found.delete, found.keep, found.limit_exceeded) == (0, (), {}, None)


def test_id_that_is_listed_twice_is_an_error() -> None:
    with pytest.raises(
        TavusInvalidResponseError, match=r"^replica r1 was listed twice; nothing may be deleted$"
    ):
        decide(replica("r1"), replica("r2"), replica("r1", status="error"))


@pytest.mark.parametrize("now", [None, "2026-09-01T12:00:00Z", datetime(2026, 9, 1), 0, NOW.date()])  # noqa: DTZ001
def test_now_without_a_time_zone_is_rejected(now: Any) -> None:
    with pytest.raises(TavusValidationError, match=r"^now: must be a datetime with a time zone, not '"):
        evaluate(policy(), Inventory([]), now=now)


def test_time_zone_of_now_does_not_matter() -> None:
    kiritimati = NOW.astimezone(timezone(timedelta(hours=14)))
    found = evaluate(policy(), Inventory([replica(age=timedelta(days=90))]), now=kiritimati)
    assert found == decide(replica(age=timedelta(days=90)))


class Pendulum(datetime):
    """A datetime that, like pendulum's, has an arithmetic of its own."""

    def __sub__(self, other: object) -> Any:
        raise NotImplementedError

    __rsub__ = __sub__


def test_subclass_of_datetime_with_its_own_arithmetic_decides_the_same() -> None:
    now = Pendulum(2026, 9, 1, 12, tzinfo=UTC)
    used = Inventory((), [], [conversation(at=ago(days=3))], [])
    assert evaluate(policy(), replace(used, replicas=[replica()]), now=now) == decide(replica(), use=used)


LOOSE = {"max_deletions": 1000, "max_deletion_percent": 100}


@pytest.mark.parametrize(
    ("expired", "kept", "limits", "breach"),
    [
        pytest.param(10, 90, {}, None, id="10 by default"),
        pytest.param(
            11, 89, {}, "11 of 100 replicas would be deleted, max_deletions is 10", id="11 by default"
        ),
        pytest.param(5, 15, {}, None, id="exactly 25 percent by default"),
        pytest.param(
            6, 15, {}, "6 of 21 replicas would be deleted, max_deletion_percent is 25", id="28 percent"
        ),
        pytest.param(
            11,
            0,
            {},
            "11 of 11 replicas would be deleted, max_deletions is 10 and max_deletion_percent is 25",
            id="both",
        ),
        pytest.param(0, 5, {"max_deletions": 0, "max_deletion_percent": 0}, None, id="nothing within zero"),
        pytest.param(
            1,
            5,
            {**LOOSE, "max_deletions": 0},
            "1 of 6 replicas would be deleted, max_deletions is 0",
            id="0 allows none",
        ),
        pytest.param(
            1,
            500,
            {**LOOSE, "max_deletion_percent": 0},
            "1 of 501 replicas would be deleted, max_deletion_percent is 0",
            id="0 percent allows none",
        ),
        pytest.param(29, 71, {**LOOSE, "max_deletion_percent": 29}, None, id="29 percent without rounding"),
        pytest.param(7, 0, LOOSE, None, id="100 percent allows all"),
        pytest.param(1, 2, {}, None, id="one of three in a small account"),
        pytest.param(1, 0, {}, None, id="the only one"),
        pytest.param(1, 98, {**LOOSE, "max_deletion_percent": 1}, None, id="one percent of 99 allows one"),
        pytest.param(
            2,
            197,
            {**LOOSE, "max_deletion_percent": 1},
            "2 of 199 replicas would be deleted, max_deletion_percent is 1",
            id="one percent of 199 allows one",
        ),
        pytest.param(
            2,
            2,
            {},
            "2 of 4 replicas would be deleted, max_deletion_percent is 25",
            id="two in a small account",
        ),
        pytest.param(
            1,
            2,
            {"max_deletion_percent": 0},
            "1 of 3 replicas would be deleted, max_deletion_percent is 0",
            id="0 percent allows none in a small account",
        ),
    ],
)
def test_exceeded_limit_is_reported_for_the_whole_decision(
    expired: int, kept: int, limits: dict[str, int], breach: str | None
) -> None:
    replicas = [
        replica(f"r_{n}", age=timedelta(days=100 if n < expired else 1)) for n in range(expired + kept)
    ]
    found = decide(*replicas, by=policy(limits=limits))
    assert len(found.delete) == expired
    tail = ": narrow the policy or raise its limit; nothing was deleted"
    assert found.limit_exceeded == (None if breach is None else breach + tail)


# --- replicas that this package soft-deleted -------------------------------------------------------------


SOFT_DELETED = "soft-deleted by this package 30 days ago, hard_delete_after is 30d"


def hard_decision(*replicas: Replica, held: frozenset[str] = frozenset(), **parts: Any) -> Decision:
    """Decide about permanent deletes; r1, r2 and gone1 were soft-deleted 30 days ago, r3 an hour later."""
    at = ago(days=30)
    soft_deleted = {"r1": at, "r2": at, "gone1": at, "r3": at + timedelta(hours=1)}
    inventory = Inventory(replicas, held=held, history=History(soft_deleted=soft_deleted))
    by = policy({"older_than": "900d"}, hard_delete_after="30d", **parts)
    return evaluate(by, inventory, now=NOW, hard=True)


def test_soft_deleted_replica_is_due_from_its_source_and_without_a_rule() -> None:
    found = hard_decision(replica("r1"), replica("r3"))
    assert [(v.replica.replica_id, v.listed, v.rule, v.source, v.reason) for v in found.delete] == [
        ("gone1", False, None, "soft_deleted", f"{SOFT_DELETED}; no longer listed"),
        ("r2", False, None, "soft_deleted", f"{SOFT_DELETED}; no longer listed"),
        ("r1", True, None, "soft_deleted", SOFT_DELETED),
    ]
    (kept,) = (v for v in found.verdicts if v.replica.replica_id == "r3")
    assert (kept.status, kept.reason_code) == ("kept", "soft_deleted")
    assert found.listed == 2


def test_percentage_counts_soft_deleted_replicas_that_are_no_longer_listed() -> None:
    found = hard_decision(replica("r3"), replica("r4"), limits=LOOSE | {"max_deletion_percent": 49})
    assert (found.listed, found.unlisted, len(found.delete)) == (2, 3, 3)
    assert str(found.limit_exceeded).startswith(
        "3 of 5 replicas would be deleted, max_deletion_percent is 49"
    )
    assert (
        hard_decision(
            replica("r3"), replica("r4"), limits=LOOSE | {"max_deletion_percent": 60}
        ).limit_exceeded
        is None
    )


def test_soft_deleted_replica_that_is_held_protected_or_used_is_not_due() -> None:
    found = hard_decision(replica("r1"), held=frozenset({"r1", "gone1"}), keep={"protected_ids": ["r2"]})
    assert found.delete == ()
    assert [(v.replica.replica_id, v.status, v.next_reason) for v in found.verdicts] == [
        ("gone1", "held", f"hard_delete_after: {SOFT_DELETED}"),
        ("r1", "held", f"hard_delete_after: {SOFT_DELETED}"),
    ]


KEEPS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "held": ({}, {"held": frozenset({"gone1", "r1"})}),
    "erasure_open": ({}, {"erasures": {"gone1": "DSR-1", "r1": "DSR-1"}}),
    "protected": ({"keep": {"protected_ids": ["gone1", "r1"]}}, {}),
    "in_use": ({}, {"personas": [Persona("p1", "gone1"), Persona("p2", "r1")]}),
    "too_young": ({"narrow": {"older_than": "300d"}}, {}),
}
"""For each check that keeps soft-deleted replicas: a policy and an inventory to which it applies."""


def test_there_is_a_case_for_every_check_that_keeps_soft_deleted_replicas() -> None:
    """Two more of them only apply before the permanent delete is due."""
    codes = [check.reason_code for check in KEEPS_SOFT_DELETED]
    assert set(codes) == {*KEEPS, ReasonCode.SOFT_DELETED, ReasonCode.NO_HARD_DELETE_AFTER}


@pytest.mark.parametrize("code", KEEPS)
def test_check_that_keeps_soft_deleted_replicas_stops_their_permanent_delete(code: str) -> None:
    """Whether Tavus still lists them or not."""
    parts, use = KEEPS[code]
    use = {"held": frozenset(), "erasures": {}, "personas": ()} | use
    history = History(soft_deleted=dict.fromkeys(("gone1", "r1"), ago(days=30)), erasures=use["erasures"])
    inventory = Inventory([replica()], held=use["held"], history=history, personas=use["personas"])
    found = evaluate(policy(hard_delete_after="30d", **parts), inventory, now=NOW, hard=True)
    assert found.delete == ()
    verdicts = {verdict.replica.replica_id: verdict for verdict in found.verdicts}
    assert verdicts["r1"].reason_code == code
    assert verdicts.get("gone1", verdicts["r1"]).reason_code == code


@pytest.mark.parametrize(("requested", "listed"), [("R1", "r1"), ("r1", "R1")])
def test_open_erasure_keeps_its_replica_in_any_letter_case(requested: str, listed: str) -> None:
    inventory = Inventory([replica(listed)], history=History(erasures={requested: "DSR-1"}))
    (found,) = evaluate(policy(), inventory, now=NOW, hard=False).verdicts
    assert (found.reason_code, found.reason) == (
        "erasure_open",
        "belongs to the erasure DSR-1, which is open",
    )


def test_only_preferences_yield_to_a_permanent_delete_that_is_due() -> None:
    """Every other check that keeps replicas, such as a new one, keeps soft-deleted ones too."""
    keeping = [check for check in CHECKS if check.status in (Status.HELD, Status.KEPT)]
    assert {check.reason_code for check in keeping} - {check.reason_code for check in KEEPS_SOFT_DELETED} == {
        *(ReasonCode.TRAINING, ReasonCode.FAILED_RECENTLY, ReasonCode.KEEP_WITHIN, ReasonCode.KEEP_LAST)
    }


@pytest.mark.parametrize("narrow", [{"include": ["*"]}, {"exclude": ["vip_*"]}, {"older_than": "1d"}])
def test_form_leaves_out_replicas_that_are_no_longer_listed(narrow: dict[str, Any]) -> None:
    found = hard_decision(replica("r1"), narrow=narrow)
    assert [v.replica.replica_id for v in found.delete] == ["r1"]


def test_form_that_asks_for_an_age_leaves_out_a_younger_soft_deleted_replica() -> None:
    assert not hard_decision(replica("r1", age=timedelta(days=80)), narrow={"older_than": "90d"}).delete
    assert not hard_decision(replica("r1", created_at=None), narrow={"older_than": "90d"}).delete


def test_row_of_a_plan_names_the_source() -> None:
    (_, _, soft_deleted) = hard_decision(replica("r1")).delete
    (by_rule,) = decide(replica("r1")).delete
    assert (by_rule.to_row()["rule"], by_rule.to_row()["source"]) == ("stale", "rule")
    assert (soft_deleted.to_row()["rule"], soft_deleted.to_row()["source"]) == (None, "soft_deleted")
    assert all(type(value) is str for value in (by_rule.to_row()["source"], by_rule.to_json()["status"]))
