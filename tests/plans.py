"""Plans as the tasks of a run leave them: stored, recorded, and approved by a person."""

from __future__ import annotations

from datetime import UTC, datetime

TASK = {"dag_id": "dag", "run_id": "manual__1", "task_id": "plan", "map_index": -1, "try_number": 1}


def authority(plan, **identity):
    from tavus_provider.storage.authority import RunAuthority
    from tavus_provider.storage.ledger import Ledger

    return RunAuthority(Ledger(plan["origin"], plan["tavus_conn_id"]), task=TASK | identity)


def record_plan(plan, **identity):
    """Store a plan and record it as the plan task of a run does. Returns the plan."""
    from tavus_provider.storage.plan_store import store

    store(plan)
    authority(plan, **identity).record_plan(plan)
    return plan


def approve_plan(plan, *, by="alice", answer="approve", trigger=None, **identity):
    """Record that a person saw a plan and answered. Returns the plan."""
    from tavus_provider.storage.authority import Trigger

    task = {"task_id": "approve", **identity}
    authority(plan, **task).record_shown(plan, subject="Delete?", body=plan["digest"])
    authority(plan, **task).record_answer(
        answer,
        person={"id": by, "name": by},
        answered_at=datetime.now(UTC).isoformat(),
        trigger=trigger or Trigger(user="bob"),
    )
    return plan
