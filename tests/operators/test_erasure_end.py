"""Conversations that are active when a person is erased, and what the request does not name."""

from __future__ import annotations

import contextlib

import pytest
from erasures import ACTIVE, FACE, apply_erasure, certify, plan_erasure
from operators.tasks import Ti, requests

from tavus_provider.exceptions import TavusRetryableError

CONVERSATION = ACTIVE.removeprefix("conversation/")
REFUSE_END = {"method": "POST", "status": 404, "times": None}


def rows(sandbox):
    return {row["conversation_id"]: row for row in sandbox.state()["conversations"]}


def test_conversation_that_cannot_be_ended_is_not_deleted(sandbox):
    sandbox.switch(faults=[REFUSE_END])
    plan = plan_erasure()
    ti = Ti()
    with pytest.raises(TavusRetryableError):
        apply_erasure(plan, ti)
    items = {item["key"]: item for item in ti.pushed["return_value"]["items"]}
    assert items[FACE]["outcome"] == "deleted"
    assert items[ACTIVE]["outcome"] == "not_attempted"
    assert "could not be ended: POST /v2/conversations/" in items[ACTIVE]["detail"]
    assert rows(sandbox)[CONVERSATION]["deleted"] is None
    sandbox.switch(faults=[])
    assert apply_erasure(plan, Ti(try_number=2), approve=False)["state"] == "complete"
    assert rows(sandbox)[CONVERSATION] | {"updated_at": 0} == rows(sandbox)[CONVERSATION] | {
        "updated_at": 0,
        "status": "ended",
        "deleted": "hard",
    }


def test_conversation_that_is_active_for_days_is_deleted_although_it_cannot_be_ended(sandbox):
    sandbox.put("conversations", {"conversation_id": CONVERSATION, "age": "2d"})
    sandbox.switch(faults=[REFUSE_END])
    plan = plan_erasure()
    assert apply_erasure(plan)["state"] == "complete"
    assert requests(sandbox, "DELETE")[-1] == f"DELETE /v2/conversations/{CONVERSATION}"


def test_what_the_request_does_not_name_is_not_in_the_certificate_when_it_is_gone(sandbox):
    sandbox.put("videos", {"video_id": "a123456789", "replica_id": FACE, "status": "ready"})
    sandbox.switch(
        cascade="videos", faults=[{"method": "DELETE", "path": "/v2/conversations", "status": 409}]
    )
    kinds = ["replica", "conversation"]
    plan = plan_erasure(kinds=kinds)
    assert [row["key"] for row in plan["left"]] == ["video/a123456789"]
    with pytest.raises(Exception, match="Tavus still returns it"):
        apply_erasure(plan)
    again = plan_erasure(Ti(run_id="two"), kinds=kinds)
    assert [row["key"] for row in again["gone"]] == [FACE]
    apply_erasure(again, Ti(run_id="two"))
    certificate = certify(again, Ti(run_id="two"))
    assert {item["key"] for item in certificate["items"]} == {FACE, ACTIVE}


@pytest.mark.parametrize(
    ("arguments", "is_held"),
    [
        pytest.param({}, True, id="related"),
        pytest.param({"hold_covers": "item"}, False, id="item"),
        pytest.param({"on_undetermined": "leave"}, False, id="decided"),
    ],
)
def test_hold_on_a_row_without_a_replica_holds_the_replicas(sandbox, tmp_path, arguments, is_held):
    sandbox.put("videos", {"video_id": "a123456789", "status": "ready"})
    (tmp_path / "holds.yaml").write_text("[a123456789]")
    holds = {"file": str(tmp_path / "holds.yaml"), "max_age": "7d"}
    plan = plan_erasure(legal_holds=holds, **arguments)
    held = [(row["key"], row["held_by"]) for row in plan["held"]]
    assert held == ([(FACE, "video/a123456789")] if is_held else [])
    (tmp_path / "holds.yaml").write_text("[]")
    plan = plan_erasure(Ti(run_id="two"), legal_holds=holds, **arguments)
    assert FACE in {row["key"] for row in plan["delete"]}
    (tmp_path / "holds.yaml").write_text("[a123456789]")  # after the plan
    ti = Ti(run_id="two")
    with contextlib.suppress(Exception):  # the row without a replica leaves the request incomplete
        apply_erasure(plan, ti)
    items = {item["key"]: item["outcome"] for item in ti.pushed["return_value"]["items"]}
    assert items[FACE] == ("held" if is_held else "deleted")
