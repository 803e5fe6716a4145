"""Replicas, uses and policies that the tests of the package ``retention`` share."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from tavus_provider.models import Conversation, Replica, Video
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.engine import Decision, evaluate
from tavus_provider.retention.policy import Policy
from tavus_provider.retention.verdict import Verdict

NOW = datetime(2026, 9, 1, 12, tzinfo=UTC)
UNUSED = Inventory(())
SECOND = timedelta(seconds=1)
STALE = {"rule": "stale", "older_than": "90d"}


def ago(**span: float) -> datetime:
    return NOW - timedelta(**span)


def replica(replica_id: str = "r1", *, age: timedelta = timedelta(days=200), **facts: Any) -> Replica:
    known = {
        "replica_name": "demo_1",
        "status": "completed",
        "replica_type": "user",
        "model_name": "phoenix-4",
        "created_at": NOW - age,
    }
    return Replica(replica_id, **{**known, **facts})


def conversation(
    replica_id: str | None = "r1",
    *,
    status: str | None = "ended",
    at: datetime | None = NOW,
    activity_id: str = "c1",
    persona_id: str | None = None,
) -> Conversation:
    return Conversation(activity_id, replica_id, persona_id, status, at)


def video(
    replica_id: str | None = "r1", *, status: str | None, at: datetime | None = NOW, activity_id: str = "v1"
) -> Video:
    return Video(activity_id, replica_id, None, status, at)


def policy(*rules: dict[str, Any], **parts: Any) -> Policy:
    return Policy.parse({"expire": list(rules or [STALE]), **parts})


def decide(*replicas: Replica, by: Policy | None = None, use: Inventory = UNUSED) -> Decision:
    return evaluate(by or policy(), replace(use, replicas=replicas), now=NOW)


def verdict(one: Replica, *, by: Policy | None = None, use: Inventory = UNUSED) -> Verdict:
    (only,) = decide(one, by=by, use=use).verdicts
    return only
