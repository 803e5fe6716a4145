"""Replicas, decisions and plans that the tests of the package ``rendering`` show, and hostile names."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from tavus_provider.models import Replica
from tavus_provider.planning.plan import make_plan
from tavus_provider.retention.context import Inventory
from tavus_provider.retention.engine import evaluate
from tavus_provider.retention.policy import Policy

NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
POLICY = Policy.parse({"name": "stale", "expire": [{"rule": "old", "older_than": "90d"}]})

HOSTILE_NAMES = [
    pytest.param("**bold** __also__ _so_ `code` ~~x~~ # h", id="markdown"),
    pytest.param("[click](javascript:alert(1)) ![i](https://evil.test/x.png) https://evil.test", id="links"),
    pytest.param("<img src=x onerror=alert(1)>&amp;<!-- -->", id="html"),
    pytest.param("a | b |\n|---|", id="table"),
    pytest.param("ok\n[2026-01-01] INFO - deleted 0\r\n\u2028\u2029\x0b", id="line-breaks"),
    pytest.param("\x1b[2J\x1b[31m\x00\x07", id="terminal-escapes"),
    pytest.param("\u202egpj.exe\u2066\u200f", id="right-to-left"),
    pytest.param("{{ 7*7 }}{% raw %}${x}%(x)s[bold]x[/bold]:smile:", id="templates"),
    pytest.param("::group::hidden", id="log-groups"),
    pytest.param("n" * 2**20, id="1-MiB"),
    pytest.param("山" * 500, id="wide-characters"),
    pytest.param("", id="empty"),
    pytest.param("\ud83d", id="lone-surrogate"),
]


def replica(replica_id, name="anna", days=200):
    created_at = NOW - timedelta(days=days)
    return Replica(replica_id, name, "completed", "user", None, created_at, created_at)


def decide(*replicas, policy=POLICY):
    return evaluate(policy, Inventory(replicas), now=NOW)


def make(*replicas, policy=POLICY):
    """Return a plan for permanent deletes."""
    decision = decide(*replicas, policy=policy)
    return make_plan(decision, policy, now=NOW, hard=True, tavus_conn_id="eu", origin="https://tavusapi.com")


def report_on(plan, **outcomes):
    """Return a report: the given outcomes, and ``deleted`` for the other replicas of the plan."""
    items = [
        {
            "replica_id": row["replica_id"],
            "outcome": outcomes.get(row["replica_id"], "deleted"),
            "detail": "HTTP 200",
        }
        for row in plan["delete"]
    ]
    counts = {"deleted": sum(item["outcome"] == "deleted" for item in items)}
    return {
        "plan_digest": plan["digest"],
        "hard": True,
        "dry_run": False,
        "counts": counts | dict.fromkeys(outcomes.values(), 1),
        "items": items,
    }
