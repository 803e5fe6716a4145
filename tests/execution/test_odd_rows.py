"""Plans and their execution against a sandbox with odd rows: the rest is decided, what is unclear is kept."""

from __future__ import annotations

import json

import pytest
from execution.test_executor import ALWAYS, POLICY, account, now

from tavus_provider.exceptions import PlanRejectedError, TavusError, TavusInvalidResponseError
from tavus_provider.execution.inventory import read_inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy

__all__ = ["account"]

OLD = ["old00", "old01", "old02"]


def deleted(tavus) -> list[str]:
    return sorted(delete["replica_id"] for delete in tavus.deletes)


def planned(plan) -> list[str]:
    return sorted(row["replica_id"] for row in plan["delete"])


# -- unreadable replicas


@pytest.mark.parametrize(
    "row",
    [
        pytest.param({"replica_id": "r.1"}, id="dot"),
        pytest.param({"replica_id": "r" * 70}, id="70 characters"),
        pytest.param({"replica_id": "../personas/p1"}, id="path"),
        pytest.param({"replica_id": "x?hard=true"}, id="query"),
        pytest.param({"replica_id": "None"}, id="None"),
        pytest.param({"replica_id": 7}, id="number"),
        pytest.param(None, id="null"),
        pytest.param({"replica_id": "rx", "face_id": "ry", "replica_type": "user"}, id="two ids"),
    ],
)
def test_unreadable_replica_is_shown_and_kept_and_the_rest_is_deleted(account, row):
    tavus = account()
    tavus.sandbox.switch(odd_rows={"replicas": [row]})
    plan = tavus.plan()
    assert (planned(plan), plan["listed"]) == (OLD, 9)
    (shown,) = plan["undetermined"]
    assert shown["reason"].startswith("a row of the listing cannot be read: ")
    items = tavus.apply(plan)
    assert {outcome for outcome, _ in items.values()} == {"deleted"}
    assert deleted(tavus) == OLD
    assert set(tavus.requests("DELETE")) == {f"DELETE /v2/replicas/{i}" for i in OLD}
    hidden = row is None or row == {"replica_id": 7}
    seen = "the list has a row without a readable id, so its absence could not be verified"
    assert items["old00"][1].endswith(seen if hidden else "it is no longer listed")


def test_every_id_that_an_unreadable_row_shows_is_kept(account):
    tavus = account()
    tavus.sandbox.switch(odd_rows={"replicas": [{"replica_id": "old00", "face_id": "old01"}]})
    plan = tavus.plan()
    assert planned(plan) == ["old02"]
    tavus.apply(plan)
    assert deleted(tavus) == ["old02"]


@pytest.mark.parametrize("hard", [False, True])
def test_planned_replica_whose_row_became_unreadable_is_skipped(account, hard):
    tavus = account()
    plan = tavus.plan(hard=hard)
    tavus.sandbox.switch(
        odd_rows={"replicas": [{"replica_id": "old00", "replica_name": "a", "face_name": "b"}]}
    )
    items = tavus.apply(plan)
    assert items["old00"][0] == "skipped"
    assert deleted(tavus) == ["old01", "old02"]


def test_unknown_outcome_is_not_confirmed_by_a_list_with_a_row_without_id(account):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.switch(
        odd_rows={"replicas": [None]},
        faults=[
            {"method": "DELETE", "path": "/v2/replicas/old00", "status": 500, "when": "after", **ALWAYS},
            {"method": "GET", "path": "/v2/replicas/old00", "status": 500, **ALWAYS},
        ],
    )
    items = tavus.apply(plan)
    assert items["old00"][0] == "unknown"
    assert "so its absence could not be verified" in items["old00"][1]


def test_listing_of_another_service_deletes_nothing(account):
    tavus = account()
    plan = tavus.plan()
    for row in OLD:
        tavus.sandbox.put("replicas", {"replica_id": row, "deleted": "hard"})
    tavus.sandbox.switch(odd_rows={"replicas": [{"id": n, "title": "not of Tavus"} for n in range(9)]})
    assert planned(tavus.plan()) == []
    with pytest.raises(PlanRejectedError, match=r"^all 3 planned replicas are no longer listed"):
        tavus.apply(plan)
    assert deleted(tavus) == []


def test_truncated_listing_with_an_unreadable_row_deletes_nothing(account):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.switch(odd_rows={"replicas": [None]}, total_count="high")
    with pytest.raises(TavusError, match="total_count"):
        tavus.apply(plan)
    assert deleted(tavus) == []


# -- unreadable uses


@pytest.mark.parametrize(
    ("kind", "row"),
    [
        pytest.param("personas", {"pal_id": 7, "default_face_id": "old00"}, id="persona"),
        pytest.param("conversations", {"replica_id": "old00", "face_id": "other"}, id="conversation"),
        pytest.param("videos", {"video_id": None, "replica_id": "old00", "status": "ready"}, id="video"),
    ],
)
def test_unreadable_use_keeps_what_it_names(account, kind, row):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.switch(odd_rows={kind: [row]})
    assert planned(tavus.plan()) == OLD[1:]
    items = tavus.apply(plan)
    assert items["old00"][0] == "skipped"
    assert "cannot be read" in items["old00"][1]
    assert deleted(tavus) == OLD[1:]


@pytest.mark.parametrize("kind", ["personas", "conversations", "videos"])
def test_unreadable_use_without_replica_stops_and_says_how_to_continue(account, kind):
    tavus = account()
    plan = tavus.plan()
    tavus.sandbox.switch(odd_rows={kind: [None]})
    for call in (tavus.plan, lambda: tavus.apply(plan)):
        with pytest.raises(TavusInvalidResponseError) as caught:
            call()
        assert f"or take '{kind[:-1]}' out of keep.in_use" in str(caught.value)
    assert deleted(tavus) == []
    others = [one for one in ("persona", "conversation", "video") if one != kind[:-1]]
    tavus.apply(tavus.plan(policy=POLICY | {"keep": {"in_use": others}}))
    assert deleted(tavus) == OLD


# -- conversations


def test_conversation_that_never_ended_does_not_keep_its_replica(account):
    tavus = account()
    tavus.sandbox.put(
        "conversations",
        {"conversation_id": "c1", "replica_id": "old00", "status": "active", "age": "3w", "updated": "3w"},
        {"conversation_id": "c2", "replica_id": "old01", "status": "active", "age": "3w", "updated": "1h"},
        {"conversation_id": "c3", "replica_id": None, "status": "active", "age": "3w", "updated": "2d"},
    )
    plan = tavus.plan()
    assert planned(plan) == ["old00", "old02"]
    reason = next(row["reason"] for row in plan["delete"] if row["replica_id"] == "old00")
    assert reason.endswith(
        "conversation c1 has been active for 504 hours and counts as ended, keep.active_for is 24h"
    )
    tavus.apply(plan)
    assert deleted(tavus) == ["old00", "old02"]


def test_fresh_conversation_without_replica_stops_until_it_ends(account):
    tavus = account()
    tavus.sandbox.put("conversations", {"conversation_id": "c1", "status": "active", "age": "1h"})
    with pytest.raises(TavusInvalidResponseError, match="end that conversation in Tavus, wait until it ends"):
        tavus.plan()
    tavus.sandbox.put("conversations", {"conversation_id": "c1", "status": "ended"})
    assert planned(tavus.plan()) == OLD


# -- JSON, nulls, dates, names


@pytest.mark.parametrize(
    "switch",
    [{"json": oddity} for oddity in ("bom", "nan", "huge", "duplicate")]
    + [{"nulls": "empty"}, {"dates": "blank"}, {"dates": "utc"}],
    ids=str,
)
def test_what_nobody_reads_and_other_ways_to_write_it_do_not_matter(account, switch):
    tavus = account()
    tavus.sandbox.put("personas", {"persona_id": "p1", "default_replica_id": None})
    tavus.sandbox.put("conversations", {"conversation_id": "c1", "replica_id": None, "persona_id": None})
    tavus.sandbox.switch(**switch)
    tavus.apply(tavus.plan())
    assert deleted(tavus) == OLD


def test_epoch_seconds_are_undetermined(account):
    tavus = account()
    tavus.sandbox.switch(dates="epoch")
    plan = tavus.plan()
    assert planned(plan) == []
    assert len(plan["undetermined"]) == 8


@pytest.mark.parametrize(
    "name",
    ["half \ud83d", "nul \0", "\u0301" * 200_000, "x" * 80_000],
    ids=["surrogate", "NUL", "marks", "80 kB"],
)
def test_no_name_breaks_plan_ledger_or_report(account, name):
    tavus = account()
    tavus.sandbox.put("replicas", {"replica_id": "old00", "replica_name": name})
    tavus.sandbox.put("replicas", {"replica_id": "young00", "replica_name": name})
    plan = json.loads(json.dumps(tavus.plan()).encode())
    text = json.dumps(plan, ensure_ascii=False)
    assert "\\u0000" not in text
    assert len(text.encode()) < 20_000
    items = tavus.apply(plan)
    assert {outcome for outcome, _ in items.values()} == {"deleted"}
    assert deleted(tavus) == OLD


def test_replica_that_got_another_unsafe_name_is_skipped(account):
    tavus = account()
    tavus.sandbox.put("replicas", {"replica_id": "old00", "replica_name": "half \ud83d"})
    plan = tavus.plan()
    tavus.sandbox.put("replicas", {"replica_id": "old00", "replica_name": "half \ud83e"})
    assert tavus.apply(plan)["old00"] == ("skipped", "replica_name changed since the plan was made")


def test_exclude_protects_a_replica_whose_name_is_not_safe(account):
    tavus = account()
    tavus.sandbox.put("replicas", {"replica_id": "old00", "replica_name": "half \ud83d_keep"})
    tavus.sandbox.put("replicas", {"replica_id": "old01", "replica_name": "x" * 80_000 + "_keep"})
    policy = Policy.parse(POLICY | {"scope": {"exclude": ["*_keep"]}})
    decision = evaluate(policy, read_inventory(tavus.hook, policy, now=now), now=now())
    assert [verdict.replica.replica_id for verdict in decision.delete] == ["old02"]
