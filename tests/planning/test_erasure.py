"""The plan of an erasure: what is deleted, what is not, and why."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tavus_provider.digest import digest_of
from tavus_provider.exceptions import PlanRejectedError, TavusValidationError
from tavus_provider.keys import Kind
from tavus_provider.models import Conversation, Replica, Video
from tavus_provider.planning.erasure import (
    ErasureFacts,
    ErasureOptions,
    check_erasure_plan,
    find_obstacle,
    make_erasure_plan,
)
from tavus_provider.planning.erasure_holds import HoldScope, is_held
from tavus_provider.planning.erasure_request import parse_request
from tavus_provider.planning.plan import verify_digest

NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
ACCOUNT = {"tavus_conn_id": "tavus_default", "origin": "https://tavusapi.com"}
ITEMS = {
    "r1": Replica("r1", "Jane Doe", replica_type="user", created_at=NOW - timedelta(days=9)),
    "video/v1": Video("v1", "r1", None, "ready", NOW),
    "conversation/c1": Conversation("c1", "r1", None, "active", NOW),
    "conversation/c2": Conversation("c2", "r1", None, "ended", NOW),
}


def make(held=(), options=None, request=(), **facts):
    asked = {"request": "DSR-1", "received_on": "2026-11-01", "ground": "request", "replica_ids": ["r1"]}
    asked |= dict(request)
    ids = {kind: asked.pop(kind.ids_name) for kind in Kind if kind.ids_name in asked}
    return make_erasure_plan(
        parse_request(**asked, ids=ids, now=NOW),
        ErasureFacts(**{"items": ITEMS} | facts),
        options=options or ErasureOptions(),
        held=frozenset(held),
        now=NOW,
        **ACCOUNT,
    )


def keys(rows):
    return [row["key"] for row in rows]


def test_everything_made_with_the_replica_belongs_to_the_request():
    plan = make()
    assert keys(plan["delete"]) == list(ITEMS)
    assert [row["reason"] for row in plan["delete"]] == [
        "named in the request",
        *["made with replica r1"] * 3,
    ]
    assert plan["end"] == ["conversation/c1"]
    assert plan["counts"] == {"replica": 1, "video": 1, "conversation": 2}
    assert plan["digest"] == digest_of(plan)
    assert "Jane" not in str(plan)


def test_kinds_that_are_not_named_are_left():
    plan = make(request={"kinds": ["conversation"]})
    assert keys(plan["delete"]) == ["conversation/c1", "conversation/c2"]
    assert keys(plan["left"]) == ["r1", "video/v1"]


@pytest.mark.parametrize(
    ("held", "covers", "expected"),
    [
        (["video/v1"], "item", {"video/v1"}),
        (["v1"], "item", {"video/v1"}),
        (["r1"], "item", {"r1"}),
        (["conversation/v1"], "related", set()),
        (["conversation/c2"], "related", {"conversation/c2", "r1"}),
        (["r1"], "related", set(ITEMS)),
    ],
)
def test_legal_holds(held, covers, expected):
    plan = make(held, ErasureOptions(hold_covers=HoldScope(covers)))
    assert set(keys(plan["held"])) == expected
    assert set(keys(plan["delete"])) == set(ITEMS) - expected
    assert not set(plan["end"]) & expected


def test_held_object_of_another_kind_also_holds_its_replica():
    plan = make(["video/v1"], request={"kinds": ["replica"]})
    assert keys(plan["held"]) == ["r1"]
    assert plan["held"][0]["held_by"] == "video/v1"


def test_hold_on_a_video_whose_row_has_another_letter_case_also_holds_its_replica():
    items = ITEMS | {"video/v1": Video("v1", "R1", None, "ready", NOW)}
    plan = make(["V1"], request={"video_ids": ["v1"]}, items=items)
    assert set(keys(plan["held"])) == {"video/v1", "r1"}


@pytest.mark.parametrize("row", ["video/V1AB", "video V1AB", "video v2 or V1AB"])
def test_hold_on_a_row_without_replica_holds_every_replica_in_any_letter_case(row):
    plan = make(["v1ab"], undetermined={row: "names no replica"})
    assert keys(plan["held"]) == ["r1"]


def test_unreadable_row_under_no_hold_is_not_held():
    assert not is_held("video v1 or v2", frozenset({"v3"}))


@pytest.mark.parametrize("replica_id", ["none", "a b", "video/v1", "x" * 99])
def test_object_with_any_text_in_place_of_its_replica_is_planned(replica_id):
    named = {"replica_ids": [], "video_ids": ["v1"]}
    plan = make(["r1"], request=named, items={"video/v1": Video("v1", replica_id, None, "ready", NOW)})
    assert keys(plan["delete"]) == ["video/v1"]


@pytest.mark.parametrize("accepted", [{}, {"recorded": frozenset({"r2"})}, {"earlier": frozenset({"r2"})}])
def test_unknown_id_is_refused_unless_the_request_had_it(accepted):
    request = {"replica_ids": ["r1", "r2"]}
    facts = {"missing": frozenset({"r2"}), **accepted}
    if accepted:
        assert keys(make(request=request, **facts)["gone"]) == ["r2"]
        return
    with pytest.raises(TavusValidationError, match="Tavus does not know r2"):
        make(request=request, **facts)


def test_soft_deleted_replica_is_sent_although_tavus_does_not_know_it():
    plan = make(
        request={"replica_ids": ["r1", "r2"]},
        missing=frozenset({"r2"}),
        soft_deleted={"r2": NOW - timedelta(days=3)},
    )
    row = plan["delete"][1]
    assert (row["key"], row["is_known"]) == ("r2", False)
    assert "soft-deleted it on 2026-11-25" in row["reason"]


@pytest.mark.parametrize("kind", ["system", None, "user'"])
def test_stock_replica_is_refused(kind):
    with pytest.raises(TavusValidationError, match="r1: not a replica of this account"):
        make(items={"r1": Replica("r1", replica_type=kind)})


def test_undetermined_rows_are_never_deleted():
    rows = {"conversation/c9": "names no replica", "video/v9": "names no replica"}
    plan = make(
        options=ErasureOptions(leave_undetermined=True),
        undetermined=rows,
        suspects=frozenset({"video/v9"}),
    )
    assert keys(plan["delete"]) == list(ITEMS)
    assert [(row["row"], row["is_left"]) for row in plan["undetermined"]] == [
        ("conversation/c9", True),
        ("video/v9", False),
    ]


def test_persona_that_names_a_replica_stops_the_plan():
    references = [{"persona_id": "p1", "replica_id": "r1"}]
    assert "persona p1 (replica r1)" in find_obstacle(make(references=references), deleted=())
    left = make(references=references, options=ErasureOptions(leave_references=True))
    assert find_obstacle(left, deleted=()) is None


@pytest.mark.parametrize(
    ("limits", "deleted", "problem"),
    [
        ({"max_replicas": 0}, (), "the request is about 1 replicas, max_replicas in the DAG file is 0"),
        ({"max_items": 3}, (), "the request is about 4 objects, max_items in the DAG file is 3"),
        ({"max_items": 4}, ("r1",), None),
        ({"max_items": 4}, ("video/v9",), "the request is about 5 objects"),
        ({"max_replicas": 1}, ("r9",), "the request is about 2 replicas"),
    ],
)
def test_limits_are_numbers_and_count_what_the_run_deleted(limits, deleted, problem):
    found = find_obstacle(make(options=ErasureOptions(**limits)), deleted=deleted)
    assert (found is None) == (problem is None)
    assert problem is None or problem in found


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"request": "DSR-2"}, "does not match its digest"),
        ({"kind": "retention"}, "plan.kind must be 'erasure'"),
        ({"delete": None}, "plan.delete must be a list"),
    ],
)
def test_changed_plan_is_rejected(changes, problem):
    with pytest.raises(PlanRejectedError, match=problem):
        check_erasure_plan(make() | changes, now=NOW, **ACCOUNT)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"end": ["conversation/c2", "video/v7"]}, "it ends video/v7, which it does not delete"),
        ({"gone": [{"key": "r1", "reason": ""}]}, "it names an object twice"),
        ({"tavus_conn_id": "other"}, "it is for connection 'other'"),
        ({"valid_until": "2026-11-28T00:00:00Z"}, "it expired at"),
    ],
)
def test_plan_that_must_not_be_carried_out(change, problem):
    plan = make() | change
    plan["digest"] = digest_of(plan)
    with pytest.raises(PlanRejectedError, match=problem):
        check_erasure_plan(plan, now=NOW, **ACCOUNT)


def test_plan_of_the_other_kind_is_rejected_by_name():
    with pytest.raises(PlanRejectedError, match="the plan of an erasure, for ApplyErasureOperator"):
        verify_digest(make())
    with pytest.raises(PlanRejectedError, match=r"plan\.kind is missing"):
        check_erasure_plan({"version": 1, "digest": "0"}, now=NOW, **ACCOUNT)
