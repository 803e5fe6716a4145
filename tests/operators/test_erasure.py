"""Erase a person: plan, approve, apply, certify, against a sandbox."""

from __future__ import annotations

from erasures import ACTIVE, FACE, apply_erasure, certify, erase, plan_erasure
from operators.tasks import requests


def test_erases_replica_videos_and_conversations(sandbox):
    sandbox.put("videos", {"video_id": "v123456789", "replica_id": FACE, "status": "ready"})
    plan = plan_erasure()
    assert [row["key"] for row in plan["delete"]] == [FACE, "video/v123456789", ACTIVE]
    assert plan["end"] == [ACTIVE]
    report = apply_erasure(plan)
    assert report["state"] == "complete"
    assert report["counts"]["deleted"] == 3
    assert requests(sandbox, "DELETE") == [
        f"DELETE /v2/replicas/{FACE}",
        "DELETE /v2/videos/v123456789",
        "DELETE /v2/conversations/c0eaa60a267274af",
    ]
    certificate = certify(plan)
    assert certificate["state"] == "complete"


def test_whole_run(sandbox):
    assert erase()["state"] == "complete"
