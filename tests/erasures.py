"""Erasures as the tasks of a run carry them out: plan, approval, apply, certificate."""

from __future__ import annotations

from operators.tasks import Ti, run
from plans import approve_plan

from tavus_provider.operators.tavus import ApplyErasureOperator, CertifyErasureOperator, PlanErasureOperator

FACE = "r09d7f2c4b6a"
"""A replica of the built-in seed with an active conversation."""
ACTIVE = "conversation/c0eaa60a267274af"
REQUEST = {"request": "DSR-2026-0142", "received_on": "2026-11-01", "ground": "request"}


def plan_erasure(ti=None, **arguments):
    """Run the plan task, and return its XCom."""
    ti = ti or Ti()
    operator = PlanErasureOperator(task_id="plan", **REQUEST | {"replica_ids": [FACE]} | arguments)
    return run(operator, ti)


def apply_erasure(plan, ti=None, *, approve=True, **arguments):
    """Approve a plan and run the apply task. Returns the report."""
    ti = ti or Ti()
    if approve:
        approve_plan(plan, run_id=ti.run_id)
    return run(ApplyErasureOperator(task_id="apply", plan=plan, **arguments), ti)


def certify(plan, ti=None, **context):
    """Run the certify task. Returns the certificate."""
    return run(CertifyErasureOperator(task_id="certify", plan=plan), ti or Ti(), **context)


def erase(run_id="manual__1", **arguments):
    """Erase a person in one run. Returns the certificate; raises what the first failing task raises."""
    plan = plan_erasure(Ti(run_id=run_id), **arguments)
    apply_erasure(plan, Ti(run_id=run_id))
    return certify(plan, Ti(run_id=run_id))
